"""Checks of settings that several specifications share. Each raises ValueError that names the setting and its value."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

KINDS = {int: "an integer", float: "a finite number", bool: "true or false", str: "a text", NoneType: "None"}


def check_types(settings, infinite: tuple[str, ...] = ()) -> None:
    """Refuses a dataclass with a field that is not of the type written beside it. A number must be finite, but in the
    fields that are named in `infinite`; a tuple may be a list."""
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not _is(value, hints[field.name], field.name in infinite):
            raise ValueError(f"{field.name} must be {_type_shown(hints[field.name])}, not {shown(value)}")


def _is(value, kind, infinite: bool) -> bool:
    if isinstance(kind, UnionType):
        return any(_is(value, one, infinite) for one in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        parts = parts[:1] * len(value) if isinstance(value, tuple | list) and parts[1:] == (...,) else parts
        whole = isinstance(value, tuple | list) and len(value) == len(parts)
        return whole and all(_is(one, part, infinite) for one, part in zip(value, parts, strict=True))
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (infinite or -1e300 < value < 1e300) and value == value
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _type_shown(kind) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(_type_shown(one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a tuple ({', '.join('...' if part is ... else _type_shown(part) for part in get_args(kind))})"
    return KINDS[kind]


@contextmanager
def naming(path) -> Iterator[None]:
    """Let a ValueError name the file whose content it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(error if str(path) in str(error) else f"{path}: {error}") from None


def shown(value) -> str:
    """A value from somebody's file or code, as a part of a message."""
    return brief(repr(value))


def brief(text: str) -> str:
    """A text cut so that a message with it stays one clear line."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:80]} ..."


def check_count(name: str, value, at_least: int = 1, at_most: int | None = None) -> None:
    """Refuses what is not an integer from `at_least` to `at_most`, both included; None: to any."""
    most = math.inf if at_most is None else at_most
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= most:
        possible = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise ValueError(f"{name} must be an integer {possible}, not {shown(value)}")


def check_fraction(name: str, value: float) -> None:
    """Refuses what is not in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), not {shown(value)}")


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Refuses what is no number from low to high, both included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {shown(value)}")


def check_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    """Refuses a part that does not divide the whole, and lists those that do."""
    if whole % value:
        possible = [n for n in range(1, whole + 1) if whole % n == 0]
        raise ValueError(f"{name}={value} does not divide {whole_name}={whole}; possible: {possible}")


def check_positive(name: str, value: float) -> None:
    """Refuses what is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, not {shown(value)}")


def check_layers(layers: tuple[int, int] | None) -> None:
    """Refuses what is neither None nor a range of blocks (first, end) with 0 <= first < end."""
    whole = isinstance(layers, tuple) and len(layers) == 2 and all(type(n) is int for n in layers)
    if layers is not None and not (whole and 0 <= layers[0] < layers[1]):
        raise ValueError(f"layers must be None or (first, end) with 0 <= first < end, not {shown(layers)}")


def check_name(what: str, name) -> None:
    """Refuses what cannot be the name of one file or folder on every system, or would lie outside its folder."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}", name) or name.endswith("."):
        raise ValueError(f"{what} must be a plain name of letters, digits, _, -, + and dots, not {shown(name)}")


def one_line(error: Exception) -> str:
    """What an error of another library says first, to be part of a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def check_token(name: str, value: int | None) -> None:
    """Refuses what is neither None nor the number of a token."""
    if value is not None:
        check_count(name, value, at_least=0)
