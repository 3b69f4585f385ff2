"""The report is its tables: it rebuilds from the committed ones, in seconds, and a changed number changes it."""

import json
import re
import shutil
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY

from gpt2lib import report
from gpt2lib.report import figures, pdf, summaries
from gpt2lib.report.collected import told_apart
from gpt2lib.report.figures import theme

RESULTS = REPOSITORY / "report" / "results"
SOURCE = REPOSITORY / "report" / "report.typ"


def build(place):
    """The report of the study mini as it stands in that folder: the PDF, and the files of its figures by name."""
    output = place / "out.pdf"
    report.build("mini", place / "report" / "results", place / "figures", place / "report" / "report.typ", output)
    return output.read_bytes(), {p.name: p.read_bytes() for p in (place / "figures" / "mini").iterdir()}


def copied(place):
    """The report's source and the committed tables, to play with."""
    shutil.copytree(REPOSITORY / "report", place / "report", ignore=shutil.ignore_patterns("*.pdf"))
    return place


@pytest.fixture
def copy(tmp_path):
    return copied(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Built once: PDF, files of the figures, their folder, the figures themselves by name, and the seconds it took."""
    place, drawn, save = copied(tmp_path_factory.mktemp("built")), {}, pdf.Drawn.save

    def keep(self, name, table, figure=None, keep_table=True):
        drawn[name] = figure
        save(self, name, table, figure, keep_table)

    with mock.patch.object(pdf.Drawn, "save", keep):
        began = time.monotonic()
        document, files = build(place)
    drawn = {name: figure for name, figure in drawn.items() if figure is not None}
    return SimpleNamespace(pdf=document, files=files, place=place, drawn=drawn, seconds=time.monotonic() - began)


def test_figures_and_pdf_rebuild_alike_in_less_than_a_minute(built, copy):
    assert built.seconds < 60
    assert built.pdf.startswith(b"%PDF") and len(built.pdf) > 20_000
    assert (built.pdf, built.files) == build(copy)


def test_the_committed_tables_of_the_figures_are_those_of_the_results(built):
    for table in (REPOSITORY / "figures" / "mini").glob("*.csv"):
        seen, committed = pd.read_csv(built.place / "figures" / "mini" / table.name), pd.read_csv(table)
        pd.testing.assert_frame_equal(seen, committed, rtol=1e-4)


def test_a_changed_number_changes_figure_and_pdf(built, copy):
    path = copy / "report" / "results" / "mini.csv"
    table = pd.read_csv(path)
    row = table.index[(table["task"] == "sst") & (table["method"] == "lora") & table["counts"]][0]
    table.loc[row, "accuracy"] -= 0.05
    table.to_csv(path, index=False)
    changed_pdf, changed_files = build(copy)
    assert changed_pdf != built.pdf
    changed = {name for name in built.files if built.files[name] != changed_files[name]}
    assert {"methods.svg", "methods.png", "methods.csv"} <= changed
    assert "theory.svg" not in changed  # what did not change stays as it was


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs, results: runs.assign(part="glue"), "mini.csv: no run is in the part main"),
        (lambda runs, results: runs.assign(counts=False), "mini.csv: no run is in the part main"),
        (lambda runs, results: (results / "mini-history.csv").unlink(), "there is no .*mini-history.csv"),
        (lambda runs, results: (results / "mini-history.csv").write_text(""), "mini-history.csv: damaged"),
        (lambda runs, results: (results / "mini-examples.parquet").write_text("x"), "mini-examples.parquet: damaged"),
    ],
)
def test_a_study_that_cannot_be_reported_on_is_one_clear_error(copy, change, message):
    results = copy / "report" / "results"
    changed = change(pd.read_csv(results / "mini.csv"), results)
    if isinstance(changed, pd.DataFrame):
        changed.to_csv(results / "mini.csv", index=False)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(copy)


@pytest.mark.parametrize("sonnets", ["{}", "one"])
def test_a_study_without_sonnets_or_with_one_is_reported_on(copy, sonnets):
    path = copy / "report" / "results" / "mini-sonnets.json"
    content = json.loads(path.read_text())
    path.write_text("{}" if sonnets == "{}" else json.dumps(dict(list(content.items())[:1])))
    build(copy)


def test_a_report_needs_no_results_but_its_own(copy):
    """As `make demo` builds it: nothing measured, nothing probed, no other study."""
    for path in (copy / "report" / "results").iterdir():
        if not path.name.startswith("mini"):
            path.unlink()
    document, _ = build(copy)
    assert document.startswith(b"%PDF")


def test_missing_tables_and_columns_are_one_clear_error(copy):
    results = copy / "report" / "results"
    with pytest.raises(FileNotFoundError, match=r"there is no .*nothing\.csv; run"):
        report.build("nothing", results, copy / "figures", SOURCE, copy / "out.pdf")
    pd.read_csv(results / "mini.csv").drop(columns="seconds").to_csv(results / "mini.csv", index=False)
    with pytest.raises(ValueError, match=r"mini\.csv: no column seconds"):
        build(copy)
    assert not (copy / "out.pdf").exists()


def test_a_study_of_all_blocks_names_none():
    """As the demo's does, whose parameters say so by an empty list and a 0."""
    given = {"layers": [], "depth": 0, "select": "dev"}
    runs = pd.DataFrame({"part": "main", "counts": True, "task": ["sst", "sonnets"], "parameters": json.dumps(given)})
    assert report.shared_design(runs) == dict.fromkeys(
        ["depth", "layers", "precision", "writing_depth", "writing_layers"]
    ) | {"select": "dev"}


def typed_numbers(source: str) -> list[str]:
    """The numbers in the report's source that stand for something measured or set: with a decimal point, of two digits
    or more, or counting something. Not those of code and layout, years, papers, and the level of tests."""
    code = r"//[^\n]*|\"[^\"\n]*\"|calc\.\w+\(\d+|\d+ \*|([/<>]|[=<>]=) *\d+|slice\(\d+\)|\w+: \d+"
    code += r"|\d+(\.\d+)?(cm|em|pt|fr|%)"
    said = r"arXiv [\d.]+|\b(19|20)\d\d\b|CS224N|\b(95|5) %|notebook \d+|1/1000|10\^\(-\d\)"
    said += r"|bf16|float32|SmolLM2-135M|AVX-512"
    text = re.sub(f"{code}|{said}", " ", source)
    counted = r"\b\d+ (?:to \d+ )?(?:points|seeds|draws|examples|epochs|tokens|minutes|hours|runs|pairs|blocks|MB)\b"
    return [found.group() for found in re.finditer(rf"\d+\.\d+|\d[\d,]*\d|{counted}", text)]


def test_no_number_is_typed_into_the_results_of_the_report():
    source = SOURCE.read_text(encoding="utf-8")
    assert typed_numbers(source) == []
    for typed in ("reaches 41.5 there", "$p = 300$", "over 20 draws", "1,024 texts", "about 3 points on SST"):
        assert len(typed_numbers(f"{source}\nIt is {typed}.")) == 1, typed


# --- the figures


def beyond(figure) -> bool:
    """Whether something reaches out of the figure, where it would be cut off (by more than a point in a hundred)."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 < -0.01 or box.y0 < -0.01 or box.x1 > width + 0.01 or box.y1 > height + 0.01


def test_figures_fit_the_page_and_nothing_is_cut_off(built):
    expected = {"methods", "learning-curves", "cost", "rates", "sonnets", "theory", "waterfall", "needs", "two-sides"}
    assert expected <= set(built.drawn)
    assert not [name for name, figure in built.drawn.items() if beyond(figure)]
    assert all(figure.get_figwidth() <= theme.WIDTH for figure in built.drawn.values())


@pytest.fixture(scope="module")
def tables():
    return [pd.read_csv(REPOSITORY / "figures" / "mini" / f"{name}.csv") for name in ("methods", "comparisons")]


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def test_methods_stand_best_first_and_ranks_together(tables):
    methods, comparisons = tables
    figure = figures.methods(methods, comparisons)
    for axis, task in zip(figure.axes[::2], methods["task"].unique(), strict=True):
        of_task = methods[(methods["task"] == task) & methods["seconds"].notna()]
        values = of_task.set_index("method")["value"]
        named = {theme.title(name): name for name in values.index}
        order = [named[label] for label in labels(axis)]
        assert sorted(order) == sorted(values.index)
        at = [i for i, name in enumerate(order) if theme.family_of(name) == "lora"]
        assert at == list(range(at[0], at[0] + len(at)))
        best_last = task != "sonnets"  # accuracy: higher is better
        of_family = values.groupby(theme.family_of).agg("max" if best_last else "min")
        families = list(dict.fromkeys(theme.family_of(name) for name in order))
        assert list(of_family[families]) == sorted(of_family, reverse=best_last)


def test_marks_are_filled_where_the_difference_is_significant(tables):
    methods, comparisons = tables
    figure = figures.methods(methods, comparisons)
    filled = sum(
        line.get_marker() == "o" and line.get_markerfacecolor() != "white"
        for axis in figure.axes[1::2]
        for line in axis.get_lines()
    )
    assert 0 < filled == (comparisons["p_holm"] < 0.05).sum() < len(comparisons)


def test_methods_that_are_not_known_here_are_drawn_too(tables):
    """A study's variants stand with their method, and one without a record is called by its own name."""
    more = [table.replace({"method": {"krona": "alpha-lora fixed", "graph-lora": "my-method"}}) for table in tables]
    figure = figures.methods(*more)
    assert not beyond(figure)
    for axis in figure.axes[::2]:
        order = labels(axis)
        assert "my-method" in order
        assert abs(order.index("alpha-LoRA") - order.index("alpha-LoRA, fixed")) == 1


def test_published_sonnets_are_named_in_the_panel_of_their_convention_alone():
    table = pd.read_csv(REPOSITORY / "figures" / "mini" / "sonnets.csv")
    figure = figures.sonnet_scores(table, pd.read_csv(REPOSITORY / "report" / "published.csv"))
    whole, continuation = ([text.get_text() for text in axis.texts] for axis in figure.axes)
    assert len(whole) == 1 and "2504.10490" in whole[0] and "42.1" in whole[0]
    assert len(continuation) == 1 and "ExpLoRA" in continuation[0] and "27.4" in continuation[0]


def test_the_waterfalls_bars_are_increments():
    speed = [4.0, 6.0, 5.0, 9.0]
    table = pd.DataFrame(dict.fromkeys(("examples/s", "lowest", "highest"), speed), index=list("abcd"))
    (axis,) = figures.waterfall(table).axes
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches]
    assert bars == [(0, 4), (4, 6), (6, 5), (5, 9)]
    assert [text.get_text().split() for text in axis.texts][2] == ["-1.0", "(1.25x)"]


