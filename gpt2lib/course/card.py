"""The model card of a pretrained base: what it is, what it was trained on, what it reached, what it writes."""

from gpt2lib.model.config import GPT2Config
from gpt2lib.training.checkpoint import Progress
from gpt2lib.training.settings import TrainingSettings

START = {
    "counts": "factored counts of neighbouring tokens (`data.pretraining.count_embeddings`)",
    "random": "random numbers",
}


def model_card(
    name: str,
    config: GPT2Config,
    settings: TrainingSettings,
    progress: Progress,
    shares: dict[str, float],
    perplexity: dict[str, float],
    continuations: list[tuple[str, str]],
    embeddings: str,
    sources: str = "",
) -> str:
    """Markdown with the header that the Hugging Face hub reads.

    shares, perplexity: by part of the corpus. continuations: prompts and what the model wrote after them, unchosen.
    sources: what the text is and where it comes from, in sentences.
    """
    rows = "\n".join(f"| {part} | {100 * shares[part]:.0f} % | {perplexity[part]:.1f} |" for part in shares)
    written = "\n".join(f"- **{_line(prompt)}**{_line(text)}" for prompt, text in continuations)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
language: en
---

# {name}

A GPT-2 architecture of {config.parameters:,} parameters ({config.n_layer} blocks, width {config.n_embd},
{config.n_head} heads, context {config.n_positions}, output layer tied to the token embedding) with a byte-level BPE
tokenizer of its own ({config.vocab_size:,} entries, the last one `<|endoftext|>`). It is **not** OpenAI's GPT-2 and
knows far less. Both `gpt2lib.GPT2.from_pretrained` and `transformers.AutoModelForCausalLM.from_pretrained` load it.
The file holds half-precision numbers.

## What it was trained on

{progress.tokens:,} tokens in packed rows of {config.n_positions}, documents separated by the end-of-text token; every
hundredth document was held out. {sources} Perplexity is per token of this tokenizer, on held-out documents, after
training.

| part | share of the tokens | held-out perplexity |
|---|---|---|
{rows}

## Recipe

`notebooks/03_pretraining`: {progress.steps:,} updates of {settings.batch_size} rows; {settings.optimizer}, learning
rate {settings.lr:g} after a warm-up over {100 * settings.warmup:g} % of the updates, falling to 0 over the last
{100 * settings.decay:g} % of the rest; weight decay {settings.weight_decay:g}; gradients clipped to norm
{settings.max_grad_norm:g}; {settings.precision}; token embeddings started from {START[embeddings]};
seed {settings.seed}.
{progress.seconds / 60:.0f} minutes at {progress.tokens_per_second:,.0f} tokens/s.
Held-out loss {progress.best["loss"]:.3f} nats a token.

## Limits

It has read {progress.tokens:,} tokens, where the text of GPT-2 has some ten billion.
It writes in the manner of its parts and seldom makes sense for
longer than a sentence; it knows few facts, and repeats the prejudices of its texts. It is made for comparing methods of
adaptation on small machines, and results on it are not results on GPT-2.

## What it writes

The beginnings of the first held-out documents of each part (bold; of those longer than eight tokens), continued by
sampling (top-p 0.9, temperature 1, one seed). None was chosen or left out.

{written}
"""


def _line(text: str) -> str:
    """Text as one line of Markdown."""
    return text.replace("\n", " / ").replace("*", "\\*").replace("<", "\\<").replace("_", "\\_").replace("`", "\\`")
