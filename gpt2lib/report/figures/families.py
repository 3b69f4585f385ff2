"""From GPT-2 to Llama: positions as angles, what a cache holds, a gate; and what a base knows before it is trained."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import FLOOR_STYLES, GREY, HALF, MAIN, PALETTE, WIDTH, done, panels, title


def rotary(cosines: np.ndarray, scores: dict[str, np.ndarray]) -> Figure:
    """How far each pair of numbers is turned by position, and what that makes of one query and one key.

    cosines: of the angles, [positions, pairs]. scores: by where the query stands, its product with the key at each
    distance before it; the lines lie on each other.
    """
    figure, ((left, right),) = panels(1, 2, height=2.3)
    image = left.imshow(cosines.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    left.grid(False)
    left.set(xlabel="position", ylabel="pair")
    figure.colorbar(image, ax=left, label="cosine of the angle")
    for (name, values), width in zip(scores.items(), np.linspace(4, 1, len(scores)), strict=True):
        right.plot(values, label=name, linewidth=width)
    right.set(xlabel="distance from the query to the key", ylabel="their product")
    right.legend()
    return done(figure)


def cache_sizes(bytes_a_token: dict[str, float], tokens: int) -> Figure:
    """What a text's keys and values take, by how many heads of them there are."""
    figure, ((axis,),) = panels(width=HALF, height=0.32 * len(bytes_a_token) + 0.6)
    y = np.arange(len(bytes_a_token))
    sizes = np.array(list(bytes_a_token.values())) * tokens / 1e6
    axis.barh(y, sizes, height=0.55, color=MAIN)
    for place, size in zip(y, sizes, strict=True):
        axis.text(size, place, f" {size:,.0f}", va="center", fontsize=7)
    axis.set_yticks(y, bytes_a_token)
    axis.set(xlabel=f"MB for {tokens:,} tokens", xlim=(0, 1.2 * max(sizes)))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return done(figure)


def gating(x: np.ndarray, activations: dict[str, np.ndarray], gated: dict[str, np.ndarray]) -> Figure:
    """Activations side by side, and a gated unit's output over its gate's input, one line for each of `up`'s values."""
    figure, axes = panels(1, 2, height=2.2)
    labels = (("its input", "output"), ("gate's input", "output"))
    for axis, lines, (xlabel, ylabel) in zip(axes.flat, (activations, gated), labels, strict=True):
        for name, values in lines.items():
            axis.plot(x, values, label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.legend()
    return done(figure)


def bits_by_part(table: pd.DataFrame) -> Figure:
    """Bits a byte of each kind of text (column part), a colour a base (column base); fewer is better."""
    parts, bases = (list(dict.fromkeys(table[column])) for column in ("part", "base"))
    figure, ((axis,),) = panels(height=0.24 * len(parts) + 0.9)
    for base, colour in zip(bases, PALETTE, strict=False):
        rows = table[table["base"] == base]
        axis.plot(rows["bits"], [parts.index(part) for part in rows["part"]], "o", color=colour, label=base)
    axis.set(xlabel="bits a byte", xlim=(0, None), ylim=(len(parts) - 0.5, -0.5))
    axis.set_yticks(range(len(parts)), parts)
    return done(figure, legend=True)


def probes(table: pd.DataFrame, floors: dict[str, dict[str, float]]) -> Figure:
    """What a base knows of each task, a panel a task: a line a base for the dev accuracy of a linear probe after each
    block, diamonds on the right for what it answers when asked; grey lines for floors, by task and name.

    table: columns base, task, measure ("probe" or "cloze"), share (of the blocks that have read the text), accuracy.
    """
    tasks, bases = (list(dict.fromkeys(table[column])) for column in ("task", "base"))
    figure, (axes,) = panels(1, len(tasks), width=max(4.6, WIDTH * min(1, len(tasks) / 2)), height=2.3)
    for axis, task in zip(axes, tasks, strict=True):
        for base, colour in zip(bases, PALETTE, strict=False):
            rows = table[(table["task"] == task) & (table["base"] == base)]
            lines, asked = rows[rows["measure"] == "probe"], rows[rows["measure"] == "cloze"]
            axis.plot(lines["share"], 100 * lines["accuracy"], "o-", color=colour, label=base, markersize=3)
            axis.plot([1.15] * len(asked), 100 * asked["accuracy"], "D", color=colour, markersize=5)
        for name, value in floors.get(task, {}).items():
            axis.axhline(100 * value, color=GREY, linestyle=FLOOR_STYLES.get(name, "-"), label=name)
        axis.set_xticks([0, 0.5, 1, 1.15], ["embedding", "middle", "last", "asked"], rotation=35, ha="right")
        axis.set(title=title(task), xlabel="after which block", xlim=(-0.05, 1.22))
    axes[0].set_ylabel("dev accuracy (%)")
    return done(figure, legend=True)
