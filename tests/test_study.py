"""Studies: planned and refused before anything starts; each run whole or not at all; again means nothing."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
from conftest import FAMILIES, REPOSITORY, Inline, run

from gpt2lib import cli
from gpt2lib.adapters import trained_count
from gpt2lib.model.base import shape_of
from gpt2lib.model.config import LlamaConfig
from gpt2lib.study.cost import estimate
from gpt2lib.study.engines import Processes
from gpt2lib.study.group import Group, Run
from gpt2lib.study.notebook import default_values, notebook_parameters
from gpt2lib.study.plan import plan, rehearsal
from gpt2lib.study.runner import Study
from gpt2lib.tasks import METHODS, method_named, method_of

GRID = """
[defaults]
seed = 7
[[runs]]
notebook = "one"
grid = { mode = ["good", "fine"], share = [0.25, 0.75] }
"""


def test_a_grid_runs_once_and_is_collected(study, tmp_path):
    path = study(GRID)
    batch, errors = run(path, tmp_path)
    assert not errors and len(batch.runs) == 4 and all(map(batch.done, batch.runs))
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    assert sorted(table["accuracy"]) == [0.18, 0.18, 0.68, 0.68] and set(table["study"]) == {"trial"}
    assert set(table["seed"]) == {7} and table["counts"].all()
    history = pd.read_csv(tmp_path / "results" / "trial-history.csv")
    assert set(history["run"]) == set(table["run"])

    _, errors = run(path, tmp_path)  # again: nothing
    counts = [(tmp_path / "runs" / "trial" / r.name / "count.txt").read_text() for r in batch.runs]
    assert not errors and counts == ["x"] * 4

    one, missing = batch.runs[0].name, tmp_path / "results" / "trial-missing.csv"
    shutil.rmtree(tmp_path / "runs" / "trial" / one)  # a deleted run is missed, and done again, alone
    assert [r.name for r in Study(path, tmp_path / "runs").missing()] == [one]
    batch.collect(tmp_path / "elsewhere")
    listed = pd.read_csv(tmp_path / "elsewhere" / "trial-missing.csv")
    assert list(listed["run"]) == [one]
    assert json.loads(listed["parameters"][0])["share"] == 0.25  # what the report counts ways by
    batch.collect(tmp_path / "results")  # where its row is, it is not missed
    assert not missing.exists() and len(pd.read_csv(tmp_path / "results" / "trial.csv")) == 4
    run(path, tmp_path)
    counts = [(tmp_path / "runs" / "trial" / r.name / "count.txt").read_text() for r in batch.runs]
    assert counts == ["x"] * 4


def test_tables_of_other_studies_stay_and_old_ones_go(study, tmp_path):
    batch, _ = run(study(GRID), tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    old, other = (results / name for name in ("trial-multitask.parquet", "trial-two-rows.parquet"))
    for path in (old, other):
        pd.DataFrame({"run": ["gone"]}).to_parquet(path)
    (results / "trial-sonnets.json").write_text("{}")
    batch.collect(results)
    assert sorted(path.name for path in results.iterdir()) == [
        "trial-history.csv",
        "trial-two-rows.parquet",
        "trial.csv",
    ]


@pytest.mark.parametrize("first", [0, 3])
def test_a_study_done_on_two_machines_is_one(study, tmp_path, first):
    """Half of it here, half there, each from an empty folder; with the rows of the other half nothing is done twice."""
    path, results = study(TUNED), tmp_path / "results"
    batch = Study(path, tmp_path / "here")
    stop_after = [first + 9]  # all trials of one mode at least

    class Ends(Inline):
        def start(self, *given):
            stop_after[0] -= 1
            if stop_after[0] < 0:
                raise KeyboardInterrupt
            return super().start(*given)

    with pytest.raises(KeyboardInterrupt):
        batch.run(Ends(), lambda line: None)
    batch.collect(results)
    before = (results / "trial.csv").read_text().splitlines()

    there = Study(path, tmp_path / "there", collected=results)
    assert len(there.missing()) == len(there.runs) - first - 9
    assert not there.run(Inline(), lambda line: None)
    there.collect(results)
    assert len(there.here) == len(there.runs) - first - 9 and not (results / "trial-missing.csv").exists()
    assert set(before) < set((results / "trial.csv").read_text().splitlines())  # what was there stays, byte for byte

    whole, _ = run(path, tmp_path)
    whole.collect(tmp_path / "at once")
    for name in ("trial.csv", "trial-history.csv"):
        assert (results / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


@pytest.mark.parametrize(
    ("candidates", "beyond", "tried", "best"),  # the best is the one that is nearest to a half
    [
        ("[0.05, 0.1, 0.2]", 9, {0.05, 0.1, 0.2, 0.4, 0.8}, 0.4),
        ("[1.2, 2.4]", 9, {0.3, 0.6, 1.2, 2.4}, 0.6),
        ("[0.05, 0.1, 0.2]", 1, {0.05, 0.1, 0.2, 0.4}, 0.4),
        ("[0.2, 0.1]", 0, {0.1, 0.2}, 0.2),
        ("[0.25, 0.5, 1.0]", 9, {0.25, 0.5, 1.0}, 0.5),
        ("[0.4, 0.4001]", 9, {0.4, 0.4001}, 0.4001),  # the next one, rounded, was tried
    ],
)
def test_trials_go_on_beyond_the_end_that_is_best(study, tmp_path, candidates, beyond, tried, best):
    path = study(f"tune_beyond = {beyond}\n" + TUNED.replace("[0.25, 0.75, 0.125]", candidates))
    batch, errors = run(path, tmp_path)
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    trials, runs = table[table["part"] == "trials"], table[table["part"] != "trials"]
    asked = trials["parameters"].map(lambda text: json.loads(text)["share"])
    # both groups share the trials, of two seeds for each of two modes; no run was done with a value that lost later
    assert not errors and len(trials) == len(tried) * 2 * 2 and set(asked) == tried
    assert set((runs["accuracy"] + runs["seed"] / 100).round(6)) == {best}
    assert not (batch.folder / ".replaced").exists() and not (tmp_path / "results" / "trial-missing.csv").exists()
    there = Study(path, tmp_path / "there", collected=tmp_path / "results")  # knows from the tables what was tried
    assert not there.missing() and {r.name for r in there.runs} == set(table["run"])


@pytest.mark.parametrize("first", ["a", "b"])
def test_trials_go_on_in_whatever_order_runs_read_each_other(study, tmp_path, first):
    own = '[[runs]]\nnotebook = "one"\nname = "{}"\ntune = {{ share = [0.05, 0.1] }}\n'
    own += 'trial_parameters = {{ select = "held-out" }}\nparameters = {{ base = "{}" }}\n'
    groups = {"a": own.format("a", ""), "b": own.format("b", "run:a/model")}
    path = study("tune_beyond = 9\n" + groups.pop(first) + "".join(groups.values()))
    batch, errors = run(path, tmp_path)
    assert not errors and {batch.parameters(batch.by_name[name])["share"] for name in "ab"} == {0.4}
    again = Study(path, tmp_path / "runs")
    assert not again.missing() and len(again.runs) == len(batch.runs) == 2 + 2 * 5


def test_what_cannot_be_tried_ends_the_search(study, tmp_path):
    path = study("""
