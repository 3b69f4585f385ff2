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
# # What a base knows before you train it
#
# **The question.** An adapter can only bend what is there. How much does a base model know, where in its blocks does it
# know it, and how would you find out *before* you spend an hour on training?
#
# After this notebook you can
# - compare models with different tokenizers by bits per byte, and say why perplexity cannot do that,
# - ask a model a task without training anything, and say what such an answer is worth,
# - read with a linear probe what the hidden states after each block hold, and choose from it where to put an adapter,
# - hold every later result against these floors.
#
# Three bases: `gpt2-mini` (5.4 M parameters, 12 M tokens read), its twin with random weights, and SmolLM2-135M (two
# trillion tokens read). Needs notebook 01; 05 says what a Llama is. It runs in about a minute on one core, on made-up
# sentences.

# %% tags=["parameters"]
bases: list = ["untrained:gpt2-mini", "gpt2-mini", "smollm2-135m"]  # by name, from the least read to the most
tasks: list = ["sst"]  # what is asked and probed: sst, cfimdb, quora
source: str = "toy"  # of the tasks' texts: toy, a folder, or empty for GPT2LIB_DATA
corpus_source: str = "toy"  # of the corpus: toy, a folder, or empty for GPT2LIB_CORPUS
texts: int = 8  # of each kind that bits per byte are measured on
text_bytes: int = 400  # of each of them, at most
train_examples: int = 160  # the probe is fitted on
dev_examples: int = 100  # everything is measured on; 0: all
probed: int = 6  # places between the embedding and the last block where the probe reads
max_length: int = 200  # tokens of an example that are read, its last ones
seed: int = 0
keep: str = ""  # a file to keep the measurements in, such as ../report/results/bases.csv

# %%
import math
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from gpt2lib import load_base
from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.data import load_task
from gpt2lib.data.pretraining import corpus
from gpt2lib.data.tokens import tokenize
from gpt2lib.model.base import base_name
from gpt2lib.report import figures
from gpt2lib.tasks import probe
from gpt2lib.tasks.baselines import floors

check = Verdicts()
_ = torch.manual_seed(seed)

# %%
loaded, missing = {}, []
for name in bases:
    try:
        loaded[base_name(name)] = load_base(name)
    except FileNotFoundError as error:  # SmolLM2 comes with pip; without it the others go on alone
        missing.append(name)
        print(error)
shapes = {
    name: {"family": body.config.family, "blocks": body.config.n_layer, "parameters": body.config.parameters}
    for name, (body, _) in loaded.items()
}
pd.DataFrame(shapes).T

# %% [markdown]
# ## 1. Bits per byte
#
# Perplexity is $\exp$ of the mean loss of a *token*. But a token of SmolLM2, whose vocabulary has 49,152 pieces, is
# longer than one of gpt2-mini, with 8,192: fewer tokens, each harder to guess. What both have in common is the text.
# So: the whole text's information, in bits, over its length in bytes of UTF-8,
#
# $$\text{bits per byte} = \frac{1}{\text{bytes}} \sum_t -\log_2 p(\text{token}_t \mid \text{tokens before it}).$$
#
# It is also the size to which an ideal compressor that uses the model would bring the text: 8 means not at all, 2 a
# quarter. A good compressor without a model of language (xz) needs about 2.5 on long English texts.
#
# <details><summary>Hint</summary>
#
# Losses are in nats (natural logarithm); `math.log(2)` nats are a bit. `text.encode()` are the bytes: "é" is two of
# them, and "–" three.
#
# </details>

# %% tags=["cases"]
losses = torch.tensor([2.1, 0.3, 5.2, 1.7, 0.9])  # nats of each token
byte_cases = [(losses, "a café, naïvely"), (losses[:3], "plain text")]