def test_spectra_are_over_their_largest_value():
    x = np.random.default_rng(0).normal(size=(20, 3))
    (axis,) = figures.singular_values({"a": x @ x.T, "b": 100 * x @ x.T}, rank=3).axes
    a, b = (line.get_ydata() for line in axis.get_lines()[:2])
    assert a[0] == 1 and np.allclose(a[:3], b[:3])
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_a_gain_is_blue_where_the_best_alpha_is_below_1():
    best = np.array([[0.5, 2.0], [0.9, 1.5]])
    figure = figures.gain_map(np.array([0.1, 0.9]), np.array([0.1, 1.0]), np.full((2, 2), 0.02), best)
    values = figure.axes[0].collections[0].get_array().reshape(2, 2)
    assert np.allclose(values, [[-2, 2], [-2, 2]])


@pytest.mark.parametrize("values", [[1, 1, 1], [3.0, 1.0, 1.1, 9.0], [0.0, 5.0]])
def test_labels_are_spread_in_order(values):
    placed = theme.spread(values, gap=0.5)
    order = np.argsort(values, kind="stable")
    assert (np.diff(placed[order]) >= 0.5 - 1e-9).all()
    assert abs(placed.mean() - np.mean(values)) < 1e-9  # as little as need be


def test_what_a_base_must_know_is_ordered_by_what_it_knows():
    runs = pd.read_csv(RESULTS / "pretraining.csv")
    runs = runs.loc[runs.groupby(["task", "base_model", "method"])["accuracy"].idxmax()]
    table = report.needs(runs, pd.read_parquet(RESULTS / "pretraining-examples.parquet"))
    assert list(dict.fromkeys(table["base"])) == ["majority class", "bag of words", "random gpt2-mini", "gpt2-mini"]
    row = table[(table["task"] == "sst") & (table["method"] == "full") & (table["base"] == "gpt2-mini")]
    of_full = runs[(runs["task"] == "sst") & (runs["method"] == "full") & (runs["base_model"] == "gpt2-mini")]
    assert row["value"].item() == pytest.approx(of_full["accuracy"].max(), abs=1e-6)


