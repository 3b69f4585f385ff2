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
# # Foundations: GPT-2 and AdamW, piece by piece
#
# **The question.** What is GPT-2, all of it, and how do we know that ours is the same one?
#
# After this notebook you can
# - compute attention with a loop, then with two matrix products, then with the library's class, and get one answer,
# - count GPT-2's parameters on paper, for all four sizes,
# - show that this implementation and transformers' agree, with and without padding, and with a cache,
# - write the weights of attention, the count of parameters and AdamW's step yourself, and have them checked.
#
# **How it goes.** Before a number or a figure a cell asks for your guess: write it in place of `None`, run on, and it
# is held against what comes out. Each **exercise** is one empty function under a line that begins with `@exercise`, or
# a value to be written in place of `None`. Write it and run the cell: it says *right*, or what is amiss; *waits* means
# that nothing is written yet. Beside it stand a hint and, folded, a solution, with which the notebook goes on without
# yours, so that you may skip. Words that are new are in the [glossary](../site/glossary.md).
#
# It runs in about half a minute on one core. Nothing here needs a download: the small base model, `gpt2-mini`, comes
# with the package.

# %% tags=["parameters"]
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
sentence: str = "The plot is not bad, but the hero is weak."  # looked at with attention maps
parity_layers: int = 2  # layers of the random models that are compared with transformers
seed: int = 0

# %%
import tempfile

import pandas as pd
import torch
import torch.nn.functional as F
import transformers

from gpt2lib import GPT2, AdamW, GPT2Config
from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.model.attention import CausalSelfAttention
from gpt2lib.model.base import load_base
from gpt2lib.model.block import MLP, Block
from gpt2lib.model.config import SIZES
from gpt2lib.report import figures

check = Verdicts()
_ = torch.manual_seed(seed)

# %% [markdown]
# ## 1. Tokens
#
# A model reads numbers. The tokenizer cuts text into pieces of its vocabulary; `Ġ` stands for a space before a piece.

# %%
model, tokenizer = load_base(base_model)
ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
tokens = [token.replace("Ġ", "_") for token in tokenizer.convert_ids_to_tokens(ids[0])]
print(list(ids.shape), "= [batch, seq]")
pd.DataFrame([tokens, ids[0].tolist()], index=["token", "id"])

# %% [markdown]
# ## 2. Attention, first with a loop
#
# Each token asks a question (query $q_t$), offers a key $k_u$ and a value $v_u$. It mixes the values of itself and the
# tokens before it, in proportion to how well their keys fit its query:
#
# $$y_t = \sum_{u \le t} a_{tu} v_u, \qquad a_{tu} = \frac{\exp(q_t \cdot k_u / \sqrt{d})}{\sum_{w \le t} \exp(q_t \cdot
# k_w / \sqrt{d})}$$
#
# Three tokens of width four are enough to see all of it.

# %%
q, k, v = torch.randn(3, 3, 4)  # each [seq 3, d 4]
y_loop = torch.zeros(3, 4)
for t in range(3):
    scores = torch.stack([q[t] @ k[u] / 4**0.5 for u in range(t + 1)])
    a = scores.exp() / scores.exp().sum()
    for u in range(t + 1):
        y_loop[t] += a[u] * v[u]
y_loop

# %% [markdown]
# ## 3. The same with two matrix products
#
# All scores at once are $Q K^\top$, `[seq, seq]`. What a token may not see is set to $-\infty$ before the softmax,
# which makes its weight exactly zero. Write the matrix of all $a_{tu}$.
#
# <details><summary>Hint</summary>
#
# `torch.ones(seq, seq).triu(1)` is 1 where $u > t$; `masked_fill` takes it as `.bool()`. Row $t$ of the result sums
# to 1.
#
# </details>

# %% tags=["cases"]
weights_cases = [tuple(torch.randn(2, 5, 4)), tuple(torch.randn(2, 1, 8)), tuple(3 * torch.randn(2, 4, 16))]


def library_weights(q, k):
    """The fused kernel's weights: what it mixes of the unit vectors."""
    return F.scaled_dot_product_attention(q[None], k[None], torch.eye(len(q))[None], is_causal=True)[0]


