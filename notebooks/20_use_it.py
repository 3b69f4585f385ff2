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
# # Use it: judge a text, finish a sonnet
#
# **The question.** An adapter is two megabytes beside a model of five hundred. What can be done with it, and how far is
# its word to be believed?
#
# After this notebook you can
# - put an adapter on its base and judge a sentence, a pair of questions, or a whole file of them,
# - let a model finish a sonnet as it streams,
# - keep an adapter of your own with all that it needs, and find the same probabilities again,
# - measure whether what is called 90 % is right nine times out of ten.
#
# It runs in about a minute on one core. Needs notebooks 07 and 11; the adapters are the best LoRA of the main study for
# each task, and come with the package.

# %% tags=["parameters"]
adapter: str = ""  # the folder adapter/ of a run of your own, for SST; "" takes the one that comes with gpt2lib
base_model: str = ""  # the base that it belongs to; "" takes the one that it names
results: str = "../report/results"  # where the main study's tables are
seed: int = 0  # of the sonnet

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ipywidgets import Text, Textarea

from gpt2lib.adapters import LoRA, adapter_parameters
from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.course.widgets import explore, verbatim
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.report.collected import collected
from gpt2lib.tasks import Adapted, load_adapted, prepare, save_adapted

check = Verdicts()

# %% [markdown]
# ## One call
#
# `load_adapted` finds the base, cuts it to the depth that the adapter was trained at, puts the adapter on and the head
# on top. What it refuses, it refuses in one line: an adapter of another base, or of another task.

# %%
sst = load_adapted("sst", adapter or None, base_model or None)
sentences = [
    "a gorgeous, witty, seductive movie",
    "it is about as funny as a parking ticket",
    "the plot is thin, the actors are wonderful",
    "not bad at all",
]
table = sst.predict(sentences)
pd.concat([pd.Series(sentences, name="text"), table.drop(columns="cut").round(2)], axis=1)

# %% [markdown]
# Type a sentence; try one that mixes praise with blame, and one without either.

# %%
explore(
    lambda text: figures.probabilities(
        sst.classes, sst.predict([text.strip() or "?"])[list(sst.classes)].to_numpy()[0]
    ),
    text=Text("a slow film, and worth every minute", continuous_update=False, layout={"width": "95%"}),
)

# %% [markdown]
# What happened: the last token's hidden state $h$, the trained head $W_h h + b_h$, and a softmax,
#
# $$p(\text{class } c) = \frac{e^{z_c}}{\sum_k e^{z_k}}, \qquad z = W_h h + b_h.$$
#
# Write it, so that it also holds for large $z$: $e^{1000}$ is infinite, and $\infty / \infty$ is no number.
#
# <details><summary>Hint</summary>
#
# Subtracting the same number from every $z_k$ changes nothing. Which number makes the largest exponent 0?
#
# </details>

# %% tags=["cases"]
torch.manual_seed(0)
head_cases = [
    (torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)),
    (1000 * torch.randn(2, 4), torch.randn(3, 4), torch.randn(3)),
]


def library_probabilities(h, weight, bias):
    return torch.nn.functional.linear(h, weight, bias).softmax(-1)


