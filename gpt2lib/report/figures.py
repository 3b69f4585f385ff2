"""Every figure: a table or a tensor in, a matplotlib figure out. The only file that plots.

One theme, and one colour for each method everywhere (colour-blind safe).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

sns.set_theme(
    style="whitegrid", context="paper", palette="colorblind", rc={"figure.dpi": 80, "svg.hashsalt": "gpt2lib"}
)
_palette = sns.color_palette("colorblind")
COLOURS = {
    "last-linear": _palette[0],
    "full": _palette[1],
    "lora": _palette[2],
    "krona": _palette[3],
    "alpha-lora": _palette[4],
    "graph-lora": _palette[5],
    "kan-lora": _palette[6],
    "krona-b": _palette[7],
    "krona-b-res": _palette[8],
    "lora r=4": sns.light_palette(_palette[2], 5)[2],
    "lora r=16": sns.dark_palette(_palette[2], 5)[2],
    "floor": (0.45, 0.45, 0.45),
}
FLOOR_STYLES = {"majority class": "--", "bag of words": ":", "before training": "-."}
TASK_TITLES = {"sst": "SST (5 classes)", "cfimdb": "CFIMDB", "quora": "Quora pairs", "sonnets": "Sonnets"}
TASK_TITLES |= {"glue/rte": "RTE", "glue/mrpc": "MRPC", "glue/cola": "CoLA", "glue/sst2": "SST-2"}
PLACES = {name: i for i, name in enumerate([*TASK_TITLES, *COLOURS])}  # the order of tasks and methods everywhere


def attention_maps(weights: np.ndarray, tokens: Sequence[str]) -> Figure:
    """How much each token (row) looks at each other one (column), for every head. weights: [n_head, seq, seq]."""
    figure, axes = plt.subplots(1, len(weights), figsize=(2.6 * len(weights), 2.9), sharey=True, squeeze=False)
    for head, (axis, pattern) in enumerate(zip(axes[0], weights, strict=True)):
        sns.heatmap(pattern, ax=axis, vmin=0, vmax=1, cmap="viridis", cbar=False, square=True)
        axis.set_xticks(np.arange(len(tokens)) + 0.5, tokens, rotation=90)
        axis.set_yticks(np.arange(len(tokens)) + 0.5, tokens, rotation=0)
        axis.set_title(f"head {head}")
    return _done(figure)


def positions(wpe: np.ndarray) -> Figure:
    """Cosine of the position embeddings, every one with every other. wpe: [n_positions, n_embd]."""
    unit = wpe / np.linalg.norm(wpe, axis=1, keepdims=True)
    figure, axis = plt.subplots(figsize=(3.6, 3.0))
    image = axis.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.grid(False)
    axis.set(xlabel="position", ylabel="position")
    figure.colorbar(image, label="cosine")
    return _done(figure)


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
    return _done(figure)


def two_sides(table: pd.DataFrame) -> Figure:
    """Dev accuracy of both sides of a benchmark (columns side, seed, epoch, seconds, accuracy), by epochs and by time; a
    line a seed."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.4), sharey=True)
    for axis, x, label in zip(axes, ("epoch", "seconds"), ("epoch", "seconds of training"), strict=True):
        looks = dict(hue="side", style="side", markers=True, dashes=False, units="seed", estimator=None)
        sns.lineplot(table, x=x, y="accuracy", **looks, ax=axis)
        axis.set(xlabel=label, ylabel="dev accuracy")
        axis.legend(title="")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    return _done(figure)


def trials(table: pd.DataFrame) -> Figure:
    """Held-out loss of short pretraining runs (columns change, held_out_loss, tokens_per_second), the best one below."""
    figure, axis = plt.subplots(figsize=(5.6, 0.32 * len(table) + 0.7))
    axis.barh(table["change"], table["held_out_loss"], color=_palette[0])
    for i, row in enumerate(table.itertuples()):
        axis.text(
            row.held_out_loss + 0.02, i, f"{row.held_out_loss:.2f}, {row.tokens_per_second:,.0f} tokens/s", va="center"
        )
    axis.set(xlabel="held-out loss (nats a token)", xlim=(5, table["held_out_loss"].max() + 0.8))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return _done(figure)


def learning_curve(history: list[dict], metric: str, floors: dict[str, float] | None = None) -> Figure:
    """A run's training loss, and its dev metric with floors as dashed lines, over the steps."""
    table = pd.DataFrame(history)
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.5))
    left.plot(table["step"], table["train_loss"], marker="o", label="training batch")
    left.plot(table["step"], table["loss"], marker="s", label="dev")
    left.set(xlabel="step", ylabel="loss (nats)")
    left.legend()
    right.plot(table["step"], table[metric], marker="s", color=_palette[1])
    for (name, value), style in zip((floors or {}).items(), ("--", ":", "-."), strict=False):
        right.axhline(value, color=COLOURS["floor"], linestyle=style, label=name)
    right.set(xlabel="step", ylabel=f"dev {metric}")
    if floors:
        right.legend()
    return _done(figure)


def confusion(labels: Sequence[int], predictions: Sequence[int], names: Sequence[str]) -> Figure:
    """How often each class (row) was called each other (column), in examples."""
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    figure, axis = plt.subplots(figsize=(0.6 * len(names) + 2, 0.5 * len(names) + 1.6))
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, xticklabels=names, yticklabels=names, ax=axis)
    axis.set(xlabel="predicted", ylabel="true")
    return _done(figure)


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
    return _done(figure)


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
    return _done(figure)


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
                axis.plot(x, y, color=_palette[5], linewidth=4 * weight[t, u], alpha=0.7)
    axis.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right")
    axis.set(yticks=[], ylim=(0, tallest / 2 + 0.3), xlim=(-0.5, len(tokens) - 0.5))
    axis.grid(False)
    sns.despine(ax=axis, left=True)
    return _done(figure)


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
    return _done(figure)