# %% tags=["exercise"]
@exercise("1 weights", like=library_weights, on=weights_cases, look="what divides the scores, and when is masked")
def weights(q, k):
    """queries and keys, [seq, d] each -> a, [seq, seq]: row t says how much token t takes from each token"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@weights.mistake("the mask comes after the softmax: the rows no longer sum to 1")
def weights(q, k):
    return (q @ k.T / q.shape[-1] ** 0.5).softmax(-1).tril()


@weights.mistake("the scores are not divided by the root of d")
def weights(q, k):
    return (q @ k.T).masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf).softmax(-1)


@weights.mistake("the softmax runs down the columns, over the tokens that ask")
def weights(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf).softmax(0)


@weights.solution
def weights(q, k):
    scores = q @ k.T / q.shape[-1] ** 0.5  # [seq, seq]
    return scores.masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf).softmax(-1)


# %%
a = weights(q, k)  # [3, 3]
print(a.detach().numpy().round(2))
check.close("matrix products give what the loop gave", a @ v, y_loop, 1e-6)
check.close("every row of weights sums to 1", a.sum(-1), torch.ones(3), 1e-6)

# %% [markdown]
# ## 4. Heads, and the library's class
#
# GPT-2 splits the width $d$ into `n_head` slices, attends in each of them apart, and mixes the results with a last
# layer $o$. `CausalSelfAttention` keeps $q, k, v, o$ as four linear layers, $4 d^2 + 4 d$ parameters, and calls
# PyTorch's fused kernel, one compiled function that does products, mask and softmax without ever storing the matrix of
# weights.

# %%
config = GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=100, n_positions=64)
attention = CausalSelfAttention(config)
x = torch.randn(2, 7, 32)  # [batch, seq, n_embd]
pattern = attention.weights(x)
print("x", list(x.shape), "-> weights", list(pattern.shape), "-> y", list(attention(x).shape))

# %%
value = attention.split_heads(attention.v(x))  # [2, 4, 7, 8]
by_hand = attention.o((pattern @ value).transpose(1, 2).flatten(2))
check.close("the fused kernel computes the same", attention(x), by_hand, 1e-5, "attention.py")
changed = x.clone()
changed[:, -1] += 1
check.close("a changed last token changes no earlier output", attention(changed)[:, :-1], attention(x)[:, :-1], 1e-6)
check("it has 4 d^2 + 4 d parameters", sum(p.numel() for p in attention.parameters()) == 4 * 32**2 + 4 * 32)

# %% [markdown]
# ## 5. The feed-forward layer, and which GELU
#
# $\mathrm{MLP}(x) = W_{\text{down}}\, \mathrm{gelu}(W_{\text{up}} x)$, four times as wide inside. GPT-2 was trained
# with an approximation of GELU by a tanh. The exact function is so close that weights "work" with it, and yet wrong.

# %%
grid = torch.linspace(-5, 5, 400)
error = (F.gelu(grid) - F.gelu(grid, approximate="tanh")).abs()
figures.curves(grid, {"difference": error}, "x", "|exact - tanh GELU|")

# %%
check("the two forms differ by up to 5e-4", 4e-4 < error.max() < 5e-4, error.max().item())
mlp = MLP(config)
by_hand = F.gelu(x @ mlp.up.weight.T + mlp.up.bias, approximate="tanh") @ mlp.down.weight.T + mlp.down.bias
check.close("MLP is the formula above", mlp(x), by_hand, 1e-5, "block.py")


# %% [markdown]
# ## 6. A block, and the whole model
#
# A block adds to what passes through it, twice, and normalises **before** each layer (pre-norm):
#
# $$x \leftarrow x + \mathrm{attn}(\mathrm{ln}_1(x)), \qquad x \leftarrow x + \mathrm{mlp}(\mathrm{ln}_2(x))$$
#
# The *layer norm* $\mathrm{ln}$ takes from a token's vector its mean, divides by its standard deviation, and gives it a
# trained scale and shift, $2 d$ parameters (notebook 02 writes it).
#
# GPT-2 is an embedding of tokens plus one of positions, a stack of blocks, a last norm; its output layer is the token
# embedding once more. How many parameters does that make, in $L$ layers of width $d$, with $V$ tokens and $P$
# positions?
#
# <details><summary>Hint</summary>
#
# In a block: four layers of $d^2 + d$ for the attention, $4 d^2 + 4 d$ up and $4 d^2 + d$ down, and two norms of $2 d$
# each.
#
# </details>


# %% tags=["cases"]
def try_count(function):
    return {name: int(function(c.n_layer, c.n_embd, c.vocab_size, c.n_positions)) for name, c in SIZES.items()}


def built_count(n_layer, n_embd, vocab_size, n_positions):
    """Of a model that is built, as shapes without memory."""
    c = GPT2Config(n_layer=n_layer, n_head=1, n_embd=n_embd, vocab_size=vocab_size, n_positions=n_positions)
    with torch.device("meta"):
        model = GPT2(c)
    return sum(p.numel() for p in model.parameters())


# %% tags=["exercise"]
@exercise("2 count", like=built_count, run=try_count, look="norms, biases, and an output layer that is counted once")
def count(L, d, V, P):
    """Layers, width, tokens, positions -> the number of GPT-2's parameters"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@count.mistake("the output layer is counted apart from the token embedding")
