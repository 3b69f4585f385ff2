"""A study's tables from its finished runs: what the report reads, small enough to commit.

The runs of one study may be done on several machines, each with a folder of its own. So collecting combines: what a
table holds of runs that are not here stays in it, if the study still plans them with the same parameters.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gpt2lib.common.checks import one_line
from gpt2lib.common.whole import read_json, write_text, written_together
from gpt2lib.tasks.method import name_in_tables
from gpt2lib.tasks.submission import read_submission

TRIALS = "trials"  # the part of the runs that only try a value for others; they do not count as results
KEYS = ("run", "part", "task", "method", "name", "seed")  # what tells runs apart in their tables
SAMPLES = 2  # sonnets of each run that the report can show
ADAPTER_SETTINGS = ("rank", "alpha", "dropout", "targets", "budget")
OWN = ("history", "missing", "sonnets", "examples", "test", "scores", "rehearsal")  # NAME-x is never a study's name


@dataclass(frozen=True)
class Record:
    """What is known of a finished run: its row of the study's table, as text, and its folder, None if not here."""

    row: dict[str, str]
    folder: Path | None = None

    def is_of(self, other: "Record") -> bool:
        """Whether two rows are of the very same run: a table has empty cells for what some runs do not have."""
        mine, theirs = ({key: value for key, value in record.row.items() if value} for record in (self, other))
        return mine == theirs

    @property
    def score(self) -> tuple[float, float]:
        """How well it did where values are chosen, and minus its loss there: more is better. A run that diverged did
        worst. Rounded as the table is, so that a run here and its row elsewhere choose alike."""
        if self.row.get("diverged") == "True":
            return -math.inf, -math.inf
        metric = self.row["metric"]  # a record without a choice of its own was chosen by what it measured in the end
        value, loss = (
            float(self.row.get(f"selection_{key}") or self.row.get(key) or "nan") for key in (metric, "loss")
        )
        value *= float(self.row["sign"])
        return (-math.inf if math.isnan(value) else value), (0.0 if math.isnan(loss) else -loss)


def parameters_text(parameters: dict) -> str:
    """A run's parameters as they stand in the table, to be compared."""
    return json.dumps(parameters, sort_keys=True)


