"""Files of every format that gpt2lib reads, damaged at random and by rule."""

import copy
import csv
import io
import json
import lzma
import os
import pickle
import re
import shutil
import struct
import tempfile
from pathlib import Path

import jupytext
import pandas as pd
import torch
from conftest import NOTEBOOK, random_model
from faults import Net
from hypothesis import strategies as st

from gpt2lib import adapters
from gpt2lib.data import glue, pretraining, tokenize, toy
from gpt2lib.data.load import TABLES, read_sonnets, read_table
from gpt2lib.model.base import load_model, load_tokenizer
from gpt2lib.study.board import _line
from gpt2lib.study.notebook import notebook_parameters
from gpt2lib.study.plan import plan
from gpt2lib.study.tables import read_run
from gpt2lib.study.tables import read_table as read_collected
from gpt2lib.tasks.scoring import score
from gpt2lib.training.checkpoint import Checkpoint

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
    "x" * 10_000,
    [],
    {},
    [[[]]],
    [1] * 999,
]
LITERALS = ["5", "-1", "nan", "inf", '""', '"x"', '"../x"', '"run:it/x"', "true", "[]", "[1, 1]", "[1979-05-27]", "{}"]
LITERALS += [
    "9999999999999999999999",
    '["sst"]',
    "[[1]]",
    "1979-05-27T07:32:00Z",
    "{ a = 1 }",
    '{ seed = ["a"] }',
    '"one"',
]
LITERALS += [
    "{ share = [0.5, 0.25] }",
    "{ seed = [0, 1] }",
    '{ share = "sst" }',
    "[0, 1]",
    "{ number = 3 }",
    "{ out = 1 }",
]


def files(net: Net) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate((tables, whole_tables, studies, records, weights, caches, pickles)):
            room = Path(folder) / str(number) / "room"  # what lies beside it would be outside
            room.mkdir(parents=True)
            kind(net, room)


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


def tables(net: Net, room: Path) -> None:
    rows = '0\ta1\tA fine film .\t3\n1\tb2\tA dull one .\t1\n2\tc3\t"a ""quoted"" one"\t0\n'

    def read(path: Path) -> None:
        examples = read_table(path, TABLES["sst"])
        assert len({e.id for e in examples}) == len(examples) and all(e.text and 0 <= e.label < 5 for e in examples)

    path = room / "ids-sst-dev.csv"
    each(net, "tables", path, 40, damaged(f"\tid\tsentence\tsentiment\n{rows}".encode()), lambda: read(path))
    for name, text in {
        "glue/rte": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tC.\tD.\tnot_entailment\n",
        "glue/cola": 'gj04\t1\t\tA "quote.\ngj04\t0\t*\tC.\n',
    }.items():
        path = room / "dev.tsv"
        each(
            net,
            "tables",
            path,
            15,
            damaged(text.encode()),
            lambda name=name: glue.read_tsv(room / "dev.tsv", glue.GLUE[name]),
        )
        path.unlink()
    sonnets = "".join(f"{i}\n\n" + "A line,\n" * 14 for i in (1, 2)).encode()

    def read_poems() -> None:
        poems = read_sonnets(room / "sonnets.txt")
        assert len({e.id for e in poems}) == len(poems) and all(8 <= len(e.text.splitlines()) <= 20 for e in poems)

    each(net, "tables", room / "sonnets.txt", 20, damaged(sonnets), read_poems)
    predictions = room / "study-test.parquet"
    pd.DataFrame({"run": "a", "task": "sst", "id": ["x1", "x2"], "label": [4, 1]}).to_parquet(predictions)

    def read_labels() -> None:
        assert score(predictions, room / "labels.csv")["test_accuracy"].between(0, 1).all()

    each(net, "tables", room / "labels.csv", 20, damaged(b"id,label\nx1,4\nx2,0\n"), read_labels)
    labels = room / "labels.csv"
    labels.write_text("id,label\nx1,4\nx2,0\n")
    each(net, "tables", predictions, 10, damaged(predictions.read_bytes()), read_labels)
    for name in ("part.txt", "part.txt.xz"):
        text = b"a line\nanother\\nof two\n"
        valid = lzma.compress(text) if name.endswith("xz") else text
        each(
            net, "tables", room / name, 10, damaged(valid), lambda name=name: list(pretraining.read_corpus(room / name))
        )


