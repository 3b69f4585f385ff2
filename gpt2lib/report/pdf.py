"""The report: from a study's collected tables to summaries with intervals, figures, and the PDF. Trains nothing.

Each figure lies beside the table that it was drawn from; the Typst source reads those tables and no other number.
"""

import datetime
import os
from dataclasses import dataclass, field
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


@dataclass
class Drawn:
    """A folder of figures and their tables, and the names of what is in it, by which the report's text knows."""

    folder: Path
    names: set[str] = field(default_factory=set)

    def save(self, name: str, table: pd.DataFrame, figure=None, keep_table: bool = True) -> None:
        self.names.add(name)
        if keep_table:
            table.to_csv(self.folder / f"{name}.csv", index=False, float_format="%.10g")
        if figure is not None:
            figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None})
            figure.savefig(self.folder / f"{name}.png", dpi=160, metadata={"Software": None})


def build(study: str, results: Path, figure_folder: Path, source: Path, output: Path) -> Path:
    """Draw the figures of a collected study and compile the PDF; returns its path.

    What other studies and the benchmarks left in `results` is shown, too. Raises FileNotFoundError if the study was not
    collected, and ValueError for a table with a column missing.
    """
    tables = collected(study, results)
    folder = figure_folder / study
    folder.mkdir(parents=True, exist_ok=True)
    published = pd.read_csv(source.parent / "published.csv")
    drawn = Drawn(folder)
    drawn.save("published", statistics.of_published(published))
    to_come = missing_runs(study, results)
    _write_names(folder / "names.json", tables[0], to_come)
    _draw_study(*tables, to_come, study, results, published, drawn)
    _draw_others(study, results, drawn)

    import typst  # only the report needs it

    root = Path(os.path.commonpath([p.resolve() for p in (source, results, folder)]))
    inputs = {"study": study, "results": _below(results, root), "figures": _below(folder, root)}
    inputs["drawn"] = ",".join(sorted(drawn.names))
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


def _draw_study(runs, examples, history, to_come, study: str, results: Path, published, drawn: Drawn) -> None:
    """The study's own tables and figures."""
    main = runs[(runs["part"] == "main") & runs["task"].isin(TASKS)]
    counted = main[main["counts"]]
    methods = summarise(counted, examples)
    of_counted = examples[examples["run"].isin(counted["run"])]
    compared = statistics.comparisons(of_counted, planned=planned_ways(runs, to_come))
    drawn.save("methods", methods, figures.methods(methods, compared if len(compared) else None))
    drawn.save("comparisons", compared)
    drawn.save("pairs", statistics.pairs(of_counted, PAIRS))
    drawn.save("floors", statistics.against_floors(of_counted))
    adapted = figures.ordered(history[history["run"].isin(counted["run"])], "task", "name")
    learnt = figures.learning_curves(adapted, methods, shared_design(runs)["select"] or "dev")
    if learnt is not None:
        drawn.save("learning-curves", adapted, learnt)
    # the demo's toy runs do not stand beside measurements on real texts
    measured = results / "benchmarks.csv"
    benchmarks = pd.read_csv(measured) if study != "demo" and measured.is_file() else None
    drawn.save("cost", methods, figures.cost(methods, benchmarks), keep_table=False)
    tried = tried_rates(runs)
    if len(tried):
        drawn.save("rates", tried, figures.rates(tried))
    checked = controls(runs, examples)
    if len(checked):
        drawn.save("controls", checked)
    for part in ("glue", "weight decay"):
        of_part = runs[(runs["part"] == part) & runs["counts"]]
        if len(of_part):
            drawn.save(part.replace(" ", "-"), summarise(of_part, examples))
        if part == "glue" and len(of_part):
            of_glue = examples[examples["run"].isin(of_part["run"])]
            differences = statistics.comparisons(of_glue, planned=planned_ways(runs, to_come, part))
            drawn.save("glue-differences", differences)
    table = runs[runs["part"] == "batch and rate"]
    if len(table):
        drawn.save("batch-and-rate", table[["task", "method", "batch_size", "lr", "accuracy"]])
    pretraining = history[history["task"] == "pretraining"].dropna(axis=1, how="all")
    if len(pretraining):
        drawn.save("pretraining", pretraining, figures.pretraining(pretraining))
    if len(to_come):
        drawn.names.add("missing")
    if (poems := results / f"{study}-sonnets.json").is_file() and (sonnets := read_json(poems)):
        scores = sonnet_scores(counted, sonnets)
        drawn.save("sonnets", scores, figures.sonnet_scores(scores, published))
    if (path := results / f"{study}-multitask.parquet").is_file():
        table = pd.read_parquet(path)
        columns = ["an adapter each", "one for all"]
        spread = table.groupby(["task_name", "metric"], sort=False)[columns].agg(["mean", "std"])
        spread.columns = [f"{column} {statistic}" for column, statistic in spread.columns]
        drawn.save("multitask", spread.reset_index())