def test_ranges_of_blocks_are_read_and_drawn():
    runs = pd.read_csv(RESULTS / "mini.csv")
    runs = runs[runs["counts"] & (runs["part"] == "main") & (runs["task"] == "sst")]
    runs = runs[runs["name"].isin(["lora", "lora r=4", "lora r=16"])].reset_index(drop=True)
    ranges = {"lora": "[2, 4]", "lora r=4": "[0, 4]", "lora r=16": "[2, 4]"}
    runs["parameters"] = runs["name"].map(lambda name: f'{{"layers": {ranges[name]}}}')
    runs["targets"] = runs["targets"].where(runs["name"] != "lora r=16", "up down")
    table = report.block_ranges(runs, pd.read_parquet(RESULTS / "mini-examples.parquet"))
    assert len(table) == 3
    lora = runs.loc[runs["name"] == "lora", "accuracy"].mean()
    row = table[(table["first"] == 2) & (table["targets"] == "q v")]
    assert row["end"].item() == 4 and row["value"].item() == pytest.approx(lora, abs=1e-6)
    figure = figures.block_ranges(table)
    assert labels(figure.axes[0]) == ["0 to 3", "2 to 3", "2 to 3, up down"] and not beyond(figure)


def test_variants_of_a_method_do_not_share_a_name():
    """Runs of one name that differ in layers or settings are told apart; the frequent ones keep the plain one."""

    def run(name, method, part="main", counts=True, task="sst", base_model="a", **parameters):
        row = {"name": name, "method": method, "part": part, "counts": counts, "task": task, "base_model": base_model}
        return row | {"parameters": json.dumps(parameters)}

    all_layers, few = ["q", "k", "v"], ["up", "down"]
    runs = [
        *[run("lora", "lora", targets=all_layers)] * 3,
        *[run("lora", "lora", targets=few)] * 2,
        run("lora", "lora", "trials", False, targets=few),
        run("lora", "lora", task="cfimdb", targets=few),
        run("lora", "lora", "bases", base_model="b", targets=few),
        *[run("alpha-lora", "alpha-lora", targets=few, settings=[])] * 2,
        run("alpha-lora", "alpha-lora", targets=few, settings=["every=5"]),
        *[run("full", "full", targets=all_layers), run("full", "full", targets=few)],
    ]
    names = told_apart(pd.DataFrame(runs))["name"].tolist()
    assert names == [
        *["lora"] * 3,
        *["lora up down"] * 3,
        "lora",
        "lora",  # another base has other layers
        *["alpha-lora"] * 2,
        "alpha-lora every=5",
        *["full"] * 2,
    ]


