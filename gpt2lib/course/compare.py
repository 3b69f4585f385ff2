"""Two results compared, in words; and a result as a text that is the same on every machine."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch


def difference(seen: object, expected: object, tolerance: float) -> str:
    """What is different between two results, in words; "" for nothing.

    Tensors, arrays, tables and numbers agree when their shapes do and no element differs by more than `tolerance` times
    the largest expected size (at least 1); whole numbers and everything else must be equal. Lists, tuples and dicts are
    compared element by element.
    """
    if isinstance(expected, Mapping):
        if not isinstance(seen, Mapping) or set(seen) != set(expected):
            return f"{_name(seen)}, expected a dict of {', '.join(map(str, expected))}"
        return _first((f"{key}: ", difference(seen[key], value, tolerance)) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        if not isinstance(seen, list | tuple) or len(seen) != len(expected):
            length = f" of {len(seen)}" if isinstance(seen, list | tuple) else ""
            return f"{_name(seen)}{length}, expected {len(expected)} results"
        pairs = enumerate(zip(seen, expected, strict=True))
        return _first((f"[{i}]: ", difference(a, b, tolerance)) for i, (a, b) in pairs)
    if isinstance(expected, bool) and isinstance(seen, bool):
        return "" if seen == expected else f"{seen}, expected {expected}"
    a, b = _array(seen), _array(expected)
    if b is None:
        same = a is None and type(seen) is type(expected) and seen == expected
        return "" if same else f"{seen!r}, expected {expected!r}"
    if a is None:
        return f"{_name(seen)}, expected numbers of shape {list(b.shape)}"
    if a.shape != b.shape:
        return f"shape {list(a.shape)}, expected {list(b.shape)}"
    return _numbers(a, b, tolerance)


def rounded(value: object, digits: int) -> str:
    """A result as a text, numbers rounded (-2 digits: to hundreds): what `exercise` hashes. An int and a float of one
    value are the same."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {rounded(part, digits)}" for key, part in value.items()) + "}"
    array = _array(value)
    if array is not None:
        zero = 0.5 * 10.0**-digits  # there is no -0.0
        numbers = [0.0 if abs(number) < zero else round(number, digits) for number in array.ravel().tolist()]
        texts = [f"{number:.{max(digits, 0)}f}" for number in numbers]
        return texts[0] if array.ndim == 0 else f"{list(array.shape)} {' '.join(texts)}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(rounded(part, digits) for part in value) + "]"
    return str(value)


def _array(value: object) -> np.ndarray | None:
    """Numbers as an array; None for what is not numbers. A list is not: its elements are compared one by one."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, pd.Series | pd.DataFrame):
        value = value.to_numpy()
    if isinstance(value, bool | int | float | np.generic | np.ndarray):
        array = np.asarray(value)
        return array if array.dtype.kind in "biuf" else None
    return None


def _numbers(a: np.ndarray, b: np.ndarray, tolerance: float) -> str:
    if b.dtype.kind != "f":
        wrong = a != b
    else:
        allowed = tolerance * max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        wrong = ~np.isclose(a, b, rtol=0, atol=allowed, equal_nan=True)
    if not wrong.any():
        return ""
    where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    at = f" at {[int(i) for i in where]}" if where else ""
    share = f" ({wrong.sum()} of {wrong.size} numbers differ)" if wrong.size > 1 else ""
    return f"{a[where]:.6g}{at}, expected {b[where]:.6g}{share}"


def _first(complaints) -> str:
    return next((where + complaint for where, complaint in complaints if complaint), "")


def _name(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
