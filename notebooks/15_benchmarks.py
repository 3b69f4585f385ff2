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
# work, on this machine?
#
# After this notebook you can
# - measure two programs against each other so that the result means something: one process, in turns, ratios by round,
# - say what each change buys, and what was not worth having.
#
# The defaults are tiny shapes on toy lengths, to show the machinery in a minute; overheads weigh more there than they do
# in earnest. `report/results/benchmarks.csv` has GPT-2 small's shapes, and the report shows it.

# %% tags=["parameters"]
task: str = "sst"  # whose text lengths: sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
tokenizer_name: str = "gpt2-mini"  # whose tokens: a folder, or a hub name such as "gpt2"
n_layer: int = 2  # of random weights; 12, 12, 768 and 50257 make GPT-2 small
n_head: int = 4
n_embd: int = 128
vocab_size: int = 2048
batch_size: int = 8  # examples per update
steps: int = 8  # updates in a round
rounds: int = 3  # that count; the first does not
precision: str = "float32"  # or "bf16"
prompts: int = 4  # texts continued at once; 15 and 128 in earnest
new_tokens: int = 24  # written for each
sizes: list = [200, 400, 800]  # training sets for the growth of time; 1000, 7000, 50000 in earnest
base_model: str = "gpt2-mini"  # for the two learning curves, on the task's own labels
examples: int = 160  # to train on there; 0 takes all
epochs: int = 2  # there
decode: bool = True  # measure decoding
all_of_it: bool = True  # or the training speeds alone
out: str = ""  # folder for benchmarks.csv; "" keeps nothing

# %%
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from gpt2lib import GPT2Config, benchmarks, figures, pretrained, show
from gpt2lib.adapters import AlphaLoRA, GraphLoRA, KANLoRA, KronA, KronAB, LoRA
from gpt2lib.base import load_base
from gpt2lib.data import load_task
from gpt2lib.encoding import load_tokenizer
from gpt2lib.record import environment
from gpt2lib.tasks import Encoder

config = GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=vocab_size)
tokenizer = load_tokenizer(tokenizer_name)
texts = Encoder(task, tokenizer, 512)(load_task(task, source or None, quiet=True).train)
lengths = tuple(len(e.ids) for e in texts)
work = benchmarks.Work(config, lengths, batch_size, steps, rounds, precision)
print(f"{task}: {len(lengths)} texts, {sum(lengths) / len(lengths):.0f} tokens on average, {max(lengths)} at most")

# %% [markdown]
# ## Training
#
# Both sides have the same weights, the same texts, batch size, precision, rank and target layers, and clip gradients. peft's
# side draws batches at random and pads them to their longest, as a user's collator does; ours is `fit`. A ratio above 1 is in
# our favour.

# %%
rows = benchmarks.training(work)
pd.DataFrame(rows).round(2)

# %% [markdown]
# Faster must not mean worse: LoRA from the same pretrained weights, on the same labelled examples, at the same learning rates,
# of both sides.

# %%
body, own_tokenizer = load_base(base_model)
labelled, encoder = load_task(task, source or None, quiet=True), Encoder(task, own_tokenizer, 512)
base = benchmarks.Work(body.config, lengths, batch_size, precision=precision, weights=str(pretrained.find(base_model)))
learnt = pd.DataFrame()
if all_of_it and task in ("sst", "cfimdb"):
    learnt = benchmarks.dev_curves(
        base, encoder(labelled.sample(examples).train), encoder(labelled.dev), epochs, lr=3e-3
    )
figures.two_sides(learnt) if len(learnt) else None

# %% [markdown]
# ## What each change buys
#
# From the peer to `fit`, one change at a time. *No mask*: padding stands on the right, where a causal model needs none, and
# there is no dropout left to apply to frozen features. *Batches by length*: hardly any padding. *Last block for one token*: the
# classifier reads one position, so the last block's queries and feed-forward layer skip the others.
# In bf16, *frozen weights kept in bf16* spares autocast from casting each of them in every step.
#
# Tried and dropped on a CPU: `torch.compile`, 5 % at most after minutes of compiling, for matrix products are nearly all of it.

# %%
changes = (
    benchmarks.waterfall(work) if all_of_it else pd.DataFrame({"examples/s": [r["ours"] for r in rows[:1]]}, ["fit"])
)
figures.waterfall(changes)

# %% [markdown]
# ## The last layer alone
#
# What is frozen gives the same features in every epoch: `fit` computes them once.

# %%
if all_of_it:
    rows += benchmarks.last_linear(work)
pd.DataFrame(rows[2:]).round(4)

# %% [markdown]
# ## Adapters against LoRA
#
# One training step each, LoRA at the same targets in turns with it; KronA_B stands beside the feed-forward block and is
# held against LoRA on query and value.