def _draw_others(study: str, results: Path, drawn: Drawn) -> None:
    """What comes from elsewhere than the study: the theory, the benchmarks, the other studies on real data."""
    settings = {f"beta = {beta:g}": (beta, 2.0, 1.0) for beta in (-0.5, 0.0, 0.4, 0.7, 0.95)}  # beta, eta, gamma
    lines, points, best = theory.compare(
        settings, np.linspace(-1, 6, 141), np.array([-1, 0, 0.5, 1, 2, 3, 4.5, 6]), **SIMULATION
    )
    drawn.save("theory", points, figures.accuracy_over_alpha(lines, points, best))
    if study == "demo":  # toy data: real results do not belong beside them
        return
    if (results / "benchmarks.csv").is_file():
        waterfall = pd.read_csv(results / "waterfall.csv", index_col=0)
        drawn.save("waterfall", waterfall, figures.waterfall(waterfall))
        drawn.names.add("benchmarks")
    if (results / "faults.csv").is_file():
        drawn.names.add("faults")
    if (results / "benchmark-curves.csv").is_file():
        curves = pd.read_csv(results / "benchmark-curves.csv", index_col=0)
        drawn.save("two-sides", curves, figures.two_sides(curves))
    if (results / "pretraining.csv").is_file():
        drawn.save("worth", worth(pd.read_csv(results / "pretraining.csv")))
    if (results / f"{MAIN}.csv").is_file():
        runs, examples, _ = collected(MAIN, results)
        lora = runs["part"].isin(["main", "bases"]) & (runs["name"] == "lora") & runs["counts"]
        of_bases = needs(runs[lora], examples)
        drawn.save("needs", of_bases, figures.needs(of_bases))
    if (results / "probes.csv").is_file():
        found = pd.read_csv(results / "probes.csv")
        known = found[found["measure"].isin(["probe", "cloze"])]
        floors = {
            task: rows.set_index("measure")["accuracy"].to_dict()
            for task, rows in found[found["measure"].isin(FLOORS)].groupby("task", sort=False)
        }
        drawn.save("probes", known.dropna(axis=1, how="all"), figures.probes(known, floors))
    if (results / "range.csv").is_file():
        ranges = block_ranges(*collected("range", results)[:2])
        drawn.save("blocks", ranges, figures.block_ranges(ranges))
    if (results / "alpha-accuracy.parquet").is_file():
        accuracy = pd.read_parquet(results / "alpha-accuracy.parquet")
        drawn.save("alpha-accuracy", accuracy, figures.small_data(accuracy))
        rows = pd.read_parquet(results / "alpha-rows.parquet")
        drawn.save("alpha-rows", rows, figures.alpha_agreement(rows), keep_table=False)
        trace = pd.read_parquet(results / "alpha-trace.parquet")
        drawn.save("alpha-paths", trace, figures.alpha_paths(trace), keep_table=False)
        drawn.save("alpha-gain", alpha_gain(accuracy))


def _below(path: Path, root: Path) -> str:
    return "/" + path.resolve().relative_to(root).as_posix()
