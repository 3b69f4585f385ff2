"""A study's collected tables as the report reads them: checked, and with names that tell its runs' variants apart."""

import json
from pathlib import Path

import pandas as pd

from gpt2lib.common.checks import check_name, one_line
from gpt2lib.tasks import METHODS, TASKS

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

    Raises FileNotFoundError if it was not collected, and ValueError for a damaged table, one that lacks a column, or a
    study without a run that the report could be about.
    """
    check_name("a study", study)
    path = results / f"{study}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; run `gpt2lib study notebooks/studies/{study}.toml` first")
    runs = _table(path)
    if missing := set(NEEDED) - set(runs.columns):
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; collect the study again")
    if not ((runs["part"] == "main") & runs["counts"] & runs["task"].isin(TASKS)).any():
        raise ValueError(f"{path}: no run is in the part main and of a task that the report is about")
    runs = told_apart(runs, missing_runs(study, results))
    names = runs.set_index("run")["name"]
    sides = [_table(results / f"{study}-{name}") for name in ("examples.parquet", "history.csv")]
    return runs, *(table.assign(name=table["run"].map(names).fillna(table["name"])) for table in sides)


def missing_runs(study: str, results: Path) -> pd.DataFrame:
    """The study's runs that are planned and not done: columns run, part, notebook, task, parameters. Empty if all are.

    Raises ValueError for a damaged table.
    """
    path = results / f"{study}-missing.csv"
    columns = ["run", "part", "notebook", "task", "parameters"]
    return _table(path).reindex(columns=columns) if path.is_file() else pd.DataFrame(columns=columns)


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path}, which belongs to the study's table; collect it again") from None
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own
        raise ValueError(f"{path}: damaged ({one_line(error)}); collect the study again") from None


def told_apart(runs: pd.DataFrame, to_come: pd.DataFrame | None = None) -> pd.DataFrame:
    """The runs, renamed where several of a task and base model have one name and differ in the layers they adapt or in
    the method's own settings: those that have not the most frequent ones are called by theirs, too: "lora up down",
    "alpha-lora every=5". What is planned counts as well (to_come: of `missing_runs`), so that a name does not hang on
    what was done first; of as frequent ones the most layers and the fewest settings are usual."""
    if "parameters" not in runs:  # of an older collection, which held none that differ so
        return runs
    own = _own(runs["parameters"].fillna("{}").map(json.loads), runs["method"])
    names = runs["name"].copy()
    main = (runs["part"] == "main") & runs["counts"]
    planned = own[main].assign(task=runs["task"], method=runs["method"])
    if to_come is not None and len(to_come := to_come[(to_come["part"] == "main") & to_come["parameters"].notna()]):
        given = to_come["parameters"].map(json.loads)
        method = given.map(lambda p: p.get("method", ""))
        planned = pd.concat([planned, _own(given, method).assign(task=to_come["task"], method=method)])
    for (task, name, method), group in runs[main].groupby(["task", "name", "method"]):
        kinds = planned[(planned["task"] == task) & (planned["method"] == method)][list(own)].value_counts()
        targets, settings = max(
            kinds.index, key=lambda kind: (kinds[kind], len(kind[0].split()), -len(kind[1].split()))
        )
        same = (runs["task"] == task) & (runs["name"] == name) & runs["base_model"].isin(group["base_model"])
        for column, usual in (("targets", targets), ("settings", settings)):
            differs = same & (own[column] != usual)
            names[differs] += " " + own.loc[differs, column].replace("", "default")
    return runs.assign(name=names)


def _own(given: pd.Series, method: pd.Series) -> pd.DataFrame:
    """Of each run's parameters the layers that it adapts and the method's own settings, as texts."""
    adapts = method.map(lambda name: name in METHODS and "targets" in METHODS[name].settings)
    targets = given.map(lambda p: " ".join(p.get("targets", []))).where(adapts, "")
    return pd.DataFrame({"targets": targets, "settings": given.map(lambda p: " ".join(p.get("settings", [])))})
