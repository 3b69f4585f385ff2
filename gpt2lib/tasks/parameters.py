"""A notebook's parameters, made into what the package takes: how to train, and what.

Notebooks hand over their `globals()`, of which only the names that are parameters here are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

from gpt2lib.model.config import Config
from gpt2lib.tasks.method import COMMON, Method, Trainable, method_named, record_of
from gpt2lib.training import TrainingSettings


def settings_of(parameters: Mapping[str, object]) -> TrainingSettings:
    """How to train: every field of TrainingSettings that is a parameter, too. 0 stands for None."""
    optional = {f.name for f in fields(TrainingSettings) if f.default is None}
    given = {f.name: parameters[f.name] for f in fields(TrainingSettings) if f.name in parameters}
    return TrainingSettings(**{name: (value or None) if name in optional else value for name, value in given.items()})


def method_of(parameters: Mapping[str, object], config: Config | None = None) -> Trainable:
    """What to train, from the parameters method, rank, alpha, dropout, targets, layers ([first, end]; empty: all
    blocks), budget (which needs the model's config) and settings ("name=value", for those that only this method has).

    Raises ValueError for a setting that the method does not have, or one that is a parameter, too.
    """
    common = {name: parameters[name] for name in COMMON if name in parameters}
    method = record_of(parameters["method"])
    own = parsed(method, parameters.get("settings", ()))
    if twice := sorted(set(own) & set(parameters) & set(COMMON)):
        raise ValueError(f"{twice[0]} is a parameter of its own; set it there, not among the settings of {method.name}")
    return method_named(method.name, config, parameters.get("budget", 0), common, **own)


def parsed(method: Method, settings: Sequence[str]) -> dict[str, object]:
    """["graph_rank=4", "top_k=none"] by the types of the method's fields. Raises ValueError."""
    kinds, values = get_type_hints(method.build), {}
    for setting in settings:
        name, equals, text = (part.strip() for part in str(setting).partition("="))
        if not equals or name in values:
            raise ValueError(f"settings of {method.name}: {setting!r} is no name=value of its own, such as 'rank=8'")
        method.check([name])
        try:
            values[name] = _value(text, kinds[name])
        except (ValueError, KeyError):
            kind = getattr(kinds[name], "__name__", str(kinds[name]))
            raise ValueError(f"{method.name}: {name}={text} is not of type {kind}") from None
    return values


def _value(text: str, kind):
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if NoneType in kinds and text.lower() == "none":
        return None
    kind = next(k for k in kinds if k is not NoneType)
    if get_origin(kind) is tuple:
        return tuple(_value(part.strip(), get_args(kind)[0]) for part in text.split(","))
    return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