def count(L, d, V, P):
    return d * (2 * V + P) + L * (12 * d * d + 13 * d) + 2 * d


@count.mistake("the biases and the norms are forgotten")
def count(L, d, V, P):
    return d * (V + P) + L * 12 * d * d


@count.mistake("the last norm is forgotten")
def count(L, d, V, P):
    return d * (V + P) + L * (12 * d * d + 13 * d)


@count.solution
def count(L, d, V, P):
    return d * (V + P) + L * (12 * d * d + 13 * d) + 2 * d


# %%
block = Block(config)
print("block:", list(x.shape), "->", list(block(x).shape))
rows = {}
for size, c in SIZES.items():
    built = built_count(c.n_layer, c.n_embd, c.vocab_size, c.n_positions)
    embeddings = c.n_embd * (c.vocab_size + c.n_positions)
    rows[size] = {"layers": c.n_layer, "heads": c.n_head, "width": c.n_embd}
    rows[size] |= {"on paper": count(c.n_layer, c.n_embd, c.vocab_size, c.n_positions), "built": built}
    rows[size] |= {"embeddings, %": round(100 * embeddings / built, 1)}
table = pd.DataFrame(rows).T.astype({name: int for name in ("layers", "heads", "width", "on paper", "built")})
table

# %%
check("the paper count is the built model's, for all four sizes", (table["on paper"] == table["built"]).all(), table)

# %% [markdown]
# ## 7. The same as transformers'
#
# A model that is *nearly* GPT-2 is worse than none. So: a transformers model with random weights, saved, loaded by our
# code, and compared, logit by logit. (A *logit* is the score of a next token, before a softmax makes probabilities of
# all of them.) Texts of a batch have different lengths; the shorter ones are filled up, which is called *padding*, and
# a mask says which tokens are real. The random weights are made large, so that nothing hides in zeros.

# %%
largest = predict(
    "How far apart are our logits and transformers', at most, over all padding?", ["0", "rounding, below 1e-4", "more"]
)(None)

# %%
theirs_config = transformers.GPT2Config(
    n_layer=parity_layers, n_head=4, n_embd=64, vocab_size=300, n_positions=64, bos_token_id=299, eos_token_id=299
)
theirs = transformers.GPT2LMHeadModel(theirs_config).eval()
with torch.no_grad():
    for p in theirs.parameters():
        p += 0.1 * torch.randn_like(p)
folder = tempfile.mkdtemp()
theirs.save_pretrained(folder)
ours = GPT2.from_pretrained(folder)

# %%
batch = torch.randint(0, 300, (3, 20))
masks = {"without padding": torch.ones_like(batch), "padded on the right": torch.ones_like(batch)}
masks["padded on the right"][0, 12:] = 0
masks["padded on the left"] = masks["padded on the right"].flip(1)
apart = []
for name, mask in masks.items():
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)  # transformers counts padding unless it is told
    with torch.no_grad():
        expected = theirs(batch, attention_mask=mask, position_ids=position_ids).logits[mask.bool()]
        seen = ours.logits(ours(batch, mask))[mask.bool()]
    apart.append((seen - expected).abs().max().item())
    check.close(f"logits agree {name}", seen, expected, 1e-4, "model.py")
said = "0" if max(apart) == 0 else "rounding, below 1e-4" if max(apart) < 1e-4 else "more"
largest.was(
    said,
    {
        "0": "The same operations in the same order round alike; another machine or another kernel may not.",
        "rounding, below 1e-4": (
            "The same numbers added in another order: float32 keeps about seven digits. Equality to the last bit is "
            "not to be had, agreement is."
        ),
        "more": "That is no rounding: something differs.",
    },
)

# %% [markdown]
# Decoding keeps the keys and values of earlier tokens (a cache), so that a new token costs one row instead of the whole
# sequence. It must not change a single token.

