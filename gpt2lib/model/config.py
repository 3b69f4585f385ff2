"""The shape of a GPT-2 (Radford et al. 2019) and the published sizes, with transformers' names for every field."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from gpt2lib.common.checks import check_count, check_dropout


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

    def __post_init__(self):
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            check_count(name, getattr(self, name))
        if self.n_embd % self.n_head:
            divisors = [n for n in range(1, self.n_embd + 1) if self.n_embd % n == 0]
            raise ValueError(f"n_head={self.n_head} does not divide n_embd={self.n_embd}; possible: {divisors}")
        for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop"):
            check_dropout(name, getattr(self, name))

    @property
    def parameters(self) -> int:
        """How many parameters a GPT-2 of this shape has; the output layer adds none."""
        d = self.n_embd
        return d * (self.vocab_size + self.n_positions) + self.n_layer * (12 * d * d + 13 * d) + 2 * d

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def from_name(cls, name: str, **changes) -> "GPT2Config":
        """One of the published sizes: gpt2, gpt2-medium, gpt2-large, gpt2-xl."""
        if name not in SIZES:
            raise ValueError(f"no GPT-2 size is called {name!r}; possible: {', '.join(SIZES)}")
        return replace(SIZES[name], **changes)

    @classmethod
    def from_json(cls, path: str | Path) -> "GPT2Config":
        """Read transformers' config.json. Raises ValueError for a model that is not GPT-2 or computes differently."""
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
        # each entry: what this code computes; a file that asks for anything else would load and then be wrong
        for key, possible in {
            "model_type": ("gpt2",),
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "n_inner": (None, 4 * values.get("n_embd", cls.n_embd)),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
            "tie_word_embeddings": (True,),
        }.items():
            if key in values and values[key] not in possible:
                raise ValueError(f"{path}: {key}={values[key]!r} is not GPT-2's; possible: {possible}")
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def to_json(self, path: str | Path) -> None:
        """Write config.json as transformers reads it."""
        fixed = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new"}
        Path(path).write_text(json.dumps(fixed | asdict(self), indent=2) + "\n", encoding="utf-8")


_published = dict(embd_pdrop=0.1, attn_pdrop=0.1, resid_pdrop=0.1, bos_token_id=50256, eos_token_id=50256)
SIZES = {
    "gpt2": GPT2Config(n_layer=12, n_head=12, n_embd=768, **_published),
    "gpt2-medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024, **_published),
    "gpt2-large": GPT2Config(n_layer=36, n_head=20, n_embd=1280, **_published),
    "gpt2-xl": GPT2Config(n_layer=48, n_head=25, n_embd=1600, **_published),
}
