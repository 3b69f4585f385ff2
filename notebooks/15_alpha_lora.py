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
# # alpha-LoRA: rescaling what is frozen
#
# **The question.** LoRA adds to the frozen weights and leaves them as they are. But how much of the *old* answer does
# the new task want? Needs notebooks [11](11_lora.ipynb) and [14](14_alpha_theory.ipynb). It runs in about half a minute
# on one core.
#
# After this notebook you can
# - write alpha-LoRA's layer, and merge it,
# - say why alpha is trained on examples of its own, and how the training loop does it with a hook,
# - read what alpha did in one run, and say why that is not yet a fact about the layers.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
rank: int = 12  # of alpha-LoRA; LoRA gets the rank that matches its parameters
targets: list = ["q", "v"]  # layers the adapter sits on, among q k v o up down
every: int = 4  # steps between two updates of alpha (the authors: 10, in longer training)
lr: float = 8e-3  # highest learning rate of the LoRA parameters, in either method
lr_alpha: float = 2e-2  # constant learning rate of alpha (the authors: 5e-3)
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import pandas as pd
import torch

from gpt2lib import report
from gpt2lib.adapters import AlphaLoRA, LoRA, of_size, trained_count
from gpt2lib.adapters.alpha_lora import AlphaTrace, row_alphas
from gpt2lib.course import Verdicts, exercise, lessons, predict
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.training import TrainingSettings

check = Verdicts()


# %% [markdown]
# ## The layer
#
# $$y = \alpha \odot (W x + b) + s\, B A x, \qquad \alpha \in \mathbb{R}^{d_{\text{out}}}$$
#
# One number for each row of $W$, 1 at first. The authors scale the whole affine output, bias included, and so does
# this. Merged: $W \leftarrow \mathrm{diag}(\alpha) W + s B A$ and $b \leftarrow \alpha \odot b$.
#
# **Exercise 1.** Write both, the layer and what it merges into.
#
# <details><summary>Hint</summary>
#
# $\mathrm{diag}(\alpha) W$ is `alpha[:, None] * W`. For a batch `x` `[batch, d_in]`, $W x$ is `x @ W.T`.
#
# </details>


# %% tags=["cases"]
def layer_cases():
    draws = torch.Generator().manual_seed(3)

    def number(*shape):
        return torch.randn(*shape, generator=draws)

    return [
        (number(3, d_in), number(d_out, d_in), number(d_out), number(2, d_in), number(d_out, 2), 2.0, number(d_out) + 1)
        for d_out, d_in in ((6, 4), (5, 5))
    ]


def library_layer(x, W, b, A, B, s, alpha):
    """The library's layer with these numbers in it."""
    base = torch.nn.Linear(*W.T.shape)
    layer = AlphaLoRA(rank=2, alpha=2 * s).layer(base)
    for parameter, value in ((base.weight, W), (base.bias, b), (layer.A, A), (layer.B, B), (layer.row_alpha, alpha)):
        parameter.data.copy_(value)
    return layer


def try_layer(function):
    return [function(*case) for case in layer_cases()]


def library_merged(*numbers):
    merged = library_layer(*numbers).merged()
    return merged.weight.detach(), merged.bias.detach()


# %% tags=["exercise"]
@exercise("1a forward", like=lambda *numbers: library_layer(*numbers)(numbers[0]).detach(), run=try_layer)
def forward(x, W, b, A, B, s, alpha):
    """x [batch, d_in], W [d_out, d_in], b and alpha [d_out], A [r, d_in], B [d_out, r], s a number -> y [batch,
    d_out]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@forward.mistake("alpha scales W x and not the bias")
def forward(x, W, b, A, B, s, alpha):
    return alpha * (x @ W.T) + b + s * (x @ A.T) @ B.T


@forward.mistake("alpha scales the update, too")
def forward(x, W, b, A, B, s, alpha):
    return alpha * (x @ W.T + b + s * (x @ A.T) @ B.T)


@forward.mistake("the scale s is forgotten")
def forward(x, W, b, A, B, s, alpha):
    return alpha * (x @ W.T + b) + (x @ A.T) @ B.T


@forward.solution
def forward(x, W, b, A, B, s, alpha):
    return alpha * (x @ W.T + b) + s * (x @ A.T) @ B.T


# %% tags=["exercise"]
@exercise("1b merged", like=library_merged, run=try_layer, look="rows, and the bias")
def merged(x, W, b, A, B, s, alpha):
    """The same arguments -> a pair: the weight [d_out, d_in] and the bias [d_out] of one plain layer; x is not
    needed"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@merged.mistake("the bias is left as it was")
