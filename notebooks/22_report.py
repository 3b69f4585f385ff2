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
# **The question.** A study has left a table with one row a run. What can be read from it, and how sure is it? Needs
# notebook [07](07_sentiment.ipynb). It runs in about a minute on one core.
#
# After this notebook you can
# - put an interval beside an accuracy and a perplexity,
# - redraw every figure of the report, and rebuild the PDF, without training anything,
# - say which differences are established and which are not, by a paired test and not by looking at bars.

# %% tags=["parameters"]
study: str = "smollm2"  # the collected study to look at
results: str = ""  # folder with its tables; "" takes those of this checkout
seed: int = 0  # of the simulation below

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from gpt2lib import report
from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.report import figures, statistics
from gpt2lib.report.collected import collected, missing_runs

check = Verdicts()

folder = Path(results) if results else report.FOLDER / "results"
runs, examples, history = collected(study, folder)
to_come = missing_runs(study, folder)
print(
    "runs of the main part that are planned and not done:",
    to_come[to_come["part"] == "main"]["task"].value_counts().to_dict(),
)
sonnets = json.loads((folder / f"{study}-sonnets.json").read_text(encoding="utf-8"))
runs = runs[(runs["part"] == "main") & runs["counts"] & (runs["task"] != "pretraining")]
examples = examples[examples["run"].isin(runs["run"])]
history = history[history["run"].isin(runs["run"])]
runs[["task", "name", "base_model", "source", "trained_params", "accuracy", "perplexity"]]

# %% [markdown]
# ## An interval for an accuracy
#
# $k$ of $n$ dev examples were right. Had other examples been drawn, $k$ would differ: Wilson's interval says by how
# much, and covers the true accuracy about 95 times in 100. A simulation shows that it keeps this promise.

# %%
rng = np.random.default_rng(seed)
truth, count = 0.4, 1101
drawn = rng.binomial(count, truth, 2000) / count
intervals = [statistics.wilson(share, count) for share in drawn]
covered = np.mean([low <= truth <= high for low, high in intervals])
check("Wilson's interval covers the truth 93 to 97 times in 100", 0.93 < covered < 0.97, covered)
low, high = statistics.wilson(0.5, 1101)
check("with 1,101 sentences it reaches 3 points to either side", round(50 * (high - low)) == 3, (low, high))

# %% [markdown]
# ## Methods beside their floors

# %%
methods = report.summarise(runs, examples)
methods[["task", "method", "metric", "value", "low", "high", "trained_params"]].round(3)

# %% [markdown]
# **Check.** The table says what the single examples say: an accuracy is the share of examples that were right, and
# every interval holds its own value.

# %%
right = examples[examples["correct"].notna()].groupby("run")["correct"].mean().astype(float)
table = runs.set_index("run").loc[right.index, "accuracy"]
check("accuracies are the share of correct examples", (right - table).abs().max() < 1e-5, (right, table))
inside = methods.dropna(subset=["low", "high"])
holds = ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()
check("every interval holds its value", bool(holds), inside)

# %% [markdown]
# Is LoRA better than its floors, and the last layer alone? The table has an interval for each of them, and whether two
# intervals overlap is not the question: both answered the same examples, and what they both got right, or both wrong,
# says nothing about their difference. In pairs, example by example (points, for sonnets nats a token; p corrected for
# the tasks, by the rule that you write below):

# %%
beyond = statistics.against_floors(examples)
beyond = beyond[beyond["method"].isin(["lora", "last-linear"])]
beyond[["task", "method", "floor", "seeds", "difference", "low", "high", "p", "p_holm"]].round(3)

# %% [markdown]
# ## Which differences are established
#
# Two methods answer the same questions, so what counts is where they differ. A **paired permutation test** supposes
# that the two are equally good: then each difference $d_i$ might as well have had the other sign. It flips the signs in
# all $2^n$ ways (or in some thousands, drawn) and asks how often the mean comes out at least as far from 0 as it did.
#
# **Write it yourself**, exactly, for few differences: `differences` [n], $n$ at most a dozen; return the two-sided $p$,
# the share of the $2^n$ sign patterns, the given one among them, whose $|\text{mean}|$ is at least the observed one.
#
# <details><summary>Hint</summary>
#
# `itertools.product([1, -1], repeat=n)` gives the patterns. Compare with a small tolerance, `>= observed - 1e-12`: sums
# in another order differ in the last digit.
#
# </details>

