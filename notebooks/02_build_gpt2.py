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
# # Build it: your own GPT-2
#
# **The question.** Notebook 01 took GPT-2 apart. Can you put it together again, from empty functions to a model that
# loads real weights and writes?
#
# After this notebook you have written, and checked against the library, every part of a GPT-2:
# - LayerNorm, GELU, causal attention with a cache, the block, the model, its loss,
# - a byte-pair tokenizer that learns its merges,
# - a training loop, sampling, generation with a cache, and the loading of a checkpoint.
#
# **How it goes.** As in notebook 01, with one difference: what you wrote is used by all that follows. At the end, the
# model is *yours*.
#
# Needs notebook 01. It runs in about half a minute on one core; writing it takes an afternoon.

# %% tags=["parameters"]
base_model: str = "gpt2-mini"  # the checkpoint that is loaded at the end; a GPT-2 in the transformers layout
merges: int = 150  # pairs that the tokenizer merges
steps: int = 120  # updates of the training loop
lr: float = 5e-3  # its highest learning rate
prompt: str = "The story is"  # what the model continues at the end
seed: int = 0

# %%
import math
import re
from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from gpt2lib import GPT2, AdamW, GPT2Config
from gpt2lib.course import Verdicts, build, exercise, predict, widgets
from gpt2lib.data import toy
from gpt2lib.model import pretrained
from gpt2lib.model.attention import CausalSelfAttention, causal_mask
from gpt2lib.model.base import load_base
from gpt2lib.model.block import MLP as LibraryMLP
from gpt2lib.model.block import Block as LibraryBlock
from gpt2lib.report import figures

check = Verdicts()
_ = torch.manual_seed(seed)


# %% [markdown]
# ## 1. Two functions to warm up
#
# ### GELU
#
# The non-linearity of the feed-forward layer lets large numbers pass, stops very negative ones, and is smooth in
# between. GPT-2 was trained with this form of it:
#
# $$\mathrm{gelu}(x) = \tfrac12 x \left(1 + \tanh\!\big(\sqrt{2/\pi}\,(x + 0.044715\,x^3)\big)\right)$$
#
# <details><summary>Hint</summary>
#
# `torch.tanh` and `math.pi`. Everything works element by element, so no shape is needed.
#
# </details>


# %% tags=["exercise"]
@exercise(
    "1 gelu",
    like=lambda x: F.gelu(x, approximate="tanh"),
    on=[(torch.linspace(-4, 4, 9, requires_grad=True),), (torch.randn(2, 3),)],
    look="compare with the formula term by term",
)
def gelu(x):
    """[...] -> [...]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@gelu.mistake("it is the exact form, x times the normal distribution function, with which GPT-2 was not trained")
def gelu(x):
    return F.gelu(x)


@gelu.solution
def gelu(x):
    return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))


# %% [markdown]
# ### LayerNorm
#
# It brings each token's vector to mean 0 and variance 1, *over its own numbers*, then scales and shifts them by two
# learned vectors $g$ and $b$. What the other tokens of the batch are plays no part.
#
# $$\mathrm{ln}(x) = g \odot \frac{x - \bar x}{\sqrt{\tfrac1d \sum_i (x_i - \bar x)^2 + \epsilon}} + b,
# \qquad x \in \mathbb{R}^d$$
#
# <details><summary>Hint</summary>
#
# `x.mean(-1, keepdim=True)` keeps the shape that broadcasting needs. `x.var` divides by $d - 1$ unless it is told
# `correction=0`.
#
# </details>

# %% tags=["cases"]
x = 3 * torch.randn(2, 5, 8) + 1  # [batch, seq, n_embd]
g, b = 1 + 0.1 * torch.randn(8), 0.1 * torch.randn(8)  # [n_embd]
norm_cases = [(x.requires_grad_(), g.requires_grad_(), b.requires_grad_()), (1e-3 * x.detach(), g.detach(), b.detach())]


# %% tags=["exercise"]
@exercise(
    "2 layer_norm",
    like=lambda x, weight, bias: F.layer_norm(x, weight.shape, weight, bias, 1e-5),
    on=norm_cases,
    look="over which dimension is the mean, what divides the variance, and where does epsilon stand",
)
def layer_norm(x, weight, bias, eps=1e-5):
    """[..., d], [d], [d] -> [..., d]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@layer_norm.mistake("the variance divides by d - 1, as torch.var does unless it is told correction=0")
def layer_norm(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() + bias


@layer_norm.mistake("epsilon stands outside the root")
def layer_norm(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + eps) + bias


@layer_norm.solution
def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)  # [..., d]
    variance = centred.square().mean(-1, keepdim=True)  # [..., 1]
    return weight * centred / (variance + eps).sqrt() + bias


# %%
with torch.no_grad():
    y = layer_norm(x, torch.ones(8), torch.zeros(8))
print(
    "x",
    list(x.shape),
    "-> mean of the first token",
    round(x[0, 0].mean().item(), 2),
    "-> after the norm",
    abs(round(y[0, 0].mean().item(), 2)),
)

# %%
check.close("after LayerNorm every token has mean 0", y.mean(-1), torch.zeros(2, 5), 1e-5)
check.close("and variance 1", y.var(-1, correction=0), torch.ones(2, 5), 1e-4)


