"""What a study asks for: its TOML file, read and checked before anything starts, as a list of runs.

A study is a TOML file:

    [defaults]                      # parameters for every notebook that has them
    [[runs]]
    notebook = "07_sentiment"       # in the folder above the study's file
    name = "base"                   # optional, for a single run that others refer to
    part = "glue"                   # optional, where the report shows these runs; "main" without it
    [runs.parameters]               # the same for all runs of this group; "run:base/x" is the path of x in run "base"
    [runs.grid]                     # lists: one run for each combination
    [runs.tune]                     # one list, such as lr: the first seed tries each, the other seeds take the best on dev;
                                    # or a task, such as lr = "sst": take what the same method's trials there chose
"""

import ast
import hashlib
import itertools
import json
import tomllib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from gpt2lib.tasks.parameters import method_of

KEYS = {"notebook", "name", "part", "parameters", "grid", "tune"}
SAME = ("method", "base_model", "rank", "budget")  # what runs share that may take their value from each other's trials
TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}


@dataclass(frozen=True)
class Run:
    """One notebook and its parameters; `name` is that of its folder.

    tuned: the parameter that is chosen by earlier runs, "" if none; trials: the value that each of them tried, by name.
    A run that is itself one of the trials has them all, too.
    """

    name: str
    notebook: Path
    parameters: dict
    part: str = "main"
    tuned: str = ""
    trials: dict[str, object] = field(default_factory=dict)

    @property
    def needs(self) -> set[str]:
        """The names of the runs that must be done before it: whose files it reads, or that try values for it."""
        values = [v for v in self.parameters.values() if isinstance(v, str) and v.startswith("run:")]
        waits = set() if self.name in self.trials else set(self.trials)
        return waits | {value.removeprefix("run:").split("/")[0] for value in values}


