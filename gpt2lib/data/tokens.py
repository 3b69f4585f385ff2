"""Texts to token ids, which are kept in a cache."""

import hashlib
from collections.abc import Sequence

import numpy as np

from gpt2lib.common.machine import cache_folder
from gpt2lib.common.whole import write_whole


def tokenize(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Token ids of every text, without special tokens, from the cache if this tokenizer has seen these texts before."""
    key = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    for text in texts:
        key.update(text.encode() + b"\0")
    path = cache_folder() / "tokens" / f"{key.hexdigest()[:32]}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return [ids.tolist() for ids in np.split(stored["ids"], stored["ends"][:-1])] if len(texts) else []
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    flat = np.fromiter((token for row in ids for token in row), dtype=np.int32)
    write_whole(path, lambda partial: np.savez(partial, ids=flat, ends=np.cumsum([len(row) for row in ids])))
    return ids
