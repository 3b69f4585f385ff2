"""A study's tables from its finished runs: what the report reads, small enough to commit."""

import json
from pathlib import Path

import pandas as pd

SAMPLES = 2  # sonnets of each run that the report can show
ADAPTER_SETTINGS = ("rank", "alpha", "dropout", "targets")


def collect(name: str, runs: list[Path], folder: Path) -> Path:
    """Write NAME.csv (one row a run: settings, metrics, cost, versions), NAME-history.csv (one row an evaluation),
    NAME-examples.parquet (one row a run and dev example) and NAME-sonnets.json; returns the path of the first.

    Raises ValueError if there is no finished run.
    """
    if not runs:
        raise ValueError(f"no run of {name} is finished; there is nothing to collect")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(run) for run in runs]
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False, float_format="%.8g")
    if histories := _tables(runs, rows, "history.csv"):
        pd.concat(histories).to_csv(folder / f"{name}-history.csv", index=False, float_format="%.8g")
    if examples := _tables(runs, rows, "examples.csv"):
        pd.concat(examples).to_parquet(folder / f"{name}-examples.parquet", index=False, compression="zstd")
    sonnets = {
        run.name: {
            "method": row["method"],
            "sonnets": _json(run / "sonnets.json")[:SAMPLES],
            "floors": _json(run / "floors.json"),
        }
        for run, row in zip(runs, rows, strict=True)
        if (run / "sonnets.json").is_file()
    }
    (folder / f"{name}-sonnets.json").write_text(json.dumps(sonnets, indent=1) + "\n", encoding="utf-8")
    return folder / f"{name}.csv"


def _row(run: Path) -> dict:
    result = _json(run / "result.json")
    parameters, metrics, versions = (result.pop(key) for key in ("parameters", "metrics", "versions"))
    adapted = (run / "adapter").is_dir()
    adapter = {key: parameters.get(key, "") if adapted else "" for key in ADAPTER_SETTINGS}
    if isinstance(adapter["targets"], list):
        adapter["targets"] = " ".join(adapter["targets"])
    row = result | {"epochs": parameters.get("epochs", "")} | adapter | metrics
    return row | {"versions": " ".join(f"{package}-{number}" for package, number in versions.items())}


def _tables(runs: list[Path], rows: list[dict], file: str) -> list[pd.DataFrame]:
    """One of the runs' own tables, of those that have it, each with the columns that tell the runs apart."""
    return [
        pd.read_csv(run / file, dtype={"id": str}).assign(
            **{key: row[key] for key in ("run", "task", "method", "seed")}
        )
        for run, row in zip(runs, rows, strict=True)
        if (run / file).is_file()
    ]


def _json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))
