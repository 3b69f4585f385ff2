"""What can be told apart: intervals over seeds and examples, and paired tests against a reference, Holm-corrected."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

REFERENCE = "lora"
# by the name of a floor: what is compared, of a run's examples, and what they have of the floor
PAIRED_FLOORS = {"bag of words": ("correct", "bag_of_words_correct"), "before training": ("loss", "loss_before")}


@dataclass(frozen=True)
class Mean:
    """A mean, its standard error and that one's degrees of freedom."""

    value: float
    se: float
    df: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        half = stats.t.ppf(0.5 + level / 2, self.df) * self.se
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided, of a true mean of 0."""
        if self.se == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df))

    @property
    def within(self) -> float:
        """The smallest distance from 0 that the true mean is shown to stay below, at 5 %: two one-sided tests
        (Schuirmann 1987), which is the farther end of the 90 % interval."""
        return max(map(abs, self.interval(0.90)))


@dataclass(frozen=True)
class Spread:
    """A mean square between seeds, and its degrees of freedom."""

    square: float
    df: float


def crossed(values: np.ndarray, weights: np.ndarray | None = None, shared: Spread | None = None) -> Mean:
    """The mean over seeds and examples, for other seeds and other examples than these, both drawn at random.

    values: [seeds, examples], each row the same examples. weights: [examples], such as tokens for nats a token. Every
    seed meets every example, so the variance of the mean is (MS_seeds + MS_examples - MS_rest) / (seeds examples), of
    the mean squares of a two-way table, and its degrees of freedom are Satterthwaite's (1946). With one seed it says
    nothing about the variation between seeds. shared: what MS_seeds is at least, see `seeds_together`.
    """
    seeds, examples = values.shape
    values = _linear(values, weights)
    mean = values.mean()
    of_seeds, of_examples = values.mean(1), values.mean(0)
    if seeds == 1:
        return Mean(float(mean), float(of_examples.std(ddof=1) / np.sqrt(examples)), examples - 1)
    rest = values - of_seeds[:, None] - of_examples + mean
    between = Spread(examples * np.var(of_seeds, ddof=1), seeds - 1)
    if shared is not None:
        between = Spread(max(between.square, shared.square), shared.df)
    dfs = np.array([between.df, examples - 1, (seeds - 1) * (examples - 1)])
    squares = [between.square, seeds * np.var(of_examples, ddof=1), np.square(rest).sum() / dfs[2]]
    parts = np.array(squares) / (seeds * examples)  # mean squares, as of the mean
    variance = max(parts[0] + parts[1] - parts[2], parts[:2].max())  # no source of spread has less than none
    df = variance**2 / (np.square(parts) / dfs).sum() if variance else examples - 1
    return Mean(float(mean), float(np.sqrt(variance)), float(df))


def seeds_together(tables: list[np.ndarray], weights: np.ndarray | None = None) -> Spread | None:
    """The mean square between seeds of all comparisons with one reference; None without one of several seeds.

    tables: differences from the reference, [seeds, examples] each. Three seeds say little about the spread between
    seeds, and where many comparisons are made some look exact by luck; together they say more. All differ from the same
    runs of the reference, so that two of the K sample variances are correlated by 1/4, and the degrees of freedom of
    their mean are not K (seeds - 1) but 4 K (seeds - 1) / (K + 3).
    """
    several = [_linear(table, weights) for table in tables if len(table) > 1]
    if not several:
        return None
    dfs = np.array([len(table) - 1 for table in several])
    squares = [table.shape[1] * np.var(table.mean(1), ddof=1) for table in several]
    return Spread(float(np.average(squares, weights=dfs)), float(4 * dfs.sum() / (len(several) + 3)))


def _linear(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Values whose plain mean is the weighted one: a ratio of two sums, made linear."""
    if weights is None:
        return values
    ratio = np.average(values.mean(0), weights=weights)
    return ratio + (values - ratio) * weights / weights.mean()


