"""GPT-2's weights on disk, in the transformers layout: where they are found, and the map between its names and ours.

transformers keeps query, key and value in one matrix, c_attn, and every matrix as the transpose of torch's
(its "Conv1D": [d_in, d_out]). `model.py` calls the three functions here.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpt2lib.common.whole import write_tensors
from gpt2lib.model.config import GPT2Config

EMBEDDED = Path(__file__).parents[1] / "weights"  # the models that come with the package, one folder each

# ours -> transformers', within one block
LINEAR = {"attn.o": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
NORM = {"ln_1": "ln_1", "ln_2": "ln_2"}


def find(name: str | Path, allow_pickle: bool = False) -> Path:
    """The folder that holds a model: an existing folder, an embedded model, or a download from the hub."""
    folder = Path(name)
    if (EMBEDDED / folder.name / "config.json").is_file() and str(name) == folder.name:
        return EMBEDDED / folder.name
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no config.json; it has: {_listing(folder)}")
        return folder
    if str(name).count("/") > 1 or str(name).startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no folder {folder}")
    from huggingface_hub import snapshot_download  # only needed, and only imported, for a hub name

    patterns = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.json", "merges.txt"]
    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns + ["pytorch_model.bin"] * allow_pickle))
    except Exception as error:  # the hub client raises a dozen unrelated types for "not found" and "not reachable"
        raise FileNotFoundError(
            f"{str(name)!r} is no folder and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); give a folder with config.json and model.safetensors, or go online once"
        ) from error


def load(folder: Path, config: GPT2Config, allow_pickle: bool = False) -> dict[str, Tensor]:
    """A state dict with our names, in float32 whatever the file holds. Raises ValueError naming what is missing, unknown
    or of the wrong shape."""
    path, theirs = _read(folder, allow_pickle)
    theirs = {key.removeprefix("transformer."): value.float() for key, value in theirs.items()}
    # old files carry the causal mask as a weight
    theirs = {key: value for key, value in theirs.items() if not key.endswith((".attn.bias", ".attn.masked_bias"))}
    head = theirs.pop("lm_head.weight", None)
    ours: dict[str, Tensor] = {}

    def take(key: str, *shape: int) -> Tensor:
        if key not in theirs:
            raise ValueError(f"{path}: weight {key!r} is missing; the file has {len(theirs)} others")
        if theirs[key].shape != shape:
            raise ValueError(f"{path}: {key!r} is {list(theirs[key].shape)}, config.json asks for {list(shape)}")
        return theirs.pop(key)

    d = config.n_embd
    ours["wte.weight"] = take("wte.weight", config.vocab_size, d)
    ours["wpe.weight"] = take("wpe.weight", config.n_positions, d)
    for i in range(config.n_layer):
        for norm in NORM:
            ours[f"blocks.{i}.{norm}.weight"] = take(f"h.{i}.{NORM[norm]}.weight", d)
            ours[f"blocks.{i}.{norm}.bias"] = take(f"h.{i}.{NORM[norm]}.bias", d)
        fused = take(f"h.{i}.attn.c_attn.weight", d, 3 * d).T.chunk(3)  # three [n_embd, n_embd]
        biases = take(f"h.{i}.attn.c_attn.bias", 3 * d).chunk(3)
        for letter, weight, bias in zip("qkv", fused, biases, strict=True):
            ours[f"blocks.{i}.attn.{letter}.weight"] = weight.contiguous()
            ours[f"blocks.{i}.attn.{letter}.bias"] = bias.clone()
        for name, key in LINEAR.items():
            d_out, d_in = {"attn.o": (d, d), "mlp.up": (4 * d, d), "mlp.down": (d, 4 * d)}[name]
            ours[f"blocks.{i}.{name}.weight"] = take(f"h.{i}.{key}.weight", d_in, d_out).T.contiguous()
            ours[f"blocks.{i}.{name}.bias"] = take(f"h.{i}.{key}.bias", d_out)
    ours["ln_f.weight"] = take("ln_f.weight", d)
    ours["ln_f.bias"] = take("ln_f.bias", d)
    if theirs:
        raise ValueError(f"{path}: no place in this GPT-2 for {sorted(theirs)[:5]} (n_layer={config.n_layer})")
    if head is not None and not torch.equal(head, ours["wte.weight"]):
        raise ValueError(f"{path}: lm_head.weight differs from wte.weight, but GPT-2's output layer is tied to it")
    return ours


def save(model, folder: Path, dtype: torch.dtype) -> None:
    """Write config.json and model.safetensors; the weights appear under their name only when they are whole."""
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    theirs = {f"transformer.{name}": state.pop(name) for name in ("wte.weight", "wpe.weight")}
    theirs |= {f"transformer.ln_f.{part}": state.pop(f"ln_f.{part}") for part in ("weight", "bias")}
    for i in range(model.config.n_layer):
        ours, key = f"blocks.{i}", f"transformer.h.{i}"
        try:
            for part in ("weight", "bias"):
                for norm in NORM:
                    theirs[f"{key}.{NORM[norm]}.{part}"] = state.pop(f"{ours}.{norm}.{part}")
                fused = torch.cat([state.pop(f"{ours}.attn.{letter}.{part}") for letter in "qkv"])
                theirs[f"{key}.attn.c_attn.{part}"] = fused.T if part == "weight" else fused
                for name, their_name in LINEAR.items():
                    value = state.pop(f"{ours}.{name}.{part}")
                    theirs[f"{key}.{their_name}.{part}"] = value.T if part == "weight" else value
        except KeyError:
            raise ValueError(
                "the model has an adapter attached: call gpt2lib.adapters.merge first, or adapters.save for it alone"
            ) from None
    if state:
        raise ValueError(f"the model has weights that GPT-2's layout has no place for: {sorted(state)[:5]}")
    folder.mkdir(parents=True, exist_ok=True)
    model.config.to_json(folder / "config.json")
    whole = {k: v.contiguous() for k, v in theirs.items()}
    write_tensors(folder / "model.safetensors", whole)


def _read(folder: Path, allow_pickle: bool) -> tuple[Path, dict[str, Tensor]]:
    """The raw tensors of a folder: one safetensors file, a sharded one, or (only if allowed) a pickle."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    try:
        if path.is_file():
            return path, load_file(path)
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return index, {key: value for shard in shards for key, value in load_file(folder / shard).items()}
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged or cut short ({error}); fetch or write it again") from None
    pickle = folder / "pytorch_model.bin"
    if pickle.is_file() and allow_pickle:
        return pickle, torch.load(pickle, map_location="cpu", weights_only=True)
    if pickle.is_file():
        raise ValueError(
            f"{folder} holds only a pickle (pytorch_model.bin), which could run code; "
            "convert it to model.safetensors, or pass allow_pickle=True to read tensors alone from it"
        )
    raise FileNotFoundError(f"{folder} holds no model.safetensors; it has: {_listing(folder)}")


def _listing(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
