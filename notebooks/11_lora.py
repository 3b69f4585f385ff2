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
# # LoRA: an update of low rank
#
# **The question.** Fine-tuning changes a matrix $W$ by some $\Delta W$ of the same size. Must it be that large?
#
# After this notebook you can
# - write LoRA's layer in six lines and say what each shape is,
# - attach, train, save, load and merge an adapter, exchange it with peft, and check every one of these steps,
# - see in the singular values what an update of rank $r$ can and cannot do.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
ranks: list = [1, 4, 16]  # ranks to compare
alpha: float = 16.0  # scale: the update is alpha / rank * B A
targets: list = ["q", "v"]  # layers the adapter sits on, among q k v o up down
lr: float = 2e-3  # highest learning rate of LoRA
lr_full: float = 1e-3  # and of full fine-tuning
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import tempfile

import torch

from gpt2lib.adapters import LoRA, attach, detach, from_peft, to_peft
from gpt2lib.course import lessons, show
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.training import TrainingSettings

# %% [markdown]
# ## The layer
#
# $$y = W x + b + \frac{\alpha}{r} B A x, \qquad A \in \mathbb{R}^{r \times d_{\text{in}}},\; B \in \mathbb{R}^{d_{\text{out}} \times r}$$
#
# $W$ and $b$ are frozen. $A$ is random and $B$ starts at **zero**, so the first output is the base model's. Trained are
# $r\,(d_{\text{in}} + d_{\text{out}})$ numbers instead of $d_{\text{in}}\, d_{\text{out}}$. With the rank-stabilised scale
# $\alpha / \sqrt r$ the size of the update does not shrink as $r$ grows (Kalajdzievski 2023).

# %%
W, x = torch.randn(6, 4), torch.randn(3, 4)  # [d_out, d_in], [batch, d_in]
r, scale = 2, 8 / 2
A, B = torch.randn(r, 4), torch.zeros(6, r)
y = x @ W.T + scale * (x @ A.T) @ B.T  # [3, 4] -> [3, 2] -> [3, 6]
print("x", list(x.shape), "-> A x", list((x @ A.T).shape), "-> B A x", list(((x @ A.T) @ B.T).shape))

# %% tags=["nbval-check-output"]
show.check_close("with B = 0 the layer is the base layer", y, x @ W.T, 0)
B = torch.randn(6, r)
show.check("an update of rank 2 has rank 2", int(torch.linalg.matrix_rank(scale * B @ A)) == 2)

# %% [markdown]
# ## On a model
#
# A specification says what is wanted; `attach` freezes the model and puts the layers in.

# %%
torch.manual_seed(seed)
body, tokenizer = load_base(base_model)
spec = LoRA(rank=4, alpha=alpha, targets=tuple(targets))
attach(body, spec)
trained = sum(p.numel() for p in body.parameters() if p.requires_grad)
print(spec, "trains", f"{trained:,} of {sum(p.numel() for p in body.parameters()):,} parameters")
print(body.blocks[0].attn)

# %% tags=["nbval-check-output"]
sizes = {"q": 2, "k": 2, "v": 2, "o": 2, "up": 5, "down": 5}  # (d_in + d_out) / d of each layer
formula = body.config.n_layer * 4 * body.config.n_embd * sum(sizes[t] for t in targets)
show.check("the count is rank (d_in + d_out) for each layer", trained == formula, (trained, formula))
lessons.check_properties(spec, base_model)

# %% [markdown]
# ## Training, at several ranks and in full

# %%
data = load_task(task, source or None, quiet=True).sample(examples)
methods = {f"LoRA, rank {rank}": LoRA(rank=rank, alpha=alpha, targets=tuple(targets)) for rank in ranks}
rates = dict.fromkeys(methods, lr) | {"full": lr_full}
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
models, table = lessons.comparison(methods | {"full": "full"}, rates, data, base_model, settings)
table

# %% [markdown]
# ## What the update looks like
#
# The singular values of $\Delta W$ of the last block's query layer. LoRA's stop at its rank; full fine-tuning has no
# such wall, and its first few are still the largest by far: that is the observation LoRA is built on.

# %%
base, _ = load_base(base_model)
target = targets[0] if targets[0] in "qkvo" else "q"
deltas = {}
for name, model in models.items():
    layer = getattr(model.body.blocks[-1].attn, target)
    if name == "full":
        deltas[name] = (layer.weight - getattr(base.blocks[-1].attn, target).weight).detach().numpy()
    else:
        deltas[name] = layer.delta_weight().detach().numpy()
figures.singular_values(deltas, max(ranks))

# %% tags=["nbval-check-output"]
for rank in ranks:
    seen = int(torch.linalg.matrix_rank(torch.as_tensor(deltas[f"LoRA, rank {rank}"]), rtol=1e-6))
    show.check(f"the update of rank {rank} has at most that rank", seen <= rank, seen)

# %% [markdown]
# ## To peft and back
#
# transformers keeps query, key and value in one matrix, `c_attn`. LoRA of rank $r$ on two of the three is one LoRA of
# rank $2r$ on it: the $A$ stacked, the $B$ block-diagonal, $\alpha$ doubled. `to_peft` writes that folder, and
# `from_peft` reads it, or any that peft saved.

# %%
folder = tempfile.mkdtemp()
adapted = models[f"LoRA, rank {ranks[0]}"].body.eval()
ids = torch.randint(0, body.config.vocab_size, (2, 12))
with torch.no_grad():
    expected = adapted(ids)
    to_peft(adapted, folder)
    again = from_peft(detach(adapted), folder)(ids)

# %% tags=["nbval-check-output"]
show.check_close("through peft's folder and back: the same outputs", again, expected, 1e-4, "adapters/peft_format.py")

# %% [markdown]
# ## What we saw, and what it does not show
#
# Attaching costs nothing, merging leaves nothing behind, and the trained parameters are a small share of all. Whether
# few of them are *enough* depends on the base: the more it knows already, the less has to move. One seed on one task of
# made-up sentences is no ranking.
#
# **Exercise 1.** How many parameters does `LoRA(rank=8, targets=("q", "v"))` train in `gpt2` (12 blocks of width 768)?
#
# **Exercise 2.** Two adapters, $B_1 A_1$ and $B_2 A_2$, both of rank $r = 2$: what is the largest rank of their sum?

# %% tags=["nbval-check-output"]
answer_1 = None
answer_2 = None
show.exercise(1, answer_1, 294_912, "r (d_in + d_out) for each of the two targets in each block")
show.exercise(2, answer_2, 4, "stack the A and put the B side by side")

# %% [markdown]
# **Solutions** (open the cell to see them).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
show.exercise(1, 12 * 2 * 8 * (768 + 768), 294_912, "")
two = torch.randn(9, 2) @ torch.randn(2, 9) + torch.randn(9, 2) @ torch.randn(2, 9)
show.exercise(2, int(torch.linalg.matrix_rank(two)), 4, "")

# %% [markdown]
# **References.** Hu et al. 2021 (LoRA, arXiv 2106.09685); Kalajdzievski 2023 (rank-stabilised, arXiv 2312.03732).