# %% [markdown]
# ## 2. Attention that sees no future
#
# Token $t$ mixes the values $v_u$ of the tokens $u \le t$, by how well their keys fit its query. In matrices, with $Q$:
# `[new, d]` and $K, V$: `[all, d]`,
#
# $$Y = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt d} + M\right) V,
# \qquad M_{tu} = \begin{cases} 0 & u \text{ is not later than } t \\ -\infty & \text{else.} \end{cases}$$
#
# One twist prepares the cache of section 10: there may be **more keys than queries**. The queries then belong to the
# *last* tokens; for 5 tokens of which 2 are new, token 3 sees the first four and token 4 all five:
#
# ```
#            key 0  1  2  3  4
# query 3:       x  x  x  x  .
# query 4:       x  x  x  x  x
# ```
#
# <details><summary>Hint</summary>
#
# `torch.ones(new, all, dtype=torch.bool).triu(k)` is True on and above the k-th diagonal. Which k marks the later
# tokens when `new == all`, and which when two of five are new? Then `scores.masked_fill(later, -torch.inf)`.
#
# </details>


# %% tags=["cases"]
def library_attend(q, k, v):
    """PyTorch's kernel with the library's mask."""
    new, everything = q.shape[-2], k.shape[-2]
    mask = causal_mask(new, everything - new, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


q, k, v = (torch.randn(2, 5, 4, requires_grad=True) for _ in "qkv")  # [batch, all, d]
attend_cases = [(q, k, v), (q[:, 3:].detach(), k.detach(), v.detach()), (q[:, 4:].detach(), k.detach(), v.detach())]


# %% tags=["exercise"]
@exercise(
    "3 attend", like=library_attend, on=attend_cases, look="the scale, the mask, and what it hides from the last token"
)
def attend(q, k, v):
    """[..., new, d], [..., all, d], [..., all, d] -> [..., new, d]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@attend.mistake("the scores are not divided by the root of d")
def attend(q, k, v):
    later = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1 + k.shape[-2] - q.shape[-2])
    return (q @ k.mT).masked_fill(later, -torch.inf).softmax(-1) @ v


@attend.mistake("the first of the new tokens is taken for the first of all, so that it may see only itself")
def attend(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


@attend.mistake("the mask comes after the softmax: the weights of a row no longer sum to 1")
def attend(q, k, v):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return weights.tril(k.shape[-2] - q.shape[-2]) @ v


@attend.solution
def attend(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5  # [..., new, all]
    new, everything = scores.shape[-2:]
    later = torch.ones(new, everything, dtype=torch.bool).triu(1 + everything - new)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v  # [..., new, d]


# %% [markdown]
# What your function weighs becomes visible when the values are the unit vectors: then $Y$ *is* the pattern of weights.

# %%
with torch.no_grad():
    square = attend(q, k, torch.eye(5).expand(2, 5, 5))  # [batch, new, all]
    two_new = attend(q[:, 3:], k, torch.eye(5).expand(2, 5, 5))
print("all tokens", list(square.shape), "and the last two of them", list(two_new.shape))
figures.attention_maps(square[:1].numpy(), [f"token {i}" for i in range(5)])

# %%
check.close("no weight lies on a later token", square.triu(1), torch.zeros(2, 5, 5), 0)
check.close("the last two tokens see the same alone as in the crowd", two_new, square[:, 3:], 1e-6)


# %% [markdown]
# ## 3. Heads
#
# A head attends in a slice of the width. With the heads as a dimension of their own, your `attend` serves all of them
# at once: it treats whatever stands left of the last two dimensions alike. So a tensor `[batch, seq, n_embd]` becomes
# `[batch, n_head, seq, head_dim]`, head 0 with the first `head_dim` numbers of every token, and comes back.
#
# <details><summary>Hint</summary>
#
# First split the last dimension (`x.unflatten(-1, (n_head, -1))`), then exchange two dimensions. A plain `view` to the
# final shape has the right shape and the wrong numbers.
#
# </details>


# %% tags=["exercise"]
@exercise(
    "4 split_heads",
    like=lambda x, n: x.unflatten(-1, (n, -1)).transpose(1, 2),
    on=[(torch.randn(2, 5, 8), 4), (torch.randn(1, 3, 6), 2)],
)
def split_heads(x, n_head):
    """[batch, seq, n_embd] -> [batch, n_head, seq, head_dim]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@split_heads.mistake("the numbers are read in order into the final shape, which mixes tokens with heads")
def split_heads(x, n_head):
    return x.reshape(x.shape[0], n_head, x.shape[1], -1)


@split_heads.solution
def split_heads(x, n_head):
    batch, seq, n_embd = x.shape
    return x.view(batch, seq, n_head, n_embd // n_head).transpose(1, 2)


# %% [markdown]
# ### The attention layer, with a cache
#
# Four linear layers $q, k, v, o$ around `attend`. When a text grows token by token, the keys and values of the earlier
# tokens stay what they were, since no token sees a later one. The layer therefore returns them beside its output, and
# takes them back at the next call: **`past`** is the pair of keys and values of all earlier tokens, or None at the
# beginning.
#
# The constructor is given: its names are those of the library's layer, whose weights the check copies into yours.
#
# <details><summary>Hint</summary>
#
# Project, split into heads, and put the past in front: `torch.cat([past[0], k], dim=2)`. Attend. Join the heads
# (`transpose(1, 2)`, then `flatten(2)`), and apply `self.o`. Return the output and `(k, v)` *with* the past in them.
#
# </details>

# %% tags=["cases"]
config = GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=100, n_positions=64)
x = torch.randn(2, 7, 32)  # [batch, seq, n_embd]
try_attention = build.beside(config, CausalSelfAttention(config), x, first=4)


# %% tags=["exercise"]
@exercise("5 Attention", like=build.recomputing(CausalSelfAttention), run=try_attention)
class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, d = config.n_head, config.n_embd
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x, past=None):
        """[batch, new, n_embd] -> [batch, new, n_embd], and the keys and values of all tokens so far"""


