"""Figures of base models: what attention and positions look like, and how a base was pretrained."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import PALETTE, done


def attention_maps(weights: np.ndarray, tokens: Sequence[str]) -> Figure:
    """How much each token (row) looks at each other one (column), for every head. weights: [n_head, seq, seq]."""
    figure, axes = plt.subplots(1, len(weights), figsize=(2.6 * len(weights), 2.9), sharey=True, squeeze=False)
    for head, (axis, pattern) in enumerate(zip(axes[0], weights, strict=True)):
        sns.heatmap(pattern, ax=axis, vmin=0, vmax=1, cmap="viridis", cbar=False, square=True)
        axis.set_xticks(np.arange(len(tokens)) + 0.5, tokens, rotation=90)
        axis.set_yticks(np.arange(len(tokens)) + 0.5, tokens, rotation=0)
        axis.set_title(f"head {head}")
    return done(figure)


def positions(wpe: np.ndarray) -> Figure:
    """Cosine of the position embeddings, every one with every other. wpe: [n_positions, n_embd]."""
    unit = wpe / np.linalg.norm(wpe, axis=1, keepdims=True)
    figure, axis = plt.subplots(figsize=(3.6, 3.0))
    image = axis.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.grid(False)
    axis.set(xlabel="position", ylabel="position")
    figure.colorbar(image, label="cosine")
    return done(figure)


def pretraining(history: pd.DataFrame) -> Figure:
    """Held-out perplexity of the base model over the tokens it was trained on."""
    figure, axis = plt.subplots(figsize=(4.2, 1.9))
    axis.plot(history["tokens"] / 1e6, history["perplexity"], marker="o", markersize=3, color=PALETTE[0])
    axis.set(xlabel="tokens trained on (millions)", ylabel="held-out perplexity", ylim=(0, None))
    return done(figure)


def trials(table: pd.DataFrame) -> Figure:
    """Held-out loss of short pretraining runs (columns change, held_out_loss, tokens_per_second), the best one below."""
    figure, axis = plt.subplots(figsize=(5.6, 0.32 * len(table) + 0.7))
    axis.barh(table["change"], table["held_out_loss"], color=PALETTE[0])
    for i, row in enumerate(table.itertuples()):
        axis.text(
            row.held_out_loss + 0.02, i, f"{row.held_out_loss:.2f}, {row.tokens_per_second:,.0f} tokens/s", va="center"
        )
    axis.set(xlabel="held-out loss (nats a token)", xlim=(5, table["held_out_loss"].max() + 0.8))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return done(figure)