# %% tags=["exercise"]
@exercise(
    "1 bits_per_byte",
    like=lambda losses, text: losses.sum().item() / math.log(2) / len(text.encode("utf-8")),
    on=byte_cases,
    look="the unit of the losses, and what the text's length is counted in",
)
def bits_per_byte(losses, text):
    """[tokens] in nats, the text that they are of -> a number"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@bits_per_byte.mistake("the length is counted in characters, so that accents cost nothing")
def bits_per_byte(losses, text):
    return losses.sum().item() / math.log(2) / len(text)


@bits_per_byte.mistake("the losses are still in nats")
def bits_per_byte(losses, text):
    return losses.sum().item() / len(text.encode())


@bits_per_byte.mistake("the losses are averaged: that is bits a token, over bytes")
def bits_per_byte(losses, text):
    return losses.mean().item() / math.log(2) / len(text.encode())


@bits_per_byte.solution
def bits_per_byte(losses, text):
    return losses.sum().item() / math.log(2) / len(text.encode())


# %% [markdown]
# The texts: of each of the course's tasks, of each kind that gpt2-mini was pretrained on, and one that neither base can
# have seen, since it was written for this notebook. Toy texts are made up by a rule, and neither has read those either.

# %%
UNSEEN = [
    ("The museum of umbrellas in our street closes at four on Thursdays, because its keeper also feeds the "
     "geese on the canal."),
    ("My aunt keeps a list of every soup she has eaten since the strike; the last entry says only that the "
     "lentils were late."),
    "To reset the lamp, hold the small switch until it blinks twice, then tell it, politely, that the evening is over.",
    ("Nobody had explained to the new goalkeeper that the village plays downhill in the first half and by "
     "candlelight in the second."),
]  # fmt: skip
kinds = {name: [e.text for e in load_task(name, source or None, quiet=True).dev] for name in ("sst", "cfimdb", "quora")}
kinds["sonnets"] = [e.text for e in load_task("sonnets", source or None, quiet=True).train]
kinds |= {f"corpus: {name}": documents for name, documents in corpus(corpus_source).items()}
rng = random.Random(seed)
kinds = {name: rng.sample(all_, min(texts, len(all_))) for name, all_ in kinds.items()} | {"unseen": UNSEEN}
kinds = {name: [text.encode()[:text_bytes].decode(errors="ignore") for text in some] for name, some in kinds.items()}
print({name: sum(len(text.encode()) for text in some) for name, some in kinds.items()}, "bytes")

# %%
guess = predict("How many bits does the twin with random weights need for a byte of the unseen text?")(None)

# %%
rows = []
for base, (body, tokenizer) in loaded.items():
    for part, some in kinds.items():
        rows.append({"base": base, "part": part, "bits": probe.bits_per_byte(body, tokenizer, some)})
table = pd.DataFrame(rows)
wide = table.pivot(index="part", columns="base", values="bits")[list(loaded)].loc[list(kinds)]
figures.bits_by_part(table)

# %%
first = next(iter(loaded))
body, tokenizer = loaded[first]
tokens = sum(len(ids) for ids in tokenize(UNSEEN, tokenizer))
even = math.log2(len(tokenizer)) * tokens / sum(len(text.encode()) for text in UNSEEN)
guess.was(
    wide.loc["unseen", first], f"To guess evenly among its {len(tokenizer):,} tokens would take {even:.1f}.", digits=1
)
wide.round(1)

# %%
shown = [name for name in loaded if name in ("untrained gpt2-mini", "gpt2-mini", "smollm2-135m")]
unseen = wide.loc["unseen", shown].to_numpy()
check(
    "random weights know no more than an even guess among all tokens",
    first not in shown or wide.loc["unseen", first] > 0.95 * even,
)
check(
    "on a text that none has seen, the more a base has read the fewer bits it needs",
    (np.diff(unseen) < 0).all(),
    unseen,
)
with torch.no_grad():
    body, tokenizer = loaded["gpt2-mini"] if "gpt2-mini" in loaded else loaded[first]
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids(probe.END_OF_TEXT), *tokenize(UNSEEN[:1], tokenizer)[0]]])
    losses = -body.logits(body(ids)).log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
seen, expected = bits_per_byte(losses, UNSEEN[0]), probe.bits_per_byte(body, tokenizer, UNSEEN[:1])
check("your bits per byte are the library's", abs(seen - expected) < 1e-4, (seen, expected))

# %% [markdown]
# Read the rows, not only the columns. On made-up sentences of few words the two bases may come near each other: such
# texts repeat themselves, and a model learns that while it reads. On real ones SmolLM2 is ahead on every kind (README's
# table, `report/results/bases.csv`); on the unseen text gpt2-mini needs more bits, and still far fewer than its twin,
# which has read nothing. SmolLM2 has read everything: *perhaps these very test sentences, too*. That cannot be looked
# up here, and it is why the same base stands on both sides of every comparison in this course.
#
# ## 2. Asking without training
#
# A language model can be asked: put the text first, begin a sentence that only a verdict can end, and look which of
# five words it finds likeliest. Since " good" is common everywhere, the log-probability of each word after the same
# question about *nothing* ("N/A") is taken off (Zhao et al. 2021).

# %%
prompt, words = probe.QUESTIONS[tasks[0]]
example = load_task(tasks[0], source or None, quiet=True).dev[0]
print(prompt(example), "...", *words)
body, tokenizer = loaded[list(loaded)[-1]]
scores = probe.cloze(body, tokenizer, [example], tasks[0])[0]
pd.Series(scores, index=words, name="log-probability, less that after nothing").round(2).to_frame()

# %% [markdown]
# ## 3. A probe after every block
#
# What a model *says* is one thing, what its hidden states *hold* another. Keep what stands in the residual path after a
# block (of each text the last token and the mean over all), and fit a logistic regression on it. The base is not
# touched; the classifier is a plane in the space of features. Where it does well, the answer lies open.
#
# Floors to hold it against: always the most frequent class, and a bag of words fitted on the same few examples. A
# yardstick for noise: of $n$ examples an accuracy of $a$ is known to $\pm 2\sqrt{a (1 - a) / n}$.

# %%
guess = predict("Where does a probe read most, of the base that has read most?", ["embedding", "middle", "last block"])(
    None
)

# %%
rows, levels = [], {}
for task in tasks:
    data = load_task(task, source or None, quiet=True).sample(train_examples, seed)
    dev = random.Random(seed).sample(data.dev, min(dev_examples or len(data.dev), len(data.dev)))
    bag, _ = floors(replace(data, dev=dev))
    levels[task] = {"majority class": bag["majority_accuracy"], "bag of words": bag["bag_of_words_accuracy"]}
    for base, (body, tokenizer) in loaded.items():
        found = probe.accuracies(body, tokenizer, data.train, dev, task, probed, max_length)
        rows += [{"base": base, "task": task} | row for row in found]
known = pd.DataFrame(rows)
figures.probes(known, levels)

# %%
if keep:
    lowest = [{"task": t, "measure": name, "accuracy": v} for t in tasks for name, v in levels[t].items()]
    found = pd.concat([known, table.assign(measure="bits per byte"), pd.DataFrame(lowest)])
    found.to_csv(keep, index=False, float_format="%.5g")

# %%
most, probes = list(loaded)[-1], known[known["measure"] == "probe"]
mine = probes[(probes["base"] == most) & (probes["task"] == tasks[0])]
share = mine.loc[mine["accuracy"].idxmax(), "share"]
guess.was(
    "embedding" if share == 0 else "last block" if share == 1 else "middle",
    f"It is {most}, and {share:.0%} of its blocks. The best of several blocks on the same dev examples is a little too "
    "good, for every base.",
)
half = 200 * (0.25 / len(dev)) ** 0.5  # points
print(
    f"{len(dev)} examples: one accuracy is known to {half:.0f} points, "
    f"an unpaired difference of two to {1.4 * half:.0f}"
)
best = known.groupby(["task", "base", "measure"], sort=False)["accuracy"].max().unstack()
best.round(2)

# %% [markdown]
# A base that has read something need not show it to a probe: on made-up sentences gpt2-mini's best block may be its
# embedding, no better than its random twin's, and below a bag of words. Whoever wants to see a difference between
# *these* two must train them (notebook 03). Of SmolLM2 the best block may lie above the bag of words; on so few
# examples chance can do that. On the course's data it is decided: the report has the probes of 500 examples a task.

# %%
floor = {task: levels[task]["majority class"] for task in tasks}
read = probes[probes["base"] != first].groupby(["task", "base"])["accuracy"].max()
check("probes read more than the majority class", all(read[t].min() > floor[t] for t in tasks), read)
untouched = all(p.grad is None for body, _ in loaded.values() for p in body.parameters())
check("nothing in the bases was trained for all this", untouched)

# %% [markdown]
# ## 4. In earnest
#
# The same cells on the course's data, with `source=""`, `corpus_source=""`, `tasks=["sst", "cfimdb", "quora"]` and more
# examples, take the better part of an hour on two cores; `keep` names a file for what they find. If a block in the
# middle knows most, one may cut the top off (`load_base("smollm2-135m", depth=20)`), leave the bottom frozen, run it
# once, and adapt the blocks between (`LoRA(layers=(14, 20))`). Whether that is better, and not only cheaper, is for
# training to show: the study `range` asks it.
#
# ## What we saw, and what it does not show
#
# - Bits per byte compare bases whatever their tokenizers; what a base has read decides, more than its shape.
# - An answer without training is a floor, and hangs on the wording: of the four questions that were tried on 250
#   training sentences of SST, the worst had 18.8 % right, the best 38.8 %.
# - A probe shows what is *linearly readable*, not what the model uses; a better probe finds more. It is a hint where to
#   adapt, cheap enough to take before training, and not a proof.
# - SmolLM2 was tuned on instructions: it may have been shown tasks like these, and its reading may hold these texts.
#
# **To think about.** Why can a model's last block hold *less* of the answer than its middle, if it computes from it?
# What would bits per byte of a text in Finnish say about these bases?

# %% tags=["nbval-check-output"]
check.table()

# %% [markdown]
# | paper | equation or section | file and function here | where we deviate |
# |---|---|---|---|
# | [Gao et al. 2020](https://arxiv.org/abs/2101.00027) | section 3.1, bits per byte | [tasks/probe.py](../gpt2lib/tasks/probe.py), `bits_per_byte` | windows overlap by half |
# | [Zhao et al. 2021](https://arxiv.org/abs/2102.09690) | answers calibrated by a question about "N/A" | the same, `cloze` | differences of log-probabilities, one such question |
# | [Alain and Bengio 2016](https://arxiv.org/abs/1610.01644) | a linear classifier on every layer | the same, `accuracies` | the last token's state and the mean over all; logistic regression on standardised features |
#
# **References.** [Alain and Bengio 2016](https://arxiv.org/abs/1610.01644) (linear probes); [Zhao et al.
# 2021](https://arxiv.org/abs/2102.09690) (calibrated answers); [Gao et al. 2020](https://arxiv.org/abs/2101.00027)
# (bits per byte); [Ben Allal et al. 2025](https://arxiv.org/abs/2502.02737) (SmolLM2).