# %% tags=["exercise"]
@exercise("1 probabilities", like=library_probabilities, on=head_cases, look="the sum over the classes of each row")
def class_probabilities(h, weight, bias):
    """h [batch, d], weight [classes, d], bias [classes] -> [batch, classes], each row with the sum 1"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@class_probabilities.mistake("nothing is subtracted, and large logits overflow")
def class_probabilities(h, weight, bias):
    e = (h @ weight.T + bias).exp()
    return e / e.sum(-1, keepdim=True)


@class_probabilities.mistake("the sum is over the batch, not over the classes")
def class_probabilities(h, weight, bias):
    z = h @ weight.T + bias
    e = (z - z.amax(-1, keepdim=True)).exp()
    return e / e.sum(0, keepdim=True)


@class_probabilities.solution
def class_probabilities(h, weight, bias):
    z = h @ weight.T + bias  # [batch, classes]
    e = (z - z.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


# %%
head, body = sst.model.head, sst.model.body
ids = torch.tensor([sst.tokenizer(sentences[0])["input_ids"]])
with torch.no_grad():
    ours = class_probabilities(body(ids)[:, -1], head.weight, head.bias)[0]
check.close("the table's first row, by hand", ours, torch.tensor(table[list(sst.classes)].to_numpy()[0]), 1e-4)

# %% [markdown]
# ## Two questions
#
# The paraphrase task has no head of its own: the model answers "yes" or "no" as its next word, and the adapter has only
# taught it what the question means.

# %%
quora = load_adapted("quora")
pairs = [
    ("How do I learn to cook?", "What is a good way to learn cooking?"),
    ("How do I learn to cook?", "How do I learn to drive?"),
]
quora.predict(pairs).drop(columns="cut").round(2)

# %% [markdown]
# ## A file of them
#
# In a terminal the same is `gpt2lib predict sst "..."`, `gpt2lib predict quora "..." "..."`, and for a file (one text a
# line, a pair's two with a tab between) `gpt2lib predict sst --file reviews.txt --output classes.tsv`. Texts of similar
# length go through the model together; an empty line is refused with its number, and of a text longer than what the
# adapter was trained on the end is read.

# %%
lines = [*sentences, "good " * 500]
in_bulk = sst.predict(lines * 4, batch_size=8)
check.close("in batches every text has the same probabilities", in_bulk["positive"][:4], table["positive"], 1e-4)
check("of the longest text only the end was read", in_bulk["cut"].tolist() == [False, False, False, False, True] * 4)
for wrong in ([""], [("two", "texts")]):
    try:
        sst.predict(wrong)
    except ValueError as error:
        print(error)

# %% [markdown]
# ## A sonnet
#
# Three lines are given, and at most eleven are written, for the model may end before: one token at a time, and `show`
# is called with every piece as it is made.

# %%
sonnets = load_adapted("sonnets")
given = """When laptops hum beneath the evening's light,
And students weigh the numbers they have made,
I think of all the weights we froze tonight,"""
poem = sonnets.write(given, seed=seed, show=lambda piece: print(piece, end=""))

# %%
check("the given lines come first", poem.startswith(given.splitlines()[0]))
check("there are at most fourteen lines", len(poem.splitlines()) <= 14, len(poem.splitlines()))
check("the same seed writes the same sonnet", sonnets.write(given, seed=seed) == poem)

# %%
explore(
    lambda first, number: verbatim(sonnets.write(first.strip() or "O", seed=number)),
    first=Textarea(given, continuous_update=False, layout={"width": "95%", "height": "5em"}),
    number=(0, 9),
)

# %% [markdown]
# ## Your own
#
# A study's run keeps its adapter by `save_adapted`: the adapter, the head where one was trained, and the name and depth
# of the base. Four small files (three where no head was trained) are all that need travel; the base is on the other
# machine already.

# %%
data = load_task("sst", "toy")
small, tokenizer = load_base("gpt2-mini")
model = prepare(data, small, tokenizer, LoRA(rank=2, targets=("q", "v")))
with torch.no_grad():  # as if it had been trained
    for p in adapter_parameters(small).values():
        p.normal_(std=0.05)
mine = Adapted("sst", model, tokenizer, 64)
with tempfile.TemporaryDirectory() as folder:
    save_adapted(folder, "sst", model, "gpt2-mini", max_length=64)
    print({path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())})
    again = load_adapted("sst", folder)
    try:
        load_adapted("sst", folder, base="untrained:gpt2-mini")
        refused = ""
    except ValueError as error:
        refused = str(error).replace(folder, "...")
same = again.predict(sentences)["positive"]
check.close("read back, it says the same", same, mine.predict(sentences)["positive"], 0)
check("on another base it is refused", "another base" in refused, refused)

# %% [markdown]
# ## Is 90 % right nine times out of ten?
#
# A softmax adds up to one; that does not make it a frequency. The main study kept the loss of every example of dev,
# which for two classes tells the probability: $p(\text{label}) = e^{-\text{loss}}$, and the confidence is the larger of
# $p$ and $1 - p$.

# %%
_, rows, _ = collected("smollm2", Path(results))
rows = rows[(rows["task"] == "quora") & (rows["name"] == "lora") & (rows["part"] == "main")]
label = np.exp(-rows["loss"].astype(float))
judged = pd.DataFrame({"confidence": np.maximum(label, 1 - label), "correct": label > 0.5})
print(f"{len(judged)} judgements of {rows['run'].nunique()} runs, {100 * judged['correct'].mean():.1f} % of them right")

# %% [markdown]
# The **expected calibration error** sorts judgements into bins of equal width by their confidence, and averages over
# the bins how far the share that is right lies from the mean confidence, every bin by its number of judgements (Naeini
# et al. 2015; Guo et al. 2017). Write it.
#
# <details><summary>Hint</summary>
#
# `np.minimum((confidence * bins).astype(int), bins - 1)` is the number of each judgement's bin. Count an empty bin as
# nothing.
#
# </details>

# %% tags=["cases"]
drawn = np.random.default_rng(0)
calibration_cases = [
    (np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]), 10),
    (drawn.uniform(0.5, 1, 200), drawn.uniform(size=200) < 0.7, 5),
    (np.array([1.0, 0.9]), np.array([False, True]), 4),
]


def library_calibration(confidence, correct, bins):
    place = np.clip(np.digitize(confidence, np.linspace(0, 1, bins + 1)) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=np.asarray(correct, float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


# %% tags=["exercise"]
@exercise("2 calibration error", like=library_calibration, on=calibration_cases, look="the weight of each bin")
def calibration_error(confidence, correct, bins):
    """confidence [n] in [0, 1], correct [n], a number of bins -> a number"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@calibration_error.mistake("every bin counts the same, however few judgements are in it")