def accuracy_over_alpha(table: pd.DataFrame, points: pd.DataFrame, best: dict[str, float]) -> Figure:
    """Asymptotic accuracy as lines, simulated accuracy as points with its standard error, best alphas as dashes.

    table: columns setting, alpha, accuracy. points: the same, and error. best: setting -> alpha.
    """
    figure, axis = plt.subplots(figsize=(4.6, 2.9))
    for i, (setting, rows) in enumerate(table.groupby("setting", sort=False)):
        axis.plot(rows["alpha"], rows["accuracy"], color=_palette[i], label=setting)
        seen = points[points["setting"] == setting]
        axis.errorbar(
            seen["alpha"], seen["accuracy"], seen["error"], fmt="o", markersize=3, capsize=2, color=_palette[i]
        )
        axis.axvline(best[setting], color=_palette[i], linestyle=":")
    axis.set(xlabel="alpha", ylabel="test accuracy")
    title = "lines: theory\npoints: simulation\ndots: best alpha"
    axis.legend(title=title, fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _done(figure)


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
    return _done(figure)


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
    return _done(figure)


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
    return _done(figure)


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
    return _done(figure)


def gain_map(beta: np.ndarray, eta: np.ndarray, gain: np.ndarray) -> Figure:
    """What the best alpha gains over alpha = 1, in points of accuracy. gain: [eta, beta]."""
    figure, axis = plt.subplots(figsize=(4.4, 3.0))
    image = axis.pcolormesh(beta, eta, 100 * gain, cmap="viridis", shading="nearest")
    axis.set(xlabel="similarity of source and target, beta", ylabel="eta = p / n", yscale="log")
    figure.colorbar(image, label="gain (points)")
    return _done(figure)


def waterfall(table: pd.DataFrame) -> Figure:
    """Speed after each change, one bar a change, from the slowest round to the fastest. table: one row each, with
    "examples/s" and, for the whiskers, lowest and highest."""
    speed = table["examples/s"]
    figure, axis = plt.subplots(figsize=(5.4, 0.42 * len(table) + 0.7))
    axis.barh(table.index, speed, color=[COLOURS["floor"]] + [_palette[0]] * (len(table) - 1))
    if "lowest" in table:
        whiskers = [speed - table["lowest"], table["highest"] - speed]
        axis.errorbar(speed, table.index, xerr=whiskers, fmt="none", ecolor="0.2", capsize=2)
    ends = table.get("highest", speed)
    for i, (value, end) in enumerate(zip(speed, ends, strict=True)):
        axis.text(end, i, f"  {value / speed.iloc[0]:.2f}x", va="center", fontsize=7)
    axis.set(xlabel="examples/s (median; whiskers: slowest and fastest round)", xlim=(0, 1.15 * ends.max()))
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    return _done(figure)


def overlap_floors(table: pd.DataFrame) -> Figure:
    """chrF of a model and of the floors, in both conventions. table: one row each, with chrf_whole, chrf_continuation."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 0.35 * len(table) + 1.0), sharey=True)
    for axis, convention in zip(axes, ("whole", "continuation"), strict=True):
        floor = table.index.str.startswith("given")
        colours = [COLOURS["floor"] if f else _palette[1] for f in floor]
        axis.barh(table.index, table[f"chrf_{convention}"], color=colours)
        axis.set(xlabel=f"chrF, {convention}")
        axis.invert_yaxis()
    axes[1].invert_yaxis()  # shared: turned twice
    return _done(figure)


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
    return _done(figure, legend=True)


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
    return _done(figure, legend=True)


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
    return _done(figure, legend=True)


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
    return _done(figure, legend=True)


def pretraining(history: pd.DataFrame) -> Figure:
    """Held-out perplexity of the base model over the tokens it was trained on."""
    figure, axis = plt.subplots(figsize=(4.2, 1.9))
    axis.plot(history["tokens"] / 1e6, history["perplexity"], marker="o", markersize=3, color=_palette[0])
    axis.set(xlabel="tokens trained on (millions)", ylabel="held-out perplexity", ylim=(0, None))
    return _done(figure)


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
    return _done(figure)


def method_colour(method: str):
    return COLOURS.get(method, COLOURS["floor"])


def in_order(methods) -> list[str]:
    """Methods in the order of their colours, which is the same in every figure and table; unknown ones (floors) last."""
    return sorted(dict.fromkeys(methods), key=lambda method: PLACES.get(method, len(PLACES)))


def ordered(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with tasks and methods in the order that they have in every figure and table; unknown ones (floors) last."""
    return table.sort_values(
        list(columns), key=lambda column: column.map(PLACES).fillna(len(PLACES)), kind="stable", ignore_index=True
    )


def _done(figure: Figure, legend: bool = False) -> Figure:
    """Lay the figure out, with one legend above all panels if asked for."""
    found = {}
    if legend:
        for axis in figure.axes:
            found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    width, height = figure.get_size_inches()
    columns = max(1, int(width / 1.25))
    lines = -(-len(found) // columns)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.21 * lines / height))
    if found:
        figure.legend(found.values(), found.keys(), loc="upper center", ncol=min(columns, len(found)), frameon=False)
    plt.close(figure)  # a notebook shows the figure that a cell returns; left open, it would be shown twice
    return figure
