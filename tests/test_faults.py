"""A seeded part of the net of `faults.py`, and that the net catches."""

import time

import pytest
from faults import Net
from faults_disk import disks, kills
from faults_files import files
from faults_models import models


@pytest.mark.parametrize(
    ("kind", "share"),
    [(files, 1), (models, 1), (disks, 0.3), (kills, 0.1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_is_lost(kind, share):
    net = Net(share, say=lambda line: None)
    kind(net)
    assert net.table()[-1]["attempts"] > 0 and not net.lost, "\n".join(net.lost)


def fails(error):
    raise error


@pytest.mark.parametrize(
    ("call", "survives"),
    [
        (lambda folder: None, True),
        (lambda folder: fails(ValueError("a.txt: not good")), True),
        (lambda folder: fails(ValueError("not good")), False),
        (lambda folder: fails(ValueError("a.txt: not good\nand more")), False),
        (lambda folder: fails(ValueError("a.txt: " + "x" * 1000)), False),
        (lambda folder: fails(ValueError("a.txt: try weights_only=False")), False),
        (lambda folder: fails(KeyError("a.txt")), False),
        (lambda folder: fails(AssertionError("a wrong result")), False),
        (lambda folder: time.sleep(60), False),
        (lambda folder: (folder / "left.txt").touch(), False),
        (lambda folder: (folder / "a.txt").write_text("changed"), False),
        (lambda folder: (folder / "a.txt").unlink(), False),
    ],
)
def test_the_net_catches(tmp_path, call, survives):
    (tmp_path / "a.txt").touch()
    net = Net(say=lambda line: None)
    assert net.attempt("kind", "what", lambda: call(tmp_path), names="a.txt", watch=tmp_path, limit=1) == survives
    assert bool(net.lost) != survives and net.table()[-1]["survived"] == survives
    assert not net.attempt("kind", "what", lambda: fails(ValueError("a.txt")), names="a.txt", may_refuse=False)


def test_the_same_seed_makes_the_same_attempts():
    from hypothesis import strategies as st

    drawn = [[], [], []]
    for number, values in enumerate(drawn):
        Net(seed=number // 2).draw(20, st.integers(), values.append)
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 20
