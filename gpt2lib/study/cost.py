"""What a run will cost, roughly, before it is started: trained parameters, hours, memory."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from gpt2lib.adapters import trained_count
from gpt2lib.common.machine import matmul_peak
from gpt2lib.data.load import load_task
from gpt2lib.data.split import SHARE
from gpt2lib.model import base
from gpt2lib.model.config import Config
from gpt2lib.study.group import Run
from gpt2lib.study.notebook import default_values
from gpt2lib.tasks.parameters import method_of
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.objectives import LOGITS_AT_ONCE

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

    A token costs 2 FLOPs for each parameter forward, 2 backward to the inputs, and 2 to the weights that are trained. The
    blocks below all that is trained run once for each text (see `training.prefix`), if no earlier run left their states.
    Early stopping may end a run sooner.
    """
    given = default_values(run.notebook) | run.parameters
    if not {"task", "method", "base_model", "epochs"} <= set(given):
        return None
    config = shape_of(given["base_model"], given.get("depth", 0))
    data = config and lengths_of(given["task"], given["source"], given.get("examples", 0))
    if not data:
        return None
    most = min(given.get("max_length", config.n_positions), config.n_positions)
    train, dev, test = (sum(min(length, most) for length in lengths) for lengths in data)
    d, batch_size = config.n_embd, given.get("batch_size", 16)
    block = (config.parameters - d * config.vocab_size) / config.n_layer  # the token embedding is only looked up
    trained = trained_count(method_of(given, config), config)
    frozen = (given.get("layers") or [0])[0] if trained else config.n_layer
    above = block * (config.n_layer - frozen)
    output = 0 if TASKS[given["task"]].classes else d * config.vocab_size  # the layer that only a language model needs

    held_out = given.get("select") == "held-out"
    chooses, train = (SHARE * train, (1 - SHARE) * train) if held_out else (dev, train)
    measured = 0 if given.get("trial") else dev + test  # a trial is measured where it chooses
    passes = given["epochs"]
    if given.get("max_steps"):
        passes = min(passes, given["max_steps"] * batch_size / len(data[0]))
    forward = 2 * (above + output)
    step = 2 * forward + 2 * min(trained, above) + 2 * output if trained else 6 * output
    once = 2 * block * frozen * (train + chooses + measured)
    flops = once + passes * train * step + (max(1, round(passes)) * chooses + measured) * forward
    rows = batch_size * min(max(data[0]), most)
    activations = rows * (config.n_layer - frozen) * 18 * d * 4
    logits = 3 * 4 * min(rows * config.vocab_size, LOGITS_AT_ONCE) if output else 0
    weights = 4 * config.parameters + 12 * trained
    return Estimate(trained, flops, weights + activations + logits)


@lru_cache
def shape_of(base_model: str, depth: int = 0) -> Config | None:
    """The shape of the lowest `depth` blocks of a model (0: all); None for a model that is not there."""
    try:
        config = base.shape_of(base_model.removeprefix(base.UNTRAINED))
    except (FileNotFoundError, ValueError):
        return None
    return replace(config, n_layer=depth) if depth else config


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
