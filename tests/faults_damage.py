"""Strategies of hypothesis that damage files."""

import copy
import json
import struct
from pathlib import Path

from faults import Net
from hypothesis import strategies as st

NASTY = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xe9",
    b"\xef\xbb\xbf",
    b'"',
    b'\t"',
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\t\t",
    b"\\",
    b"{",
]
NASTY += ["\u2028\u0085".encode(), b"nan", b"-1", b"1e400", b"9" * 5000, b"x" * 200_000, b"NA", b"[" * 5000, b"# %%"]
VALUES = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    "",
    "nan",
    "../../evil",
    "x" * 9999,
    [],
    {},
    [[[]]],
    [1] * 999,
]


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Anything, or a valid file cut short, with a piece replaced or put in, or with its lines in another order."""
    piece = st.one_of(st.sampled_from(NASTY), st.binary(max_size=20))
    where = st.integers(0, len(valid))
    return st.one_of(
        st.binary(max_size=200),
        where.map(lambda end: valid[:end]),
        st.tuples(where, st.integers(0, 30), piece).map(
            lambda cut: valid[: cut[0]] + cut[2] + valid[cut[0] + cut[1] :]
        ),
        st.lists(st.sampled_from(valid.splitlines(keepends=True)), max_size=12).map(b"".join),
    )


def damaged_json(valid) -> st.SearchStrategy[bytes]:
    """A JSON file with one value replaced by a strange one, or taken out; or damaged as any file is."""

    def places(value, path=()):
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(place for key, child in children for place in places(child, (*path, key)))]

    def changed(change: tuple) -> bytes:
        path, value, take_out = change
        content = [copy.deepcopy(valid)]  # in a list, so that the whole has a place, too
        *way, last = (0, *path)
        inner = content
        for key in way:
            inner = inner[key]
        if take_out:
            del inner[last]
        else:
            inner[last] = value
        return json.dumps(content[0]).encode() if content else b""

    anything = st.one_of(st.sampled_from(VALUES), st.integers(), st.floats(), st.text(max_size=10))
    change = st.tuples(st.sampled_from(places(valid)), anything, st.booleans())
    return st.one_of(change.map(changed), change.map(changed), damaged(json.dumps(valid, indent=1).encode()))


def damaged_tensors(valid: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file whose header is another JSON, with the right length before it or a wrong one."""
    size = struct.unpack("<Q", valid[:8])[0]
    header, data = json.loads(valid[8 : 8 + size]), valid[8 + size :]
    lengths = st.one_of(st.none(), st.sampled_from([0, 1, size - 1, 2**31, 2**63, 2**64 - 1]))
    whole = st.tuples(damaged_json(header), lengths, st.integers(0, len(data)))
    made = whole.map(lambda w: struct.pack("<Q", len(w[0]) if w[1] is None else w[1]) + w[0] + data[: w[2] or None])
    return st.one_of(made, made, damaged(valid))


def each(net: Net, kind: str, path: Path, examples: int, strategy, read, names: str | None = None, **how) -> None:
    """Attempts to read a file of that name with each of so many contents."""

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        short = content if len(content) < 150 else content[:150] + b"..."
        net.attempt(kind, f"{path.name}: {short}", read, path.name if names is None else names, path.parent, **how)

    net.draw(examples, strategy, attempt)
