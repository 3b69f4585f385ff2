"""Pretraining a small GPT-2 of one's own: a byte-level BPE tokenizer, packed sequences, held-out slices.

The training itself is `training.fit` on a `heads.LanguageModel`; notebook 02_pretrain walks through it.
"""

import lzma
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from gpt2lib import toy
from gpt2lib.encoding import Encoded

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: str | Path):
    """Train GPT-2's kind of tokenizer (byte-level BPE with an end-of-text token), save it in `folder`, and return it.

    As in GPT-2 the last token is the end of text, and "yes" and "no" at the start of a line, which the cloze tasks
    read, are one token each: so they are shown often enough to be merged.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    cloze_words = ["yes", "no"] * 20_000
    bpe.train_from_iterator(chain(texts, cloze_words), vocab_size=vocab_size - 1, min_frequency=2, show_progress=False)
    bpe.add_special_tokens([END_OF_TEXT])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=END_OF_TEXT
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def read_corpus(path: str | Path) -> Iterator[str]:
    """The documents of a text file, plain or .xz: one a line, a newline inside written as backslash and n."""
    path = Path(path)
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            if text := line.rstrip("\n").replace("\\n", "\n"):
                yield text


def corpus(source: str | Path = "") -> dict[str, list[str]]:
    """The documents of every part of a corpus.

    source: "toy", or a folder with one .txt or .txt.xz file a part (see `read_corpus`); "" takes the folder that
    GPT2LIB_CORPUS names. Raises FileNotFoundError that says what to put where.
    """
    if source == "toy":
        return toy.corpus(seed=1, documents=2000)
    folder = str(source) or os.environ.get("GPT2LIB_CORPUS", "")
    files = sorted(file for pattern in ("*.txt", "*.txt.xz") for file in Path(folder).glob(pattern)) if folder else []
    if not files:
        raise FileNotFoundError(
            f"no .txt or .txt.xz file in {folder or 'GPT2LIB_CORPUS, which is not set'}; give a folder with one file "
            "for each part of the corpus, one document a line, or source='toy'"
        )
    return {file.name.split(".")[0]: list(read_corpus(file)) for file in files}


def hold_out(documents: Iterable[str], every: int) -> tuple[list[str], list[str]]:
    """Split documents into training and held-out ones: each `every`-th is held out."""
    train, held_out = [], []
    for i, document in enumerate(documents):
        (held_out if i % every == every - 1 else train).append(document)
    return train, held_out


def pack(documents: list[list[int]], end: int, length: int, rows: int, seed: int) -> list[Encoded]:
    """`rows` rows of `length` tokens: documents in a shuffled order, each behind an end-of-text token, cut evenly.

    No token is padding. Where the documents are too few they are gone through again, in another order.
    Raises ValueError for documents that hold no token at all.
    """
    if not any(documents):
        raise ValueError("there is no text to pack")
    rng = np.random.default_rng(seed)
    pieces, tokens = [], 0
    while tokens < rows * length:
        for i in rng.permutation(len(documents)):
            pieces.append(np.asarray([end, *documents[i]], dtype=np.int32))
            tokens += len(pieces[-1])
            if tokens >= rows * length:
                break
    stream = np.concatenate(pieces)[: rows * length]
    return [Encoded(ids=row) for row in stream.reshape(rows, length)]


def mix(parts: dict[str, list[list[int]]], shares: dict[str, float], end: int, length: int, tokens: int, seed: int):
    """Rows of all parts of a corpus, each part giving its share of `tokens`."""
    rows = {name: max(1, round(shares[name] * tokens / length)) for name in parts}
    return [row for name in parts for row in pack(parts[name], end, length, rows[name], seed)]
