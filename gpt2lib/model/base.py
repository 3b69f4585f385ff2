"""The base model that a notebook adapts, by name, of whichever family it is."""

from pathlib import Path

import torch

from gpt2lib.common.checks import one_line
from gpt2lib.model import pretrained
from gpt2lib.model.config import PUBLISHED, Config, config_from_json
from gpt2lib.model.decoder import Decoder
from gpt2lib.model.gpt2 import GPT2
from gpt2lib.model.llama import Llama

UNTRAINED = "untrained:"  # before a name: its shape and tokenizer, with random weights
FAMILIES: dict[type, type[Decoder]] = {family.config_class: family for family in (GPT2, Llama)}


def load_base(name: str | Path, depth: int | None = None) -> tuple[Decoder, object]:
    """A pretrained model and its tokenizer, or with "untrained:" before the name one with random weights.

    Random weights are the same in every call: a run that goes on after a kill, or is repeated, has the base it had.
    name: what `Decoder.from_pretrained` takes, of any family that config.json's model_type names. depth: keep the
    lowest so many blocks, and the final norm after them. An untrained model of a published size needs only its
    tokenizer: where that cannot be fetched, gpt2-mini's stands in.
    """
    model, tokenizer = _with_tokenizer(name, depth)
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(f"{name}: its tokenizer has {len(tokenizer)} tokens, its model only {model.config.vocab_size}")
    return model, tokenizer


def _with_tokenizer(name: str | Path, depth: int | None) -> tuple[Decoder, object]:
    if not str(name).startswith(UNTRAINED):
        return load_model(name, depth), load_tokenizer(name)
    name = name.removeprefix(UNTRAINED)
    model = _untrained(shape_of(name))
    if depth is not None:
        model.cut(depth)
    try:
        return model, load_tokenizer(name)
    except FileNotFoundError:
        if name not in PUBLISHED:
            raise
        return model, load_tokenizer("gpt2-mini")


def load_model(name: str | Path, depth: int | None = None) -> Decoder:
    """The model alone, of whichever family its config.json names."""
    family = FAMILIES[type(config_from_json(pretrained.find(name) / "config.json"))]
    return family.from_pretrained(name, depth=depth)


def shape_of(name: str | Path) -> Config:
    """The configuration of a base by name, without its weights where the size is a published one."""
    return PUBLISHED[name] if name in PUBLISHED else config_from_json(pretrained.find(name) / "config.json")


def random_model(config: Config) -> Decoder:
    """A model of this shape with random weights, in training mode."""
    return FAMILIES[type(config)](config)


def _untrained(config: Config) -> Decoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return random_model(config).eval()


def base_name(name: str) -> str:
    """How results call a base model: its hub name or, for a folder or file, its last name."""
    if name.startswith(UNTRAINED):
        return f"untrained {base_name(name.removeprefix(UNTRAINED))}"
    return Path(name).name if Path(name).exists() else name


def load_tokenizer(name: str | Path):
    """The tokenizer that lies with a model's weights (hub name, folder or embedded model), from transformers.

    Raises FileNotFoundError where there is none.
    """
    files = ("tokenizer.json", "vocab.json")
    folder = pretrained.find(name, holds=files)
    there = {path.name for path in folder.iterdir()}
    if not there & set(files):  # a model of the hub or of an older cache may come without
        raise FileNotFoundError(f"{folder} holds no {' and no '.join(files)}; save the tokenizer beside the model")
    # heavy: two seconds that a user of the model alone need not pay
    from transformers import AutoTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

    kind = AutoTokenizer
    if not there & {"config.json", "tokenizer_config.json"}:  # which say what kind it is
        kind = PreTrainedTokenizerFast if "tokenizer.json" in there else GPT2TokenizerFast
    try:
        return kind.from_pretrained(folder)
    except Exception as error:  # of Rust and of JSON, none of which names the file
        raise ValueError(
            f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {one_line(error)})"
        ) from None
