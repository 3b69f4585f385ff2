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
# # Debugging: five ways in which a model learns nothing, or too much
#
# **The question.** A broken model seldom stops with an error. It trains, slowly, to something disappointing. How does
# one find out that it is broken, and where?
#
# After this notebook you can
# - say what the first loss must be, before anything is trained,
# - tell a model that cannot learn from one that has not learned yet, by a single batch,
# - read a sweep of learning rates, and a table of gradients,
# - prove that no token sees its own future.
#
# **How it goes.** Five cells below are **broken**, each as real code has been. The cell after it shows the symptom.
# Mend the broken cell, run it, and run the symptom again: it should be gone. Needs notebook 02. It runs in half a
# minute on one core.

# %% tags=["parameters"]
vocab_size: int = 50  # tokens of the made-up language
n_embd: int = 32  # width of the patients
steps: int = 150  # updates of each training run
lr: float = 5e-3  # learning rate where none is being looked for
seed: int = 0

# %%
import math

import torch
import torch.nn.functional as F
from torch import nn

from gpt2lib import GPT2, AdamW, GPT2Config
from gpt2lib.adapters import LoRA
from gpt2lib.course import Verdicts, diagnose, exercise, predict
from gpt2lib.report import figures

check = Verdicts()
_ = torch.manual_seed(seed)

# %% [markdown]
# ## The patients
#
# Small GPT-2s, and a made-up language in which token $x$ is followed by $3x + 1$ (modulo the vocabulary's size), but
# for one token in ten, which is random. A model that works learns it in seconds. On text that it has not seen, no loss
# can stay below the language's own entropy:

# %% tags=["cases"]
config = GPT2Config(n_layer=2, n_head=2, n_embd=n_embd, vocab_size=vocab_size, n_positions=32)
text = diagnose.chain(rows=16 * steps, length=32, vocab_size=vocab_size)
batches = list(text.split(16))  # each [16, 32]


def library_loss(model, ids):
    """The mean loss of the next tokens: ids [batch, seq] -> a number."""
    logits = model.logits(model(ids))[:, :-1]  # [batch, seq - 1, vocab_size]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


# %%
hit, miss = 0.9 + 0.1 / vocab_size, 0.1 / vocab_size  # the probability of the rule's token, and of each other one
entropy = -hit * math.log(hit) - (vocab_size - 1) * miss * math.log(miss)
healthy = GPT2(config)
losses = diagnose.losses_of(healthy, library_loss, batches, lr)
floors = {"log V": [math.log(vocab_size)] * steps, "entropy of the language": [entropy] * steps}
figures.curves(range(1, steps + 1), {"a healthy model": losses} | floors, "step", "loss (nats a token)")

# %%
check("a healthy model begins at log V within 0.1", abs(losses[0] - math.log(vocab_size)) < 0.1, losses[0])
check("it comes within 0.3 of the language's entropy", abs(losses[-1] - entropy) < 0.3, (losses[-1], entropy))

# %% [markdown]
# ## 1. The first loss is log V
#
# **The instrument.** Before training, a model knows nothing: it should give every token about the same chance, $1/V$,
# and so lose $\log V$. A first loss far *above* means that it begins with strong opinions, all of them wrong, and the
# first hundreds of steps go into unlearning them. One *below* means that it sees the answers, as where the targets are
# not shifted by one. (A mask that leaks does not show here: an untrained model makes nothing of what it sees.)

# %%
first = predict(
    "All matrices are drawn with standard deviation 1, PyTorch's default for embeddings. Where is the first loss?",
    ["at log V", "far above", "below"],
)(None)


# %% tags=["cases"]
def try_initialise(function):
    result = {}
    for depth in (1, 4):
        model = GPT2(GPT2Config(n_layer=depth, n_head=2, n_embd=32, vocab_size=50, n_positions=32))
        function(model)
        loss = library_loss(model, torch.randint(50, (16, 32)))
        norms = diagnose.gradient_norms(model, loss)
        matrices = [norm for name, norm in norms.items() if name.endswith("weight") and "ln_" not in name]
        result[f"depth {depth}, the first loss is within 0.2 of log V"] = abs(loss.item() - math.log(50)) < 0.2
        result[f"depth {depth}, every matrix gets a gradient"] = min(matrices) > 0
        drawn = {name: p.std().item() for name, p in model.named_parameters() if p.dim() == 2}
        smaller = ("o.weight", "down.weight", "wpe.weight")  # may be so: they write to the stream, or GPT-2's were
        low = min(spread for name, spread in drawn.items() if not name.endswith(smaller))
        of_gpt2 = low > 0.01 and 0.004 < min(drawn.values()) <= max(drawn.values()) < 0.04
        result[f"depth {depth}, deviations of matrices are about GPT-2's 0.02"] = of_gpt2
        vectors = {name: p for name, p in model.named_parameters() if p.dim() == 1}
        result[f"depth {depth}, biases are 0 and the norms' scales 1"] = all(
            bool((p == float(name.endswith("weight"))).all()) for name, p in vectors.items()
        )
    return result


