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
# **The question.** A KAN layer learns a curve on every connection in place of a number. What does it cost, and can a
# small one help a frozen GPT-2? A second part of the paper of notebook 17 ([Bo, Bernardino and Gu
# 2025](https://arxiv.org/abs/2504.10490)), read in the same way: claim, code, test. Needs notebook [11](11_lora.ipynb).
# It runs in about a minute on one core.
#
# After this notebook you can
# - evaluate B-splines with the Cox-de Boor recursion, and say where they fade and where they are zero,
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
rates: list = [2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]  # highest learning rates: each method takes its best of them on dev
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from gpt2lib.adapters import KANLoRA, LoRA, of_size, trained_count
from gpt2lib.adapters.kan_lora import KANMLP, bspline_bases
from gpt2lib.course import Verdicts, exercise, lessons, predict
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.model.config import SIZES
from gpt2lib.report import figures, statistics
from gpt2lib.training import TrainingSettings

check = Verdicts()

# %% [markdown]
# ## The layer
#
# $$\mathrm{out} = \mathrm{MLP}_{\text{LoRA}}(x) + U\, \mathrm{KAN}(D x),
# \qquad \mathrm{KAN}(z)_j = \sum_i \Big[ w_{ji} \operatorname{silu}(z_i)
# + \sum_m c_{jim} B_m\Big(\frac{z_i - \mu_i}{\omega_i}\Big) \Big]$$
#
# $\mu_i$ and $\omega_i$ (`middle` and `width` in the code) are fitted to the data: they span what $z_i$ takes.
# $D \in \mathbb{R}^{r \times d}$, $U \in \mathbb{R}^{d \times r}$ is 0 at first, and $B_m$ are the $G + 3$ cubic
# B-splines on $G$ intervals of $[-1, 1]$, continued by three on both sides. Inside they sum to 1, and each $z$ meets at
# most four.
#
# ## Write it yourself: the bases
#
# The knots lie $h = 2/G$ apart, $t_0 = -1 - k h, \dots, t_{G + 2k} = 1 + k h$ for order $k$. Of order 0 the basis $B_m$
# is 1 on $[t_m, t_{m+1})$ and 0 elsewhere; each order more comes from two neighbours of the one before (Cox and de
# Boor):
#
# $$B_m^{(k)}(z) = \frac{z - t_m}{k h}\, B_m^{(k-1)}(z) + \frac{t_{m+k+1} - z}{k h}\, B_{m+1}^{(k-1)}(z)$$
#
# <details><summary>Hint</summary>
#
# With `z = z[..., None]` all bases are one tensor [..., bases]. Order 0 has $G + 2k$ of them, and each step of the
# recursion one fewer. In step `j` the left neighbours are `bases[..., :-1]` with the knots `knots[: -j - 1]`, the right
# ones `bases[..., 1:]` with `knots[j + 1 :]`.
#
# </details>

# %% tags=["cases"]
points = torch.tensor([-2.5, -1.7, -1.0, -0.3, 0.05, 0.61, 0.99, 1.3, 1.9])


