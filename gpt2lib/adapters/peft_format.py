"""LoRA to and from peft's folder (adapter_config.json, adapter_model.safetensors) for transformers' GPT-2 and Llama.

For a Llama the layers are the same under other names. Of GPT-2 transformers keeps query, key and value in one matrix,
c_attn. LoRA of rank r on n of the three is one LoRA of rank n r on c_attn: the A stacked, the B block-diagonal, alpha n
times as large. A c_attn that peft trained has no such blocks; each of the three then takes all of A and its rows of B.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt2lib.adapters.base import TARGETS, attach, blocks_in, in_place_of_attached
from gpt2lib.adapters.lora import LoRA
from gpt2lib.common.checks import brief, naming, shown
from gpt2lib.common.whole import read_json, read_tensors, write_json, write_tensors, written_together
from gpt2lib.model.decoder import Decoder
from gpt2lib.model.gpt2 import GPT2
from gpt2lib.model.layouts import GPT2_LINEAR, LLAMA_BLOCK
from gpt2lib.model.llama import Llama


def _modules(theirs: dict[str, str]) -> dict[str, str]:
    return {target: theirs[ours] for target, ours in TARGETS.items() if ours in theirs}


@dataclass(frozen=True)
class Place:
    """Where transformers' model of a family has its blocks, and in a block the layer of each target."""

    blocks: str
    modules: dict[str, str]
    fused: str = ""  # the one layer that query, key and value are
    transposed: bool = False


PLACES = {
    GPT2: Place("transformer.h", _modules(GPT2_LINEAR), "attn.c_attn", transposed=True),
    Llama: Place("model.layers", _modules(LLAMA_BLOCK)),
}
# settings of peft that are read here, or change nothing of what the saved tensors compute; no other may be set
READ = ("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "alpha_pattern", "init_lora_weights")
DESCRIBING = ("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode")
DESCRIBING += ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern")
DESCRIBING += ("fan_in_fan_out", "megatron_config", "megatron_core", "runtime_config", "ensure_weight_tying")
DESCRIBING += (
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
)  # of those refused
STARTS = (True, False, "gaussian", "eva", "mica", "orthogonal")  # of A and B; "pissa" and others change the base, too


def to_peft(model: Decoder, folder: str | Path) -> None:
    """Write the attached LoRA as peft does; `PeftModel.from_pretrained(transformers_model, folder)` computes the same.

    Raises ValueError unless a plain LoRA is attached.
    """
    spec, place = model.adapter, PLACES[type(model)]
    if type(spec) is not LoRA:
        raise ValueError(f"peft's format holds a plain LoRA; attached is {spec or 'nothing'}")
    fused = [target for target in "qkv" if target in spec.targets and place.fused]
    single = {target: module for target, module in place.modules.items() if target in spec.targets}
    tensors = {}
    chosen = blocks_in(spec.layers, model.config.n_layer)
    for i in chosen:
        block, key = model.blocks[i], f"base_model.model.{place.blocks}.{i}"
        for target, module in single.items():
            layer = block.get_submodule(TARGETS[target])
            tensors |= _named(f"{key}.{module}", layer.A, layer.B)
        if fused:
            layers = [getattr(block.attn, target) for target in fused]
            rows = torch.block_diag(*(layer.B for layer in layers)).split(model.config.n_embd)
            none = torch.zeros_like(rows[0])  # of a target that has no LoRA
            B = torch.cat([rows[fused.index(target)] if target in fused else none for target in "qkv"])
            tensors |= _named(f"{key}.{place.fused}", torch.cat([layer.A for layer in layers]), B)
    n = len(fused)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.rank_stabilised,
        "target_modules": [place.fused] * bool(fused) + list(single.values()),
        "rank_pattern": {place.fused: n * spec.rank} if fused else {},
        "alpha_pattern": {place.fused: (math.sqrt(n) if spec.rank_stabilised else n) * spec.alpha} if fused else {},
        "layers_to_transform": None if spec.layers is None else list(chosen),
        "fan_in_fan_out": place.transposed,
        "bias": "none",
    }
    with written_together(Path(folder)) as new:
        write_tensors(new / "adapter_model.safetensors", tensors)
        write_json(new / "adapter_config.json", config)