def merged(x, W, b, A, B, s, alpha):
    return alpha[:, None] * W + s * B @ A, b


@merged.mistake("alpha scales the update, too")
def merged(x, W, b, A, B, s, alpha):
    return alpha[:, None] * (W + s * B @ A), alpha * b


@merged.solution
def merged(x, W, b, A, B, s, alpha):
    return alpha[:, None] * W + s * B @ A, alpha * b


# %%
for case in layer_cases():
    weight, bias = merged(*case)
    check.close(
        f"a layer of {list(weight.shape)}, merged, is the same layer", case[0] @ weight.T + bias, forward(*case), 1e-4
    )
lessons.check_properties(AlphaLoRA(rank=4, targets=tuple(targets)), base_model, check)

# %%
config = load_base(base_model)[0].config
counted = trained_count(AlphaLoRA(rank=4), config)
expected = 2 * config.n_layer * (4 * 2 * config.n_embd + config.n_embd)
check("LoRA's numbers and one for each row are trained", counted == expected, counted)

# %% [markdown]
# ## Trained apart
#
# If $\alpha$ were trained on the same examples as $A$ and $B$, it would learn how much of the old answer *these*
# examples need, which the update has already fitted. So a fifth of the training set is held out, and every $T$ steps
# alpha alone takes one step on a batch from there, by an Adam of its own. `AlphaLoRA` brings this along as a hook,
# which `fit` calls before every step; a second hook, `AlphaTrace`, keeps what alpha did.

# %%
body, _ = load_base(base_model)
own = AlphaLoRA(rank=rank, targets=tuple(targets), every=every, lr_alpha=lr_alpha)
size = trained_count(own, body.config)
methods = {"alpha-LoRA": own, "LoRA": of_size(LoRA(targets=tuple(targets)), size, body.config)}
trace = AlphaTrace(every=1)
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
rates = dict.fromkeys(methods, lr)
models, table = lessons.comparison(methods, rates, data, base_model, settings, hooks={"alpha-LoRA": [trace]})
print(methods["LoRA"])
table.round(4)

# %%
ratio = table["trained"]["alpha-LoRA"] / table["trained"]["LoRA"]
check("both have the same number of parameters, within 5 %", 0.95 < ratio < 1.05, ratio)

# %% [markdown]
# ## What alpha did

# %%
first, second = "whole layers move: their mean leaves 1", "rows move apart: they spread around their mean"
guess = predict("Which is larger at the end, averaged over the layers?", [first, second])(None)

# %%
alphas = {name: alpha.detach().numpy() for name, alpha in row_alphas(models["alpha-LoRA"].body).items()}
shift = sum(abs(alpha.mean() - 1) for alpha in alphas.values()) / len(alphas)
spread = sum(alpha.std() for alpha in alphas.values()) / len(alphas)
guess.was(
    first if shift > spread else second,
    f"The layers' means are {shift:.3f} away from 1 on average, the rows' standard deviation is {spread:.3f}.",
)
moves = sum(step > 0 and step % every == 0 for step in {row["step"] for row in trace.rows})
noise = lessons.alphas_of_noise(own, moves)
print(f"after {moves} moves on gradients that are nothing but noise it would be {noise.std():.3f}")
figures.row_alphas(alphas, pd.DataFrame(trace.rows), reach=moves * lr_alpha)

# %% [markdown]
# Do not read the width of the boxes as what the task wants. Adam's step is about `lr_alpha`, however small the
# gradient: a row whose gradients always point the same way goes as far as the dotted lines, and one whose gradients are
# pure noise still wanders by a known amount, which is printed above, in every layer alike. Only what goes beyond that
# amount says anything, and only if another seed says it too.

# %%
changed = (
    pd.DataFrame(trace.rows).groupby("layer")["mean"].agg(lambda means: (means.diff().fillna(0) != 0).values.tolist())
)
steps = [step for step, moved in enumerate(changed.iloc[0]) if moved]
check(f"alpha moved once in {every} steps and at no other", all(step % every == 0 for step in steps), steps)
check("and it moved at all", len(steps) > 3, steps)

