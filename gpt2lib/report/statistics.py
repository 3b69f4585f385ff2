"""What can be told apart: intervals over seeds and examples, and paired tests against a reference, Holm-corrected."""

import numpy as np
import pandas as pd
from scipy import stats

REFERENCE = "lora"


def interval(values: np.ndarray, weights: np.ndarray | None = None, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean over seeds and examples, of which both are drawn again (two-way bootstrap).

    values: [seeds, examples], each row the same examples. weights: [examples], such as tokens for nats a token. With
    one seed it says nothing about the variation between seeds.
    """
    seeds, examples = values.shape
    rng = np.random.default_rng(0)
    weights = np.ones(examples) if weights is None else weights
    means = np.empty(draws)
    for i in range(draws):
        drawn = np.bincount(rng.integers(examples, size=examples), minlength=examples) * weights
        means[i] = values[rng.integers(seeds, size=seeds)].mean(0) @ drawn / drawn.sum()
    return tuple(np.quantile(means, (0.025, 0.975)))


def scores(examples: pd.DataFrame) -> np.ndarray:
    """[seeds, examples]: 1 for a correct answer, else 0; for sonnets nats a token. Of one task and method."""
    examples = examples.assign(
        score=examples["correct"] if _classes(examples) else examples["loss"] / examples["tokens"]
    )
    table = examples.pivot(index="run", columns="id", values="score")
    return table.to_numpy(dtype=float)


def weights(examples: pd.DataFrame) -> np.ndarray | None:
    """Tokens of each sonnet, in the order of `scores`; None for classes, whose examples weigh the same."""
    return None if _classes(examples) else examples.groupby("id")["tokens"].first().to_numpy(dtype=float)


def comparisons(examples: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Every method against the reference on the same dev examples, one row for each task and method.

    examples: columns task, name (the method's), run, id, correct or loss and tokens. difference: of accuracies in
    points, or of nats a token (below 0 is better), with a 95 % interval (bootstrap over examples of the paired
    differences, averaged over seeds). p: two-sided permutation test of the same differences (signs flipped at random);
    p_holm: corrected for the comparisons within the task. effect: Cohen's h for accuracies, the mean over the standard
    deviation of the differences for nats.
    """
    from statsmodels.stats.multitest import multipletests

    rows = []
    for task, group in examples.groupby("task", sort=False):
        by_method = {name: scores(part).mean(0) for name, part in group.groupby("name", sort=False)}
        if reference not in by_method:
            continue
        one = group[group["name"] == reference]
        of_task, base = [], by_method.pop(reference)
        for name, mean in by_method.items():
            d = mean - base
            low, high = interval(d[None], weights(one))
            factor = 100 if _classes(group) else 1
            row = {"task": task, "method": name, "difference": factor * np.average(d, weights=weights(one))}
            row |= {"low": factor * low, "high": factor * high, "p": permutation_p(d)}
            if _classes(group):
                row["effect"] = 2 * np.arcsin(np.sqrt(mean.mean())) - 2 * np.arcsin(np.sqrt(base.mean()))
            else:
                row["effect"] = d.mean() / d.std(ddof=1) if d.std() else 0.0
            of_task.append(row)
        if of_task:
            corrected = multipletests([row["p"] for row in of_task], method="holm")[1]
            rows += [row | {"p_holm": p} for row, p in zip(of_task, corrected, strict=True)]
    return pd.DataFrame(rows)


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