# %% jupyter={"source_hidden": true} tags=["solution"]
class Parts(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, d = config.n_head, config.n_embd
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))


@Attention.mistake("the past is returned without the earlier tokens or never put in front")
class Attention(Parts):
    def forward(self, x, past=None):
        q, k, v = (split_heads(layer(x), self.n_head) for layer in (self.q, self.k, self.v))
        return self.o(attend(q, k, v).transpose(1, 2).flatten(2)), (k, v)


@Attention.mistake("the last layer, o, is left out")
class Attention(Parts):
    def forward(self, x, past=None):
        q, k, v = (split_heads(layer(x), self.n_head) for layer in (self.q, self.k, self.v))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        return attend(q, k, v).transpose(1, 2).flatten(2) + 0 * self.o(x), (k, v)


@Attention.solution
class Attention(Parts):
    def forward(self, x, past=None):
        q, k, v = (split_heads(layer(x), self.n_head) for layer in (self.q, self.k, self.v))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)  # [batch, n_head, all, head_dim]
        y = attend(q, k, v)  # [batch, n_head, new, head_dim]
        return self.o(y.transpose(1, 2).flatten(2)), (k, v)  # [batch, new, n_embd]


# %% [markdown]
# ## 4. The block
#
# A block adds to what passes through it, twice, and normalises **before** each layer:
#
# $$x \leftarrow x + \mathrm{attn}(\mathrm{ln}_1(x)),
# \qquad x \leftarrow x + W_{\text{down}}\,\mathrm{gelu}(W_{\text{up}}\,\mathrm{ln}_2(x))$$
#
# Your functions become layers here, with the names that the library's have.


# %% tags=["cases"]
class LayerNorm(nn.Module):
    """Your `layer_norm` with its two learned vectors."""

    def __init__(self, d):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias)


class MLP(nn.Module):
    """Your `gelu` between two linear layers, four times as wide inside."""

    def __init__(self, config):
        super().__init__()
        self.up, self.down = nn.Linear(config.n_embd, 4 * config.n_embd), nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x):
        return self.down(gelu(self.up(x)))


try_block = build.beside(config, LibraryBlock(config), x, first=4)


# %% [markdown]
# <details><summary>Hint</summary>
#
# Two lines, and the `past` of the attention is returned as it comes.
#
# </details>


# %% tags=["exercise"]
@exercise(
    "6 Block",
    like=build.recomputing(LibraryBlock),
    run=try_block,
    look="which norm stands where, and to what each update is added",
)
class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.attn = LayerNorm(config.n_embd), Attention(config)
        self.ln_2, self.mlp = LayerNorm(config.n_embd), MLP(config)

    def forward(self, x, past=None):
        """[batch, new, n_embd] -> [batch, new, n_embd], and the attention's past"""


# %% jupyter={"source_hidden": true} tags=["solution"]
class Four(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.attn = LayerNorm(config.n_embd), Attention(config)
        self.ln_2, self.mlp = LayerNorm(config.n_embd), MLP(config)


@Block.mistake("the norm comes after each sum, as in the first transformer, and not before each layer")
class Block(Four):
    def forward(self, x, past=None):
        update, past = self.attn(x, past)
        x = self.ln_1(x + update)
        return self.ln_2(x + self.mlp(x)), past


@Block.mistake("the second update is added to the block's input: that of the attention is lost")
class Block(Four):
    def forward(self, x, past=None):
        update, past = self.attn(self.ln_1(x), past)
        return x + self.mlp(self.ln_2(x + update)), past


@Block.solution
class Block(Four):
    def forward(self, x, past=None):
        update, past = self.attn(self.ln_1(x), past)
        x = x + update
        return x + self.mlp(self.ln_2(x)), past


# %%
check.close("your feed-forward layer is the library's", *build.same_weights(MLP(config), LibraryMLP(config), x), 1e-5)

# %% [markdown]
# ## 5. The model
#
# Token embedding plus position embedding, the blocks, a last norm; the logits are the products with the token embedding
# once more (*tied* output layer). The `past` of the model is the list of its blocks' pasts. The new tokens' **positions
# go on** where the past ends.
#
# <details><summary>Hint</summary>
#
# How many tokens are past? `past[0][0].shape[2]`. Then `torch.arange(start, start + new)` are the positions. Tied means
# `x @ self.wte.weight.T`.
#
# </details>

# %% tags=["cases"]
ids = torch.randint(0, 100, (2, 7))  # [batch, seq]
try_model = build.beside(config, GPT2(config), ids, first=4)


# %% tags=["exercise"]
@exercise("7 GPT", like=build.recomputing(build.LibraryGPT), run=try_model)
class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd)

    def forward(self, ids, past=None):
        """[batch, new] -> logits [batch, new, vocab_size], and the list of the blocks' pasts"""


# %% jupyter={"source_hidden": true} tags=["solution"]
class Stack(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd)

    def run(self, ids, past, start):
        x = self.wte(ids) + self.wpe(torch.arange(start, start + ids.shape[1]))  # [batch, new, n_embd]
        kept = []
        for block, before in zip(self.blocks, past or [None] * len(self.blocks), strict=True):
            x, after = block(x, before)
            kept.append(after)
        return x, kept


@GPT.mistake("the positions begin at 0 again after the past")
class GPT(Stack):
    def forward(self, ids, past=None):
        x, kept = self.run(ids, past, 0)
        return self.ln_f(x) @ self.wte.weight.T, kept


