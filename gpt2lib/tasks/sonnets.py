"""Sonnets: their lines, and completing them from the first three."""

from collections.abc import Callable

import torch

from gpt2lib.data.example import Example
from gpt2lib.data.tokens import token_ids, tokenize
from gpt2lib.model.decoder import Decoder
from gpt2lib.tasks.prompts import sonnet_prompt

LINES = 14


def verse_lines(text: str) -> list[str]:
    """The lines of a poem that are not empty, without indentation."""
    return [line.strip() for line in text.splitlines() if line.strip()]


@torch.no_grad()
def complete_sonnets(
    body: Decoder,
    tokenizer,
    examples: list[Example],
    seed: int = 0,
    temperature: float = 0.9,
    top_p: float = 0.9,
    max_new_tokens: int = 256,
) -> list[str]:
    """Complete each sonnet from its first three lines, in one batch: the whole texts, as long as the model made them.

    A model that does not stop is stopped after max_new_tokens, or at n_positions.
    """
    if not examples:
        return []
    device = body.wte.weight.device
    prompts = [sonnet_prompt(example)[0] for example in examples]
    rows = [[tokenizer.eos_token_id, *ids] for ids in tokenize(prompts, tokenizer)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    out = body.generate(
        ids,
        mask,
        max_new_tokens=min(max_new_tokens, body.config.n_positions - width),
        temperature=temperature,
        top_p=top_p,
        eos_token_id=tokenizer.eos_token_id,
        generator=torch.Generator(device).manual_seed(seed),
    )
    new = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return [prompt + text for prompt, text in zip(prompts, new, strict=True)]


def given_ids(prompt: str, tokenizer, max_length: int) -> list[int]:
    """The tokens of what is given, after the one that begins a text. Raises ValueError for a prompt that leaves no room
    within max_length tokens."""
    ids = [tokenizer.eos_token_id, *token_ids([prompt], tokenizer)[0]]
    if len(ids) >= max_length:
        raise ValueError(f"the given lines have {len(ids)} tokens, and the model was trained on {max_length} at most")
    return ids


def complete(
    body: Decoder,
    tokenizer,
    prompt: str,
    seed: int,
    temperature: float,
    top_p: float,
    max_length: int,
    show: Callable[[str], object] | None = None,
) -> str:
    """Prompt and continuation, up to the end of the fourteenth line; show: called with every piece as it is made.

    Raises ValueError as `given_ids` does.
    """
    ids = given_ids(prompt, tokenizer, max_length)
    tokens, shown = [], ""

    def on_token(token: torch.Tensor) -> bool:
        """Whether the last line is whole. A character of several tokens is shown when its last one is there."""
        nonlocal shown
        tokens.append(int(token))
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            if show is not None and len(text) > len(shown):
                show(text[len(shown) :])
            shown = text
        return text.endswith("\n") and len(verse_lines(prompt + text)) >= LINES

    body.generate(
        torch.tensor([ids], device=body.wte.weight.device),
        max_new_tokens=max_length - len(ids),
        temperature=temperature,
        top_p=top_p,
        eos_token_id=tokenizer.eos_token_id,
        generator=torch.Generator(body.wte.weight.device).manual_seed(seed),
        on_token=on_token,
    )
    return prompt + shown
