"""The report: from a study's collected tables to summaries with intervals, figures, and the PDF. Trains nothing.

Each figure lies beside the table that it was drawn from; the Typst source reads those tables and no other number.
"""

import datetime
import os
from pathlib import Path

import numpy as np
import pandas as pd

from gpt2lib import theory
from gpt2lib.adapters import AlphaLoRA
from gpt2lib.common.whole import read_json, write_json, write_whole
from gpt2lib.report import figures, statistics
from gpt2lib.report.collected import collected, missing_runs
from gpt2lib.report.summaries import (
    FLOORS,
    alpha_gain,
    block_ranges,
    controls,
    needs,
    planned_ways,
    shared_design,
    sonnet_scores,
    summarise,
    tried_rates,
    worth,
)
from gpt2lib.tasks.method import METHODS
from gpt2lib.tasks.task import TASKS

MAIN = "smollm2"  # the study whose runs say, in every report, what a base must know
PAIRS = [("kan-lora", "lora up down"), ("full", "last-linear")]  # beside those with LoRA: the same layers; all or one
SIMULATION = {"p": 300, "draws": 20}  # of the theory's figure: dimensions, and draws that a point is the mean of
FOLDER = Path(__file__).resolve().parents[2] / "report"  # of the checkout, for notebooks, wherever they run
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # a fixed time stamp: the same tables give the same bytes


def build(study: str, results: Path, figure_folder: Path, source: Path, output: Path) -> Path:
    """Draw the figures of a collected study and compile the PDF; returns its path.

    What other studies and the benchmarks left in `results` is shown, too. Raises FileNotFoundError if the study was not
    collected, and ValueError for a table with a column missing.
    """
    tables = collected(study, results)
    folder = figure_folder / study
    folder.mkdir(parents=True, exist_ok=True)
    published = pd.read_csv(source.parent / "published.csv")
    _save(folder, "published", statistics.of_published(published))
    to_come = missing_runs(study, results)
    _write_names(folder / "names.json", tables[0], to_come)
    drawn = _draw_study(*tables, to_come, study, results, folder, published) | _draw_others(study, results, folder)

    import typst  # only the report needs it

    root = Path(os.path.commonpath([p.resolve() for p in (source, results, folder)]))
    inputs = {"study": study, "results": _below(results, root), "figures": _below(folder, root)}
    inputs["drawn"] = ",".join(sorted(drawn))
    settings = dict(root=str(root), sys_inputs=inputs, ignore_system_fonts=True, timestamp=int(EPOCH.timestamp()))
    try:
        write_whole(output, lambda partial: typst.compile(str(source), output=str(partial), **settings))
    except typst.TypstError as error:
        where = error.diagnostic.partition("┌─ ")[2].split("\n")[0] or source  # with line and column
        raise ValueError(f"{where}: {error.message}") from None
    return output


def _write_names(path: Path, runs: pd.DataFrame, to_come: pd.DataFrame) -> None:
    """What the report calls tasks and methods, of each task whether its metric is better the lower it is, the settings
    that it mentions, which method wrote in each run, and in how many ways each task of the main part is to be
    trained."""
    tasks = {name: {"title": task.title, "metric": task.metric, "falls": task.sign < 0} for name, task in TASKS.items()}
    methods = {name: figures.title(name) for name in [*METHODS, *runs["name"].dropna().unique()]}
    settings = {"alpha_batch": AlphaLoRA().batch_alpha, "alpha_share": AlphaLoRA().share, "simulation": SIMULATION}
    content = {"tasks": tasks, "methods": methods, "settings": settings, "design": shared_design(runs)}
    writing = runs[runs["counts"] & ~runs["task"].map(lambda task: task in TASKS and bool(TASKS[task].classes))]
    written = dict(zip(writing["run"], writing["name"], strict=True))
    write_json(path, content | {"planned": planned_ways(runs, to_come), "written": written})