# %% tags=["exercise"]
@exercise("1 bases", like=bspline_bases, on=[(points, 5, 3), (points, 4, 2)], look="the knots beyond the grid")
def bases_of(z, grid, order):
    """[...] -> [..., grid + order]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@bases_of.mistake("what lies outside the grid is moved to its edge: the bases do not fade there, they stop")
def bases_of(z, grid, order):
    return bspline_bases(z.clamp(-1, 1 - 1e-6), grid, order)


@bases_of.mistake("the recursion stops one order early")
def bases_of(z, grid, order):
    return F.pad(bspline_bases(z, grid, order - 1), (0, 1))


@bases_of.solution
def bases_of(z, grid, order):
    h, z = 2 / grid, z[..., None]
    knots = torch.arange(-order, grid + order + 1) * h - 1
    bases = ((z >= knots[:-1]) & (z < knots[1:])).float()
    for j in range(1, order + 1):
        rising, falling = (z - knots[: -j - 1]) / (j * h), (knots[j + 1 :] - z) / (j * h)
        bases = rising * bases[..., :-1] + falling * bases[..., 1:]
    return bases


# %% [markdown]
# ## Inside the grid, and outside

# %%
outside = predict("With 5 cubic intervals on [-1, 1] the bases sum to 1 inside. To what do they sum at z = 1.6?")(None)

# %%
places = torch.tensor([0.99, 1.2, 1.6, 2.0, 2.2])
sums = bspline_bases(places, 5, 3).sum(-1)
print({f"z = {z:g}": round(total, 3) for z, total in zip(places.tolist(), sums.tolist(), strict=True)})
outside.was(
    sums[2].item(),
    "Outside the grid they fade over three more intervals, because those bases that begin inside reach so far; from 1 "
    "+ 3 h = 2.2 on all are 0.",
)
check("the bases fade outside the grid", bool((sums.diff() < 0).all()), sums)
check.close("from 1 + order h on they are 0", bspline_bases(torch.tensor([2.2, 3.0]), 5, 3), torch.zeros(2, 8), 1e-5)

# %%
z = torch.linspace(-0.999, 0.999, 101)
bases = bspline_bases(z, grid, order)  # [101, grid + order]
check("there are grid + order of them", bases.shape[-1] == grid + order, bases.shape)
check.close("inside the grid they sum to 1", bases.sum(-1), torch.ones(101), 1e-5)
most = int((bases > 1e-6).sum(-1).max())
check("and at most order + 1 are not zero", most <= order + 1, most)
spec = KANLoRA(rank=rank, kan_rank=kan_rank, grid=grid, order=order)
lessons.check_properties(spec, base_model, check)
config = load_base(base_model)[0].config
lora = 2 * rank * 5 * config.n_embd
splines = 2 * config.n_embd * kan_rank + kan_rank**2 * (1 + grid + order)
counted = trained_count(spec, config)
check(
    "trained in each block: LoRA's, 2 d k and k^2 (1 + G + order)",
    counted == config.n_layer * (lora + splines),
    counted,
)

# %% [markdown]
# ## Write it yourself: the layer
#
# $\mathrm{KAN}(z)$ for $z$ [batch, r], $w$ [r, r] and $c$ [r, r, bases], whose first index is the output $j$ and second
# the input $i$; the grid is $[-1, 1]$ for every input, with 5 cubic intervals. Return [batch, r].
#
# <details><summary>Hint</summary>
#
# `bspline_bases(z, 5, 3)` has shape [batch, r, bases]; `torch.einsum("nim,jim->nj", ..., c)` sums over inputs and
# bases.
#
# </details>

# %% tags=["cases"]
draw = torch.Generator().manual_seed(1)
some_z, some_w, some_c = (torch.randn(shape, generator=draw) for shape in ((5, 3), (3, 3), (3, 3, 8)))


def library_kan(z, w, c):
    parts = SimpleNamespace(project=lambda z: z, bases=lambda z: bspline_bases(z, 5, 3), w=w, c=c, U=None)
    return KANMLP.delta(parts, z)


# %% tags=["exercise"]
@exercise("2 kan", like=library_kan, on=[(some_z, some_w, some_c)], look="which index is the input's")
def kan(z, w, c):
    """[batch, r], [r, r], [r, r, bases] -> [batch, r]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@kan.mistake("inputs and outputs are exchanged in c")
def kan(z, w, c):
    return F.silu(z) @ w.T + torch.einsum("nim,ijm->nj", bspline_bases(z, 5, 3), c)


@kan.mistake("w is applied to z itself, without silu")
def kan(z, w, c):
    return z @ w.T + torch.einsum("nim,jim->nj", bspline_bases(z, 5, 3), c)


@kan.mistake("the splines stand alone, without the silu part")
def kan(z, w, c):
    return torch.einsum("nim,jim->nj", bspline_bases(z, 5, 3), c)


@kan.solution
def kan(z, w, c):
    return F.silu(z) @ w.T + torch.einsum("nim,jim->nj", bspline_bases(z, 5, 3), c)


# %% [markdown]
# ## Claim, code, and what full size would cost
#
# | | |
# |---|---|
# | **claim** | learned curves in place of the feed-forward layer make GPT-2 more expressive and easier to interpret. The paper's own comparison: it does not outperform tuned LoRA |
# | **code** | the MLP is *replaced* by KAN layers $d \to 2d \to d$ (in some versions $4d$), whose class freezes their splines as drawn; the classifier's script then makes every parameter trainable again, the base included, unless only the head is asked for |
# | **here** | the MLP stays, and trained splines of low rank stand beside it. `full_size=True` is a trained KAN layer $d \to d$ beside the MLP, to show its size. Neither is the published form |
#
# Trained, a KAN layer has $1 + G + 3$ numbers, nine at $G = 5$, for every one of a matrix of its shape.

# %%
gpt2 = SIZES["gpt2"]
counts = {
    "LoRA rank 8 on up and down": trained_count(LoRA(rank=8, targets=("up", "down")), gpt2),
    "and a spline layer of rank 8": trained_count(KANLoRA(kan_rank=8), gpt2),
    "and splines d to d": trained_count(KANLoRA(full_size=True), gpt2),
    "the published shape, d to 2 d to d, trained": 12 * 2 * (768 * 2 * 768) * (1 + 5 + 3),
}
counts | {"GPT-2 small itself": 124_439_808}

# %%
feed_forward = 12 * 2 * 768 * 4 * 768  # weights of GPT-2's MLPs
check(
    "splines d to d have more parameters than GPT-2's feed-forward layers", counts["and splines d to d"] > feed_forward
)
check(
    "the published shape, trained, would have twice those of GPT-2 small", list(counts.values())[-1] > 2 * 124_439_808
)

# %% [markdown]
# ## Against LoRA, at the same number of parameters
#
# `fit` lets each grid span where $D x$ lies, at the first step and every 200 steps, and keeps the curves by least
# squares: what lies far outside the grid meets no spline, and nothing is learned there.

