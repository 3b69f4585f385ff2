"""Adapters on disk: a folder with adapter.json (the specification, and what base it belongs to) and
adapter.safetensors (the adapter's own parameters, a few MB)."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from gpt2lib.adapters.base import Spec, adapter_parameters, adapter_state, attach, attached_spec, detach
from gpt2lib.common.whole import write_json, write_tensors
from gpt2lib.model.decoder import Decoder


def save(model: Decoder, folder: str | Path) -> None:
    """Write the attached adapter. Raises ValueError if there is none."""
    spec = attached_spec(model)
    if spec is None:
        raise ValueError("there is no adapter to save")
    folder = Path(folder)
    values = {name: p.detach().contiguous() for name, p in adapter_state(model).items()}
    write_tensors(folder / "adapter.safetensors", values)
    content = {"spec": json.loads(spec.to_json()), "base": base_fingerprint(model)}
    write_json(folder / "adapter.json", content)


@torch.no_grad()
def load(model: Decoder, folder: str | Path) -> Decoder:
    """Attach the adapter that a folder holds, in place of one that is attached. Returns the model.

    Raises FileNotFoundError, or ValueError for a damaged file or an adapter of another base.
    """
    folder = Path(folder)
    for name in ("adapter.json", "adapter.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; give a folder that gpt2lib.adapters.save wrote")
    try:
        content = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
        spec, base = Spec.from_json(json.dumps(content["spec"])), content["base"]
        values = load_file(folder / "adapter.safetensors")
    except (json.JSONDecodeError, KeyError, SafetensorError) as error:
        raise ValueError(f"{folder}: damaged ({type(error).__name__}: {error})") from None
    if base != base_fingerprint(model):
        raise ValueError(f"{folder}: the adapter was saved from another base model than this one; load that one first")
    if attached_spec(model):
        detach(model)
    attach(model, spec)
    parameters = adapter_state(model)
    if {name: p.shape for name, p in parameters.items()} != {name: v.shape for name, v in values.items()}:
        detach(model)
        raise ValueError(f"{folder}: adapter.safetensors does not hold the parameters that adapter.json describes")
    for name, p in parameters.items():
        p.copy_(values[name])
    return model


def base_fingerprint(model: Decoder) -> str:
    """The same for the same base weights, whatever adapter is attached: a hash over the first row of each of them.

    Rounded to bf16, so that a base held in bf16 is the same base.
    """
    digest = hashlib.sha256()
    adapter = adapter_parameters(model)
    for name, p in sorted((n.replace(".base.", "."), p) for n, p in model.named_parameters() if n not in adapter):
        row = p.detach()[:1].flatten() if p.dim() > 1 else p.detach()
        digest.update(f"{name} {list(p.shape)} ".encode())
        digest.update(row.bfloat16().view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
