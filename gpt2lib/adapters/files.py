"""Adapters on disk: a folder with adapter.json (the specification, and what base it belongs to) and
adapter.safetensors (the adapter's own parameters, a few MB)."""

from pathlib import Path

import torch

from gpt2lib.adapters.base import (
    Spec,
    adapter_parameters,
    adapter_state,
    attach,
    in_place_of_attached,
)
from gpt2lib.common.checks import naming, one_line
from gpt2lib.common.digest import digest_kept
from gpt2lib.common.whole import read_json, read_tensors, write_json, write_tensors, written_together
from gpt2lib.model.decoder import Decoder


def save(model: Decoder, folder: str | Path) -> None:
    """Write the attached adapter. Raises ValueError if there is none."""
    spec = model.adapter
    if spec is None:
        raise ValueError("there is no adapter to save")
    values = {name: p.detach().contiguous() for name, p in adapter_state(model).items()}
    content = {"spec": spec.to_dict(), "base": base_fingerprint(model)}
    with written_together(Path(folder)) as new:
        write_tensors(new / "adapter.safetensors", values)
        write_json(new / "adapter.json", content)


@torch.no_grad()
def load(model: Decoder, folder: str | Path) -> Decoder:
    """Attach the adapter that a folder holds, in place of one that is attached. Returns the model.

    Raises FileNotFoundError, or ValueError for a damaged file or an adapter of another base; an adapter that was
    attached then still is.
    """
    folder = Path(folder)
    for name in ("adapter.json", "adapter.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; give a folder that gpt2lib.adapters.save wrote")
    try:
        content = read_json(folder / "adapter.json")
        spec, base = Spec.from_dict(content["spec"]), content["base"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: damaged ({type(error).__name__}: {one_line(error)})") from None
    values = read_tensors(folder / "adapter.safetensors")
    if base != base_fingerprint(model):
        raise ValueError(f"{folder}: the adapter was saved from another base model than this one; load that one first")
    with naming(folder), in_place_of_attached(model):
        attach(model, spec)
        parameters = adapter_state(model)
        if {name: p.shape for name, p in parameters.items()} != {name: v.shape for name, v in values.items()}:
            raise ValueError(f"{folder}: adapter.safetensors does not hold the parameters that adapter.json describes")
        for name, p in parameters.items():
            if values[name].dtype == torch.float64:  # which would lose by copying
                p.data = p.data.double()
            p.copy_(values[name])
    return model


def base_fingerprint(model: Decoder) -> str:
    """The same for the same base weights, whatever adapter is attached: of all of them, rounded to bf16, so that a base
    held in bf16 is the same base."""
    adapter = adapter_parameters(model)
    base = {name.replace(".base.", "."): p for name, p in model.named_parameters() if name not in adapter}
    return digest_kept(model, sorted(base.items()), torch.bfloat16)
