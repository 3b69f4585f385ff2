"""What the report says of a study: tables of results with intervals, floors and costs, from its collected runs."""

import json

import numpy as np
import pandas as pd
from scipy import stats

from gpt2lib.report import figures, statistics
from gpt2lib.tasks.task import TASKS

FLOORS = ("majority class", "bag of words")


def summarise(runs: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """One row for each task and method: the mean over seeds, the standard deviation between them (sd), the mean's
    standard error from the choice of examples alone (se_examples; of nats a token for sonnets), how many they are
    (dev_examples), and a 95 % interval over both (`statistics.interval`).

    The floors of each task stand as methods of their own: "majority class", "bag of words", "before training".
    """
    rows = []
    for (task, name), group in runs.groupby(["task", "name"], sort=False):
        per_example = examples[examples["run"].isin(group["run"])]
        metric = TASKS[task].metric
        scores, weights = statistics.scores(per_example), statistics.weights(per_example)
        low, high = statistics.interval(scores, weights)
        alone = statistics.crossed(scores.mean(0)[None], weights).se  # as if there were no other seeds
        # scores are nats a token, or right and wrong answers, whose share is at most all
        low, high = np.clip([low, high], 0, 1) if TASKS[task].classes else np.exp([low, high])
        row = {"task": task, "method": name, "base_model": group["base_model"].iloc[0], "seeds": len(group)}
        row |= {"metric": metric, "value": group[metric].mean(), "sd": group[metric].std(), "low": low, "high": high}
        row |= {"se_examples": alone, "dev_examples": scores.shape[1]}
        costs = ("trained_params", "trained_params_head", "seconds", "tokens_per_second", "peak_memory_mb", "steps")
        row |= {column: group[column].mean() for column in ("macro_f1", "matthews", *costs) if column in group}
        row |= {
            column: group[column].iloc[0]
            for column in ("lr", "weight_decay", "batch_size", "epochs", "rank", "targets")
        }
        rows.append(row)
    for task, group in runs.groupby("task", sort=False):
        if "bag_of_words_accuracy" in group and group["bag_of_words_accuracy"].notna().any():
            count = (examples["run"] == group.iloc[0]["run"]).sum()
            for method, column in (("majority class", "majority_accuracy"), ("bag of words", "bag_of_words_accuracy")):
                value = group.iloc[0][column]
                low, high = statistics.wilson(value, count)
                row = {"task": task, "method": method, "base_model": "", "metric": "accuracy", "value": value}
                row |= {"low": low, "high": high, "trained_params": 0.0}
                if method == "bag of words":
                    row |= {"macro_f1": group.iloc[0]["bag_of_words_macro_f1"]}
                    row |= {"trained_params": group.iloc[0]["bag_of_words_params"]}
                rows.append(row)
        elif "perplexity_before" in group and group["perplexity_before"].notna().any():
            value = group.iloc[0]["perplexity_before"]
            rows.append({"task": task, "method": "before training", "metric": "perplexity", "value": value})
    return figures.ordered(pd.DataFrame(rows), "task", "method")


def sonnet_scores(runs: pd.DataFrame, sonnets: dict) -> pd.DataFrame:
    """The overlap scores and the form of each method's sonnets, and those of the floors below them."""
    columns = ["chrf_whole", "chrf_continuation", "bleu_whole", "bleu_continuation"]
    form = ["lines", "rhyme_rate", "copied_line_rate"]
    ours = runs[runs["chrf_whole"].notna()].groupby("name", sort=False)[columns + form].mean()
    floors = pd.DataFrame(next(iter(sonnets.values()))["floors"]).T
    ours = ours.loc[figures.in_order(ours.index)]
    return pd.concat([ours, floors]).rename_axis("method").reset_index()


def alpha_gain(accuracy: pd.DataFrame) -> pd.DataFrame:
    """alpha-LoRA's dev accuracy minus LoRA's over pairs of runs with the same examples, and its 95 % interval: one row.

    Runs of one task and seed share the fewer examples and the base's draw: their mean is one draw (column draws)."""
    pairs = accuracy.pivot(index=["task", "examples", "seed"], columns="method", values="accuracy")
    draws = (pairs["alpha-lora"] - pairs["lora"]).groupby(["task", "seed"]).mean()
    gain, low, high = statistics.paired_interval(draws)
    return pd.DataFrame([{"pairs": len(pairs), "draws": len(draws), "gain": gain, "low": low, "high": high}])


def worth(runs: pd.DataFrame) -> pd.DataFrame:
    """What pretraining is worth: a row for each task, method and base model, by the rate that was best on dev."""
    best = runs.loc[runs.groupby(["task", "method", "base_model"])["accuracy"].idxmax()]
    columns = ["task", "method", "base_model", "base_params", "lr", "epochs", "accuracy"]
    columns += ["max_length", "bag_of_words_accuracy", "majority_accuracy"]
    return figures.ordered(best[columns], "task")


def needs(runs: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """Dev accuracy by task, base and method, from bases that know nothing of the language to those that know much:
    columns task, method ("" for a floor), base (its title), value, low, high.

    runs: at one learning rate for each task, base and method. A task's floors are those of the largest base's runs.
    """
    runs = runs[runs["accuracy"].notna()]
    parts = []
    for base, group in sorted(runs.groupby("base_model"), key=lambda found: found[1]["base_params"].iloc[0]):
        found = summarise(group, examples)
        random = base.startswith("untrained ")
        found["base"] = f"random {base.removeprefix('untrained ')}" if random else base
        found["knows"] = 0 if random else group["base_params"].iloc[0]  # what was not trained knows nothing
        for i, name in enumerate(FLOORS):
            floor = found["method"] == name
            found.loc[floor, ["base", "method", "knows"]] = name, "", i - len(FLOORS)
        parts.append(found)
    table = pd.concat(parts).drop_duplicates(["task", "method", "base"], keep="last")
    table = figures.ordered(table.sort_values("knows", kind="stable"), "task")
    return table[["task", "method", "base", "value", "low", "high"]]


def shared_design(runs: pd.DataFrame) -> dict:
    """What the runs of the main part on classes have in common, of the parameters that the report's text mentions (else
    None); and the blocks of those that write."""
    main = runs[(runs["part"] == "main") & runs["counts"] & runs["task"].isin(TASKS)]
    given = main["parameters"].map(json.loads) if "parameters" in main else pd.Series(dtype=object)
    writes = main["task"].map(lambda task: not TASKS[task].classes)

    def common(parameters: pd.Series, name: str):
        values = {json.dumps(p.get(name) or None) for p in parameters}  # empty: all blocks
        return json.loads(values.pop()) if len(values) == 1 else None

    judged, written = (given[rows] if len(given) else [] for rows in (~writes, writes))
    design = {name: common(judged, name) for name in ("depth", "layers", "select", "precision")}
    return design | {f"writing_{name}": common(written, name) for name in ("depth", "layers")}


def planned_ways(runs: pd.DataFrame, to_come: pd.DataFrame, part: str = "main") -> dict[str, int]:
    """In how many ways each task is to be trained in a part of the study, done or not. to_come: of
    `collected.missing_runs`."""
    if "parameters" not in runs:  # of an older collection, of which nothing was missing
        return {}
    both = pd.concat([runs[runs["counts"]], to_come])
    both = both[both["part"] == part][["task", "parameters"]].dropna()
    ways = _parameters(both, "method", "targets", "rank", "settings")
    return ways.groupby(both["task"]).nunique().to_dict()


def controls(runs: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """The runs that change one thing about a method of the main part (part "controls"): columns task, method, change
    (what it is), seeds, value, low, high (an accuracy, with its 95 % interval), and in points, paired by seed and
    example, what is left when the method as it stands in the main part is taken off (difference, difference_low,
    difference_high), and LoRA (lora, lora_low, lora_high; of LoRA's own none)."""
    of_part = runs[(runs["part"] == "controls") & runs["counts"]]
    main = runs[(runs["part"] == "main") & runs["counts"]]
    if of_part.empty or "parameters" not in runs:
        return pd.DataFrame()
    designs = of_part["parameters"].map(lambda text: json.dumps(_design(json.loads(text)), sort_keys=True))
    rows = []
    for (task, method, design), group in of_part.groupby([of_part["task"], of_part["method"], designs], sort=False):
        usual = main[(main["task"] == task) & (main["name"] == method)]
        if usual.empty:
            continue
        change = _change(json.loads(design), _design(json.loads(usual["parameters"].iloc[0])))
        found = summarise(group.assign(name=method), examples).iloc[0]
        row = {"task": task, "method": method, "change": change} | found[["seeds", "value", "low", "high"]].to_dict()
        own = examples[examples["run"].isin(group["run"])].assign(name="control")
        for column, name in (("difference", method), ("lora", statistics.REFERENCE)):
            others = main[(main["task"] == task) & (main["name"] == name)]["run"]
            beside = examples[examples["run"].isin(others)].assign(name=statistics.REFERENCE)
            if len(beside) and (column == "difference" or name != method):
                compared = statistics.comparisons(pd.concat([own, beside]))
                if len(compared):
                    row |= {column: compared["difference"][0]}
                    row |= {f"{column}_{end}": compared[end][0] for end in ("low", "high")}
        rows.append(row)
    table = pd.DataFrame(rows)
    return figures.ordered(table, "task", "method") if len(table) else table


def _design(parameters: dict) -> dict:
    """The parameters that say what a run does, without its rate, its size and what is the same by another name."""
    return {k: v for k, v in parameters.items() if k not in ("seed", "lr", "budget", "rank", "alpha", "base_model")}


def _change(design: dict, usual: dict) -> str:
    """What one design has that the other has not, in words."""
    changed = {k: v for k, v in design.items() if v != usual.get(k)}
    words = [str(v) for v in changed.pop("settings", [])]
    if "layers" in changed:
        depth, layers = changed.pop("depth", usual.get("depth")), changed.pop("layers")
        words.append(f"blocks {layers[0]} to {layers[1] - 1} of {depth}" if layers else "all blocks")
    if "epochs" in changed:
        epochs = changed.pop("epochs")
        words.append(f"{epochs} epoch" + "s" * (epochs != 1))
    if "precision" in changed:
        words.append(changed.pop("precision"))
    return ", ".join([*words, *(f"{k} = {v}" for k, v in changed.items())])


def _parameters(runs: pd.DataFrame, *names: str) -> pd.Series:
    """These parameters of each run, as one text."""
    given = runs["parameters"].fillna("{}").map(json.loads)
    return given.map(lambda p: json.dumps([p.get(name) for name in names]))


def block_ranges(runs: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and time by the range of blocks that is adapted: columns task, first, end (behind the last), targets,
    value, low, high, seconds. Only of runs whose parameters say a range: `layers`, [12, 24] for blocks 12 to 23."""
    given = runs["parameters"].map(json.loads)
    keys = pd.DataFrame({"layers": given.map(lambda p: tuple(p.get("layers", ()))), "targets": runs["targets"]})
    parts = []
    for (layers, targets), group in runs[keys["layers"].map(len) == 2].groupby([keys["layers"], keys["targets"]]):
        found = summarise(group.assign(name=group["method"]), examples)
        found = found[found["seconds"].notna()]
        parts.append(found.assign(first=layers[0], end=layers[1], targets=targets))
    table = figures.ordered(pd.concat(parts), "task")
    return table[["task", "first", "end", "targets", "value", "low", "high", "seconds"]]


def expected_range(count: int) -> float:
    """The largest minus the smallest of so many standard normal numbers, on average (Tippett 1925)."""
    below = stats.norm.cdf(np.linspace(-8, 8, 4001))
    return float(np.trapezoid(1 - below**count - (1 - below) ** count, dx=16 / 4000))


def tried_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """What was reached at each learning rate that was tried where it was chosen: columns task, name, lr, value (an
    accuracy, the mean over the trials' seeds; NaN if one of them diverged), and by_chance: how far apart the best and
    the worst of so many rates would lie on average if all were equally good, by what is left of a task's trials beside
    rate and seed, which all rates share; NaN with one seed.

    Trials are runs of their own, and say what their rate was chosen by; in older tables they stand among the first
    seed's runs.
    """
    trials = runs[runs["part"] == "trials"]
    if trials.empty:
        main = runs[runs["part"] == "main"]
        trials = main[main["seed"] == main["seed"].min()]
    elif "parameters" in runs:  # those of other bases and of controls are no trials of the main part's rates
        shared = _parameters(runs, "base_model", "depth", "layers", "settings", "precision")
        main = runs[runs["part"] == "main"]
        of_main = set(zip(main["task"], main["name"], shared[main.index], strict=True))
        keys = zip(trials["task"], trials["name"], shared[trials.index], strict=True)
        trials = trials[[key in of_main for key in keys]]
    chosen_by = trials["accuracy"]
    if "selection_accuracy" in trials:
        chosen_by = trials["selection_accuracy"].fillna(chosen_by)
    diverged = trials["diverged"].fillna(False).astype(bool) if "diverged" in trials else False
    trials = trials.assign(value=chosen_by)[chosen_by.notna() | diverged]
    means, left = [], {}
    for (task, name), group in trials.groupby(["task", "name"], sort=False):
        table = group.pivot_table(index="lr", columns="seed", values="value", dropna=False)
        means.append(table.mean(axis=1, skipna=False).rename("value").reset_index().assign(task=task, name=name))
        whole = table.dropna().to_numpy()
        if min(whole.shape) > 1:
            rest = whole - whole.mean(0) - whole.mean(1, keepdims=True) + whole.mean()
            square = np.square(rest).sum() / ((whole.shape[0] - 1) * (whole.shape[1] - 1))
            left.setdefault(task, []).append(square / whole.shape[1])
    if not means:
        return pd.DataFrame(columns=["task", "name", "lr", "value", "by_chance"])
    table = pd.concat(means)
    tried = table.groupby(["task", "name"])["lr"].transform("size")
    error = table["task"].map(lambda task: np.sqrt(np.mean(left[task])) if task in left else np.nan)
    table["by_chance"] = error * tried.map(expected_range)
    return table[tried > 1][["task", "name", "lr", "value", "by_chance"]]  # the others took another task's rate
