"""A tenth held out of the training data: the same for all, of every class, and dev untouched."""

from collections import Counter

import pytest

from gpt2lib.data import Example, hold_out, load_task, selection


def test_a_seeded_tenth_of_every_class_is_held_out():
    examples = [Example(str(i), "x", label=i % 3 if i < 60 else 3) for i in range(300)]
    kept, held_out = hold_out(examples)
    assert Counter(e.label for e in held_out) == {0: 2, 1: 2, 2: 2, 3: 24}
    assert sorted(kept + held_out, key=lambda e: int(e.id)) == examples
    assert hold_out(examples) == (kept, held_out)
    assert [e.id for e in held_out] != [e.id for e in examples[: len(held_out)]]
    with pytest.raises(ValueError, match="class 9"):
        hold_out([*examples, Example("300", "x", label=9)])


@pytest.mark.parametrize("task", ["sst", "sonnets"])
def test_what_a_run_is_measured_on_and_what_its_training_sees(task):
    data = load_task(task, "toy", quiet=True)
    assert selection(data, "dev") == (data, data)
    measured, seen = selection(data, "held-out")
    assert measured is data
    assert set(e.id for e in seen.train) | set(e.id for e in seen.dev) == set(e.id for e in data.train)
    assert not {e.id for e in seen.train} & {e.id for e in seen.dev}
    assert len(seen.dev) == pytest.approx(0.1 * len(data.train), rel=0.2)
    trial, seen = selection(data, "held-out", trial=True)
    assert trial is seen and not set(trial.train + trial.dev) & set(data.dev + data.test) and trial.test == []


def test_a_trial_never_looks_at_dev():
    data = load_task("sst", "toy", quiet=True)
    with pytest.raises(ValueError, match="for a trial 'held-out'"):
        selection(data, "dev", trial=True)
    with pytest.raises(ValueError, match="give 'dev' or 'held-out'"):
        selection(data, "test")