def _draw_study(
    runs, examples, history, to_come, study: str, results: Path, folder: Path, published: pd.DataFrame
) -> set[str]:
    """The study's own tables and figures; returns the names of those that not every study has."""
    drawn = set()

    main = runs[(runs["part"] == "main") & runs["task"].isin(TASKS)]
    counted = main[main["counts"]]
    methods = summarise(counted, examples)
    of_counted = examples[examples["run"].isin(counted["run"])]
    compared = statistics.comparisons(of_counted, planned=planned_ways(runs, to_come))
    _save(folder, "methods", methods, figures.methods(methods, compared if len(compared) else None))
    _save(folder, "comparisons", compared)
    _save(folder, "pairs", statistics.pairs(of_counted, PAIRS))
    _save(folder, "counting", statistics.above_bag_of_words(of_counted))
    adapted = figures.ordered(history[history["run"].isin(counted["run"])], "task", "name")
    learnt = figures.learning_curves(adapted, methods, shared_design(runs)["select"] or "dev")
    if learnt is not None:
        _save(folder, "learning-curves", adapted, learnt)
        drawn.add("learning-curves")
    # the demo's toy runs do not stand beside measurements on real texts
    measured = results / "benchmarks.csv"
    benchmarks = pd.read_csv(measured) if study != "demo" and measured.is_file() else None
    _save(folder, "cost", methods, figures.cost(methods, benchmarks), keep_table=False)
    tried = tried_rates(runs)
    if len(tried):
        _save(folder, "rates", tried, figures.rates(tried))
        drawn.add("rates")
    checked = controls(runs, examples)
    if len(checked):
        _save(folder, "controls", checked)
        drawn.add("controls")
    for part in ("glue", "weight decay"):
        of_part = runs[(runs["part"] == part) & runs["counts"]]
        if len(of_part):
            _save(folder, part.replace(" ", "-"), summarise(of_part, examples))
            drawn.add(part.replace(" ", "-"))
        if part == "glue" and len(of_part):
            of_glue = examples[examples["run"].isin(of_part["run"])]
            differences = statistics.comparisons(of_glue, planned=planned_ways(runs, to_come, part))
            _save(folder, "glue-differences", differences)
            drawn.add("glue-differences")
    table = runs[runs["part"] == "batch and rate"]
    if len(table):
        _save(folder, "batch-and-rate", table[["task", "method", "batch_size", "lr", "accuracy"]])
        drawn.add("batch-and-rate")
    pretraining = history[history["task"] == "pretraining"].dropna(axis=1, how="all")
    if len(pretraining):
        _save(folder, "pretraining", pretraining, figures.pretraining(pretraining))
        drawn.add("pretraining")
    if len(to_come):
        drawn.add("missing")
    if (poems := results / f"{study}-sonnets.json").is_file() and (sonnets := read_json(poems)):
        scores = sonnet_scores(counted, sonnets)
        _save(folder, "sonnets", scores, figures.sonnet_scores(scores, published))
        drawn.add("sonnets")
    if (path := results / f"{study}-multitask.parquet").is_file():
        table = pd.read_parquet(path)
        columns = ["an adapter each", "one for all"]
        spread = table.groupby(["task_name", "metric"], sort=False)[columns].agg(["mean", "std"])
        spread.columns = [f"{column} {statistic}" for column, statistic in spread.columns]
        _save(folder, "multitask", spread.reset_index())
        drawn.add("multitask")
    return drawn


def _draw_others(study: str, results: Path, folder: Path) -> set[str]:
    """What comes from elsewhere than the study: the theory, the benchmarks, the other studies on real data."""
    drawn = set()
    settings = {f"beta = {beta:g}": (beta, 2.0, 1.0) for beta in (-0.5, 0.0, 0.4, 0.7, 0.95)}  # beta, eta, gamma
    lines, points, best = theory.compare(
        settings, np.linspace(-1, 6, 141), np.array([-1, 0, 0.5, 1, 2, 3, 4.5, 6]), **SIMULATION
    )
    _save(folder, "theory", points, figures.accuracy_over_alpha(lines, points, best))
    if study == "demo":  # toy data: real results do not belong beside them
        return drawn
    if (results / "benchmarks.csv").is_file():
        waterfall = pd.read_csv(results / "waterfall.csv", index_col=0)
        _save(folder, "waterfall", waterfall, figures.waterfall(waterfall))
        drawn.add("benchmarks")
    if (results / "faults.csv").is_file():
        drawn.add("faults")
    if (results / "benchmark-curves.csv").is_file():
        curves = pd.read_csv(results / "benchmark-curves.csv", index_col=0)
        _save(folder, "two-sides", curves, figures.two_sides(curves))
        drawn.add("two-sides")
    if (results / "pretraining.csv").is_file():
        _save(folder, "worth", worth(pd.read_csv(results / "pretraining.csv")))
        drawn.add("worth")
    if (results / f"{MAIN}.csv").is_file():
        runs, examples, _ = collected(MAIN, results)
        lora = runs["part"].isin(["main", "bases"]) & (runs["name"] == "lora") & runs["counts"]
        of_bases = needs(runs[lora], examples)
        _save(folder, "needs", of_bases, figures.needs(of_bases))
        drawn.add("needs")
    if (results / "probes.csv").is_file():
        found = pd.read_csv(results / "probes.csv")
        known = found[found["measure"].isin(["probe", "cloze"])]
        floors = {
            task: rows.set_index("measure")["accuracy"].to_dict()
            for task, rows in found[found["measure"].isin(FLOORS)].groupby("task", sort=False)
        }
        _save(folder, "probes", known.dropna(axis=1, how="all"), figures.probes(known, floors))
        drawn.add("probes")
    if (results / "range.csv").is_file():
        ranges = block_ranges(*collected("range", results)[:2])
        _save(folder, "blocks", ranges, figures.block_ranges(ranges))
        drawn.add("blocks")
    if (results / "alpha-accuracy.parquet").is_file():
        accuracy = pd.read_parquet(results / "alpha-accuracy.parquet")
        _save(folder, "alpha-accuracy", accuracy, figures.small_data(accuracy))
        rows = pd.read_parquet(results / "alpha-rows.parquet")
        _save(folder, "alpha-rows", rows, figures.alpha_agreement(rows), keep_table=False)
        trace = pd.read_parquet(results / "alpha-trace.parquet")
        _save(folder, "alpha-paths", trace, figures.alpha_paths(trace), keep_table=False)
        _save(folder, "alpha-gain", alpha_gain(accuracy))
        drawn.add("alpha")
    return drawn


def _save(folder: Path, name: str, table: pd.DataFrame, figure=None, keep_table: bool = True) -> None:
    if keep_table:
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")
    if figure is not None:
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})


def _below(path: Path, root: Path) -> str:
    return "/" + path.resolve().relative_to(root).as_posix()
