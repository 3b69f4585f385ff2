"""What a run will cost, roughly, before it is started: trained parameters, hours, memory."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from gpt2lib.common.machine import matmul_peak
from gpt2lib.data.load import load_task
from gpt2lib.model import base
from gpt2lib.model.config import Config
from gpt2lib.study.group import Run
from gpt2lib.study.notebook import default_values
from gpt2lib.tasks.parameters import method_of
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.objectives import LOGITS_AT_ONCE
from gpt2lib.training.prefix import frozen_blocks

TOKENS_PER_WORD = 1.35  # of GPT-2's tokenizer on English
UTILISATION = 0.4  # of the matrix product's speed that training reaches


@dataclass(frozen=True)
class Estimate:
    """trained: parameters, without the head's. flops: of training and of evaluating. memory: bytes at the peak."""

    trained: int
    flops: float
    memory: float


def estimate(run: Run) -> Estimate | None:
    """None for a notebook that trains nothing by these parameters, or a task whose data are not there.

    A token costs 2 FLOPs for each parameter forward, 2 backward to the inputs, and 2 to the weights that are trained; the
    blocks below all that is trained are run once. Early stopping may end a run sooner.
    """
    given = default_values(run.notebook) | run.parameters
    if not {"task", "method", "base_model", "epochs"} <= set(given):
        return None
    config = shape_of(given["base_model"])
    data = config and lengths_of(given["task"], given["source"], given.get("examples", 0))
    if not data:
        return None
    config = replace(config, n_layer=min(given.get("depth", 0) or config.n_layer, config.n_layer))
    most = min(given.get("max_length", config.n_positions), config.n_positions)
    train, dev, test = (sum(min(length, most) for length in lengths) for lengths in data)
    with torch.device("meta"):  # shapes without memory
        model = base.random_model(config)
        method_of(given, config).apply(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    first = frozen_blocks(model)
    below, above = first * config.block_parameters, (config.n_layer - first) * config.block_parameters
    # the layer that only a language model needs; the token embedding is only looked up
    output = 0 if TASKS[given["task"]].classes else config.n_embd * config.vocab_size
    each = 4 * above + 2 * min(trained, above) + 6 * output
    flops = given["epochs"] * (train * each + dev * 2 * (above + output)) + (dev + test) * 2 * (above + output)
    flops += 2 * below * (train + dev + test)
    rows = given.get("batch_size", 16) * min(max(data[0]), most)
    activations = rows * (config.n_layer - first) * 18 * config.n_embd * 4
    logits = 3 * 4 * min(rows * config.vocab_size, LOGITS_AT_ONCE) if output else 0
    weights = 4 * config.parameters + 12 * trained
    return Estimate(trained, flops, weights + activations + logits)


@lru_cache
def shape_of(base_model: str) -> Config | None:
    """None for a model that is not there."""
    try:
        return base.shape_of(base_model.removeprefix(base.UNTRAINED))
    except (FileNotFoundError, ValueError):
        return None


@lru_cache
def lengths_of(task: str, source: str, examples: int) -> tuple[list[float], list[float], list[float]] | None:
    """About how many tokens each text of the task's train, dev and test parts has; None without its data."""
    try:
        data = load_task(task, source or None, quiet=True).sample(examples)
    except (FileNotFoundError, ValueError):
        return None
    text = TASKS[task].text
    return tuple([TOKENS_PER_WORD * len(text(e).split()) for e in part] for part in (data.train, data.dev, data.test))


def measured_flops() -> float:
    """FLOP/s of a large matrix product on this machine, in the precision that runs here use by default."""
    if torch.cuda.is_available():
        return matmul_peak(torch.device("cuda"), torch.bfloat16, (8192,))
    return matmul_peak(torch.device("cpu"), torch.float32, (1024,))
