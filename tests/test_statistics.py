"""Intervals cover what they should; paired tests find what is there and not what is not."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gpt2lib.report.statistics import (
    Mean,
    against_floors,
    comparisons,
    crossed,
    interval,
    of_published,
    pairs,
    permutation_p,
    seeds_together,
    wilson,
)


def examples_of(name, correct, seeds=2):
    """Per-example rows of runs that answer alike; correct: [examples]"""
    ids = [f"e{i}" for i in range(len(correct))]
    runs = [{"task": "sst", "name": name, "run": f"{name}-{seed}", "seed": seed} for seed in range(seeds)]
    return pd.concat([pd.DataFrame(run | {"id": ids, "correct": correct.astype(bool)}) for run in runs])


def test_with_one_seed_the_interval_is_that_of_the_share():
    correct = np.random.default_rng(0).random((1, 1000)) < 0.7
    low, high = interval(correct.astype(float))
    assert (low, high) == pytest.approx(wilson(correct.mean(), 1000), abs=0.004)


def test_seeds_that_disagree_widen_it_and_equal_ones_do_not():
    rng = np.random.default_rng(1)
    one = (rng.random(400) < 0.7).astype(float)
    same = interval(np.stack([one, one, one]))
    apart = interval(np.stack([one, np.ones(400), np.zeros(400)]))
    alone = interval(one[None])
    assert same == pytest.approx(alone, abs=0.01)
    assert apart[1] - apart[0] > 2 * (alone[1] - alone[0])


def test_weights_count_tokens():
    values, weights = np.array([[1.0, 3.0]]), np.array([1.0, 1e9])
    assert crossed(values, weights).value == pytest.approx(3.0)


def drawn(rng, seeds, examples, of_seeds, of_examples, of_rest):
    """A table [seeds, examples] of a true mean 0, with three sources of spread."""
    spread = of_seeds * rng.standard_normal((seeds, 1)) + of_examples * rng.standard_normal(examples)
    return spread + of_rest * rng.standard_normal((seeds, examples))


@pytest.mark.parametrize("spread", [(0.03, 0.3, 0.4), (0.0, 0.3, 0.4), (0.03, 0.0, 0.4), (0.1, 0.3, 0.0)])
def test_intervals_over_seeds_and_examples_cover_what_they_should(spread):
    """Whichever source of spread is the larger: never much below 95 %, and not by being endless."""
    rng = np.random.default_rng(0)
    found = [crossed(drawn(rng, 3, 300, *spread)) for _ in range(400)]
    covered = np.mean([low <= 0 <= high for low, high in (m.interval() for m in found)])
    assert covered > 0.92, covered
    assert np.mean([m.p < 0.05 for m in found]) == pytest.approx(1 - covered, abs=1e-9)


def test_ignoring_the_seeds_would_cover_too_little():
    rng = np.random.default_rng(0)
    tables = [drawn(rng, 3, 300, 0.1, 0.3, 0.4) for _ in range(300)]
    ends = [crossed(table.mean(0)[None]).interval() for table in tables]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.7


def test_a_familys_errors_are_few_for_the_seeds_of_all_methods_are_looked_at_together():
    """Nine methods that are LoRA's equals, three seeds each, whose spread counts: how often does Holm find one?"""
    rng = np.random.default_rng(0)
    wrong, of_one = {"alone": 0, "together": 0}, []
    for _ in range(300):
        runs = 0.25 * rng.standard_normal((10, 3, 1)) + 0.5 * rng.standard_normal((10, 1, 60))
        runs = runs + 0.7 * rng.standard_normal((10, 3, 60))
        tables = list(runs[1:] - runs[0])
        shared = seeds_together(tables)
        assert shared.df == pytest.approx(2 * 4 * 9 / 12)
        for way, given in (("alone", None), ("together", shared)):
            ps = [crossed(table, shared=given).p for table in tables]
            wrong[way] += min(ps) < 0.05 / 9
        of_one += [p < 0.05 for p in ps]
    assert wrong["alone"] > 24 and wrong["together"] < 18  # 15 are 5 %
    assert 0.02 < np.mean(of_one) < 0.055