tune_beyond = 9
[[runs]]
notebook = "one"
grid = { seed = [0] }
tune = { number = [1, 2] }
[[runs]]
notebook = "one"
parameters = { mode = "fine" }
tune = { share = [5e307, 1e308] }
[[runs]]
notebook = "one"
parameters = { number = 2 }
tune = { share = [0.5] }
""")
    batch, errors = run(path, tmp_path)
    assert not errors and len(batch.runs) == 3 + 3 + 2


def test_a_value_that_a_notebook_refuses_ends_the_search(study, tmp_path, monkeypatch):
    trials = Group.trials

    def refusing(self, chosen, tuned, value):  # as a dropout of 1.2 is
        if value > 0.3:
            raise ValueError(f"{tuned} = {value}")
        return trials(self, chosen, tuned, value)

    monkeypatch.setattr(Group, "trials", refusing)
    batch, errors = run(study("tune_beyond = 9\n" + TUNED.replace("[0.25, 0.75, 0.125]", "[0.05, 0.1]")), tmp_path)
    assert not errors and {batch.parameters(r)["share"] for r in batch.runs if r.trials} == {0.2}  # and not 0.4
    assert not Study(tmp_path / "notebooks" / "studies" / "trial.toml", tmp_path / "runs").missing()


def test_one_value_more_costs_its_trials_alone_unless_it_is_better(study, tmp_path):
    batch, _ = run(study(TUNED), tmp_path)
    batch.collect(tmp_path / "results")
    widened = study(TUNED.replace("0.125]", "0.125, 0.0625]"))  # further from the middle: 0.75 stays the best
    for runs in ("runs", "elsewhere"):
        there = Study(widened, tmp_path / runs, collected=tmp_path / "results")
        before = set(there.here)
        assert not there.run(Inline(), lambda line: None) and all(map(there.done, there.runs))
        done = set(there.here) - before
        assert len(done) == 2 * 2 and {there.here[name].row["part"] for name in done} == {"trials"}


def test_scores_stay_with_the_runs_that_they_are_of(study, tmp_path):
    batch, _ = run(study(GRID), tmp_path)
    batch.collect(tmp_path / "results")
    scores = tmp_path / "results" / "trial-scores.csv"
    names = [r.name for r in batch.runs]
    pd.DataFrame({"run": names, "task": "sst", "test_accuracy": 0.123456789}).to_csv(scores, index=False)
    before = scores.read_bytes()
    batch.collect(tmp_path / "results")
    assert scores.read_bytes() == before
    result = batch.folder / names[0] / "result.json"
    result.write_text(result.read_text().replace('"accuracy": 0.', '"accuracy": 0.9'))  # done again since
    batch.collect(tmp_path / "results")
    assert list(pd.read_csv(scores)["run"]) == names[1:]


def test_rows_are_not_lost_unless_that_is_meant(study, tmp_path):
    batch, _ = run(study(GRID), tmp_path)
    table = batch.collect(tmp_path / "results")
    before = table.read_bytes()
    batch, _ = run(study(GRID.replace("0.25, ", "")), tmp_path)
    with pytest.raises(
        ValueError, match=r"holds 2 runs that are neither here nor planned .*good-0\.25.*; --force drops them"
    ):
        batch.collect(tmp_path / "results")
    assert table.read_bytes() == before
    assert len(pd.read_csv(batch.collect(tmp_path / "results", force=True))) == 2
    table.write_text("")  # as a full disk once left it
    with pytest.raises(ValueError, match=r"trial\.csv: no table of runs"):
        batch.collect(tmp_path / "results")
    batch.collect(tmp_path / "results", force=True)
    (tmp_path / "results" / "trial.csv").write_text("step,loss\n1,2\n")  # somebody else's
    with pytest.raises(ValueError, match="not of the study trial"):
        batch.collect(tmp_path / "results")


def test_a_notebook_may_gain_a_parameter_but_not_change_one(study, tmp_path):
    path, notebook = study(GRID), tmp_path / "notebooks" / "one.ipynb"
    batch, _ = run(path, tmp_path)
    table = batch.collect(tmp_path / "results")

    def missing(old, new):
        notebook.write_text(text.replace(old, new))
        notebook_parameters.cache_clear()
        here, elsewhere = Study(path, tmp_path / "runs"), Study(path, tmp_path / "none", collected=table.parent)
        assert len(here.missing()) == len(elsewhere.missing())
        return len(here.missing())

    text = notebook.read_text()
    assert missing("number: int = 1", 'number: int = 1\\n",\n    "another: int = 5') == 0
    assert missing("number: int = 1", "number: int = 2") == missing("number: int = 1", "numbers: int = 1") == 4


def test_a_named_run_is_done_again_when_its_parameters_change_and_the_old_one_is_kept(study, tmp_path):
    content = '[[runs]]\nnotebook = "one"\nname = "base"\nparameters = { share = 0.5 }\n'
    run(study(content), tmp_path)
    changed = study(content.replace("0.5", "0.25"))
    assert not Study(changed, tmp_path / "runs").done("base")
    batch, errors = run(changed, tmp_path)
    assert not errors and batch.done("base")
    kept = [json.loads(file.read_text())["metrics"] for file in (batch.folder / ".replaced").glob("*/result.json")]
    assert batch.here["base"].row["accuracy"] == "0.25" and kept == [{"accuracy": 0.5}]


def test_a_small_number_stays_a_number(study, tmp_path):
    batch, errors = run(study('[[runs]]\nnotebook = "one"\ngrid = { share = [1e-5, 1e3] }\n'), tmp_path)
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    assert not errors and sorted(table["accuracy"]) == [1e-5, 1e3]


TUNED = """
[[runs]]
notebook = "one"
part = "glue"
tune_seeds = [3, 4]
grid = { mode = ["good", "fine"], seed = [0, 1, 2] }
tune = { share = [0.25, 0.75, 0.125] }
trial_parameters = { number = 0, select = "held-out" }
[[runs]]
notebook = "one"
part = "more seeds"
tune_seeds = [3, 4]
grid = { mode = ["good"], seed = [5] }
tune = { share = [0.25, 0.75, 0.125] }
trial_parameters = { number = 0, select = "held-out" }
"""


def test_trials_choose_by_their_mean_and_do_not_count(study, tmp_path):
    batch, errors = run(study(TUNED), tmp_path)
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    trials, runs = table[table["part"] == "trials"], table[table["part"] != "trials"]
    # the second group shares the trials of the first; dev would have it the same, but trials do not look at dev
    assert not errors and len(trials) == 2 * 3 * 2 and len(runs) == 2 * 3 + 1
    assert not trials["counts"].any() and runs["counts"].all()
    assert set(trials["seed"]) == {3, 4} and set(runs["seed"]) == {0, 1, 2, 5}
    # 0.25 and 0.75 are as far from the middle: of equal scores the lower loss wins
    assert set((runs["accuracy"] + runs["seed"] / 100).round(6)) == {0.75}
    asked = [json.loads(text) for text in trials["parameters"]]
    assert {parameters["number"] for parameters in asked} == {0} and set(trials["tuned"]) == {"share"}
    assert {json.loads(text)["number"] for text in runs["parameters"]} == {1}
    assert len(pd.read_csv(tmp_path / "results" / "trial-history.csv")) == 7  # curves of the runs that count


def test_a_value_that_diverged_is_the_worst_and_blocks_nobody(study, tmp_path):
    content = """
