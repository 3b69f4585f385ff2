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
# # KronA: updates that are Kronecker products
#
# **The question.** LoRA buys few parameters with low rank. Can an update be small *and* of full rank? Needs notebook
# [11](11_lora.ipynb). It runs in about two minutes on one core.
#
# After this notebook you can
# - apply a Kronecker product without forming it, and say what that saves,
# - read an update's singular values, and tell LoRA from KronA by them at the same number of parameters,
# - put the product beside a layer (KronA) or beside the whole feed-forward block (KronA_B, KronA_B_res).

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
targets: list = ["q", "v"]  # layers that LoRA and KronA sit on, among q k v o up down
rates: list = [2e-3, 8e-3, 3.2e-2, 1.28e-1, 5.12e-1]  # highest learning rates: each method takes its best on dev
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import torch

from gpt2lib.adapters import KronA, KronAB, LoRA, of_size, trained_count
from gpt2lib.adapters.krona import factor_shapes, kronecker_linear
from gpt2lib.course import Verdicts, exercise, lessons, predict
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.training import TrainingSettings

check = Verdicts()


# %% [markdown]
# ## The product that is never formed
#
# $$y = W x + b + s\,(A \otimes B)\, x, \qquad A \in \mathbb{R}^{a_1 \times a_2},\; B \in \mathbb{R}^{b_1 \times
# b_2},\quad a_1 b_1 = d_{\text{out}},\; a_2 b_2 = d_{\text{in}}$$
#
# $A \otimes B$ is the matrix of blocks $A_{ij} B$. Read $x$ row by row as a matrix $X \in \mathbb{R}^{a_2 \times b_2}$;
# then $(A \otimes B)\,x$ is $A X B^\top$, read row by row: two small products in place of one large one.
#
# **Exercise 1.** Write it, without ever forming $A \otimes B$.
#
# <details><summary>Hint</summary>
#
# `x.unflatten(-1, (a2, b2))` reads the last dimension row by row, and `flatten(-2)` undoes it; `@` works on the last
# two dimensions and leaves all others alone.
#
# </details>


# %% tags=["cases"]
def kronecker_cases():
    """x, A and B: a batch with square factors, one vector with none, and two batch dimensions."""
    draws = torch.Generator().manual_seed(2)
    for batch, a, b in (((3,), (4, 4), (4, 4)), ((), (2, 3), (5, 4)), ((2, 3), (3, 1), (2, 6))):
        sizes = ((*batch, a[1] * b[1]), a, b)
        yield [torch.randn(size, generator=draws, dtype=torch.float64) for size in sizes]


def try_kronecker(function):
    """The results, and how often `torch.kron` was called: the product is not to be formed."""
    forms, kron = [], torch.kron
    torch.kron = lambda *factors: forms.append(factors) or kron(*factors)
    try:
        return [function(*case) for case in kronecker_cases()] + [f"torch.kron was called {len(forms)} times"]
    finally:
        torch.kron = kron


