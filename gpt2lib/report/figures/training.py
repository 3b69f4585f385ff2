"""Figures of training: losses, dev metrics and rates over the steps, and what a classifier confuses."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gpt2lib.report.figures.theme import GREY, PALETTE, done, in_order, label_lines, method_colour, panels, title
from gpt2lib.tasks.task import TASKS


def curves(x: Sequence[float], ys: dict[str, Sequence[float]], xlabel: str, ylabel: str, log: str = "") -> Figure:
    """A few named lines over one axis, dashed where they are the same everywhere; log: "x" or "y", an axis that is
    logarithmic."""
    figure, ((axis,),) = panels(width=4.2, height=2.4)
    for name, y in ys.items():
        y = np.asarray(y)
        axis.plot(x, y, "--" if len(y) and (y == y[0]).all() else "-", label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        axis.set(**{f"{log}scale": "log"})
    if 1 < len(ys) < 4:
        axis.legend()
    return done(figure, legend=len(ys) > 3)  # more would lie on the lines


def learning_curve(history: list[dict], metric: str, floors: dict[str, float] | None = None) -> Figure:
    """A run's training loss, and its dev metric with floors as dashed lines, over the steps."""
    table = pd.DataFrame(history)
    figure, ((left, right),) = panels(1, 2, height=2.3)
    left.plot(table["step"], table["train_loss"], marker="o", label="last training batch")
    left.plot(table["step"], table["loss"], marker="s", label="dev")
    left.set(xlabel="step", ylabel="loss (nats)")
    left.legend()
    right.plot(table["step"], table[metric], marker="s", color=PALETTE[1])
    for (name, value), style in zip((floors or {}).items(), ("--", ":", "-."), strict=False):
        right.axhline(value, color=GREY, linestyle=style, label=name)
    right.set(xlabel="step", ylabel=f"dev {metric}")
    if floors:
        right.legend()
    return done(figure)


def learning_curves(history: pd.DataFrame, table: pd.DataFrame, watched: str = "dev") -> Figure | None:
    """The metric over the steps, the mean of the seeds that got so far, each line named at its end; floors are dashed.

    What was evaluated once or twice has no curve, and one curve makes no panel. None if no task has one.
    history: columns task, name, step, accuracy or perplexity. table: of `report.summarise`, for the floors, which are
    dev's. watched: the part of the data that training was measured on.
    """
    curves = {}
    for (task, name), rows in history.groupby(["task", "name"], sort=False):
        metric = TASKS[task].metric
        mean = rows.groupby("step", as_index=False)[metric].mean()
        if len(mean) > 2:
            curves.setdefault(task, {})[name] = mean["step"], mean[metric] * (100 if metric == "accuracy" else 1)
    curves = {task: of_task for task, of_task in curves.items() if len(of_task) > 1}
    if not curves:
        return None
    columns = min(2, len(curves))
    lines = -(-len(curves) // columns)
    most = max(len(of_task) for of_task in curves.values())
    figure, axes = panels(lines, columns, height=lines * max(2.5, 0.115 * most + 0.8))
    for axis, (task, of_task) in zip(axes.flat, curves.items(), strict=False):
        metric = TASKS[task].metric
        unit = 100 if metric == "accuracy" else 1
        for name, (x, y) in of_task.items():
            axis.plot(x, y, marker="o", markersize=3, color=method_colour(name))
        floors = table[(table["task"] == task) & table["method"].isin(["bag of words", "before training"])]
        floors = floors if watched == "dev" else floors[:0]
        for row in floors.itertuples():
            axis.axhline(unit * row.value, color=GREY, linestyle="--", linewidth=1, zorder=1)
            place = dict(transform=axis.get_yaxis_transform(), fontsize=6.5, color=GREY, va="top")
            axis.text(0.01, unit * row.value, row.method, **place)
        longest = max(x.iloc[-1] for x, _ in of_task.values())
        axis.set_xlim(0, (1.58 if columns > 1 else 1.25) * longest)  # room for the names
        axis.set_ylim(axis.get_ylim())
        axis.set_xticks([tick for tick in axis.get_xticks() if tick <= longest])
        axis.set(
            title=title(task), xlabel="step", ylabel=f"{watched} accuracy (%)" if unit == 100 else f"{watched} {metric}"
        )
        ends = {title(name): (x.iloc[-1], y.iloc[-1]) for name, (x, y) in of_task.items()}
        label_lines(axis, ends, {title(name): method_colour(name) for name in of_task})
    for unused in axes.flat[len(curves) :]:
        unused.remove()
    return done(figure)


def rates(table: pd.DataFrame) -> Figure:
    """Accuracy at each learning rate that was tried, a small panel a method, the others' lines behind it in grey.

    With several tasks: a line a task, in points from the best of its task. table: columns task, name, lr, value.
    """
    tasks, names = list(dict.fromkeys(table["task"])), in_order(table["name"])
    best = table.groupby("task")["value"].transform("max") if len(tasks) > 1 else 0
    table = table.assign(shown=100 * (table["value"] - best)).sort_values("lr")
    columns = min(len(names), 4 if len(names) <= 12 else 5)
    lines = -(-len(names) // columns)
    figure, axes = panels(lines, columns, height=1.05 * lines + 0.5, sharex=True, sharey=True)
    for axis, name in zip(axes.flat, names, strict=False):
        if len(tasks) == 1:
            for _, rows in table.groupby("name"):
                axis.plot(rows["lr"], rows["shown"], color="0.82", linewidth=0.7)
        for colour, marker, task in zip(PALETTE, "os^D", tasks, strict=False):
            rows = table[(table["name"] == name) & (table["task"] == task)]
            axis.plot(rows["lr"], rows["shown"], f"{marker}-", color=colour, markersize=4, label=title(task))
        axis.set_title(title(name), fontsize=7.5)
        axis.set_xscale("log")
        axis.margins(x=0.1, y=0.12)
        axis.yaxis.set_major_locator(MaxNLocator(3))
        axis.grid(axis="x", visible=False)
    for unused in axes.flat[len(names) :]:
        unused.remove()
    for axis in axes.flat[len(names) - columns : len(names)]:
        axis.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("learning rate", fontsize=8)
    label = f"accuracy on {title(tasks[0])} (%)" if len(tasks) == 1 else "points from the task's best"
    figure.supylabel(label, fontsize=8)
    return done(figure, legend=len(tasks) > 1)


def confusion(labels: Sequence[int], predictions: Sequence[int], names: Sequence[str]) -> Figure:
    """How often each class (row) was called each other (column), in examples."""
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    margin = max(map(len, names)) * 0.07  # of the longest name, which stands on both axes
    figure, ((axis,),) = panels(width=0.5 * len(names) + 1.0 + margin, height=0.35 * len(names) + 0.4 + margin)
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, xticklabels=names, yticklabels=names, ax=axis)
    axis.tick_params(axis="y", rotation=0)
    axis.tick_params(axis="x", rotation=90 if margin > 0.5 else 0)
    axis.set(xlabel="predicted", ylabel="true")
    return done(figure)