def test_a_name_does_not_hang_on_what_was_done_first():
    """LoRA on all layers is planned, and its neighbour on two was done before it: that one is not plain "lora"."""
    common = {"name": "lora", "method": "lora", "task": "sst", "base_model": "a", "part": "main", "counts": True}
    few, every = (json.dumps({"method": "lora", "targets": targets}) for targets in (["up"], ["q", "k", "up"]))
    runs = pd.DataFrame([common | {"parameters": few}] * 2)
    to_come = pd.DataFrame([{"run": "x", "part": "main", "task": "sst", "parameters": every}] * 2)
    assert set(told_apart(runs)["name"]) == {"lora"}
    assert set(told_apart(runs, to_come)["name"]) == {"lora up"}


def test_a_rate_at_which_a_trial_diverged_was_tried():
    trials = [
        {"task": "sst", "name": "lora", "part": "trials", "lr": lr, "seed": seed, "accuracy": value, "diverged": bad}
        for lr, seed, value, bad in ((1e-3, 0, 0.4, None), (1e-3, 1, 0.5, None), (1, 0, 0.6, None), (1, 1, None, True))
    ]
    table = summaries.tried_rates(pd.DataFrame(trials)).set_index("lr")["value"]
    assert table[1e-3] == pytest.approx(0.45) and np.isnan(table[1])


def test_rates_are_scored_by_what_they_were_chosen_by():
    common = {"task": "sst", "name": "lora", "counts": False, "accuracy": 0.9}
    trials = [
        common | {"part": "trials", "lr": lr, "seed": seed, "selection_accuracy": value}
        for lr, seed, value in ((1e-3, 0, 0.3), (1e-3, 1, 0.5), (1e-2, 0, 0.6), (1e-2, 1, 0.6))
    ]
    main = common | {"part": "main", "lr": 1e-2, "seed": 0, "selection_accuracy": 0.7}
    other = common | {"part": "trials", "name": "krona", "lr": 1e-2, "seed": 0, "selection_accuracy": 0.7}
    runs = pd.DataFrame([*trials, main, other])
    runs["parameters"] = '{"base_model": "a"}'
    elsewhere = runs.assign(parameters='{"base_model": "b"}', selection_accuracy=0.1)
    elsewhere = elsewhere[elsewhere["part"] == "trials"]
    table = summaries.tried_rates(pd.concat([runs, elsewhere], ignore_index=True))
    assert dict(zip(table["lr"], table["value"], strict=True)) == pytest.approx({1e-3: 0.4, 1e-2: 0.6})
    assert set(table["name"]) == {"lora"}  # one rate is no trial