@GPT.mistake("the last norm is left out")
class GPT(Stack):
    def forward(self, ids, past=None):
        x, kept = self.run(ids, past, 0 if past is None else past[0][0].shape[2])
        return x @ self.wte.weight.T + 0 * self.ln_f(x).sum(), kept


@GPT.solution
class GPT(Stack):
    def forward(self, ids, past=None):
        x, kept = self.run(ids, past, 0 if past is None else past[0][0].shape[2])
        return self.ln_f(x) @ self.wte.weight.T, kept  # [batch, new, vocab_size]


# %% [markdown]
# ## 6. The loss
#
# The logits at position $t$ are the model's opinion on token $t + 1$. The loss is the mean, over all tokens that have a
# predecessor, of minus the logarithm of the probability that the model gave them:
#
# $$\ell = -\frac{1}{B (S-1)} \sum_{b,\,t < S} \log \mathrm{softmax}(z_{b,t})_{\,x_{b,t+1}}$$
#
# <details><summary>Hint</summary>
#
# $\log \mathrm{softmax}(z)_i = z_i - \log \sum_j e^{z_j}$: `logits.logsumexp(-1)` computes the second part without
# overflow. `logits.gather(-1, ids[..., None])` picks one logit for each token. Which slices of `logits` and of `ids`
# belong together?
#
# </details>


# %% tags=["cases"]
def library_loss(logits, ids):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


loss_cases = [(torch.randn(2, 7, 100, requires_grad=True), ids), (200 * torch.randn(2, 7, 100), ids)]


# %% tags=["exercise"]
@exercise("8 loss", like=library_loss, on=loss_cases, look="which logits speak of which token")
def language_loss(logits, ids):
    """[batch, seq, vocab_size], [batch, seq] -> the mean loss in nats"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@language_loss.mistake("each token is predicted by its own logits: the model has only to copy what it sees")
def language_loss(logits, ids):
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


@language_loss.mistake("the exponentials overflow for large logits: subtract the largest first, or use logsumexp")
def language_loss(logits, ids):
    probability = logits[:, :-1].exp() / logits[:, :-1].exp().sum(-1, keepdim=True)
    return -probability.gather(-1, ids[:, 1:, None]).log().mean()


@language_loss.solution
def language_loss(logits, ids):
    logits, targets = logits[:, :-1], ids[:, 1:, None]  # [batch, seq - 1, vocab_size], [batch, seq - 1, 1]
    chosen = logits.gather(-1, targets).squeeze(-1)  # [batch, seq - 1]
    return (logits.logsumexp(-1) - chosen).mean()


# %% [markdown]
# **Predict, then run.** A fresh GPT-2 of 100 tokens, its weights drawn as GPT-2's were (normal, 0.02): what is its loss
# on random tokens?

# %%
fresh = predict("The loss of an untrained model with a vocabulary of 100 tokens, in nats?")(None)

# %%
model = GPT(config)
model.load_state_dict(GPT2(config).state_dict())  # the library's initialisation
with torch.no_grad():
    untrained = language_loss(model(ids)[0], ids).item()
fresh.was(
    untrained,
    "It knows nothing and gives each of the V tokens about the same chance, 1 / V: the loss is about log V = log 100 = "
    "4.61.",
    digits=1,
)

# %%
check("an untrained model's loss is log V within 0.1", abs(untrained - math.log(100)) < 0.1, untrained)

# %% [markdown]
# ## 7. A tokenizer that learns
#
# Byte-pair encoding begins with single letters, and merges the **most frequent pair of neighbours** into a new symbol,
# again and again. Frequent words end up as one symbol; rare ones stay in pieces. Merges never cross the border of a
# word.
#
# First one merge. From left to right, every occurrence of the pair becomes one symbol: with `("l", "o")`,
# `["l", "o", "l", "o", "w"]` becomes `["lo", "lo", "w"]`.
#
# <details><summary>Hint</summary>
#
# Walk with an index: at a match append the joined symbol and go on by two, otherwise by one. `a a a` with the pair
# `(a, a)` is `aa a`: symbols that were merged are used up.
#
# </details>

# %% tags=["cases"]
merge_cases = [
    (list("lolow"), ("l", "o")),
    (list("aaaaa"), ("a", "a")),
    (["lo", "w", "er"], ("w", "er")),
    (["x"], ("x", "y")),
]


# %% tags=["exercise"]
@exercise("9 merge", on=merge_cases, digest="a39bc232cc4d")
def merge(symbols, pair):
    """A list of symbols, and a pair of them -> the list with every occurrence of the pair joined"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@merge.mistake("a symbol that was merged already is used again")
def merge(symbols, pair):
    joined = []
    for i, symbol in enumerate(symbols):
        match = tuple(symbols[i : i + 2]) == pair
        joined += [symbol + symbols[i + 1]] if match else [symbol] if tuple(symbols[i - 1 : i + 1]) != pair else []
    return joined


@merge.mistake("only the first occurrence is joined")
def merge(symbols, pair):
    for i in range(len(symbols) - 1):
        if tuple(symbols[i : i + 2]) == pair:
            return [*symbols[:i], "".join(pair), *symbols[i + 2 :]]
    return symbols


@merge.solution
def merge(symbols, pair):
    joined, i = [], 0
    while i < len(symbols):
        match = tuple(symbols[i : i + 2]) == pair
        joined.append("".join(pair) if match else symbols[i])
        i += 2 if match else 1
    return joined


# %% [markdown]
# ### Learning the merges
#
# From a dictionary of words and how often each occurs: count every pair of neighbours (a word that occurs ten times
# counts ten times), merge the most frequent pair everywhere, and repeat. The answer is the list of pairs in their
# order. The check's words have no ties; break those of other texts as you like.
#
# <details><summary>Hint</summary>
#
# Keep `pieces = {word: list(word)}`. A `Counter` over `pairwise(symbols)`, and `counts.most_common(1)`. Stop early when
# no pair is left.
#
# </details>


