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
# # Benchmarks: is it fast?
#
# **The question.** What a user would otherwise run is transformers' GPT-2 with peft. How does this compare, on the same
# work, on this machine? Needs notebook [11](11_lora.ipynb). It runs in a few minutes on two cores.
#
# After this notebook you can
# - measure two programs against each other so that the result means something: one process, in turns, ratios by round,
# - say what each change buys, and what was not worth having.
#
# The defaults are tiny shapes on toy lengths, to show the machinery; overheads weigh more there than they do in
# earnest. `make benchmarks` runs this notebook on GPT-2 small's shapes and real lengths, for an hour; the report shows
# what it leaves in `report/results/benchmarks.csv`.

# %% tags=["parameters"]
task: str = "sst"  # whose text lengths: sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
tokenizer_name: str = "gpt2-mini"  # whose tokens: a folder, or a hub name such as "gpt2"
n_layer: int = 2  # of random weights; 12, 12, 768 and 50257 make GPT-2 small
n_head: int = 4
n_embd: int = 128
vocab_size: int = 2048
shape: str = ""  # instead of the four numbers: a base by name, such as "smollm2-135m", of random weights
depth: int = 0  # its lowest so many blocks; 0: all
layers: list = [1, 2]  # the last blocks, [first, end], that an adapter is confined to where the rest is computed once
batch_size: int = 8  # examples per update
steps: int = 40  # updates in a round
rounds: int = 5  # that count; the first does not
precision: str = "float32"  # or "bf16"
prompts: int = 4  # texts continued at once; 15 and 128 in earnest
new_tokens: int = 24  # written for each
sizes: list = [200, 400, 800]  # training sets for the growth of time; 1000, 7000, 50000 in earnest
methods: list = ["LoRA", "full"]  # of training
parts: list = ["training", "curves", "waterfall", "last layer", "prefix", "adapters", "decoding", "resources", "growth"]
unseen: int = 512  # texts that three epochs are timed on, their frozen blocks counted
base_model: str = "gpt2-mini"  # for the two learning curves, on the task's own labels
examples: int = 320  # to train on there; 0 takes all
epochs: int = 4  # there
lr: float = 8e-3  # there
seeds: list = [0]  # there
out: str = ""  # folder whose benchmarks.csv takes the rows; "" keeps nothing

# %%
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gpt2lib import GPT2Config, benchmarks
from gpt2lib.adapters import AlphaLoRA, GraphLoRA, KANLoRA, KronA, KronAB, LoRA, of_size, trained_count
from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.data import load_task
from gpt2lib.model import pretrained
from gpt2lib.model.base import load_base, load_tokenizer, shape_of
from gpt2lib.report import figures
from gpt2lib.tasks import Encoder

check = Verdicts()
pd.set_option("display.max_colwidth", None)
config = GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=vocab_size)
if shape:
    config = replace(shape_of(shape), **({"n_layer": depth} if depth else {}))
last = tuple(layers)
tokenizer = load_tokenizer(tokenizer_name)
data = load_task(task, source or None, quiet=True)
texts = Encoder(task, tokenizer, 512)(data.train)
lengths = tuple(len(e.ids) for e in texts)
work = benchmarks.Work(config, lengths, batch_size, steps, rounds, precision)
print(f"{task}: {len(lengths)} texts, {sum(lengths) / len(lengths):.0f} tokens on average, {max(lengths)} at most")

# %% [markdown]
# ## A ratio that means something
#
# A machine grows slow and fast again, for reasons that are not ours. So both programs run in turns, in rounds, and each
# round gives a ratio; what slowed one round slowed both sides of it. The first round warms caches and does not count.
# **Write it yourself**: `ours` and `peer` are seconds by round, the first one included; return the median, lowest and
# highest of the speed-up, peer's time over ours.
#
# <details><summary>Hint</summary>
#
# Drop round 0, divide round by round, and only then take the median. A speed-up is above 1 where ours took *less* time.
#
# </details>

# %% tags=["cases"]
import numpy as np

