# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From GPT-2 to Llama: four changes to one block
#
# **The question.** Most language models of today are Llamas in all but name. How far is a Llama from the GPT-2 that you
# know?
#
# After this notebook you can
# - write RMSNorm and rotary positions, and say why each took the place of what GPT-2 has,
# - compute what a text's keys and values take in memory, and what grouping the heads saves,
# - read a gated feed-forward layer, and say why it is 8/3 as wide as the model and not 4 times,
# - put a Llama block together, and show that it computes what transformers' Llama computes.
#
# | | GPT-2 (2019) | Llama (2023) | section |
# |---|---|---|---|
# | norm | LayerNorm: mean off, scaled, shifted | RMSNorm: scaled | 1 |
# | positions | a learned vector added to each token | queries and keys turned by an angle | 2 |
# | keys and values | one of each for every query head | shared by groups of query heads (from Llama 2 on) | 3 |
# | feed-forward | $W_{\text{down}}\,\mathrm{gelu}(W_{\text{up}} x)$ | $W_{\text{down}}(\mathrm{silu}(W_{\text{gate}} x) \odot W_{\text{up}} x)$ | 4 |
# | biases | everywhere | nowhere | |
#
# Everything else is as it was: pre-norm blocks around a residual path, causal attention, an output layer that may be
# the token embedding. Needs notebook 01. It runs in about half a minute on one core.

# %% tags=["parameters"]
base_model: str = "smollm2-135m"  # a pretrained Llama that writes at the end; a folder or a hub name will do
prompt: str = "The movie was a complete waste of time, and I"  # what it continues
positions: int = 64  # of the figure of angles
theta: float = 100.0  # base of its angles; real models take 10,000 and more, for longer texts
seed: int = 0

# %%
import tempfile
from dataclasses import replace

import pandas as pd
import torch
import torch.nn.functional as F
import transformers

from gpt2lib import GPT2Config, Llama, LlamaConfig, load_base
from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.model.attention import CausalSelfAttention, KVCache
from gpt2lib.model.block import MLP
from gpt2lib.model.config import PUBLISHED
from gpt2lib.model.llama import GroupedAttention, LlamaBlock, SwiGLU, apply_rope, rotary_angles
from gpt2lib.report import figures

check = Verdicts()
_ = torch.manual_seed(seed)

# %% [markdown]
# ## 1. A norm without a mean
#
# LayerNorm takes the mean off a token's vector, divides by its standard deviation, scales by $g$ and shifts by $b$.
# RMSNorm divides by the root of the mean *square*, scales, and that is all (Zhang and Sennrich 2019):
#
# $$\mathrm{rms}(x) = \frac{x}{\sqrt{\tfrac1d \sum_i x_i^2 + \epsilon}} \odot g, \qquad x, g \in \mathbb{R}^d$$
#
# One pass over the numbers instead of two, $d$ parameters instead of $2d$. The squares are summed in float32 whatever
# the model computes in: a sum of bf16 numbers loses the small ones.
#
# <details><summary>Hint</summary>
#
# `x.square().mean(-1, keepdim=True)` has the shape that broadcasting needs, and `torch.rsqrt` is one over the root.
#
# </details>

# %% tags=["cases"]
x = torch.randn(2, 5, 8) + 0.5  # [batch, seq, n_embd]
g = 1 + 0.1 * torch.randn(8)  # [n_embd]
norm_cases = [
    (x.clone().requires_grad_(), g.clone().requires_grad_()),
    (1e-3 * x, g),
    (x.bfloat16(), torch.ones(8).bfloat16()),
]


