"""Predictions in the course's format, ready to hand in, and read back."""

from pathlib import Path

import pandas as pd

from gpt2lib.common.whole import write_text
from gpt2lib.data.example import Example
from gpt2lib.tasks.task import TASKS


def write_submission(path: str | Path, task: str, examples: list[Example], predictions: list) -> None:
    """predictions: class numbers, or for the sonnets whole texts, of which the first fourteen lines are written."""
    write_text(Path(path), TASKS[task].submission(examples, predictions))


def read_submission(path: str | Path, task: str) -> pd.DataFrame:
    """A file of predicted classes as `write_submission` wrote it: columns id (text) and label (the class's number)."""
    # the course's header is separated by a tab, its rows by commas
    table = pd.read_csv(path, dtype=str, skipinitialspace=True, skiprows=1, names=["id", "label"])
    numbers = {code: number for number, code in enumerate(TASKS[task].codes)}
    return table.assign(label=table["label"].astype(int).replace(numbers))
