"""GPT-2: embeddings, blocks, and a language-model head tied to the token embedding (Radford et al. 2019)."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2lib.model import pretrained
from gpt2lib.model.attention import KVCache, attention_mask_of
from gpt2lib.model.block import Block
from gpt2lib.model.config import GPT2Config
from gpt2lib.model.generate import generate
from gpt2lib.model.linear import linear


class GPT2(nn.Module):
    """The decoder: token and position embeddings, pre-norm blocks, a final norm.

    Parameters: d (vocab_size + n_positions) + n_layer (12 d^2 + 13 d) + 2 d; the output layer adds none.
    Set `gradient_checkpointing` to recompute each block in the backward pass instead of keeping its activations.
    """

    generate = generate

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.dropout = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.output_weight = None  # the output layer is tied to wte, see `untie`
        self.gradient_checkpointing = False
        self.adapter = None  # the specification of the adapter that is attached, see `gpt2lib.adapters`
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's initialisation: N(0, 0.02), residual outputs scaled by 1 / sqrt(2 n_layer), biases 0 (section 2.3)."""
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif "ln_" in name:
                nn.init.ones_(parameter)
            else:
                residual = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.n_layer) ** 0.5 if residual else 0.02)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
        position_ids: Tensor | None = None,
        read: Tensor | None = None,
        hidden: Tensor | None = None,
        first: int = 0,
        end: int | None = None,
    ) -> Tensor:
        """Hidden states after the final norm: [batch, seq, n_embd], or [batch, n_embd] at the positions `read`: [batch].

        input_ids: [batch, seq]. attention_mask: [batch, cached + seq], 1 = real token, on whichever side the padding
        is; a batch padded on the right needs none. Positions count real tokens, so that padding changes nothing;
        transformers does so only if it is given the same position_ids. `read` spares the last block all other
        positions; it is for batches without a mask or a cache.
        end: stop before this block, and give what it would read, without the final norm: [batch, seq, n_embd], or
        [batch, 1, n_embd] with `read`. hidden: such states of these tokens, to go on from at block `first`.
        Raises ValueError for a mask of the wrong shape, more tokens than n_positions, or `read` with a mask or a cache.
        """
        if read is not None and (attention_mask is not None or cache is not None):
            raise ValueError("read is for batches padded on the right, without attention_mask or cache")
        batch, seq = input_ids.shape
        past = cache.length if cache is not None else 0
        if attention_mask is not None and attention_mask.shape != (batch, past + seq):
            raise ValueError(f"attention_mask is {list(attention_mask.shape)}, expected {[batch, past + seq]}")
        if position_ids is None:
            if attention_mask is None:
                position_ids = torch.arange(past, past + seq, device=input_ids.device)
            else:
                position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, past:]
        # the lookup would fail with an index error that names neither (and on a GPU would poison the process)
        longest = past + seq if attention_mask is None else int(position_ids.max()) + 1
        if longest > self.config.n_positions:
            raise ValueError(f"{longest} tokens are more than the model's n_positions={self.config.n_positions}")
        mask = attention_mask_of(attention_mask, seq, past, input_ids.device)

        x = self.dropout(self.wte(input_ids) + self.wpe(position_ids)) if hidden is None else hidden
        stop = len(self.blocks) if end is None else end
        for i in range(first, stop):
            block, last = self.blocks[i], read if i == stop - 1 else None
            if self.gradient_checkpointing and torch.is_grad_enabled() and cache is None:
                x = checkpoint(block, x, mask, None, last, use_reentrant=False)
            else:
                x = block(x, mask, cache, last)
        if cache is not None:
            cache.length += seq
        if end is not None:
            return x
        return self.ln_f(x if read is None else x[:, 0])

    def logits(self, h: Tensor) -> Tensor:
        """[..., n_embd] -> [..., vocab_size], by the token embedding's own weights."""
        return linear(h, self.wte.weight if self.output_weight is None else self.output_weight)

    def untie(self) -> None:
        """Give the output layer weights of its own, [vocab_size, n_embd], which start as the token embedding's.

        For training the last layer alone. Such a model is no longer a GPT-2, and `save_pretrained` refuses it.
        """
        self.output_weight = nn.Parameter(self.wte.weight.detach().clone())

    @classmethod
    def from_pretrained(cls, name: str | Path, *, allow_pickle: bool = False, **changes) -> "GPT2":
        """Load a hub name ("gpt2", ..., "gpt2-xl"), a folder in the transformers layout, or "gpt2-mini", in eval mode.

        changes: fields of GPT2Config to override, such as attn_pdrop=0.0. Raises FileNotFoundError for what is not
        there and ValueError for weights that do not fit; a pickled pytorch_model.bin is read only with allow_pickle.
        """
        folder = pretrained.find(name, allow_pickle)
        config = GPT2Config.from_json(folder / "config.json")
        with torch.device("meta"):  # no memory and no time for an initialisation that is overwritten
            model = cls(GPT2Config(**{**config.__dict__, **changes}))
        model.load_state_dict(pretrained.load(folder, config, allow_pickle), strict=True, assign=True)
        return model.requires_grad_(True).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors, which transformers.GPT2LMHeadModel loads.

        dtype: of the numbers in the file; `from_pretrained` makes them float32 again. Raises ValueError while an adapter
        is attached: merge it first, or save it by itself.
        """
        pretrained.save(self, Path(folder), dtype)