# %%
qv, ud = LoRA(), LoRA(targets=("up", "down"))
specs = {"KronA": (KronA(), qv), "KronA_B": (KronAB(), qv), "alpha-LoRA": (AlphaLoRA(), qv)}
specs |= {"Graph LoRA": (GraphLoRA(), qv), "Hybrid-KAN LoRA": (KANLoRA(), ud)}
costs = benchmarks.adapter_costs(work, specs) if all_of_it else pd.DataFrame()
costs

# %% [markdown]
# ## Decoding
#
# All prompts at once with a cache. The course starter's loop takes one prompt at a time and computes everything again for
# every token.

# %%
if decode:
    rows += benchmarks.decoding(work, prompts=prompts, prompt_length=16, new=new_tokens)
    same_text = next(r.pop("same_text") for r in rows if "same_text" in r)
pd.DataFrame([r for r in rows if "decoding" in r["quantity"]]).round(2)

# %% tags=["nbval-check-output"]
show.check("greedy decoding writes transformers' text, token for token", not decode or same_text)

# %% [markdown]
# ## Memory, start-up, the optimiser
#
# Memory is what training adds, at its peak, to a process of its own that has imported both libraries.

# %%
if all_of_it:
    rows += benchmarks.memory(work) + benchmarks.start_up(rounds) + benchmarks.optimizer(work)
pd.DataFrame(rows).tail(4).round(3)

# %% [markdown]
# ## Growth, and the share of what the machine can do
#
# Time per token over more and more examples is flat if nothing grows faster than the work. The FLOPs of a training step (6 for each
# weight and token in full, 4 for LoRA, which needs no gradients of the frozen weights; attention and embeddings not counted)
# are held against the fastest matrix product measured here.

# %%
grown = benchmarks.growth(work, tuple(sizes)) if all_of_it else pd.DataFrame()
grown.round(3)

# %%
used = benchmarks.utilisation(work)
print(
    f"peak: {used['peak'] / 1e9:.0f} GFLOP/s; share: full {used['full, share of peak']:.0%}, LoRA {used['LoRA, share of peak']:.0%}"
)

# %% tags=["nbval-check-output"]
show.check("a training step keeps part of the machine busy", used["full, share of peak"] > 0, used)

# %%
if out:
    Path(out).mkdir(parents=True, exist_ok=True)
    here = environment()
    names = ("torch", "transformers", "peft")
    about = {"device": here["device"], "task": task, "n_layer": n_layer, "n_embd": n_embd, "batch_size": batch_size}
    about |= {"precision": precision, "versions": ", ".join(f"{name} {version(name)}" for name in names)}
    for name in ("full", "LoRA"):
        share = {
            "ours": used[f"{name}, share of peak"],
            "peer": "matmul peak",
            "peer_value": 1.0,
            "unit": "of peak FLOP/s",
        }
        rows.append({"quantity": f"utilisation, {name}"} | share)
    for name, cost in costs.iterrows():
        ratio = 1 / cost["time over LoRA's"]
        rows.append({"quantity": f"step of {name}", "peer": "LoRA", "ratio": ratio, "unit": "time of LoRA's"})
    for _, point in grown.iterrows():
        quantity = f"LoRA epoch of {int(point['examples'])} examples"
        rows.append({"quantity": quantity, "ours": point["ms a thousand tokens"], "unit": "ms a thousand tokens"})
    table = pd.DataFrame([about | row for row in rows])
    table.to_csv(Path(out) / "benchmarks.csv", index=False)
    changes.to_csv(Path(out) / "waterfall.csv")
    learnt.to_csv(Path(out) / "curves.csv", index=False)

# %% [markdown]
# ## What we saw, and what it does not show
#
# Most of the gain over the peer is work that need not be done: padding, masks, positions that nobody reads. It grows with
# the spread of the lengths and shrinks for texts of one length. A ratio on this machine is a ratio on this machine; the
# table names it. No GPU was measured.
#
# **Exercise.** Texts of 10 and of 40 tokens, half of each, in batches of two drawn at random: which share of all tokens is padding?

# %% tags=["nbval-check-output"]
answer_1 = None
show.exercise(
    1,
    answer_1,
    lambda a: abs(a - 3 / 13) < 1e-3,
    "half of the batches are mixed, and have 30 tokens of padding among 80",
)

# %% [markdown]
# **Solution** (open the cell to see it).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
padding, tokens = 0.5 * 30, 0.25 * 20 + 0.25 * 80 + 0.5 * 80
show.exercise(1, padding / tokens, lambda a: abs(a - 3 / 13) < 1e-3, "")

# %% [markdown]
# **References.** Mangrulkar et al. 2022 (peft); Wolf et al. 2020 (transformers).
