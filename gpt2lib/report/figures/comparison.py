"""Figures that compare methods: results with their intervals and floors, what they cost, and sonnets by their scores."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import (
    COLOURS,
    FLOOR_STYLES,
    PALETTE,
    TASK_TITLES,
    done,
    in_order,
    method_colour,
)


def methods(table: pd.DataFrame) -> Figure:
    """Dev accuracy (or perplexity) of every method with its 95 % interval, a panel a task; floors are dashed lines."""
    tasks = list(dict.fromkeys(table["task"]))
    names = in_order(table.loc[table["seconds"].notna(), "method"])[::-1]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(1.9 * len(tasks) + 1.2, 0.24 * len(names) + 1.1), sharey=True, squeeze=False
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        rows = table[table["task"] == task].set_index("method")
        for i, name in enumerate(names):
            if name in rows.index:
                row = rows.loc[name]
                error = np.maximum(0, [[row["value"] - row["low"]], [row["high"] - row["value"]]])
                axis.errorbar(row["value"], i, xerr=error, fmt="o", color=method_colour(name), capsize=2)
        for name, style in FLOOR_STYLES.items():
            if name in rows.index:
                axis.axvline(rows.loc[name, "value"], color=COLOURS["floor"], linestyle=style, label=name)
        axis.set_yticks(range(len(names)), names)
        axis.set(
            title=TASK_TITLES.get(task, task), xlabel=f"dev {rows['metric'].iloc[0]}", ylim=(-0.6, len(names) - 0.4)
        )
    return done(figure, legend=True)


def cost(table: pd.DataFrame) -> Figure:
    """Dev accuracy (or perplexity) against trained parameters, training time and peak memory: three different claims.
    Grey: the best that can be had for no more than that cost (the Pareto front)."""
    trained = table[table["seconds"].notna()]
    panels = [("trained_params", "trained parameters", 1), ("seconds", "training time (min)", 60)]
    panels.append(("peak_memory_mb", "peak memory (MB)", 1))
    tasks = list(dict.fromkeys(trained["task"]))
    figure, axes = plt.subplots(len(tasks), 3, figsize=(7.6, 1.6 * len(tasks) + 0.6), squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        rows = trained[trained["task"] == task]
        sign = -1 if rows["metric"].iloc[0] == "perplexity" else 1
        for axis, (column, label, unit) in zip(line, panels, strict=True):
            ordered = rows.sort_values(column)
            best = sign * (sign * ordered["value"]).cummax()
            axis.step(ordered[column] / unit, best, where="post", color=COLOURS["floor"], linewidth=0.8)
            for row in rows.itertuples():
                axis.plot(
                    getattr(row, column) / unit, row.value, "o", color=method_colour(row.method), label=row.method
                )
            axis.set(xlabel=label if task == tasks[-1] else "")
        line[0].set_xscale("log")
        line[0].set_ylabel(f"{TASK_TITLES.get(task, task)}\n{rows['metric'].iloc[0]}")
    return done(figure, legend=True)


def sonnet_scores(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """chrF of every method's sonnets and of completions that know nothing (grey), whole and continuation only; dotted
    lines are published scores."""
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 0.32 * len(table) + 1.1), sharey=True)
    for axis, convention in zip(axes, ("whole", "continuation"), strict=True):
        colours = [method_colour(method) for method in table["method"]]
        axis.barh(table["method"], table[f"chrf_{convention}"], color=colours)
        for _, row in published.iterrows():
            axis.axvline(row["value"], color="black", linestyle=":")
            axis.text(row["value"], -0.6, f" {row['value']:g}", fontsize=6, va="bottom", ha="center")
        axis.set_xlabel(f"chrF, {convention}" + (" sonnet" if convention == "whole" else " only"))
        axis.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return done(figure)


def overlap_floors(table: pd.DataFrame) -> Figure:
    """chrF of a model and of the floors, in both conventions. table: one row each, with chrf_whole, chrf_continuation."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 0.35 * len(table) + 1.0), sharey=True)
    for axis, convention in zip(axes, ("whole", "continuation"), strict=True):
        floor = table.index.str.startswith("given")
        colours = [COLOURS["floor"] if f else PALETTE[1] for f in floor]
        axis.barh(table.index, table[f"chrf_{convention}"], color=colours)
        axis.set(xlabel=f"chrF, {convention}")
        axis.invert_yaxis()
    axes[1].invert_yaxis()  # shared: turned twice
    return done(figure)
