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
# # A method of your own
#
# **The question.** What does it take to add a method that the library does not have? Needs notebook
# [11](11_lora.ipynb). It runs in about a minute on one core.
#
# After this notebook you can
# - write an adapter as a specification and one layer, and have everything else for nothing: `attach`, `merge`, `save`,
#   `load`, the properties below, and, for one line more, every notebook's `method` parameter,
# - say what DoRA does, which of its two forms this is, and check that it does.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
rank: int = 4  # of LoRA and DoRA
rates: list = [2e-3, 8e-3, 3.2e-2]  # highest learning rates: each method takes its best of them on dev
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import json
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from gpt2lib.adapters import SPECIFICATIONS, LoRA
from gpt2lib.adapters.lora import LoRALinear
from gpt2lib.course import Verdicts, exercise, lessons, predict
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.tasks import Encoder
from gpt2lib.training import TrainingSettings, evaluate

check = Verdicts()


# %% [markdown]
# ## DoRA in twenty lines
#
# DoRA splits a matrix into the lengths and the directions of its vectors, and trains both: lengths $m$ freely,
# directions by LoRA. Which vectors? The paper takes the **columns** of $W \in \mathbb R^{d \times k}$ and has
# $m \in \mathbb R^{1 \times k}$ (its eq. 5); peft, with which most people train it, takes the **rows** of PyTorch's
# `[d_out, d_in]`, one length for each output. With $y = W x$ these are two methods: columns rescale what enters, rows
# what leaves.
#
# **Exercise 1.** Write the decomposed matrix for both. `dim` is the dimension that the norm sums over, as in torch: 1
# gives the rows' lengths, 0 the columns'.
#
# <details><summary>Hint</summary>
#
# `norm(dim=dim, keepdim=True)` divides either way; $m$ needs its missing dimension back, `m.unsqueeze(dim)`.
#
# </details>


# %% tags=["cases"]
def try_decomposed(function):
    """The matrix by rows and by columns, with other lengths than its own."""
    draws = torch.Generator().manual_seed(5)
    W, A, B = (torch.randn(*shape, generator=draws, dtype=torch.float64) for shape in ((4, 4), (2, 4), (4, 2)))
    m = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    return [function(W, A, B, 2.0, m, dim) for dim in (1, 0)]


