"""What is known of a finished run: its record, read from its folder or from a collected table, as one row of text."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gpt2lib.common.checks import one_line
from gpt2lib.common.whole import read_json
from gpt2lib.tasks.method import name_in_tables

TRIALS = "trials"  # the part of the runs that only try a value for others; they do not count as results
ADAPTER_SETTINGS = ("rank", "alpha", "dropout", "targets", "budget")


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


def as_text(value) -> str:
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
    return {key: as_text(value) for key, value in row.items()}
