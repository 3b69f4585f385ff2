"""The map between transformers' names of weights and ours, one layout a family.

transformers keeps GPT-2's query, key and value in one matrix, c_attn, and every matrix as the transpose of torch's (its
"Conv1D": [d_in, d_out]). Its Llama has the same layers as ours under other names.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2lib.model.config import GPT2Config, LlamaConfig

Take = Callable[..., Tensor]  # take(key, *shape): that tensor of the file in float32, which must have that shape


GPT2_LINEAR = {"attn.o": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}  # ours -> theirs, in a block
LLAMA_BLOCK = {
    "ln_1": "input_layernorm",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


class GPT2Layout:
    name = "GPT-2"

    @staticmethod
    def cleaned(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the prefix that a language model's file has and a bare decoder's has not; old files carry the causal
        mask as a weight."""
        masks = (".attn.bias", ".attn.masked_bias")
        return {key.removeprefix("transformer."): value for key, value in theirs.items() if not key.endswith(masks)}

    @classmethod
    def ours(cls, take: Take, config: GPT2Config) -> dict[str, Tensor]:
        d = config.n_embd
        ours = {
            "wte.weight": take("wte.weight", config.vocab_size, d),
            "wpe.weight": take("wpe.weight", config.n_positions, d),
        }
        for i in range(config.n_layer):
            for norm in ("ln_1", "ln_2"):
                for part in ("weight", "bias"):
                    ours[f"blocks.{i}.{norm}.{part}"] = take(f"h.{i}.{norm}.{part}", d)
            fused = take(f"h.{i}.attn.c_attn.weight", d, 3 * d).T.chunk(3)  # three [n_embd, n_embd]
            biases = take(f"h.{i}.attn.c_attn.bias", 3 * d).chunk(3)
            for letter, weight, bias in zip("qkv", fused, biases, strict=True):
                ours[f"blocks.{i}.attn.{letter}.weight"] = weight.contiguous()
                ours[f"blocks.{i}.attn.{letter}.bias"] = bias.clone()
            for name, key in GPT2_LINEAR.items():
                d_out, d_in = {"attn.o": (d, d), "mlp.up": (4 * d, d), "mlp.down": (d, 4 * d)}[name]
                ours[f"blocks.{i}.{name}.weight"] = take(f"h.{i}.{key}.weight", d_in, d_out).T.contiguous()
                ours[f"blocks.{i}.{name}.bias"] = take(f"h.{i}.{key}.bias", d_out)
        return ours | {f"ln_f.{part}": take(f"ln_f.{part}", d) for part in ("weight", "bias")}

    @classmethod
    def theirs(cls, state: dict[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:
        """Takes what it has a place for out of `state`."""
        theirs = {f"transformer.{name}": state.pop(name) for name in ("wte.weight", "wpe.weight")}
        theirs |= {f"transformer.ln_f.{part}": state.pop(f"ln_f.{part}") for part in ("weight", "bias")}
        for i in range(config.n_layer):
            ours, key = f"blocks.{i}", f"transformer.h.{i}"
            for part in ("weight", "bias"):
                for norm in ("ln_1", "ln_2"):
                    theirs[f"{key}.{norm}.{part}"] = state.pop(f"{ours}.{norm}.{part}")
                fused = torch.cat([state.pop(f"{ours}.attn.{letter}.{part}") for letter in "qkv"])
                theirs[f"{key}.attn.c_attn.{part}"] = fused.T if part == "weight" else fused
                for name, their_name in GPT2_LINEAR.items():
                    value = state.pop(f"{ours}.{name}.{part}")
                    theirs[f"{key}.{their_name}.{part}"] = value.T if part == "weight" else value
        return theirs


class LlamaLayout:
    name = "Llama"

    @staticmethod
    def cleaned(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the prefix that a bare decoder's file has not; old files carry the rotary frequencies."""
        return {
            key.removeprefix("model."): value
            for key, value in theirs.items()
            if not key.endswith("rotary_emb.inv_freq")
        }

    @classmethod
    def names(cls, config: LlamaConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Ours -> theirs, and the shape."""
        d, shared, inner = config.n_embd, config.n_kv_head * config.head_dim, config.n_inner
        shapes = {"attn.q": (d, d), "attn.k": (shared, d), "attn.v": (shared, d), "attn.o": (d, d)}
        shapes |= {"mlp.gate": (inner, d), "mlp.up": (inner, d), "mlp.down": (d, inner), "ln_1": (d,), "ln_2": (d,)}
        names = {"wte.weight": ("embed_tokens.weight", (config.vocab_size, d)), "ln_f.weight": ("norm.weight", (d,))}
        if not config.tie_word_embeddings:
            names["output_weight"] = ("lm_head.weight", (config.vocab_size, d))
        for i in range(config.n_layer):
            for ours, theirs in LLAMA_BLOCK.items():
                names[f"blocks.{i}.{ours}.weight"] = (f"layers.{i}.{theirs}.weight", shapes[ours])
        return names

    @classmethod
    def ours(cls, take: Take, config: LlamaConfig) -> dict[str, Tensor]:
        return {ours: take(theirs, *shape) for ours, (theirs, shape) in cls.names(config).items()}

    @classmethod
    def theirs(cls, state: dict[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
        """Takes what it has a place for out of `state`."""
        return {
            theirs if theirs.startswith("lm_head") else f"model.{theirs}": state.pop(ours)
            for ours, (theirs, _) in cls.names(config).items()
        }


LAYOUTS = {GPT2Config: GPT2Layout, LlamaConfig: LlamaLayout}
