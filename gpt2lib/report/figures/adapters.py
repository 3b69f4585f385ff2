"""Figures of what stands in a trained adapter: spectra, alphas, graphs, splines."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gpt2lib.report.figures.bases import heat_map
from gpt2lib.report.figures.theme import GREY, WIDTH, done, panels, title


def singular_values(deltas: dict[str, np.ndarray], rank: int, shown: int | None = None) -> Figure:
    """The spectra of weight updates: the first singular values (2 rank of them by default) over the largest, both axes
    logarithmic, so that updates of different size compare. deltas: name -> [d_out, d_in]."""
    figure, ((axis,),) = panels(width=4.2, height=2.4)
    for name, delta in deltas.items():
        values = np.linalg.svd(delta, compute_uv=False)[: shown or 2 * rank]
        axis.plot(range(1, len(values) + 1), values / values[0], marker="o", markersize=2.5, label=name)
    axis.axvline(rank + 0.5, color=GREY, linestyle="--", linewidth=1, label=f"rank {rank}")
    axis.set(
        xlabel="number i", ylabel="$\\sigma_i / \\sigma_1$ of the update", xscale="log", yscale="log", ylim=(1e-4, 1.5)
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="lower left")
    return done(figure)


def row_alphas(alphas: dict[str, np.ndarray], trace: pd.DataFrame, reach: float) -> Figure:
    """alpha-LoRA's row-wise alpha: its distribution in every layer, and how the layers' means moved in training.

    alphas: layer -> [d_out]. trace: columns step, layer, mean. reach: how far its moves could have carried an alpha
    that went the same way every time (Adam's step is about the rate, whatever the gradient's size), dotted.
    """
    figure, ((left, right),) = panels(1, 2, height=2.4, width_ratios=(3, 2))
    short = {name: name.removeprefix("blocks.").replace(".attn", "").replace(".mlp", "") for name in alphas}
    left.boxplot(
        alphas.values(), tick_labels=[short[name] for name in alphas], flierprops={"markersize": 2}, widths=0.6
    )
    left.axhline(1, color=GREY, linestyle="--", linewidth=1)
    for side in (-1, 1):
        left.axhline(1 + side * reach, color=GREY, linestyle=":", linewidth=1)
    left.tick_params(axis="x", rotation=90)
    left.set(xlabel="block and layer", ylabel="alpha of its rows")
    for layer, rows in trace.groupby("layer", sort=False):
        right.plot(rows["step"], rows["mean"], label=short[layer])
    right.set(xlabel="step", ylabel="mean alpha")
    if len(alphas) <= 8:
        figure.legend(*right.get_legend_handles_labels(), loc="outside right center", fontsize=6)
    return done(figure)


def alpha_agreement(rows: pd.DataFrame) -> Figure:
    """The spread of row_alpha in every layer, and how alike two seeds' alphas are: the mean correlation, row by row, of
    all pairs of seeds, at the largest number of examples.

    rows: columns task, seed, examples, layer, row, alpha.
    """
    rows = rows[rows["examples"] == (most := rows["examples"].max())]
    short = rows["layer"].str.removeprefix("blocks.").str.replace(".attn", "").str.replace(".mlp", "")
    rows = rows.assign(layer=short, task=rows["task"].map(title))
    figure, ((left, right),) = panels(1, 2, height=2.4)
    sns.boxplot(rows, x="layer", y="alpha", hue="task", ax=left, fliersize=1, linewidth=0.7, legend=False)
    left.axhline(1, color=GREY, linestyle="--", linewidth=1)
    left.set(xlabel="block and layer", ylabel="alpha of its rows", title=f"{most:,} examples, all seeds")
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
    right.axhline(0, color=GREY, linestyle="--", linewidth=1)
    right.set(xlabel="block and layer", ylabel="correlation of two seeds' alphas", ylim=(-0.4, 1))
    right.set_title(f"{most:,} examples, each pair of seeds")
    return done(figure)


def alpha_paths(trace: pd.DataFrame) -> Figure:
    """How the rows' alphas leave 1 in training, a panel a task: their standard deviation in every layer, the mean of
    the seeds, at the largest number of examples.

    trace: columns task, seed, examples, step, layer, std.
    """
    trace = trace[trace["examples"] == (most := trace["examples"].max())]
    parts = trace["layer"].str.extract(r"blocks\.(?P<block>\d+)\.\w+\.(?P<target>\w+)")
    trace = trace.join(parts).rename(columns={"std": "spread of alpha over rows"})
    tasks = list(trace["task"].unique())
    figure, axes = panels(1, len(tasks), min(WIDTH, 3.3 * len(tasks)), 2.3, sharey=True)
    for axis, task in zip(axes[0], tasks, strict=True):
        settings = dict(x="step", y="spread of alpha over rows", hue="block", style="target", errorbar=None)
        sns.lineplot(trace[trace["task"] == task], ax=axis, legend=axis is axes[0][0], **settings)
        axis.set_title(f"{title(task)}, {most:,} examples")
    legend = axes[0][0].get_legend_handles_labels()
    axes[0][0].get_legend().remove()
    figure.legend(*legend, loc="outside right center", fontsize=6)
    return done(figure)


def token_graph(attention: np.ndarray, tokens: Sequence[str], similarity: np.ndarray) -> Figure:
    """A graph over the tokens of a sentence as heat maps, a row for the token that takes: how similar two tokens are,
    which are joined, and how much each takes from each.

    attention: [heads, seq, seq], averaged over heads; an edge is where it is not 0. similarity: [seq, seq], cosines.
    """
    edges = (attention > 0).any(0)
    maps = {"similarity (cosine)": (similarity, "viridis", 1), "edges": (edges, "Greys", 1)}
    maps["attention"] = np.where(edges, attention.mean(0), np.nan), "viridis", None
    figure, (axes,) = panels(1, len(maps), WIDTH * len(maps) / 3, 2.4, layout="compressed", sharey=True)
    for axis, (name, (values, cmap, top)) in zip(axes, maps.items(), strict=True):
        image = heat_map(axis, values, tokens, cmap=cmap, vmin=None if name.startswith("sim") else 0, vmax=top)
        axis.set_title(name)
        if name != "edges":
            figure.colorbar(image, ax=axis, shrink=0.6)
    return done(figure)


def splines(z: np.ndarray, bases: np.ndarray, curves: np.ndarray) -> Figure:
    """The B-spline bases, and what a spline layer learned with them: one curve for each output of the first inputs.

    z: [points]. bases: [points, n]. curves: [points, outputs, inputs].
    """
    inputs = min(3, curves.shape[-1])
    figure, (axes,) = panels(1, 1 + inputs, height=1.9)
    axes[0].plot(z, bases)
    axes[0].plot(z, bases.sum(1), color="black", linestyle=":")
    axes[0].set_title("bases, and their sum")
    for i, axis in enumerate(axes[1:]):
        axis.plot(z, curves[:, :, i])
        axis.set_title(f"input {i} of {curves.shape[-1]}: a line an output", fontsize=7)
    for axis in axes:
        axis.axvspan(-1, 1, color="0.93", zorder=0)
        axis.set_xlabel("z, in units of the grid")
    return done(figure)