# %% tags=["exercise", "broken"]
@exercise(
    "1 initialise",
    like=lambda model: model.reset_parameters(),
    run=try_initialise,
    look="the size of the numbers that are drawn",
)
def initialise(model):
    """Draw the weights of a GPT-2, in place."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)


# %% [markdown]
# The symptom: the curve begins far above $\log V$.

# %%
patient = GPT2(config)
initialise(patient)
losses = diagnose.losses_of(patient, library_loss, batches, lr)
first.was(
    "far above" if losses[0] > 1.5 * math.log(vocab_size) else "at log V",
    {
        "far above": (
            f"It is {losses[0] / math.log(vocab_size):.0f} times log V. The output layer is the token embedding: "
            f"products of vectors of {n_embd} numbers of size 1 are logits of about {n_embd**0.5:.0f}, and wrong ones."
        ),
        "at log V": "The cell is mended.",
    },
)
figures.curves(range(1, len(losses) + 1), {"patient 1": losses} | floors, "step", "loss (nats a token)")


# %% [markdown]
# <details><summary>Hint</summary>
#
# GPT drew its matrices with a standard deviation of 0.02 ([Radford et al.
# 2018](https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf), section 4.1),
# and GPT-2's code does.
#
# </details>


# %% jupyter={"source_hidden": true} tags=["solution"]
@initialise.mistake("everything is 0: the first loss is log V to the last digit, and no gradient gets through")
def initialise(model):
    for name, parameter in model.named_parameters():
        nn.init.constant_(parameter, float("ln_" in name and name.endswith("weight")))


@initialise.solution
def initialise(model):
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)


# %% [markdown]
# ## 2. Overfit one batch
#
# **The instrument.** Give the model one batch, again and again. It has only to learn it by heart, and anything with
# enough parameters can: the loss must go to about **0**. If it does not, do not tune anything: something is broken
# between the logits and the weights.

# %%
stuck = predict("The loss below applies a softmax too many. What does it reach on one batch, in nats? log V is 3.9.")(
    None
)

# %% tags=["cases"]
one_batch = torch.randint(50, (4, 16), generator=torch.Generator().manual_seed(1))


def try_loss(function):
    torch.manual_seed(0)
    model = GPT2(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=50, n_positions=32))
    first = function(model, one_batch).item()
    losses = diagnose.losses_of(model, function, [one_batch] * 120, 1e-2)
    return {"the first loss": first, "one batch is learned to below 0.1": losses[-1] < 0.1}


# %% tags=["exercise", "broken"]
@exercise("2 batch_loss", like=library_loss, run=try_loss, tolerance=1e-4, look="what cross_entropy expects")
def batch_loss(model, ids):
    """The mean loss of the next tokens: ids [batch, seq] -> a number"""
    logits = model.logits(model(ids))[:, :-1]  # [batch, seq - 1, vocab_size]
    probabilities = logits.softmax(-1)
    return F.cross_entropy(probabilities.flatten(0, 1), ids[:, 1:].flatten())


# %% [markdown]
# The symptom: the first loss is right, and the curve stops high up.

# %%
losses = diagnose.losses_of(GPT2(config), batch_loss, [batches[0]] * steps, lr)
lowest = math.log(math.e + vocab_size - 1) - 1  # a softmax of numbers between 0 and 1 can favour one only so much
stuck.was(
    losses[-1],
    "Numbers between 0 and 1 taken for logits can give the right token at most e / (e + V - 1) of the chance: the "
    f"loss never falls below {lowest:.2f}.",
)
figures.curves(
    range(1, steps + 1),
    {"patient 2": losses, "log V": floors["log V"], "least that it can": [lowest] * steps},
    "step",
    "loss (nats a token)",
)


# %% [markdown]
# <details><summary>Hint</summary>
#
# `F.cross_entropy` takes **logits**: it computes the logarithm of the softmax itself.
#
# </details>


# %% jupyter={"source_hidden": true} tags=["solution"]
@batch_loss.mistake("each token is predicted from itself: one batch is learned at once, and so is every other")
def batch_loss(model, ids):
    return F.cross_entropy(model.logits(model(ids)).flatten(0, 1), ids.flatten())


@batch_loss.solution
def batch_loss(model, ids):
    logits = model.logits(model(ids))[:, :-1]  # [batch, seq - 1, vocab_size]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


# %%
losses = diagnose.losses_of(GPT2(config), batch_loss, [batches[0]] * steps, lr)
check("mended, the model learns one batch by heart", losses[-1] < 0.1, losses[-1])


# %% [markdown]
# ## 3. Sweep the learning rate
#
# **The instrument.** Train for a moment at rates a factor of three apart. The result must be a **valley**: too small a
# rate has not arrived, too large a one blows up. A best rate at the edge of the sweep says: look further. No valley at
# all says that the rate is not what you think it is.


# %% tags=["cases"]
def library_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def try_rate(function):
    """How far one step moves weights in two groups, after the rate was changed."""
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))]
    optimizer = AdamW([{"params": weights[:1]}, {"params": weights[1:]}], lr=0.001)
    function(optimizer, 0.1)
    sum(weights).sum().backward()
    optimizer.step()
    return {"a step at rate 0.1, first group": weights[0].detach(), "second group": weights[1].detach()}


# %% tags=["exercise", "broken"]
@exercise(
    "3 set_rate", like=library_rate, run=try_rate, tolerance=1e-4, look="where a running optimiser reads its rate"
)
def set_rate(optimizer, lr):
    """Change the learning rate of a running optimiser."""
    optimizer.defaults["lr"] = lr


# %%
def swept(set_rate, rates, updates=40):
    """The mean loss of the last five of some updates, for each rate."""
    ends = []
    for rate in rates:
        torch.manual_seed(seed)
        model = GPT2(config)
        optimizer = AdamW(model.parameters(), lr=1e-3)
        set_rate(optimizer, rate)
        losses = []
        for ids in batches[:updates]:
            loss = library_loss(model, ids)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        ends.append(sum(losses[-5:]) / 5)
    return ends


# %% [markdown]
# The symptom: every rate gives the same loss.

# %%
rates = [1e-4 * 10 ** (i / 2) for i in range(8)]  # 0.0001 to 0.3
flat = swept(set_rate, rates)
figures.rate_sweep(rates, {"patient 3": flat})


# %% [markdown]
# <details><summary>Hint</summary>
#
# An optimiser copies its defaults into each of its **param_groups** when it is made, and reads only those afterwards.
# There may be several.
#
# </details>


# %% jupyter={"source_hidden": true} tags=["solution"]
@set_rate.mistake("only the first group of parameters is told")
def set_rate(optimizer, lr):
    optimizer.param_groups[0]["lr"] = lr


@set_rate.solution
def set_rate(optimizer, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


# %%
best = predict("Which rate wins after forty updates?", ["0.0001", "0.001", "0.01", "0.1"])(None)

# %%
valley = swept(set_rate, rates)
name = min(
    ["0.0001", "0.001", "0.01", "0.1"],
    key=lambda r: valley[rates.index(min(rates, key=lambda x: abs(x - float(r))))],
)
best.was(
    name,
    f"At 0.0001 the loss is still {valley[0]:.1f}, at 0.3 it is {valley[-1]:.1f}: both ends are bad, for opposite "
    "reasons, and only a sweep tells which side one is on.",
)
figures.rate_sweep(rates, {"patient 3": flat, "mended": valley})

# %%
check(
    "mended, the sweep is a valley: both ends are at least 0.5 nats above its floor",
    min(valley[0], valley[-1]) > min(valley) + 0.5,
    valley,
)
check("its best rate is not at an edge", 0 < valley.index(min(valley)) < len(rates) - 1, valley)

# %% [markdown]
# ## 4. A gradient that is zero
#
# **The instrument.** After one backward pass, print the norm of every parameter's gradient. An exact **zero** is never
# chance: the path from this parameter to the loss is cut (`detach`, `no_grad`, `item`), or something on it multiplies
# by zero.
#
# In a fresh GPT-2 exactly one kind of parameter has next to none, and rightly so. Which?

# %%
ids = batches[0]
model = GPT2(config)
norms = diagnose.gradient_norms(model, library_loss(model, ids))
figures.gradient_norms({name: norm for name, norm in norms.items() if "blocks.1" not in name})

# %% [markdown]
# A bias on the keys adds the same number to all scores of a row, $q_t \cdot b$, and a softmax does not see what is
# added to all. GPT-2's key biases do nothing. Llama has no biases at all; where positions turn the keys (notebook 05),
# a bias on them is no longer idle, and some later models keep it.

# %%
largest = max(norm for name, norm in norms.items() if name.endswith("attn.k.bias"))
check("the gradient of the key biases is zero to rounding", largest < 1e-6, largest)
check("that of every weight is not", min(norm for name, norm in norms.items() if name.endswith("weight")) > 1e-6)


# %% [markdown]
# **The patient** is a LoRA layer, $y = W x + B A x$: $W$ is frozen, $A$ and $B$ are trained, and at the beginning the
# update is zero, so that the model starts where it was.


# %% tags=["cases"]
class LibraryLayer(nn.Module):
    """The library's LoRA layer, alone."""

    def __init__(self, base, rank):
        super().__init__()
        self.inner = LoRA(rank=rank, alpha=rank).layer(base.requires_grad_(False))
        self.A, self.B = self.inner.A, self.inner.B

    def forward(self, x):
        return self.inner(x)


