"""What all adapters share: a specification that validates itself, layers that wrap a frozen one, attach and merge.

A method is a `Spec` (what is wanted), an `AdaptedLinear` or another `AdapterLayer` (the arithmetic of one layer), and
`Spec.install` (where it goes).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from gpt2lib.common.checks import check_layers, check_types
from gpt2lib.model.decoder import Decoder
from gpt2lib.training.hooks import Hook

SPECIFICATIONS: dict[str, type["Spec"]] = {}  # every imported specification, by its name
TARGETS = {  # the linear layers of a block; GPT-2 has no gate
    "q": "attn.q",
    "k": "attn.k",
    "v": "attn.v",
    "o": "attn.o",
    "up": "mlp.up",
    "down": "mlp.down",
    "gate": "mlp.gate",
}


class AdapterLayer(nn.Module):
    """y = base(x) + delta(x): a module beside a frozen one, its `base`; all else in it is the adapter's."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def delta(self, x: Tensor) -> Tensor:
        """What is added to the frozen output, of the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y + self.delta(x).to(y.dtype)

    def merged(self) -> nn.Module:
        """A plain module that computes the same; raises ValueError where there is none."""
        raise ValueError(f"{type(self).__name__} cannot be merged into the weights")


class AdaptedLinear(AdapterLayer):
    """y = W x + b + Delta x with Delta = `delta_weight()`: [d_out, d_in], which `delta` applies without forming it."""

    def delta_weight(self) -> Tensor:
        """Delta: [d_out, d_in], in float64"""
        raise NotImplementedError

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """W + Delta, added in float64 and rounded once."""
        weight = self.base.weight
        weight.copy_(weight.double() + self.delta_weight())
        return self.base


@dataclass(frozen=True)
class Spec:
    """What adapter is wanted. Subclasses are frozen dataclasses whose fields are its settings, all with defaults.

    layers: the blocks that get it, (first, end) as in a slice; None: all of them.
    """

    method: ClassVar[str]
    own_output_layer: ClassVar[bool] = False  # a task without a head of its own reads the base's, unchanged
    _: KW_ONLY
    layers: tuple[int, int] | None = None

    def __post_init__(self):
        check_types(self)
        check_layers(self.layers)

    def __init_subclass__(cls, method: str | None):
        if method is not None:  # None: a class that others share
            cls.method = method
            SPECIFICATIONS[method] = cls

    def install(self, model: Decoder) -> None:
        """Put the adapter's layers into `model`; raises ValueError, before anything is changed, if they do not fit."""
        raise NotImplementedError

    def apply(self, model: Decoder) -> None:
        """As `attach`: what every specification of a method can do, whether it is an adapter's or not."""
        attach(model, self)

    def hooks(self, model: Decoder, train: list, seed: int) -> tuple[list, list[Hook]]:
        """The examples for fit's own steps and the hooks that this method trains with; most have none."""
        return train, []

    def to_dict(self) -> dict:
        """What JSON can hold of it."""
        return {"method": self.method} | asdict(self)

    @classmethod
    def from_dict(cls, settings: dict) -> "Spec":
        """The inverse of `to_dict`, for any registered method; tuples may be lists."""
        settings = dict(settings)
        method = settings.pop("method", None)
        if method not in SPECIFICATIONS:
            raise ValueError(f"no adapter method is called {method!r}; possible: {', '.join(SPECIFICATIONS)}")
        spec = SPECIFICATIONS[method]
        if unknown := set(settings) - {f.name for f in fields(spec)}:
            raise ValueError(
                f"{spec.__name__} has no setting {sorted(unknown)}; it has {[f.name for f in fields(spec)]}"
            )
        return spec(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})


def blocks_in(layers: tuple[int, int] | None, n_layer: int) -> range:
    """The numbers of the blocks that a range means in a model of n_layer blocks; ValueError if it has fewer."""
    first, end = layers or (0, n_layer)
    if end > n_layer:
        raise ValueError(f"layers={layers} ends beyond the model's {n_layer} blocks; the end may be at most {n_layer}")
    return range(first, end)


