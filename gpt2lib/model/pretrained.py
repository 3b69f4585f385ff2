"""A model's weights on disk, in the transformers layout: where they are found, read and written.

`layouts.py` has the map between a family's names there and ours; `Decoder` calls `find`, `load` and `save`.
"""

from pathlib import Path

import torch
from torch import Tensor

from gpt2lib.common.checks import one_line
from gpt2lib.common.whole import read_json, read_tensors, write_tensors, written_together
from gpt2lib.model import gguf_file
from gpt2lib.model.layouts import LAYOUTS

EMBEDDED = Path(__file__).parents[1] / "weights"  # the models that come with the package, one folder each


def find(name: str | Path, holds: tuple[str, ...] = ("config.json",)) -> Path:
    """The folder that holds a model (or one of the files `holds`): an existing folder, one that comes with pip, or a
    download from the hub. A .gguf file, or a folder that holds one and none of `holds`, is converted once into the
    user's cache."""
    folder = Path(name)
    if (EMBEDDED / folder.name / "config.json").is_file() and str(name) == folder.name:
        return EMBEDDED / folder.name
    if str(name) in gguf_file.WHEELS:
        return gguf_file.from_wheel(str(name))
    if folder.suffix == ".gguf" and folder.is_file():
        return gguf_file.converted(folder)
    if folder.is_dir():
        if any((folder / file).is_file() for file in holds):
            return folder
        if len(files := list(folder.glob("*.gguf"))) == 1:
            return gguf_file.converted(files[0])
        raise FileNotFoundError(f"{folder} holds no {' and no '.join(holds)}; it has: {_listing(folder)}")
    if str(name).count("/") > 1 or str(name).startswith((".", "/", "~")) or folder.suffix == ".gguf":
        raise FileNotFoundError(f"there is no {'file' if folder.suffix == '.gguf' else 'folder'} {folder}")
    from huggingface_hub import snapshot_download  # only needed, and only imported, for a hub name

    patterns = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.json", "merges.txt"]
    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated types for "not found" and "not reachable"
        raise FileNotFoundError(
            f"{str(name)!r} is no folder and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); give a folder with config.json and model.safetensors, or go online once"
        ) from error


def load(folder: Path, config) -> dict[str, Tensor]:
    """A state dict with our names, in float32 whatever the file holds. Raises ValueError naming what is missing,
    unknown or of the wrong shape."""
    path, theirs = _read(folder)

    def take(key: str, *shape: int) -> Tensor:
        if key not in theirs:
            raise ValueError(f"{path}: weight {key!r} is missing; the file has {len(theirs)} others")
        if theirs[key].shape != shape:
            raise ValueError(f"{path}: {key!r} is {list(theirs[key].shape)}, config.json asks for {list(shape)}")
        return theirs.pop(key).float()

    layout = LAYOUTS[type(config)]
    theirs = layout.cleaned(theirs)
    head = theirs.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    ours = layout.ours(take, config)
    if theirs:
        raise ValueError(f"{path}: no place in this {layout.name} for {sorted(theirs)[:5]} (n_layer={config.n_layer})")
    if head is not None and not torch.equal(head.float(), ours["wte.weight"]):
        raise ValueError(f"{path}: lm_head.weight differs from the token embedding, to which config.json ties it")
    return ours


def save(model, folder: Path, dtype: torch.dtype) -> None:
    """Write config.json and model.safetensors; they appear under their names only when both are whole."""
    if model.adapter is not None:
        raise ValueError(
            "the model has an adapter attached: call gpt2lib.adapters.merge first, or adapters.save for it alone"
        )
    layout = LAYOUTS[type(model.config)]
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    theirs = layout.theirs(state, model.config)
    if state:
        raise ValueError(f"the model has weights that {layout.name}'s layout has no place for: {sorted(state)[:5]}")
    with written_together(folder) as new:
        model.config.to_json(new / "config.json")
        write_tensors(new / "model.safetensors", {k: v.contiguous() for k, v in theirs.items()})


def _read(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The raw tensors of a folder: one safetensors file, or a sharded one."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if path.is_file():
        return path, read_tensors(path)
    if index.is_file():
        try:
            shards = sorted({folder / shard for shard in read_json(index)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{index}: damaged ({one_line(error)}); fetch or write it again") from None
        return index, {key: value for shard in shards for key, value in read_tensors(shard).items()}
    raise FileNotFoundError(f"{folder} holds no model.safetensors; it has: {_listing(folder)}")


def _listing(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
