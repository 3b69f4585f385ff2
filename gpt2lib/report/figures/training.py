"""Figures of training: losses, dev metrics and rates over the steps, and what a classifier confuses."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import COLOURS, PALETTE, TASK_TITLES, done, in_order, method_colour


def curves(x: Sequence[float], ys: dict[str, Sequence[float]], xlabel: str, ylabel: str, log: bool = False) -> Figure:
    """A few named lines over one axis."""
    figure, axis = plt.subplots(figsize=(4.2, 2.6))
    for name, y in ys.items():
        axis.plot(x, y, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        axis.set_yscale("log")
    if len(ys) > 1:
        axis.legend()
    return done(figure)


def learning_curve(history: list[dict], metric: str, floors: dict[str, float] | None = None) -> Figure:
    """A run's training loss, and its dev metric with floors as dashed lines, over the steps."""
    table = pd.DataFrame(history)
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.5))
    left.plot(table["step"], table["train_loss"], marker="o", label="training batch")
    left.plot(table["step"], table["loss"], marker="s", label="dev")
    left.set(xlabel="step", ylabel="loss (nats)")
    left.legend()
    right.plot(table["step"], table[metric], marker="s", color=PALETTE[1])
    for (name, value), style in zip((floors or {}).items(), ("--", ":", "-."), strict=False):
        right.axhline(value, color=COLOURS["floor"], linestyle=style, label=name)
    right.set(xlabel="step", ylabel=f"dev {metric}")
    if floors:
        right.legend()
    return done(figure)


def learning_curves(history: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Dev metric over the examples seen so far (in epochs), the mean of the seeds that got so far, every method in its
    colour; dashed: bag of words."""
    tasks = list(dict.fromkeys(history["task"]))
    figure, axes = plt.subplots(1, len(tasks), figsize=(1.9 * len(tasks) + 0.6, 2.4), squeeze=False)
    labelled = ""
    for axis, task in zip(axes[0], tasks, strict=True):
        metric = "perplexity" if task == "sonnets" else "accuracy"
        for method, rows in history[history["task"] == task].groupby("name", sort=False):
            mean = rows.groupby("epoch")[metric].mean()
            axis.plot(mean.index, mean, marker="o", markersize=3, color=method_colour(method), label=method)
        floor = table[(table["task"] == task) & table["method"].isin(["bag of words", "before training"])]
        for _, row in floor.iterrows():
            axis.axhline(row["value"], color=COLOURS["floor"], linestyle="--", label=row["method"])
        axis.set(xlabel="epoch", ylabel=f"dev {metric}" * (metric != labelled), title=TASK_TITLES.get(task, task))
        labelled = metric
    return done(figure, legend=True)


def rates(table: pd.DataFrame) -> Figure:
    """What each method did at each learning rate that was tried, a panel a task. table: columns task, name, lr, value."""
    tasks = list(dict.fromkeys(table["task"]))
    figure, axes = plt.subplots(1, len(tasks), figsize=(max(1.9 * len(tasks) + 0.6, 4.5), 2.9), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        of_task = table[table["task"] == task]
        for name in in_order(of_task["name"]):
            rows = of_task[of_task["name"] == name].sort_values("lr")
            axis.plot(rows["lr"], rows["value"], marker="o", markersize=3, color=method_colour(name), label=name)
        axis.set_xscale("log")
        axis.set(xlabel="learning rate", title=TASK_TITLES.get(task, task))
    axes[0][0].set_ylabel("dev accuracy")
    return done(figure, legend=True)


def confusion(labels: Sequence[int], predictions: Sequence[int], names: Sequence[str]) -> Figure:
    """How often each class (row) was called each other (column), in examples."""
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    figure, axis = plt.subplots(figsize=(0.6 * len(names) + 2, 0.5 * len(names) + 1.6))
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, xticklabels=names, yticklabels=names, ax=axis)
    axis.set(xlabel="predicted", ylabel="true")
    return done(figure)
