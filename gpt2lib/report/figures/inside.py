"""What goes on inside a model: what comes next and why, by token, head and block."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import COLOURS, PALETTE, done


def next_tokens(logits: np.ndarray, drawn: np.ndarray, names: Sequence[str], shown: int = 20) -> Figure:
    """The likeliest next tokens: what the model thinks of each (grey), and with which probability it is drawn.

    logits, drawn: [vocab_size], drawn after temperature and top-p. names: a token's text by its number.
    """
    plain = np.exp(logits - logits.max())
    plain /= plain.sum()
    top = np.argsort(-plain, kind="stable")[:shown]
    place = np.arange(len(top))
    figure, axis = plt.subplots(figsize=(6.4, 2.4))
    axis.bar(place - 0.2, plain[top], 0.4, color=COLOURS["floor"], label="temperature 1, top-p 1")
    axis.bar(
        place + 0.2, drawn[top], 0.4, color=PALETTE[0], label=f"drawn ({int((drawn > 0).sum()):,} tokens are left)"
    )
    axis.set_xticks(place, [_shown(names[i]) for i in top], rotation=60, ha="right")
    axis.set(ylabel="probability")
    axis.legend()
    return done(figure)


def rate_sweep(rates: Sequence[float], losses: dict[str, Sequence[float]]) -> Figure:
    """The loss that short runs reach, over their learning rates; a line a name, its best rate marked."""
    figure, axis = plt.subplots(figsize=(4.2, 2.6))
    for (name, values), colour in zip(losses.items(), PALETTE, strict=False):
        best = int(np.argmin(values))
        axis.plot(rates, values, marker="o", markersize=3, color=colour, label=name)
        axis.plot(rates[best], values[best], "o", markersize=8, markerfacecolor="none", color=colour)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss (nats a token)")
    axis.legend()
    return done(figure)


def gradient_norms(norms: dict[str, float], least: float = 1e-12) -> Figure:
    """The norm of each parameter's gradient, on a logarithmic axis that begins at `least`; what is below it is zero."""
    figure, axis = plt.subplots(figsize=(4.8, 0.19 * len(norms) + 0.7))
    axis.barh(list(norms), [max(norm, least) for norm in norms.values()], left=0, color=PALETTE[0])
    axis.set(xscale="log", xlim=(least, None), xlabel="norm of the gradient")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return done(figure)


def _shown(token: str) -> str:
    """A token as it is printed: spaces and line ends visible, and no dollar that matplotlib would read as mathematics."""
    return token.replace("Ġ", "_").replace("Ċ", "\\n").replace(" ", "_").replace("$", r"\$")