[[runs]]
notebook = "one"
tune_seeds = [0, 1]
grid = { seed = [0, 1] }
tune = { mode = ["diverges", "good"] }
parameters = { share = 0.5 }
[[runs]]
notebook = "one"
name = "hopeless"
tune = { mode = ["diverges"] }
"""
    batch, errors = run(study(content), tmp_path, Processes(2))
    assert errors == {"hopeless": "not started: every mode that was tried diverged"}
    assert {batch.parameters(r)["mode"] for r in batch.runs if r.trials and r.name != "hopeless"} == {"good"}
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    assert table["diverged"].eq(True).sum() == 3 and table["counts"].sum() == 2
    again, errors = run(study(content), tmp_path)
    assert list(errors) == ["hopeless"] and len(again.missing()) == 1  # the trials are not done again


ELSEWHERE = """
[[runs]]
notebook = "one"
grid = { method = ["lora", "full"], seed = [0, 1] }
tune = { share = [0.25, 0.75] }
[[runs]]
notebook = "one"
grid = { task = ["quora"], method = ["full"], seed = [0, 1] }
tune = { share = "sst" }
"""


def test_a_rate_may_come_from_the_trials_on_another_task(study, tmp_path):
    with pytest.raises(ValueError, match="no earlier group tries values of share on that task"):
        plan(study(ELSEWHERE.replace('"sst"', '"cfimdb"')))
    path = study(ELSEWHERE.replace("[[runs]]", '[[runs]]\nparameters = { task = "sst" }', 1))
    trials = [run for run in plan(path) if run.parameters["method"] == "full" and run.part == "trials"]
    batch, errors = run(path, tmp_path)
    assert not errors and len(batch.runs) == 8 + 2
    assert all(run.needs == {trial.name for trial in trials} for run in batch.runs[-2:])
    assert [batch.parameters(run)["share"] for run in batch.runs[-2:]] == [0.75, 0.75]


def test_failures_are_named_and_stop_nobody_but_those_who_need_them(study, tmp_path):
    path = study("""
