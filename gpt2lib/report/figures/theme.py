"""The theme of all figures: one style, one colour and title for each method, one order of tasks and methods.

Figures are drawn at the size that they have on the report's page, so that their type is the size it says.
"""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from gpt2lib.tasks import METHODS, TASKS
from gpt2lib.tasks.method import USUAL_RANK

WIDTH = 6.5  # of the report's text, in inches; no figure is wider
HALF = 2.95  # of a figure that stands beside text or another figure

sns.set_theme(
    style="whitegrid",
    palette="colorblind",
    rc={
        "figure.dpi": 110,
        "svg.hashsalt": "gpt2lib",
        "font.size": 8,
        "axes.titlesize": 8.5,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.title_fontsize": 7,
        "axes.linewidth": 0.8,
        "axes.edgecolor": "0.6",
        "grid.linewidth": 0.5,
        "grid.color": "0.88",
        "lines.linewidth": 1.3,
        "lines.markersize": 4,
        "xtick.major.pad": 2,
        "ytick.major.width": 0.6,
        "ytick.major.size": 2.5,
        "ytick.major.pad": 2,
    },
)
PALETTE = sns.color_palette("colorblind")
MAIN = PALETTE[0]  # of a figure that needs one colour only
GREY = (0.45, 0.45, 0.45)  # of floors, references and whatever is not ours
LIGHT = (0.68, 0.68, 0.68)  # of what stands behind
FLOOR_STYLES = {"majority class": "--", "bag of words": ":", "before training": "-."}
PLACES = {name: i for i, name in enumerate([*TASKS, *METHODS])}  # the order of tasks and methods everywhere


def panels(
    lines: int = 1, columns: int = 1, width: float = WIDTH, height: float = 2.4, layout: str = "constrained", **more
) -> tuple[Figure, np.ndarray]:
    """A figure and its panels [lines, columns], which lay themselves out; "compressed" is for fixed shapes."""
    return plt.subplots(lines, columns, figsize=(width, height), layout=layout, squeeze=False, **more)


def done(figure: Figure, legend: bool = False) -> Figure:
    """The figure, with one legend above all panels if asked for."""
    found = {}
    if legend:
        for axis in figure.axes:
            found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if found:
        columns = min(len(found), max(1, int(figure.get_size_inches()[0] / 1.25)))
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncol=columns, frameon=False)
    plt.close(figure)  # a notebook shows the figure that a cell returns; left open, it would be shown twice
    return figure


def family_of(name: str) -> str:
    """The method of a run's name, without the setting that may follow it: "lora r=4" is a "lora"; others are their
    own."""
    first = name.split(" ")[0]
    return first if first in METHODS else name


def method_colour(name: str):
    """A method's colour, lighter or darker for its ranks; grey for what is not a method."""
    rank = name.rpartition(" r=")[2]
    if family_of(name) not in METHODS:
        return GREY
    colour = METHODS[family_of(name)].colour
    if not rank.isdigit():
        return colour
    return sns.light_palette(colour, 5)[2] if int(rank) < USUAL_RANK else sns.dark_palette(colour, 5)[2]


def title(name: str) -> str:
    """What a reader calls a task or a method, with its rank or what else its name says."""
    if name in TASKS:
        return TASKS[name].title
    method = family_of(name)
    called = METHODS[method].title if method in METHODS else method
    variant = name.removeprefix(method).strip().replace("r=", "rank ")
    return f"{called}, {variant}" if variant else called


def in_order(names: Iterable[str]) -> list[str]:
    """Methods in the order of their colours, which is the same in every figure and table, variants after their method;
    unknown ones (floors) last."""
    return sorted(dict.fromkeys(names), key=_place)


def ordered(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with tasks and methods in the order of every figure and table; unknown ones (floors) last."""
    return table.sort_values(list(columns), key=lambda column: column.map(_place), kind="stable", ignore_index=True)


def spread(values: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """The values moved apart as little as need be, so that labels a gap high are all seen, between low and high."""
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(order))
    moved = isotonic_regression(np.asarray(values, dtype=float)[order] - steps).x  # the nearest that never falls
    if np.isfinite([low, high]).all():
        moved = np.clip(moved, low, max(low, high - steps[-1] if len(steps) else high))
    placed = np.empty(len(order))
    placed[order] = moved + steps
    return placed


def label_lines(axis: Axes, ends: dict[str, tuple[float, float]], colours: dict[str, tuple]) -> None:
    """Write each line's name beside the longest line's end, moved apart where they would hide each other. Fix the axis'
    limits first."""
    size = 6.5
    left, right = axis.get_xlim()
    low, high = axis.get_ylim()
    height = axis.figure.get_size_inches()[1] / axis.get_gridspec().nrows * 0.72  # about what titles and labels leave
    gap = (high - low) * 1.15 * size / 72 / height
    x = max(x for x, _ in ends.values()) + 0.04 * (right - left)
    places = spread([y for _, y in ends.values()], gap, low + gap / 2, high - gap / 2)
    for (name, end), place in zip(ends.items(), places, strict=True):
        line = dict(
            arrowstyle="-", linestyle=":", color=colours[name], linewidth=0.5, shrinkA=0, shrinkB=1, relpos=(0, 0.5)
        )
        axis.annotate(name, end, (x, place), color=colours[name], fontsize=size, va="center", arrowprops=line)


def _place(name: str) -> tuple[int, int, str]:
    """Where a task or method stands: a method's ranks by their number, then its other variants."""
    method = family_of(name)
    variant = name.removeprefix(method)
    rank = variant.removeprefix(" r=")
    return PLACES.get(method, len(PLACES)), int(rank) if rank.isdigit() else 0, variant
