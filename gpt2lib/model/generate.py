"""Decoding: greedy or sampled, batched, with a key/value cache. `Decoder.generate` is this function."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor

from gpt2lib.common.checks import check_count, check_number
from gpt2lib.model.attention import KVCache


@torch.no_grad()
def generate(
    model,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token_id: int | None = None,
    generator: torch.Generator | None = None,
    on_token: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Continue every prompt of a batch: [batch, seq] -> [batch, seq + new], new <= max_new_tokens.

    attention_mask: [batch, seq], 1 = real token; prompts of unequal length may be padded on either side, and are
    returned as they were given. temperature 0 is greedy. A row that has produced eos_token_id is filled with it, and
    decoding stops when all rows have. Sampling draws from `generator` alone, so the same seed gives the same text.
    on_token is called with the new token of every row, [batch], as soon as it is there, and stops decoding by True.
    Raises ValueError for an empty prompt, an impossible setting, or more tokens than n_positions.
    """
    batch, seq = batch_shape(input_ids)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    if mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask is {list(mask.shape)}, expected {[batch, seq]}")
    lengths = mask.sum(1)  # [batch]
    if batch == 0 or seq == 0 or lengths.min() < 1:
        raise ValueError("generate needs at least one real token in every row: begin an empty prompt with an end token")
    check_number("temperature", temperature, 0, 1e6)
    if top_k is not None:
        check_count("top_k", top_k)
    if top_p is not None:
        check_number("top_p", top_p, 1e-9, 1)
    if eos_token_id is not None:
        check_count("eos_token_id", eos_token_id, 0, model.config.vocab_size - 1)
    check_count("max_new_tokens", max_new_tokens, at_least=0)
    if input_ids.min() < 0 or input_ids.max() >= model.config.vocab_size:
        raise ValueError(f"a token of the prompt is none of the model's: they are 0 to {model.config.vocab_size - 1}")
    if max_new_tokens == 0:
        return input_ids
    if (needed := int(lengths.max()) + max_new_tokens) > model.config.n_positions:
        raise ValueError(
            f"prompt and max_new_tokens={max_new_tokens} make {needed} tokens, more than "
            f"n_positions={model.config.n_positions}; ask for fewer"
        )

    # the real tokens of every row moved to the right, in order, so that all rows continue in the same column
    order = mask.argsort(dim=1, stable=True)  # [batch, seq]
    ids, mask = input_ids.gather(1, order), mask.gather(1, order)
    drop = seq - int(lengths.max())  # columns that are padding everywhere
    ids, mask = ids[:, drop:], mask[:, drop:]

    cache = KVCache(ids.shape[1] + max_new_tokens)
    padded = bool((mask == 0).any())
    ended = torch.zeros(batch, dtype=torch.bool, device=ids.device)
    new = []
    with evaluating(model):
        for _ in range(max_new_tokens):
            h = model(ids, mask if padded else None, cache)
            token = sample(model.logits(h[:, -1]), temperature, top_k, top_p, generator)  # [batch]
            if eos_token_id is not None:
                token = token.masked_fill(ended, eos_token_id)
                ended |= token == eos_token_id
            new.append(token)
            if on_token is not None and on_token(token) is True:
                break
            if eos_token_id is not None and ended.all():
                break
            ids = token[:, None]
            mask = torch.cat([mask, mask.new_ones(batch, 1)], dim=1)
    return torch.cat([input_ids, torch.stack(new, dim=1)], dim=1)


def batch_shape(input_ids: Tensor) -> tuple[int, int]:
    """[batch, seq]. Raises ValueError for ids of another shape."""
    if input_ids.dim() != 2:
        raise ValueError(f"input_ids must be [batch, seq], not {list(input_ids.shape)}; a single text is ids[None]")
    return input_ids.shape


@contextmanager
def evaluating(model):
    """Dropout off for a while; every module's mode is what it was afterwards, whatever happens."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode


def sample(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """Draw one token a row from logits: [batch, vocab_size] -> [batch].

    top_k keeps the k likeliest tokens (Fan et al. 2018), top_p the fewest whose probability reaches p (nucleus
    sampling, Holtzman et al. 2020), in this order.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float()
    # the likeliest token's becomes 0, which no temperature moves: all stay finite where a tiny one would make them inf
    logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]  # [batch, 1]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    probability = logits.softmax(-1)
    token = draw(probability, generator)  # [batch, 1]
    while top_p is not None and top_p < 1:
        # a token is in the nucleus if the likelier ones do not reach p; drawing again what is not, and nothing less
        # likely, draws from the nucleus in a few rounds, where sorting the vocabulary would take longer than the model
        drawn = probability.gather(-1, token)
        outside = (probability * (probability > drawn)).sum(-1, keepdim=True) >= top_p  # [batch, 1]
        if not outside.any():
            break
        probability = probability.masked_fill(outside & (probability <= drawn), 0)
        token = torch.where(outside, draw(probability, generator), token)
    return token.squeeze(-1)


def draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index a row in proportion to the weights, by the inverse of their sums: [batch, vocab_size] -> [batch, 1].

    torch.multinomial draws a number for every index instead, which takes as long as a small model's step.
    """
    sums = weights.cumsum(-1)
    height = 1 - torch.rand(len(weights), 1, generator=generator, device=weights.device)  # (0, 1]
    return torch.searchsorted(sums, height * sums[:, -1:])
