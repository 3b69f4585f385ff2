"""A study's tables from its finished runs: what the report reads, small enough to commit."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from gpt2lib.tasks.method import name_in_tables
from gpt2lib.tasks.submission import read_submission

KEYS = ("run", "part", "task", "method", "name", "seed")  # what tells runs apart in their tables
SAMPLES = 2  # sonnets of each run that the report can show
ADAPTER_SETTINGS = ("rank", "alpha", "dropout", "targets", "budget")


def collect(
    study: str, runs: list[Path], folder: Path, lost: Collection[str] = (), missing: Sequence[dict] = ()
) -> Path:
    """Write STUDY.csv (one row a run: settings, metrics, cost, versions) and, of the runs that count, STUDY-history.csv (one
    row an evaluation), STUDY-examples.parquet (one row a run and dev example), STUDY-test.parquet (run, id and predicted
    label for every test example), STUDY-sonnets.json, and one STUDY-TABLE.parquet for each tables/TABLE.csv of the runs;
    and STUDY-missing.csv, the runs that are planned and not done, if there are any. Returns the path of the first.

    lost: names of the runs that tried a value which another did better with; `counts` is False in their rows.
    Raises ValueError if there is no finished run.
    """
    if not runs:
        raise ValueError(f"no run of {study} is finished; there is nothing to collect")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(run) | {"counts": run.name not in lost} for run in runs]
    pd.DataFrame(rows).to_csv(folder / f"{study}.csv", index=False, float_format="%.8g")
    left = [folder / f"{study}-{name}" for name in ("missing.csv", "history.csv", "sonnets.json")]
    # with a dash more it is of another study, whose name begins like this one's
    left += [path for path in folder.glob(f"{study}-*.parquet") if path.stem.count("-") == study.count("-") + 1]
    for path in left:  # by an earlier collection
        path.unlink(missing_ok=True)
    if missing:
        pd.DataFrame(missing).to_csv(folder / f"{study}-missing.csv", index=False)
    runs, rows = zip(*(pair for pair in zip(runs, rows, strict=True) if pair[1]["counts"]), strict=True)
    if histories := _tables(runs, rows, "history.csv"):
        pd.concat(histories).to_csv(folder / f"{study}-history.csv", index=False, float_format="%.8g")
    if examples := _tables(runs, rows, "examples.csv"):
        pd.concat(examples).to_parquet(folder / f"{study}-examples.parquet", index=False, compression="zstd")
    tests = [
        read_submission(run / "test-predictions.csv", row["task"]).assign(run=run.name, task=row["task"])
        for run, row in zip(runs, rows, strict=True)
        if (run / "test-predictions.csv").is_file()
    ]
    if tests:
        table = pd.concat(tests)[["run", "task", "id", "label"]]
        table.to_parquet(folder / f"{study}-test.parquet", index=False, compression="zstd")
    for name in sorted({path.stem for run in runs for path in (run / "tables").glob("*.csv")}):
        tables = _tables(runs, rows, f"tables/{name}.csv", ("run", "task", "seed"))
        pd.concat(tables).to_parquet(folder / f"{study}-{name}.parquet", index=False, compression="zstd")
    sonnets = {
        run.name: {
            "method": row["method"],
            "sonnets": _json(run / "sonnets.json")[:SAMPLES],
            "floors": _json(run / "floors.json"),
        }
        for run, row in zip(runs, rows, strict=True)
        if (run / "sonnets.json").is_file()
    }
    if sonnets:
        (folder / f"{study}-sonnets.json").write_text(json.dumps(sonnets, indent=1) + "\n", encoding="utf-8")
    return folder / f"{study}.csv"


def _row(run: Path) -> dict:
    result = _json(run / "result.json")
    parameters, metrics, versions = (result.pop(key) for key in ("parameters", "metrics", "versions"))
    adapter = dict.fromkeys(ADAPTER_SETTINGS, "")
    if (file := run / "adapter" / "adapter.json").is_file():  # what was attached: a budget chooses the rank itself
        attached = _json(file)["spec"] | {"budget": parameters.get("budget", "")}
        adapter |= {key: attached[key] for key in ADAPTER_SETTINGS if key in attached}
    if isinstance(adapter["targets"], list):
        adapter["targets"] = " ".join(adapter["targets"])
    result["name"] = name_in_tables(result["method"], parameters.get("rank"))
    selected = {f"selection_{key}": value for key, value in result.pop("selection", {}).items()}
    row = result | {key: parameters.get(key, "") for key in ("epochs", "max_length")} | adapter | metrics | selected
    return row | {"versions": " ".join(f"{package}-{number}" for package, number in versions.items())}


def _tables(runs: list[Path], rows: list[dict], file: str, keys: Sequence[str] = KEYS) -> list[pd.DataFrame]:
    """One of the runs' own tables, of those that have it, each with the columns that tell the runs apart."""
    return [
        pd.read_csv(run / file, dtype={"id": str}).assign(**{key: row[key] for key in keys})
        for run, row in zip(runs, rows, strict=True)
        if (run / file).is_file()
    ]


def _json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))
