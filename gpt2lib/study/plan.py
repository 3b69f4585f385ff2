"""What a study asks for: its TOML file, read and checked before anything starts, as a list of runs.

A study is a TOML file:

    tune_beyond = 3                 # optional, see below
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

A value's trials are runs of their own, one for each of `tune_seeds`, in the part "trials"; the value with the best mean
of what these runs chose their weights by wins, among equal ones that with the lower loss. Groups may share trials.
Where the best is the first or the last that was tried, the next beyond it is tried, too, as far away as its neighbour
on the other side (0.001, 0.002, 0.004, then 0.008): of real numbers above 0, and at most `tune_beyond` values more. The
plan grows by these trials as results come in.
"""

import tomllib
from pathlib import Path

from gpt2lib.common.checks import check_count, check_name, naming, one_line, shown
from gpt2lib.data.load import COURSE_TASKS
from gpt2lib.study.group import Group, Run, plain_name
from gpt2lib.study.notebook import default_values
from gpt2lib.study.tables import OWN


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
        raise ValueError(f"{path}: {one_line(error)}") from None
    if unknown := set(study) - {"defaults", "runs", "tune_beyond"}:
        raise ValueError(f"{path}: unknown table {shown(sorted(unknown))}; possible: tune_beyond, defaults, runs")
    defaults, groups, beyond = study.get("defaults", {}), study.get("runs", []), study.get("tune_beyond", 0)
    with naming(path):
        check_count("tune_beyond", beyond, at_least=0)
    if not isinstance(defaults, dict):
        raise ValueError(f"{path}: defaults must be a table, not {shown(defaults)}")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError(f"{path}: runs must be written as [[runs]], one for each group")
    runs, used = [], set()
    for number, content in enumerate(groups, start=1):
        group = Group(content, defaults, path.resolve().parent.parent, f"{path}, group {number}", beyond)
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
    """Each different combination of notebook, method and base model once, and a notebook's trials, for two updates on a
    handful of toy data and random weights: what would fail after hours on a cluster fails here in minutes. GLUE, which
    has no toy data, is left out, and so is a notebook that cannot be cut short, or a run that reads another one's
    files. Raises ValueError if none is left.
    """
    short = {"source": "toy-few", "epochs": 1, "max_steps": 2, "batch_size": 4}
    short |= {"draws": 1, "max_new_tokens": 16}
    chosen: dict[tuple, Run] = {}
    for run in runs:
        known = default_values(run.notebook)
        given = known | run.parameters
        kind = "trial" if given.get("trial") else given.get("method")  # a notebook's trials differ in nothing but that
        key = (run.notebook, kind, "" if kind == "trial" else given.get("base_model"))
        if not {"max_steps", "task", "base_model"} <= set(known) or given["task"] not in COURSE_TASKS or run.reads:
            continue
        parameters = run.parameters | {k: v for k, v in short.items() if k in known}
        parameters |= {"base_model": f"untrained:{given['base_model'].removeprefix('untrained:')}", "examples": 0}
        name = plain_name("-".join(str(part) for part in (run.notebook.stem, *key[1:]) if part))
        chosen.setdefault(key, Run(name, run.notebook, {k: v for k, v in parameters.items() if k in known}))
    if not chosen:
        raise ValueError(
            "there is nothing to rehearse: none of these runs' notebooks can be cut short and read toy data"
        )
    return list(chosen.values())
