"""Scoring a study's predictions on test files, for whoever holds the labels."""

from pathlib import Path

import pandas as pd

from gpt2lib.common.checks import one_line, shown
from gpt2lib.common.whole import write_table
from gpt2lib.data.tables import check_ids, read_rows, read_text
from gpt2lib.tasks.task import TASKS

LABELS = ("sentiment", "is_duplicate", "label")


def score(predictions: str | Path, labels: str | Path, write: bool = False) -> pd.DataFrame:
    """Test accuracy of every run that predicted the labelled examples.

    predictions: NAME-test.parquet, as `collect` writes it. labels: the course's table with its label column filled:
    tab- or comma-separated, with columns id and sentiment, is_duplicate or label. write: keep the accuracies in
    NAME-scores.csv beside the predictions, with those of other tasks that are there. Returns columns run, task,
    test_accuracy. Raises ValueError for a malformed file, naming file and line, and for labels that are of no run or no
    class of its task.
    """
    predictions, labels = Path(predictions), Path(labels)
    for path in (predictions, labels):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    truth = _read_labels(labels)
    try:
        table = pd.read_parquet(predictions, columns=["run", "task", "id", "label"])
    except (ValueError, OSError) as error:
        raise ValueError(f"{predictions}: no table of predictions ({one_line(error)})") from None
    rows = []
    for (run, task), group in table.groupby(["run", "task"], sort=False):
        if task not in TASKS:
            raise ValueError(f"{predictions}: no task is called {shown(task)}; possible: {', '.join(TASKS)}")
        if set(group["id"]) == set(truth.index):
            classes = range(len(TASKS[task].classes))
            if wrong := set(truth) - set(classes):
                raise ValueError(f"{labels}: {min(wrong)} is no class of {task}; possible: 0 to {classes[-1]}")
            correct = group["label"].to_numpy() == truth.loc[group["id"]].to_numpy()
            rows.append({"run": run, "task": task, "test_accuracy": correct.mean()})
    if not rows:
        raise ValueError(f"{labels}: its {len(truth)} ids are those of no run in {predictions}")
    scored = pd.DataFrame(rows)
    if write:
        _write(predictions, scored)
    return scored


def _write(predictions: Path, scored: pd.DataFrame) -> None:
    path = predictions.with_name(predictions.name.replace("-test.parquet", "-scores.csv"))
    if path == predictions:
        raise ValueError(f"{predictions}: a table that is named NAME-test.parquet says where its scores go")
    if path.is_file():
        old = pd.read_csv(path, dtype={"run": str})
        scored = pd.concat([old[~old["run"].isin(scored["run"])], scored])
    write_table(path, scored, digits=8)


def _read_labels(path: Path) -> pd.Series:
    """Class numbers by id."""
    first_line = read_text(path).partition("\n")[0]
    rows = read_rows(path, separator="\t" if "\t" in first_line else ",")
    header = [name.strip() for name in rows[0][1]] if rows else []
    column = next((name for name in LABELS if name in header), None)
    if "id" not in header or column is None:
        raise ValueError(f"{path}, line 1: needs a column id and one of {', '.join(LABELS)}; it has {shown(header)}")
    ids, values = [], []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} columns, the header has {len(header)}")
        text = row[header.index(column)].strip()
        try:
            value = float(text)  # Quora writes 0.0 and 1.0
            values.append(int(value))
        except (ValueError, OverflowError):
            raise ValueError(f"{path}, line {line}: {column} is {shown(text)}, not a number") from None
        if value != values[-1]:
            raise ValueError(f"{path}, line {line}: {column} is {shown(text)}, not the number of a class")
        ids.append((line, row[header.index("id")].strip()))
    check_ids(ids, path)
    return pd.Series(values, index=[id_ for _, id_ in ids], dtype=int)
