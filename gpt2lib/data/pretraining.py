"""Pretraining a small GPT-2 of one's own: a byte-level BPE tokenizer, packed sequences, held-out slices.

The training itself is `training.fit` on a `objectives.LanguageModel`; notebook 03_pretraining walks through it.
"""

import lzma
import math
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from gpt2lib.common.checks import check_count, one_line
from gpt2lib.data import toy
from gpt2lib.data.batches import Encoded

END_OF_TEXT = "<|endoftext|>"  # between the documents that GPT-2 and SmolLM2 were pretrained on, too


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
    """The documents of a text file, plain or .xz: one a line, a newline inside written as backslash and n.

    Raises ValueError for a damaged archive or bytes that are not UTF-8, naming the file.
    """
    path = Path(path)
    try:
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8-sig") as file:
            for line in file:
                if text := line.rstrip("\n").replace("\\n", "\n"):
                    yield text
    except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: damaged ({one_line(error)})") from None


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


def every_nth_held_out(documents: Iterable[str], every: int) -> tuple[list[str], list[str]]:
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
    check_count("length", length)
    check_count("rows", rows)
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
    """Rows of all parts of a corpus, each part giving its share of `tokens`.

    Raises ValueError for a number of tokens below 1, or a part without a positive share.
    """
    check_count("tokens", tokens)
    if wrong := [name for name in parts if not 0 < shares.get(name, 0) < math.inf]:
        raise ValueError(f"every part needs a positive share; {wrong[0]!r} has {shares.get(wrong[0])!r}")
    rows = {name: max(1, round(shares[name] * tokens / length)) for name in parts}
    return [row for name in parts for row in pack(parts[name], end, length, rows[name], seed)]


def count_embeddings(parts: dict[str, list[list[int]]], end: int, vocab_size: int, width: int, window: int = 5):
    """Token embeddings from counts alone, to start from instead of noise: [vocab_size, width], root mean square 0.06.

    The positive pointwise mutual information of tokens at most `window` apart, neighbours weighing 1 / distance, and
    its best factors of rank `width` (Levy, Goldberg and Dagan 2015: contexts smoothed by the power 0.75, U sqrt(S)).
    Holds a few matrices of vocab_size^2 floats. Raises ValueError for a width above the vocabulary's size.
    """
    if width > vocab_size:
        raise ValueError(f"{vocab_size} tokens have no {width} factors; at most {vocab_size}")
    stream = np.concatenate([np.asarray([end, *ids], dtype=np.int64) for part in parts.values() for ids in part])
    pairs = np.zeros(vocab_size**2, dtype=np.float32)
    for distance in range(1, window + 1):
        for first in range(0, len(stream) - distance, 1 << 23):  # in slices, or the pairs' indices fill the memory
            left, right = stream[first : len(stream) - distance][: 1 << 23], stream[first + distance :][: 1 << 23]
            pairs += np.bincount(left * vocab_size + right, minlength=vocab_size**2).astype(np.float32) / distance
    counts = torch.from_numpy(pairs).view(vocab_size, vocab_size)
    counts = counts + counts.T
    token = counts.sum(1)
    context = token**0.75 / (token**0.75).sum()
    information = (counts / (token[:, None] * context).clamp(min=1e-12)).log_().clamp_(min=0)  # log 0 counts as 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        u, s, _ = torch.svd_lowrank(information, q=min(width + 32, vocab_size), niter=4)
    factors = (u * s.sqrt())[:, :width]
    factors = factors - factors.mean(0)
    return 0.06 * factors / factors.pow(2).mean(1, keepdim=True).sqrt().clamp(min=1e-6)