def read_run(folder: Path) -> Record | None:
    """The record in a run's folder; None if there is none. Raises ValueError, naming the file, if it is damaged."""
    path = folder / "result.json"
    try:
        result = read_json(path)
    except FileNotFoundError:
        return None
    try:
        return _checked(Record(_row(result, folder), folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no record of a run ({type(error).__name__}: {one_line(error)})") from None


def read_table(path: Path, study: str, force: bool = False) -> dict[str, Record]:
    """The rows of a collected table by their runs' names; empty if there is none. Raises ValueError for another file,
    which with `force` counts as none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if not {"run", "study"} <= set(table) or set(table["study"]) - {study} or table["run"].duplicated().any():
            raise ValueError(f"not of the study {study}, one row a run")
        for text in table.get("parameters", ()):
            if text and not isinstance(json.loads(text), dict):
                raise ValueError(f"{text} are no parameters")
    except FileNotFoundError:
        return {}
    except ValueError as error:  # pandas' own errors are
        if force:
            return {}
        raise ValueError(f"{path}: no table of runs ({one_line(error)})") from None
    try:
        return {row["run"]: _checked(Record(row)) for row in table.to_dict("records")}
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: a row is no record of a run ({type(error).__name__}: {one_line(error)})") from None


def _checked(record: Record) -> Record:
    """The record; KeyError or ValueError if it is of a trial and does not say how well that did."""
    if record.row.get("part") == TRIALS:
        record.score  # noqa: B018
    return record


def best_value(trials: Iterable[tuple[object, Record]]):
    """The value with the best mean score over its trials, equal ones by their mean loss; None if all diverged."""
    scores: dict[str, list] = {}
    values = {}
    for value, record in trials:
        values.setdefault(str(value), value)
        scores.setdefault(str(value), []).append(record.score)
    # rounded: equal sums of floats must be equal whatever their order
    mean = {
        key: tuple(
            round(math.fsum(part) / len(part), 9) if all(map(math.isfinite, part)) else -math.inf
            for part in zip(*of, strict=True)
        )
        for key, of in scores.items()
    }
    best = max(mean, key=mean.get)
    return None if mean[best][0] == -math.inf else values[best]


def collect(
    study: str, records: Sequence[Record], folder: Path, missing: Sequence[dict] = (), force: bool = False
) -> Path:
    """Write STUDY.csv (one row a run: settings, metrics, cost, versions) and, of the runs that count, STUDY-history.csv
    (one row an evaluation), STUDY-examples.parquet (one row a run and dev example), STUDY-test.parquet (run, id and
    predicted label for every test example), STUDY-sonnets.json, and one STUDY-TABLE.parquet for each tables/TABLE.csv
    of the runs; and STUDY-missing.csv, the runs that are planned and not done, if any. Returns the path of the first.

    records: of all runs, in order; what belongs to those without a folder is taken from the tables that are there.
    Raises ValueError if there is none, or if rows of the present table would be lost; `force` lets them go.
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
    old = _Tables(study, folder)
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


def _write_sides(counted: Sequence[Record], old: "_Tables", before: dict[str, Record], stem: Path) -> None:
    """The tables beside the main one. stem: their path up to the dash."""
    if histories := _combined(counted, "history.csv", old.csv("history")):
        pd.concat([_as_text(h) for h in histories]).fillna("").to_csv(f"{stem}-history.csv", index=False)
    for name in ("examples", "test", *sorted(old.names | {p.stem for r in counted for p in _tables_of(r)})):
        read, file, keys = _read_csv, f"tables/{name}.csv", ("run", "task", "seed")
        if name == "examples":
            file, keys = "examples.csv", KEYS
        elif name == "test":
            read, file, keys = _read_predictions, "test-predictions.csv", ("run", "task")
        if tables := _combined(counted, file, old.parquet(name), keys, read):
            table = pd.concat(tables)
            table = table[["run", "task", "id", "label"]] if name == "test" else table
            table.to_parquet(f"{stem}-{name}.parquet", index=False, compression="zstd")
    # a score is of the run that it was given to, not of one that was done since in its place
    scores = old.csv("scores")
    same = [r.row["run"] for r in counted if r.row["run"] in before and before[r.row["run"]].is_of(r)]
    if scores := [scores[name] for name in same if name in scores]:
        pd.concat(scores).to_csv(f"{stem}-scores.csv", index=False)
    if sonnets := {r.row["run"]: found for r in counted if (found := _sonnets(r, old.sonnets))}:
        write_text(Path(f"{stem}-sonnets.json"), json.dumps(sonnets, indent=1) + "\n")


class _Tables:
    """The tables beside STUDY.csv that an earlier collection left."""

    def __init__(self, study: str, folder: Path):
        self.study, self.folder = study, folder
        # with a dash more it is of another study, whose name begins like this one's
        tables = [path for path in folder.glob(f"{study}-*.parquet") if "-" not in path.stem[len(study) + 1 :]]
        self.names = {path.stem.rpartition("-")[2] for path in tables} - {"examples", "test"}
        others = [folder / f"{study}-{name}" for name in ("missing.csv", "history.csv", "scores.csv", "sonnets.json")]
        self.files = [path for path in (*tables, *others) if path.is_file()]
        path = folder / f"{study}-sonnets.json"
        self.sonnets = read_json(path) if path in self.files else {}

    def csv(self, name: str) -> dict[str, pd.DataFrame]:
        path = self.folder / f"{self.study}-{name}.csv"
        return _by_run(pd.read_csv(path, dtype=str, keep_default_na=False)) if path in self.files else {}

    def parquet(self, name: str) -> dict[str, pd.DataFrame]:
        path = self.folder / f"{self.study}-{name}.parquet"
        return _by_run(pd.read_parquet(path)) if path in self.files else {}


def _by_run(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return dict(list(table.groupby("run", sort=False))) if "run" in table else {}


def _read_csv(path: Path, row: dict[str, str]) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str}, keep_default_na=False, na_values=[""])


def _read_predictions(path: Path, row: dict[str, str]) -> pd.DataFrame:
    return read_submission(path, row["task"])


def _combined(
    records: Sequence[Record],
    file: str,
    old: dict[str, pd.DataFrame],
    keys: Sequence[str] = KEYS,
    read=_read_csv,
) -> list[pd.DataFrame]:
    """One table of each run that has it, with the columns that tell runs apart: from its folder, or the old one."""
    tables = []
    for record in records:
        if record.folder is None:
            table = old.get(record.row["run"])
        else:
            path = record.folder / file
            table = read(path, record.row) if path.is_file() else None
        if table is not None:
            own = {key: record.row.get(key, "") for key in keys}
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
    written, floors = (read_json(record.folder / name) for name in ("sonnets.json", "floors.json"))
    return {"method": record.row["method"], "sonnets": written[:SAMPLES], "floors": floors}


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: [_text(value) for value in column] for name, column in table.items()})


def _text(value) -> str:
    """A value as it stands in a table: eight digits of a number, nothing for what is not there."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _row(result: dict, folder: Path) -> dict[str, str]:
    result = dict(result)
    int(result.get("seed", 0))  # a number, or no record
    parameters, metrics, versions = (result.pop(key) for key in ("parameters", "metrics", "versions"))
    adapter = dict.fromkeys(ADAPTER_SETTINGS, "")
    if (file := folder / "adapter" / "adapter.json").is_file():  # what was attached: a budget chooses the rank itself
        attached = read_json(file)["spec"] | {"budget": parameters.get("budget", "")}
        adapter |= {key: attached[key] for key in ADAPTER_SETTINGS if key in attached}
    if isinstance(adapter["targets"], list):
        adapter["targets"] = " ".join(adapter["targets"])
    result["name"] = name_in_tables(result["method"], parameters.get("rank"))
    selected = {f"selection_{key}": value for key, value in result.pop("selection", {}).items()}
    row = result | {key: parameters.get(key, "") for key in ("epochs", "max_length")} | adapter | metrics | selected
    row |= {"versions": " ".join(f"{package}-{number}" for package, number in versions.items())}
    row |= {"counts": result["part"] != TRIALS, "parameters": parameters_text(parameters)}
    return {key: _text(value) for key, value in row.items()}
