"""How many parameters an adapter trains, and the adapter of a wanted size: for comparisons at equal budgets."""

from dataclasses import replace

import torch

from gpt2lib.adapters.base import Spec, blocks_in
from gpt2lib.model.base import random_model
from gpt2lib.model.config import Config


def trained_count(spec, config: Config) -> int:
    """How many parameters a method trains on a model of this shape, without a task's head; takes no memory.

    All blocks are alike, so models of one and of two say it: building twenty-four to count them takes most of a second.
    """
    layers = getattr(spec, "layers", None)
    one, two = (_counted(spec if layers is None else replace(spec, layers=(0, n)), config, n) for n in (1, 2))
    return one + (len(blocks_in(layers, config.n_layer)) - 1) * (two - one)


def _counted(spec, config: Config, n_layer: int) -> int:
    with torch.device("meta"):
        model = random_model(replace(config, n_layer=n_layer))
        spec.apply(model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def of_size(spec: Spec, parameters: int, config: Config) -> Spec:
    """The same adapter with the rank, or the Kronecker factors, that bring its trained parameters nearest to a number.

    Ranks and Kronecker shapes come in steps, so the number is seldom met exactly; see `trained_count`.
    Raises ValueError where the nearest has not even half of it, or more than twice as many.
    """
    if hasattr(spec, "rank"):
        one, two = (trained_count(replace(spec, rank=rank), config) for rank in (1, 2))
        sized = replace(spec, rank=max(1, 1 + round((parameters - one) / (two - one))))
    else:
        layers = len(blocks_in(spec.layers, config.n_layer)) * len(getattr(spec, "targets", ["mlp"]))
        sized = replace(spec, shape=None, budget=max(2, parameters // layers))
    if not parameters / 2 <= (nearest := trained_count(sized, config)) <= 2 * parameters:
        raise ValueError(f"{spec.method} of {parameters} parameters: the nearest that this model has trains {nearest}")
    return sized