rounds_seen = [(np.array([9.0, 2.0, 4.0, 1.0]), np.array([1.0, 6.0, 5.0, 4.0]))]


# %% tags=["exercise"]
@exercise(
    "1 speed_up",
    digest="6e423c03ff31",
    on=rounds_seen,
    look="which round counts, and in which order to divide and to take the median",
)
def speed_up(ours, peer):
    """[rounds] seconds each -> (median, lowest, highest)"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@speed_up.mistake("the first round counts, too")
def speed_up(ours, peer):
    ratio = peer / ours
    return float(np.median(ratio)), float(ratio.min()), float(ratio.max())


@speed_up.mistake("medians are divided: what slowed a round no longer cancels")
def speed_up(ours, peer):
    ratio = (peer / ours)[1:]
    return float(np.median(peer[1:]) / np.median(ours[1:])), float(ratio.min()), float(ratio.max())


@speed_up.mistake("the ratio is turned: it falls where ours is faster")
def speed_up(ours, peer):
    ratio = (ours / peer)[1:]
    return float(np.median(ratio)), float(ratio.min()), float(ratio.max())


@speed_up.solution
def speed_up(ours, peer):
    ratio = (peer / ours)[1:]
    return float(np.median(ratio)), float(ratio.min()), float(ratio.max())


# %% [markdown]
# ## Training
#
# Both sides have the same weights, the same texts, batch size, precision, rank and target layers, and clip gradients.
# peft's side draws batches at random and pads them to their longest, as a user's collator does; ours is `fit`. A ratio
# above 1 is in our favour.

# %%
faster = predict("LoRA training, peft's time over ours on this machine: which ratio?")(None)

# %%
rows = benchmarks.training(work, methods) if "training" in parts else []
for row in rows:
    if row["quantity"] == "LoRA training":
        faster.was(
            row["ratio"],
            f"By round it lay between {row['ratio_low']:.2f} and {row['ratio_high']:.2f}, which is what these rounds "
            "showed, and no interval. What makes it is below, one change at a time; on another machine, or on texts of "
            "one length, it is another number.",
        )
pd.DataFrame(rows).round(2)

# %% [markdown]
# Faster must not mean worse: LoRA from the same pretrained weights, on the same labelled examples, at the same learning
# rates, of both sides; a line a seed.

# %%
learnt = pd.DataFrame()
if "curves" in parts:
    body, own_tokenizer = load_base(base_model)
    weights, encoder = str(pretrained.find(base_model)), Encoder(task, own_tokenizer, 512)
    base = benchmarks.Work(body.config, lengths, batch_size, precision=precision, weights=weights)
    learnt = benchmarks.dev_curves(
        base, encoder(data.sample(examples).train), encoder(data.dev), epochs, lr, tuple(seeds)
    )
figures.two_sides(learnt) if len(learnt) else None

# %% [markdown]
# ## What each change buys
#
# From the peer to `fit`, one change at a time. *No mask*: padding stands on the right, where a causal model needs none,
# and there is no dropout left to apply to frozen features. *Products by oneDNN*, on processors where PyTorch's own
# library for matrix products uses half of the vector unit (`linear.py`). *Batches by length*: hardly any padding. *Last
# block for one token*: the classifier reads one position, so the last block's queries and feed-forward layer skip the
# others. In bf16, *frozen weights kept in bf16* spares autocast from casting each of them in every step. *Adapters on
# the last blocks only*: the backward pass ends where the first of them is. *What lies below computed once*: and the
# forward pass begins there, from hidden states that are kept on disk.
#
# Tried and dropped on a CPU: `torch.compile`, 5 % at most after minutes of compiling, for matrix products are nearly
# all of it.

# %%
changes = benchmarks.waterfall(work, last) if "waterfall" in parts else pd.DataFrame()
figures.waterfall(changes) if len(changes) else None

# %% [markdown]
# The bar "last block for one token" (in bf16 the one after it) over the first one is the ratio from above once more:
# the same work on both sides, measured some minutes later. How far the two are apart is how much of a ratio at these
# sizes to believe.

# %%
first_ratio = [row["ratio"] for row in rows if row["quantity"] == "LoRA training" and row["peer"] == "peft"]
if first_ratio and len(changes):
    speeds, ours = changes["examples/s"], "last block for one token"
    ours = "frozen weights kept in bf16" if precision == "bf16" else ours
    print(f"{first_ratio[0]:.2f} above, {speeds[ours] / speeds['transformers + peft']:.2f} here")

# %% [markdown]
# ## The last layer alone
#
# What is frozen gives the same features in every epoch: `fit` computes them once.

# %%
kept = benchmarks.last_linear(work) if "last layer" in parts else []
rows += kept
pd.DataFrame(kept).round(4)

# %% [markdown]
# ## Frozen blocks below
#
# An adapter on the last blocks leaves what lies below them as it is: the same hidden states in every epoch. peft, asked
# to adapt the same blocks (`layers_to_transform`), computes them again in every step. Two questions: how fast is an
# epoch once they are kept, and how fast are three epochs of texts that nobody has seen, with the keeping counted?

# %%
once = benchmarks.frozen_prefix(work, last, size=unseen) if "prefix" in parts else []
rows += once
pd.DataFrame(once).round(2)

# %% [markdown]
# ## Adapters against LoRA
#
# Ten training steps each, in turns with a LoRA on the same layers, every adapter at about the size of that LoRA: a
# whole period of alpha-LoRA, which every ten steps takes a batch of its own. As in the main study they sit on all
# linear layers of the last blocks; KronA_B stands beside the feed-forward block, and Hybrid-KAN LoRA on its up and
# down.

# %%
linear_layers = ("q", "k", "v", "o", "up", "down") + ("gate",) * (config.family == "llama")
every = LoRA(targets=linear_layers, layers=last)
size = trained_count(every, config)
two = of_size(LoRA(targets=("up", "down"), layers=last), size, config)
beside = {"KronA": (KronA, every), "KronA_B": (KronAB, every), "alpha-LoRA": (AlphaLoRA, every)}
beside |= {"Graph LoRA": (GraphLoRA, every), "Hybrid-KAN LoRA": (KANLoRA, two)}
specs = {}
for name, (kind, lora) in beside.items():
    on = {} if kind in (KronAB, KANLoRA) else {"targets": lora.targets}
    specs[name] = (of_size(kind(layers=last, **on), size, config), lora)
costs = benchmarks.adapter_costs(work, specs) if "adapters" in parts else pd.DataFrame()
costs.infer_objects().round(2)

# %% [markdown]
# ## Decoding
#
# All prompts at once with a cache. The course starter's loop takes one prompt at a time and computes everything again
# for every token. Two changes set us apart from transformers: a step has as few rows as there are prompts, which a CPU
# multiplies faster as $W x^\top$ (`linear.py`), and a nucleus can be drawn from without sorting the vocabulary
# (`generate.py`).

# %%
written, same_text = [], True
if "decoding" in parts:
    written, same_text = benchmarks.decoding(work, prompts=prompts, prompt_length=16, new=new_tokens)
rows += written
pd.DataFrame(written).round(2)

# %%
check("greedy decoding writes transformers' text, token for token", same_text)

# %% [markdown]
# ## Memory, start-up, the optimiser
#
# Memory is what a step of training adds, at its peak, to a process of its own that has imported both libraries; on
# texts of one length, so that the batches are the same, and as long as the model takes, where memory matters.

# %%
resources = []
if "resources" in parts:
    resources = benchmarks.memory(work) + benchmarks.start_up(rounds) + benchmarks.optimizer(work)
rows += resources
pd.DataFrame(resources).round(3)

# %% [markdown]
# ## Growth, and the share of what the machine can do
#
# Time per token over more and more examples is flat if nothing grows faster than the work, but for what else the
# machine does meanwhile. The FLOPs of a training step (6 for each weight and token in full, 4 for LoRA, which needs no
# gradients of the frozen weights; attention and embeddings not counted) are held against the fastest matrix product
# measured here.

# %%
grown = benchmarks.growth(work, tuple(sizes)) if "growth" in parts else pd.DataFrame()
grown.round(3)

# %%
used = benchmarks.utilisation(work) if "growth" in parts else {}
shares = {name: used[f"{name}, share of peak"] for name in ("full", "LoRA") if used}
if used:
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(f"peak: {used['peak'] / 1e9:.0f} GFLOP/s; share: {said}")

# %%
check("training steps reach between 1 % and all of that peak", all(0.01 < share <= 1 for share in shares.values()))

# %%
for name in shares:
    share = used[f"{name}, share of peak"]
    rows.append({"quantity": f"utilisation, {name}", "ours": share, "peer": "matmul peak", "peer_value": 1.0})
    rows[-1] |= {"unit": "of peak FLOP/s"}
for name, cost in costs.iterrows():
    over = {"ratio": 1 / cost["time over LoRA's"], "ratio_low": 1 / cost["highest"], "ratio_high": 1 / cost["lowest"]}
    rows.append({"quantity": f"step of {name}", "peer": "LoRA", "unit": "time of LoRA's"} | over)
for _, point in grown.iterrows():
    quantity = f"LoRA epoch of {int(point['examples'])} examples"
    rows.append({"quantity": quantity, "ours": point["ms a thousand tokens"], "unit": "ms a thousand tokens"})
if out:
    benchmarks.keep(work, task, rows, Path(out))
    for name, table in (("waterfall", changes), ("benchmark-curves", learnt)):
        if len(table):
            table.to_csv(Path(out) / f"{name}.csv")

# %% [markdown]
# ## What we saw, and what it does not show
#
# Where all blocks are adapted, the gain over the peer is of two kinds, as the committed waterfall shows: faster
# products (oneDNN's, on this kind of processor), and work that need not be done, which is padding first of all; masks
# and the last block's unread positions are a few per cent each. Padding's share grows with the spread of the lengths
# and is nothing for texts of one length. At this notebook's tiny defaults, where the texts are short and a step takes
# milliseconds, overheads weigh as much as both. A ratio on this machine is a ratio on this machine; the table names it.
# No GPU was measured.
#
# A number to work out: texts of 10 and of 40 tokens, half of each, in batches of two drawn at random: which share of
# all tokens is padding?
#
# <details><summary>Hint</summary>
#
# Half of the batches are mixed, and such a one has 30 tokens of padding among its 80.
#
# </details>

# %% tags=["exercise"]
padding = exercise("2 share of padding", digest="4a6813a6f96e", digits=2)(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
padding.mistake("the mixed batches are all that there are")(30 / 80)
padding.mistake("padding is held against the real tokens, not against all")(15 / 50)
padding = padding.solution(0.5 * 30 / (0.25 * 20 + 0.25 * 80 + 0.5 * 80))

# %% [markdown]
# ## What it is measured against
#
# | source | what | here | where we deviate |
# |---|---|---|---|
# | [peft](https://github.com/huggingface/peft) | LoRA on GPT-2 | [`benchmarks`](../gpt2lib/benchmarks/__init__.py) | same weights, texts, batch size, rank, targets and precision; batches drawn at random and padded to their longest |
# | [transformers](https://arxiv.org/abs/1910.03771) | GPT-2, `generate` | [`GPT2`](../gpt2lib/model/gpt2.py), [`generate`](../gpt2lib/model/generate.py) | greedy decoding must write the same text |
# | [Chen et al. 2016](https://arxiv.org/abs/1604.06174) | checkpointed activations | [`Decoder`](../gpt2lib/model/decoder.py) | by block |
# | [Kaplan et al. 2020](https://arxiv.org/abs/2001.08361), section 2.1 | 6 FLOPs for each weight and token | `benchmarks.utilisation` | 4 for LoRA; attention and embeddings not counted |
#
# **References.** [Mangrulkar et al. 2022](https://github.com/huggingface/peft) (peft); [Wolf et al.
# 2020](https://arxiv.org/abs/1910.03771) (transformers).

# %% tags=["nbval-check-output"]
check.table()
