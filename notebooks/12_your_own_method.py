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
# **The question.** What does it take to add a sixth method?
#
# After this notebook you can
# - write an adapter as a specification and one layer, and have everything else for nothing: `attach`, `merge`, `save`,
#   `load`, the properties below, and, for one line more, every notebook's `method` parameter,
# - say what DoRA does, and check that it does.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
rank: int = 4  # of LoRA and DoRA
lr: float = 2e-3  # highest learning rate
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from gpt2lib.adapters import METHODS, LoRA
from gpt2lib.adapters.lora import LoRALinear
from gpt2lib.course import lessons, show
from gpt2lib.data import load_task
from gpt2lib.training import TrainingSettings

# %% [markdown]
# ## DoRA in twenty lines
#
# DoRA splits a matrix into the length and the direction of its rows, and trains both: lengths $m$ freely, directions by
# LoRA.
#
# $$y = \frac{m}{\lVert W + s B A \rVert_{\text{row}}} \odot (W x + s B A x) + b, \qquad m = \lVert W \rVert_{\text{row}} \text{ at first}$$
#
# The norm is taken as a constant in the backward pass (its section 4.3). A specification is a frozen dataclass whose
# class statement names the method; a layer says what it computes, and, if it can be merged, into what.


# %%
@dataclass(frozen=True)
class DoRA(LoRA, method="dora"):
    """Weight-decomposed low-rank adaptation (Liu et al. 2024). Trained: LoRA's parameters and d_out per layer."""

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
        y = F.linear(x, self.base.weight) + self.delta(x)
        return self.m / self.lengths() * y + self.base.bias

    @torch.no_grad()
    def merged(self):
        weight = self.base.weight
        updated = weight.double() + self.delta_weight()
        weight.copy_((self.m.double() / updated.norm(dim=1))[:, None] * updated)
        return self.base


print(DoRA(), "is one of", list(METHODS))

# %% [markdown]
# ## What comes with it

# %% tags=["nbval-check-output"]
spec = DoRA(rank=rank)
lessons.check_properties(spec, base_model)
show.check("it goes to JSON and back", DoRA.from_json(spec.to_json()) == spec)

# %% [markdown]
# ## On a task, beside LoRA

# %%
methods = {"LoRA": LoRA(rank=rank), "DoRA": spec}
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
models, table = lessons.comparison(methods, dict.fromkeys(methods, lr), data, base_model, settings)
table

# %% [markdown]
# ## What we saw, and what it does not show
#
# To keep the method, put the two classes into `gpt2lib/adapters/dora.py`, import it in `gpt2lib/adapters/__init__.py` (that
# registers it), give it a record in `gpt2lib/tasks/method.py` (its title, its colour, and the name by which every notebook and
# study has it), and add it to the list at the top of `tests/test_adapters.py`: all properties are then tested. A method that
# trains something in its own way returns a hook from `Spec.hooks`, as alpha-LoRA does. One seed on one task ranks nothing.
#
# **Exercise.** Which choice of $B$ makes DoRA's layer the base layer, whatever $A$ is, as long as $m$ has not moved?

# %% tags=["nbval-check-output"]
answer_1 = None  # a function of the shape, such as torch.ones


def keeps_the_base(make):
    torch.manual_seed(0)
    layer = DoRALinear(torch.nn.Linear(8, 6), DoRA(rank=2))
    layer.B.data = make(layer.B.shape)
    return torch.allclose(layer(torch.eye(8)), layer.base(torch.eye(8)), atol=1e-6)


show.exercise(1, answer_1, keeps_the_base, "what must B A be?")

# %% [markdown]
# **Solution** (open the cell to see it).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
show.exercise(1, torch.zeros, keeps_the_base, "")

# %% [markdown]
# **Reference.** Liu et al. 2024 (DoRA, arXiv 2402.09353).
