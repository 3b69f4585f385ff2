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


def _shown(token: str) -> str:
    """A token as it is printed: spaces and line ends visible, and no dollar that matplotlib would read as mathematics."""
    return token.replace("Ġ", "_").replace("Ċ", "\\n").replace(" ", "_").replace("$", r"\$")
