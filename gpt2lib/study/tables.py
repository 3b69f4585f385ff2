"""A study's tables from its finished runs: what the report reads, small enough to commit.

The runs of one study may be done on several machines, each with a folder of its own. So collecting combines: what a
table holds of runs that are not here stays in it, if the study still plans them with the same parameters.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from gpt2lib.common.checks import one_line
from gpt2lib.common.whole import read_json, write_text, written_together
from gpt2lib.study.rows import Record, as_text, read_table
from gpt2lib.tasks.submission import read_submission

KEYS = ("run", "part", "task", "method", "name", "seed")  # what tells runs apart in their tables
SAMPLES = 2  # sonnets of each run that the report can show
OWN = ("history", "missing", "sonnets", "examples", "test", "scores", "rehearsal")  # NAME-x is never a study's name


def collect(
    study: str, records: Sequence[Record], folder: Path, missing: Sequence[dict] = (), force: bool = False
) -> Path:
    """Write STUDY.csv (one row a run: settings, metrics, cost, versions) and, of the runs that count, STUDY-history.csv
    (one row an evaluation), STUDY-examples.parquet (one row a run and dev example), STUDY-test.parquet (run, id and
    predicted label for every test example), STUDY-sonnets.json, and one STUDY-TABLE.parquet for each tables/TABLE.csv
    of the runs; and STUDY-missing.csv, the runs that are planned and not done, if any. Returns the path of the first.

    records: of all runs, in order; what belongs to those without a folder is taken from the tables that are there.
    Raises ValueError if there is none, if rows of the present table would be lost, or if runs of one task were made on
    different data; `force` lets them go, and stand.
    """
    if not records:
        raise ValueError(f"no run of {study} is finished; there is nothing to collect")
    main, names = folder / f"{study}.csv", {record.row["run"] for record in records}
    before = read_table(main, study, force)
    if (lost := [name for name in before if name not in names]) and not force:
        raise ValueError(
            f"{main} holds {len(lost)} runs that are neither here nor planned as they were done: "
            f"{', '.join(lost[:3])}{' ...' * (len(lost) > 3)}; --force drops them"
        )
    if (two := _of_different_data(records)) and not force:
        raise ValueError(
            f"{two[0]} and {two[1]} were made on different data of the same task: they compare nothing; do one of them "
            "again, or --force collects both"
        )
    old = _Tables(study, folder, any(record.folder is None for record in records))
    with written_together(folder) as new:
        if missing:
            pd.DataFrame(missing).to_csv(new / f"{study}-missing.csv", index=False)
        _write_sides([record for record in records if record.row["counts"] == "True"], old, before, new / study)
        # the last to appear: it says which rows of the others are meant
        pd.DataFrame([record.row for record in records]).fillna("").to_csv(new / main.name, index=False)
        gone = [path for path in old.files if not (new / path.name).exists()]
    for path in gone:
        path.unlink()
    return main


def _of_different_data(records: Sequence[Record]) -> tuple[str, str] | None:
    """Two runs, one seed apart or one method, whose data were not the same; None if there are none."""
    first: dict[tuple, tuple[str, str]] = {}
    for row in (record.row for record in records):
        given = json.loads(row.get("parameters") or "{}")
        drawn = tuple(str(given.get(name)) for name in ("examples", "select", "trial"))
        if not row.get("data_hash") or not given:
            continue
        run, data = first.setdefault((row.get("task"), row.get("source"), *drawn), (row["run"], row["data_hash"]))
        if data != row["data_hash"]:
            return run, row["run"]
    return None


def _write_sides(counted: Sequence[Record], old: "_Tables", before: dict[str, Record], stem: Path) -> None:
    """The tables beside the main one. stem: their path up to the dash."""
    if histories := _combined(counted, "history.csv", old.csv("history")):
        pd.concat([h.map(as_text) for h in histories]).fillna("").to_csv(f"{stem}-history.csv", index=False)
    for name in ("examples", "test", *sorted(old.names | {p.stem for r in counted for p in _tables_of(r)})):
        read, file, keys = _csv, f"tables/{name}.csv", ("run", "task", "seed")
        if name == "examples":
            file, keys = "examples.csv", KEYS
        elif name == "test":
            read, file, keys = _predictions, "test-predictions.csv", ("run", "task")
        if tables := _combined(counted, file, old.parquet(name), keys, read):
            table = pd.concat(tables)
            table = table[["run", "task", "id", "label"]] if name == "test" else table
            try:
                table.to_parquet(f"{stem}-{name}.parquet", index=False, compression="zstd")
            except (ValueError, TypeError) as error:  # as pyarrow's are
                raise ValueError(f"the {file} of the runs do not make one table ({one_line(error)})") from None
    # a score is of the run that it was given to, not of one that was done since in its place
    scores = old.csv("scores")
    same = [r.row["run"] for r in counted if r.row["run"] in before and before[r.row["run"]].is_of(r)]
    if scores := [scores[name] for name in same if name in scores]:
        pd.concat(scores).to_csv(f"{stem}-scores.csv", index=False)
    if sonnets := {r.row["run"]: found for r in counted if (found := _sonnets(r, old.sonnets))}:
        write_text(Path(f"{stem}-sonnets.json"), json.dumps(sonnets, indent=1) + "\n")


class _Tables:
    """The tables beside STUDY.csv that an earlier collection left. All but the scores are read for what they hold of
    runs that are not here: with all runs here, a damaged table is replaced by a good one."""

    def __init__(self, study: str, folder: Path, needed: bool):
        self.stem, self.needed = folder / study, needed
        # with a dash more it is of another study, whose name begins like this one's
        tables = [path for path in folder.glob(f"{study}-*.parquet") if "-" not in path.stem[len(study) + 1 :]]
        self.names = {path.stem.rpartition("-")[2] for path in tables} - {"examples", "test"}
        others = [folder / f"{study}-{name}" for name in ("missing.csv", "history.csv", "scores.csv", "sonnets.json")]
        self.files = [path for path in (*tables, *others) if path.is_file()]

    @property
    def sonnets(self) -> dict:
        path = Path(f"{self.stem}-sonnets.json")
        return _checked(path, read_json, dict) if self.needed and path in self.files else {}

    def csv(self, name: str) -> dict[str, pd.DataFrame]:
        return self._by_run(f"{name}.csv", lambda path: pd.read_csv(path, dtype=str, keep_default_na=False))

    def parquet(self, name: str) -> dict[str, pd.DataFrame]:
        return self._by_run(f"{name}.parquet", pd.read_parquet)

    def _by_run(self, name: str, read: Callable[[Path], pd.DataFrame]) -> dict[str, pd.DataFrame]:
        path = Path(f"{self.stem}-{name}")
        if path not in self.files or not (self.needed or name == "scores.csv"):
            return {}
        return dict(list(_checked(path, read, pd.DataFrame, "run").groupby("run", sort=False)))


def _checked(path: Path, read: Callable, kind: type, column: str | None = None):
    """What is read from a file, of the kind it should be. Raises ValueError that names the file."""
    try:
        found = read(path)
        if not isinstance(found, kind) or (column and column not in found):
            raise ValueError(f"it is no {kind.__name__}{f' with a column {column}' if column else ''}")
        return found
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError, OverflowError) as error:
        raise ValueError(f"{path}: damaged ({one_line(error)})") from None


def _csv(path: Path, row: dict[str, str]) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str}, keep_default_na=False, na_values=[""])


def _predictions(path: Path, row: dict[str, str]) -> pd.DataFrame:
    return read_submission(path, row["task"])


def _combined(
    records: Sequence[Record],
    file: str,
    old: dict[str, pd.DataFrame],
    keys: Sequence[str] = KEYS,
    read=_csv,
) -> list[pd.DataFrame]:
    """One table of each run that has it, with the columns that tell runs apart: from its folder, or the old one."""
    tables = []
    for record in records:
        row, path = record.row, record.folder and record.folder / file
        if path is None:
            table = old.get(row["run"])
        else:
            table = _checked(path, lambda p, row=row: read(p, row), pd.DataFrame) if path.is_file() else None
        if table is not None:
            own = {key: row.get(key, "") for key in keys}
            if own.get("seed"):
                own["seed"] = int(own["seed"])
            tables.append(table.assign(**own))
    return tables


def _tables_of(record: Record) -> list[Path]:
    return [] if record.folder is None else list((record.folder / "tables").glob("*.csv"))


def _sonnets(record: Record, old: dict) -> dict | None:
    if record.folder is None:
        return old.get(record.row["run"])
    if not (record.folder / "sonnets.json").is_file():
        return None
    written = _checked(record.folder / "sonnets.json", read_json, list)
    floors = _checked(record.folder / "floors.json", read_json, dict)
    return {"method": record.row["method"], "sonnets": written[:SAMPLES], "floors": floors}
