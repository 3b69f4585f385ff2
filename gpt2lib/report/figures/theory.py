"""Figures of alpha-LoRA's theory, and of its question in a transformer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from gpt2lib.report.figures.theme import COLOURS, PALETTE, TASK_TITLES, done


def accuracy_over_alpha(table: pd.DataFrame, points: pd.DataFrame, best: dict[str, float]) -> Figure:
    """Asymptotic accuracy as lines, simulated accuracy as points with its standard error, best alphas as dashes.

    table: columns setting, alpha, accuracy. points: the same, and error. best: setting -> alpha.
    """
    figure, axis = plt.subplots(figsize=(4.6, 2.9))
    for i, (setting, rows) in enumerate(table.groupby("setting", sort=False)):
        axis.plot(rows["alpha"], rows["accuracy"], color=PALETTE[i], label=setting)
        seen = points[points["setting"] == setting]
        axis.errorbar(
            seen["alpha"], seen["accuracy"], seen["error"], fmt="o", markersize=3, capsize=2, color=PALETTE[i]
        )
        axis.axvline(best[setting], color=PALETTE[i], linestyle=":")
    axis.set(xlabel="alpha", ylabel="test accuracy")
    title = "lines: theory\npoints: simulation\ndots: best alpha"
    axis.legend(title=title, fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return done(figure)


def best_alphas(panels: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]) -> Figure:
    """The best alpha against one quantity a panel. panels: quantity -> (its values, line's name -> best alphas)."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.7 * len(panels), 2.5), squeeze=False)
    for axis, (quantity, (values, lines)) in zip(axes[0], panels.items(), strict=True):
        for name, line in lines.items():
            axis.plot(values, line, label=name)
        axis.axhline(1, color=COLOURS["floor"], linestyle="--")
        axis.set(xlabel=quantity, ylabel="best alpha")
        if values.min() > 0 and values.max() / values.min() > 20:
            axis.set_xscale("log")
        axis.legend(fontsize=6)
    return done(figure)


def gain_map(beta: np.ndarray, eta: np.ndarray, gain: np.ndarray) -> Figure:
    """What the best alpha gains over alpha = 1, in points of accuracy. gain: [eta, beta]."""
    figure, axis = plt.subplots(figsize=(4.4, 3.0))
    image = axis.pcolormesh(beta, eta, 100 * gain, cmap="viridis", shading="nearest")
    axis.set(xlabel="similarity of source and target, beta", ylabel="eta = p / n", yscale="log")
    figure.colorbar(image, label="gain (points)")
    return done(figure)


def small_data(accuracy: pd.DataFrame) -> Figure:
    """Dev accuracy over the number of training examples, a panel a task: means and 95 % intervals over the seeds.

    accuracy: columns task, examples, method, seed, accuracy.
    """
    tasks = list(accuracy["task"].unique())
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.2 * len(tasks), 2.6), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for i, (method, group) in enumerate(accuracy[accuracy["task"] == task].groupby("method", sort=False)):
            found = group.groupby("examples")["accuracy"].agg(["mean", "sem", "count"])
            width = found["sem"].fillna(0) * stats.t.ppf(0.975, found["count"].clip(lower=2) - 1)
            shift = 1.03 ** (2 * i - 1)  # the bars of two methods would hide each other
            axis.errorbar(
                found.index * shift, found["mean"], width, label=method, color=COLOURS[method], marker="o", capsize=2
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(accuracy["examples"].unique()), sorted(accuracy["examples"].unique()))
        axis.set(title=TASK_TITLES.get(task, task), xlabel="training examples", ylabel="dev accuracy")
    axes[0][0].legend()
    return done(figure)
