"""Figures of alpha-LoRA's theory, and of its question in a transformer."""

import numpy as np
import pandas as pd
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from scipy import stats

from gpt2lib.report.figures.theme import GREY, PALETTE, WIDTH, done, method_colour, panels, title


def accuracy_over_alpha(table: pd.DataFrame, points: pd.DataFrame, best: dict[str, float]) -> Figure:
    """Asymptotic accuracy as lines, simulated accuracy as points with its standard error, best alphas dotted.

    table: columns setting, alpha, accuracy. points: the same, and error. best: setting -> alpha.
    """
    figure, ((axis,),) = panels(width=4.8, height=2.6)
    for i, (setting, rows) in enumerate(table.groupby("setting", sort=False)):
        axis.plot(rows["alpha"], 100 * rows["accuracy"], color=PALETTE[i], label=setting)
        seen = points[points["setting"] == setting]
        bars = dict(fmt="o", markersize=3, capsize=2, color=PALETTE[i])
        axis.errorbar(seen["alpha"], 100 * seen["accuracy"], 100 * seen["error"], **bars)
        axis.axvline(best[setting], color=PALETTE[i], linestyle=":", linewidth=1)
    axis.set(xlabel="alpha", ylabel="test accuracy (%)")
    heading = "lines: theory\npoints: simulation\ndotted: best alpha"
    axis.legend(title=heading, loc="center left", bbox_to_anchor=(1, 0.5))
    return done(figure)


def best_alphas(quantities: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]) -> Figure:
    """The best alpha against one quantity a panel. quantities: quantity -> (its values, line's name -> best alphas)."""
    figure, axes = panels(1, len(quantities), height=2.2)
    for axis, (quantity, (values, lines)) in zip(axes[0], quantities.items(), strict=True):
        for name, line in lines.items():
            axis.plot(values, line, label=name)
        axis.axhline(1, color=GREY, linestyle="--", linewidth=1)
        axis.set(xlabel=quantity, ylabel="best alpha")
        if values.min() > 0 and values.max() / values.min() > 20:
            axis.set_xscale("log")
        axis.legend(fontsize=6)
    return done(figure)


def gain_map(beta: np.ndarray, eta: np.ndarray, gain: np.ndarray, best: np.ndarray) -> Figure:
    """What the best alpha gains over alpha = 1, in points of accuracy. gain: [eta, beta].

    best, the best alpha [eta, beta], parts the map at the line where it is 1 and nothing is gained: blue where the
    source is trusted less than alpha = 1 does, red where it is trusted more.
    """
    figure, ((axis,),) = panels(width=4.2, height=2.7)
    points = 100 * gain * np.where(best > 1, 1, -1)
    most = np.abs(points).max()
    scale = SymLogNorm(linthresh=most / 8, vmin=-most, vmax=most)
    image = axis.pcolormesh(beta, eta, points, shading="nearest", rasterized=True, cmap="RdBu_r", norm=scale)
    axis.set(xlabel="similarity of source and target, beta", ylabel="eta = p / n", yscale="log")
    bar = figure.colorbar(image, label="points gained by alpha* below 1 (blue)\nor above 1 (red)")
    line = axis.contour(beta, eta, best, levels=[1], colors="black", linewidths=1)
    axis.clabel(line, fmt="alpha* = 1", fontsize=7)
    steps = [step for step in (0.3, 1, 3, 10, 30) if step <= most]
    bar.set_ticks([-step for step in steps[::-1]] + [0] + steps, labels=[f"{s:g}" for s in [*steps[::-1], 0, *steps]])
    return done(figure)


def small_data(accuracy: pd.DataFrame) -> Figure:
    """Dev accuracy over the number of training examples, a panel a task: means and 95 % intervals over the seeds.

    accuracy: columns task, examples, method, seed, accuracy.
    """
    tasks = list(accuracy["task"].unique())
    figure, axes = panels(1, len(tasks), min(WIDTH, 3.2 * len(tasks)), 2.3)
    for axis, task in zip(axes[0], tasks, strict=True):
        for i, (method, group) in enumerate(accuracy[accuracy["task"] == task].groupby("method", sort=False)):
            found = group.groupby("examples")["accuracy"].agg(["mean", "sem", "count"])
            width = found["sem"].fillna(0) * stats.t.ppf(0.975, found["count"].clip(lower=2) - 1)
            shift = 1.03 ** (2 * i - 1)  # the bars of two methods would hide each other
            looks = dict(label=title(method), color=method_colour(method), marker="o", capsize=2, elinewidth=1)
            axis.errorbar(found.index * shift, 100 * found["mean"], 100 * width, **looks)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(accuracy["examples"].unique()), sorted(accuracy["examples"].unique()))
        axis.set(title=title(task), xlabel="training examples", ylabel="dev accuracy (%)")
    axes[0][0].legend()
    return done(figure)