def check_targets(targets: tuple[str, ...]) -> None:
    """Raises ValueError unless `targets` is a tuple of different names among q, k, v, o, up, down, gate."""
    if not targets or len(set(targets)) < len(targets) or set(targets) - set(TARGETS):
        raise ValueError(f"targets={targets!r}: give a tuple of different names among {', '.join(TARGETS)}")


def target_layers(
    model: Decoder, targets: tuple[str, ...], layers: tuple[int, int] | None = None
) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The linear layers that `targets` name in a range of blocks, each with its parent module and its name there.

    Raises ValueError for a target that the model's family does not have.
    """
    for i in blocks_in(layers, model.config.n_layer):
        block = model.blocks[i]
        for target in targets:
            parent, name = TARGETS[target].split(".")
            if not hasattr(getattr(block, parent), name):
                possible = [t for t, where in TARGETS.items() if hasattr(getattr(block, where.split(".")[0]), t)]
                raise ValueError(
                    f"a block of {type(model).__name__} has no {target!r}; possible: {', '.join(possible)}"
                )
            yield getattr(block, parent), name, getattr(getattr(block, parent), name)


def attach(model: Decoder, spec: Spec) -> Decoder:
    """Freeze the base and add the adapter; outputs stay what they were until it is trained. Returns the model.

    Raises ValueError if an adapter is attached already or the specification does not fit the model.
    """
    if attached := model.adapter:
        raise ValueError(f"the model already has {attached}: merge or detach it first")
    spec.install(model)
    adapter = {id(p) for p in adapter_parameters(model).values()}
    for p in model.parameters():
        p.requires_grad_(id(p) in adapter)
    model.adapter = spec
    return model.train(model.training)  # new dropout is off in a model that evaluates


def detach(model: Decoder) -> Decoder:
    """Remove the adapter and leave the base as it was before `attach`, still frozen. Returns the model."""
    return _replace(model, lambda layer: layer.base)


def merge(model: Decoder) -> Decoder:
    """Fold the adapter into the weights, exactly; the model is a plain one again, and all trainable. Returns the model.

    Raises ValueError if no adapter is attached, or naming the layers that cannot be merged (nothing is changed then).
    """
    if model.adapter is None:
        raise ValueError("there is no adapter to merge")
    refusing = [name for name, layer in adapter_layers(model) if type(layer).merged is AdapterLayer.merged]
    if refusing:
        raise ValueError(f"{model.adapter.method} cannot be merged into the weights of {', '.join(refusing)}")
    return _replace(model, lambda layer: layer.merged()).requires_grad_(True)


@contextmanager
def in_place_of_attached(model: Decoder) -> Iterator[None]:
    """Takes off what is attached, so that something else can be; where that fails, everything is as it was."""
    spec, layers = model.adapter, adapter_layers(model)
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    if spec:
        detach(model)
    try:
        yield
    except BaseException:
        detach(model)
        for name, layer in layers:  # one that holds others comes before them
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
        model.adapter = spec
        for name, p in model.named_parameters():
            p.requires_grad_(trained[name])
        raise


def adapter_layers(model: Decoder) -> list[tuple[str, AdapterLayer]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, AdapterLayer)]


def adapter_parameters(model: Decoder) -> dict[str, nn.Parameter]:
    """The adapter's own parameters, by name: all of its layers' but those under `base`."""
    return _own(model, nn.Module.named_parameters)


def adapter_state(model: Decoder) -> dict[str, Tensor]:
    """The adapter's parameters and what else it has learned (such as a grid), by name."""
    return adapter_parameters(model) | _own(model, nn.Module.named_buffers)


def _own(model: Decoder, named) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, layer in adapter_layers(model)
        for key, value in named(layer)
        if not key.startswith("base.")
    }


def _replace(model: Decoder, by) -> Decoder:
    for name, layer in reversed(adapter_layers(model)):  # an adapted layer may stand inside another: that one first
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, by(layer))
    model.adapter = None
    return model
