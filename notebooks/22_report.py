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
# # The report's figures, from its tables
#
# **The question.** A study has left a table with one row a run. What can be read from it, and how sure is it?
#
# After this notebook you can
# - put an interval beside an accuracy and a perplexity,
# - redraw every figure of the report, and rebuild the PDF, without training anything,
# - say which differences are none.

# %% tags=["parameters"]
study: str = "mini"  # the collected study to look at
results: str = ""  # folder with its tables; "" takes those of this checkout
seed: int = 0  # of the simulation below

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from gpt2lib import report
from gpt2lib.course import show
from gpt2lib.report import figures, statistics

folder = Path(results) if results else report.FOLDER / "results"
runs = pd.read_csv(folder / f"{study}.csv")
examples = pd.read_parquet(folder / f"{study}-examples.parquet")
history = pd.read_csv(folder / f"{study}-history.csv")
sonnets = json.loads((folder / f"{study}-sonnets.json").read_text(encoding="utf-8"))
runs = runs[(runs["part"] == "main") & runs["counts"] & (runs["task"] != "pretraining")]
examples = examples[examples["run"].isin(runs["run"])]
history = history[history["run"].isin(runs["run"])]
runs[["task", "name", "base_model", "source", "trained_params", "accuracy", "perplexity"]]

# %% [markdown]
# ## An interval for an accuracy
#
# $k$ of $n$ dev examples were right. Had other examples been drawn, $k$ would differ: Wilson's interval says by how much,
# and covers the true accuracy about 95 times in 100. A simulation shows that it keeps this promise.

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(seed)
truth, count = 0.4, 1101
drawn = rng.binomial(count, truth, 2000) / count
intervals = [statistics.wilson(share, count) for share in drawn]
covered = np.mean([low <= truth <= high for low, high in intervals])
show.check("Wilson's interval covers the truth 93 to 97 times in 100", 0.93 < covered < 0.97, covered)
low, high = statistics.wilson(0.5, 1101)
show.check("with 1,101 sentences it reaches 3 points to either side", round(50 * (high - low)) == 3, (low, high))

# %% [markdown]
# ## Methods beside their floors

# %%
methods = report.summarise(runs, examples)
methods[["task", "method", "metric", "value", "low", "high", "trained_params"]].round(3)

# %% [markdown]
# **Check.** The table says what the single examples say: an accuracy is the share of examples that were right, and every
# interval holds its own value.

# %% tags=["nbval-check-output"]
right = examples[examples["correct"].notna()].groupby("run")["correct"].mean().astype(float)
table = runs.set_index("run").loc[right.index, "accuracy"]
show.check("accuracies are the share of correct examples", (right - table).abs().max() < 1e-5, (right, table))
inside = methods.dropna(subset=["low", "high"])
holds = ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()
show.check("every interval holds its value", bool(holds), inside)

# %% [markdown]
# ## Which differences are real
#
# Two methods answer the same questions, so what counts is where they differ: a paired permutation test flips the signs of
# the differences at random and asks how often chance does as well. Many comparisons find something by chance alone; Holm's
# correction raises each p accordingly. The reference is LoRA of rank 8.

# %%
compared = statistics.comparisons(examples)
compared.round(3)

# %%
figures.methods(methods, compared)

# %% tags=["nbval-check-output"]
show.check("a corrected p is never below its own", bool((compared["p_holm"] >= compared["p"]).all()), compared)
none = statistics.permutation_p(np.zeros(100))
show.check("of a method and itself p is 1", none == 1.0, none)

# %% [markdown]
# ## How they learnt

# %%
figures.learning_curves(history, methods)

# %% [markdown]
# ## What they cost
#
# Three different claims: parameters trained, and the time of a step and the memory as the benchmarks measured them.

# %%
figures.cost(methods, pd.read_csv(report.FOLDER / "results" / "benchmarks.csv"))

# %% [markdown]
# ## What the sonnets' scores are worth
#
# The dotted lines are published scores on the real GPT-2, each in the convention that it seems to follow. They stand where
# completions that know nothing stand.

# %%
published = pd.read_csv(report.FOLDER / "published.csv")
scores = report.sonnet_scores(runs, sonnets)
figures.sonnet_scores(scores, published[published["metric"] == "chrF"])

# %% tags=["nbval-check-output"]
floor = scores.set_index("method").loc["given and random lines"]
show.check(
    "random lines score on whole sonnets what they do not on the continuation",
    floor["chrf_whole"] > floor["chrf_continuation"] + 5,
    floor,
)

# %% [markdown]
# ## The PDF
#
# The Typst source reads these tables and holds no number of its own. The same tables give the same bytes.

# %% tags=["nbval-check-output"]
here = Path(tempfile.mkdtemp())
pdf = report.build(study, folder, here / "figures", report.FOLDER / "report.typ", here / "report.pdf")
show.check("the PDF is built", pdf.read_bytes()[:4] == b"%PDF")
drawn = pd.read_csv(here / "figures" / study / "methods.csv")["value"]
show.check("from the numbers above", (drawn - methods["value"].reset_index(drop=True)).abs().max() < 1e-6, drawn)

# %% [markdown]
# ## What we saw, and what it does not show
#
# Intervals over examples are not intervals over seeds: another order of the data, another initial adapter, another
# learning rate would move every bar. Where two intervals overlap widely, there is no winner.
#
# **Exercise.** How many dev examples would it take for a half-width of one point at an accuracy near one half?

# %% tags=["nbval-check-output"]
answer = 9604  # yours: 1.96^2 / 4 / 0.01^2
low, high = statistics.wilson(0.5, answer)
show.check("exercise: about 9,600", abs((high - low) / 2 - 0.01) < 1e-4, (high - low) / 2)

# %% [markdown]
# **References.** Wilson 1927 (the interval); Efron 1979 (the bootstrap).