[[runs]]
notebook = "one"
name = "first"
parameters = { mode = "bad" }
[[runs]]
notebook = "one"
name = "dependent"
parameters = { base = "run:first/model" }
[[runs]]
notebook = "one"
name = "leaves"
parameters = { mode = "exit" }
[[runs]]
notebook = "one"
name = "healthy"
""")
    batch, errors = run(path, tmp_path, Processes(2))
    assert set(errors) == {"first", "dependent", "leaves"} and batch.done("healthy")
    assert "this run was meant to fail" in errors["first"]
    assert errors["dependent"] == "not started: it needs first"
    assert "without writing result.json" in errors["leaves"]
    assert not (batch.folder / "first").exists()  # nothing that looks like a run
    assert (batch.folder / ".work" / "first" / "notebook.ipynb").is_file()  # the failed notebook is kept


def test_a_run_reads_what_another_one_wrote(study, tmp_path):
    path = study("""
[[runs]]
notebook = "one"
name = "second"
parameters = { base = "run:first/model" }
[[runs]]
notebook = "one"
name = "first"
""")
    batch, errors = run(path, tmp_path)
    assert not errors
    parameters = json.loads((batch.folder / "second" / "result.json").read_text())["parameters"]
    assert parameters["base"] == "run:first/model" and parameters["number"] == 1  # defaults are recorded


def test_a_run_is_done_again_when_the_one_that_it_reads_was(study, tmp_path):
    def content(number):
        return f"""
