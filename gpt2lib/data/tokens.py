"""Texts to token ids, which are kept in a cache."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt2lib.common.machine import cache_folder
from gpt2lib.common.whole import write_whole


def tokenize(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Token ids of every text, without special tokens, from the cache if this tokenizer has seen these texts before."""
    key = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for text in texts:
        content = text.encode()
        key.update(len(content).to_bytes(8, "little") + content)
    path = cache_folder() / "tokens" / f"{key.hexdigest()[:32]}.npz"
    if (ids := _stored(path, len(texts))) is not None:
        return ids
    ids = token_ids(texts, tokenizer)
    flat = np.fromiter((token for row in ids for token in row), dtype=np.int32)
    write_whole(path, lambda partial: np.savez(partial, ids=flat, ends=np.cumsum([len(row) for row in ids])))
    return ids


def token_ids(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Token ids of every text, without special tokens, and kept nowhere: for texts that are a user's own."""
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if len(texts) else []


def _stored(path: Path, count: int) -> list[list[int]] | None:
    """The token ids that a file holds; None where there is none for so many texts, or a damaged one."""
    try:
        with np.load(path) as stored:  # a zip archive, whose parts carry checksums
            ids, ends = stored["ids"], stored["ends"].astype(int)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if len(ends) != count or (count and ends[-1] != len(ids)):
        return None
    return [part.tolist() for part in np.split(ids, ends[:-1])] if count else []
