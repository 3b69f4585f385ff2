"""Scoring a study's predictions on test files, for whoever holds the labels."""

from pathlib import Path

import pandas as pd

from gpt2lib.common.whole import write_whole

LABELS = ("sentiment", "is_duplicate", "label")


def score(predictions: str | Path, labels: str | Path) -> pd.DataFrame:
    """Test accuracy of every run that predicted the labelled examples, also written as the column `test_accuracy` of
    the study's table, which lies beside the predictions (NAME.csv beside NAME-test.parquet).

    predictions: NAME-test.parquet, as `collect` writes it. labels: the course's table with its label column filled: tab- or
    comma-separated, with columns id and sentiment, is_duplicate or label. Returns columns run, task, test_accuracy.
    Raises ValueError for a malformed file, naming file and line, and for labels that are of no run.
    """
    predictions, labels = Path(predictions), Path(labels)
    for path in (predictions, labels):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    truth = _read_labels(labels)
    try:
        table = pd.read_parquet(predictions, columns=["run", "task", "id", "label"])
    except (ValueError, OSError) as error:
        raise ValueError(f"{predictions}: no table of predictions ({str(error).splitlines()[0]})") from None
    rows = []
    for (run, task), group in table.groupby(["run", "task"], sort=False):
        if set(group["id"]) == set(truth.index):
            correct = group["label"].to_numpy() == truth.loc[group["id"]].to_numpy()
            rows.append({"run": run, "task": task, "test_accuracy": correct.mean()})
    if not rows:
        raise ValueError(f"{labels}: its {len(truth)} ids are those of no run in {predictions}")
    scored = pd.DataFrame(rows)
    study = predictions.with_name(predictions.name.replace("-test.parquet", ".csv"))
    if study != predictions and study.is_file():
        runs = pd.read_csv(study)
        new = runs["run"].map(scored.set_index("run")["test_accuracy"])
        runs["test_accuracy"] = new.fillna(runs["test_accuracy"]) if "test_accuracy" in runs else new
        write_whole(study, lambda partial: runs.to_csv(partial, index=False, float_format="%.8g"))
    return scored


def _read_labels(path: Path) -> pd.Series:
    """Class numbers by id."""
    with path.open(encoding="utf-8") as file:
        header = file.readline()
    table = pd.read_csv(path, sep="\t" if "\t" in header else ",", dtype=str, skipinitialspace=True)
    table.columns = table.columns.str.strip()
    column = next((name for name in LABELS if name in table), None)
    if "id" not in table or column is None:
        raise ValueError(f"{path}, line 1: needs a column id and one of {', '.join(LABELS)}; it has {list(table)}")
    values = pd.to_numeric(table[column], errors="coerce")
    if values.isna().any():
        line = int(values.isna().idxmax()) + 2
        raise ValueError(f"{path}, line {line}: {column} is {table[column].iloc[line - 2]!r}, not a number")
    if table["id"].duplicated().any():
        line = int(table["id"].duplicated().idxmax()) + 2
        raise ValueError(f"{path}, line {line}: the id {table['id'].iloc[line - 2]!r} occurs twice")
    return pd.Series(values.astype(int).to_numpy(), index=table["id"].str.strip())
