"""The library's parts behind the signatures that notebook 02 asks its reader for, so that one check can run both.

There a layer is called with what it kept of earlier tokens, `layer(x, past) -> (y, past)`, and a training loop with a
list of batches.
"""

import itertools
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gpt2lib.data.batches import Encoded, bucketed_batches
from gpt2lib.model.config import GPT2Config
from gpt2lib.model.generate import sample
from gpt2lib.model.gpt2 import GPT2
from gpt2lib.training import TrainingSettings, fit
from gpt2lib.training.objectives import LanguageModel


def recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    """A layer class with `past`: it keeps all inputs and computes everything again, which is slow and right."""

    class Recomputing(kind):
        def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
            seen = x if past is None else torch.cat([past, x], 1)
            return super().forward(seen)[:, -x.shape[1] :], seen

    return Recomputing


class LibraryGPT(GPT2):
    """GPT2 that returns logits: [batch, seq] -> [batch, seq, vocab_size]."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(super().forward(ids))


def beside(config: GPT2Config, library: nn.Module, x: Tensor, first: int) -> Callable[[type[nn.Module]], dict]:
    """What a check does with a layer class: the outputs of one with the library's weights, at once and in two calls,
    and its gradients.

    x: what it is called with, [batch, seq] or [batch, seq, n_embd]. first: how many tokens the first call gets.
    """

    def run(kind: type[nn.Module]) -> dict:
        layer = kind(config)
        layer.load_state_dict(library.state_dict())
        given = x.clone().requires_grad_(x.is_floating_point())
        whole, _ = layer(given)
        start, past = layer(given[:, :first])
        rest, _ = layer(given[:, first:], past)
        (whole * torch.linspace(0.5, 1.5, whole.shape[-1])).sum().backward()
        result = {"all tokens at once": whole, "the first tokens": start, "the others, with the past": rest}
        gradients = {"its input": given.grad} if x.is_floating_point() else {}
        gradients |= {name: p.grad for name, p in layer.named_parameters()}
        return result | {f"gradient of {name}": gradient for name, gradient in gradients.items()}

    return run


def with_fit(model: nn.Module, batches: list[Tensor], lr: float) -> list[float]:
    """Train the library's GPT2 from the same weights on the same batches with `fit`; the loss of each step.

    model: with GPT2's parameter names and a `config`. batches: ids, [batch, length] each, all of one size.
    """
    size = len(batches[0])
    order = bucketed_batches([batch.shape[1] for batch in batches for _ in batch], size, seed=0, epoch=0)
    rows = [ids for batch in batches for ids in batch]
    at = itertools.chain(*order)  # fit takes row i of `train` where this says i
    train = [Encoded(ids.tolist()) for _, ids in sorted(zip(at, rows, strict=True), key=lambda pair: pair[0])]
    body = GPT2(model.config)
    body.load_state_dict(model.state_dict())
    settings = TrainingSettings(epochs=1, batch_size=size, lr=lr, warmup=0.1, eval_every=1, seed=0)
    return [row["train_loss"] for row in fit(LanguageModel(body), train, train[:1], settings, quiet=True).history]


def frequencies(logits: Tensor, temperature: float, top_p: float, draws: int = 100_000) -> Tensor:
    """How often the library's `sample` draws each token: [vocab_size] -> [vocab_size], within about 0.005."""
    generator = torch.Generator().manual_seed(0)
    tokens = sample(logits.expand(draws, -1), temperature, None, top_p, generator)  # [draws]
    return torch.bincount(tokens, minlength=len(logits)) / draws


def learned_merges(words: dict[str, int], number: int) -> list[tuple[str, str]]:
    """The pairs that `tokenizers` merges, in order, when it learns from words and how often each occurs."""
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    letters = sorted(set("".join(words)))
    trainer = trainers.BpeTrainer(vocab_size=len(letters) + number, show_progress=False, initial_alphabet=letters)
    tokenizer.train_from_iterator((word for word, times in words.items() for _ in range(times)), trainer)
    return merges_of(tokenizer)


def merges_of(tokenizer) -> list[tuple[str, str]]:
    """The pairs that a BPE tokenizer (of `tokenizers`) merges, in order of precedence."""
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


@torch.no_grad()
def same_weights(one: nn.Module, library: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What two layers make of x when the first has the second's weights."""
    one.load_state_dict(library.state_dict())
    return one(x), library(x)