# %%
cached = ours.generate(batch, masks["padded on the left"], max_new_tokens=20, temperature=0)
mask = masks["padded on the left"]
uncached = batch
with torch.no_grad():
    for _ in range(20):
        token = ours.logits(ours(uncached, mask)[:, -1]).argmax(-1, keepdim=True)
        uncached = torch.cat([uncached, token], 1)
        mask = torch.cat([mask, torch.ones_like(token)], 1)
check("cached decoding gives the tokens of uncached decoding", torch.equal(cached, uncached))

# %% [markdown]
# ## 8. What the small model looks at
#
# Row: the token that asks. Column: the token it looks at. The upper right is empty: nobody sees the future.

# %%
with torch.no_grad():
    x = model.wte(ids) + model.wpe.weight[: ids.shape[1]]
    for layer in model.blocks[:-1]:
        x = layer(x)
    pattern = model.blocks[-1].attn.weights(model.blocks[-1].ln_1(x))[0]  # [n_head, seq, seq]
figures.attention_maps(pattern.numpy(), tokens)

# %%
check.close("no weight lies on a later token", pattern.triu(1), torch.zeros_like(pattern), 0)

# %% [markdown]
# ## 9. Where a token stands
#
# In one block without positions, a token would see a *bag* of earlier tokens. (Several blocks can tell the order by the
# causal mask alone, since an earlier token has seen fewer others; it is a weak hint.) GPT-2 **learns** one vector a
# position. In the real GPT-2 near positions have similar vectors; the small base model here was trained too briefly to
# show much of that.

# %%
used = model.wpe.weight.detach().numpy()[:256]
figures.positions(used)

# %%
one_block = GPT2(GPT2Config(n_layer=1, n_head=4, n_embd=32, vocab_size=100, n_positions=64)).eval()
words = torch.arange(8)[None]  # eight different tokens
shuffled = torch.cat([words[:, torch.randperm(7)], words[:, 7:]], 1)  # the first seven in another order
with torch.no_grad():
    moved = (one_block(words)[:, -1] - one_block(shuffled)[:, -1]).abs().max().item()
    one_block.wpe.weight.zero_()
    without = one_block(words)[:, -1], one_block(shuffled)[:, -1]
check("with positions, the order of the earlier tokens matters", moved > 1e-4, moved)
check.close("without them, one block sees a bag of tokens", *without, 1e-5)


# %% [markdown]
# ## 10. AdamW by hand
#
# Adam divides a running mean of the gradient by the root of a running mean of its square, so that every parameter moves
# at about the learning rate whatever its gradient's size; the weight decay acts on the parameter itself, not on the
# gradient (Kingma and Ba 2015; Loshchilov and Hutter 2019).

# %% [markdown]
# In step $t$, with gradient $g$: $m \leftarrow \beta_1 m + (1 - \beta_1) g$ and
# $s \leftarrow \beta_2 s + (1 - \beta_2) g^2$, then
#
# $$p \leftarrow p - \eta\, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}\, \frac{m}{\sqrt{s} + \epsilon},
# \qquad p \leftarrow p - \eta \lambda p .$$
#
# <details><summary>Hint</summary>
#
# The order matters: $m$ and $s$ first, and the decay acts on the parameter *after* the update.
#
# </details>


# %% tags=["cases"]
def fifty_steps(function):
    """The parameters after 1, 2 and 50 steps (p, g, m, s, t) -> (p, m, s) on |p - goal|^2 / 2, and on a millionth of
    it, where epsilon weighs."""
    seen = {}
    for scale in (1, 1e-6):
        p, m, s = torch.linspace(-1, 1, 5), torch.zeros(5), torch.zeros(5)
        for t in range(1, 51):
            p, m, s = function(p, scale * (p - torch.arange(5.0)), m, s, t)
            if t in (1, 2, 50):
                seen[f"p after step {t}, gradients times {scale:g}"] = p.clone()
    return seen