def test_a_method_whose_seeds_differ_more_than_the_others_keeps_its_own_spread():
    rng = np.random.default_rng(1)
    calm = [drawn(rng, 3, 100, 0.01, 0.3, 0.4) for _ in range(4)]
    wild = drawn(rng, 3, 100, 0.01, 0.3, 0.4) + np.array([[-0.3], [0.0], [0.3]])
    shared = seeds_together([*calm, wild])
    assert crossed(wild, shared=shared).se == crossed(wild).se
    assert all(crossed(table, shared=shared).se > crossed(table).se for table in calm)
    assert seeds_together([wild[:1]]) is None


def test_two_methods_are_near_as_far_as_both_one_sided_tests_say():
    mean = Mean(0.4, 0.5, 30)
    assert stats.t.sf((mean.within - 0.4) / 0.5, 30) == pytest.approx(0.05)
    assert Mean(0.0, 0.0, 5).p == 1 and Mean(0.1, 0.0, 5).p == 0


def test_the_permutation_test_agrees_with_mcnemar_and_with_no_difference():
    d = np.concatenate([np.ones(30), -np.ones(12), np.zeros(500)])  # 42 discordant pairs
    assert permutation_p(d) == pytest.approx(stats.binomtest(30, 42).pvalue, abs=0.005)
    assert permutation_p(np.zeros(9)) == 1.0


def test_a_real_difference_is_found_and_a_copy_is_not():
    rng = np.random.default_rng(2)
    base = rng.random(800) < 0.6
    better = base | (rng.random(800) < 0.3)
    table = pd.concat([examples_of("lora", base), examples_of("copy", base), examples_of("better", better)])
    result = comparisons(table).set_index("method")
    assert result.loc["better", "p_holm"] < 0.01 and result.loc["better", "low"] > 0
    assert result.loc["better", "difference"] == pytest.approx(100 * (better.mean() - base.mean()))
    assert result.loc["copy", "p"] == 1 and result.loc["copy", "difference"] == 0
    assert (result["p_holm"] >= result["p"]).all()


def test_floors_are_compared_in_pairs_and_corrected_for_the_tasks():
    rng = np.random.default_rng(5)
    easy, said = rng.random(400) < 0.8, rng.random(400)
    alike, better = easy ^ (said < 0.02), easy | (said < 0.2)  # of the network, whose bag of words is right on `easy`
    examples = pd.concat(
        examples_of("lora", answers, seeds=3).assign(task=task, bag_of_words_correct=np.tile(easy, 3))
        for task, answers in (("sst", better), ("quora", alike))
    )
    other = examples_of("krona", ~easy).assign(bag_of_words_correct=np.tile(easy, 2))
    unknown = examples_of("full", easy).assign(task="cfimdb")
    before = examples_of("full", easy).assign(task="sonnets", correct=None, tokens=10, loss_before=30.0)
    before["loss"] = 20.0 + before["seed"] + rng.random(800)
    table = against_floors(pd.concat([examples, other, unknown, before]))
    assert set(table["task"]) == {"sst", "quora", "sonnets"} and set(table["method"]) == {"lora", "krona", "full"}
    learnt = table[table["method"] == "full"].iloc[0]
    assert learnt["floor"] == "before training" and learnt["difference"] == pytest.approx(
        before["loss"].mean() / 10 - 3
    )
    table = table[table["method"] == "lora"].set_index("task")
    assert list(table["difference"]) == pytest.approx(
        [100 * (answers.mean() - easy.mean()) for answers in (better, alike)]
    )
    # an accuracy of 400 answers is known to four points; where both answer alike, the difference is known to two
    assert table.loc["quora", "high"] - table.loc["quora", "low"] < 4 < 7 < np.diff(100 * np.array(wilson(0.8, 400)))
    assert table.loc["quora", "p_holm"] > 0.05 > 1e-3 > table.loc["sst", "p_holm"] == 2 * table.loc["sst", "p"]
    alone = examples[(examples["task"] == "sst") & (examples["seed"] == 0)]
    assert against_floors(alone)["p_holm"].tolist() == [1.0]
    unwritten = examples.astype({"bag_of_words_correct": object})
    unwritten.loc[unwritten["seed"] > 0, "bag_of_words_correct"] = None  # as other runs have it, of the same examples
    assert against_floors(unwritten)["difference"].tolist() == against_floors(examples)["difference"].tolist()
    none = against_floors(examples.drop(columns="bag_of_words_correct"))
    assert none.empty and {"method", "floor", "p_holm"} <= set(none)