# %% tags=["exercise"]
@exercise(
    "1 rms_norm",
    like=lambda x, weight: F.rms_norm(x.float(), weight.shape, weight.float(), 1e-5).to(x.dtype),
    on=norm_cases,
    look="what is averaged, where epsilon stands, and in which precision",
)
def rms_norm(x, weight, eps=1e-5):
    """[..., d], [d] -> [..., d], in the precision of x"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@rms_norm.mistake("the mean is taken off first, which is LayerNorm")
def rms_norm(x, weight, eps=1e-5):
    centred = x.float() - x.float().mean(-1, keepdim=True)
    return (centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


@rms_norm.mistake("the squares are summed and not averaged, so that a wider model has smaller numbers")
def rms_norm(x, weight, eps=1e-5):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


@rms_norm.mistake("epsilon stands outside the root")
def rms_norm(x, weight, eps=1e-5):
    wide = x.float()
    return (wide / (wide.square().mean(-1, keepdim=True).sqrt() + eps) * weight.float()).to(x.dtype)


@rms_norm.solution
def rms_norm(x, weight, eps=1e-5):
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)  # [..., 1]
    return (wide * scale * weight.float()).to(x.dtype)


# %% [markdown]
# **What is lost with the mean?** Of a vector's squared length $\sum_i x_i^2$, the part $d\,\bar x^2$ lies along the
# direction in which all numbers are equal: what LayerNorm takes away. Look how much that is in `gpt2-mini`, a small
# GPT-2 that this project trained, after each of its blocks.

# %%
mini, tokenizer = load_base("gpt2-mini")
ids = tokenizer("I was looking forward to this film, but the plot made no sense.", return_tensors="pt")["input_ids"]
shares = []
with torch.no_grad():
    for end in range(mini.config.n_layer + 1):
        h = mini(ids, end=end)  # [1, seq, n_embd], before block number `end`
        mean = h.mean(-1).square() * h.shape[-1] / h.square().sum(-1)  # [1, seq]
        shares.append(100 * mean.mean().item())
figures.curves(range(len(shares)), {"share": shares}, "blocks that have read the text", "% of the squared length")

# %%
centred = x - x.mean(-1, keepdim=True)
check.close("of vectors of mean 0 the two norms are one", rms_norm(centred, g), F.layer_norm(centred, (8,), g), 1e-5)
check("gpt2-mini keeps less than a hundredth of a token's squared length in its mean", max(shares) < 1, shares)

# %% [markdown]
# ## 2. Positions as angles
#
# GPT-2 adds a learned vector to the token at place $t$. It has none for place 1,025, and nothing tells it that places 7
# and 9 stand to each other as 107 and 109 do. Rotary positions (Su et al. 2021) add nothing. They *turn* the query and
# the key, pair by pair of their numbers, by an angle that grows with the place:
#
# $$\begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix} \;\mapsto\;
# \begin{pmatrix} \cos t\theta_i & -\sin t\theta_i \\ \sin t\theta_i & \cos t\theta_i \end{pmatrix}
# \begin{pmatrix} x_i \\ x_{i+d/2} \end{pmatrix}, \qquad \theta_i = \theta^{-2i/d}, \quad i = 0, \dots, \tfrac d2 - 1$$
#
# A turn changes no length, and the product of two turned vectors depends on the *difference* of their angles alone.
# First two numbers on a clock whose hand moves half a radian with each place:

# %%
q, k = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])


def turned(v, t, angle=0.5):
    """[2] -> [2], turned t times by the angle."""
    c, s = torch.tensor(t * angle).cos(), torch.tensor(t * angle).sin()
    return torch.stack([c * v[0] - s * v[1], s * v[0] + c * v[1]])


pairs = {f"query at {t + 3}, key at {t}": (turned(q, t + 3) @ turned(k, t)).item() for t in (0, 1, 10, 100)}
pd.Series(pairs, name="product").round(4).to_frame()

# %%
check(
    "a query and a key three places apart have one product, wherever", max(pairs.values()) - min(pairs.values()) < 1e-4
)

# %% [markdown]
# Now all pairs of a head at once. The first pair turns by a radian with each place, the last one hardly at all: fast
# hands tell neighbours apart, slow ones tell the beginning of a text from its end.
#
# <details><summary>Hint</summary>
#
# `torch.arange(0, d, 2) / d` are the exponents $2i/d$. Angles: `positions[:, None] * frequencies`, `[seq, d/2]`, which
# broadcasts against `[batch, heads, seq, d/2]`. The pairs are `x.chunk(2, -1)`: the first half of the numbers with the
# second.
#
# </details>

# %% tags=["cases"]
heads = torch.randn(2, 3, 6, 8, requires_grad=True)  # [batch, heads, seq, d]
rotate_cases = [(heads, torch.arange(6), 100.0), (heads.detach(), torch.tensor([0, 0, 1, 5, 9, 40]), 10_000.0)]


# %% tags=["exercise"]
@exercise(
    "2 rotate",
    like=lambda x, positions, theta: apply_rope(x, *rotary_angles(positions[None, None], x.shape[-1], theta)),
    on=rotate_cases,
    tolerance=1e-4,
    look="which numbers are a pair, which way they turn, and how fast",
)
def rotate(x, positions, theta):
    """[batch, heads, seq, d], [seq], base of the angles -> [batch, heads, seq, d]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