@torch.no_grad()
def from_peft(model: Decoder, folder: str | Path) -> Decoder:
    """Attach the LoRA that peft saved from transformers' model, in place of one that is attached. Returns the model.

    Layers of lower rank than the others are filled up with zeros, and a c_attn is split into query, key and value.
    Raises FileNotFoundError; or ValueError for a damaged file, another method than LoRA, or a setting that changes what
    LoRA computes. An adapter that was attached then still is.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    with naming(folder):
        # block -> target -> A [rank, d_in] and the scaled B [d_out, rank]
        parts = _by_target(tensors, config, folder, PLACES[type(model)], model)
        targets = tuple(target for target in TARGETS if any(target in part for part in parts.values()))
        rank, first, last = max(len(a) for part in parts.values() for a, _ in part.values()), min(parts), max(parts)
        growth = rank / config["r"]
        spec = LoRA(
            rank=rank,
            alpha=config["lora_alpha"] * (math.sqrt(growth) if config["use_rslora"] else growth),
            dropout=config["lora_dropout"],
            targets=targets,
            rank_stabilised=config["use_rslora"],
            layers=None if (first, last + 1) == (0, model.config.n_layer) else (first, last + 1),
        )
        with in_place_of_attached(model):
            attach(model, spec)
            for i in range(first, last + 1):
                for target in targets:
                    layer = model.blocks[i].get_submodule(TARGETS[target])
                    a, b = parts.get(i, {}).get(target, (layer.A[:0], layer.B[:, :0]))
                    if a.shape[1] != layer.A.shape[1] or b.shape[0] != layer.B.shape[0]:
                        shape = [b.shape[0], a.shape[1]]
                        raise ValueError(f"{target} is for a layer of shape {shape}; this model's has another")
                    layer.A[: len(a)] = a
                    layer.B.zero_()[:, : len(a)] = b / spec.scaling
    return model


def _named(key: str, A: Tensor, B: Tensor) -> dict[str, Tensor]:
    return {f"{key}.lora_{factor}.weight": t.detach().contiguous() for factor, t in (("A", A), ("B", B))}


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """The settings, all that are used here present and of their type, and the tensors by name."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; give a folder that peft's save_pretrained wrote")
    config = read_json(folder / "adapter_config.json")
    tensors = read_tensors(folder / "adapter_model.safetensors")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else config
        raise ValueError(f"{folder}: peft_type is {shown(found)}; only LORA can be loaded")
    for key, value in config.items():
        if key not in (*READ, *DESCRIBING) and value and value != "none":
            raise ValueError(
                f"{folder}: {brief(key)}={shown(value)} is not supported; only settings that leave plain LoRA are"
            )
    if (start := config.get("init_lora_weights", True)) not in STARTS:
        raise ValueError(
            f"{folder}: init_lora_weights={shown(start)} is not supported: it changes the base; "
            "peft's save_pretrained(..., path_initial_model_for_weight_conversion=...) makes a plain LoRA of some"
        )
    config = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "use_rslora": False, "alpha_pattern": {}} | config
    config["alpha_pattern"] = config["alpha_pattern"] or {}
    numbers = {key: config[key] for key in ("r", "lora_alpha", "lora_dropout")}
    numbers |= config["alpha_pattern"] if isinstance(config["alpha_pattern"], dict) else {"alpha_pattern": None}
    if not isinstance(config["use_rslora"], bool):
        raise ValueError(f"{folder}: adapter_config.json has use_rslora={shown(config['use_rslora'])}")
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{folder}: adapter_config.json has {brief(key)}={shown(value)}, which is no number")
    if config["r"] < 1 or not 0 <= config["lora_dropout"] < 1 or config["lora_alpha"] == 0:
        values = ", ".join(f"{key}={shown(config[key])}" for key in ("r", "lora_alpha", "lora_dropout"))
        raise ValueError(f"{folder}: adapter_config.json has {values}")
    for pattern in config["alpha_pattern"]:
        if not re.fullmatch(r"[\w.]+", pattern):
            raise ValueError(
                f"{folder}: the alpha_pattern {shown(pattern)} is no layer's name; only names are read here"
            )
    if not tensors:
        raise ValueError(f"{folder}: adapter_model.safetensors is empty")
    return config, tensors


def _by_target(
    tensors: dict[str, Tensor], config: dict, folder: Path, place: Place, model: Decoder
) -> dict[int, dict[str, tuple[Tensor, Tensor]]]:
    family, n_layer = type(model).__name__, model.config.n_layer
    targets = {module: target for target, module in place.modules.items()} | {place.fused: "qkv"}
    pairs: dict[tuple[int, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = re.search(r"\b(?:h|layers)\.(\d+)\.([\w.]+)\.lora_([AB])\.weight$", key)
        if found is None or found[2] not in targets:
            raise ValueError(f"{folder}: {key!r} is not LoRA on a layer of a {family}'s blocks")
        pairs.setdefault((int(found[1]), found[2]), {})[found[3]] = tensor
    parts: dict[int, dict[str, tuple[Tensor, Tensor]]] = {}
    for (i, module), pair in sorted(pairs.items()):
        if i >= n_layer:
            raise ValueError(f"{folder}: no place in this {family} for {module} of block {i} (n_layer={n_layer})")
        if len(pair) < 2 or any(t.dim() != 2 for t in pair.values()) or len(pair["A"]) != pair["B"].shape[1]:
            raise ValueError(f"{folder}: {module} of block {i} is not two matrices A and B that fit each other")
        a, b = pair["A"], pair["B"] * _scaling(config, f"{place.blocks}.{i}.{module}", len(pair["A"]))
        here = parts.setdefault(i, {})
        if module == place.fused:
            thirds = dict(zip("qkv", b.chunk(3), strict=True))
            here |= {t: _without_zeros(a, third) for t, third in thirds.items() if third.any() or not b.any()}
        else:
            here[targets[module]] = a, b
    return parts


def _scaling(config: dict, name: str, rank: int) -> float:
    """alpha / rank of one layer. As in peft, a pattern means the layers whose names end in it."""
    endings = (alpha for ending, alpha in config["alpha_pattern"].items() if f".{name}".endswith(f".{ending}"))
    alpha = next(endings, config["lora_alpha"])
    return LoRA(rank=rank, alpha=alpha, rank_stabilised=bool(config["use_rslora"])).scaling


def _without_zeros(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """B A without the components that B does not use; as it is where it uses none (an untrained adapter)."""
    used = b.any(0)
    return (a[used], b[:, used]) if used.any() else (a, b)
