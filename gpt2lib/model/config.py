"""The shape of a GPT-2 (Radford et al. 2019) and of a Llama (Touvron et al. 2023), the published sizes, and
transformers' config.json, which is where they come from and go to."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

from gpt2lib.common.checks import check_count, check_divides, check_fraction, check_positive, check_token, naming
from gpt2lib.common.whole import read_json, write_json


@dataclass(frozen=True)
class GPT2Config:
    """Sizes of a GPT-2. The defaults are those of the smallest published model, without its dropout of 0.1.

    Raises ValueError for a size below 1, a width that the heads do not divide, or a dropout outside [0, 1).
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    layer_norm_epsilon: float = 1e-5
    embd_pdrop: float = 0.0
    attn_pdrop: float = 0.0
    resid_pdrop: float = 0.0
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    family: ClassVar[str] = "gpt2"  # config.json's model_type
    tie_word_embeddings: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            check_count(name, getattr(self, name))
        check_divides("n_head", self.n_head, "n_embd", self.n_embd)
        check_positive("layer_norm_epsilon", self.layer_norm_epsilon)
        for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop"):
            check_fraction(name, getattr(self, name))
        for name in ("bos_token_id", "eos_token_id"):
            check_token(name, getattr(self, name))

    @property
    def parameters(self) -> int:
        """How many parameters a GPT-2 of this shape has; the output layer adds none."""
        d = self.n_embd
        return d * (self.vocab_size + self.n_positions) + self.n_layer * (12 * d * d + 13 * d) + 2 * d

    @property
    def block_parameters(self) -> int:
        """How many weights of a block are matrices', which is how many multiplications it takes a token."""
        return 12 * self.n_embd**2

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def from_json(cls, path: str | Path) -> "GPT2Config":
        """Read transformers' config.json. Raises ValueError for a model that is not GPT-2 or computes differently."""
        values = read_config(path)
        check_computed(
            path,
            values,
            {
                "model_type": ("gpt2",),
                "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
                "n_inner": (None, 4 * values.get("n_embd", cls.n_embd)),
                "scale_attn_weights": (True,),
                "scale_attn_by_inverse_layer_idx": (False,),
                "add_cross_attention": (False,),
                "tie_word_embeddings": (True,),
            },
        )
        with naming(path):
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def to_json(self, path: str | Path) -> None:
        """Write config.json as transformers reads it."""
        fixed = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new"}
        write_json(Path(path), fixed | asdict(self))


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama, called as GPT-2's are. The defaults are SmolLM2-135M's (Ben Allal et al. 2025,
    arXiv 2502.02737).

    n_kv_head: heads of keys and values, which groups of the n_head query heads share. n_inner: width of the
    feed-forward layer. rope_theta: base of the rotary angles. Raises ValueError as GPT2Config does.
    """

    vocab_size: int = 49152
    n_positions: int = 8192
    n_embd: int = 576
    n_layer: int = 30
    n_head: int = 9
    n_kv_head: int = 3
    n_inner: int = 1536
    rms_norm_eps: float = 1e-5
    rope_theta: float = 100_000.0
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    family: ClassVar[str] = "llama"

    def __post_init__(self):
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_kv_head", "n_inner"):
            check_count(name, getattr(self, name))
        for whole, part in (("n_embd", "n_head"), ("n_head", "n_kv_head")):
            check_divides(part, getattr(self, part), whole, getattr(self, whole))
        if self.head_dim % 2:
            raise ValueError(f"n_embd / n_head = {self.head_dim} is odd; rotary positions turn pairs")
        for name in ("rms_norm_eps", "rope_theta"):
            check_positive(name, getattr(self, name))
        if not isinstance(self.tie_word_embeddings, bool):
            raise ValueError(f"tie_word_embeddings must be true or false, not {self.tie_word_embeddings!r}")
        for name in ("bos_token_id", "eos_token_id"):
            check_token(name, getattr(self, name))

    @property
    def parameters(self) -> int:
        """How many parameters a Llama of this shape has."""
        tables = self.n_embd * self.vocab_size * (1 if self.tie_word_embeddings else 2)
        return tables + self.n_layer * (self.block_parameters + 2 * self.n_embd) + self.n_embd

    @property
    def block_parameters(self) -> int:
        """How many weights of a block are matrices', which is how many multiplications it takes a token."""
        attention = 2 * self.n_embd + 2 * self.n_kv_head * self.head_dim  # rows of q and o, of k and v
        return self.n_embd * (attention + 3 * self.n_inner)

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def from_json(cls, path: str | Path) -> "LlamaConfig":
        """Read transformers' config.json. Raises ValueError for a model that is not a Llama or computes differently."""
        # what a file leaves out has transformers' default, not SmolLM2's size
        values = {"num_key_value_heads": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False} | read_config(path)
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise ValueError(f"{path}: rope_parameters={rope!r} is no table of settings")
        values["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
        values["rope_theta"] = rope.get("rope_theta", values.get("rope_theta", 10_000.0))
        heads, width = values.get("num_attention_heads"), values.get("hidden_size")
        if isinstance(heads, int) and isinstance(width, int) and heads > 0:
            check_computed(path, values, {"head_dim": (None, width // heads)})
        check_computed(
            path,
            values,
            {
                "model_type": ("llama",),
                "hidden_act": ("silu",),
                "attention_bias": (False,),
                "mlp_bias": (False,),
                "rope_type": ("default",),
                "rope_interleaved": (False,),
                "partial_rotary_factor": (1, 1.0),
                "attention_dropout": (0,),
                "pretraining_tp": (1,),
            },
        )
        if values["num_key_value_heads"] is None:
            values["num_key_value_heads"] = heads
        if isinstance(values.get("eos_token_id"), list):
            values["eos_token_id"] = values["eos_token_id"][0]
        if missing := [theirs for theirs in LLAMA_NAMES.values() if theirs not in values and theirs[-3:] != "_id"]:
            raise ValueError(f"{path}: {', '.join(missing)} missing")
        with naming(path):
            return cls(**{ours: values[theirs] for ours, theirs in LLAMA_NAMES.items() if theirs in values})

    def to_json(self, path: str | Path) -> None:
        """Write config.json as transformers reads it."""
        fixed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
        theirs = {LLAMA_NAMES[name]: value for name, value in asdict(self).items()}
        rope = {"rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta}}  # since transformers 5
        write_json(Path(path), fixed | theirs | rope)


LLAMA_NAMES = {  # ours -> transformers'
    "vocab_size": "vocab_size",
    "n_positions": "max_position_embeddings",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_inner": "intermediate_size",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tie_word_embeddings": "tie_word_embeddings",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}
Config = GPT2Config | LlamaConfig
CONFIGS = {config.family: config for config in (GPT2Config, LlamaConfig)}


def config_from_json(path: str | Path) -> Config:
    """The shape in a config.json of either family. Raises ValueError, saying which there are, for another one."""
    family = read_config(path).get("model_type")
    if family not in CONFIGS:
        raise ValueError(f"{path}: model_type={family!r} is not computed here; possible: {', '.join(CONFIGS)}")
    return CONFIGS[family].from_json(path)


def read_config(path: str | Path) -> dict:
    """The settings in a config.json. Raises ValueError, naming file and line, for what is no JSON table."""
    values = read_json(Path(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path}: no table of settings")
    return values


def check_computed(path: str | Path, values: dict, computed: dict[str, tuple]) -> None:
    """Refuse a file that asks for anything but what the code computes, by setting: it would load and then be wrong."""
    for key, possible in computed.items():
        if key in values and values[key] not in possible:
            raise ValueError(f"{path}: {key}={values[key]!r} is not computed here; possible: {possible}")


_published = dict(embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1, bos_token_id=50256, eos_token_id=50256)
SIZES = {
    "gpt2": GPT2Config(n_layer=12, n_head=12, n_embd=768, **_published),
    "gpt2-medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024, **_published),
    "gpt2-large": GPT2Config(n_layer=36, n_head=20, n_embd=1280, **_published),
    "gpt2-xl": GPT2Config(n_layer=48, n_head=25, n_embd=1600, **_published),
}
PUBLISHED = SIZES | {"smollm2-135m": LlamaConfig(bos_token_id=1, eos_token_id=2)}
