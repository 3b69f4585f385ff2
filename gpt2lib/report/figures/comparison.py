"""The figure that compares methods: results beside their differences from LoRA."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gpt2lib.report.figures.theme import FLOOR_STYLES, GREY, MAIN, done, family_of, panels, title

LEVEL = 0.05  # of significance, after Holm's correction


def methods(table: pd.DataFrame, comparisons: pd.DataFrame | None = None) -> Figure:
    """Dev accuracy (or perplexity) of every method with its 95 % interval, the best on top, variants of a method
    together; beside it the paired differences from LoRA where there are any. A block a task; floors are vertical lines.

    table: of `report.summarise`. comparisons: of `statistics.comparisons`; a mark is filled where the difference is
    significant after Holm's correction.
    """
    tasks = list(dict.fromkeys(table["task"]))
    beside = 1 if comparisons is None else 2
    columns = min(2, len(tasks))
    lines = -(-len(tasks) // columns)
    count = table[table["seconds"].notna()].groupby("task")["method"].nunique().max()
    figure, axes = panels(lines, columns * beside, height=lines * (0.145 * count + 0.6) + 0.3)
    axes = axes.reshape(lines * columns, beside)
    grouped = []
    for block, task in zip(axes, tasks, strict=False):
        rows = table[table["task"] == task].set_index("method")
        names = _best_first(rows)
        grouped.append([family_of(name) for name in names])
        _results(block[0], rows, names, title(task) + " (lower is better)" * (rows["metric"].iloc[0] == "perplexity"))
        if beside == 2:
            of_task = comparisons[comparisons["task"] == task].set_index("method")
            if of_task.empty:
                block[1].remove()
                continue
            _differences(block[1], of_task, names, points=rows["metric"].iloc[0] == "accuracy")
    for unused in axes[len(tasks) :].flat:
        unused.remove()
    handles = [Line2D([], [], color=GREY, linestyle=style, label=name) for name, style in FLOOR_STYLES.items()]
    handles = [handle for handle in handles if handle.get_label() in set(table["method"])]
    handles += [Line2D([], [], color=MAIN, marker="s", markersize=3.5, label="result, 95 %")]
    if beside == 2:
        dot = dict(color=MAIN, marker="o", linestyle="none", markersize=4)
        handles += [Line2D([], [], **dot, label="difference significant (Holm)")]
        handles += [Line2D([], [], **dot, markerfacecolor="white", label="not significant")]
    if any(len(families) > len(set(families)) for families in grouped):
        handles += [Patch(color="0.94", label="variants of one method")]
    columns = -(-len(handles) // -(-len(handles) // 5))  # lines as long as each other
    figure.legend(
        handles=handles, loc="outside upper center", ncol=columns, frameon=False, columnspacing=1.2, handlelength=1.8
    )
    return done(figure)


def _best_first(rows: pd.DataFrame) -> list[str]:
    """The methods of one task, the best first; variants of one method stand together, by rank if ranks tell them
    apart."""
    trained = rows[rows["seconds"].notna()]
    score = trained["value"] * (1 if rows["metric"].iloc[0] == "perplexity" else -1)  # the lower the better
    family = pd.Series([family_of(name) for name in trained.index], trained.index)
    ranked = family.isin([family_of(name) for name in trained.index if " r=" in name])
    within = score.mask(ranked, pd.to_numeric(trained["rank"], errors="coerce"))
    order = pd.DataFrame({"best": score.groupby(family).transform("min"), "family": family, "within": within})
    return list(order.sort_values(list(order)).index)


def _results(axis: Axes, rows: pd.DataFrame, names: list[str], heading: str) -> None:
    metric = rows["metric"].iloc[0]
    unit = 100 if metric == "accuracy" else 1
    shown = unit * rows.loc[names, ["value", "low", "high"]]
    y = np.arange(len(names))
    error = np.maximum(0, [shown["value"] - shown["low"], shown["high"] - shown["value"]])
    axis.errorbar(shown["value"], y, xerr=error, fmt="s", markersize=3.5, color=MAIN, elinewidth=1)
    low, high = shown["low"].min(), shown["high"].max()
    beyond = []
    room = 0.9 * (high - low)  # a floor further off would squeeze everything else: it is named above
    for name, style in FLOOR_STYLES.items():
        if name in rows.index:
            value = unit * rows.loc[name, "value"]
            if low - room <= value <= high + room:
                axis.axvline(value, color=GREY, linestyle=style, linewidth=1, zorder=1)
            else:
                beyond.append(f"← {value:.0f} {name}" if value < low else f"{name} {value:.0f} →")
    if beyond:
        place = dict(transform=axis.transAxes, va="bottom", ha="right", fontsize=6, color=GREY)
        axis.text(1, 1.01, ", ".join(beyond), **place)
    _rows(axis, names)
    axis.set_yticks(y, [title(name) for name in names])
    axis.set_title(heading, loc="left", fontweight="bold", pad=10 if beyond else None)
    axis.set_xlabel("dev accuracy (%)" if metric == "accuracy" else f"dev {metric}", fontsize=7)


def _differences(axis: Axes, rows: pd.DataFrame, names: list[str], points: bool) -> None:
    axis.axvline(0, color=GREY, linewidth=1, zorder=1)
    for i, name in enumerate(names):
        if name in rows.index:
            row = rows.loc[name]
            error = np.maximum(0, [[row["difference"] - row["low"]], [row["high"] - row["difference"]]])
            face = MAIN if row["p_holm"] < LEVEL else "white"
            axis.errorbar(row["difference"], i, xerr=error, fmt="o", color=MAIN, markerfacecolor=face, elinewidth=1)
        else:
            axis.plot(0, i, "D", color=GREY, markersize=3)  # LoRA itself
    _rows(axis, names)
    axis.set_yticks(range(len(names)), [])
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.set_xlabel("minus LoRA (points)" if points else "minus LoRA (nats)", fontsize=7)


def _rows(axis: Axes, names: list[str]) -> None:
    """A line a method, the first on top, with a band behind the variants of one."""
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    families = [family_of(name) for name in names]
    for family in dict.fromkeys(families):
        if families.count(family) > 1:
            first = families.index(family)
            axis.axhspan(first - 0.5, first + families.count(family) - 0.5, color="0.94", zorder=0, linewidth=0)