# %% tags=["cases"]
def words_of(text):
    """Pieces that merges may not cross: a word with the space before it, or one other character."""
    return re.findall(r" ?\w+|\S|\s", text)


verses = toy.corpus(seed=1, documents=300)["poetry"]
counted = Counter(word for verse in verses for word in words_of(verse))


# %% tags=["exercise"]
@exercise(
    "10 learn",
    like=build.learned_merges,
    on=[({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}, 3), (dict(counted), 15)],
)
def learn(words, number):
    """{word: how often}, how many merges -> a list of pairs of symbols, in the order in which they are merged"""


# %% jupyter={"source_hidden": true} tags=["solution"]
def learn_from(weight, words, number):
    pieces, pairs = {word: list(word) for word in words}, []
    for _ in range(number):
        counts = Counter()
        for word, symbols in pieces.items():
            for pair in pairwise(symbols):
                counts[pair] += weight(words[word])
        if not counts:
            break
        pairs.append(counts.most_common(1)[0][0])
        pieces = {word: merge(symbols, pairs[-1]) for word, symbols in pieces.items()}
    return pairs


@learn.mistake("a pair counts once for each different word, however often the word occurs")
def learn(words, number):
    return learn_from(lambda times: 1, words, number)


@learn.mistake("all pairs are taken from one count: merged symbols never merge again")
def learn(words, number):
    counts = Counter()
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] += times
    return [pair for pair, _ in counts.most_common(number)]


@learn.solution
def learn(words, number):
    return learn_from(lambda times: times, words, number)


# %% [markdown]
# ### Encoding
#
# A new word is split into letters, and merged by the learned pairs: always the pair that was learned **earliest** among
# those present, until none is. The check compares yours with the tokenizer of the checkpoint, merges and all.
#
# <details><summary>Hint</summary>
#
# `ranks = {pair: its place}`. While there is a pair of neighbours in `ranks`, take the one of lowest rank and `merge`
# it.
#
# </details>

# %% tags=["cases"]
real_model, tokenizer = load_base(base_model)
bpe = tokenizer.backend_tokenizer  # of the `tokenizers` library; it writes a space as Ġ
ranks = {pair: place for place, pair in enumerate(build.merges_of(bpe))}
examples = [(word, ranks) for word in ["Ġthe", "Ġunbelievable", "Ġquestioning", "xylophones", "Ġsentimentality"]]


