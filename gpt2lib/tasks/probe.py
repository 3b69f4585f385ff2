"""What a base knows before any of it is trained: bits per byte on texts, answers to a cloze question, and what a linear
classifier can read from its hidden states after every block.

They are the floors that a trained adapter has to beat, and they need no gradient.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from gpt2lib.data.batches import Batch, Encoded, sorted_batches
from gpt2lib.data.example import Example
from gpt2lib.data.pretraining import END_OF_TEXT
from gpt2lib.data.tokens import tokenize
from gpt2lib.model.decoder import Decoder
from gpt2lib.model.generate import evaluating
from gpt2lib.tasks.prompts import answer_ids, paraphrase_prompt
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.objectives import LanguageModel

# what words are likely when nothing is said (Zhao et al. 2021, arXiv 2102.09690)
NOTHING = Example("", "N/A", pair="N/A")


def verdict_prompt(example: Example) -> str:
    """The text, and the beginning of a sentence that a word of judgement ends. Of four such wordings the one with which
    SmolLM2-135M answered best on 250 training sentences of SST (38.8 %; the others 33.2, 30.4 and 18.8 %)."""
    return f"{example.text}\nIn one word, the film was"


# a prompt, and by class the word whose likelihood as the next token stands for it
QUESTIONS: dict[str, tuple[Callable[[Example], str], tuple[str, ...]]] = {
    "sst": (verdict_prompt, (" terrible", " bad", " okay", " good", " great")),
    "cfimdb": (verdict_prompt, (" bad", " good")),
    "quora": (paraphrase_prompt, ("no", "yes")),
}


@torch.no_grad()
def bits_per_byte(body: Decoder, tokenizer, texts: Sequence[str], window: int = 512, batch_size: int = 8) -> float:
    """How many bits the model needs for a byte of the texts' UTF-8, which models of different tokenizers can be
    compared by.

    Every text is read after an end-of-text token (or what else the tokenizer begins texts with); of a longer one each
    token is predicted once, from the half window before it or more.
    """
    bits, size = 0.0, sum(len(text.encode()) for text in texts)
    if not size:
        raise ValueError("there is no text to measure bits per byte on")
    window = min(window, body.config.n_positions)
    usual = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    begin = tokenizer.get_vocab().get(END_OF_TEXT, usual)
    pieces = [piece for ids in tokenize(texts, tokenizer) for piece in _windows([begin, *ids], window)]
    for _, batch in _batches(body, [ids for ids, _ in pieces], batch_size, starts=[start for _, start in pieces]):
        bits += sum(LanguageModel(body).predict(batch)) / math.log(2)
    return bits / size


def _windows(ids: list[int], window: int) -> Iterator[tuple[list[int], int]]:
    """Pieces of at most `window` tokens, and in each the first place whose token is predicted."""
    yield ids[:window], 1
    half = window // 2
    for end in range(window + half, len(ids) + half, half):
        piece = ids[end - window : end]
        yield piece, window - half


@torch.no_grad()
def cloze(body: Decoder, tokenizer, examples: Sequence[Example], task: str, max_length: int = 512) -> np.ndarray:
    """How likely each class's word is after the task's question, untrained: log-probabilities [examples, classes], less
    those after the same question about nothing, so that a word that is common everywhere does not win by that.

    Raises ValueError for a task without a question here, or words that a tokenizer does not tell apart by their first
    piece.
    """
    if task not in QUESTIONS:
        raise ValueError(f"no question is asked for {task!r}; possible: {', '.join(QUESTIONS)}")
    prompt, words = QUESTIONS[task]
    first = answer_ids(tokenizer, words)
    ids = [ids[-max_length:] for ids in tokenize([prompt(e) for e in (*examples, NOTHING)], tokenizer)]
    scores = torch.empty(len(ids), len(words))
    for indices, batch in _batches(body, ids):
        logits = body.logits(body(batch.input_ids, read=batch.lengths - 1))  # [batch, vocab_size]
        scores[indices] = logits.float().log_softmax(-1)[:, first].cpu()
    return (scores[:-1] - scores[-1]).numpy()


@torch.no_grad()
def block_features(body: Decoder, ids: Sequence[list[int]], blocks: Sequence[int]) -> np.ndarray:
    """What stands in the residual path after the given numbers of blocks (0: the embedding), of each text its last
    token and the mean over all: [len(blocks), texts, 2 n_embd]."""
    features = np.empty((len(blocks), len(ids), 2 * body.config.n_embd), dtype=np.float32)
    for indices, batch in _batches(body, ids):
        rows = torch.arange(len(indices), device=batch.lengths.device)
        x, done = None, 0
        for place in np.argsort(blocks):
            end = int(blocks[place])
            x = body(batch.input_ids, hidden=x, first=done, end=end)  # [batch, seq, n_embd]
            mean = (x * batch.real[..., None]).sum(1) / batch.lengths[:, None]
            features[place, indices] = torch.cat([x[rows, batch.lengths - 1], mean], -1).float().cpu().numpy()
            done = end
    return features


def accuracies(
    body: Decoder,
    tokenizer,
    train: Sequence[Example],
    other: Sequence[Example],
    task: str,
    places: int,
    max_length: int,
) -> list[dict]:
    """What share of `other` a base gets right: asked (measure "cloze"), and read by a linear probe (measure "probe")
    that is fitted on `train`, after so many `places` from the embedding (block 0) to the last block. Examples are read
    as the task's own prompt shows them, their last max_length tokens."""
    truth = np.array([example.label for example in other])
    n = body.config.n_layer
    blocks = sorted({round(i * n / max(1, places - 1)) for i in range(places)})
    encoded = (
        [ids[-max_length:] for ids in tokenize([TASKS[task].text(e) for e in part], tokenizer)]
        for part in (train, other)
    )
    known, asked = (block_features(body, ids, blocks) for ids in encoded)
    answers = cloze(body, tokenizer, other, task, max_length).argmax(1)
    rows = [{"measure": "cloze", "block": n, "accuracy": float(np.mean(answers == truth))}]
    for block, x, y in zip(blocks, known, asked, strict=True):
        right = probe(x, [e.label for e in train], y) == truth
        rows.append({"measure": "probe", "block": block, "accuracy": float(np.mean(right))})
    return [row | {"share": row["block"] / n, "examples": len(truth)} for row in rows]


