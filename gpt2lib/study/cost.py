"""What a run will cost, roughly, before it is started: trained parameters, hours, memory."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from gpt2lib.adapters import Spec, trained_count
from gpt2lib.common.machine import matmul_peak
from gpt2lib.data.load import load_task
from gpt2lib.model import base
from gpt2lib.model.config import Config
from gpt2lib.study.group import Run
from gpt2lib.study.notebook import default_values
from gpt2lib.tasks.prepare import FULL, LAST_LINEAR, method_named
from gpt2lib.training.objectives import LOGITS_AT_ONCE

TOKENS_PER_WORD = 1.35  # of GPT-2's tokenizer on English
PROMPT_TOKENS = {"quora": 22}  # of a prompt's own words
UTILISATION = 0.4  # of the matrix product's speed that training reaches


@dataclass(frozen=True)
class Estimate:
    """trained: parameters, without the head's. flops: of training and of evaluating. memory: bytes at the peak."""

    trained: int
    flops: float
    memory: float


def estimate(run: Run) -> Estimate | None:
    """None for a notebook that trains nothing by these parameters, or a task whose data are not there.

    A token costs 2 FLOPs for each parameter forward, 2 backward to the inputs, and 2 to the weights that are trained; a
    frozen body is run once. Early stopping may end a run sooner.
    """
    given = default_values(run.notebook) | run.parameters
    if not {"task", "method", "base_model", "epochs"} <= set(given):
        return None
    config = shape_of(given["base_model"])
    data = config and lengths_of(given["task"], given["source"], given.get("examples", 0))
    if not data:
        return None
    most = min(given.get("max_length", config.n_positions), config.n_positions)
    train, dev, test = (sum(min(length, most) for length in lengths) for lengths in data)
    d = config.n_embd
    body = config.n_layer * config.block_parameters  # the embeddings are only looked up
    settings = {k: v for k, v in given.items() if k not in ("method", "budget", "base_model", "task")}
    method = method_named(given["method"], config, given.get("budget", 0), **settings)
    trained = trained_count(method, config) if isinstance(method, Spec) else config.parameters
    trained = 0 if method == LAST_LINEAR else trained
    output = d * config.vocab_size if given["task"] == "sonnets" else 0  # the layer that only a language model needs
    each = {LAST_LINEAR: 2 / given["epochs"], FULL: 6}.get(method, 4) * body + 6 * output
    flops = given["epochs"] * (train * each + dev * 2 * (body + output)) + (dev + test) * 2 * (body + output)
    rows = given.get("batch_size", 16) * min(max(data[0]), most)
    activations = 0 if method == LAST_LINEAR else rows * config.n_layer * 18 * d * 4
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
    count = lambda e: TOKENS_PER_WORD * len(f"{e.text} {e.pair or ''}".split()) + PROMPT_TOKENS.get(task, 0)  # noqa: E731
    return tuple([count(e) for e in part] for part in (data.train, data.dev, data.test))


def measured_flops() -> float:
    """FLOP/s of a large matrix product on this machine, in the precision that runs here use by default."""
    if torch.cuda.is_available():
        return matmul_peak(torch.device("cuda"), torch.bfloat16, (8192,))
    return matmul_peak(torch.device("cpu"), torch.float32, (1024,))
