"""One [[runs]] entry of a study's file, and the runs that it stands for."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gpt2lib.common.checks import check_name, shown
from gpt2lib.study.notebook import checked, notebook_parameters
from gpt2lib.study.rows import TRIALS

KEYS = {  # of a group, and what each must be
    "notebook": str,
    "name": str,
    "part": str,
    "tune_seeds": list,
    "parameters": dict,
    "grid": dict,
    "tune": dict,
    "trial_parameters": dict,
}
SAME = ("method", "base_model", "rank", "budget")  # what runs share that may take their value from each other's trials
WHAT = {str: "a text", list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Run:
    """One notebook and its parameters; `name` is that of its folder.

    tuned: the parameter that trials choose, "" if none, and which one trials try. trials: the value that each of them
    tries, by name; none for a trial itself. try_also: makes the trials of one more value; most: how many values may be
    tried.
    """

    name: str
    notebook: Path
    parameters: dict
    part: str = "main"
    tuned: str = ""
    trials: dict[str, object] = field(default_factory=dict)
    try_also: Callable[[object], list["Run"]] | None = field(default=None, compare=False, repr=False)
    most: int = 0

    @property
    def reads(self) -> set[str]:
        """The names of the runs whose files it reads."""
        values = [v for v in self.parameters.values() if isinstance(v, str) and v.startswith("run:")]
        return {value.removeprefix("run:").split("/")[0] for value in values}

    @property
    def needs(self) -> set[str]:
        """The names of the runs that must be done before it: whose files it reads, or that try values for it."""
        return self.reads | set(self.trials)

    def beyond(self, best) -> object | None:
        """The value to try next if the best so far is the first or the last of those tried, as far beyond it as its
        neighbour lies on the other side; None if it lies between others, or as many were tried as may be."""
        values = sorted(set(self.trials.values()))
        if not 1 < len(values) < self.most or best not in (values[0], values[-1]):
            return None
        value = float(f"{best * best / (values[1] if best == values[0] else values[-2]):.3g}")
        return value if 0 < value < math.inf and value not in values else None


class Group:
    """One [[runs]] entry of a study's file. beyond: how many numbers may be tried beyond those of `tune`."""

    def __init__(self, content: dict, defaults: dict, folder: Path, where: str, beyond: int = 0):
        if "notebook" not in content or set(content) - set(KEYS):
            raise ValueError(
                f"{where}: give notebook, and optionally others of {sorted(KEYS)}; not {shown(sorted(content))}"
            )
        for key, value in content.items():
            if not isinstance(value, KEYS[key]):
                raise ValueError(f"{where}: {key} must be {WHAT[KEYS[key]]}, not {shown(value)}")
        check_name(f"{where}: notebook", content["notebook"])
        if "name" in content:
            check_name(f"{where}: name", content["name"])
        if content.get("part") == TRIALS:
            raise ValueError(f"{where}: part {TRIALS!r} is for the trials of tune")
        self.where, self.content, self.beyond = where, content, beyond
        self.notebook = folder / f"{content['notebook']}.ipynb"
        if not self.notebook.is_file():
            raise ValueError(f"{where}: there is no notebook {self.notebook}")
        self.known = notebook_parameters(self.notebook)
        self.shared = {key: value for key, value in defaults.items() if key in self.known}
        self.shared |= content.get("parameters", {})
        self.grid, self.tune = content.get("grid", {}), content.get("tune", {})
        self.different = content.get("trial_parameters", {})
        self.elsewhere = next((task for task in self.tune.values() if isinstance(task, str)), "")
        for table, lists in (("grid", self.grid), ("tune", {} if self.elsewhere else self.tune)):
            if empty := [key for key, values in lists.items() if not isinstance(values, list) or not values]:
                raise ValueError(f"{where}: {table}.{empty[0]} must be a list that is not empty")
        if twice := set(self.grid) & set(content.get("parameters", {})):
            raise ValueError(f"{where}: {sorted(twice)} stand in parameters and in grid; give them once")
        self._check_tune()

    def _check_tune(self) -> None:
        if len(self.tune) > 1:
            raise ValueError(f"{self.where}: tune takes one parameter, not {', '.join(self.tune)}")
        first = self.grid.get("seed", [self.shared.get("seed", 0)])[:1]
        self.seeds = self.content.get("tune_seeds", first)
        trials = self.tune and not self.elsewhere
        if not trials and ({"tune_seeds", "trial_parameters"} & set(self.content)):
            raise ValueError(f"{self.where}: tune_seeds and trial_parameters are for the trials of a list in tune")
        if not self.seeds or len({repr(seed) for seed in self.seeds}) < len(self.seeds):
            raise ValueError(f"{self.where}: tune_seeds must be different seeds, not {shown(self.seeds)}")
        if wrong := set(self.tune) & {"seed", *self.grid, *self.different}:
            raise ValueError(f"{self.where}: {sorted(wrong)} cannot be tuned and stand elsewhere, too")
        if wrong := set(self.different) & ({"seed"} | set(self.grid)):
            raise ValueError(
                f"{self.where}: {sorted(wrong)} cannot be among the trial_parameters; tune_seeds and grid say it"
            )

    def runs(self, earlier: list[Run]) -> list[Run]:
        combinations = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        if not self.tune:
            return [self.run(chosen) for chosen in combinations]
        ((tuned, candidates),) = self.tune.items()
        if self.elsewhere:
            return [self.run(chosen, **self.tuning_elsewhere(earlier, tuned, chosen)) for chosen in combinations]
        trials: dict[str, Run] = {}
        runs = []
        for chosen in combinations:
            group = {key: value for key, value in chosen.items() if key != "seed"}
            try_also = partial(self.trials, group, tuned)
            mine = {run.name: run for value in candidates for run in try_also(value)}
            trials |= mine
            values = {run.name: run.parameters[tuned] for run in mine.values()}
            numbers = all(isinstance(value, float) and value > 0 for value in values.values())
            most = len(set(values.values())) + self.beyond if numbers and self.beyond else 0
            runs.append(self.run(chosen, tuned=tuned, trials=values, try_also=try_also, most=most))
        return [run for run in trials.values() if run not in earlier] + runs

    def tuning_elsewhere(self, earlier: list[Run], tuned: str, chosen: dict) -> dict:
        """How an earlier group tunes the same method, base model and size on another task."""

        def key(parameters: dict) -> list:
            return [parameters.get(name) for name in ("task", *SAME)]

        wanted = key(self.shared | chosen | {"task": self.elsewhere})
        for run in earlier:
            if run.tuned == tuned and run.trials and key(run.parameters) == wanted:
                return {name: getattr(run, name) for name in ("tuned", "trials", "try_also", "most")}
        raise ValueError(
            f"{self.where}: tune.{tuned} = {shown(self.elsewhere)}, but no earlier group tries values of {tuned} on "
            f"that task with the same {', '.join(SAME)} as {chosen}"
        )

    def run(self, chosen: dict, tuned: str = "", **tuning) -> Run:
        parameters = checked(self.shared | chosen, self.notebook, self.where)
        parameters.pop(tuned, None)
        name = self.content.get("name") or self.name([*chosen.values()], parameters, tuned)
        return Run(name, self.notebook, parameters, self.content.get("part", "main"), tuned, **tuning)

    def trials(self, chosen: dict, tuned: str, value) -> list[Run]:
        """One for each of `tune_seeds`."""
        runs = []
        for seed in self.seeds:
            parameters = self.shared | chosen | self.different | {tuned: value, "seed": seed}
            parameters = checked(parameters, self.notebook, self.where)
            name = self.name(["trial", *chosen.values(), value, seed], parameters, "")
            runs.append(Run(name, self.notebook, parameters, TRIALS, tuned))
        return runs

    def name(self, chosen: list, parameters: dict, tuned: str) -> str:
        """What tells it apart from its group's other runs, and six digits that tell it apart from all others. It stays
        the same when a notebook gains a parameter, or a value is tried that was not before."""
        everything = [self.content["notebook"], parameters, tuned]
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        return plain_name("-".join([*(str(value)[:40] for value in chosen), digest[:6]]))


def plain_name(name: str) -> str:
    """What is left of a text as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", name).lstrip(".-")
