"""A notebook as a study sees it: its parameters, their types and defaults."""

import ast
import json
from functools import lru_cache
from pathlib import Path

from gpt2lib.common.checks import check_count, one_line, shown
from gpt2lib.tasks.parameters import method_of
from gpt2lib.tasks.task import TASKS

TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}


@lru_cache
def notebook_parameters(notebook: Path) -> dict[str, tuple[str, object]]:
    """The parameters of a notebook by name: the kind of each (a key of TYPES) and its default, as papermill reads them.

    Raises ValueError for a notebook without a parameters cell, or with one that papermill cannot fill.
    """
    import papermill

    try:
        found = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # of nbformat, json and the file system
        raise ValueError(
            f"{notebook}: no notebook that can be read ({type(error).__name__}: {one_line(error)})"
        ) from None
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


def checked(parameters: dict, notebook: Path, where: str) -> dict:
    """The parameters, as the notebook's types want them. Raises ValueError for one that it lacks or cannot take."""
    known = notebook_parameters(notebook)
    checked = {}
    for name, value in parameters.items():
        if name not in known or name == "out":
            possible = sorted(set(known) - {"out"})
            raise ValueError(f"{where}: the notebook has no parameter {shown(name)}; it has {possible}")
        kind = known[name][0]
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise ValueError(f"{where}: {name} = {shown(value)} is not a {kind}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):  # a date in a list, or nan
            raise ValueError(f"{where}: {name} = {shown(value)} holds what is no text or finite number") from None
        checked[name] = float(value) if kind == "float" else value
    _check_names(default_values(notebook) | checked, where)
    return checked


def _check_names(given: dict, where: str) -> None:
    """Refuses a task or a method that there is none of, before a run of hours finds that out."""
    try:
        if "method" in given:
            check_count("budget", given.get("budget", 0), at_least=0)
            method_of(given | {"budget": 0})  # whose size only a model's shape can tell
        for task in [given["task"]] if "task" in given else given.get("tasks", []):
            if task not in TASKS:
                raise ValueError(f"no task is called {shown(task)}; possible: {', '.join(TASKS)}")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