def plan(path: str | Path) -> list[Run]:
    """The runs of a study. Raises ValueError for a malformed file or a parameter that its notebook does not have."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no study {path}")
    try:
        study = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if unknown := set(study) - {"defaults", "runs"}:
        raise ValueError(f"{path}: unknown table {sorted(unknown)}; possible: defaults, runs")
    defaults, runs, used = study.get("defaults", {}), [], set()
    for number, content in enumerate(study.get("runs", []), start=1):
        group = _Group(content, defaults, path.parent.parent, f"{path}, group {number}")
        runs += group.runs(runs)
        used |= set(defaults) & set(group.known)
    if unused := set(defaults) - used:
        raise ValueError(f"{path}: no notebook of this study has the parameter {sorted(unused)}")
    if not runs:
        raise ValueError(f"{path}: there is no [[runs]] in it")
    names = [run.name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: two runs are the same: {sorted(twice)}")
    for run in runs:
        if missing := run.needs - set(names):
            raise ValueError(f"{path}: {run.name} needs a run named {sorted(missing)}; there are: {', '.join(names)}")
    return runs


def rehearsal(runs: list[Run]) -> list[Run]:
    """Each different combination of notebook, method and base model once, for two updates on a handful of toy data and
    random weights: what would fail after hours on a cluster fails here in minutes. GLUE, which has no toy data, is left
    out, and so is a notebook that cannot be cut short.
    """
    short = {"source": "toy-few", "epochs": 1, "max_steps": 2, "batch_size": 4, "precision": "float32"}
    short |= {"draws": 1, "max_new_tokens": 16}
    chosen: dict[tuple, Run] = {}
    for run in runs:
        known = default_values(notebook_parameters(run.notebook))
        given = known | run.parameters
        key = (run.notebook, given.get("method"), given.get("base_model"))
        if "max_steps" not in known or str(given["task"]).startswith("glue/"):
            continue
        parameters = run.parameters | {k: v for k, v in short.items() if k in known}
        parameters |= {"base_model": f"untrained:{given['base_model']}", "examples": 0}
        name = "-".join(str(part) for part in (given["task"], *key[1:]))
        chosen.setdefault(key, Run(name, run.notebook, parameters))
    return list(chosen.values())


class _Group:
    """One [[runs]] entry of a study's file."""

    def __init__(self, content: dict, defaults: dict, folder: Path, where: str):
        if "notebook" not in content or set(content) - KEYS:
            raise ValueError(f"{where}: give notebook, and optionally others of {sorted(KEYS)}; not {sorted(content)}")
        self.where, self.content = where, content
        self.notebook = folder / f"{content['notebook']}.ipynb"
        if not self.notebook.is_file():
            raise ValueError(f"{where}: there is no notebook {self.notebook}")
        self.known = notebook_parameters(self.notebook)
        self.shared = {key: value for key, value in defaults.items() if key in self.known}
        self.shared |= content.get("parameters", {})
        self.grid, self.tune = content.get("grid", {}), content.get("tune", {})
        self.elsewhere = next((task for task in self.tune.values() if isinstance(task, str)), "")
        for table, lists in (("grid", self.grid), ("tune", {} if self.elsewhere else self.tune)):
            if empty := [key for key, values in lists.items() if not isinstance(values, list) or not values]:
                raise ValueError(f"{where}: {table}.{empty[0]} must be a list that is not empty")
        if len(self.tune) > 1 or (self.tune and not self.elsewhere and list(self.grid)[-1:] != ["seed"]):
            raise ValueError(
                f"{where}: tune takes one parameter, and the last entry of the grid must be seed: its first value tries "
                "every value of that parameter, the others take the best"
            )

    def runs(self, earlier: list[Run]) -> list[Run]:
        combinations = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        if not self.tune:
            return [self.run(chosen) for chosen in combinations]
        runs, trials = [], {}
        ((tuned, candidates),) = self.tune.items()
        if self.elsewhere:
            return [self.run(chosen, tuned, self.trials_elsewhere(earlier, tuned, chosen)) for chosen in combinations]
        for chosen in combinations:
            if chosen["seed"] == self.grid["seed"][0]:
                tried = [self.run(chosen | {tuned: candidate}) for candidate in candidates]
                trials = {run.name: run.parameters[tuned] for run in tried}
                runs += [replace(run, tuned=tuned, trials=trials) for run in tried]
            else:  # seed varies fastest: the trials are those of the same combination
                runs.append(self.run(chosen, tuned=tuned, trials=trials))
        return runs

    def trials_elsewhere(self, earlier: list[Run], tuned: str, chosen: dict) -> dict:
        """The trials of an earlier group on another task that had the same method, base model and size."""

        def key(parameters: dict) -> list:
            return [parameters.get(name) for name in ("task", *SAME)]

        wanted = key(self.shared | chosen | {"task": self.elsewhere})
        for run in earlier:
            if run.tuned == tuned and key(run.parameters) == wanted:
                return run.trials
        raise ValueError(
            f"{self.where}: tune.{tuned} = {self.elsewhere!r}, but no earlier group tries values of {tuned} on that task "
            f"with the same {', '.join(SAME)} as {chosen}"
        )

    def run(self, chosen: dict, tuned: str = "", trials: dict | None = None) -> Run:
        parameters = self.shared | chosen
        _check_parameters(parameters, self.known, self.where)
        given = default_values(self.known) | parameters
        if "method" in given:
            try:
                method_of(given | {"budget": 0})
            except ValueError as error:
                raise ValueError(f"{self.where}: {error}") from None
        # the notebook's defaults belong to it: a run under another default is another run
        everything = [self.content["notebook"], given, *(trials or {}).items()]
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        name = "-".join([*(str(value).replace("/", "-").replace(":", "-") for value in chosen.values()), digest[:6]])
        name = self.content.get("name", name)
        return Run(name, self.notebook, parameters, self.content.get("part", "main"), tuned, trials or {})


@lru_cache
def notebook_parameters(notebook: Path) -> dict:
    """The parameters of a notebook by name, with their types and defaults as papermill reads them."""
    import papermill

    return papermill.inspect_notebook(str(notebook))


def _check_parameters(parameters: dict, known: dict, where: str) -> None:
    for name, value in parameters.items():
        if name not in known or name == "out":
            raise ValueError(f"{where}: the notebook has no parameter {name!r}; it has {sorted(set(known) - {'out'})}")
        kind = known[name]["inferred_type_name"]
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise ValueError(f"{where}: {name} = {value!r} is not a {kind}")


def default_values(known: dict) -> dict:
    """The values that a notebook's parameters cell gives, but where it writes to."""
    return {name: ast.literal_eval(about["default"]) for name, about in known.items() if name != "out"}
