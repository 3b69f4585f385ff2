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
# # One adapter for several tasks
#
# **The question.** An adapter a task, or one that serves them all: what is gained, and what is lost?
#
# After this notebook you can
# - draw batches from several tasks in proportion to their size, or more evenly by a temperature,
# - train one shared adapter with a head for each task, and compare it with an adapter for each.

# %% tags=["parameters"]
tasks: list = ["sst", "cfimdb", "quora"]  # any of sst, cfimdb, quora, sonnets
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
depth: int = 0  # keep so many of the base's blocks; 0: all
method: str = "lora"  # an adapter; its settings that are not given here are the defaults
rank: int = 8  # of the adapter
targets: list = ["q", "k", "v", "o", "up", "down"]  # layers it sits on
layers: list = []  # the blocks that train, [first, end]; empty: all
settings: list = []  # of the method alone, a text each: a name, an equals sign, a value
temperature: float = 2.0  # 1: batches by the tasks' sizes; larger: more evenly
epochs: int = 2  # passes through the training data, of each task alone or of the mixture
batch_size: int = 16  # examples per update
lr: float = 2e-3  # highest learning rate
examples: int = 240  # training examples of each task, drawn once and for all; 0 takes all
max_length: int = 512  # tokens; of a longer text the end is kept
seed: int = 0  # of the heads, the adapter and the order of the data
out: str = ""  # folder for the results; "" keeps none

# %%
import pandas as pd
import torch

from gpt2lib.adapters import trained_count
from gpt2lib.course import lessons, show
from gpt2lib.data import load_task
from gpt2lib.model.base import base_name, load_base
from gpt2lib.report import figures
from gpt2lib.study.record import write_tables
from gpt2lib.tasks import TASKS, Encoder, method_of, settings_of
from gpt2lib.tasks.multitask import labelled_by_task, mixture, prepare_tasks
from gpt2lib.training import evaluate, fit

# %% [markdown]
# ## The mixture
#
# A task with $n$ examples gets a share in proportion to $n^{1/T}$. $T = 1$ draws by size, so that a large task drowns
# a small one; $T \to \infty$ gives all the same, so that a small one is repeated often. One pass through the mixture
# has as many examples as there are in all.

# %%
datas = [load_task(task, source or None).sample(examples) for task in tasks]
body, tokenizer = load_base(base_model, depth=depth or None)
encoders = [Encoder(task, tokenizer, min(max_length, body.config.n_positions)) for task in tasks]
train = labelled_by_task([encode(d.train) for encode, d in zip(encoders, datas, strict=True)])
dev = labelled_by_task([encode(d.dev, score_from_prompt=True) for encode, d in zip(encoders, datas, strict=True)])


def shares(t):
    drawn = pd.Series([example.task for example in mixture(train, t)]).value_counts(normalize=True)
    return {task: drawn[i] for i, task in enumerate(tasks)}


pd.DataFrame({f"T = {t:g}": shares(t) for t in (1.0, temperature, float("inf"))}).round(3)

# %% tags=["nbval-check-output"]
sizes = pd.Series({task: len(part) for task, part in zip(tasks, train, strict=True)})
by_size = pd.Series(shares(1.0))
show.check(
    "at T = 1 the shares are the sizes'", bool(((by_size - sizes / sizes.sum()).abs() < 0.01).all()), dict(by_size)
)
even = pd.Series(shares(float("inf")))
show.check("at T = infinity they are equal", bool(((even - 1 / len(tasks)).abs() < 0.01).all()), dict(even))

# %% [markdown]
# ## One adapter, a head for each task

# %%
torch.manual_seed(seed)
spec = method_of(globals())
model = prepare_tasks(datas, body, tokenizer, spec)
how = settings_of(globals())
flat_dev = [example for part in dev for example in part]
before, _ = evaluate(model, flat_dev)
progress = fit(model, mixture(train, temperature, seed=seed), flat_dev, how)
together, _ = evaluate(model, flat_dev)
figures.learning_curve(progress.history, "loss")

# %% tags=["nbval-check-output"]
bodies = {id(task.body) for task in model.tasks}
show.check("the tasks share one body and one adapter", len(bodies) == 1)
show.check("training lowered its dev loss", together["loss"] < before["loss"], (before["loss"], together["loss"]))

# %% [markdown]
# ## An adapter for each task
#
# The same specification, trained on each task alone for as many passes through its data.

# %%
rows = {}
for data in datas:
    models, table = lessons.comparison(
        {"alone": spec}, {"alone": lr}, data, base_model, how, max_length=max_length, depth=depth
    )
    metric = TASKS[data.name].metric
    one = trained_count(spec, body.config)
    rows[data.name] = {
        "metric": metric,
        "an adapter each": table.loc["alone", metric],
        "one for all": together[f"{data.name}_{metric}"],
    }
print(f"{one:,} parameters in one adapter, {len(datas) * one:,} in {len(datas)}")
table = pd.DataFrame(rows).T.rename_axis("task_name").reset_index()
table

# %%
about = {"task": "multitask", "source": datas[0].source, "method": method, "base_model": base_name(base_model)}
write_tables(out, {"multitask": table}, about | {"seed": seed, "examples": int(sizes.sum())})

# %% [markdown]
# ## What we saw, and what it does not show
#
# The shared adapter has one part in as many of the parameters, and every task saw as many or fewer of its own examples,
# as the temperature decides. Related tasks can lend each other something; unrelated ones compete for the same rank. On
# these few examples and with one seed, a difference of a few points is noise.
#
# **Exercise 1.** Two tasks of 100 and 900 examples at $T = 2$: what share of the mixture does the small one get?
#
# **Exercise 2.** How often is each of its 100 examples then drawn in one pass of 1,000?

# %% tags=["nbval-check-output"]
answer_1 = None
answer_2 = None
show.exercise(1, answer_1, lambda a: abs(a - 0.25) < 1e-6, "the square roots of 100 and 900 are 10 and 30")
show.exercise(2, answer_2, lambda a: abs(a - 2.5) < 1e-6, "a quarter of 1,000, over 100")

# %% [markdown]
# **Solutions** (open the cell to see them).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
show.exercise(1, 100**0.5 / (100**0.5 + 900**0.5), lambda a: abs(a - 0.25) < 1e-6, "")
show.exercise(2, 0.25 * 1000 / 100, lambda a: abs(a - 2.5) < 1e-6, "")

# %% [markdown]
# **References.** Bo, Bernardino and Gu 2025 (single-task and multitask adapters, arXiv 2504.10490); Raffel et al. 2020
# (temperature-scaled mixing, section 3.5.2).