# %% tags=["exercise"]
@exercise(
    "1 decomposed",
    digest="e57defb54a7a",
    run=try_decomposed,
    look="whose length is it, and is it that of W or of W + s B A",
)
def decomposed(W, A, B, s, m, dim):
    """W [d_out, d_in], A [r, d_in], B [d_out, r], s a number, m [d_out] for dim 1 or [d_in] for dim 0 -> [d_out,
    d_in]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@decomposed.mistake("the length is that of the frozen W, not of W + s B A: the directions are no unit vectors then")
def decomposed(W, A, B, s, m, dim):
    return m.unsqueeze(dim) * (W + s * B @ A) / W.norm(dim=dim, keepdim=True)


@decomposed.mistake("rows and columns are exchanged")
def decomposed(W, A, B, s, m, dim):
    V = W + s * B @ A
    return m.unsqueeze(1 - dim) * V / V.norm(dim=1 - dim, keepdim=True)


@decomposed.mistake("all is divided by one norm, the whole matrix's")
def decomposed(W, A, B, s, m, dim):
    V = W + s * B @ A
    return m.unsqueeze(dim) * V / V.norm()


@decomposed.solution
def decomposed(W, A, B, s, m, dim):
    V = W + s * B @ A
    return m.unsqueeze(dim) * V / V.norm(dim=dim, keepdim=True)


# %% [markdown]
# ## The layer
#
# We take the rows, as peft does: then a length is one factor for each output, and `forward` can apply it after LoRA's
# sum.
#
# $$y = \frac{m}{\lVert W + s B A \rVert_{\text{row}}} \odot (W x + s B A x) + b,
# \qquad m = \lVert W \rVert_{\text{row}} \text{ at first}$$
#
# The norm is taken as a constant in the backward pass (its section 4.3). A specification is a frozen dataclass whose
# class statement names the method; a layer says what it computes, and, if it can be merged, into what.


# %% tags=["cases"]
@dataclass(frozen=True)
class DoRA(LoRA, method="dora"):
    """Weight-decomposed low-rank adaptation (Liu et al. 2024), by rows as in peft. Trained: LoRA's parameters and d_out
    per layer."""

    def layer(self, base):
        return DoRALinear(base, self)


class DoRALinear(LoRALinear):
    def __init__(self, base, spec):
        super().__init__(base, spec)
        self.m = torch.nn.Parameter(self.lengths())  # [d_out]

    def lengths(self):
        """The length of every row of W + s B A: [d_out]"""
        return (self.base.weight.double() + self.delta_weight()).norm(dim=1).to(self.A.dtype).detach()

    def forward(self, x):
        y = F.linear(x, self.base.weight)
        bias = 0 if self.base.bias is None else self.base.bias  # Llama's layers have none
        return (self.m / self.lengths() * (y + self.delta(x))).to(y.dtype) + bias

    @torch.no_grad()
    def merged(self):
        weight = self.base.weight
        updated = weight.double() + self.delta_weight()
        weight.copy_((self.m.double() / updated.norm(dim=1))[:, None] * updated)
        return self.base


# %%
print(DoRA(), "is one of", list(SPECIFICATIONS))

# %% [markdown]
# ## What comes with it

# %%
spec = DoRA(rank=rank)
lessons.check_properties(spec, base_model, check)
torch.manual_seed(seed)
layer = DoRALinear(torch.nn.Linear(8, 6), spec)
layer.B.data.normal_()
layer.m.data.mul_(torch.rand(6) + 0.5)
x, update = torch.randn(3, 8), (layer.base.weight, layer.A, layer.B, layer.scaling)
by_rows = x @ decomposed(*update, layer.m, 1).T + layer.base.bias
by_columns = x @ decomposed(*update, layer.base.weight.norm(dim=0), 0).T + layer.base.bias
check.close("the layer is your matrix by rows", layer(x).detach(), by_rows.detach(), 1e-5)
check("it is not the matrix by columns", (layer(x) - by_columns).abs().max().item() > 1e-2)
check("it goes to JSON and back", DoRA.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec)

# %% [markdown]
# ## On a task, beside LoRA

# %%
choices = ["LoRA", "DoRA", "no clear difference"]
guess = predict("The same rank, rates and seed: which is better on dev, by more than two standard errors?", choices)(
    None
)

# %%
methods = {"LoRA": LoRA(rank=rank), "DoRA": spec}
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
models, table = lessons.comparison(methods, rates, data, base_model, settings)
table.round(4)

# %%
dev = Encoder(task, load_base(base_model)[1], models["LoRA"].body.config.n_positions)(data.dev)
answers = {name: np.array([label for label, _ in evaluate(model, dev)[1]]) for name, model in models.items()}
truth = np.array([example.label for example in data.dev])
gain = (answers["DoRA"] == truth).astype(int) - (answers["LoRA"] == truth)  # of each example: 1, 0 or -1
error = gain.std(ddof=1) / len(gain) ** 0.5
guess.was(
    "no clear difference" if abs(gain.mean()) <= 2 * error else "DoRA" if gain.mean() > 0 else "LoRA",
    f"DoRA's accuracy less LoRA's is {gain.mean():+.3f}, with a standard error of {error:.3f} over the {len(data.dev)} "
    "dev examples, taken in pairs: both answered the same ones. It is one seed, and the best of three rates for each, "
    "chosen on these very examples: too good to be believed before other seeds agree.",
)


# %% [markdown]
# ## What we saw, and what it does not show
#
# To keep the method, put the two classes into `gpt2lib/adapters/dora.py`, import it in `gpt2lib/adapters/__init__.py`
# (that registers it), give it a record in `gpt2lib/tasks/method.py` (its title, its colour, and the name by which every
# notebook and study has it), and add it to the list at the top of `tests/test_adapters.py`: all properties are then
# tested. A method that trains something in its own way returns a hook from `Spec.hooks`, as alpha-LoRA does. One seed
# on one task ranks nothing.
#
# **Exercise 2.** Which choice of $B$ makes DoRA's layer the base layer, whatever $A$ is, as long as $m$ has not moved?
# Write a function from the shape of $B$ to $B$, or name one of torch's.
#
# <details><summary>Hint</summary>
#
# What must $B A$ be?
#
# </details>


# %% tags=["cases"]
def keeps_the_base(make):
    """Whether the layer does what the base does, for two As."""
    kept = []
    for seed_of_A in (0, 1):
        torch.manual_seed(seed_of_A)
        layer = DoRALinear(torch.nn.Linear(8, 6), DoRA(rank=2))
        layer.B.data = make(layer.B.shape)
        kept.append(torch.allclose(layer(torch.eye(8)), layer.base(torch.eye(8)), atol=1e-6))
    return kept


# %% tags=["exercise"]
make_B = exercise("2 make_B", digest="dbfc7c1b220d", run=keeps_the_base)(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
make_B.mistake("B A is not zero, and the directions turn")(torch.ones)
make_B = make_B.solution(torch.zeros)

# %% [markdown]
# | paper | section or equation | here | where it deviates |
# |---|---|---|---|
# | [Liu et al. 2024](https://arxiv.org/abs/2402.09353) | eq. 5 | `DoRALinear` above, `decomposed` with dim 1 | lengths of rows, as in [peft](https://github.com/huggingface/peft); the paper's are of columns (dim 0) |
# | the same | section 4.3, the norm is a constant in the backward pass | `lengths`, detached | none |
# | [Hu et al. 2021](https://arxiv.org/abs/2106.09685) | $B = 0$ at first | `LoRALinear` in [lora.py](../gpt2lib/adapters/lora.py) | none |
#
# **References.** Liu et al. 2024, [DoRA](https://arxiv.org/abs/2402.09353). Hu et al. 2021,
# [LoRA](https://arxiv.org/abs/2106.09685).

# %% tags=["nbval-check-output"]
check.table()
