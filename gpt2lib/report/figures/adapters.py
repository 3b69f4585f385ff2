"""Figures of what stands in a trained adapter: spectra, alphas, graphs, splines."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import COLOURS, PALETTE, TASK_TITLES, done


def singular_values(deltas: dict[str, np.ndarray], rank: int, shown: int | None = None) -> Figure:
    """The first singular values of weight updates (2 rank of them by default). deltas: name -> [d_out, d_in]."""
    figure, axis = plt.subplots(figsize=(4.2, 2.6))
    for name, delta in deltas.items():
        values = np.linalg.svd(delta, compute_uv=False)[: shown or 2 * rank]
        axis.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=name)
    axis.axvline(rank + 0.5, color=COLOURS["floor"], linestyle="--", label=f"rank {rank}")
    largest = max(np.linalg.norm(delta, 2) for delta in deltas.values())
    axis.set(xlabel="number", ylabel="singular value of the update", yscale="log", ylim=(1e-4 * largest, 2 * largest))
    axis.legend()
    return done(figure)


def row_alphas(alphas: dict[str, np.ndarray], trace: pd.DataFrame) -> Figure:
    """alpha-LoRA's row-wise alpha: its distribution in every layer, and how the layers' means moved in training.

    alphas: layer -> [d_out]. trace: columns step, layer, mean.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.8), gridspec_kw={"width_ratios": [3, 2]})
    short = {name: name.removeprefix("blocks.").replace(".attn", "").replace(".mlp", "") for name in alphas}
    left.boxplot(alphas.values(), tick_labels=[short[name] for name in alphas], flierprops={"markersize": 2})
    left.axhline(1, color=COLOURS["floor"], linestyle="--")
    left.tick_params(axis="x", rotation=60)
    left.set(xlabel="block and layer", ylabel="alpha of its rows")
    for layer, rows in trace.groupby("layer", sort=False):
        right.plot(rows["step"], rows["mean"], label=short[layer])
    right.set(xlabel="step", ylabel="mean alpha")
    if len(alphas) <= 8:
        right.legend(fontsize=6)
    return done(figure)


def alpha_agreement(rows: pd.DataFrame) -> Figure:
    """The spread of row_alpha in every layer, and how alike two seeds' alphas are: the mean correlation, row by row, of
    all pairs of seeds, at the largest number of examples.

    rows: columns task, seed, examples, layer, row, alpha.
    """
    rows = rows[rows["examples"] == rows["examples"].max()]
    short = rows["layer"].str.removeprefix("blocks.").str.replace(".attn", "").str.replace(".mlp", "")
    rows = rows.assign(layer=short, task=rows["task"].map(lambda task: TASK_TITLES.get(task, task)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.8))
    sns.boxplot(rows, x="layer", y="alpha", hue="task", ax=left, fliersize=1, linewidth=0.7, legend=False)
    left.axhline(1, color=COLOURS["floor"], linestyle="--")
    left.set(xlabel="block and layer", ylabel="alpha of its rows")
    agreement = []
    for (task, layer), group in rows.groupby(["task", "layer"], sort=False):
        by_seed = group.pivot(index="row", columns="seed", values="alpha").corr().to_numpy()
        pairs = by_seed[np.triu_indices(len(by_seed), 1)]
        agreement += [{"task": task, "layer": layer, "correlation": value} for value in pairs]
    if agreement:
        sns.stripplot(
            pd.DataFrame(agreement), x="layer", y="correlation", hue="task", ax=right, dodge=True, jitter=False
        )
        right.legend(title="")
    right.axhline(0, color=COLOURS["floor"], linestyle="--")
    right.set(xlabel="block and layer", ylabel="correlation of two seeds' alphas", ylim=(-0.4, 1))
    return done(figure)


def alpha_paths(trace: pd.DataFrame) -> Figure:
    """How the rows' alphas leave 1 in training, a panel a task: their standard deviation in every layer, the mean of the
    seeds, at the largest number of examples.

    trace: columns task, seed, examples, step, layer, std.
    """
    trace = trace[trace["examples"] == trace["examples"].max()]
    parts = trace["layer"].str.extract(r"blocks\.(?P<block>\d+)\.\w+\.(?P<target>\w+)")
    trace = trace.join(parts).rename(columns={"std": "spread of alpha over rows"})
    tasks = list(trace["task"].unique())
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.4 * len(tasks), 2.6), sharey=True, squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        settings = dict(x="step", y="spread of alpha over rows", hue="block", style="target", errorbar=None)
        sns.lineplot(trace[trace["task"] == task], ax=axis, legend=axis is axes[0][0], **settings)
        axis.set_title(TASK_TITLES.get(task, task))
    axes[0][0].legend(fontsize=6, ncol=2)
    return done(figure)


def token_graph(attention: np.ndarray, tokens: Sequence[str]) -> Figure:
    """A learned graph over the tokens of a sentence: arcs from each token to those it takes from, as thick as it takes.

    attention: [heads, seq, seq]; heads are averaged. Self edges are left out.
    """
    weight = attention.mean(0)
    figure, axis = plt.subplots(figsize=(max(6.0, 0.42 * len(tokens)), 2.6))
    tallest = 1
    for t in range(len(tokens)):
        for u in range(t):
            if weight[t, u] > 0.02:
                middle, width = (t + u) / 2, t - u
                tallest = max(tallest, width)
                angle = np.linspace(0, np.pi, 40)
                x, y = middle + width / 2 * np.cos(angle), width / 2 * np.sin(angle)
                axis.plot(x, y, color=PALETTE[5], linewidth=4 * weight[t, u], alpha=0.7)
    axis.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right")
    axis.set(yticks=[], ylim=(0, tallest / 2 + 0.3), xlim=(-0.5, len(tokens) - 0.5))
    axis.grid(False)
    sns.despine(ax=axis, left=True)
    return done(figure)


def splines(z: np.ndarray, bases: np.ndarray, curves: np.ndarray) -> Figure:
    """The B-spline bases, and what a spline layer learned with them: one curve for each output of the first inputs.

    z: [points]. bases: [points, n]. curves: [points, outputs, inputs].
    """
    inputs = min(3, curves.shape[-1])
    figure, axes = plt.subplots(1, 1 + inputs, figsize=(2.2 * (1 + inputs), 2.3))
    axes[0].plot(z, bases)
    axes[0].plot(z, bases.sum(1), color="black", linestyle=":")
    axes[0].set_title("bases, and their sum")
    for i, axis in enumerate(axes[1:]):
        axis.plot(z, curves[:, :, i])
        axis.set_title(f"input {i} to each output")
    for axis in axes:
        axis.axvspan(-1, 1, color="0.93", zorder=0)
        axis.set_xlabel("z, in units of the grid")
    return done(figure)
