"""The base model that a notebook adapts, by name; and "toy", a tiny one that is pretrained on the spot, once."""

import hashlib
import os
import shutil
from pathlib import Path

import torch

from gpt2lib import pretrain, toy
from gpt2lib.config import GPT2Config
from gpt2lib.encoding import cache_folder, load_tokenizer, tokenize
from gpt2lib.heads import LanguageModel
from gpt2lib.model import GPT2
from gpt2lib.training import Training, fit

TOY_CONFIG = dict(vocab_size=640, n_positions=384, n_embd=96, n_layer=3, n_head=4)
TOY_TRAINING = Training(epochs=1, batch_size=4, optimizer="muon", lr=5e-3, weight_decay=0.01)
TOY_ROWS, TOY_LENGTH = 1600, 256


def load_base(name: str):
    """A pretrained GPT-2 and its tokenizer.

    name: what `GPT2.from_pretrained` takes, or "toy": 0.5 million parameters that know the toy data's language,
    trained in about half a minute at the first use and then kept in the cache folder.
    """
    source = toy_base() if name == "toy" else name
    return GPT2.from_pretrained(source), load_tokenizer(source)


def base_name(name: str) -> str:
    """How results call a base model: its hub name or, for a folder, the folder's last name."""
    return Path(name).name if Path(name).is_dir() else name


def toy_base() -> Path:
    recipe = hashlib.sha256(repr((TOY_CONFIG, TOY_TRAINING, TOY_ROWS, TOY_LENGTH, toy.VERSION)).encode()).hexdigest()
    folder = cache_folder() / f"toy-base-{recipe[:8]}"
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    parts = toy.corpus(seed=0, documents=4000)
    tokenizer = pretrain.train_tokenizer(
        [t for texts in parts.values() for t in texts], TOY_CONFIG["vocab_size"], partial
    )
    end = tokenizer.eos_token_id
    ids = {name: tokenize(texts, tokenizer) for name, texts in parts.items()}
    shares = {"reviews": 0.6, "questions": 0.25, "poetry": 0.15}
    rows = pretrain.mix(ids, shares, end, TOY_LENGTH, TOY_ROWS * TOY_LENGTH, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2(GPT2Config(**TOY_CONFIG, bos_token_id=end, eos_token_id=end))
        fit(LanguageModel(model), rows, rows[:8], TOY_TRAINING)
    model.save_pretrained(partial)
    try:
        os.rename(partial, folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return folder
