"""What is trained for: the protocol of `Trainer`, and its two objectives, a class and the next token."""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2lib.data.batches import Batch, Encoded
from gpt2lib.model.decoder import Decoder

LOGITS_AT_ONCE = 2**26  # numbers of the vocabulary-sized matrix that exist at a time: 256 MB in float32


class Objective(Protocol):
    """What `Trainer` trains: a torch module that holds a model (`body`) and says how good it is.

    metric: the one of `metrics` that the best epoch is chosen by; sign: +1 where higher is better, else -1.
    reads_last_token: whether nothing but the last token's hidden state is read.
    """

    body: nn.Module
    metric: str
    sign: int
    reads_last_token: bool

    def __call__(self, batch: Batch) -> Tensor:
        """The summed loss of a batch; its mean is over the examples' `weight`."""

    def weight(self, example: Encoded) -> int:
        """What an example counts in the mean."""

    def predict(self, batch: Batch) -> list:
        """One prediction an example."""

    def metrics(self, predictions: list, examples: list[Encoded]) -> dict[str, float]:
        """All metrics, "loss" among them."""


def merit(model: Objective, metrics: dict) -> tuple[float, float]:
    """What the better of two evaluations has more of: its metric's good, and of equals the smaller loss."""
    return model.sign * metrics[model.metric], -metrics["loss"]


def trained_parameters(model) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class ClozeHead(nn.Module):
    """The logits of given words as the next token: n_embd -> len(token_ids). Without `trained` it is the body's output
    layer and has no parameter; with it, the words' rows are copied and trained: n_embd * len(token_ids)."""

    def __init__(self, body: Decoder, token_ids: list[int], trained: bool):
        super().__init__()
        self.token_ids = token_ids
        self.rows = nn.Parameter(body.unembedding[token_ids].detach().clone()) if trained else None

    def forward(self, h: Tensor, unembedding: Tensor) -> Tensor:
        return F.linear(h, unembedding[self.token_ids] if self.rows is None else self.rows)


class LinearHead(nn.Linear):
    """A new linear layer on the hidden state: (n_embd + 1) * classes parameters, initialised as GPT-2's are."""

    def __init__(self, n_embd: int, classes: int):
        super().__init__(n_embd, classes)
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, h: Tensor, unembedding: Tensor) -> Tensor:
        return super().forward(h)


class Classifier(nn.Module):
    """A class from the hidden state of the last real token."""

    metric, sign, reads_last_token = "accuracy", 1, True

    def __init__(self, body: Decoder, head: nn.Module):
        super().__init__()
        self.body, self.head = body, head

    def features(self, batch: Batch) -> Tensor:
        """What the head reads: [batch, n_embd]"""
        return self.body(batch.input_ids, read=batch.lengths - 1, hidden=batch.hidden, first=batch.first)

    def logits(self, batch: Batch) -> Tensor:
        """[batch, classes]"""
        return self.head(self.features(batch), self.body.unembedding)

    def forward(self, batch: Batch) -> Tensor:
        """Summed cross-entropy."""
        return self.means(batch).sum()

    def means(self, batch: Batch) -> Tensor:
        """The loss of each example, of which every one counts the same in a mixture of tasks: [batch]"""
        return F.cross_entropy(self.logits(batch).float(), batch.labels, reduction="none")

    def weight(self, example: Encoded) -> int:
        return 1

    def predict(self, batch: Batch) -> list[tuple[int, float]]:
        """For each example its likeliest class, and the cross-entropy of its label (nan without one)."""
        logits = self.logits(batch).float()
        loss = F.cross_entropy(logits, batch.labels.clamp(min=0), reduction="none")
        loss = loss.masked_fill(batch.labels < 0, math.nan)
        return list(zip(logits.argmax(-1).tolist(), loss.tolist(), strict=True))

    def metrics(self, predictions: list, examples: list[Encoded]) -> dict[str, float]:
        """Accuracy, macro-averaged F1 over the classes that occur, Matthews' correlation (CoLA's metric), and mean
        cross-entropy."""
        from sklearn.metrics import (  # a second that AdamW alone need not pay
            accuracy_score,
            f1_score,
            matthews_corrcoef,
        )

        labels, predicted = [e.label for e in examples], [p for p, _ in predictions]
        return {
            "accuracy": float(accuracy_score(labels, predicted)),
            "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
            "matthews": float(matthews_corrcoef(labels, predicted)),
            "loss": sum(loss for _, loss in predictions) / len(predictions),
        }


class LanguageModel(nn.Module):
    """Next-token prediction. Tokens from `start` on count; padding is dropped before the vocabulary-sized layer."""

    metric, sign, reads_last_token = "perplexity", -1, False

    def __init__(self, body: Decoder):
        super().__init__()
        self.body = body

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every token that counts, and the row of the batch that it belongs to: two [tokens]."""
        h = self.body(batch.input_ids, hidden=batch.hidden, first=batch.first)[:, :-1]  # [batch, seq - 1, n_embd]
        target = torch.arange(1, batch.input_ids.shape[1], device=h.device)  # position of each prediction's target
        counts = (target >= batch.starts[:, None]) & (target < batch.lengths[:, None])  # [batch, seq - 1]
        h, targets = h[counts], batch.input_ids[:, 1:][counts]  # [tokens, n_embd], [tokens]
        rows = max(1, LOGITS_AT_ONCE // self.body.config.vocab_size)
        if len(h) <= rows:
            losses = self._cross_entropy(h, targets)
        else:  # computed again in the backward pass, so that logits exist for one part at a time
            parts = zip(h.split(rows), targets.split(rows), strict=True)
            losses = torch.cat([checkpoint(self._cross_entropy, *part, use_reentrant=False) for part in parts])
        return losses, counts.nonzero()[:, 0]

    def _cross_entropy(self, h: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.body.logits(h).float(), targets, reduction="none")

    def forward(self, batch: Batch) -> Tensor:
        """Summed cross-entropy."""
        return self.losses(batch)[0].sum()

    def means(self, batch: Batch) -> Tensor:
        """The mean cross-entropy of each example's tokens: every example counts the same in a mixture: [batch]"""
        losses, rows = self.losses(batch)
        tokens = torch.bincount(rows, minlength=len(batch.lengths))
        return torch.zeros(len(batch.lengths), device=losses.device).index_add(0, rows, losses / tokens[rows])

    def weight(self, example: Encoded) -> int:
        return max(0, len(example.ids) - max(1, example.start))

    def predict(self, batch: Batch) -> list[float]:
        """The summed cross-entropy of each example, in nats."""
        losses, rows = self.losses(batch)
        return torch.zeros(len(batch.lengths), device=losses.device).index_add(0, rows, losses).tolist()

    def metrics(self, predictions: list[float], examples: list[Encoded]) -> dict[str, float]:
        """Mean cross-entropy per token in nats, and its exponential."""
        loss = sum(predictions) / sum(map(self.weight, examples))
        return {"perplexity": math.exp(min(loss, 700)), "loss": loss}
