"""Checks of settings that several specifications share. Each raises ValueError that names the setting and its value."""


def check_count(name: str, value, at_least: int = 1) -> None:
    """Refuses what is not an integer of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, not {value!r}")


def check_dropout(name: str, value: float) -> None:
    """Refuses what is not in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), not {value!r}")
