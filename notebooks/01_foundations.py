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
# - write AdamW's step by hand.
#
# Nothing here needs a download: the small base model, `gpt2-mini`, comes with the package.

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
from gpt2lib.course import show
from gpt2lib.model.attention import CausalSelfAttention
from gpt2lib.model.base import load_base
from gpt2lib.model.block import MLP, Block
from gpt2lib.model.config import SIZES
from gpt2lib.report import figures

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
# $$y_t = \sum_{u \le t} a_{tu} v_u, \qquad a_{tu} = \frac{\exp(q_t \cdot k_u / \sqrt{d})}{\sum_{w \le t} \exp(q_t \cdot k_w / \sqrt{d})}$$
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
# All scores at once are $Q K^\top$, `[seq, seq]`. What a token may not see is set to $-\infty$ before the softmax, which
# makes its weight exactly zero.

# %%
scores = q @ k.T / 4**0.5  # [3, 3]
scores = scores.masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
a = scores.softmax(-1)
print(a.numpy().round(2))

# %% tags=["nbval-check-output"]
show.check_close("matrix products give what the loop gave", a @ v, y_loop, 1e-6)
show.check_close("every row of weights sums to 1", a.sum(-1), torch.ones(3), 1e-6)

# %% [markdown]
# ## 4. Heads, and the library's class
#
# GPT-2 splits the width $d$ into `n_head` slices, attends in each of them apart, and mixes the results with a last
# layer $o$. `CausalSelfAttention` keeps $q, k, v, o$ as four linear layers, $4 d^2 + 4 d$ parameters, and calls
# PyTorch's fused kernel.

# %%
config = GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=100, n_positions=64)
attention = CausalSelfAttention(config)
x = torch.randn(2, 7, 32)  # [batch, seq, n_embd]
pattern = attention.weights(x)
print("x", list(x.shape), "-> weights", list(pattern.shape), "-> y", list(attention(x).shape))

# %% tags=["nbval-check-output"]
value = attention.split_heads(attention.v(x))  # [2, 4, 7, 8]
by_hand = attention.o((pattern @ value).transpose(1, 2).flatten(2))
show.check_close("the fused kernel computes the same", attention(x), by_hand, 1e-5, "attention.py")
changed = x.clone()
changed[:, -1] += 1
show.check_close(
    "a changed last token changes no earlier output", attention(changed)[:, :-1], attention(x)[:, :-1], 1e-6
)
show.check("it has 4 d^2 + 4 d parameters", sum(p.numel() for p in attention.parameters()) == 4 * 32**2 + 4 * 32)

# %% [markdown]
# ## 5. The feed-forward layer, and which GELU
#
# $\mathrm{MLP}(x) = W_{\text{down}}\, \mathrm{gelu}(W_{\text{up}} x)$, four times as wide inside. GPT-2 was trained with
# an approximation of GELU by a tanh. The exact function is so close that weights "work" with it, and yet wrong.

# %%
grid = torch.linspace(-5, 5, 400)
error = (F.gelu(grid) - F.gelu(grid, approximate="tanh")).abs()
figures.curves(grid, {"difference": error}, "x", "|exact - tanh GELU|")

# %% tags=["nbval-check-output"]
show.check("the two forms differ by up to 5e-4", 4e-4 < error.max() < 5e-4, error.max().item())
mlp = MLP(config)
by_hand = F.gelu(x @ mlp.up.weight.T + mlp.up.bias, approximate="tanh") @ mlp.down.weight.T + mlp.down.bias
show.check_close("MLP is the formula above", mlp(x), by_hand, 1e-5, "block.py")

# %% [markdown]
# ## 6. A block, and the whole model
#
# A block adds to what passes through it, twice, and normalises **before** each layer (pre-norm):
#
# $$x \leftarrow x + \mathrm{attn}(\mathrm{ln}_1(x)), \qquad x \leftarrow x + \mathrm{mlp}(\mathrm{ln}_2(x))$$
#
# GPT-2 is an embedding of tokens plus one of positions, a stack of blocks, a last norm; its output layer is the token
# embedding once more. On paper that makes
#
# $$d\,(V + P) + L\,(12 d^2 + 13 d) + 2 d \text{ parameters.}$$

# %%
block = Block(config)
print("block:", list(x.shape), "->", list(block(x).shape))
rows = {}
for size, c in SIZES.items():
    d = c.n_embd
    paper = d * (c.vocab_size + c.n_positions) + c.n_layer * (12 * d * d + 13 * d) + 2 * d
    with torch.device("meta"):  # shapes without memory
        built = sum(p.numel() for p in GPT2(c).parameters())
    rows[size] = {"layers": c.n_layer, "heads": c.n_head, "width": d, "on paper": paper, "built": built}
table = pd.DataFrame(rows).T
table

# %% tags=["nbval-check-output"]
show.check(
    "the paper count is the built model's, for all four sizes", (table["on paper"] == table["built"]).all(), table
)

# %% [markdown]
# ## 7. The same as transformers'
#
# A model that is *nearly* GPT-2 is worse than none. So: a transformers model with random weights, saved, loaded by our
# code, and compared, logit by logit. The random weights are made large, so that nothing hides in zeros.

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

