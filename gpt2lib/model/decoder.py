"""What the model families share: blocks with a residual path, run with a cache, padding, and an output layer."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2lib.model import pretrained
from gpt2lib.model.attention import KVCache, attention_mask_of, rows_at
from gpt2lib.model.generate import batch_shape, generate
from gpt2lib.model.linear import linear


class Decoder(nn.Module):
    """Token embedding, pre-norm blocks, a final norm. A family (`GPT2`, `Llama`) says what each of them is.

    It makes `wte`, `blocks` and `ln_f`, says how tokens are embedded (`embed`) and, where its blocks turn queries and
    keys by their positions, how far (`rotation`). Everything else, adapters and heads included, is the same for all.
    Set `gradient_checkpointing` to recompute each block in the backward pass instead of keeping its activations.
    """

    config_class: ClassVar[type]
    generate = generate

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.output_weight = None  # None: the output layer is tied to wte, see `untie`
        self.gradient_checkpointing = False
        self.adapter = None  # the specification of the adapter that is attached, see `gpt2lib.adapters`

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """What the first block reads: [batch, seq] -> [batch, seq, n_embd]. position_ids: [seq] or [batch, seq]."""
        raise NotImplementedError

    def rotation(self, position_ids: Tensor) -> tuple:
        """What every block is given about positions beside its input; nothing where `embed` has added them."""
        return ()

    def reset_parameters(self) -> None:
        """As transformers draws GPT-2: N(0, 0.02) (OpenAI's code has 0.01 for positions); residual outputs over
        sqrt(2 n_layer) (section 2.3); biases 0."""
        if self.wte.weight.is_meta:  # only counted: there is nothing to fill, and it would take a while
            return
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
        """Hidden states after the final norm: [batch, seq, n_embd], or [batch, n_embd] at positions `read`: [batch].

        input_ids: [batch, seq]. attention_mask: [batch, cached + seq], 1 = real token, on whichever side the padding
        is; a batch padded on the right needs none. Positions count real tokens, so that padding changes nothing;
        transformers does so only if it is given the same position_ids. `read` spares the last block all other
        positions; it is for batches without a mask or a cache.
        end: stop before this block, and give what it would read, without the final norm: [batch, seq, n_embd], or
        [batch, 1, n_embd] with `read`. hidden: such states of these tokens, to go on from at block `first`.
        Raises ValueError for ids or a mask of the wrong shape, a token that the model does not have (a GPU only stops),
        more tokens than n_positions, `read` with a mask or a cache, or `first` without the states to go on from.
        """
        if read is not None and (attention_mask is not None or cache is not None):
            raise ValueError("read is for batches padded on the right, without attention_mask or cache")
        if first and hidden is None:
            raise ValueError(f"first={first} goes on from `hidden`, the states before that block; give them, too")
        batch, seq = batch_shape(input_ids)
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
        rotation = self.rotation(position_ids)

        try:
            x = self.embed(input_ids, position_ids) if hidden is None else hidden  # [batch, seq, n_embd]
        except IndexError:  # "index out of range in self"
            size, places = self.config.vocab_size, self.config.n_positions
            raise ValueError(f"input_ids must be 0 to {size - 1}, and position_ids 0 to {places - 1}") from None
        stop = len(self.blocks) if end is None else end
        for i in range(first, stop):
            block, last = self.blocks[i], read if i == stop - 1 else None
            if self.gradient_checkpointing and torch.is_grad_enabled() and cache is None:
                x = checkpoint(block, x, mask, None, last, *rotation, use_reentrant=False)
            else:
                x = block(x, mask, cache, last, *rotation)
        if cache is not None:
            cache.length += seq
        if end is not None:
            return x
        if read is None:
            return self.ln_f(x)
        return self.ln_f((x if first < stop or x.shape[1] == 1 else rows_at(x, read))[:, 0])

    @property
    def unembedding(self) -> Tensor:
        """The output layer's weights: [vocab_size, n_embd], the token embedding's own unless it is untied."""
        return self.wte.weight if self.output_weight is None else self.output_weight

    def logits(self, h: Tensor) -> Tensor:
        """[..., n_embd] -> [..., vocab_size]"""
        return linear(h, self.unembedding)

    def untie(self) -> None:
        """Give the output layer weights of its own to train, [vocab_size, n_embd], which start as what they were."""
        self.output_weight = nn.Parameter(self.unembedding.detach().clone())

    @classmethod
    def from_pretrained(cls, name: str | Path, *, depth: int | None = None) -> "Decoder":
        """Load a name or folder of this family, in eval mode: a hub name, a folder in the transformers layout, a .gguf
        file, or a model that comes with pip ("gpt2-mini", "smollm2-135m").

        depth: keep the lowest so many blocks, and the final norm after them. Raises FileNotFoundError for what is not
        there and ValueError for weights that do not fit.
        """
        folder = pretrained.find(name)
        config = cls.config_class.from_json(folder / "config.json")
        weights = pretrained.load(folder, config)  # first: it refuses a shape that the file does not have
        with torch.device("meta"):  # no memory and no time for an initialisation that is overwritten
            model = cls(config)
        model.load_state_dict(weights, strict=True, assign=True)
        if depth is not None:
            model.cut(depth)
        return model.requires_grad_(True).eval()

    def cut(self, depth: int) -> None:
        """Keep the lowest `depth` blocks. Raises ValueError for a depth that the model does not have."""
        if not isinstance(depth, int) or not 1 <= depth <= len(self.blocks):
            raise ValueError(
                f"depth={depth!r}: the model has {len(self.blocks)} blocks; possible: 1 to {len(self.blocks)}"
            )
        self.blocks = self.blocks[:depth]
        self.config = replace(self.config, n_layer=depth)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors, which transformers loads.

        dtype: of the numbers in the file; `from_pretrained` makes them float32 again. Raises ValueError while an
        adapter is attached: merge it first, or save it by itself.
        """
        pretrained.save(self, Path(folder), dtype)