def calibration_error(confidence, correct, bins):
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(correct[place == b].mean() - confidence[place == b].mean()) for b in np.unique(place)]
    return float(np.mean(gaps))


@calibration_error.mistake("all judgements are one bin: too sure here and too modest there cancel")
def calibration_error(confidence, correct, bins):
    return float(abs(correct.mean() - confidence.mean()))


@calibration_error.solution
def calibration_error(confidence, correct, bins):
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for b in np.unique(place):
        inside = place == b
        total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    return float(total / len(confidence))


# %%
ahead = predict("By how many points is the model surer than it is right, on the mean over Quora's dev set?")(None)

# %%
error = calibration_error(judged["confidence"].to_numpy(), judged["correct"].to_numpy(), 10)
ahead.was(100 * float(judged["confidence"].mean() - judged["correct"].mean()), digits=1)
print(f"expected calibration error: {100 * error:.1f} points")
near = judged[judged["confidence"].between(0.85, 0.95)].mean()
print(f"of about 90 %: {100 * near['confidence']:.1f} % sure on average, {100 * near['correct']:.1f} % right")
figures.reliability(judged)

# %% [markdown]
# ## What we saw, and what it does not show
#
# The same two megabytes serve a terminal, a file and a program. Each adapter is the best of three to five runs of one
# method by a held-out part of the training data; its card says which data it saw and what it reached on dev. It judges
# film reviews of 2004 and Quora's questions of 2017, in English; on other texts its probabilities are numbers that add
# up to one. Is 90 % right nine times out of ten? On Quora's questions not quite: the judgements around 90 % are right
# less often than they say, as the cell above counts, and so are all together. One sentence can be judged wrongly all
# the same, and with confidence ("not bad at all").
#
# | paper | equation or section | here | where we deviate |
# |---|---|---|---|
# | [Guo et al. 2017](https://arxiv.org/abs/1706.04599) | eq. 3, expected calibration error | `calibration_error` above | bins are closed on the left, where the paper's are on the right |
# | [Holtzman et al. 2020](https://arxiv.org/abs/1904.09751) | section 3.1, the nucleus | [model/generate.py](../gpt2lib/model/generate.py) | drawn without sorting the vocabulary |
#
# **References.** [Guo, Pleiss, Sun and Weinberger 2017](https://arxiv.org/abs/1706.04599) (calibration of networks);
# [Naeini, Cooper and Hauskrecht 2015](https://doi.org/10.1609/aaai.v29i1.9602) (the error's estimate); [Holtzman et al.
# 2020](https://arxiv.org/abs/1904.09751) (nucleus sampling).

# %% tags=["nbval-check-output"]
check.table()