# %% tags=["nbval-check-output"]
batch = torch.randint(0, 300, (3, 20))
masks = {"without padding": torch.ones_like(batch), "padded on the right": torch.ones_like(batch)}
masks["padded on the right"][0, 12:] = 0
masks["padded on the left"] = masks["padded on the right"].flip(1)
for name, mask in masks.items():
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)  # transformers counts padding unless it is told
    with torch.no_grad():
        expected = theirs(batch, attention_mask=mask, position_ids=position_ids).logits[mask.bool()]
        seen = ours.logits(ours(batch, mask))[mask.bool()]
    show.check_close(f"logits agree {name}", seen, expected, 1e-4, "model.py")

# %% [markdown]
# Decoding keeps the keys and values of earlier tokens (a cache), so that a new token costs one row instead of the whole
# sequence. It must not change a single token.

# %% tags=["nbval-check-output"]
cached = ours.generate(batch, masks["padded on the left"], max_new_tokens=20, temperature=0)
mask = masks["padded on the left"]
uncached = batch
with torch.no_grad():
    for _ in range(20):
        token = ours.logits(ours(uncached, mask)[:, -1]).argmax(-1, keepdim=True)
        uncached = torch.cat([uncached, token], 1)
        mask = torch.cat([mask, torch.ones_like(token)], 1)
show.check("cached decoding gives the tokens of uncached decoding", torch.equal(cached, uncached))

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

# %% tags=["nbval-check-output"]
show.check_close("no weight lies on a later token", pattern.triu(1), torch.zeros_like(pattern), 0)

# %% [markdown]
# ## 9. Where a token stands
#
# Without positions, a token would see a *bag* of earlier tokens. GPT-2 **learns** one vector a position. In the real
# GPT-2 near positions have similar vectors; the small base model here was trained too briefly to show much of that.

# %%
used = model.wpe.weight.detach().numpy()[:256]
figures.positions(used)

# %% tags=["nbval-check-output"]
one_block = GPT2(GPT2Config(n_layer=1, n_head=4, n_embd=32, vocab_size=100, n_positions=64)).eval()
words = torch.arange(8)[None]  # eight different tokens
shuffled = torch.cat([words[:, torch.randperm(7)], words[:, 7:]], 1)  # the first seven in another order
with torch.no_grad():
    moved = (one_block(words)[:, -1] - one_block(shuffled)[:, -1]).abs().max().item()
    one_block.wpe.weight.zero_()
    without = one_block(words)[:, -1], one_block(shuffled)[:, -1]
show.check("with positions, the order of the earlier tokens matters", moved > 1e-4, moved)
show.check_close("without them, one block sees a bag of tokens", *without, 1e-5)

# %% [markdown]
# ## 10. AdamW by hand
#
# Adam divides a running mean of the gradient by the root of a running mean of its square, so that every parameter moves
# at about the learning rate whatever its gradient's size; the weight decay acts on the parameter itself, not on the
# gradient (Kingma and Ba 2015; Loshchilov and Hutter 2019).

# %%
weight, lr, (b1, b2), eps, decay = torch.randn(5), 0.1, (0.9, 0.999), 1e-6, 0.01
p, m, s = weight.clone(), torch.zeros(5), torch.zeros(5)
goal = torch.arange(5.0)
for t in range(1, 51):
    g = p - goal  # gradient of |p - goal|^2 / 2
    m = b1 * m + (1 - b1) * g
    s = b2 * s + (1 - b2) * g**2
    p = p - lr * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / (s.sqrt() + eps)
    p = p - lr * decay * p

# %% tags=["nbval-check-output"]
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
        show.check_close("50 steps by hand are the library's", ours_p, p, 1e-5, "optimizer.py")
show.check(
    "PyTorch's AdamW stays within 0.01 on a problem this stiff, and meets it at the end",
    max(path) < 1e-2 and path[-1] < 1e-3,
    max(path),
)

# %%
figures.curves(range(1, 1001), {"ours": path}, "step", "largest difference to torch.optim.AdamW", log=True)

# %% [markdown]
# The two differ a little by design: PyTorch decays *before* the update, and corrects the bias under $\epsilon$ too.
#
# ## What we saw, and what it does not show
#
# Attention, a feed-forward layer, two norms: that, repeated, is GPT-2, and ours agrees with transformers' to rounding.
# The base model here knows a few hundred words; what attention heads of the real GPT-2 do is another matter.
#
# **Exercise 1.** How many parameters of `gpt2` are in the embeddings? **Exercise 2.** What would break if the mask were
# applied *after* the softmax?

# %% tags=["nbval-check-output"]
answer_1 = 768 * (50257 + 1024)  # yours
show.check(
    "exercise 1: embeddings hold 31.6 % of gpt2's parameters", round(answer_1 / table.loc["gpt2", "built"], 3) == 0.316
)
leaky = (q @ k.T / 2).softmax(-1).tril()  # exercise 2: what do its rows sum to?
show.check("exercise 2: the rows no longer sum to 1", not torch.allclose(leaky.sum(-1), torch.ones(3)))

# %% [markdown]
# **References.** Vaswani et al. 2017 (attention); Radford et al. 2019 (GPT-2); Hendrycks and Gimpel 2016 (GELU); Kingma
# and Ba 2015 (Adam); Loshchilov and Hutter 2019 (AdamW).
