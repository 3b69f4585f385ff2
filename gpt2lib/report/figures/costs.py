"""Figures of what the methods cost: parameters from the study, time and memory from benchmarks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import GREY, LIGHT, MAIN, WIDTH, done, title

STEP, MEMORY = "step of ", "peak memory, "  # quantities of the benchmarks' table begin so


def cost(table: pd.DataFrame, benchmarks: pd.DataFrame | None = None) -> Figure:
    """Dev results over the parameters trained, better ones higher, a panel a task; LoRA's ranks are joined, other
    adapters grey. Below, where the benchmarks have them: a training step's time over LoRA's, with the fastest and the
    slowest round, and the memory that training adds.

    table: of `report.summarise`. benchmarks: columns quantity, ours, peer, peer_value, ratio, ratio_low, ratio_high.
    """
    trained = table[table["seconds"].notna()]
    tasks = list(dict.fromkeys(trained["task"]))
    steps, memory = (_measured(benchmarks, what) for what in (STEP, MEMORY))
    below = len(steps) > 0 or len(memory) > 0
    height = 2.0 + (0.17 * max(len(steps) + 1, len(memory)) + 0.6 if below else 0)
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(2.0, height - 2.0)) if below else [figure]
    axes = parts[0].subplots(1, len(tasks), squeeze=False)[0]
    for axis, task in zip(axes, tasks, strict=True):
        _over_parameters(axis, trained[trained["task"] == task].set_index("method"), title(task))
    grey = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if grey:
        parts[0].legend(grey.values(), grey.keys(), loc="outside upper right", frameon=False)
    drawn = [(part, rows) for part, rows in ((_step_times, steps), (_memories, memory)) if len(rows)]
    if drawn:
        for axis, (part, rows) in zip(np.atleast_1d(parts[1].subplots(1, len(drawn))), drawn, strict=True):
            part(axis, rows)
    return done(figure)


def _measured(benchmarks: pd.DataFrame | None, what: str) -> pd.DataFrame:
    """The rows of one kind of quantity, the first of each name (the table holds several sets of texts)."""
    if benchmarks is None:
        return pd.DataFrame()
    rows = benchmarks[benchmarks["quantity"].str.startswith(what)]
    return rows.assign(name=rows["quantity"].str.removeprefix(what)).drop_duplicates("name")


def _over_parameters(axis: Axes, rows: pd.DataFrame, heading: str) -> None:
    metric = rows["metric"].iloc[0]
    unit = 100 if metric == "accuracy" else 1
    x, y = rows["trained_params"], unit * rows["value"]
    ranks = [name for name in rows.index if name == "lora" or name.startswith("lora r=")]
    ranks = sorted(ranks, key=x.get)
    ends = [name for name in ("last-linear", "full") if name in rows.index]
    others = rows.index.difference([*ranks, *ends])
    axis.set_xscale("log")
    axis.plot(
        x[others], y[others], "o", color=LIGHT, markeredgewidth=0, label="other adapters" if len(others) else None
    )
    axis.plot(x[ranks], y[ranks], "o-", color=MAIN, linewidth=1)
    axis.plot(x[ends], y[ends], "o", color=MAIN)
    axis.set_xlim(10 ** (np.log10(x.min()) - 1.1), 10 ** (np.log10(x.max()) + 0.7))
    axis.margins(y=0.25)
    labels = {"full": (0, 5, "center"), "last-linear": (0, -9.5, "center")} | dict.fromkeys(
        ranks[:1], (-5, -2, "right")
    )
    for name, (right, up, side) in ((name, place) for name, place in labels.items() if name in rows.index):
        text = {"full": "full", "last-linear": "last layer"}.get(name, "LoRA")
        place = dict(xytext=(right, up), textcoords="offset points", ha=side, fontsize=6.5, color=MAIN)
        axis.annotate(text, (x[name], y[name]), **place)
    axis.set_title(heading)
    axis.set_xlabel("trained parameters")
    axis.set_ylabel("dev accuracy (%)" if metric == "accuracy" else f"dev {metric}, reversed")
    if metric == "perplexity":
        axis.invert_yaxis()


def _step_times(axis: Axes, steps: pd.DataFrame) -> None:
    """The table's ratios are of speeds; of times they are the inverse."""
    median, low, high = (1 / steps[column] for column in ("ratio", "ratio_high", "ratio_low"))
    y = np.arange(len(steps))
    axis.errorbar(median, y, xerr=[median - low, high - median], fmt="o", color=MAIN, elinewidth=1)
    axis.axvline(1, color=GREY, linewidth=1, zorder=1)
    axis.set_yticks(y, steps["name"])
    axis.set_ylim(len(steps) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("time of a training step, LoRA = 1")


def _memories(axis: Axes, memory: pd.DataFrame) -> None:
    """Ours in colour; what it was compared with in grey, unless that is ours too."""
    bars = {row.name: (row.ours, MAIN) for row in memory.itertuples(index=False)}
    ours = {value for value, _ in bars.values()}
    others = memory[~memory["peer_value"].isin(ours) & memory["peer_value"].notna()]
    bars |= {f"{row.name} by {row.peer}": (row.peer_value, GREY) for row in others.itertuples(index=False)}
    names = sorted(bars, key=lambda name: bars[name][0])
    values = [bars[name][0] for name in names]
    axis.barh(names, values, height=0.55, color=[bars[name][1] for name in names])
    for i, value in enumerate(values):
        axis.text(value, i, f" {value:,.0f}", va="center", fontsize=6.5)
    axis.set_xlim(0, 1.2 * max(values))
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("peak memory that training adds (MB)")