def sketch(x, positions, exponents, theta, sign=1):
    angles = positions[:, None] / theta**exponents
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - sign * b * angles.sin(), sign * a * angles.sin() + b * angles.cos()], -1)


@rotate.mistake("neighbours are a pair, 0 with 1 and 2 with 3, as in the paper and in llama.cpp's files")
def rotate(x, positions, theta):
    angles = positions[:, None] / theta ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    a, b = x[..., ::2], x[..., 1::2]
    turned = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(turned, -1).flatten(-2)


@rotate.mistake("it turns the other way round")
def rotate(x, positions, theta):
    return sketch(x, positions, torch.arange(0, x.shape[-1], 2) / x.shape[-1], theta, sign=-1)


@rotate.mistake("the exponents are i/d and not 2i/d, so that the slow hands are too fast")
def rotate(x, positions, theta):
    return sketch(x, positions, torch.arange(x.shape[-1] // 2) / x.shape[-1], theta)


@rotate.solution
def rotate(x, positions, theta):
    frequencies = theta ** -(torch.arange(0, x.shape[-1], 2) / x.shape[-1])  # [d/2]
    angles = positions[:, None] * frequencies  # [seq, d/2]
    a, b = x.chunk(2, -1)  # [batch, heads, seq, d/2] each
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


# %% [markdown]
# On the left the angles: a row a pair, a column a place. On the right one query and one key of 32 numbers: the query
# stands at three places, the key at every place before it. Before you look:

# %%
guess = predict(
    "A query stands at place 50, then at 60, and the key moves with it. Does their product change?", ["yes", "no"]
)(None)

# %%
cos, sin = rotary_angles(torch.arange(positions), 32, theta)  # [positions, 16]
q, k = torch.randn(2, 1, 1, 1, 32)
places, scores = torch.arange(positions), {}
at = lambda v, t: rotate(v, torch.tensor([t]), theta)[0, 0, 0]  # noqa: E731
for place in (positions // 2, 3 * positions // 4, positions - 1):
    scores[f"query at {place}"] = [(at(q, place) @ at(k, place - far)).item() for far in range(positions // 2)]
figures.rotary(cos.numpy(), scores)

# %%
lines = torch.tensor(list(scores.values()))  # [3, positions / 2]
moved = (lines - lines[0]).abs().max().item()
guess.was("no" if moved < 1e-3 else "yes", {"no": "Only the distance counts: the three lines are one.", "yes": ""})
check("the score of a query and a key depends on how far apart they stand, and on nothing else", moved < 1e-3, moved)
check("it does depend on that", lines[0].std() > 0.1)
check.close("a turn changes no length", rotate(heads, torch.arange(6), theta).norm(dim=-1), heads.norm(dim=-1), 1e-4)

# %% [markdown]
# Two consequences. Values are **not** turned, so what a token gives does not depend on where it stands. And since the
# angle is computed and not learned, a place beyond those of pretraining has one, too; whether the model can read it is
# another question.
#
# ## 3. Heads that share keys and values
#
# While a text grows, the keys and values of all earlier tokens are kept. Per token that is
#
# $$2 \cdot n_{\text{layer}} \cdot n_{\text{kv}} \cdot d_{\text{head}} \cdot 4 \text{ bytes (float32)},$$
#
# which for a model like SmolLM2-135M, with keys and values for each of its nine heads, would at four thousand tokens be
# more than the model itself. Grouped queries (Ainslie et al. 2023): the $n_{\text{head}}$ query heads stay, but groups
# of them ask the same keys and take the same values. Nine queries share three keys and values in SmolLM2-135M.

# %%
guess = predict("How many MB do the keys and values of 2,000 tokens take in SmolLM2-135M, in float32?")(None)

# %%
config = PUBLISHED["smollm2-135m"]
kinds = {"every head its own (9)": 9, "groups of three (3)": 3, "one for all (1)": 1}
sizes = {name: 2 * config.n_layer * n * config.head_dim * 4 for name, n in kinds.items()}  # bytes a token
guess.was(sizes["groups of three (3)"] * 2000 / 1e6, "Without grouping it would be three times that.", digits=0)
figures.cache_sizes(sizes, 2000)

# %% [markdown]
# The shapes: queries `[batch, 9, seq, 64]`, keys and values `[batch, 3, seq, 64]`. In the attention call each of the
# three is read by the next three queries; the cache never holds a copy.

# %%
small = LlamaConfig(n_layer=2, n_head=6, n_kv_head=2, n_embd=48, n_inner=128, vocab_size=100, n_positions=64)
grouped, x = GroupedAttention(small), torch.randn(2, 7, 48)
cos, sin = rotary_angles(torch.arange(7)[None, None], small.head_dim, small.rope_theta)  # [1, 1, seq, head_dim / 2]
q, k, v = (grouped.split_heads(layer(x)) for layer in (grouped.q, grouped.k, grouped.v))
print("q", list(q.shape), "k", list(k.shape), "v", list(v.shape))
k, v = apply_rope(k, cos, sin).repeat_interleave(3, 1), v.repeat_interleave(3, 1)  # [2, 6, 7, 8]
by_hand = F.scaled_dot_product_attention(apply_rope(q, cos, sin), k, v, is_causal=True)
by_hand = grouped.o(by_hand.transpose(1, 2).flatten(2))  # [2, 7, 48]

# %%
check.close("grouped attention is attention with each key and value used three times", grouped(x), by_hand, 1e-5)
plain = CausalSelfAttention(GPT2Config(n_layer=1, n_head=6, n_embd=48, vocab_size=100, n_positions=64))
own = GroupedAttention(replace(small, n_kv_head=6))
own.load_state_dict({name: p for name, p in plain.state_dict().items() if name.endswith("weight")})
for name, p in plain.named_parameters():
    p.data.mul_(not name.endswith("bias"))
unturned = own(x, None, None, None, torch.ones(1, 1, 7, 4), torch.zeros(1, 1, 7, 4))  # angle 0 everywhere
check.close("without sharing, angles and biases it is GPT-2's attention", unturned, plain(x), 1e-5)
cache = KVCache(64)
Llama(small)(torch.arange(7)[None], cache=cache)
kept = {tuple(t.shape[:2]) for layer in cache.kept.values() for t in layer}
check("the cache holds two heads of keys and values, not six", kept == {(1, 2)}, kept)

# %% [markdown]
# ## 4. A gate in the feed-forward layer
#
# GPT-2's layer computes $4d$ numbers, bends each with GELU, and mixes them. SwiGLU (Shazeer 2020) computes two sets:
# `up` says what might be written, `gate` how much of it:
#
# $$\mathrm{mlp}(x) = W_{\text{down}}\,\big(\mathrm{silu}(W_{\text{gate}}\,x) \odot W_{\text{up}}\,x\big), \qquad
# \mathrm{silu}(z) = \frac{z}{1 + e^{-z}}$$
#
# The product of two linear functions of $x$ is something that no single bend of one can give. Three matrices instead of
# two: to have the same $8 d^2$ parameters, the inside is $\tfrac83 d$ wide and not $4d$.

# %%
grid = torch.linspace(-4, 4, 200)
bends = {"gelu (GPT-2)": F.gelu(grid, approximate="tanh"), "silu": F.silu(grid)}
gated = {f"up gives {up:+d}": up * F.silu(grid) for up in (-2, -1, 1, 2)}
figures.gating(grid.numpy(), bends, gated)

# %%
mlp = SwiGLU(small)
inside = F.silu(x @ mlp.gate.weight.T) * (x @ mlp.up.weight.T)  # [2, 7, n_inner]
check.close("SwiGLU is the formula above", mlp(x), inside @ mlp.down.weight.T, 1e-5)
with torch.device("meta"):  # shapes alone
    gated, plain = SwiGLU(config), MLP(GPT2Config(n_head=9, n_embd=config.n_embd))  # both of SmolLM2's width
counts = [sum(p.numel() for p in layer.parameters() if p.dim() == 2) for layer in (gated, plain)]
check("SmolLM2's three matrices have as many numbers as GPT-2's two of its width", counts[0] == counts[1], counts)
check("SmolLM2-135M is 8/3 as wide inside", config.n_inner * 3 == config.n_embd * 8)

# %% [markdown]
# ## 5. The block, from your parts
#
# Your norm, your rotation, grouped attention, the gate: beside the library's block with the same weights.

# %%
block = LlamaBlock(small)
for norm in (block.ln_1, block.ln_2):
    torch.nn.init.normal_(norm.weight, 1, 0.1)


def my_block(x):
    """[batch, seq, n_embd] -> [batch, seq, n_embd]"""
    h, a = rms_norm(x, block.ln_1.weight), block.attn
    q, k, v = (a.split_heads(layer(h)) for layer in (a.q, a.k, a.v))
    q, k = (rotate(t, torch.arange(x.shape[1]), small.rope_theta) for t in (q, k))
    y = F.scaled_dot_product_attention(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), is_causal=True)
    x = x + a.o(y.transpose(1, 2).flatten(2))
    h = rms_norm(x, block.ln_2.weight)
    return x + block.mlp.down(F.silu(block.mlp.gate(h)) * block.mlp.up(h))


check.close("a block of your parts is the library's block", my_block(x), block(x), 1e-5, "llama.py")

# %% [markdown]
# And the whole model beside transformers' Llama, with large random weights so that nothing hides: nine heads, three of
# keys and values, padded on either side and not at all.

# %%
sizes = dict(num_hidden_layers=2, num_attention_heads=9, num_key_value_heads=3, hidden_size=144, intermediate_size=384)
sizes |= dict(vocab_size=300, max_position_embeddings=64, rope_theta=100_000.0, tie_word_embeddings=True)
theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
with torch.no_grad():
    for p in theirs.parameters():
        p += 0.1 * torch.randn_like(p)
folder = tempfile.mkdtemp()
theirs.save_pretrained(folder)
ours = Llama.from_pretrained(folder)

# %%
batch, right = torch.randint(0, 300, (3, 20)), torch.ones(3, 20, dtype=torch.long)
right[0, 12:] = 0
for name, mask in {
    "without padding": torch.ones_like(right),
    "padded right": right,
    "padded left": right.flip(1),
}.items():
    place = (mask.cumsum(1) - 1).clamp(min=0)  # transformers counts padding unless it is told
    with torch.no_grad():
        expected = theirs(batch, attention_mask=mask, position_ids=place).logits[mask.bool()]
        seen = ours.logits(ours(batch, mask))[mask.bool()]
    check.close(f"logits agree with transformers' {name}", seen, expected, 1e-4, "llama.py")
written = ours.generate(batch, max_new_tokens=20, temperature=0)
again = theirs.generate(batch, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
check("and the text is the same, token for token, with a cache of three heads", torch.equal(written, again))

# %% [markdown]
# ## 6. One that has read
#
# SmolLM2-135M (Ben Allal et al. 2025) is exactly this, thirty blocks of it. Its parameters, on paper: the embedding
# $V d$; in each block $2 d^2$ for query and output, $2 d^2\, n_{\text{kv}} / n_{\text{head}}$ for keys and values,
# $3 d\, n_{\text{inner}}$, two norms; a last norm.

# %%
c, d = PUBLISHED["smollm2-135m"], PUBLISHED["smollm2-135m"].n_embd
paper = c.vocab_size * d + c.n_layer * (2 * d * d + 2 * d * d * c.n_kv_head // c.n_head + 3 * d * c.n_inner + 2 * d) + d
with torch.device("meta"):  # shapes without memory
    built = sum(p.numel() for p in Llama(c).parameters())
print(f"on paper {paper:,}; GPT-2 small has {PUBLISHED['gpt2'].parameters:,}")
check("the paper count of SmolLM2-135M is the built model's", paper == built == 134_515_008, (paper, built))

# %%
try:
    model, tokenizer = load_base(base_model)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    print(tokenizer.decode(model.generate(ids, max_new_tokens=16, temperature=0)[0]))
except FileNotFoundError as error:  # all above needs no weights
    print(error)

# %% [markdown]
# ## What we saw, and what it does not show
#
# Four changes, each a few lines: a norm that does less, positions that are angles, keys and values that are shared, a
# gate. Every adapter, head and trainer of this course works on both families, since both have `blocks`, `attn.q`,
# `mlp.up` under one name; a Llama has the target `gate` besides.
#
# That a Llama is *better* is not shown here. Each change was made for a reason (speed, memory, longer texts, a little
# loss), but what a model knows is first of all what it has read: SmolLM2-135M two trillion tokens, GPT-2 a text of some
# ten billion. What reading is worth is notebook 06.
#
# **To think about.** Why are values not turned? What would a model do whose `theta` is 1? What does a cache for 100
# users at once cost, with grouping and without?

# %% tags=["nbval-check-output"]
check.table()

# %% [markdown]
# | paper | equation or section | file and class here | where we deviate |
# |---|---|---|---|
# | [Zhang and Sennrich 2019](https://arxiv.org/abs/1910.07467) | eq. 4, RMSNorm | [model/llama.py](../gpt2lib/model/llama.py), `RMSNorm` | $\epsilon$ under the root, as in Llama's code |
# | [Su et al. 2021](https://arxiv.org/abs/2104.09864) | section 3.2, rotary positions | the same, `apply_rope` | pairs are $i$ and $i + d/2$, as in transformers |
# | [Ainslie et al. 2023](https://arxiv.org/abs/2305.13245) | section 2, grouped queries | the same, `GroupedAttention` | none |
# | [Shazeer 2020](https://arxiv.org/abs/2002.05202) | SwiGLU | the same, `SwiGLU` | no biases |
#
# **References.** [Touvron et al. 2023](https://arxiv.org/abs/2302.13971) (Llama) and
# [2023b](https://arxiv.org/abs/2307.09288) (Llama 2); [Zhang and Sennrich 2019](https://arxiv.org/abs/1910.07467)
# (RMSNorm); [Su et al. 2021](https://arxiv.org/abs/2104.09864) (rotary positions); Shazeer
# [2019](https://arxiv.org/abs/1911.02150) (one key and value for all) and [2020](https://arxiv.org/abs/2002.05202)
# (gated layers); [Ainslie et al. 2023](https://arxiv.org/abs/2305.13245) (grouped queries); [Ben Allal et al.
# 2025](https://arxiv.org/abs/2502.02737) (SmolLM2).
