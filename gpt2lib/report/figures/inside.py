"""What goes on inside a model: what comes next and why, by token, head and block."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import GREY, MAIN, PALETTE, done, panels


def next_tokens(logits: np.ndarray, drawn: np.ndarray, names: Sequence[str], shown: int = 20) -> Figure:
    """The likeliest next tokens: what the model thinks of each (grey), and with which probability it is drawn.

    logits, drawn: [vocab_size], drawn after temperature and top-p. names: a token's text by its number.
    """
    plain = np.exp(logits - logits.max())
    plain /= plain.sum()
    top = np.argsort(-plain, kind="stable")[:shown]
    place = np.arange(len(top))
    figure, ((axis,),) = panels()
    axis.bar(place - 0.2, plain[top], 0.4, color=GREY, label="temperature 1, top-p 1")
    axis.bar(place + 0.2, drawn[top], 0.4, color=MAIN, label=f"drawn ({int((drawn > 0).sum()):,} tokens are left)")
    axis.set_xticks(place, [_shown(names[i]) for i in top], rotation=60, ha="right")
    axis.set(ylabel="probability")
    axis.legend()
    return done(figure)


def head_grid(patterns: np.ndarray, tokens: Sequence[str]) -> Figure:
    """What every head of one block looks at: a row asks, a column is looked at. patterns: [n_head, seq, seq]."""
    names = [_shown(token) for token in tokens]
    columns = 3
    rows = -(-len(patterns) // columns)
    width = 0.14 * len(names) + 0.4
    figure, axes = panels(rows, columns, width * columns + 0.6, width * rows + 0.8, layout="compressed")
    for axis in axes.flat[len(patterns) :]:
        axis.set_visible(False)
    for head, (axis, pattern) in enumerate(zip(axes.flat, patterns, strict=False)):
        axis.imshow(pattern, vmin=0, vmax=1, cmap="viridis")
        axis.grid(False)
        below = head + columns >= len(patterns)
        axis.set_xticks(range(len(names)), names if below else [], rotation=90, fontsize=6)
        axis.set_yticks(range(len(names)), names if head % columns == 0 else [], fontsize=6)
        axis.set_title(f"head {head}", fontsize=8)
    return done(figure)


def lens_table(
    tops: Sequence[Sequence[str]], chances: np.ndarray, tokens: Sequence[str], blocks: Sequence[int]
) -> Figure:
    """What the residual stream would say next, by block (row, the last on top) and token (column); colour: probability.

    tops: the likeliest token of each cell. chances: [blocks, seq].
    """
    figure, ((axis,),) = panels(width=0.55 * len(tokens) + 0.6, height=0.22 * len(blocks) + 0.9)
    axis.imshow(chances, vmin=0, vmax=1, cmap="Blues", aspect="auto", origin="lower")
    axis.grid(False)
    for i, row in enumerate(tops):
        for j, token in enumerate(row):
            colour = "white" if chances[i, j] > 0.6 else "black"
            axis.text(j, i, _shown(token)[:9], ha="center", va="center", fontsize=6, color=colour)
    axis.set_xticks(range(len(tokens)), [_shown(token) for token in tokens], rotation=60, ha="right")
    axis.set_yticks(range(len(blocks)), blocks)
    axis.set(xlabel="after reading", ylabel="after block", title="likeliest next token; the darker, the likelier")
    return done(figure)


def head_scores(scores: dict[str, np.ndarray]) -> Figure:
    """One number for every head, a panel a name: blocks are columns, heads are rows. scores: [n_layer, n_head] each."""
    figure, axes = panels(len(scores), height=1.6 * len(scores), sharex=True)
    for axis, (name, values) in zip(axes[:, 0], scores.items(), strict=True):
        image = axis.imshow(values.T, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axis.grid(False)
        axis.set(title=name, ylabel="head")
        figure.colorbar(image, ax=axis, pad=0.02)
    axes[-1, 0].set_xlabel("block")
    return done(figure)


def answers_by_block(runs: dict[str, np.ndarray], labels: np.ndarray, first: int) -> Figure:
    """The yes logit less the no logit after every block, a panel a run: the mean of each class, and eight tenths of its
    examples as a band. runs: [n_layer + 1, examples]. first: the first block with an adapter."""
    figure, axes = panels(1, len(runs), height=2.6, sharey=True)
    for axis, (name, values) in zip(axes[0], runs.items(), strict=True):
        for label, (colour, title) in enumerate(((PALETTE[1], "answer no"), (PALETTE[0], "answer yes"))):
            mine = values[:, labels == label]
            band = np.quantile(mine, (0.1, 0.9), axis=1)
            axis.fill_between(range(len(mine)), *band, color=colour, alpha=0.25, linewidth=0)
            axis.plot(mine.mean(1), color=colour, linewidth=2, label=title)
        axis.axvline(first, color=GREY, linestyle="--", linewidth=0.8, label="first adapted block")
        axis.set(title=name, xlabel="blocks passed")
    axes[0, 0].set_ylabel("logit of yes - logit of no")
    return done(figure, legend=True)


def truncation(values: np.ndarray, rank: int) -> Figure:
    """The singular values of an update, the first `rank` kept, and the share of its squared size that they are."""
    place = np.arange(1, len(values) + 1)
    share = (values[:rank] ** 2).sum() / (values**2).sum()
    figure, ((axis,),) = panels(width=4.0, height=2.0)
    axis.bar(place, values, color=[MAIN if i <= rank else GREY for i in place])
    axis.set(
        xlabel="number", ylabel="singular value", title=f"rank {rank} keeps {100 * share:.0f} % of the squared size"
    )
    return done(figure)


def rate_sweep(rates: Sequence[float], losses: dict[str, Sequence[float]]) -> Figure:
    """The loss that short runs reach, over their learning rates; a line a name, a ring around its best rate, if they
    differ at all."""
    figure, ((axis,),) = panels(width=4.0, height=2.2)
    for (name, values), colour in zip(losses.items(), PALETTE, strict=False):
        best = int(np.argmin(values))
        axis.plot(rates, values, marker="o", markersize=3, color=colour, label=name)
        if np.ptp(values) > 1e-6:
            axis.plot(rates[best], values[best], "o", markersize=8, markerfacecolor="none", color=colour)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss (nats a token)")
    axis.legend()
    return done(figure)


def gradient_norms(norms: dict[str, float], least: float = 1e-12) -> Figure:
    """The norm of each parameter's gradient, on a logarithmic axis that begins at `least`; what is below it is zero."""
    figure, ((axis,),) = panels(width=4.5, height=0.16 * len(norms) + 0.6)
    axis.barh(list(norms), [max(norm, least) for norm in norms.values()], left=0, color=MAIN)
    axis.set(xscale="log", xlim=(least, None), xlabel="norm of the gradient")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return done(figure)


def _shown(token: str) -> str:
    """A token as it is printed: spaces and line ends visible, no dollar that matplotlib would read as mathematics."""
    return token.replace("Ġ", "_").replace("Ċ", "\\n").replace(" ", "_").replace("$", r"\$")
