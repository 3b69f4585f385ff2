"""LoRA to and from peft's folder (adapter_config.json, adapter_model.safetensors) for transformers' GPT-2.

transformers keeps query, key and value in one matrix, c_attn. LoRA of rank r on n of the three is one LoRA of rank n r
on c_attn: the A stacked, the B block-diagonal, alpha n times as large. A c_attn that peft trained has no such blocks; each
of the three then takes the whole A and its rows of B.
"""

import json
import math
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpt2lib.adapters.base import TARGETS, attach, attached_spec, blocks_in, detach
from gpt2lib.adapters.lora import LoRA
from gpt2lib.common.whole import write_json, write_tensors
from gpt2lib.model.decoder import Decoder

FUSED = "attn.c_attn"
MODULES = {"o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
# settings of peft that change what LoRA computes, and the values at which they do not
UNSUPPORTED = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "lora_bias": False,
    "layer_replication": None,
}


def to_peft(model: Decoder, folder: str | Path) -> None:
    """Write the attached LoRA as peft does; `PeftModel.from_pretrained(gpt2, folder)` gives the same outputs.

    Raises ValueError unless a plain LoRA is attached.
    """
    spec = attached_spec(model)
    if type(spec) is not LoRA:
        raise ValueError(f"peft's format holds a plain LoRA; attached is {spec or 'nothing'}")
    fused = [target for target in "qkv" if target in spec.targets]
    tensors = {}
    chosen = blocks_in(spec.layers, model.config.n_layer)
    for i in chosen:
        block = model.blocks[i]
        for target, module in MODULES.items():
            if target in spec.targets:
                layer = block.get_submodule(TARGETS[target])
                tensors |= _named(i, module, layer.A, layer.B)
        if fused:
            layers = [getattr(block.attn, target) for target in fused]
            rows = dict(
                zip(fused, torch.block_diag(*(layer.B for layer in layers)).split(model.config.n_embd), strict=True)
            )
            none = torch.zeros_like(next(iter(rows.values())))  # of a target that has no LoRA
            B = torch.cat([rows.get(target, none) for target in "qkv"])
            tensors |= _named(i, FUSED, torch.cat([layer.A for layer in layers]), B)
    modules = [FUSED] * bool(fused) + [MODULES[target] for target in MODULES if target in spec.targets]
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
        "target_modules": modules,
        "rank_pattern": {FUSED: n * spec.rank} if fused else {},
        "alpha_pattern": {FUSED: (math.sqrt(n) if spec.rank_stabilised else n) * spec.alpha} if fused else {},
        "layers_to_transform": None if spec.layers is None else list(chosen),
        "fan_in_fan_out": True,
        "bias": "none",
    }
    folder = Path(folder)
    weights = folder / "adapter_model.safetensors"
    write_tensors(weights, tensors)
    write_json(folder / "adapter_config.json", config)


@torch.no_grad()
def from_peft(model: Decoder, folder: str | Path) -> Decoder:
    """Attach the LoRA that peft saved from transformers' GPT-2, in place of one that is attached. Returns the model.

    Layers of lower rank than the others are filled up with zeros, and a c_attn is split into query, key and value.
    Raises FileNotFoundError; or ValueError for a damaged file, another method than LoRA, or a setting that changes what
    LoRA computes.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    parts: list[dict[str, tuple[Tensor, Tensor]]] = []  # per block: target -> A [rank, d_in], scaled B [d_out, rank]
    for i in range(model.config.n_layer):
        parts.append({})
        for module in (FUSED, *MODULES.values()):
            a, b = (tensors.pop((i, module, factor), None) for factor in "AB")
            if a is None or b is None:
                continue
            b = b * _scaling(config, f"transformer.h.{i}.{module}", len(a))
            if module == FUSED:
                thirds = dict(zip("qkv", b.chunk(3), strict=True))
                parts[i] |= {
                    target: _without_zeros(a, third) for target, third in thirds.items() if third.any() or not b.any()
                }
            else:
                parts[i] |= {target: (a, b) for target, name in MODULES.items() if name == module}
    if tensors:
        raise ValueError(f"{folder}: no place in this GPT-2 for {sorted(tensors)[:3]} (n_layer={model.config.n_layer})")
    targets = tuple(target for target in TARGETS if any(target in part for part in parts))
    rank = max(len(a) for part in parts for a, _ in part.values())
    spec = LoRA(
        rank=rank,
        alpha=config["lora_alpha"]
        * (math.sqrt(rank / config["r"]) if config.get("use_rslora") else rank / config["r"]),
        dropout=config["lora_dropout"],
        targets=targets,
        rank_stabilised=bool(config.get("use_rslora")),
    )
    if attached_spec(model):
        detach(model)
    attach(model, spec)
    for part, block in zip(parts, model.blocks, strict=True):
        for target in targets:
            layer = block.get_submodule(TARGETS[target])
            a, b = part.get(target, (layer.A[:0], layer.B[:, :0]))
            if a.shape[1] != layer.A.shape[1] or b.shape[0] != layer.B.shape[0]:
                shape = [b.shape[0], a.shape[1]]
                detach(model)
                raise ValueError(f"{folder}: {target} is for a layer of shape {shape}; this model's has another")
            layer.A[: len(a)] = a
            layer.B.zero_()[:, : len(a)] = b / spec.scaling
    return model


def _named(i: int, module: str, A: Tensor, B: Tensor) -> dict[str, Tensor]:
    key = f"base_model.model.transformer.h.{i}.{module}"
    return {f"{key}.lora_{factor}.weight": t.detach().contiguous() for factor, t in (("A", A), ("B", B))}


def _read(folder: Path) -> tuple[dict, dict[tuple[int, str, str], Tensor]]:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; give a folder that peft's save_pretrained wrote")
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        raw = load_file(folder / "adapter_model.safetensors")
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder}: damaged ({type(error).__name__}: {error})") from None
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder}: peft_type is {config.get('peft_type')!r}; only LORA can be loaded")
    for key, neutral in UNSUPPORTED.items():
        if config.get(key, neutral) != neutral:
            raise ValueError(f"{folder}: {key}={config[key]!r} is not supported; it must be {neutral!r}")
    tensors = {}
    for key, value in raw.items():
        found = re.search(r"\bh\.(\d+)\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.lora_([AB])\.weight$", key)
        if found is None:
            raise ValueError(f"{folder}: {key!r} is not LoRA on a layer of GPT-2's blocks")
        tensors[int(found[1]), found[2], found[3]] = value
    if not tensors:
        raise ValueError(f"{folder}: adapter_model.safetensors is empty")
    return config, tensors


def _scaling(config: dict, name: str, rank: int) -> float:
    """alpha / rank of one layer. As in peft, a pattern names the layers whose names end in it."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    return LoRA(rank=rank, alpha=alpha, rank_stabilised=bool(config.get("use_rslora"))).scaling


def _without_zeros(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """B A without the components that B does not use; as it is where it uses none (an untrained adapter)."""
    used = b.any(0)
    return (a[used], b[:, used]) if used.any() else (a, b)
