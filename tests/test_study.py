"""Studies: planned and refused before anything starts; each run whole or not at all; again means nothing."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import run

from gpt2lib import cli
from gpt2lib.study.engines import Processes
from gpt2lib.study.plan import plan, rehearsal

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

    import shutil

    missing, sonnets = (tmp_path / "results" / name for name in ("trial-missing.csv", "trial-sonnets.json"))
    assert not missing.exists()
    table, other = (tmp_path / "results" / name for name in ("trial-multitask.parquet", "trial-two-rows.parquet"))
    for left in (sonnets, table, other):
        left.write_text("{}")  # of an earlier collection, when there were sonnets; of a study called trial-two
    shutil.rmtree(tmp_path / "runs" / "trial" / batch.runs[0].name)  # a deleted run is missed, and done again, alone
    batch.collect(tmp_path / "results")
    assert list(pd.read_csv(missing)["run"]) == [batch.runs[0].name]
    assert not sonnets.exists() and not table.exists() and other.exists()
    run(path, tmp_path)
    counts = [(tmp_path / "runs" / "trial" / r.name / "count.txt").read_text() for r in batch.runs]
    assert counts == ["x"] * 4


def test_a_small_number_stays_a_number(study, tmp_path):
    batch, errors = run(study('[[runs]]\nnotebook = "one"\ngrid = { share = [1e-5, 1e3] }\n'), tmp_path)
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    assert not errors and sorted(table["accuracy"]) == [1e-5, 1e3]


TUNED = """
[[runs]]
notebook = "one"
part = "glue"
grid = { mode = ["good", "fine"], seed = [0, 1, 2] }
tune = { share = [0.25, 0.75, 0.5] }
"""


def test_the_first_seed_tries_and_the_others_take_the_best(study, tmp_path):
    batch, errors = run(study(TUNED), tmp_path)
    table = pd.read_csv(batch.collect(tmp_path / "results"))
    assert not errors and len(table) == 2 * (3 + 2) and set(table["part"]) == {"glue"}
    counted = table[table["counts"]]
    assert len(counted) == 6 and set(counted["seed"]) == {0, 1, 2}
    assert set((counted["accuracy"] + counted["seed"] / 100).round(6)) == {0.75}
    assert len(pd.read_csv(tmp_path / "results" / "trial-history.csv")) == 6  # curves of the runs that count


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
    trials = [run for run in plan(path) if run.parameters["method"] == "full" and run.name in run.trials]
    batch, errors = run(path, tmp_path)
    assert not errors and len(batch.runs) == 6 + 2
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
        ('[defaults]\nlr = 1.0\n[[runs]]\nnotebook = "one"\n', "no notebook of this study has the parameter"),
    ],
)
def test_a_malformed_study_is_refused_before_anything_starts(study, content, message):
    with pytest.raises(ValueError, match=message):
        plan(study(content))


def test_the_studies_that_come_with_the_project_can_be_planned():
    from conftest import REPOSITORY

    for name in ("demo", "mini", "paper"):
        runs = plan(REPOSITORY / "notebooks" / "studies" / f"{name}.toml")
        assert len(runs) == len({run.name for run in runs})
        tasks = {run.parameters.get("task") for run in runs}
        assert {"sst", "cfimdb", "quora", "sonnets"} <= tasks


def test_help_names_the_commands_and_says_what_each_does():
    done = subprocess.run([sys.executable, "-m", "gpt2lib.cli", "--help"], capture_output=True, text=True, check=True)
    listed = [line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert {command for command, _ in listed} == set(cli.cli.commands) >= {"study", "report", "data", "score"}
    assert all(len(about.split()) > 3 for _, about in listed)


def test_a_plan_says_what_runs_will_cost(capsys, monkeypatch):
    from conftest import REPOSITORY

    from gpt2lib.study.cost import estimate

    runs = plan(REPOSITORY / "notebooks" / "studies" / "demo.toml")
    by_method = {run.parameters["method"]: estimate(run) for run in runs if run.parameters.get("task") == "sst"}
    full, lora, last = (by_method[name] for name in ("full", "lora", "last-linear"))
    assert full.trained > 30 * lora.trained > 0 == last.trained
    assert full.flops > lora.flops > last.flops and full.memory > lora.memory > last.memory
    arguments = ["gpt2lib", "study", str(REPOSITORY / "notebooks" / "studies" / "demo.toml"), "--plan", "--tflops", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(runs) + 2 and "hours" in said[-1]


def test_a_rehearsal_has_every_kind_of_run_once():
    from conftest import REPOSITORY

    runs = plan(REPOSITORY / "notebooks" / "studies" / "paper.toml")
    short = rehearsal(runs)
    own = [r for r in runs if not r.parameters["task"].startswith("glue/")]
    assert len(short) == len({(r.notebook, r.parameters["method"], r.parameters["base_model"]) for r in own})
    assert all(r.parameters["max_steps"] == 2 and r.parameters["source"] == "toy-few" for r in short)
    assert all(r.parameters["base_model"].startswith("untrained:gpt2") for r in short)
