"""The feed-forward layer and the pre-norm block of GPT-2."""

import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.model.attention import CausalSelfAttention, KVCache, rows_at
from gpt2lib.model.config import GPT2Config
from gpt2lib.model.linear import Linear


class MLP(nn.Module):
    """down(gelu(up(x))), four times as wide inside: 8 d^2 + 5 d parameters.

    GPT-2 was trained with the tanh form of GELU; the exact form loads the same weights and is wrong by up to 5e-4.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, n_embd] -> [batch, seq, n_embd]"""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """x + attn(ln_1(x)), then x + mlp(ln_2(x)): the norm stands before each layer and the residual path stays clear."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, read: Tensor | None = None
    ) -> Tensor:
        """[batch, seq, n_embd] -> [batch, seq, n_embd], or [batch, 1, n_embd] for the positions `read`: [batch]"""
        update = self.dropout(self.attn(self.ln_1(x), mask, cache, read))
        x = (x if read is None else rows_at(x, read)) + update
        return x + self.dropout(self.mlp(self.ln_2(x)))
