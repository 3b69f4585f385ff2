"""Checks of settings that several specifications share. Each raises ValueError that names the setting and its value."""

import math
import re


def check_count(name: str, value, at_least: int = 1) -> None:
    """Refuses what is not an integer of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, not {value!r}")


def check_dropout(name: str, value: float) -> None:
    """Refuses what is not in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), not {value!r}")


def check_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    """Refuses a part that does not divide the whole, and lists those that do."""
    if whole % value:
        possible = [n for n in range(1, whole + 1) if whole % n == 0]
        raise ValueError(f"{name}={value} does not divide {whole_name}={whole}; possible: {possible}")


def check_positive(name: str, value: float) -> None:
    """Refuses what is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}")


def check_layers(layers: tuple[int, int] | None) -> None:
    """Refuses what is neither None nor a range of blocks (first, end) with 0 <= first < end."""
    whole = isinstance(layers, tuple) and len(layers) == 2 and all(type(n) is int for n in layers)
    if layers is not None and not (whole and 0 <= layers[0] < layers[1]):
        raise ValueError(f"layers must be None or (first, end) with 0 <= first < end, not {layers!r}")


def check_name(what: str, name) -> None:
    """Refuses what cannot be the name of one file or folder on every system, or would lie outside its folder."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}", name) or name.endswith("."):
        raise ValueError(f"{what} must be a plain name of letters, digits, _, -, + and dots, not {name!r}")


def one_line(error: Exception) -> str:
    """What an error of another library says first, to be part of a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_token(name: str, value: int | None) -> None:
    """Refuses what is neither None nor the number of a token."""
    if value is not None:
        check_count(name, value, at_least=0)