def interval(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of the mean over seeds and examples; see `crossed`."""
    return crossed(values, weights).interval()


def scores(examples: pd.DataFrame) -> np.ndarray:
    """[seeds, examples]: 1 for a correct answer, else 0; for sonnets nats a token. Of one task and method."""
    table = _scored(examples).pivot(index="run", columns="id", values="score")
    if table.isna().any(axis=None):
        row = examples.iloc[0]
        raise ValueError(f"{row['task']}: runs of {row['name']} are not of the same examples; collect them again")
    return table.to_numpy()


def by_seed(examples: pd.DataFrame) -> pd.DataFrame:
    """The same with seeds for its rows and examples for its columns."""
    scored = _scored(examples)
    if (twice := scored.duplicated(["seed", "id"])).any():
        row = scored[twice].iloc[0]
        raise ValueError(f"two runs of {row['name']} on {row['task']} have seed {row['seed']}; their names must differ")
    return scored.pivot(index="seed", columns="id", values="score")


def _scored(examples: pd.DataFrame) -> pd.DataFrame:
    of_classes = _classes(examples)
    score = examples["correct"] if of_classes else examples["loss"] / examples["tokens"]
    return examples.assign(score=score.astype(float))


def weights(examples: pd.DataFrame) -> np.ndarray | None:
    """Tokens of each sonnet, in the order of `scores`; None for classes, whose examples weigh the same."""
    return None if _classes(examples) else examples.groupby("id")["tokens"].first().to_numpy(dtype=float)


def comparisons(
    examples: pd.DataFrame, reference: str = REFERENCE, planned: dict[str, int] | None = None
) -> pd.DataFrame:
    """Every method against the reference on the same dev examples, one row for each task and method.

    planned: how many methods each task is to have, the reference among them; those that have not run yet are corrected
    for, too, as comparisons with a p of 1.

    examples: columns task, name (the method's), run, seed, id, correct or loss and tokens. Differences are of runs with
    the same seed, which see the same data in the same order. difference: of accuracies in points, or of nats a token
    (below 0 is better), with a 95 % interval and p over seeds and examples (`crossed`; a method's seeds are taken to
    differ at least as much as those of the task's methods together, `seeds_together`); p_holm: corrected for the
    comparisons within the task; within: how near the two are shown to be, at 5 % (`Mean.within`); seeds: pairs of runs.
    One pair knows nothing of other seeds: its interval and p are of the examples alone, and its p_holm is 1. effect:
    Cohen's h for accuracies, the mean over the standard deviation of the differences for nats.
    """
    from statsmodels.stats.multitest import multipletests

    rows = []
    for task, group in examples.groupby("task", sort=False):
        by_method = {name: by_seed(part) for name, part in group.groupby("name", sort=False)}
        if reference not in by_method:
            continue
        base = by_method.pop(reference)
        weight, factor = weights(group[group["name"] == reference]), 100 if _classes(group) else 1
        paired = {}  # [seeds, examples] of each method and of the reference
        for name, table in by_method.items():
            both = table.index.intersection(base.index)
            pair = [side.to_numpy() for side in table.loc[both].align(base.loc[both])]
            if np.isnan(pair).any():
                raise ValueError(
                    f"{task}: runs of {name} and {reference} are not of the same examples; collect them again"
                )
            if len(both):
                paired[name] = pair
        together = seeds_together([own - others for own, others in paired.values()], weight)
        of_task = []
        for name, (own, others) in paired.items():
            d = own - others
            found = crossed(d, weight, together)
            low, high = found.interval()
            row = {"task": task, "method": name, "seeds": len(d), "difference": factor * found.value}
            row |= {"low": factor * low, "high": factor * high, "p": found.p, "within": factor * found.within}
            if _classes(group):
                shares = [np.arcsin(np.sqrt(side.mean())) for side in (own, others)]
                row["effect"] = 2 * (shares[0] - shares[1])
            else:
                of_examples = d.mean(0)
                row["effect"] = of_examples.mean() / of_examples.std(ddof=1) if of_examples.std() else 0.0
            of_task.append(row)
        if of_task:
            to_come = max(0, (planned or {}).get(task, 0) - 1 - len(of_task))
            ps = [row["p"] if row["seeds"] > 1 else 1.0 for row in of_task]
            corrected = multipletests(ps + [1.0] * to_come, method="holm")[1]
            rows += [row | {"p_holm": p} for row, p in zip(of_task, corrected, strict=False)]
    return pd.DataFrame(rows)


def pairs(examples: pd.DataFrame, asked: list[tuple[str, str]]) -> pd.DataFrame:
    """`comparisons` of one method with one other, (method, reference) each, where a task has both; with the column
    reference. Empty, with its columns, where no task has a pair."""
    found = [
        comparisons(examples[examples["name"].isin(pair)], pair[1]).assign(reference=pair[1])
        for pair in asked
        if set(pair) <= set(examples["name"])
    ]
    columns = ["task", "method", "reference", "seeds", "difference", "low", "high", "p", "within"]
    return pd.concat([pd.DataFrame(columns=columns), *found])[columns]


def against_floors(examples: pd.DataFrame) -> pd.DataFrame:
    """`comparisons` of every method with what there is to beat on the same examples, as far as a run of the task knows
    it (column floor): the bag of words, or for sonnets the base before training. p_holm: corrected for the tasks that a
    method is compared on, not for the methods. Empty, with its columns, where no run knows a floor."""
    from statsmodels.stats.multitest import multipletests

    tables = [pd.DataFrame(columns=["task", "method", "floor", "seeds", "difference", "low", "high", "p", "p_holm"])]
    for floor, (own, its) in PAIRED_FLOORS.items():
        known = examples.reindex(columns=dict.fromkeys([*examples, its]))
        known[its] = known.groupby(["task", "id"])[its].transform("first")  # of the examples, whichever run wrote it
        known = known.dropna(subset=its)
        beside = known.drop_duplicates(["task", "seed", "id"])
        beside = beside.assign(name=floor, **{own: beside[its]})
        tables.append(comparisons(pd.concat([known, beside]), floor).assign(floor=floor))
    table = pd.concat(tables, ignore_index=True)
    if len(table):
        p = table["p"].where(table["seeds"] > 1, 1.0)
        table["p_holm"] = p.groupby(table["method"]).transform(lambda p: multipletests(p, method="holm")[1])
    return table


def permutation_p(differences: np.ndarray) -> float:
    """Two-sided p of paired differences whose signs are as likely one as the other: exact for few, else sampled."""
    d = differences[differences != 0]  # a tie is one under either sign
    if not len(d):
        return 1.0
    given = dict(permutation_type="samples", n_resamples=4999, vectorized=True, rng=0)
    return float(stats.permutation_test((d,), lambda x, axis: x.mean(axis), **given).pvalue)


def paired_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The mean of paired differences and its 95 % interval (Student's t)."""
    mean = float(np.mean(differences))
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=stats.sem(differences))
    return mean, float(low), float(high)


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` examples (Wilson 1927)."""
    found = stats.binomtest(round(share * count), count).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def of_published(published: pd.DataFrame) -> pd.DataFrame:
    """Published accuracies on sets of known size (columns task, split, value, count), with Wilson's interval and each
    one's distance from the best on the same set.

    behind: in points, with Newcombe's 95 % interval and a two-sided p, Holm-corrected within the set (score test of two
    independent shares: which answers were right is not published, and a paired test would be sharper).
    """
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

    columns = ["low", "high", "behind", "behind_low", "behind_high", "p"]
    sets = []
    known = published[(published["metric"] == "accuracy") & published["count"].notna()]
    for _, group in known.groupby(["task", "split"], sort=False):
        best, n = group["value"].max(), int(group["count"].iloc[0])
        rows = []
        for value in group["value"]:
            pair = round(best * n), n, round(value * n), n
            p = test_proportions_2indep(*pair, method="score", correction=False).pvalue
            distances = (100 * d for d in (best - value, *confint_proportions_2indep(*pair)))
            rows.append([*wilson(value, n), *distances, p])
        of_set = pd.DataFrame(rows, columns=columns, index=group.index)
        behind = of_set["behind"] > 0
        of_set["p"] = of_set["p"].where(behind)
        if behind.any():
            of_set.loc[behind, "p_holm"] = multipletests(of_set.loc[behind, "p"], method="holm")[1]
        sets.append(of_set)
    return published.join(pd.concat(sets))


def _classes(examples: pd.DataFrame) -> bool:
    return "correct" in examples and examples["correct"].notna().all()
