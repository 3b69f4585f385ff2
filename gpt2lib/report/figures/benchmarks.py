"""Figures of speed: what each change buys, and both sides of a benchmark over time."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import COLOURS, PALETTE, done


def waterfall(table: pd.DataFrame) -> Figure:
    """Speed after each change, one bar a change, from the slowest round to the fastest. table: one row each, with
    "examples/s" and, for the whiskers, lowest and highest."""
    speed = table["examples/s"]
    figure, axis = plt.subplots(figsize=(5.4, 0.42 * len(table) + 0.7))
    axis.barh(table.index, speed, color=[COLOURS["floor"]] + [PALETTE[0]] * (len(table) - 1))
    if "lowest" in table:
        whiskers = [speed - table["lowest"], table["highest"] - speed]
        axis.errorbar(speed, table.index, xerr=whiskers, fmt="none", ecolor="0.2", capsize=2)
    ends = table.get("highest", speed)
    for i, (value, end) in enumerate(zip(speed, ends, strict=True)):
        axis.text(end, i, f"  {value / speed.iloc[0]:.2f}x", va="center", fontsize=7)
    axis.set(xlabel="examples/s (median; whiskers: slowest and fastest round)", xlim=(0, 1.15 * ends.max()))
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    return done(figure)


def two_sides(table: pd.DataFrame) -> Figure:
    """Dev accuracy of both sides of a benchmark (columns side, seed, epoch, seconds, accuracy), by epochs and by time; a
    line a seed."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.4), sharey=True)
    for axis, x, label in zip(axes, ("epoch", "seconds"), ("epoch", "seconds of training"), strict=True):
        looks = dict(hue="side", style="side", markers=True, dashes=False, units="seed", estimator=None)
        sns.lineplot(table, x=x, y="accuracy", **looks, ax=axis)
        axis.set(xlabel=label, ylabel="dev accuracy")
        axis.legend(title="")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    return done(figure)
