"""Graph LoRA: LoRA, and attention over a graph of similar tokens beside every block (after arXiv 2504.10490)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2lib.adapters.base import AdapterLayer, blocks_in
from gpt2lib.adapters.lora import LowRank
from gpt2lib.common.checks import check_count, check_divides
from gpt2lib.model.attention import KVCache, causal_mask, rows_at
from gpt2lib.model.decoder import Decoder


@dataclass(frozen=True)
class GraphLoRA(LowRank, method="graph-lora"):
    """LoRA on the targets, and h <- h + P_up GAT(P_down h) on the output h of every block.

    P_down: [graph_rank, n_embd]; P_up: [n_embd, graph_rank], 0 at first. A token t has edges to itself and to those
    tokens u <= t (never padding) whose cosine similarity cos(h_t, h_u) is among its `top_k` largest and at least
    `threshold`; either may be None. Over its edges GAT is GATv2 with `heads` heads (Brody et al. 2021, arXiv
    2105.14491, equation 7): e_tu = a^T LeakyReLU(W_l g_t + W_r g_u), whose pairwise term takes batch seq^2 graph_rank
    numbers; or, with scores="dot", the scaled product of W_l g_t and W_r g_u, for long sequences, without it.
    Trained: LoRA's parameters and, per block, 2 n_embd graph_rank + 2 graph_rank^2 (+ graph_rank for GATv2's a).
    fully_connected=True is the published code's graph: every token joined with every other, later ones and padding too.
    It leaks the future into a causal model, and is here to show that. None of it merges.
    """

    graph_rank: int = 8
    heads: int = 2
    top_k: int | None = 8
    threshold: float | None = None
    scores: str = "gatv2"
    fully_connected: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_count("graph_rank", self.graph_rank)
        check_count("heads", self.heads)
        check_divides("heads", self.heads, "graph_rank", self.graph_rank)
        if self.top_k is not None:
            check_count("top_k", self.top_k)
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold is a cosine, in [-1, 1], not {self.threshold!r}")
        if self.scores not in ("gatv2", "dot"):
            raise ValueError(f"scores must be 'gatv2' or 'dot', not {self.scores!r}")

    def install(self, model: Decoder) -> None:
        if self.graph_rank > model.config.n_embd:
            raise ValueError(f"graph_rank={self.graph_rank} is above the width; possible: 1 to {model.config.n_embd}")
        super().install(model)
        for i in blocks_in(self.layers, model.config.n_layer):
            model.blocks[i] = GraphBlock(model.blocks[i], self)


class GraphBlock(AdapterLayer):
    """A frozen block (with LoRA inside), and graph attention on its output."""

    def __init__(self, base: nn.Module, spec: GraphLoRA):
        super().__init__(base)
        d, r, device = base.ln_1.weight.numel(), spec.graph_rank, base.ln_1.weight.device
        self.spec = spec
        self.down = nn.Parameter(torch.empty(r, d, device=device))
        self.left = nn.Parameter(torch.empty(r, r, device=device))
        self.right = nn.Parameter(torch.empty(r, r, device=device))
        self.up = nn.Parameter(torch.zeros(d, r, device=device))
        for weight in (self.down, self.left, self.right):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.a = (
            nn.Parameter(torch.randn(spec.heads, r // spec.heads, device=device)) if spec.scores == "gatv2" else None
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        read: Tensor | None = None,
        *rotation: Tensor,
    ) -> Tensor:
        """As the block's own forward; the graph needs every position, so `read` only chooses among them."""
        h = self.base(x, mask, cache, None, *rotation)
        attention, values = self.attend(h, mask, cache)
        o = (attention @ values).transpose(1, 2).flatten(2)  # [batch, seq, graph_rank]
        h = h + F.linear(o, self.up).to(h.dtype)
        return h if read is None else rows_at(h, read)

    def attend(self, h: Tensor, mask: Tensor | None, cache: KVCache | None = None) -> tuple[Tensor, Tensor]:
        """What each token takes from each, [batch, heads, seq, cached + seq], rows summing to 1; and the values they
        take, [batch, heads, cached + seq, graph_rank / heads]."""
        g = F.linear(h.to(self.down.dtype), self.down)  # [batch, seq, graph_rank]
        left, right = F.linear(g, self.left), F.linear(g, self.right)
        unit = F.normalize(h.detach().float(), dim=-1)  # [batch, seq, n_embd]
        everyone, all_units = (right, unit) if cache is None else cache.extend(self, right, unit)
        edges = self.edges(unit, all_units, mask)  # [batch, seq, cached + seq]
        left, everyone = (t.unflatten(-1, (self.spec.heads, -1)).transpose(1, 2) for t in (left, everyone))
        if self.a is None:
            scores = left @ everyone.mT / left.shape[-1] ** 0.5  # [batch, heads, seq, cached + seq]
        else:
            pairs = F.leaky_relu(left[:, :, :, None] + everyone[:, :, None], 0.2)
            scores = (pairs * self.a[:, None, None]).sum(-1)
        return scores.float().masked_fill(~edges[:, None], -torch.inf).softmax(-1).to(everyone.dtype), everyone

    @torch.no_grad()
    def edges(self, unit: Tensor, all_units: Tensor, mask: Tensor | None) -> Tensor:
        """True where t takes from u: [batch, seq, cached + seq]. unit: [batch, seq, n_embd], of length 1."""
        spec, seq, total = self.spec, unit.shape[1], all_units.shape[1]
        similarity = unit @ all_units.mT  # [batch, seq, cached + seq]
        if spec.fully_connected:
            return torch.ones_like(similarity, dtype=torch.bool)
        allowed = causal_mask(seq, total - seq, unit.device) if mask is None else mask[:, 0]
        similarity = similarity.masked_fill(~allowed, -torch.inf)
        chosen = similarity > -torch.inf
        if spec.threshold is not None:
            chosen &= similarity >= spec.threshold
        if spec.top_k is not None and spec.top_k < total:
            chosen &= similarity >= similarity.topk(spec.top_k).values[..., -1:]
        return chosen | torch.eye(total, dtype=torch.bool, device=unit.device)[total - seq :]