def try_layer(kind):
    torch.manual_seed(0)
    base, goal, x = nn.Linear(8, 6), nn.Linear(8, 6), torch.randn(64, 8)
    before, weight = base(x), base.weight.detach().clone()
    layer = kind(base, 6)
    start = layer(x)
    optimizer = AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.05)
    for _ in range(150):
        loss = (layer(x) - goal(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {
        "attached, it changes no output": torch.allclose(start, before),
        "trained, it comes near any linear layer": loss.item() < (goal(x) - before).square().mean().item() / 3,
        "the base's weight is what it was": torch.equal(base.weight, weight),
    }


# %% tags=["exercise", "broken"]
@exercise(
    "4 LoRALinear",
    like=LibraryLayer,
    run=try_layer,
    look="the gradient of A holds B as a factor, and that of B holds A",
)
class LoRALinear(nn.Module):
    def __init__(self, base, rank):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.zeros(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        """[..., d_in] -> [..., d_out]"""
        return self.base(x) + x @ self.A.T @ self.B.T


# %% [markdown]
# The symptom: nothing that is trained has a gradient, at the first step and at every later one.

# %%
torch.manual_seed(seed)
layer, x = LoRALinear(nn.Linear(8, 6), 2), torch.randn(5, 8)
print({name: round(norm, 3) for name, norm in diagnose.gradient_norms(layer, layer(x).square().mean()).items()})


# %% [markdown]
# <details><summary>Hint</summary>
#
# $\partial \ell / \partial A = B^\top g\, x^\top$ and $\partial \ell / \partial B = g\, (A x)^\top$. The update must
# start at zero, but **one** of the two must not.
#
# </details>


# %% jupyter={"source_hidden": true} tags=["solution"]
class WithSizes(nn.Module):
    def __init__(self, base, rank, a, b):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(a * torch.randn(rank, base.in_features))
        self.B = nn.Parameter(b * torch.randn(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


@LoRALinear.mistake("both are random: the model does not start where it was")
class LoRALinear(WithSizes):
    def __init__(self, base, rank):
        super().__init__(base, rank, 0.3, 0.3)


@LoRALinear.solution
class LoRALinear(WithSizes):
    def __init__(self, base, rank):
        super().__init__(base, rank, 0.3, 0)  # A random, B zero


# %%
torch.manual_seed(seed)
layer = LoRALinear(nn.Linear(8, 6), 2)
norms = diagnose.gradient_norms(layer, layer(x).square().mean())
print({name: round(norm, 3) for name, norm in norms.items()})

# %%
check(
    "mended, the factor that is zero has a gradient at the first step; the other has none before that one has moved",
    max(norms.values()) > 0 and min(norms.values()) == 0,
    norms,
)


# %% [markdown]
# ## 5. A mask that leaks
#
# **The instrument.** Change the input at one position: no output *before* it may move, not by a bit. And a second one,
# without looking inside: train on **random** tokens, new ones each step. Nothing can be learned there, so the loss of
# an honest model stays at $\log V$.


# %% tags=["cases"]
def library_attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def try_attend(function):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4)
    moved = diagnose.leak(lambda x: function(x, x, x), x)
    return {f"outputs before token {t}, when it changes, move by": change for t, change in enumerate(moved, 1)} | {
        "the outputs": function(x, x.flip(-1), x)
    }


# %% tags=["exercise", "broken"]
@exercise("5 attend", like=library_attend, run=try_attend, look="which diagonal is the first that must not be seen")
def attend(q, k, v):
    """[..., seq, d] each -> [..., seq, d]"""
    seq = q.shape[-2]
    scores = q @ k.mT / q.shape[-1] ** 0.5  # [..., seq, seq]
    visible = torch.ones(seq, seq, dtype=torch.bool).tril(1)
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v


# %% [markdown]
# The patient: one layer of attention in a small language model.


# %%
class OneLayer(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.wte, self.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(32, n_embd)
        self.qkv, self.out = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, vocab_size)

    def forward(self, ids):
        """[batch, seq] -> logits [batch, seq, vocab_size]"""
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        return self.out(self.attend(*self.qkv(x).chunk(3, -1)))


def next_token_loss(model, ids):
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


random_text = list(torch.randint(vocab_size, (4 * steps, 16, 32)))  # 4 * steps batches, none seen twice

# %%
random_loss = predict(
    "On random tokens, where does the loss of the leaking model go?", ["stays at log V", "well below"]
)(None)

# %%
leaking = diagnose.losses_of(OneLayer(attend), next_token_loss, random_text, 1e-2)
random_loss.was(
    "well below" if leaking[-1] < 0.8 * math.log(vocab_size) else "stays at log V",
    {
        "well below": (
            "It predicts what cannot be predicted, so it must be looking. On real text the same curve would have "
            "passed for a very good model."
        ),
        "stays at log V": "The cell is mended.",
    },
)
moved = diagnose.leak(lambda x: attend(x, x, x), torch.randn(2, 6, 4))
print("the output before a changed token moves by", [round(change, 2) for change in moved])


# %% [markdown]
# <details><summary>Hint</summary>
#
# `tril(k)` keeps what lies on the k-th diagonal and below. A token may see itself, which is diagonal 0.
#
# </details>


# %% jupyter={"source_hidden": true} tags=["solution"]
@attend.mistake("the mask comes after the softmax: nothing is seen, but how much weight was hidden can be")
def attend(q, k, v):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril() @ v


@attend.mistake("a token does not see itself, and the first one sees nothing at all")
def attend(q, k, v):
    visible = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril(-1)
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num() @ v


@attend.solution
def attend(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5  # [..., seq, seq]
    visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v


# %%
honest = diagnose.losses_of(OneLayer(attend), next_token_loss, random_text, 1e-2)
both = {"as it was given": leaking, "mended": honest, "log V": [math.log(vocab_size)] * len(honest)}
figures.curves(range(1, len(honest) + 1), both, "step", "loss on random tokens (nats)")

# %%
check(
    "mended, nothing is learned from random tokens", min(honest[-20:]) > math.log(vocab_size) - 0.1, min(honest[-20:])
)
moved = diagnose.leak(lambda x: attend(x, x, x), torch.randn(2, 6, 4))
check("mended, no output moves when a later token does", max(moved) == 0, moved)

# %% [markdown]
# ## What you saw, and what it does not show
#
# | instrument | costs | finds |
# |---|---|---|
# | first loss against $\log V$ | one batch | initialisation, a vocabulary of the wrong size, targets that are not shifted |
# | overfit one batch | a minute | anything cut or doubled between logits and weights |
# | rate sweep | ten short runs | a rate that is not applied; then, the rate |
# | gradient norms | one backward pass | frozen, detached, multiplied by zero |
# | change one token; random tokens | seconds | a look into the future |
#
# Use them **in this order**, before any long run, and again whenever the code changes: each costs less than the doubt.
# They find what is broken, not what is merely not good: a model that passes all five can still be too small, or badly
# fed.
#
# | paper | section or equation | here | where it deviates |
# |---|---|---|---|
# | [Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) | 2.3, residual layers start smaller | [model/decoder.py](../gpt2lib/model/decoder.py), `reset_parameters` | none |
# | [Hu et al. 2021](https://arxiv.org/abs/2106.09685) | 4.1, $B = 0$ at first | [adapters/lora.py](../gpt2lib/adapters/lora.py) | $A$ is uniform (Kaiming), as in the authors' code, where the paper says Gaussian |
# | [Smith 2017](https://arxiv.org/abs/1506.01186) | 3.3, a sweep of rates | the cells of section 3 | a run for each rate, where his one run raises it |
#
# **References.** Karpathy 2019, [A recipe for training neural networks](https://karpathy.github.io/2019/04/25/recipe/);
# [Radford et al.
# 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) (section
# 2.3, initialisation); [Hu et al. 2021](https://arxiv.org/abs/2106.09685) (LoRA, section 4.1); [Smith
# 2017](https://arxiv.org/abs/1506.01186) (the sweep of rates). In the library: `model/decoder.py` (`reset_parameters`),
# `adapters/lora.py`, `model/attention.py` (`causal_mask`), and `course/diagnose.py` for the instruments.

# %% tags=["nbval-check-output"]
check.table()
