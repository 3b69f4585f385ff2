"""How many parameters an adapter trains, and the adapter of a wanted size: for comparisons at equal budgets."""

from dataclasses import replace

import torch

from gpt2lib.adapters.base import Spec, adapter_parameters, attach, blocks_in
from gpt2lib.model.base import random_model
from gpt2lib.model.config import Config


def trained_count(spec: Spec, config: Config) -> int:
    """How many parameters an adapter trains on a model of this shape; takes no memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in adapter_parameters(attach(random_model(config), spec)).values())


def of_size(spec: Spec, parameters: int, config: Config) -> Spec:
    """The same adapter with the rank, or the Kronecker factors, that bring its trained parameters nearest to a number.

    Ranks and Kronecker shapes come in steps, so the number is seldom met exactly; see `trained_count`.
    """
    if hasattr(spec, "rank"):
        one, two = (trained_count(replace(spec, rank=rank), config) for rank in (1, 2))
        return replace(spec, rank=max(1, 1 + round((parameters - one) / (two - one))))
    layers = len(blocks_in(spec.layers, config.n_layer)) * len(getattr(spec, "targets", ["mlp"]))
    return replace(spec, shape=None, budget=max(2, parameters // layers))
