"""Figures of base models: what attention and positions look like, how a base was pretrained, and what it must know."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import GREY, HALF, LIGHT, MAIN, PALETTE, WIDTH, done, method_colour, panels, title


def attention_maps(weights: np.ndarray, tokens: Sequence[str]) -> Figure:
    """How much each token (row) looks at each other (column), by head, four in a line. weights: [n_head, seq, seq]."""
    columns = min(4, len(weights))
    lines = -(-len(weights) // columns)
    width = min(WIDTH, 1.9 * columns + 0.6)
    figure, axes = panels(
        lines, columns, width, lines * (width / columns + 0.2) + 0.5, layout="compressed", sharex=True, sharey=True
    )
    for head, axis in enumerate(axes.flat):
        if head < len(weights):
            heat_map(axis, weights[head], tokens, vmin=0, vmax=1, cmap="viridis")
            axis.set_title(f"head {head}" if len(weights) > 1 else "")
        else:
            axis.remove()
    return done(figure)


def heat_map(axis, values: np.ndarray, tokens: Sequence[str], **settings):
    """Of [seq, seq] values, a row and a column a token; returns the image, for a colour bar."""
    image = axis.imshow(values, **settings)
    small = dict(fontsize=6 if len(tokens) > 12 else 7)
    axis.set_xticks(range(len(tokens)), tokens, rotation=90, **small)
    axis.set_yticks(range(len(tokens)), tokens, **small)
    axis.grid(False)
    return image


def positions(wpe: np.ndarray) -> Figure:
    """Cosine of the position embeddings, every one with every other. wpe: [n_positions, n_embd]."""
    unit = wpe / np.linalg.norm(wpe, axis=1, keepdims=True)
    figure, ((axis,),) = panels(width=HALF, height=2.4)
    image = axis.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.grid(False)
    axis.set(xlabel="position", ylabel="position")
    figure.colorbar(image, label="cosine")
    return done(figure)


def pretraining(history: pd.DataFrame) -> Figure:
    """Held-out perplexity of the base model over the tokens it was trained on."""
    figure, ((axis,),) = panels(width=HALF, height=1.8)
    axis.plot(history["tokens"] / 1e6, history["perplexity"], marker="o", markersize=3, color=MAIN)
    axis.set(xlabel="tokens trained on (millions)", ylabel="held-out perplexity", ylim=(0, None))
    return done(figure)


def trials(table: pd.DataFrame) -> Figure:
    """Held-out loss of short pretraining runs, the best below; columns n_layer, optimizer, lr, batch_size, embeddings,
    held_out_loss, tokens_per_second."""
    names = [
        f"{row.n_layer} layers, {row.optimizer}, rate {row.lr:g}, batch {row.batch_size}, {row.embeddings}"
        for row in table.itertuples()
    ]
    figure, ((axis,),) = panels(width=5.4, height=0.22 * len(table) + 0.6)
    axis.plot(table["held_out_loss"], names, "o", color=MAIN)
    for i, row in enumerate(table.itertuples()):
        text = f"  {row.held_out_loss:.2f}, {row.tokens_per_second:,.0f} tokens/s"
        axis.text(row.held_out_loss, i, text, va="center", fontsize=6.5)
    low, high = table["held_out_loss"].min(), table["held_out_loss"].max()
    axis.set(xlabel="held-out loss (nats a token)", xlim=(low - 0.05 * (high - low), high + 0.6 * (high - low)))
    axis.invert_yaxis()
    return done(figure)


def needs(table: pd.DataFrame) -> Figure:
    """What a base must know before adapters pay: dev accuracy by base, a panel a task, from nothing to much.

    table: columns task, method, base (what the line is called), value, low and high (95 %), from the least base to the
    most; method "" for a floor. A colour a method.
    """
    tasks, bases = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["base"]))
    methods = [name for name in dict.fromkeys(table["method"]) if name]
    figure, (axes,) = panels(1, len(tasks), height=0.3 * len(bases) + 0.9, sharey=True)
    shift = 0.22
    for axis, task in zip(axes, tasks, strict=True):
        for place, method in enumerate(["", *methods]):
            rows = table[(table["task"] == task) & (table["method"] == method)]
            y = np.array([bases.index(base) for base in rows["base"]])
            y = y + (shift * (place - 1 - (len(methods) - 1) / 2) if method else 0)
            error = 100 * np.maximum(0, [rows["value"] - rows["low"], rows["high"] - rows["value"]])
            colour, label = (method_colour(method), title(method)) if method else (GREY, None)
            settings = dict(fmt="o", color=colour, elinewidth=1, label=label)
            axis.errorbar(100 * rows["value"], y, xerr=error, **settings)
        axis.set(title=title(task), xlabel="dev accuracy (%)", ylim=(len(bases) - 0.5, -0.5))
        axis.set_yticks(range(len(bases)), bases)
        axis.grid(axis="y", visible=False)
    return done(figure, legend=len(methods) > 1)


def block_ranges(table: pd.DataFrame) -> Figure:
    """Accuracy by the range of blocks that is adapted: on the left which ones (blue: adapted, grey: frozen below them,
    and run once; white: cut off or untouched above), then a panel a task, and the time of training.

    table: columns task, first, end (behind the last), targets, value, low, high, seconds; targets are named where they
    are not the most frequent ones.
    """
    tasks = list(dict.fromkeys(table["task"]))
    keys, usual = ["end", "first", "targets"], table["targets"].mode()[0]
    ranges = list(table[keys].drop_duplicates().sort_values(keys).itertuples(index=False))
    y = np.arange(len(ranges))
    figure, (axes,) = panels(1, len(tasks) + 2, height=0.16 * len(ranges) + 0.7, sharey=True)
    first, end = (np.array([getattr(r, name) for r in ranges]) for name in ("first", "end"))
    axes[0].barh(y, end - first, left=first, height=0.5, color=MAIN)
    axes[0].barh(y, first, height=0.2, color=LIGHT)
    axes[0].set(xlabel="blocks", xlim=(0, max(end)), ylim=(len(ranges) - 0.5, -0.5))
    named = [f"{r.first} to {r.end - 1}" + f", {r.targets}" * (r.targets != usual) for r in ranges]
    axes[0].set_yticks(y, named)
    for axis, task in zip(axes[1:], tasks, strict=False):
        rows = table[table["task"] == task].set_index(keys)
        at = [i for i, r in enumerate(ranges) if tuple(r) in rows.index]
        rows = rows.loc[[tuple(ranges[i]) for i in at]]
        error = 100 * np.maximum(0, [rows["value"] - rows["low"], rows["high"] - rows["value"]])
        axis.errorbar(100 * rows["value"], at, xerr=error, fmt="o", color=MAIN, elinewidth=1)
        axis.set(title=title(task), xlabel="accuracy (%)")
        axes[-1].plot(
            rows["seconds"] / 60, at, "o", markersize=3.5, label=title(task), color=PALETTE[tasks.index(task)]
        )
    axes[-1].set(xlabel="training (min)", xlim=(0, None))
    for axis in axes:
        axis.grid(axis="y", visible=False)
    return done(figure, legend=len(tasks) > 1)