# %% tags=["exercise"]
@exercise("11 encode", like=lambda word, ranks: [token.value for token in bpe.model.tokenize(word)], on=examples)
def encode(word, ranks):
    """A word, {pair: place in the order of learning} -> its list of symbols"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@encode.mistake("the pair that stands first in the word is merged, not the one that was learned first")
def encode(word, ranks):
    symbols = list(word)
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        symbols = merge(symbols, known[0])
    return symbols


@encode.solution
def encode(word, ranks):
    symbols = list(word)
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        symbols = merge(symbols, min(known, key=ranks.get))
    return symbols


# %% [markdown]
# With more merges the same text needs fewer tokens, and the vocabulary grows by one for each. The first merges buy
# most.

# %%
pairs = learn(dict(counted), merges)
numbers = [0, 1, 2, 5, 10, 20, 50, 100, merges]
per_word = []
for number in numbers:
    known = {pair: place for place, pair in enumerate(pairs[:number])}
    per_word.append(sum(len(encode(w, known)) * n for w, n in counted.items()) / counted.total())
print("the first merges:", ["".join(pair).replace(" ", "_") for pair in pairs[:12]])
figures.curves(numbers, {"verses": per_word}, "merges", "tokens per word or sign")

# %%
check(
    "more merges, fewer tokens", per_word == sorted(per_word, reverse=True) and per_word[-1] < per_word[0] / 2, per_word
)
texts = ["Is this the same question?", "a clumsy, dull script"]
by_hand = [[s for piece, _ in bpe.pre_tokenizer.pre_tokenize_str(text) for s in encode(piece, ranks)] for text in texts]
check(
    "whole sentences: your tokens are the tokenizer's",
    by_hand == [bpe.encode(text, add_special_tokens=False).tokens for text in texts],
)

# %% [markdown]
# In JupyterLab, type into the box: the tokens of the checkpoint's tokenizer, each with its number.

# %%
widgets.tokenizer_box(tokenizer, "The plot is unbelievably dull, but the hero isn't.")

# %% [markdown]
# ## 8. Thirty lines that train
#
# Your tokenizer makes rows of token numbers out of the verses; your model and your loss learn from them. What is
# missing is the loop. For each batch $s = 0, 1, \dots, S - 1$:
#
# 1. set the learning rate: up linearly over the first tenth of the steps, $w = \max(1, \mathrm{round}(S / 10))$, then
#    down linearly, $\mathrm{lr} \cdot \min\!\big(\tfrac{s + 1}{w}, \tfrac{S - s}{S - w + 1}\big)$;
# 2. compute the loss, and its gradients;
# 3. if the norm of all gradients together is above 1, scale them down to 1 (`nn.utils.clip_grad_norm_`);
# 4. let the optimiser step (`AdamW(model.parameters(), lr=lr)`, the library's), and **clear the gradients**.
#
# <details><summary>Hint</summary>
#
# The rate of a running optimiser is set by `for group in optimizer.param_groups: group["lr"] = ...`. Collect
# `loss.item()`, a plain number: the tensor would keep its whole graph alive.
#
# </details>

# %% tags=["cases"]
tiny = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=40, n_positions=16)
random_batches = list(torch.randint(0, 40, (30, 4, 16)))  # thirty batches of [4, 16]


def try_training(loop):
    model = GPT(tiny)
    weights = GPT2(tiny).state_dict()
    model.load_state_dict(weights | {"wte.weight": 16 * weights["wte.weight"]})  # gradients longer than 1 at first
    return loop(model, random_batches, 0.02)


# %% tags=["exercise"]
@exercise(
    "12 train",
    like=build.with_fit,
    run=try_training,
    tolerance=2e-4,
    look="the order of the steps, and the rate of each",
)
def train(model, batches, lr):
    """Train on each batch of ids, [batch, seq], once -> the list of the losses"""


# %% jupyter={"source_hidden": true} tags=["solution"]
def rate(s, steps, lr):
    rise = max(1, round(steps / 10))
    return lr * min((s + 1) / rise, (steps - s) / (steps - rise + 1))


def loop(model, batches, lr, rate=rate, clear=True, limit=1.0):
    optimizer, losses = AdamW(model.parameters(), lr=lr), []
    for s, ids in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate(s, len(batches), lr)
        loss = language_loss(model(ids)[0], ids)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        if clear:
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@train.mistake("the gradients are never cleared, so that those of all earlier batches are in the sum")
def train(model, batches, lr):
    return loop(model, batches, lr, clear=False)


@train.mistake("the learning rate stays where it is")
def train(model, batches, lr):
    return loop(model, batches, lr, rate=lambda s, steps, lr: lr)


@train.mistake("the learning rate only falls: nothing leads up to it")
def train(model, batches, lr):
    return loop(model, batches, lr, rate=lambda s, steps, lr: lr * (steps - s) / steps)


@train.mistake("the gradients are never scaled down, however long they are")
def train(model, batches, lr):
    return loop(model, batches, lr, limit=math.inf)


@train.solution
def train(model, batches, lr):
    return loop(model, batches, lr)


# %% [markdown]
# Now on your tokens. The vocabulary is every letter of the text, and every merged symbol; the rows are the verses laid
# end to end.

# %%
known = {pair: place for place, pair in enumerate(pairs)}
vocabulary = sorted(set("".join(counted))) + ["".join(pair) for pair in pairs]
number_of = {symbol: i for i, symbol in enumerate(vocabulary)}
pieces = {word: [number_of[symbol] for symbol in encode(word, known)] for word in counted}
stream = torch.tensor([i for verse in verses for word in words_of(verse + "\n\n") for i in pieces.get(word, [])])
rows = stream[: len(stream) // 64 * 64].view(-1, 64)  # [rows, 64]
print(f"{len(stream):,} tokens of {len(vocabulary)} kinds in {len(rows)} rows")

# %%
floor = predict("The loss after training, in nats a token? It starts at log V.")(None)

# %%
torch.manual_seed(seed)
own = GPT2Config(n_layer=2, n_head=4, n_embd=64, vocab_size=len(vocabulary), n_positions=64)
poet = GPT(own)
poet.load_state_dict(GPT2(own).state_dict())
held_out, seen = rows[:20], rows[20:]
batches = [seen[torch.randint(len(seen), (16,))] for _ in range(steps)]  # each [16, 64]
losses = train(poet, batches, lr)
with torch.no_grad():
    unseen = language_loss(poet(held_out)[0], held_out).item()
chances = torch.bincount(stream) / len(stream)
frequency = -(chances * chances.log()).nansum().item()  # what knowing the frequencies alone would reach
floors = {"log V": [math.log(len(vocabulary))] * steps, "frequencies alone": [frequency] * steps}
figures.curves(range(1, steps + 1), {"yours": losses} | floors, "step", "loss (nats a token)")

# %%
floor.was(
    losses[-1],
    f"That is of the last training batch; on 20 rows that it never saw it is {unseen:.1f}. Knowing how often each "
    f"token occurs would already reach {frequency:.1f}; the rest is what the model makes of the tokens before. The "
    "verses follow few patterns, so there is much to be had.",
    digits=1,
)

# %%
check("the first loss is log V within 0.2", abs(losses[0] - math.log(len(vocabulary))) < 0.2, losses[0])
check("training takes the loss below half of what the frequencies alone reach", losses[-1] < frequency / 2, losses[-1])

# %% [markdown]
# ## 9. Sampling
#
# The greedy choice is dull, and the full distribution has a long tail of nonsense. Two numbers lie between.
# **Temperature** divides the logits: below 1 it sharpens. **Top-p** keeps the likeliest tokens until their
# probabilities reach $p$, *including the one that crosses it*, drops the others, and lets the rest sum to 1 again.
#
# <details><summary>Hint</summary>
#
# Sort descending; a token stays if the sum of the probabilities **before** it is below $p$.
# `torch.zeros_like(p).scatter(-1, order, kept)` brings sorted numbers back into their places.
#
# </details>

# %% tags=["cases"]
opinion = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])  # logits of six tokens
sampling_cases = [
    (opinion, 1.0, 1.0),
    (opinion, 0.5, 1.0),
    (opinion, 1.0, 0.7),
    (opinion, 2.0, 0.8),
    (opinion, 1.0, 0.05),
]


# %% tags=["exercise"]
@exercise(
    "13 nucleus",
    like=build.frequencies,
    on=sampling_cases,
    tolerance=0.008,
    look="the token that crosses p stays; the rest sums to 1",
)
def nucleus(logits, temperature, top_p):
    """[vocab_size] -> the probabilities to draw the next token with, [vocab_size]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
