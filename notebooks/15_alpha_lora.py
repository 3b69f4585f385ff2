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
# **The question.** LoRA adds to the frozen weights and leaves them as they are. But how much of the *old* answer does the
# new task want?
#
# After this notebook you can
# - write alpha-LoRA's layer, and merge it,
# - say why alpha is trained on examples of its own, and how the training loop does it with a hook,
# - see which layers turn their frozen weights up, and which down.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
rank: int = 12  # of alpha-LoRA; LoRA gets the rank that matches its parameters
targets: list = ["q", "v"]  # layers the adapter sits on, among q k v o up down
every: int = 4  # steps between two updates of alpha (the authors: 10, in longer training)
lr: float = 2e-3  # highest learning rate of the LoRA parameters
lr_alpha: float = 2e-2  # constant learning rate of alpha (the authors: 5e-3)
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import pandas as pd
import torch

from gpt2lib.adapters import AlphaLoRA, LoRA, of_size, trained_count
from gpt2lib.adapters.alpha_lora import AlphaTrace, row_alphas
from gpt2lib.course import lessons, show
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.training import TrainingSettings

# %% [markdown]
# ## The layer
#
# $$y = \alpha \odot (W x + b) + s\, B A x, \qquad \alpha \in \mathbb{R}^{d_{\text{out}}}$$
#
# One number for each row of $W$, 1 at first. The authors scale the whole affine output, bias included, and so does
# this. Merged: $W \leftarrow \mathrm{diag}(\alpha) W + s B A$ and $b \leftarrow \alpha \odot b$.

# %%
W, b, x = torch.randn(6, 4), torch.randn(6), torch.randn(3, 4)  # [d_out, d_in], [d_out], [batch, d_in]
alpha, A, B, s = torch.rand(6) + 0.5, torch.randn(2, 4), torch.randn(6, 2), 2.0
y = alpha * (x @ W.T + b) + s * (x @ A.T) @ B.T  # [3, 6]
merged = x @ (alpha[:, None] * W + s * B @ A).T + alpha * b

# %% tags=["nbval-check-output"]
show.check_close("merged by rows it is the same layer", merged, y, 1e-5)
lessons.check_properties(AlphaLoRA(rank=4, targets=tuple(targets)), base_model)

# %% tags=["nbval-check-output"]
config = load_base(base_model)[0].config
counted = trained_count(AlphaLoRA(rank=4), config)
expected = 2 * config.n_layer * (4 * 2 * config.n_embd + config.n_embd)
show.check("LoRA's numbers and one for each row are trained", counted == expected, counted)

# %% [markdown]
# ## Trained apart
#
# If $\alpha$ were trained on the same examples as $A$ and $B$, it would learn how much of the old answer *these* examples
# need, which the update has already fitted. So a fifth of the training set is held out, and every $T$ steps alpha alone
# takes one step on a batch from there, by an Adam of its own. `AlphaLoRA` brings this along as a hook, which `fit` calls
# before every step; a second hook, `AlphaTrace`, keeps what alpha did.

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
table

# %% tags=["nbval-check-output"]
ratio = table["trained"]["alpha-LoRA"] / table["trained"]["LoRA"]
show.check("both have the same number of parameters, within 5 %", 0.95 < ratio < 1.05, ratio)

# %% [markdown]
# ## What alpha did

# %%
alphas = {name: alpha.detach().numpy() for name, alpha in row_alphas(models["alpha-LoRA"].body).items()}
figures.row_alphas(alphas, pd.DataFrame(trace.rows))

# %% tags=["nbval-check-output"]
moves = (
    pd.DataFrame(trace.rows).groupby("layer")["mean"].agg(lambda means: (means.diff().fillna(0) != 0).values.tolist())
)
steps = [step for step, moved in enumerate(moves.iloc[0]) if moved]
show.check(f"alpha moved once in {every} steps and at no other", all(step % every == 0 for step in steps), steps)
show.check("and it moved at all", len(steps) > 3, steps)

# %% [markdown]
# ## What we saw, and what it does not show
#
# alpha pays for its freedom with a fifth of the training examples: on a small training set that can cost more than it
# gains, and one seed does not tell. Why some alpha other than 1 should be best at all is a theorem for a linear
# classifier; notebook 14 derives it and checks it by simulation.
#
# **Exercise 1.** How many numbers does `AlphaLoRA(rank=8)` (query and value) train in `gpt2` (12 blocks of width 768)?
#
# **Exercise 2.** Which row_alpha makes the layer forget its frozen weights altogether?
#
# **Exercise 3.** Two epochs over 1,000 examples at batch size 16 with `AlphaLoRA(every=10, share=0.2)`: how often does alpha move?

# %% tags=["nbval-check-output"]
answer_1 = None
answer_2 = None
answer_3 = None
show.exercise(1, answer_1, 294_912 + 12 * 2 * 768, "LoRA's number, and one for each row")
show.exercise(2, answer_2, 0, "what must multiply W x + b?")
show.exercise(3, answer_3, 9, "800 examples are left, 50 steps an epoch; not before the first step")

# %% [markdown]
# **Solutions** (open the cell to see them).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
show.exercise(1, 12 * 2 * (8 * (768 + 768) + 768), 313_344, "")
show.exercise(2, 0, 0, "")
show.exercise(3, len(range(10, 2 * 800 // 16, 10)), 9, "")

# %% [markdown]
# **Reference.** El Firdoussi et al. 2025 (alpha-LoRA, arXiv 2510.21345).