# %% tags=["exercise"]
@exercise(
    "1 kronecker",
    like=kronecker_linear,
    run=try_kronecker,
    look="X is [a2, b2]: what stands on its left, what on its right",
)
def kronecker(x, A, B):
    """x [..., a2 b2], A [a1, a2], B [b1, b2] -> (A kron B) x: [..., a1 b1]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@kronecker.mistake("the product is formed: right, and as dear as a full matrix")
def kronecker(x, A, B):
    return x @ torch.kron(A, B).T


@kronecker.mistake("x is read column by column: that is (B kron A) x with its outputs in another order")
def kronecker(x, A, B):
    X = x.unflatten(-1, (B.shape[1], A.shape[1])).mT
    return (A @ X @ B.T).flatten(-2)


@kronecker.mistake("the result is read column by column")
def kronecker(x, A, B):
    return (A @ x.unflatten(-1, (A.shape[1], B.shape[1])) @ B.T).mT.flatten(-2)


@kronecker.solution
def kronecker(x, A, B):
    X = x.unflatten(-1, (A.shape[1], B.shape[1]))  # [..., a2, b2]
    return (A @ X @ B.T).flatten(-2)  # [..., a1, b1] -> [..., a1 b1]


# %%
A, B = torch.randn(24, 24, dtype=torch.float64), torch.randn(32, 32, dtype=torch.float64)
x = torch.randn(256, 768, dtype=torch.float64)
formed = x @ torch.kron(A, B).T
unformed = kronecker(x, A, B)  # [256, 768] -> [256, 24, 32] -> [256, 768]
print("numbers in A and B:", A.numel() + B.numel(), "of", 768 * 768)
print("multiplications for one x:", 24 * 32 * (32 + 24), "of", 768 * 768)

# %%
check.close("A X B^T is the product with the Kronecker matrix", unformed, formed, 1e-9)
rank = int(torch.linalg.matrix_rank(torch.kron(A, B)))
check("the rank of a Kronecker product is the product of the ranks: here full", rank == 768, rank)

# %% [markdown]
# ## Which shapes?
#
# $a_1 a_2 + b_1 b_2$ parameters, and $a_1 a_2 \cdot b_1 b_2 = d_{\text{out}} d_{\text{in}}$: so at least
# $2 \sqrt{d_{\text{out}} d_{\text{in}}}$ of them, as many as LoRA of rank 1 on a square layer has. The default takes
# the divisors nearest the square roots; `budget` asks for a number.

# %%
for budget in (None, 1536, 3072, 12288):
    a, b = factor_shapes(768, 768, budget=budget)
    print(f"budget {budget}: A {list(a)}, B {list(b)}: {a[0] * a[1] + b[0] * b[1]} parameters")

# %% [markdown]
# ## Three places for it, and what must hold for each
#
# **KronA** stands beside a linear layer and merges into it: no cost after training. **KronA_B** stands beside the whole
# feed-forward block, $\mathrm{FFN}(x) + s (A \otimes B) x$, and **KronA_B_res** adds $s_{\text{res}}\, x$ with one
# learned number a block (0 at first here, so that nothing changes; the paper leaves its start open). Beside a nonlinear
# block nothing can be merged, and `merge` says so.

# %%
for spec in (KronA(targets=tuple(targets)), KronAB(), KronAB(residual=True)):
    properties = Verdicts()
    lessons.check_properties(spec, base_model, properties)
    name = spec.method + (" with residual" if getattr(spec, "residual", False) else "")
    check(f"{name} has all {len(properties.claims)} properties of an adapter", True)

# %%
config = load_base(base_model)[0].config
a, b = factor_shapes(config.n_embd, config.n_embd)
each = a[0] * a[1] + b[0] * b[1]
counted = trained_count(KronA(targets=("q", "v")), config), trained_count(KronAB(residual=True), config)
expected = 2 * config.n_layer * each, config.n_layer * (each + 1)
check("a1 a2 + b1 b2 numbers are trained for each layer, one more for a residual", counted == expected, counted)

# %% [markdown]
# ## Against LoRA, at the same number of parameters

# %%
body, _ = load_base(base_model)
krona = KronA(targets=tuple(targets), budget=2 * body.config.n_embd)
size = trained_count(krona, body.config)
methods = {"KronA": krona, "KronA_B": KronAB(budget=size // body.config.n_layer)}
methods |= {"KronA_B_res": KronAB(budget=size // body.config.n_layer, residual=True)}
methods["LoRA"] = of_size(LoRA(targets=tuple(targets)), size, body.config)
print(methods["LoRA"])

# %%
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
models, table = lessons.comparison(methods, rates, data, base_model, settings)
table.round(4)

# %%
ratio = table["trained"] / table["trained"]["LoRA"]
check("as many parameters each, as near as divisors come (a tenth)", bool(ratio.between(0.9, 1.1).all()), dict(ratio))

# %% [markdown]
# ## What the updates look like
#
# Equal parameters, different freedom: LoRA spends them on a few directions, KronA on all of them at once, but tied to
# each other. The singular values of $A \otimes B$ are the products of theirs, so they fall slowly.

# %%
guess = predict(
    f"LoRA of rank {methods['LoRA'].rank} has as many parameters. What is the rank of KronA's trained update?"
)(None)

# %%
target = targets[0] if targets[0] in "qkvo" else "q"
deltas = {
    name: getattr(models[name].body.blocks[-1].attn, target).delta_weight().detach().numpy()
    for name in ("LoRA", "KronA")
}
figures.singular_values(deltas, methods["LoRA"].rank, shown=body.config.n_embd)

# %%
ranks = {name: int(torch.linalg.matrix_rank(torch.as_tensor(delta), rtol=1e-6)) for name, delta in deltas.items()}
guess.was(
    ranks["KronA"],
    f"The layer is of width {body.config.n_embd}, LoRA's update of rank {ranks['LoRA']}: the rank of the product is "
    "the product of its factors' ranks.",
    digits=0,
)
check("KronA's update has a far higher rank than LoRA's", ranks["KronA"] > 8 * ranks["LoRA"], ranks)

# %% [markdown]
# ## What we saw, and what it does not show
#
# The rank of an update is not its number of parameters, and a higher rank is no promise of a better result. Nor is the
# table: each method had the best of the same rates there, chosen on the dev set that it is reported on, but it is one
# seed on one small task. The column `lr` is worth a look: KronA's best rate is many times LoRA's, so that one rate for
# both would have compared rates. (Nor are the scales equal: LoRA's is $\alpha / r$, 16 where KronA's size leaves it
# rank 1, and KronA's is 1. A rate makes up for some of that, not for all.) The main study asks it on a better base,
# with rates tuned on a held-out part and several seeds, and notebook 22 tests such differences in pairs. The paper's
# gains over LoRA were measured on T5 and GLUE.
#
# **Exercise 2.** In `gpt2` (width 768), how many parameters has `KronAB(residual=True, shape=(24, 24))` in all 12
# blocks?
#
# <details><summary>Hint</summary>
#
# a1 a2 + b1 b2, and one for the residual, in each block.
#
# </details>

# %% tags=["exercise"]
numbers = exercise("2 numbers", digest="7853501d4de9")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
numbers.mistake("the residual's number is left out")(12 * (24 * 24 + 32 * 32))
numbers.mistake("B is taken to have A's shape")(12 * (2 * 24 * 24 + 1))
numbers = numbers.solution(12 * (24 * 24 + 32 * 32 + 1))

# %% [markdown]
# **Exercise 3.** For a layer of 3072 x 768, what is the least number of parameters that any shape of KronA can have?
#
# <details><summary>Hint</summary>
#
# $2 \sqrt{d_{\text{out}} d_{\text{in}}}$ is a bound. Is it reached by divisors?
#
# </details>

# %% tags=["exercise"]
least = exercise("3 least", digest="b66555eca4f8")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
least.mistake("that is LoRA of rank 1: KronA can be smaller where a layer is not square")(3072 + 768)
least.mistake("one factor is counted, and not both")(1536)
least = least.solution(int(2 * (3072 * 768) ** 0.5))

# %%
a, b = factor_shapes(3072, 768, budget=2)
check("there are divisors that reach the bound", a[0] * a[1] + b[0] * b[1] == least, (a, b))

# %% [markdown]
# | paper | section or equation | here | where it deviates |
# |---|---|---|---|
# | [Edalati et al. 2022](https://arxiv.org/abs/2212.10650) | KronA, beside a linear layer | `KronA`, `kronecker_linear` in [krona.py](../gpt2lib/adapters/krona.py) | of the two orders of multiplication the cheaper; query and value of GPT-2 in place of T5's |
# | the same | KronA_B, beside the feed-forward block | `KronAB`, the same file | none |
# | the same | KronA_B_res, a learned residual | `KronAB(residual=True)` | its number starts at 0; the paper leaves it open |
# | [Hu et al. 2021](https://arxiv.org/abs/2106.09685) | the low-rank update | `LoRA` in [lora.py](../gpt2lib/adapters/lora.py) | none |
#
# **References.** Edalati et al. 2022, [KronA](https://arxiv.org/abs/2212.10650). [peft's
# LoKr](https://huggingface.co/docs/peft/package_reference/lokr) is the same product for ordinary linear layers; it
# cannot be attached to transformers' GPT-2, whose layers are of another class.

# %% tags=["nbval-check-output"]
check.table()