def test_controls_are_paired_with_the_method_as_it_stands_and_with_lora():
    def run(method, seed, part, **changed):
        parameters = {"seed": seed, "lr": 1e-3 * (1 + seed), "layers": [2, 4], "depth": 4, "epochs": 2}
        row = {"run": f"{method}-{part}-{seed}-{len(changed)}", "part": part, "task": "sst", "method": method}
        row |= {"name": method, "base_model": "a", "seed": seed, "counts": True, "accuracy": 0.5, "lr": 1e-3}
        row |= {"weight_decay": 0, "batch_size": 8, "epochs": 2, "rank": 8, "targets": "q"}
        return row | {"parameters": json.dumps(parameters | changed)}

    runs = [run(method, seed, "main") for method in ("lora", "alpha-lora") for seed in (0, 1)]
    runs += [run("alpha-lora", seed, "controls", settings=["share=0"]) for seed in (0, 1)]
    runs += [run("lora", 0, "controls", layers=[0, 4], epochs=1)]
    right = {"lora-main": 6, "alpha-lora-main": 4, "alpha-lora-controls": 7, "lora-controls": 5}  # of ten examples
    examples = pd.DataFrame(
        {"run": row["run"], "name": row["name"], "task": "sst", "seed": row["seed"], "id": i, "correct": i < count}
        for row in runs
        for count in [right[f"{row['method']}-{row['part']}"]]
        for i in range(10)
    )
    table = summaries.controls(pd.DataFrame(runs), examples).set_index("change")
    assert set(table.index) == {"share=0", "blocks 0 to 3 of 4, 1 epoch"}
    share, blocks = table.loc["share=0"], table.loc["blocks 0 to 3 of 4, 1 epoch"]
    assert (share["seeds"], share["difference"], share["lora"]) == (2, pytest.approx(30), pytest.approx(10))
    assert share["difference_low"] < 30 < share["difference_high"]
    assert (blocks["seeds"], blocks["difference"]) == (1, pytest.approx(-10)) and np.isnan(blocks["lora"])


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("lora r=16", "LoRA, rank 16"),
        ("alpha-lora fixed", "alpha-LoRA, fixed"),
        ("krona", "KronA"),
        ("floor x", "floor x"),
    ],
)
def test_titles_come_from_the_records(name, called):
    assert theme.title(name) == called


@pytest.mark.parametrize("study", ["mini", "smollm2"])
def test_the_same_text_has_one_floor(study):
    """Whatever code collected the runs: else a figure would show one run's. A tokenizer leaves its own text."""
    runs = pd.read_csv(RESULTS / f"{study}.csv").dropna(subset="bag_of_words_accuracy")
    trial = runs["part"] == "trials"
    tokenizer = runs["base_model"].str.removeprefix("untrained ")
    floors = runs.groupby([trial, tokenizer, "task", "data_hash", "max_length"])["bag_of_words_accuracy"]
    assert floors.ngroups > 3 and (floors.max() - floors.min()).max() < 1e-6


@pytest.mark.parametrize("study", ["mini", "smollm2"])
def test_the_floors_that_methods_are_paired_with_are_those_of_the_table(study):
    runs = pd.read_csv(RESULTS / f"{study}.csv").set_index("run")
    runs = runs[runs["counts"]]
    examples = pd.read_parquet(RESULTS / f"{study}-examples.parquet")
    answered = examples.groupby("run")["bag_of_words_correct"].agg(lambda right: right.astype(float).mean())
    sums = examples.dropna(subset="loss_before").groupby("run")[["loss_before", "tokens"]].sum()
    before = np.exp(sums["loss_before"] / sums["tokens"])
    for found, column in ((answered.dropna(), "bag_of_words_accuracy"), (before, "perplexity_before")):
        told = runs[column].dropna()
        assert set(found.index) == set(told.index) and np.allclose(found, told[found.index], rtol=1e-5)