[[runs]]
notebook = "one"
name = "first"
parameters = {{ number = {number} }}
[[runs]]
notebook = "one"
name = "second"
parameters = {{ base = "run:first/model" }}
"""

    batch, _ = run(study(content(1)), tmp_path)
    assert all(map(batch.done, batch.runs)) and not batch.missing()
    again = Study(study(content(7)), tmp_path / "runs")
    assert [r.name for r in again.missing()] == ["first", "second"]
    again, errors = run(study(content(7)), tmp_path)
    assert not errors and not again.missing()


def test_runs_on_different_data_are_not_collected_as_one(study, tmp_path):
    batch, _ = run(study(GRID), tmp_path)
    for part, data in zip(batch.runs, "abaa", strict=True):
        path = batch.folder / part.name / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data_hash": data, "source": "real"}))
    with pytest.raises(ValueError, match=f"{batch.runs[0].name} and {batch.runs[1].name} were made on different data"):
        batch.collect(tmp_path / "results")
    assert len(pd.read_csv(batch.collect(tmp_path / "results", force=True))) == 4


def test_collecting_names_what_is_damaged(study, tmp_path, monkeypatch, capsys):
    batch, _ = run(study(GRID), tmp_path)
    spoil(batch.folder / batch.runs[0].name, "result is cut")
    options = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--collect"]
    monkeypatch.setattr(sys, "argv", ["gpt2lib", "study", str(study(GRID)), *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1 and batch.runs[0].name in capsys.readouterr().err


def test_a_killed_study_goes_on_and_two_at_once_are_refused(study, tmp_path):
    path = study('[[runs]]\nnotebook = "one"\nname = "slow"\nparameters = { mode = "slow" }\n')
    command = [sys.executable, "-m", "gpt2lib.cli", "study", str(path), "--runs", str(tmp_path / "runs")]
    command += ["--results", str(tmp_path / "results")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    begun = tmp_path / "runs" / "trial" / ".work" / "slow" / "count.txt"
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    second = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert second.returncode == 2 and "in use by another process" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    assert not (tmp_path / "runs" / "trial" / "slow").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "trial" / "slow" / "result.json").is_file()
    assert (tmp_path / "runs" / "trial" / "slow" / "count.txt").read_text() == "xx"  # the same working folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"no \[\[runs\]\]"),
        ("[[runs]\n", "trial.toml"),
        ("[run]\n", "unknown table"),
        ('[[runs]]\nnotebook = "two"\n', "no notebook"),
        ("[[runs]]\ntask = 1\n", "give notebook"),
        ('[[runs]]\nnotebook = "one"\nparameters = { numbr = 1 }\n', "no parameter 'numbr'; it has"),
        ('[[runs]]\nnotebook = "one"\nparameters = { number = "1" }\n', "number = '1' is not a int"),
        ('[[runs]]\nnotebook = "one"\nparameters = { number = true }\n', "is not a int"),
        ('[[runs]]\nnotebook = "one"\nparameters = { names = "a" }\n', "is not a list"),
        ('[[runs]]\nnotebook = "one"\nparameters = { out = "x" }\n', "no parameter 'out'"),
        ('[[runs]]\nnotebook = "one"\ngrid = { number = [] }\n', "must be a list"),
        ('[[runs]]\nnotebook = "one"\ngrid = { number = [1, 1] }\n', "two runs are the same"),
        ('[[runs]]\nnotebook = "one"\nparameters = { base = "run:x/y" }\n', "needs a run named"),
        ("runs = 5\n", r"runs must be written as \[\[runs\]\]"),
        ("runs = [5]\n", r"runs must be written as"),
        ('defaults = 5\n[[runs]]\nnotebook = "one"\n', "defaults must be a table, not 5"),
        ("[[runs]]\nnotebook = 5\n", "notebook must be a text, not 5"),
        ('[[runs]]\nnotebook = "../notebooks/one"\n', "notebook must be a plain name"),
        ('[[runs]]\nnotebook = "one"\nname = "sub/dir"\n', "name must be a plain name of letters"),
        ('[[runs]]\nnotebook = "one"\nname = "."\n', "name must be a plain name"),
        ('[[runs]]\nnotebook = "one"\nname = "../../../evil"\n', "name must be a plain name"),
        ('[[runs]]\nnotebook = "one"\nname = 5\n', "name must be a text, not 5"),
        ('[[runs]]\nnotebook = "one"\npart = 5\n', "part must be a text, not 5"),
        ('[[runs]]\nnotebook = "one"\npart = "trials"\n', "part 'trials' is for the trials of tune"),
        ('[[runs]]\nnotebook = "one"\nparameters = 5\n', "parameters must be a table, not 5"),
        ('[[runs]]\nnotebook = "one"\ngrid = []\n', "grid must be a table"),
        ('[[runs]]\nnotebook = "one"\ngrid = { seed = 5 }\n', "grid.seed must be a list"),
        ('[[runs]]\nnotebook = "one"\ntune = 5\n', "tune must be a table, not 5"),
        ('[[runs]]\nnotebook = "one"\ntune = { share = 5 }\n', "tune.share must be a list"),
        ('[[runs]]\nnotebook = "one"\ntune = { seed = [1, 2] }\n', r"\['seed'\] cannot be tuned"),
        ('[[runs]]\nnotebook = "one"\ntune = { share = [0.5], number = [1] }\n', "tune takes one parameter"),
        ('tune_beyond = -1\n[[runs]]\nnotebook = "one"\n', "tune_beyond must be an integer of at least 0, not -1"),
        ('[[runs]]\nnotebook = "one"\ntune_seeds = [1]\n', "tune_seeds and trial_parameters are for the trials"),
        ('[[runs]]\nnotebook = "one"\ntune = { share = [0.5] }\ntune_seeds = [1, 1]\n', "must be different seeds"),
        ('[[runs]]\nnotebook = "one"\ntune = { share = [0.5] }\ntune_seeds = ["a"]\n', "seed = 'a' is not a int"),
        (
            '[[runs]]\nnotebook = "one"\nparameters = { names = [1979-05-27] }\n',
            "holds what is no text or finite number",
        ),
        ('[[runs]]\nnotebook = "one"\nparameters = { share = nan }\n', "share = nan holds what is no text or finite"),
        (b'[[runs]]\nnotebook = "caf\xe9"\n', "trial.toml: "),
        ("a = " + "[" * 5000, "trial.toml: "),
        (
            '[[runs]]\nnotebook = "one"\nname = "a"\nparameters = { base = "run:b" }\n'
            '[[runs]]\nnotebook = "one"\nname = "b"\nparameters = { base = "run:a" }\n',
            "these runs need each other, and none can be the first: a, b",
        ),
        ('[defaults]\nlr = 1.0\n[[runs]]\nnotebook = "one"\n', "no notebook of this study has the parameter"),
    ],
)
def test_a_malformed_study_is_refused_before_anything_starts(study, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        plan(study(content))
    assert "\n" not in str(raised.value) and "trial.toml" in str(raised.value)


def test_a_study_may_be_given_from_its_own_folder(study, monkeypatch):
    path = study(GRID)
    monkeypatch.chdir(path.parent)
    assert [run.name for run in plan("trial.toml")] == [run.name for run in plan(path)]


@pytest.mark.parametrize("name", ["one-history", "trial-test", "a b", "-x"])
def test_a_study_whose_tables_could_be_anothers_is_refused(study, name):
    path = study(GRID)
    with pytest.raises(ValueError, match=r"a table of another study|must be a plain name"):
        plan(path.rename(path.with_name(f"{name}.toml")))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("number = 1 + 1", "its parameter number must be given a plain value"),
        ("number: dict = {}", "its parameter number is a dict; possible: str"),
        (None, r"one\.ipynb: no notebook that can be read"),
        ('number = 3\nshare: "float" = 1\nout: str = ""', ""),  # hints may be missing
    ],
)
def test_a_notebook_says_what_is_wrong_with_its_parameters(study, tmp_path, cell, message):
    path = study('[[runs]]\nnotebook = "one"\nparameters = { number = 4 }\n')
    notebook = tmp_path / "notebooks" / "one.ipynb"
    cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "outputs": [], "execution_count": None}]
    about = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    content = {"cells": [cells[0] | {"source": cell}], "nbformat": 4}
    notebook.write_text("{" if cell is None else json.dumps(content | {"metadata": about, "nbformat_minor": 4}))
    notebook_parameters.cache_clear()
    if message:
        with pytest.raises(ValueError, match=message):
            plan(path)
    else:
        assert plan(path)[0].parameters == {"number": 4}


def spoil(folder, how):
    if how == "result is a list":
        (folder / "result.json").write_text("[]")
    elif how == "result is empty":
        (folder / "result.json").write_text("")
    elif how == "result is cut":
        (folder / "result.json").write_text('{"study": "trial", "run"')
    elif how == "no result":
        (folder / "result.json").unlink()
    elif how == "adapter":
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter.json").write_text("null")


@pytest.mark.parametrize("how", ["result is a list", "result is empty", "result is cut", "no result", "adapter"])
def test_a_damaged_record_is_named_and_stops_no_other(study, tmp_path, how):
    batch, _ = run(study(GRID), tmp_path)
    first, *others = batch.runs
    spoil(batch.folder / first.name, how)
    shutil.rmtree(batch.folder / others[0].name)
    again, errors = run(study(GRID), tmp_path)
    assert list(errors) == [first.name] and "move" in errors[first.name] and first.name in errors[first.name]
    assert not again.done(first) and all(map(again.done, others))
    assert len(pd.read_csv(again.collect(tmp_path / "results"))) == 3


def test_a_folder_in_the_way_is_said_before_anything_is_trained(study, tmp_path):
    batch = Study(study(GRID), tmp_path / "runs")
    taken = batch.folder / batch.runs[0].name
    taken.mkdir(parents=True)
    (taken / "mine.txt").touch()
    errors = batch.run(Inline(), lambda line: None)
    assert errors == {batch.runs[0].name: f"{taken} exists but holds no result.json; move it away"}
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]
    assert not (batch.folder / ".work" / batch.runs[0].name).exists()


def test_a_folder_that_appears_meanwhile_loses_no_work(study, tmp_path):
    batch = Study(study('[[runs]]\nnotebook = "one"\nname = "it"\n'), tmp_path / "runs")

    class Taken(Inline):
        def start(self, command, work):
            (work / "checkpoint.pt").touch()
            (batch.folder / "it").mkdir()
            return super().start(command, work)

    errors = batch.run(Taken(), lambda line: None)
    assert "made meanwhile by somebody else" in errors["it"]
    assert {"checkpoint.pt", "result.json"} <= {path.name for path in (batch.folder / ".work" / "it").iterdir()}
    (batch.folder / "it").rmdir()
    assert not batch.run(Inline(), lambda line: None) and not (batch.folder / "it" / "checkpoint.pt").exists()


class Broken(Inline):
    """Leaves what a notebook should not."""

    def __init__(self, result, log=b"", code=0):
        self.result, self.log, self.code = result, log, code

    def start(self, command, work):
        if self.result is None:
            raise OSError(28, "No space left on device")
        super().start(command, work)
        (work / "result.json").write_text(self.result)
        (work / "log.txt").write_bytes(self.log)
        return self

    def poll(self):
        return self.code


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Broken("[]"), "result.json is no record"),
        (Broken(""), "result.json is no record"),
        (Broken('{"metrics": {}}'), "result.json is no record"),
        (Broken("{}", b"caf\xe9 is closed\n", code=1), "is closed"),
        (Broken(None), "could not be started: .*No space left"),
    ],
)
def test_what_a_notebook_leaves_may_be_anything(study, tmp_path, engine, message):
    batch, errors = run(study('[[runs]]\nnotebook = "one"\nname = "it"\n'), tmp_path, engine)
    assert list(errors) == ["it"] and re.search(message, errors["it"]) and not (batch.folder / "it").exists()


def test_the_studies_that_come_with_the_project_can_be_planned_and_their_budgets_met():
    sized = set()
    for path in sorted((REPOSITORY / "notebooks" / "studies").glob("*.toml")):
        runs = plan(path)
        if path.stem in ("demo", "mini", "paper"):
            assert {"sst", "cfimdb", "quora", "sonnets"} <= {run.parameters.get("task") for run in runs}
        for one in runs:
            given = default_values(one.notebook) | one.parameters
            asked = {key: given[key] for key in ("method", "budget", "targets", "layers", "settings") if key in given}
            base = str(given.get("base_model")).removeprefix("untrained:")
            if not given.get("budget") or (key := json.dumps([base, given.get("depth"), asked])) in sized:
                continue
            sized.add(key)
            shape = LlamaConfig() if base == "smollm2-135m" else shape_of(base)
            method_of(asked, replace(shape, n_layer=given.get("depth") or shape.n_layer))
    assert len(sized) > 90


def test_help_names_the_commands_and_says_what_each_does():
    done = subprocess.run([sys.executable, "-m", "gpt2lib.cli", "--help"], capture_output=True, text=True, check=True)
    listed = [line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert {command for command, _ in listed} == set(cli.cli.commands) >= {"study", "report", "data", "score"}
    assert all(len(about.split()) > 3 for _, about in listed)


def test_a_plan_says_what_runs_will_cost(capsys, monkeypatch):
    runs = plan(REPOSITORY / "notebooks" / "studies" / "demo.toml")
    by_method = {run.parameters["method"]: estimate(run) for run in runs if run.parameters.get("task") == "sst"}
    full, lora, last = (by_method[name] for name in ("full", "lora", "last-linear"))
    assert full.trained > 30 * lora.trained > last.trained == 5 * (256 + 1)
    assert full.flops > lora.flops > last.flops and full.memory > lora.memory > last.memory
    one = next(run for run in runs if run.parameters.get("task") == "sst" and run.parameters["method"] == "lora")
    smollm2 = {  # its shape is known without its weights; what is frozen below the adapter runs once
        name: estimate(replace(one, parameters=one.parameters | {"base_model": "smollm2-135m", "epochs": 10} | more))
        for name, more in {"all": {}, "top": {"layers": [24, 30]}, "middle": {"layers": [14, 20], "depth": 20}}.items()
    }
    assert smollm2["all"].flops > 3 * smollm2["top"].flops > 3 * smollm2["middle"].flops
    assert smollm2["all"].memory > smollm2["top"].memory > smollm2["middle"].memory
    arguments = ["gpt2lib", "study", str(REPOSITORY / "notebooks" / "studies" / "demo.toml"), "--plan", "--tflops", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(runs) + 2 and "hours" in said[-1]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_trained_parameters_are_counted_without_building_the_model(family, layers):
    for name, method in METHODS.items():
        own = {"layers": layers} if "layers" in method.settings else {}
        spec, model = method_named(name, **own), FAMILIES[family](n_layer=4)
        spec.apply(model)
        assert trained_count(spec, model.config) == sum(p.numel() for p in model.parameters() if p.requires_grad), name


def test_what_is_not_trained_through_runs_once():
    def flops(**parameters):
        given = {"source": "toy-few", "method": "lora", "base_model": "gpt2-mini"} | parameters
        return estimate(Run("", REPOSITORY / "notebooks" / "07_sentiment.ipynb", given)).flops

    one, more = (flops(epochs=epochs, method="last-linear") for epochs in (1, 9))
    assert one == more  # the whole body, once
    whole, upper, cut = flops(epochs=9), flops(epochs=9, layers=[2, 3]), flops(epochs=9, layers=[2, 3], depth=3)
    assert cut < 0.8 * upper and upper < 0.8 * whole


def test_a_rehearsal_of_nothing_is_refused_and_a_hubs_name_is_none(study):
    content = """