# %%
body, _ = load_base(base_model)
size = trained_count(spec, body.config)
methods = {"Hybrid-KAN LoRA": spec, "LoRA": of_size(LoRA(targets=("up", "down")), size, body.config)}
print(methods["LoRA"])
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
ahead = predict("Which has the higher dev accuracy, with about the same number of parameters?", [*methods, "equal"])(
    None
)

# %%
models, table = lessons.comparison(methods, rates, data, base_model, settings)
accuracy = table["accuracy"]
gap = 100 * (accuracy.max() - accuracy.min())
low, high = statistics.wilson(float(accuracy["LoRA"]), len(data.dev))
width = 100 * (high - low) / 2 * 2**0.5  # of the difference of two accuracies, were their examples not the same
ahead.was(
    "equal" if accuracy.nunique() == 1 else accuracy.idxmax(),
    f"The gap is {gap:.0f} points. With {len(data.dev)} dev examples chance alone makes gaps of up to {width:.0f} or "
    "so. A larger one is not yet the method's: there is one seed, and the column `lr` says whether a best rate is an "
    "end of the list. The main study chooses rates on data of their own, and notebook 22 tests in pairs.",
)
table.round(4)

# %% [markdown]
# ## The curves that were learned
#
# In the last block; the grid is shaded. Outside of it the bases fade, and further out only $w \operatorname{silu}$ is
# left.

# %%
layer = models["Hybrid-KAN LoRA"].body.blocks[-1].mlp
z = torch.linspace(-2.4, 2.4, 241)
bases = bspline_bases(z, grid, order)
with torch.no_grad():
    inputs = layer.middle + layer.width * z[:, None]  # [241, kan_rank], in each input's own units
    curves = torch.einsum("zm,jim->zji", bases, layer.c) + torch.einsum(
        "zi,ji->zji", torch.nn.functional.silu(inputs), layer.w
    )
figures.splines(z.numpy(), bases.numpy(), curves.numpy())

# %%
check("the grids were fitted to the data", bool((layer.width != 1).all()))

# %% [markdown]
# ## What we saw, and what it does not show
#
# The curves bend where the data lies, and $U$ mixes them into the block. Most of such an adapter are LoRA's own $A$ and
# $B$ on the two feed-forward layers, most of the rest $D$ and $U$; the curves themselves are a few per cent. Whether
# bent curves beat LoRA's straight ones is not decided by one seed on one task.
#
# Two numbers to work out. How many are $w$ and $c$ together at `kan_rank=8`, `grid=5`, `order=3`? And: the cubic
# B-spline in the middle of its four intervals has the value 2/3. What is its value at the two inner knots beside it?
#
# <details><summary>Hint</summary>
#
# $r^2$ for $w$ and $r^2 (G + k)$ for $c$. All bases sum to 1 at a knot, and three of them are not zero there.
#
# </details>

# %% tags=["exercise"]
trained_curves = exercise("3 numbers of w and c", digest="ed7ead668770")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
trained_curves.mistake("only c is counted")(8 * 8 * (5 + 3))
trained_curves = trained_curves.solution(8 * 8 * (1 + 5 + 3))

# %% tags=["exercise"]
beside = exercise("4 value beside the middle", digest="ddad24ddca14", digits=2)(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
beside.mistake("the rest of 1 is not shared out: two neighbours have it")(1 / 3)
beside = beside.solution((1 - 2 / 3) / 2)

# %%
knot = bspline_bases(torch.tensor([-1 + 2 / 5]), 5, 3)[0]  # at a knot
check.close("at a knot three bases are not 0: 1/6, 2/3 and 1/6", knot[knot > 1e-6], torch.tensor([1, 4, 1]) / 6, 1e-5)

# %% [markdown]
# ## The paper, and where we deviate
#
# | source | what | here | where we deviate |
# |---|---|---|---|
# | [Bo et al. 2025](https://arxiv.org/abs/2504.10490) | KAN layers $d \to 2d \to d$ in place of the MLP, with LoRA, in its public code | [`KANLoRA`, `KANMLP`](../gpt2lib/adapters/kan_lora.py) | the MLP stays; splines of rank $r$ beside it, trained, through $U = 0$ |
# | [Liu et al. 2024](https://arxiv.org/abs/2404.19756), section 2 | $\phi(x) = w_b \operatorname{silu}(x) + w_s \sum_m c_m B_m(x)$, grids that follow the data | [`bspline_bases`](../gpt2lib/adapters/kan_lora.py), `KANMLP.fit_grid` | no $w_s$ apart from $c$; the grid spans all but a hundredth of the data on either side |
# | [Hu et al. 2021](https://arxiv.org/abs/2106.09685), section 4.1 | $W + \frac{\alpha}{r} BA$ | [`LowRank`](../gpt2lib/adapters/lora.py) | none |
#
# **References.** [Bo, Bernardino and Gu 2025](https://arxiv.org/abs/2504.10490); [Liu et al.
# 2024](https://arxiv.org/abs/2404.19756) (KAN); [de Boor 1972](https://doi.org/10.1016/0021-9045%2872%2990080-9) (the
# recursion).

# %% tags=["nbval-check-output"]
check.table()