# %% [markdown]
# ## Is it a fact about the layers?
#
# It is tempting to read the figure: this layer wants less of its old answer, that row more. If it were so, another seed
# would give the same pattern. Notebook 16's study has three seeds of each run on real data; here is how alike the
# alphas of two seeds are, row by row (1: the same pattern; 0: nothing in common).

# %%
rows = pd.read_parquet(report.FOLDER / "results" / "alpha-rows.parquet")
wide = rows.pivot(index=["task", "examples", "layer", "row"], columns="seed", values="alpha")
alike = wide.groupby(["task", "examples", "layer"]).corr().rename_axis(["task", "examples", "layer", "other"]).stack()
alike = alike[alike.index.get_level_values("other") < alike.index.get_level_values("seed")]
alike.groupby(["task", "examples"]).agg(["mean", "min", "max"]).round(2)

# %% [markdown]
# ## What we saw, and what it does not show
#
# The figure of one run is a figure of one run: which rows go up and which down agrees little between seeds, so it tells
# little about what the task wants of a layer. (On SST the agreement grows with the number of examples; whether more
# data would make a pattern of it, nothing here says.) alpha pays for its freedom with a fifth of the training examples,
# and in notebook 16's study the recipe as a whole is a little worse than LoRA of the same size. We teach it all the
# same: for the layer, for the hook, and as an idea that was taken from a theorem to a place where the theorem does not
# hold. Notebook 14 has the theorem, for a linear classifier, and what is gained there.
#
# ## Three questions
#
# **Exercise 2.** How many numbers does `AlphaLoRA(rank=8)` (query and value) train in `gpt2` (12 blocks of width 768)?
#
# <details><summary>Hint</summary>
#
# LoRA's number, and one for each row.
#
# </details>

# %% tags=["exercise"]
numbers = exercise("2 numbers", digest="fa5806fc3420")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
numbers.mistake("the rows' alphas are left out")(12 * 2 * 8 * (768 + 768))
numbers.mistake("query and value are counted as one layer")(12 * (8 * (768 + 768) + 768))
numbers = numbers.solution(12 * 2 * (8 * (768 + 768) + 768))

# %% [markdown]
# **Exercise 3.** Which row_alpha makes the layer forget its frozen weights altogether?

# %% tags=["exercise"]
forgetting = exercise("3 forgetting", digest="933acc418825")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
forgetting.mistake("the layer is LoRA's: all of the old answer is kept")(1)
forgetting.mistake("the old answer is turned round, and not forgotten")(-1)
forgetting = forgetting.solution(0)

# %% [markdown]
# **Exercise 4.** Two epochs over 1,000 examples at batch size 16 with `AlphaLoRA(every=10, share=0.2)`: how often does
# alpha move?
#
# <details><summary>Hint</summary>
#
# 800 examples are left, 50 steps an epoch, numbered from 0; alpha does not move before the first step.
#
# </details>

# %% tags=["exercise"]
moved = exercise("4 moved", digest="b5cae676df88")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
moved.mistake("alpha moves before the first step, too")(10)
moved.mistake("the fifth that is held out is counted as trained on")(len(range(10, 2 * 63, 10)))
moved = moved.solution(len(range(10, 2 * 800 // 16, 10)))

# %% [markdown]
# | paper | section or equation | here | where it deviates |
# |---|---|---|---|
# | [El Firdoussi et al. 2025](https://arxiv.org/abs/2510.21345) | the layer, one alpha a row | `AlphaLoRALinear` in [alpha_lora.py](../gpt2lib/adapters/alpha_lora.py) | 1 at first, where their code may draw it; $s = \alpha / r$ of LoRA, 4/3 here, where it has 1 |
# | the same | alpha trained on data of its own, every $T$ steps, by an Adam of its own | `AlphaUpdates`, the same file | these data are held out from LoRA, where their public code shares them; here $T = 4$ and a rate of 0.02, for short training |
# | [Hu et al. 2021](https://arxiv.org/abs/2106.09685) | eq. 3, $B = 0$ at first | `LoRALinear` in [lora.py](../gpt2lib/adapters/lora.py) | none |
#
# **References.** El Firdoussi et al. 2025, [alpha-LoRA](https://arxiv.org/abs/2510.21345). Hu et al. 2021,
# [LoRA](https://arxiv.org/abs/2106.09685).

# %% tags=["nbval-check-output"]
check.table()
