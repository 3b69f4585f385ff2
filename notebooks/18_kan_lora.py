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
# # Hybrid-KAN LoRA: splines beside the feed-forward layer
#
# **The question.** A KAN layer learns a curve on every connection in place of a number. What does it cost, and can a small
# one help a frozen GPT-2?
#
# After this notebook you can
# - evaluate B-splines with the Cox-de Boor recursion, and say where they are zero,
# - put a low-rank spline layer beside a frozen MLP so that nothing changes at first,
# - look at the curves that were learned, and count what full-size ones would cost.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
rank: int = 2  # of the LoRA on the feed-forward layers
kan_rank: int = 4  # inputs and outputs of the spline layer
grid: int = 5  # intervals
order: int = 3  # of the splines: 3 is cubic
lr: float = 2e-3  # highest learning rate
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import torch

from gpt2lib import GPT2Config
from gpt2lib.adapters import KANLoRA, LoRA, of_size, trained_count
from gpt2lib.adapters.kan_lora import bspline_bases
from gpt2lib.course import lessons, show
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.training import TrainingSettings

# %% [markdown]
# ## The layer
#
# $$\mathrm{out} = \mathrm{MLP}_{\text{LoRA}}(x) + U\, \mathrm{KAN}(D x), \qquad \mathrm{KAN}(z)_j = \sum_i \Big[ w_{ji} \operatorname{silu}(z_i) + \sum_m c_{jim} B_m(z_i) \Big]$$
#
# $D \in \mathbb{R}^{r \times d}$, $U \in \mathbb{R}^{d \times r}$ is 0 at first, and $B_m$ are the $G + 3$ cubic B-splines
# on $G$ intervals of $[-1, 1]$, continued by three on both sides. Inside they sum to 1, and each $z$ meets at most four.

# %% tags=["nbval-check-output"]
z = torch.linspace(-0.999, 0.999, 101)
bases = bspline_bases(z, grid, order)  # [101, grid + order]
show.check("there are grid + order of them", bases.shape[-1] == grid + order, bases.shape)
show.check_close("inside the grid they sum to 1", bases.sum(-1), torch.ones(101), 1e-5)
most = int((bases > 1e-6).sum(-1).max())
show.check("and at most order + 1 are not zero", most <= order + 1, most)
spec = KANLoRA(rank=rank, kan_rank=kan_rank, grid=grid, order=order)
lessons.check_properties(spec, base_model)
config = load_base(base_model)[0].config
lora = 2 * rank * 5 * config.n_embd
splines = 2 * config.n_embd * kan_rank + kan_rank**2 * (1 + grid + order)
counted = trained_count(spec, config)
show.check(
    "trained in each block: LoRA's, 2 d k and k^2 (1 + G + order)",
    counted == config.n_layer * (lora + splines),
    counted,
)

# %% [markdown]
# ## What full-size splines would cost
#
# The published code replaces the MLP by KAN layers of its full width, whose splines stay random and frozen. Trained, such
# a layer has $d^2 (1 + G + 3)$ parameters, nine for every one of a square matrix; `full_size=True` is that form, switched off
# by default.

# %%
gpt2 = GPT2Config.from_name("gpt2")
counts = {
    "LoRA rank 8 on up and down": trained_count(LoRA(rank=8, targets=("up", "down")), gpt2),
    "and a spline layer of rank 8": trained_count(KANLoRA(kan_rank=8), gpt2),
    "and splines in full size": trained_count(KANLoRA(full_size=True), gpt2),
}
counts | {"GPT-2 small itself": 124_439_808}

# %% tags=["nbval-check-output"]
blocks = 12 * (12 * 768**2 + 13 * 768)
show.check(
    "full-size splines have most of the parameters that all of GPT-2's blocks have",
    counts["and splines in full size"] > 0.7 * blocks,
)

# %% [markdown]
# ## Against LoRA, at the same number of parameters
#
# `fit` lets each grid span where $D x$ lies, at the first step and every 200 steps, and keeps the curves by least squares:
# outside the grid the splines are zero and learn nothing.

# %%
body, _ = load_base(base_model)
size = trained_count(spec, body.config)
methods = {"Hybrid-KAN LoRA": spec, "LoRA": of_size(LoRA(targets=("up", "down")), size, body.config)}
print(methods["LoRA"])
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
models, table = lessons.comparison(methods, dict.fromkeys(methods, lr), data, base_model, settings)
table

# %% [markdown]
# ## The curves that were learned
#
# In the last block; the grid is shaded. Outside of it only $w \operatorname{silu}$ is left.

# %%
layer = models["Hybrid-KAN LoRA"].body.blocks[-1].mlp
z = torch.linspace(-1.6, 1.6, 161)
bases = bspline_bases(z, grid, order)
with torch.no_grad():
    inputs = layer.middle + layer.width * z[:, None]  # [161, kan_rank], in each input's own units
    curves = torch.einsum("zm,jim->zji", bases, layer.c) + torch.einsum(
        "zi,ji->zji", torch.nn.functional.silu(inputs), layer.w
    )
figures.splines(z.numpy(), bases.numpy(), curves.numpy())

# %% tags=["nbval-check-output"]
show.check("the grids were fitted to the data", bool((layer.width != 1).all()))

# %% [markdown]
# ## What we saw, and what it does not show
#
# The curves bend where the data lies, and $U$ mixes them into the block. Two thirds of such an adapter are $D$ and $U$, which
# LoRA needs as well; whether bent curves beat LoRA's straight ones is in the table, for one seed on one task.
#
# **Exercise 1.** How many numbers are $w$ and $c$ together at `kan_rank=8`, `grid=5`, `order=3`?
#
# **Exercise 2.** The cubic B-spline in the middle of its four intervals has the value 2/3. What are its values at the two inner
# knots beside it?

# %% tags=["nbval-check-output"]
answer_1 = None
answer_2 = None
show.exercise(1, answer_1, 576, "r^2 for w and r^2 (grid + order) for c")
show.exercise(
    2, answer_2, lambda a: abs(a - 1 / 6) < 1e-3, "all bases sum to 1 at a knot, and three of them are not zero there"
)

# %% [markdown]
# **Solutions** (open the cell to see them).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
show.exercise(1, 8 * 8 * (1 + 5 + 3), 576, "")
knot = bspline_bases(torch.tensor([-1 + 2 / 5]), 5, 3)[0]  # at a knot: 1/6, 2/3, 1/6
show.exercise(2, float(knot[knot > 1e-6][0]), lambda a: abs(a - 1 / 6) < 1e-3, "")

# %% [markdown]
# **References.** Bo, Bernardino and Gu 2025 (arXiv 2504.10490); Liu et al. 2024 (KAN, arXiv 2404.19756).