def probe(train: np.ndarray, labels: Sequence[int], other: np.ndarray) -> np.ndarray:
    """Classes that a logistic regression on standardised features predicts for `other`: [texts].

    train, other: [texts, features]. The strength of its regularisation is the best of four on a fifth of `train`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    labels = np.asarray(labels)
    middle, spread = train.mean(0), train.std(0) + 1e-6
    train, other = (train - middle) / spread, (other - middle) / spread

    def fitted(c: float, x: np.ndarray, y: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=200, tol=1e-2).fit(x, y)

    x, held_out, y, truth = train_test_split(train, labels, test_size=0.2, random_state=0)
    best = max((1e-4, 1e-3, 1e-2, 1e-1), key=lambda c: fitted(c, x, y).score(held_out, truth))
    return fitted(best, train, labels).predict(other)


def _batches(
    body: Decoder, ids: Sequence[list[int]], batch_size: int = 16, starts: Sequence[int] | None = None
) -> Iterator[tuple[list[int], Batch]]:
    """Texts of about the same length together, on the model's device, with its dropout off."""
    if empty := [i for i, row in enumerate(ids) if not row]:
        raise ValueError(f"text {empty[0]} is empty: nothing can be read after it")
    starts = starts or [1] * len(ids)
    with evaluating(body):
        for indices in sorted_batches([len(row) for row in ids], batch_size):
            yield indices, Batch.of([Encoded(ids[i], start=starts[i]) for i in indices], body.wte.weight.device)