def whole_tables(net: Net, room: Path) -> None:
    """Files that are as they should be, whatever their texts hold: read exactly, and never refused."""
    letters = st.characters(exclude_categories=["Cs"])
    text = st.text(letters, min_size=1, max_size=60).filter(lambda t: t.strip() and not ("\t" in t and "\n" in t))

    def attempt(rows: list[tuple[str, int]]) -> None:
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter="\t", lineterminator="\r\n")
        writer.writerow(["", "id", "sentence", "sentiment"])
        writer.writerows([i, f"id{i}", text, float(label)] for i, (text, label) in enumerate(rows))
        path = room / "ids-sst-dev.csv"
        path.write_bytes(out.getvalue().encode())

        def read() -> None:
            seen = [(e.text, e.label) for e in read_table(path, TABLES["sst"])]
            assert seen == [(text.strip(), label) for text, label in rows], seen

        net.attempt("whole tables", repr(rows), read, watch=room, may_refuse=False)

    net.draw(40, st.lists(st.tuples(text, st.integers(0, 4)), min_size=1, max_size=5), attempt)
    line = st.text(letters, min_size=1, max_size=30).filter(
        lambda t: len(t.splitlines()) == 1 and re.search(r"\D", t.strip())
    )

    def attempt_poem(lines: list[str]) -> None:
        (room / "sonnets.txt").write_bytes(("A title\n\n154\n\n" + "\n".join(lines) + "\n").encode())

        def read() -> None:
            (poem,) = read_sonnets(room / "sonnets.txt")
            assert poem.text.split("\n") == [line.strip() for line in lines]

        net.attempt("whole tables", repr(lines), read, watch=room, may_refuse=False)

    net.draw(20, st.lists(line, min_size=8, max_size=20), attempt_poem)