def library_step(p, g, m, s, t, lr=0.1, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    """One step of the library's optimiser from a given state."""
    parameter = torch.nn.Parameter(p.clone())
    parameter.grad = g
    optimizer = AdamW([parameter], lr, (b1, b2), eps, decay)
    state = optimizer.state[parameter] = {"step": t - 1, "exp_avg": m.clone(), "exp_avg_sq": s.clone()}
    optimizer.step()
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


# %% tags=["exercise"]
@exercise("3 adamw", like=library_step, run=fifty_steps, look="the two corrections, and where the decay acts")
def adamw(p, g, m, s, t, lr=0.1, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    """Parameter, gradient, two running means, number of the step (from 1) -> parameter, running means"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@adamw.mistake("the running means start at 0 and are not corrected for it")
def adamw(p, g, m, s, t, lr=0.1, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g**2
    p = p - lr * m / (s.sqrt() + eps)
    return p - lr * decay * p, m, s


@adamw.mistake("the decay is added to the gradient: that is Adam with L2, not AdamW")
def adamw(p, g, m, s, t, lr=0.1, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    g = g + decay * p
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g**2
    return p - lr * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / (s.sqrt() + eps), m, s


@adamw.solution
def adamw(p, g, m, s, t, lr=0.1, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g**2
    p = p - lr * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / (s.sqrt() + eps)
    return p - lr * decay * p, m, s


# %%
weight, lr, (b1, b2), eps, decay = torch.randn(5), 0.1, (0.9, 0.999), 1e-6, 0.01
p, m, s = weight.clone(), torch.zeros(5), torch.zeros(5)
goal = torch.arange(5.0)
for t in range(1, 51):
    p, m, s = adamw(p, p - goal, m, s, t)  # p - goal is the gradient of |p - goal|^2 / 2

# %%
ours_p, theirs_p = weight.clone().requires_grad_(), weight.clone().requires_grad_()
ours_optimizer = AdamW([ours_p], lr, (b1, b2), eps, decay)
theirs_optimizer = torch.optim.AdamW([theirs_p], lr, (b1, b2), eps, decay)
path = []
for _ in range(1000):
    for parameter, optimizer in ((ours_p, ours_optimizer), (theirs_p, theirs_optimizer)):
        optimizer.zero_grad()
        ((parameter - goal) ** 2 / 2).sum().backward()
        optimizer.step()
    path.append((ours_p - theirs_p).abs().max().item())
    if len(path) == 50:
        check.close("50 steps by hand are the library's", ours_p, p, 1e-5, "optimizer.py")
check(
    "PyTorch's AdamW stays within 0.01 of ours on this quadratic, and meets it at the end",
    max(path) < 1e-2 and path[-1] < 1e-3,
    max(path),
)

# %%
figures.curves(range(1, 1001), {"ours": path}, "step", "largest difference to torch.optim.AdamW", log="y")

# %% [markdown]
# The two differ a little by design: PyTorch decays *before* the update, and corrects the bias under $\epsilon$ too.
#
# ## What we saw, and what it does not show
#
# Attention, a feed-forward layer, two norms: that, repeated, is GPT-2, and ours agrees with transformers' to rounding.
# The quadratic has the same curvature in all directions: it says that the two optimisers agree, and nothing on how Adam
# fares where a problem is hard. The base model here has 8,192 tokens and has read twelve million; what the attention
# heads of the real GPT-2 do is another matter.
#
# | paper, section | equation | file and class here | where we deviate |
# |---|---|---|---|
# | [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), 3.2.1 | $\mathrm{softmax}(Q K^\top / \sqrt{d})\, V$ | [model/attention.py](../gpt2lib/model/attention.py), `CausalSelfAttention` | four layers $q$, $k$, $v$, $o$ where GPT-2 has a fused `c_attn`: the same numbers |
# | [Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), 2.3 | norm before each layer, and a last one | [model/block.py](../gpt2lib/model/block.py), `Block`; [model/gpt2.py](../gpt2lib/model/gpt2.py), `GPT2` | `gpt2-mini` has no dropout |
# | [Hendrycks and Gimpel 2016](https://arxiv.org/abs/1606.08415), 2 | GELU, the form with tanh | [model/block.py](../gpt2lib/model/block.py), `MLP` | none |
# | [Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101), algorithm 2 | decay apart from the gradient | [training/optimizer.py](../gpt2lib/training/optimizer.py), `AdamW` | the decay comes after the update, and $\epsilon$ is not corrected |
#
# **References.** [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762) (attention); [Radford et al.
# 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) (GPT-2);
# [Hendrycks and Gimpel 2016](https://arxiv.org/abs/1606.08415) (GELU); [Kingma and Ba
# 2015](https://arxiv.org/abs/1412.6980) (Adam); [Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101) (AdamW).

# %% tags=["nbval-check-output"]
check.table()