def test_one_seed_claims_nothing():
    rng = np.random.default_rng(5)
    base = rng.random(800) < 0.6
    table = pd.concat([examples_of("lora", base), examples_of("much worse", base & (rng.random(800) < 0.5), seeds=1)])
    found = comparisons(table).iloc[0]
    assert found["seeds"] == 1 and found["p"] < 1e-9 and found["p_holm"] == 1


def test_what_is_planned_and_has_not_run_is_corrected_for():
    """The smallest of two p is doubled; if three more methods are to come, it is taken five times."""
    rng = np.random.default_rng(4)
    base = rng.random(800) < 0.6
    table = pd.concat([examples_of("lora", base), examples_of("other", base & (rng.random(800) > 0.008))])
    table = pd.concat([table, examples_of("copy", base)])
    result = comparisons(table).set_index("method").loc["other"]
    planned = comparisons(table, planned={"sst": 6}).set_index("method").loc["other"]
    assert result["p_holm"] == pytest.approx(min(1, 2 * result["p"]))
    assert planned["p_holm"] == pytest.approx(min(1, 5 * result["p"])) and 0.001 < result["p"] < 0.1


def test_under_the_null_p_is_uniform_enough():
    rng = np.random.default_rng(3)
    ps = [permutation_p((rng.random(200) < 0.5).astype(float) - (rng.random(200) < 0.5)) for _ in range(200)]
    assert 2 <= sum(p < 0.05 for p in ps) <= 20  # 10 expected: wrong in less than one draw of 500 on either side
    assert 70 <= sum(p < 0.5 for p in ps) <= 130  # 100 expected


def test_sonnets_are_compared_by_nats_a_token():
    rows = []
    for name, nats in (("lora", 4.0), ("full", 3.5)):
        for i in range(12):
            loss = (nats + 0.1 * (i % 3)) * (90 + i)
            row = dict(task="sonnets", name=name, id=str(i), loss=loss, tokens=90 + i)
            rows += [row | dict(run=f"{name}{seed}", seed=seed) for seed in (0, 1)]
    result = comparisons(pd.DataFrame(rows)).iloc[0]
    assert result["difference"] == pytest.approx(-0.5) and result["p"] < 0.01


def test_pairs_are_of_the_two_that_were_asked_for():
    right = {"lora": 4, "kan-lora": 7, "lora up down": 6}  # of ten examples, for either seed
    rows = [
        dict(task="sst", name=name, run=f"{name}{seed}", seed=seed, id=i, correct=i < count)
        for name, count in right.items()
        for seed in (0, 1)
        for i in range(10)
    ]
    table = pairs(pd.DataFrame(rows), [("kan-lora", "lora up down"), ("full", "lora")])
    assert table[["method", "reference", "seeds"]].values.tolist() == [["kan-lora", "lora up down", 2]]
    assert table["difference"].item() == pytest.approx(10)
    assert pairs(pd.DataFrame(rows), [("full", "lora")]).empty


def test_a_share_of_1101_is_known_to_three_points():
    assert wilson(0.5, 1101) == pytest.approx((0.4705, 0.5295), abs=5e-4)


def test_published_accuracies_are_measured_from_the_best_on_the_same_set():
    of = {"task": "sst", "split": "dev", "metric": "accuracy", "count": 1101}
    other = {"task": "sonnets", "split": "dev", "metric": "chrF", "count": float("nan"), "value": 27.0}
    table = of_published(pd.DataFrame([of | {"value": value} for value in (0.514, 0.513, 0.40)] + [other]))
    assert table["behind"].tolist()[:3] == pytest.approx([0, 0.1, 11.4])
    assert pd.isna(table["p_holm"][0]) and table["p_holm"][1] > 0.9 and table["p_holm"][2] < 1e-5
    exact = stats.chi2_contingency([[566, 535], [440, 661]], correction=False).pvalue  # the same score test
    assert table["p"][2] == pytest.approx(exact, rel=0.01)
    assert table["behind_low"][2] < 11.4 < table["behind_high"][2] and pd.isna(table["low"][3])
