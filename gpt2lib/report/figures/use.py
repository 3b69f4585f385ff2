"""What a model that is used says, and how far its probabilities can be believed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import GREY, MAIN, done, panels


def probabilities(names: Sequence[str], values: Sequence[float]) -> Figure:
    """A bar for each class of one text."""
    width, height = 2.4 + 0.07 * max(map(len, names)), 0.5 + 0.22 * len(names)
    figure, ((axis,),) = panels(width=width, height=height)
    bars = axis.barh(range(len(names)), values, color=MAIN)
    axis.bar_label(bars, [f"{100 * value:.0f} %" for value in values], padding=2, fontsize=7)
    axis.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.15), xticks=[0, 0.5, 1], xlabel="probability")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return done(figure)


def reliability(table: pd.DataFrame) -> Figure:
    """How often a model is right (above) and how many examples there are (below) for each confidence. table: columns
    confidence, the probability of the class that was called, and correct."""
    bins = 10
    figure, axes = panels(2, 1, width=3.2, height=3.4, sharex=True, height_ratios=(3, 1))
    above, below = axes[:, 0]
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(table["confidence"], edges) - 1, 0, bins - 1)
    means = table.groupby(place)[["confidence", "correct"]].mean()
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as often as it says")
    above.plot(means["confidence"], means["correct"], marker="o", color=MAIN, label="measured")
    above.set(ylabel="right", ylim=(0, 1.02))
    above.legend(loc="upper left", frameon=False)
    below.bar(edges[:-1] + 0.5 / bins, np.bincount(place, minlength=bins), width=0.9 / bins, color=MAIN)
    below.set(xlabel="confidence", ylabel="examples", xlim=(0, 1))
    return done(figure)