def studies(net: Net, room: Path) -> None:
    notebook = jupytext.reads(NOTEBOOK, "py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    (room / "studies").mkdir()
    jupytext.write(notebook, room / "one.ipynb")
    path = room / "studies" / "study.toml"

    def read() -> None:
        runs = plan(path)
        names = [run.name for run in runs]
        assert len(set(names)) == len(names)
        for run in runs:
            assert run.needs <= set(names) and (room / run.name).resolve().parent == room.resolve()

    keys = ["name", "part", "tune_seeds", "parameters", "grid", "tune", "trial_parameters", "notebook"]
    chosen = st.dictionaries(st.sampled_from(keys), st.sampled_from(LITERALS), max_size=4)
    made = chosen.map(
        lambda d: "\n".join(["[[runs]]", *(f"{k} = {v}" for k, v in ({"notebook": '"one"'} | d).items())])
    )
    each(net, "studies", path, 60, made.map(str.encode), read)
    top = st.tuples(st.sampled_from(["runs", "defaults", "other"]), st.sampled_from(LITERALS))
    each(net, "studies", path, 10, top.map(lambda t: f"{t[0]} = {t[1]}\n".encode()), read)
    valid = (
        b'[defaults]\nseed = 7\n[[runs]]\nnotebook = "one"\ngrid = { mode = ["good", "fine"], share = [0.25, 0.75] }\n'
    )
    each(net, "studies", path, 30, damaged(valid), read)
    path.write_bytes(valid)
    whole = json.loads((room / "one.ipynb").read_text())

    def read_notebook() -> None:
        notebook_parameters.cache_clear()
        read()

    each(net, "studies", room / "one.ipynb", 20, damaged_json(whole), read_notebook, names=str(room))


def records(net: Net, room: Path) -> None:
    result = {
        "study": "s",
        "run": "room",
        "part": "trials",
        "notebook": "one",
        "task": "sst",
        "method": "lora",
        "seed": 0,
    }
    result |= {"metric": "accuracy", "sign": 1, "metrics": {"accuracy": 0.5, "loss": 1.2}, "versions": {"torch": "2"}}
    result |= {"parameters": {"rank": 4, "targets": ["q"]}, "selection": {"accuracy": 0.4, "loss": 1.3}}

    def read() -> None:
        if (record := read_run(room)) is not None:
            trial = record.row["part"] == "trials"
            assert (not trial or len(record.score) == 2) and all(
                isinstance(value, str) for value in record.row.values()
            )

    each(net, "records", room / "result.json", 40, damaged_json(result), read)
    (room / "result.json").write_text(json.dumps(result))
    (room / "adapter").mkdir()
    attached = {"spec": {"rank": 4, "alpha": 8.0, "targets": ["q", "v"]}, "base": "x"}
    each(net, "records", room / "adapter" / "adapter.json", 10, damaged_json(attached), read, names="result.json")
    table = b'study,run,part,counts,parameters\nstudy,a,main,True,"{""rank"": 4}"\nstudy,b,main,True,{}\n'
    path = room / "study.csv"
    each(net, "records", path, 30, damaged(table), lambda: read_collected(path, "study"))
    progress = {"step": 3, "steps": 9, "loss": 0.5, "tokens_per_second": 7.0, "seconds_left": 60.0}

    def shown() -> None:
        assert isinstance(_line("run", room), str)

    each(net, "records", room / "progress.json", 20, damaged_json(progress), shown, may_refuse=False)


def weights(net: Net, room: Path) -> None:
    """Models and adapters: a file of another kind is refused, and leaves the model as it was."""
    for family in ("gpt2", "llama"):
        model = random_model(family=family)
        ids = torch.randint(61, (1, 5), generator=torch.Generator().manual_seed(0))
        folder = room / family
        model.save_pretrained(folder)

        def whole(folder=folder, ids=ids) -> None:
            assert load_model(folder)(ids).shape[:2] == ids.shape

        for name, damage in (("config.json", damaged_json), ("model.safetensors", damaged_tensors)):
            path = folder / name
            valid = path.read_bytes()
            made = damage(json.loads(valid) if name.endswith("json") else valid)
            each(net, "models", path, 30, made, whole, names=str(folder))
            path.write_bytes(valid)
        adapters.attach(model, adapters.LoRA(rank=2))
        with torch.no_grad():
            for p in adapters.adapter_parameters(model).values():
                p.normal_()
        before = model(ids).clone()
        adapters.save(model, room / f"{family}-adapter")
        adapters.to_peft(model, room / f"{family}-peft")

        def attached(load, folder, model=model, ids=ids, before=before) -> None:
            try:
                load(model, folder)
            except Exception:
                assert torch.equal(model(ids), before), "the adapter that was attached is gone"
                raise
            finally:  # back to the one that was attached
                good = room / f"{type(model).__name__.lower()}-good"
                adapters.load(model, good)

        shutil.copytree(room / f"{family}-adapter", room / f"{type(model).__name__.lower()}-good")
        for end, load, files in (
            ("adapter", adapters.load, ("adapter.json", "adapter.safetensors")),
            ("peft", adapters.from_peft, ("adapter_config.json", "adapter_model.safetensors")),
        ):
            folder = room / f"{family}-{end}"
            for name in files:
                path = folder / name
                valid = path.read_bytes()
                made = damaged_json(json.loads(valid)) if name.endswith("json") else damaged_tensors(valid)
                each(net, "adapters", path, 20, made, lambda a=attached, b=load, c=folder: a(b, c), names=str(folder))
                path.write_bytes(valid)


def caches(net: Net, room: Path) -> None:
    """What a cache holds may be damaged by anybody; it is made again, and the result is the right one."""
    texts, tokenizer, before = ["A fine film .", "Dull ."], load_tokenizer("gpt2-mini"), os.environ.get("GPT2LIB_CACHE")
    os.environ["GPT2LIB_CACHE"] = str(room)
    try:
        ids = tokenize(texts, tokenizer)
        (path,) = (room / "tokens").iterdir()

        def same() -> None:
            assert tokenize(texts, tokenizer) == ids

        def attempt(content: bytes) -> None:
            path.write_bytes(content)
            net.attempt("caches", f"tokens: {content[:80]}", same, may_refuse=False)

        net.draw(20, damaged(path.read_bytes()), attempt)
    finally:
        os.environ.pop("GPT2LIB_CACHE") if before is None else os.environ.__setitem__("GPT2LIB_CACHE", before)
    folder = toy.write(room / "toy", 0.02)
    good = {file.name: file.read_bytes() for file in folder.iterdir()}

    def again() -> None:
        assert {file.name: file.read_bytes() for file in toy.write(folder, 0.02).iterdir()} == good

    def spoil(change: tuple[str, bytes]) -> None:
        (folder / change[0]).write_bytes(change[1])
        net.attempt("caches", f"toy data: {change[0]}", again, may_refuse=False)

    net.draw(10, st.tuples(st.sampled_from(sorted(good)), st.binary(max_size=50)), spoil)
    tokenizer_folder = room / "tokenizer"
    tokenizer.save_pretrained(tokenizer_folder)
    path = tokenizer_folder / "tokenizer.json"
    small = json.loads(path.read_text())
    small["model"]["merges"], small["model"]["vocab"] = [], dict(list(small["model"]["vocab"].items())[:300])

    def load() -> None:
        load_tokenizer(tokenizer_folder)("a text")

    (tokenizer_folder / "config.json").write_text('{"model_type": "gpt2"}')
    each(net, "caches", path, 15, damaged_json(small), load, names=str(tokenizer_folder))


class Malicious:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.unlink, (str(self.victim),)


def pickles(net: Net, room: Path) -> None:
    """Checkpoints and pickled weights: damaged, junk, and such as would run a command."""
    victim, inside = room.parent / "victim", room / "run"
    victim.touch()
    checkpoint = Checkpoint(inside, {"settings": "x"}, writes=True)
    checkpoint.save(trained={"a": torch.zeros(3)}, progress={"step": 1})
    path = inside / "checkpoint.pt"
    valid = path.read_bytes()

    def load() -> None:
        state = checkpoint.load()
        assert victim.exists() and set(state) == {"trained", "progress", "identity"}

    odd = io.BytesIO()
    torch.save(["no", "dictionary"], odd)
    others = [pickle.dumps(Malicious(victim)), pickle.dumps(1), odd.getvalue()]
    each(net, "pickles", path, 30, st.one_of(damaged(valid), st.sampled_from(others)), load)
    for content in others:
        path.write_bytes(content)
        net.attempt("pickles", f"checkpoint.pt: {content[:60]}", load, names=path.name, watch=room)
    folder = room / "model"
    random_model().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"

    def load_pickle(allowed: bool) -> None:
        from gpt2lib import GPT2

        try:
            GPT2.from_pretrained(folder, allow_pickle=allowed)
        finally:
            assert victim.exists(), "the pickle ran a command"

    for content in (*others, b"", valid[:100], valid):
        path.write_bytes(content)
        for allowed in (False, True):
            what = f"pytorch_model.bin, allow_pickle={allowed}: {content[:60]}"
            net.attempt(
                "pickles", what, lambda allowed=allowed: load_pickle(allowed), names="pytorch_model", watch=room
            )
