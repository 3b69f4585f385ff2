"""A part of the training data held out, so that nothing is chosen on dev."""

import random
from dataclasses import replace

from gpt2lib.data.example import Example
from gpt2lib.data.load import TaskData

SHARE = 0.1


def selection(data: TaskData, select: str, trial: bool = False) -> tuple[TaskData, TaskData]:
    """The data that a run is measured on, and the data as its training sees them: `train` is trained on, `dev` chooses
    the learning rate and the epoch.

    select: with "dev" the two are the same; with "held-out" a tenth of the training examples chooses. trial: a run that
    tries a setting is measured there, too, and is not handed the dev and test parts at all. Raises ValueError for
    another word, and for a trial that chooses on dev.
    """
    if select not in ("dev", "held-out") or (trial and select == "dev"):
        raise ValueError(f"select={select!r}, trial={trial}: give 'dev' or 'held-out', for a trial 'held-out'")
    if select == "dev":
        return data, data
    train, held_out = hold_out(data.train)
    seen = replace(data, train=train, dev=held_out, test=[])
    return (seen if trial else data), seen


def hold_out(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """The examples that are kept and those that are held out, of every class the same share and at least one.

    The same examples give the same parts: every method and seed of a study is chosen on the same ones. Raises
    ValueError for a class of one example.
    """
    rng, drawn = random.Random("held out"), set()
    for label in dict.fromkeys(example.label for example in examples):
        numbers = [i for i, example in enumerate(examples) if example.label == label]
        if len(numbers) < 2:
            raise ValueError(f"one example of class {label} is too few to hold out a part")
        drawn |= set(rng.sample(numbers, max(1, round(SHARE * len(numbers)))))
    kept = [example for i, example in enumerate(examples) if i not in drawn]
    return kept, [example for i, example in enumerate(examples) if i in drawn]
