"""The base model that a notebook adapts, by name."""

from pathlib import Path

import torch

from gpt2lib.model import pretrained
from gpt2lib.model.config import SIZES, GPT2Config
from gpt2lib.model.gpt2 import GPT2

UNTRAINED = "untrained:"  # before a name: its shape and tokenizer, with random weights


def load_base(name: str):
    """A pretrained GPT-2 and its tokenizer, or with "untrained:" before the name one with random weights.

    Random weights are the same in every call: a run that goes on after a kill, or is repeated, has the base it had.
    name: what `GPT2.from_pretrained` takes. An untrained model of a published size needs only its tokenizer: where that
    cannot be fetched, gpt2-mini's stands in.
    """
    if not name.startswith(UNTRAINED):
        return GPT2.from_pretrained(name), load_tokenizer(name)
    name = name.removeprefix(UNTRAINED)
    if name in SIZES:
        try:
            tokenizer = load_tokenizer(name)
        except FileNotFoundError:
            tokenizer = load_tokenizer("gpt2-mini")
        return _untrained(SIZES[name]), tokenizer
    return _untrained(GPT2Config.from_json(pretrained.find(name) / "config.json")), load_tokenizer(name)


def _untrained(config: GPT2Config) -> GPT2:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2(config).eval()


def base_name(name: str) -> str:
    """How results call a base model: its hub name or, for a folder, the folder's last name."""
    if name.startswith(UNTRAINED):
        return f"untrained {base_name(name.removeprefix(UNTRAINED))}"
    return Path(name).name if Path(name).is_dir() else name


def load_tokenizer(name: str | Path):
    """The tokenizer that lies with a model's weights (hub name, folder or embedded model), from transformers.

    Raises FileNotFoundError where there is none.
    """
    folder = pretrained.find(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise FileNotFoundError(
            f"{folder} holds no tokenizer.json and no vocab.json; save the tokenizer beside the model"
        )
    from transformers import AutoTokenizer  # heavy: two seconds that a user of the model alone need not pay

    return AutoTokenizer.from_pretrained(folder)