# %% tags=["cases"]
from itertools import product

few = [
    (np.array([0.3, 0.1, 0.4, -0.2, 0.5, 0.2, 0.6, 0.1]),),
    (np.array([-1.0, 0.5, -0.7, -0.2, -0.9, 0.1]),),
    (np.array([0.2, -0.3, 0.1, 0.4]),),
]


# %% tags=["exercise"]
@exercise("1 paired_p", like=statistics.permutation_p, on=few, look="both tails, and the observed pattern itself")
def paired_p(differences):
    """[n] -> the two-sided p"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@paired_p.mistake("only the upper tail is counted: a one-sided test, chosen after seeing the data")
def paired_p(differences):
    signs = np.array(list(product([1, -1], repeat=len(differences))))
    return float(np.mean((signs * differences).mean(1) >= differences.mean() - 1e-12))


@paired_p.mistake(
    "the pairs are not kept: values are compared with 0 one by one, and their sizes are lost (a sign test)"
)
def paired_p(differences):
    signs = np.array(list(product([1, -1], repeat=len(differences))))
    return float(np.mean(np.abs(signs.sum(1)) >= abs(np.sign(differences).sum())))


@paired_p.solution
def paired_p(differences):
    signs = np.array(list(product([1, -1], repeat=len(differences))))
    return float(np.mean(np.abs((signs * differences).mean(1)) >= abs(differences.mean()) - 1e-12))


# %% [markdown]
# Many comparisons find something by chance alone. **Holm's correction**: of $m$ values the smallest is multiplied by
# $m$, the next by $m - 1$, and so on to 1; none may then be below the one before it in this order, nor above 1. **Write
# it**: `p` [m] in any order, return the corrected ones in the same order.
#
# <details><summary>Hint</summary>
#
# `order = np.argsort(p)`, then `np.maximum.accumulate` over `p[order]` times $m, m - 1, \dots, 1$, and back:
# `result[order] = ...`.
#
# </details>

# %% tags=["cases"]
from statsmodels.stats.multitest import multipletests

some = [(np.array([0.03, 0.001, 0.02, 0.6]),), (np.array([0.011, 0.01, 0.04]),), (np.array([0.4, 0.9, 0.8]),)]


def library_holm(p):
    return multipletests(p, method="holm")[1]


# %% tags=["exercise"]
@exercise("2 holm", like=library_holm, on=some, look="the order in which the p come back, and whether they still rise")
def holm(p):
    """[m] -> [m]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@holm.mistake("all are multiplied by their number: Bonferroni's correction, which is never sharper")
def holm(p):
    return np.minimum(p * len(p), 1)


@holm.mistake("a larger p is corrected to below a smaller one")
def holm(p):
    result = np.empty(len(p))
    order = np.argsort(p)
    result[order] = np.minimum(p[order] * np.arange(len(p), 0, -1), 1)
    return result