def kept(logits, temperature, top_p, crossing=True, again=True):
    probability, order = (logits / temperature).softmax(-1).sort(descending=True)
    before = probability.cumsum(-1) - (probability if crossing else 0)  # what the likelier tokens sum to
    probability = probability * (before < top_p)
    if again:
        probability = probability / probability.sum()
    return torch.zeros_like(probability).scatter(-1, order, probability)


@nucleus.mistake("the token that crosses p is dropped, too")
def nucleus(logits, temperature, top_p):
    return kept(logits, temperature, top_p, crossing=False).nan_to_num()


@nucleus.mistake("the probabilities that are left do not sum to 1 again")
def nucleus(logits, temperature, top_p):
    return kept(logits, temperature, top_p, again=False)


@nucleus.mistake("the temperature multiplies the logits")
def nucleus(logits, temperature, top_p):
    return kept(logits, 1 / temperature, top_p)


@nucleus.solution
def nucleus(logits, temperature, top_p):
    return kept(logits, temperature, top_p)


# %% [markdown]
# The reference here is not a formula: the check drew 100,000 tokens with the library's sampler and counted. In
# JupyterLab, move the sliders: what the checkpoint thinks comes next, and what is left of it.

# %%
words = tokenizer(prompt, return_tensors="pt")["input_ids"]
with torch.no_grad():
    after = real_model.logits(real_model(words))[0, -1]  # [vocab_size]


def bars(temperature=0.8, top_p=0.9):
    return figures.next_tokens(
        after.numpy(), nucleus(after, temperature, top_p).numpy(), tokenizer.convert_ids_to_tokens(range(len(after)))
    )


widgets.explore(bars, temperature=(0.1, 2.0, 0.1), top_p=(0.05, 1.0, 0.05))

# %% [markdown]
# ## 10. Writing with a cache
#
# Generation is a loop: run the model, choose the next token from the last position's logits, append it. With the `past`
# of your layers every step runs **one new token** only.

# %%
work = predict(
    "20 tokens are given and 100 written. How many times fewer tokens pass through the model with the cache than "
    "without?",
    [2, 12, 60, 120],
)(None)

# %%
lengths = list(range(20, 120))
without, with_cache = sum(lengths), 20 + 99
work.was(
    min([2, 12, 60, 120], key=lambda times: abs(times - without / with_cache)),
    f"Without it step i runs all {lengths[0]} + i tokens, {without:,} in all; with it the 20 once and then one at a "
    f"time, {with_cache}: {without / with_cache:.0f} times fewer, and the longer the text, the more.",
)


# %% [markdown]
# <details><summary>Hint</summary>
#
# The first call gets all given tokens and no past; each further call the token that was chosen last, `[batch, 1]`, and
# the past that came back. `choose` takes logits `[batch, vocab_size]` and gives token numbers `[batch]`.
#
# </details>


# %% tags=["cases"]
def greedy(logits):
    return logits.argmax(-1)


def library_generate(model, ids, new, choose):
    """The library's greedy decoding; then what each call of the model should have been given."""
    body = GPT2(model.inner.config)
    body.load_state_dict(model.inner.state_dict())
    model.calls = [ids.shape[1]] + [1] * (new - 1)
    return body.generate(ids, max_new_tokens=new, temperature=0)


class Counting(nn.Module):
    """A model that notes how many tokens each call brings."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, []

    def forward(self, ids, past=None):
        self.calls.append(ids.shape[1])
        return self.inner(ids, past)


def try_generate(function):
    model = Counting(GPT(config))
    model.inner.load_state_dict({name: 10 * p for name, p in GPT2(config).state_dict().items()})
    with torch.no_grad():
        written = function(model, torch.tensor([[3, 1, 4], [15, 9, 2]]), 12, greedy)
    return {"tokens": written, "tokens given to each call": model.calls}


# %% tags=["exercise"]
@exercise("14 generate", like=library_generate, run=try_generate)
def generate(model, ids, new, choose):
    """[batch, seq] -> [batch, seq + new]: the ids with `new` tokens more"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@generate.mistake("the whole text runs through the model at every step: right, and slow")
def generate(model, ids, new, choose):
    for _ in range(new):
        logits, _ = model(ids)
        ids = torch.cat([ids, choose(logits[:, -1])[:, None]], 1)
    return ids


@generate.mistake("the past is not handed on: each token is all that the model sees")
def generate(model, ids, new, choose):
    given = ids
    for _ in range(new):
        logits, _ = model(given)
        given = choose(logits[:, -1])[:, None]
        ids = torch.cat([ids, given], 1)
    return ids


@generate.solution
@torch.no_grad()
def generate(model, ids, new, choose):
    given, past = ids, None
    for _ in range(new):
        logits, past = model(given, past)
        given = choose(logits[:, -1])[:, None]  # [batch, 1]
        ids = torch.cat([ids, given], 1)
    return ids


# %% [markdown]
# Your model, trained by your loop on your tokens, writes a verse (of the toy corpus's made-up kind):


# %%
def sampler(temperature, top_p):
    draws = torch.Generator().manual_seed(seed)
    return lambda logits: torch.stack(
        [torch.multinomial(nucleus(row, temperature, top_p), 1, generator=draws)[0] for row in logits]
    )


written = generate(poet, rows[:1, :6], 50, sampler(0.7, 0.9))
print("".join(vocabulary[i] for i in written[0]))

