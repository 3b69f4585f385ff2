"""A study's collected tables as the report reads them: checked, and with names that tell its runs' variants apart."""

import json
from pathlib import Path

import pandas as pd

from gpt2lib.tasks import METHODS

NEEDED = (
    "task",
    "method",
    "name",
    "part",
    "counts",
    "base_model",
    "seed",
    "trained_params",
    "seconds",
    "peak_memory_mb",
)


def collected(study: str, results: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Runs, dev examples and history of a study, with the names of `told_apart`.

    Raises FileNotFoundError if it was not collected, and ValueError for a column that is missing.
    """
    path = results / f"{study}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; run `gpt2lib study notebooks/studies/{study}.toml` first")
    runs = pd.read_csv(path)
    if missing := set(NEEDED) - set(runs.columns):
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; collect the study again")
    runs = told_apart(runs)
    names = runs.set_index("run")["name"]
    examples = pd.read_parquet(results / f"{study}-examples.parquet")
    history = pd.read_csv(results / f"{study}-history.csv")
    return runs, *(table.assign(name=table["run"].map(names).fillna(table["name"])) for table in (examples, history))


def told_apart(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, renamed where several of a task have one name and differ in the layers they adapt or in the method's
    own settings: those that have not the most frequent ones are called by theirs, too: "lora up down", "alpha-lora
    every=5"."""
    if "parameters" not in runs:  # of an older collection, which held none that differ so
        return runs
    given = runs["parameters"].fillna("{}").map(json.loads)
    adapts = runs["method"].map(lambda name: name in METHODS and "targets" in METHODS[name].settings)
    own = pd.DataFrame(
        {
            "targets": given.map(lambda p: " ".join(p.get("targets", []))).where(adapts, ""),
            "settings": given.map(lambda p: " ".join(p.get("settings", []))),
        }
    )
    names = runs["name"].copy()
    main = (runs["part"] == "main") & runs["counts"]
    for (task, name), group in runs[main].groupby(["task", "name"]):
        usual = own.loc[group.index].value_counts(sort=True).index[0]
        same = (runs["task"] == task) & (runs["name"] == name)
        for column, most in zip(own, usual, strict=True):
            differs = same & (own[column] != most)
            names[differs] += " " + own.loc[differs, column]
    return runs.assign(name=names)
