"""What a study asks for: its TOML file, read and checked before anything starts, as a list of runs.

A study is a TOML file:

    [defaults]                      # parameters for every notebook that has them
    [[runs]]
    notebook = "07_sentiment"       # in the folder above the study's file
    name = "base"                   # optional, for a single run that others refer to
    part = "glue"                   # optional, where the report shows these runs; "main" without it
    tune_seeds = [0, 1]             # the seeds of the trials, if a value is tuned; without it the grid's first seed
    [runs.parameters]               # the same for all runs of this group; "run:base/x" is the path of x in run "base"
    [runs.grid]                     # lists: one run for each combination
    [runs.tune]                     # one list, such as lr: trials try each value, and the runs take the best of them;
                                    # or a task, such as lr = "sst": take what the same method's trials there chose
    [runs.trial_parameters]         # what is different in trials: fewer examples, or where they are scored

A value's trials are runs of their own, one for each of `tune_seeds`, in the part "trials"; the value with the best mean of
what these runs chose their weights by wins, among equal ones that with the lower loss. Groups may share their trials.
"""

import ast
import hashlib
import itertools
import json
import re
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from gpt2lib.common.checks import check_name
from gpt2lib.study.tables import OWN, TRIALS

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
TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}
WHAT = {str: "a text", list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Run:
    """One notebook and its parameters; `name` is that of its folder.

    tuned: the parameter that trials choose, "" if none, and which one trials try. trials: the value that each of them
    tries, by name; none for a trial itself.
    """

    name: str
    notebook: Path
    parameters: dict
    part: str = "main"
    tuned: str = ""
    trials: dict[str, object] = field(default_factory=dict)

    @property
    def reads(self) -> set[str]:
        """The names of the runs whose files it reads."""
        values = [v for v in self.parameters.values() if isinstance(v, str) and v.startswith("run:")]
        return {value.removeprefix("run:").split("/")[0] for value in values}

    @property
    def needs(self) -> set[str]:
        """The names of the runs that must be done before it: whose files it reads, or that try values for it."""
        return self.reads | set(self.trials)


def plan(path: str | Path) -> list[Run]:
    """The runs of a study. Raises ValueError for a malformed file or a parameter that its notebook does not have."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no study {path}")
    check_name(f"{path}: the study's name", path.stem)
    if path.stem.rpartition("-")[2] in OWN and "-" in path.stem:
        raise ValueError(f"{path}: a table of another study may have that name; give it one that ends otherwise")
    try:
        study = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    if unknown := set(study) - {"defaults", "runs"}:
        raise ValueError(f"{path}: unknown table {sorted(unknown)}; possible: defaults, runs")
    defaults, groups = study.get("defaults", {}), study.get("runs", [])
    if not isinstance(defaults, dict):
        raise ValueError(f"{path}: defaults must be a table, not {defaults!r}")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError(f"{path}: runs must be written as [[runs]], one for each group")
    runs, used = [], set()
    for number, content in enumerate(groups, start=1):
        group = _Group(content, defaults, path.resolve().parent.parent, f"{path}, group {number}")
        runs += group.runs(runs)
        used |= set(defaults) & set(group.known)
    if not runs:
        raise ValueError(f"{path}: there is no [[runs]] in it")
    if unused := set(defaults) - used:
        raise ValueError(f"{path}: no notebook of this study has the parameter {sorted(unused)}")
    _check_together(runs, path)
    return runs


def _check_together(runs: list[Run], path: Path) -> None:
    names = [run.name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: two runs are the same: {sorted(twice)}")
    needs = {run.name: run.needs for run in runs}
    for run in runs:
        if missing := run.needs - set(names):
            raise ValueError(f"{path}: {run.name} needs a run named {sorted(missing)}; there are: {', '.join(names)}")
    while free := [name for name, needed in needs.items() if not needed & set(needs)]:
        for name in free:
            del needs[name]
    if needs:
        raise ValueError(f"{path}: these runs need each other, and none can be the first: {', '.join(needs)}")


def rehearsal(runs: list[Run]) -> list[Run]:
    """Each different combination of notebook, method and base model once, for two updates on a handful of toy data and
    random weights: what would fail after hours on a cluster fails here in minutes. GLUE, which has no toy data, is left
    out, and so is a notebook that cannot be cut short, or a run that reads another one's files. Raises ValueError if none
    is left.
    """
    short = {"source": "toy-few", "epochs": 1, "max_steps": 2, "batch_size": 4, "precision": "float32"}
    short |= {"draws": 1, "max_new_tokens": 16}
    chosen: dict[tuple, Run] = {}
    for run in runs:
        known = default_values(run.notebook)
        given = known | run.parameters
        key = (run.notebook, given.get("method"), given.get("base_model"), given.get("select"))
        if not {"max_steps", "task", "base_model"} <= set(known) or given["task"].startswith("glue/") or run.reads:
            continue
        parameters = run.parameters | {k: v for k, v in short.items() if k in known}
        parameters |= {"base_model": f"untrained:{given['base_model'].removeprefix('untrained:')}", "examples": 0}
        name = _plain("-".join(str(part) for part in (given["task"], *key[1:]) if part is not None))
        chosen.setdefault(key, Run(name, run.notebook, {k: v for k, v in parameters.items() if k in known}))
    if not chosen:
        raise ValueError(
            "there is nothing to rehearse: none of these runs' notebooks can be cut short and read toy data"
        )
    return list(chosen.values())


class _Group:
    """One [[runs]] entry of a study's file."""

    def __init__(self, content: dict, defaults: dict, folder: Path, where: str):
        if "notebook" not in content or set(content) - set(KEYS):
            raise ValueError(f"{where}: give notebook, and optionally others of {sorted(KEYS)}; not {sorted(content)}")
        for key, value in content.items():
            if not isinstance(value, KEYS[key]):
                raise ValueError(f"{where}: {key} must be {WHAT[KEYS[key]]}, not {value!r}")
        check_name(f"{where}: notebook", content["notebook"])
        if "name" in content:
            check_name(f"{where}: name", content["name"])
        if content.get("part") == TRIALS:
            raise ValueError(f"{where}: part {TRIALS!r} is for the trials of tune")
        self.where, self.content = where, content
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
            raise ValueError(f"{self.where}: tune_seeds must be different seeds, not {self.seeds!r}")
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
            return [self.run(chosen, tuned, self.trials_elsewhere(earlier, tuned, chosen)) for chosen in combinations]
        trials: dict[str, Run] = {}
        runs = []
        for chosen in combinations:
            group = {key: value for key, value in chosen.items() if key != "seed"}
            mine = [self.trial(group, tuned, value, seed) for value in candidates for seed in self.seeds]
            trials |= {run.name: run for run in mine}
            runs.append(self.run(chosen, tuned, {run.name: run.parameters[tuned] for run in mine}))
        return [run for run in trials.values() if run not in earlier] + runs

    def trials_elsewhere(self, earlier: list[Run], tuned: str, chosen: dict) -> dict:
        """The trials of an earlier group on another task that had the same method, base model and size."""

        def key(parameters: dict) -> list:
            return [parameters.get(name) for name in ("task", *SAME)]

        wanted = key(self.shared | chosen | {"task": self.elsewhere})
        for run in earlier:
            if run.tuned == tuned and run.trials and key(run.parameters) == wanted:
                return run.trials
        raise ValueError(
            f"{self.where}: tune.{tuned} = {self.elsewhere!r}, but no earlier group tries values of {tuned} on that task "
            f"with the same {', '.join(SAME)} as {chosen}"
        )

    def run(self, chosen: dict, tuned: str = "", trials: dict | None = None) -> Run:
        parameters = self.checked(self.shared | chosen)
        parameters.pop(tuned, None)
        name = self.content.get("name") or self.name([*chosen.values()], parameters, tuned)
        return Run(name, self.notebook, parameters, self.content.get("part", "main"), tuned, trials or {})

    def trial(self, chosen: dict, tuned: str, value, seed) -> Run:
        parameters = self.checked(self.shared | chosen | self.different | {tuned: value, "seed": seed})
        name = self.name(["trial", *chosen.values(), value, seed], parameters, "")
        return Run(name, self.notebook, parameters, TRIALS, tuned)

    def name(self, chosen: list, parameters: dict, tuned: str) -> str:
        """What tells it apart from its group's other runs, and six digits that tell it apart from all others. It stays the
        same when a notebook gains a parameter, or a value is tried that was not before."""
        everything = [self.content["notebook"], parameters, tuned]
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        return _plain("-".join([*(str(value)[:40] for value in chosen), digest[:6]]))

    def checked(self, parameters: dict) -> dict:
        """The parameters, as the notebook's types want them."""
        checked = {}
        for name, value in parameters.items():
            if name not in self.known or name == "out":
                possible = sorted(set(self.known) - {"out"})
                raise ValueError(f"{self.where}: the notebook has no parameter {name!r}; it has {possible}")
            kind = self.known[name][0]
            if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
                raise ValueError(f"{self.where}: {name} = {value!r} is not a {kind}")
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):  # a date in a list, or nan
                raise ValueError(f"{self.where}: {name} = {value!r} holds what is no text or finite number") from None
            checked[name] = float(value) if kind == "float" else value
        return checked


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "-", name).lstrip(".-")


@lru_cache
def notebook_parameters(notebook: Path) -> dict[str, tuple[str, object]]:
    """The parameters of a notebook by name: the kind of each (a key of TYPES) and its default, as papermill reads them.

    Raises ValueError for a notebook without a parameters cell, or with one that papermill cannot fill.
    """
    import papermill

    try:
        found = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # of nbformat, json and the file system
        raise ValueError(f"{notebook}: no notebook that can be read ({type(error).__name__}: {error})") from None
    parameters = {}
    for name, about in found.items():
        try:
            default = ast.literal_eval(about["default"])
        except (ValueError, SyntaxError):
            raise ValueError(f"{notebook}: its parameter {name} must be given a plain value") from None
        kind = about["inferred_type_name"]
        kind = kind if kind in TYPES else type(default).__name__  # without a hint, or with another one
        if kind not in TYPES:
            raise ValueError(f"{notebook}: its parameter {name} is a {kind}; possible: {', '.join(TYPES)}")
        parameters[name] = kind, float(default) if kind == "float" else default
    return parameters


def default_values(notebook: Path) -> dict:
    """The values that a notebook's parameters cell gives, but where it writes to."""
    return {name: default for name, (_, default) in notebook_parameters(notebook).items() if name != "out"}
