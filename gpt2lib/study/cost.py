"""What a run will cost, roughly, before it is started: trained parameters, hours, memory."""

import json
from dataclasses import dataclass, replace
from functools import cache

import torch

from gpt2lib.adapters import trained_count
from gpt2lib.common.checks import naming
from gpt2lib.data.load import load_task
from gpt2lib.data.split import SHARE
from gpt2lib.model import base
from gpt2lib.model.config import Config
from gpt2lib.model.linear import matmul_peak
from gpt2lib.study.group import Run
from gpt2lib.study.notebook import default_values
from gpt2lib.tasks.method import COMMON, record_of
from gpt2lib.tasks.parameters import method_of
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.objectives import LOGITS_AT_ONCE

TOKENS_PER_WORD = 1.35  # of GPT-2's tokenizer on English
UTILISATION = 0.4  # of the matrix product's speed that training reaches


@dataclass(frozen=True)
class Estimate:
    """trained: parameters, with the head's. flops: of training and of evaluating. memory: bytes at the peak."""

    trained: int
    flops: float
    memory: float


def estimate(run: Run) -> Estimate | None:
    """None for a notebook that trains nothing by these parameters, or a task whose data are not there.

    Raises ValueError for a budget that the method cannot come near.

    A token costs 2 FLOPs for each parameter forward, 2 backward to the inputs, and 2 to the weights that are trained;
    the blocks below the first that is trained run once for each text. Early stopping may end a run sooner.
    """
    given = default_values(run.notebook) | run.parameters
    if not {"task", "method", "base_model", "epochs"} <= set(given):
        return None
    config = shape_of(given["base_model"])
    if config and given.get("depth"):
        config = replace(config, n_layer=min(given["depth"], config.n_layer))
    data = config and lengths_of(given["task"], given["source"], given.get("examples", 0))
    if not data:
        return None
    most = min(given.get("max_length", config.n_positions), config.n_positions)
    train, dev, test = (sum(min(length, most) for length in lengths) for lengths in data)
    d = config.n_embd
    body = config.n_layer * config.block_parameters  # the embeddings are only looked up
    read = {key: value for key, value in given.items() if key in ("method", "budget", "settings", *COMMON)}
    with naming(run.name):
        moved = in_body(json.dumps(read, sort_keys=True), config)
    trained = moved + in_head(record_of(given["method"]).build.own_output_layer, given["task"], config)
    output = 0 if TASKS[given["task"]].classes else d * config.vocab_size  # the layer that only a language model needs
    blocks = config.n_layer - (given.get("layers") or [0])[0] if moved else 0  # that training runs through
    above = body * blocks / config.n_layer
    # the tokens that choose the epoch, and those of them that are neither trained nor measured on
    chooses, apart = dev, 0.0
    if given.get("select") == "held-out":
        chooses = apart = SHARE * train
        train -= apart
    measured = 0 if given.get("trial") else dev + test  # a trial is measured where it chooses
    passes = given["epochs"]
    if given.get("max_steps"):
        passes = min(passes, given["max_steps"] * given.get("batch_size", 16) / len(data[0]))
    evaluated = 2 * (above + output)
    step = 4 * above + 2 * min(moved, above) + 6 * output
    once = 2 * (body - above) * (train + measured + apart)
    flops = once + passes * train * step + (max(1, round(passes)) * chooses + measured) * evaluated
    rows = given.get("batch_size", 16) * min(max(data[0]), most)
    activations = rows * blocks * 18 * d * 4
    logits = 3 * 4 * min(rows * config.vocab_size, LOGITS_AT_ONCE) if output else 0
    weights = 4 * config.parameters + 12 * trained
    return Estimate(trained, flops, weights + activations + logits)


@cache
def in_body(method: str, config: Config) -> int:
    """How many of the body's parameters a method trains. method: the parameters that say it, as JSON."""
    return trained_count(method_of(json.loads(method), config), config)


@cache
def in_head(own_output_layer: bool, task: str, config: Config) -> int:
    """How many parameters the task's head trains on a model of this shape, with a copy of the output layer or
    without."""
    with torch.device("meta"):
        body = base.random_model(replace(config, n_layer=1)).requires_grad_(False)
        model = TASKS[task].head(body, _tokenizer(), own_output_layer)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@cache
def _tokenizer():
    return base.load_tokenizer("gpt2-mini")  # for a number of parameters any will do


@cache
def shape_of(base_model: str) -> Config | None:
    """None for a model that is not there."""
    try:
        return base.shape_of(base_model.removeprefix(base.UNTRAINED))
    except (FileNotFoundError, ValueError):
        return None


@cache
def lengths_of(task: str, source: str, examples: int) -> tuple[list[float], list[float], list[float]] | None:
    """About how many tokens each text of the task's train, dev and test parts has; None without its data."""
    try:
        data = load_task(task, source or None, quiet=True).sample(examples)
    except (FileNotFoundError, ValueError):
        return None
    text = TASKS[task].text
    return tuple([TOKENS_PER_WORD * len(text(e).split()) for e in part] for part in (data.train, data.dev, data.test))


def measured_flops(precision: str) -> float:
    """FLOP/s of a large matrix product on this machine."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 1024)
    return matmul_peak(torch.device(device), torch.bfloat16 if precision == "bf16" else torch.float32, (size,))