@holm.mistake("a corrected p is above 1")
def holm(p):
    result, order = np.empty(len(p)), np.argsort(p)
    result[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return result


@holm.solution
def holm(p):
    result, order = np.empty(len(p)), np.argsort(p)
    result[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return result


# %% [markdown]
# ## Other seeds, other examples
#
# The permutation test above holds for *these* runs: it draws examples, and takes the seeds as they are. Three runs of a
# method are three of many, too. Every seed met every example, so a table of differences,
# $[\text{seeds}, \text{examples}]$, has three mean squares, and the variance of its mean is
#
# $$\widehat{\mathrm{Var}} = \frac{MS_\text{seeds} + MS_\text{examples} - MS_\text{rest}}{\text{seeds} \cdot
# \text{examples}},$$
#
# with Satterthwaite's degrees of freedom: where the seeds disagree most, three of them have two degrees of freedom, and
# the interval is about as wide as it must be. This is how the report gets its intervals (`statistics.crossed`). A
# simulation in which the truth is known says how far they keep their promise, and what it costs to leave the seeds out.


# %%
def simulated(of_seeds, of_examples, of_rest, seeds=3, count=400):
    """A table of differences whose true mean is 0."""
    table = of_seeds * rng.standard_normal((seeds, 1)) + of_examples * rng.standard_normal(count)
    return table + of_rest * rng.standard_normal((seeds, count))


def coverage(tables) -> float:
    """How often the interval holds the truth."""
    ends = [statistics.interval(table) for table in tables]
    return float(np.mean([low <= 0 <= high for low, high in ends]))


spreads = {"seeds alike": (0.0, 0.4, 0.3), "seeds apart": (0.03, 0.4, 0.3), "seeds far apart": (0.1, 0.4, 0.3)}
rows = {}
for name, spread in spreads.items():
    tables = [simulated(*spread) for _ in range(2000)]
    without = coverage([table.mean(0)[None] for table in tables])
    rows[name] = {"seeds and examples": coverage(tables), "examples alone": without}
covered = pd.DataFrame(rows).T
check("over seeds and examples at least 90 of 100 hold it", bool((covered.iloc[:, 0] > 0.9).all()), covered)
check("examples alone hold it too rarely where seeds are far apart", covered.iloc[-1, 1] < 0.8, covered)
covered.round(3)


# %% [markdown]
# Where three seeds are far apart about 92 of 100 hold the truth instead of 95: the degrees of freedom are themselves
# estimated. One interval may pass for that, but not a family. Holm's correction looks for the smallest of many $p$, far
# out in the tail, and of nine methods some will have seeds that agree **by luck**: their $p$ comes out far too small.
# All nine are compared with the same LoRA, so their spreads can be looked at together. The report takes the mean of
# their $MS_\text{seeds}$, or a method's own where that is larger. As all differ from the same runs, two of them are
# correlated, by 1/4 if all methods' seeds spread alike, and together they have
#
# $$\frac{4 K (\text{seeds} - 1)}{K + 3}$$
#
# degrees of freedom, not $K (\text{seeds} - 1)$ (`statistics.seeds_together`). Below: nine methods that are LoRA's
# equals. How often is at least one called different?


# %%
def family(apart, together, methods=9, seeds=3, count=60):
    """The smallest p of a family in which nothing differs, times its size: Holm's first step."""
    spread = apart * rng.standard_normal((methods + 1, seeds, 1)) + 0.5 * rng.standard_normal((methods + 1, 1, count))
    scores = spread + 0.7 * rng.standard_normal((methods + 1, seeds, count))
    tables = list(scores[1:] - scores[0])
    shared = statistics.seeds_together(tables) if together else None
    return methods * min(statistics.crossed(table, shared=shared).p for table in tables)


found = {
    name: {how: np.mean([family(apart, how == "together") < 0.05 for _ in range(600)]) for how in ("alone", "together")}
    for name, apart in {"seeds alike": 0.0, "seeds apart": 0.1, "seeds far apart": 0.25}.items()
}
found = pd.DataFrame(found).T
check("together at most 5 of 100 families have a wrong finding", bool((found["together"] < 0.06).all()), found)
check("alone more than 8 do, where seeds are far apart", found.loc["seeds far apart", "alone"] > 0.08, found)
found.round(3)

# %% [markdown]
# And where nothing differs? A test that finds nothing has not shown that there is nothing. Two one-sided tests
# (Schuirmann 1987) turn the question round: within how many points are the two shown to be alike, at 5 %? It is the
# farther end of the 90 % interval, the column `within` below. (`effect` is the difference without a unit: Cohen's h of
# two shares; for nats the mean over the standard deviation of the differences.)

# %% [markdown]
# The reference is LoRA of rank 8. Its table below takes `p` not from sign flips, which know of no other seeds, but from
# the mean and the variance above (`crossed`, a $t$ test); `p_holm` is Holm's correction of a task's `p`, for all
# methods that are *planned* there: one that has not run yet counts as a comparison with $p = 1$, so that a table does
# not grow less sure of itself as it is filled. Before you look at it: many readers compare two bars and say "the
# intervals overlap, so there is no difference".

# %%
hidden = predict(
    "Of the differences that are significant after Holm's correction, what percentage has overlapping intervals?"
)(None)

# %%
planned = report.planned_ways(runs, to_come)
compared = statistics.comparisons(examples, planned=planned)
compared.round(3)

# %%
again = []
for task, rows in compared.groupby("task", sort=False):
    p = rows["p"].where(rows["seeds"] > 1, 1.0).to_numpy()  # one seed says nothing of others
    to_add = max(0, planned.get(task, 0) - 1 - len(p))
    again += list(holm(np.concatenate([p, np.ones(to_add)]))[: len(p)])
check("your `holm`, with 1 for every method to come, gives the table's column", np.allclose(again, compared["p_holm"]))

# %%
ends = methods.dropna(subset=["low", "high"]).set_index(["task", "method"])[["low", "high"]]
significant = compared[compared["p_holm"] < 0.05]
overlap = [
    ends.loc[(task, name), "low"] <= ends.loc[(task, statistics.REFERENCE), "high"]
    and ends.loc[(task, statistics.REFERENCE), "low"] <= ends.loc[(task, name), "high"]
    for task, name in zip(significant["task"], significant["method"], strict=True)
]
if overlap:
    hidden.was(
        100 * sum(overlap) / len(overlap),
        f"That is {sum(overlap)} of {len(overlap)}. "
        + ("Here the readers' rule did no harm; below is a pair for which it would. " if not any(overlap) else "")
        + "Overlapping intervals are not a test: each holds how much its own mean would move, the difficulty of the "
        "drawn examples included, which both methods share and which drops out of the difference.",
        digits=0,
    )
else:
    print("In this study no difference is significant.")

# %% [markdown]
# Even for two *independent* means, the standard error of a difference is $\sqrt{s_1^2 + s_2^2}$ and not $s_1 + s_2$, as
# comparing ends supposes. For pairs it is smaller wherever both methods find the same examples hard. Three seeds that
# disagree can make it wider all the same: few seeds are few degrees of freedom, and the interval says so. In the right
# panel below are the intervals that one may read: those of the differences. First a made-up pair: of 400 questions one
# method answers 300, the other loses four of these and gains twenty.

# %%
one = np.arange(400) < 300
other = (np.arange(400) >= 4) & (np.arange(400) < 320)
(low, high), (other_low, other_high) = (statistics.wilson(right.mean(), 400) for right in (one, other))
p = statistics.permutation_p(other.astype(float) - one)
print(f"{one.mean():.1%} ({low:.1%} to {high:.1%})")
print(f"{other.mean():.1%} ({other_low:.1%} to {other_high:.1%}), p of the difference {p:.4f}")
check("two intervals that overlap widely, and a difference that a paired test finds", other_low < high and p < 0.01, p)

# %%
figures.methods(methods, compared)

# %%
check("a corrected p is never below its own", bool((compared["p_holm"] >= compared["p"]).all()), compared)
none = statistics.crossed(np.zeros((3, 100)))
check("of a method and itself p is 1, and it is within 0 points", none.p == 1 and none.within == 0, none)
farther = compared[["low", "high"]].abs().max(axis=1)
check("`within` lies inside the 95 % interval's farther end", bool((compared["within"] <= farther + 1e-9).all()))

# %% [markdown]
# ## How they learnt
#
# On what was watched in training: in the main study that is the tenth of the training data that is held out. A curve
# needs three evaluations, and a picture two curves; where runs are of two epochs there is none.

# %%
watched = report.shared_design(runs)["select"] or "dev"
figures.learning_curves(history, methods, watched)

# %% [markdown]
# ## What they cost
#
# Three different claims: parameters trained, and the time of a step and the memory as the benchmarks measured them.

# %%
figures.cost(methods, pd.read_csv(report.FOLDER / "results" / "benchmarks.csv"))

# %% [markdown]
# ## What the sonnets' scores are worth
#
# The dotted lines are published scores on the real GPT-2, each in the convention that it follows or, where its code is
# not public, seems to follow. They stand where completions that know nothing stand.

# %%
published = pd.read_csv(report.FOLDER / "published.csv")
scores = report.sonnet_scores(runs, sonnets)
figures.sonnet_scores(scores, published[published["metric"] == "chrF"])

# %%
floor = scores.set_index("method").loc["given and random lines"]
check(
    "random lines score on whole sonnets what they do not on the continuation",
    floor["chrf_whole"] > floor["chrf_continuation"] + 5,
    floor,
)

# %% [markdown]
# ## The PDF
#
# The Typst source reads these tables and holds no number of its own. The same tables give the same bytes.

# %%
here = Path(tempfile.mkdtemp())
pdf = report.build(study, folder, here / "figures", report.FOLDER / "report.typ", here / "report.pdf")
check("the PDF is built", pdf.read_bytes()[:4] == b"%PDF")
drawn = pd.read_csv(here / "figures" / study / "methods.csv")["value"]
check("from the numbers above", (drawn - methods["value"].reset_index(drop=True)).abs().max() < 1e-6, drawn)

# %% [markdown]
# ## What we saw, and what it does not show
#
# Means and their intervals are over seeds and examples; another learning rate, another base or another task would move
# them, and no interval here knows of that. The tests are of the same dev examples, on which the rate was chosen as
# well, unless the study chose it on a held-out part. A difference that is not significant is not a proof of equality:
# its interval says how large it may still be.
#
# A number to work out: how many dev examples would it take for a half-width of one point at an accuracy near one half
# (two digits are enough: round to hundreds)?
#
# <details><summary>Hint</summary>
#
# The half-width is about $1.96 \sqrt{0.5 \cdot 0.5 / n}$.
#
# </details>

# %% tags=["exercise"]
needed = exercise("3 examples for one point", digest="3b9dcdfffdd2", digits=-2)(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
needed.mistake("that is the whole width, not the half")(2400)
needed.mistake("the half-width is taken for one standard error: 1.96 is forgotten")(2500)
needed = needed.solution(9600)

# %%
low, high = statistics.wilson(0.5, needed)
check("with so many the half-width is one point", abs((high - low) / 2 - 0.01) < 1e-4, (high - low) / 2)

# %% [markdown]
# ## The sources, and where we deviate
#
# | source | what | here | where we deviate |
# |---|---|---|---|
# | [Wilson 1927](https://doi.org/10.1080/01621459.1927.10502953) | interval of a share | [`wilson`](../gpt2lib/report/statistics.py) | none (SciPy's) |
# | [Satterthwaite 1946](https://doi.org/10.2307/3002019) | degrees of freedom of a sum of mean squares | [`crossed`](../gpt2lib/report/statistics.py) | no source of spread is let below none, nor a method's seeds below what the task's methods have together |
# | [Schuirmann 1987](https://doi.org/10.1007/BF01068419) | two one-sided tests | [`Mean.within`](../gpt2lib/report/statistics.py) | the margin is reported, not fixed beforehand |
# | [Holm 1979](https://www.jstor.org/stable/4615733) | step-down correction | [`comparisons`](../gpt2lib/report/statistics.py) | within each task |
# | Fisher 1935, *The Design of Experiments*, section 21 | signs of paired differences flipped | [`permutation_p`](../gpt2lib/report/statistics.py) | 4,999 drawn patterns where there are too many |
# | [Popović 2015](https://doi.org/10.18653/v1/W15-3049) | chrF | [`sonnet_scores`](../gpt2lib/report/summaries.py) | in both conventions, beside floors |
#
# **References.** The table's links; and [Schenker and Gentleman 2001](https://doi.org/10.1198/000313001317097960) on
# judging differences by overlapping intervals.

# %% tags=["nbval-check-output"]
check.table()