[[runs]]
notebook = "07_sentiment"
grid = { base_model = ["openai-community/gpt2", "untrained:gpt2"], method = ["full"] }
"""
    path = study(content)
    for notebook in ("07_sentiment", "16_alpha_in_gpt2"):
        shutil.copy(REPOSITORY / "notebooks" / f"{notebook}.ipynb", path.parent.parent)
    names = [run.name for run in rehearsal(plan(path))]
    assert len(names) == 2 and not any("/" in name or ":" in name for name in names)
    with pytest.raises(ValueError, match="there is nothing to rehearse"):
        rehearsal(plan(study('[[runs]]\nnotebook = "16_alpha_in_gpt2"\n')))


def test_a_rehearsal_ends_with_a_record(study, tmp_path):
    """Two updates leave a model that knows nothing, on a handful of examples: no check may stop the notebook."""
    path = study('[[runs]]\nnotebook = "07_sentiment"\nparameters = { method = "last-linear" }\n')
    shutil.copy(REPOSITORY / "notebooks" / "07_sentiment.ipynb", path.parent.parent)
    batch = Study(path, tmp_path / "runs", rehearse=True)
    assert not batch.run(Processes(1), print) and all(map(batch.done, batch.runs))


def test_a_rehearsal_has_every_kind_of_run_once():
    runs = plan(REPOSITORY / "notebooks" / "studies" / "paper.toml")
    short = rehearsal(runs)
    own = [r for r in runs if not r.parameters["task"].startswith("glue/")]
    finals = [r for r in own if not r.parameters.get("trial")]
    kinds = {(r.notebook, r.parameters["method"], r.parameters["base_model"]) for r in finals}
    assert len(short) == len(kinds) + len({r.notebook for r in own}) == len({r.name for r in short})
    assert all(r.parameters["max_steps"] == 2 and r.parameters["source"] == "toy-few" for r in short)
    assert all(r.parameters["base_model"].startswith("untrained:gpt2") for r in short)