# %% [markdown]
# ## 11. Real weights
#
# A checkpoint is a dictionary from names to tensors. Ours is in the layout of OpenAI's and transformers' files, with
# two habits of their own: query, key and value lie side by side in one matrix `c_attn`, and **every matrix is stored
# transposed**, `[d_in, d_out]`.
#
# | in the file, under `transformer.` | in your model |
# |---|---|
# | `wte.weight`, `wpe.weight`, `ln_f.weight`, `ln_f.bias` | the same |
# | `h.0.ln_1.weight`, `h.0.ln_2.bias`, ... | `blocks.0.ln_1.weight`, ... |
# | `h.0.attn.c_attn.weight` `[d, 3 d]`, `.bias` `[3 d]` | `blocks.0.attn.q.weight`, `k`, `v`: `[d, d]` each, `.bias` `[d]` |
# | `h.0.attn.c_proj.weight` `[d, d]` | `blocks.0.attn.o.weight` |
# | `h.0.mlp.c_fc.weight` `[d, 4 d]` | `blocks.0.mlp.up.weight` `[4 d, d]` |
# | `h.0.mlp.c_proj.weight` `[4 d, d]` | `blocks.0.mlp.down.weight` `[d, 4 d]` |
#
# <details><summary>Hint</summary>
#
# One loop over the file's items. `name.removeprefix("transformer.").replace("h.", "blocks.", 1)` and two or three
# further `replace` settle the names. A weight with `c_` in its name is to be transposed; `tensor.chunk(3, dim=0)`
# splits after that, and splits the biases as well. Norms and embeddings are **not** transposed.
#
# </details>

# %% tags=["cases"]
file = load_file(pretrained.find(base_model) / "model.safetensors")
print(len(file), "tensors, among them", {name: list(file[name].shape) for name in list(file)[:3]})


# %% tags=["exercise"]
@exercise(
    "15 weights",
    like=lambda file: dict(real_model.state_dict()),
    on=[(file,)],
    look="the table above, and what is transposed",
)
def weights_from(file):
    """The file's dictionary -> a dictionary with your model's names and shapes, float32"""


# %% jupyter={"source_hidden": true} tags=["solution"]
NAMES = {"attn.c_proj": "attn.o", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}


def renamed(file, turn):
    ours = {}
    for name, tensor in file.items():
        tensor = tensor.float()
        tensor = tensor.T if turn(name, tensor) else tensor
        name = name.removeprefix("transformer.")
        name = re.sub(r"^h\.", "blocks.", name)
        for old, new in NAMES.items():
            name = name.replace(old, new)
        if "c_attn" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                ours[name.replace("c_attn", letter)] = part
        else:
            ours[name] = tensor
    return ours


@weights_from.mistake(
    "the square matrix of the attention's last layer is not transposed: it loads without a word, and is wrong"
)
def weights_from(file):
    return renamed(file, lambda name, tensor: "c_" in name and tensor.dim() == 2 and "attn.c_proj" not in name)


@weights_from.solution
def weights_from(file):
    return renamed(file, lambda name, tensor: "c_" in name and tensor.dim() == 2)


# %% [markdown]
# **Your GPT-2.** What runs below is yours, but for PyTorch's lines, and the tokenizer's cutting into words, its numbers
# for symbols and its way back to text: the model, the weights' names, the merges, the cache, the sampler.

# %%
mine = GPT(real_model.config)
mine.load_state_dict(weights_from(file))
vocab = tokenizer.get_vocab()
symbols = [symbol for piece, _ in bpe.pre_tokenizer.pre_tokenize_str(prompt) for symbol in encode(piece, ranks)]
given = torch.tensor([[vocab[symbol] for symbol in symbols]])  # [1, seq]
written = generate(mine, given, 60, sampler(0.8, 0.9))
print(tokenizer.decode(written[0]))

# %% [markdown]
# And is it GPT-2? The same logits as the library's, and the same text when both take the likeliest token.

# %%
with torch.no_grad():
    logits, _ = mine(written)
    expected = real_model.logits(real_model(written))
check.close("your model's logits on the checkpoint are the library's", logits, expected, 1e-3)
same = torch.equal(generate(mine, given, 30, greedy), real_model.generate(given, max_new_tokens=30, temperature=0))
check("greedy, your model writes what the library's writes", same)

# %% [markdown]
# ## What you saw, and what it does not show
#
# A GPT-2 is fifteen short functions. What the library adds is not another idea but care: padding on both sides,
# checkpoints that resume to the bit, a cache that is allocated once, errors that say what to do. What makes a language
# model *know* something is in none of the functions; it is in the weights, and notebook 03 trains some.
#
# | paper | equation or section | yours | the library's | where it deviates |
# |---|---|---|---|---|
# | [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762) | eq. 1, section 3.2.2 | `attend`, `Attention` | `model/attention.py` | pre-norm, causal |
# | [Hendrycks and Gimpel 2016](https://arxiv.org/abs/1606.08415) | section 2 | `gelu` | `model/block.py` | the tanh form |
# | [Ba, Kiros and Hinton 2016](https://arxiv.org/abs/1607.06450) | eq. 3 | `layer_norm` | torch's | none |
# | [Sennrich, Haddow and Birch 2016](https://arxiv.org/abs/1508.07909) | algorithm 1 | `learn`, `encode` | `data/pretraining.py` | bytes, not letters |
# | [Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) | section 2 | `GPT` | `model/gpt2.py` | none |
# | [Holtzman et al. 2020](https://arxiv.org/abs/1904.09751) | section 3.1 | `nucleus` | `model/generate.py` | drawn again instead of sorted |
# | [Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101) | algorithm 2 | `train` uses it | `training/optimizer.py` | decay after the step |

# %% tags=["nbval-check-output"]
check.table()
