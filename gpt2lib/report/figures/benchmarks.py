"""Figures of speed: what each change buys, and both sides of a benchmark over time."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import GREY, MAIN, PALETTE, done, panels


def waterfall(table: pd.DataFrame) -> Figure:
    """Speed, one line a change: what it adds to (or takes from) the line before, and the speed so far over the first's.

    table: one row each, from the first to the last change, with "examples/s" and, for the whiskers, the slowest and the
    fastest round (lowest, highest).
    """
    speed = table["examples/s"].to_numpy()
    before = np.concatenate([[0], speed[:-1]])
    colours = [GREY] + [MAIN if gain >= 0 else PALETTE[3] for gain in np.diff(speed)]
    figure, ((axis,),) = panels(width=3.8, height=0.23 * len(table) + 0.55)
    y = np.arange(len(table))
    axis.barh(y, speed - before, left=before, height=0.6, color=colours)
    for i in y[:-1]:
        axis.plot([speed[i]] * 2, [i - 0.3, i + 1.3], color="0.5", linewidth=0.7)
    whiskers = [speed - table["lowest"], table["highest"] - speed]
    axis.errorbar(speed, y, xerr=whiskers, fmt="none", ecolor="0.25", elinewidth=0.9, capsize=2)
    ends = np.maximum(before, table["highest"].to_numpy())
    for i in y:
        change = f"{speed[i]:.1f}" if i == 0 else f"{speed[i] - before[i]:+.1f}"
        axis.text(ends[i], i, f" {change} ({speed[i] / speed[0]:.2f}x)", va="center", fontsize=7)
    axis.set(xlabel="examples/s", xlim=(0, 1.75 * ends.max()), ylim=(len(table) - 0.45, -0.55))
    axis.set_yticks(y, table.index)
    axis.grid(axis="y", visible=False)
    return done(figure)


def two_sides(table: pd.DataFrame) -> Figure:
    """Dev accuracy of both sides of a benchmark (columns side, seed, epoch, seconds, accuracy), by epochs and by time;
    a line a seed."""
    table = table.assign(percent=100 * table["accuracy"])
    figure, (axes,) = panels(1, 2, height=1.7, sharey=True)
    for axis, x, label in zip(axes, ("epoch", "seconds"), ("epoch", "seconds of training"), strict=True):
        looks = dict(hue="side", style="side", markers=True, dashes=False, units="seed", estimator=None)
        sns.lineplot(table, x=x, y="percent", **looks, legend=axis is axes[0], ax=axis)
        axis.set(xlabel=label, ylabel="dev accuracy (%)")
    axes[0].legend(title="")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    return done(figure)
