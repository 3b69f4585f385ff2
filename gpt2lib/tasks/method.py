"""The methods, one record each: what parameters, tables and figures call them, and their specifications.

A new one is a file in `adapters`, a record below, and a notebook.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Protocol

from gpt2lib.adapters import AlphaLoRA, GraphLoRA, KANLoRA, KronA, KronAB, LoRA, of_size
from gpt2lib.adapters.base import blocks_in
from gpt2lib.common.checks import check_count, check_layers
from gpt2lib.model.config import Config
from gpt2lib.model.decoder import Decoder

COMMON = ("rank", "alpha", "dropout", "targets", "layers")  # settings that a notebook gives to any method
USUAL_RANK = 8  # which tables do not name


class Trainable(Protocol):
    """What a specification is to `prepare`: an adapter's, or one of the two below."""

    method: ClassVar[str]
    own_output_layer: ClassVar[bool]  # whether a task without a head of its own trains a copy of the output layer

    def apply(self, model: Decoder) -> None:
        """Change the model as needed, and leave exactly those of its parameters trainable that are to be trained."""


@dataclass(frozen=True)
class LastLayer:
    """The task's head alone, on a frozen body."""

    method: ClassVar[str] = "last-linear"
    own_output_layer: ClassVar[bool] = True

    def apply(self, model: Decoder) -> None:
        model.requires_grad_(False)


@dataclass(frozen=True)
class Full:
    """All parameters; or, with layers=(first, end), those of these blocks and of the task's head."""

    layers: tuple[int, int] | None = None
    method: ClassVar[str] = "full"
    own_output_layer: ClassVar[bool] = False

    def __post_init__(self):
        check_layers(self.layers)

    def apply(self, model: Decoder) -> None:
        blocks = blocks_in(self.layers, model.config.n_layer)
        model.requires_grad_(self.layers is None)
        for i in blocks:
            model.blocks[i].requires_grad_(True)


@dataclass(frozen=True)
class Method:
    """name: in parameters and tables; title and colour: in figures and the report. build: the specification's class;
    preset: the settings that make this method of it."""

    name: str
    title: str
    colour: str
    build: type[Trainable]
    preset: Mapping[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> list[str]:
        """The names of the settings that may be given."""
        return [f.name for f in fields(self.build) if f.name not in self.preset]

    def check(self, names) -> None:
        """Raises ValueError, with the nearest name, for a setting that the method does not have."""
        if unknown := [name for name in names if name not in self.settings]:
            near = difflib.get_close_matches(unknown[0], self.settings, 1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            has = ", ".join(self.settings) or "none"
            raise ValueError(f"{self.name} has no setting {unknown[0]!r}{meant}; possible: {has}")


_RECORDS = (  # colours: seaborn's "colorblind"
    Method("last-linear", "last layer", "#0173b2", LastLayer),
    Method("full", "full fine-tuning", "#de8f05", Full),
    Method("lora", "LoRA", "#029e73", LoRA),
    Method("krona", "KronA", "#d55e00", KronA),
    Method("krona-b", "KronA_B", "#56b4e9", KronAB),
    Method("krona-b-res", "KronA_B_res", "#ece133", KronAB, {"residual": True}),
    Method("alpha-lora", "alpha-LoRA", "#cc78bc", AlphaLoRA),
    Method("graph-lora", "Graph LoRA", "#ca9161", GraphLoRA),
    Method("kan-lora", "Hybrid-KAN LoRA", "#fbafe4", KANLoRA),
)
METHODS: dict[str, Method] = {method.name: method for method in _RECORDS}  # in the order in which tables show them


def record_of(name: str) -> Method:
    """The method of that name; ValueError, with all names, if there is none."""
    if name not in METHODS:
        raise ValueError(f"no method is called {name!r}; possible: {', '.join(METHODS)}")
    return METHODS[name]


def method_named(
    name: str,
    config: Config | None = None,
    size: int = 0,
    common: Mapping[str, object] | None = None,
    **own,
) -> Trainable:
    """A method's specification, `method_named("lora", rank=4)`.

    own: the method's own settings. common: some of COMMON, which a method that lacks them does without. size: about how
    many parameters an adapter is to train on a model of shape `config`, whatever its rank; 0 leaves it as it is. Lists
    become tuples, empty ones None. Raises ValueError for an unknown name or setting, with the nearest one.
    """
    method = record_of(name)
    if wrong := set(common or {}) - set(COMMON):
        raise ValueError(f"common settings are {', '.join(COMMON)}, not {', '.join(sorted(wrong))}")
    method.check(own)
    check_count("budget", size, at_least=0)
    settings = {key: value for key, value in (common or {}).items() if key in method.settings} | own
    settings = {key: (tuple(value) or None) if isinstance(value, list) else value for key, value in settings.items()}
    spec = method.build(**settings, **method.preset)
    if not size or not {"rank", "budget"} & set(method.settings):  # nothing by which its size could be set
        return spec
    if sized := sorted({"rank", "shape", "budget"} & set(own)):
        raise ValueError(f"{name}: {size} parameters are wanted, so {', '.join(sized)} cannot be given")
    if config is None:
        raise ValueError(f"{name}: how many parameters it trains hangs on the model's shape; give its config, too")
    return of_size(spec, size, config)


def name_in_tables(method: str, rank: int | None) -> str:
    """What tables and figures call a run's method: ranks are told apart, the usual one goes without saying."""
    ranked = method in METHODS and "rank" in METHODS[method].settings
    return f"{method} r={rank}" if ranked and rank not in (None, USUAL_RANK) else method
