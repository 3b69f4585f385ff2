"""A run's folder: whole, in the course's formats, and true to the model that wrote it."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types

import pandas as pd
import pytest
import torch
from conftest import random_model
from safetensors.torch import load_file
from test_training import launched

from gpt2lib import adapters
from gpt2lib.adapters import LoRA
from gpt2lib.common import machine
from gpt2lib.common.whole import write_tensors
from gpt2lib.data import COURSE_TASKS, load_task, pretraining, read_sonnets
from gpt2lib.study.record import write_run, write_tables
from gpt2lib.tasks import Encoder, prepare, read_submission, sonnet_prompt
from gpt2lib.training import TrainingSettings, evaluate, fit


@pytest.mark.parametrize("task", COURSE_TASKS)
@pytest.mark.parametrize("method", ["last-linear", "full", LoRA(rank=2)], ids=["last-linear", "full", "lora"])
def test_a_run_leaves_a_whole_record(task, method, tmp_path):
    data = load_task(task, "toy", quiet=True)
    texts = [text for part in pretraining.corpus("toy").values() for text in part]
    tokenizer = pretraining.train_tokenizer(texts, 300, tmp_path / "tokenizer")
    model = prepare(data, random_model(vocab_size=300, n_positions=384), tokenizer, method)
    encoder = Encoder(task, tokenizer, 384)
    settings = TrainingSettings(epochs=1, max_steps=2, batch_size=4)
    dev = encoder(data.dev, score_from_prompt=True)
    progress = fit(model, encoder(data.train), dev, settings, quiet=True)
    metrics, predictions = evaluate(model, dev)
    out = tmp_path / "out"
    completed = [sonnet_prompt(e)[0] + "a line\n" * 11 for e in data.test] if task == "sonnets" else None
    name = method.method if isinstance(method, LoRA) else method
    files = {"sonnets.json": [], "floors.json": {}}
    floor = [0] * len(data.dev)
    given = (out, data, model, encoder, progress, settings, metrics, predictions, "tiny", name, completed, files)
    write_run(*given, floor=floor)

    result = json.loads((out / "result.json").read_text())
    assert result["metrics"] == metrics and result["source"] == "toy" and result["base_model"] == "tiny"
    assert result["selection"] == pytest.approx(metrics, rel=1e-5)  # of the same examples, in batches of another size
    assert result["steps"] == 2 and result["seconds"] > 0 and result["peak_memory_mb"] > 100
    body = random_model(vocab_size=300, n_positions=384)
    assert result["base_params"] == sum(p.numel() for p in body.parameters())
    assert result["trained_params"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert result["trained_params_head"] <= result["trained_params"]

    examples = pd.read_csv(out / "examples.csv", dtype={"id": str})
    assert examples["id"].tolist() == [e.id for e in data.dev]
    if task == "sonnets":
        assert [e.id for e in read_sonnets(out / "test-sonnets.txt")] == [e.id for e in data.test]
        assert examples["loss"].tolist() == pytest.approx(predictions, rel=1e-4)
        assert examples["loss_before"].tolist() == floor
    else:
        assert examples["correct"].mean() == pytest.approx(metrics["accuracy"])
        assert examples["bag_of_words_correct"].tolist() == [e.label == 0 for e in data.dev]
        rows = (out / "test-predictions.csv").read_text().splitlines()[1:]
        assert [row.split(", ")[0] for row in rows] == [e.id for e in data.test]  # test examples have no labels
        read = read_submission(out / "dev-predictions.csv", task)
        assert read["id"].tolist() == [e.id for e in data.dev]
        assert read["label"].tolist() == [predicted for predicted, _ in predictions]  # the course's numbers undone
        assert len((out / "dev-predictions.csv").read_text().splitlines()) == 1 + len(data.dev)

    if isinstance(method, LoRA):  # the saved adapter and head are the trained model
        adapters.load(body, out / "adapter")
        again = type(model)(body, model.head) if data.class_names else type(model)(body)
        assert evaluate(again, dev)[0] == pytest.approx(metrics)
    if (out / "head.safetensors").is_file():
        head = load_file(out / "head.safetensors")
        assert all(torch.equal(head[key], model.state_dict()[key]) for key in head)
        assert sum(p.numel() for p in head.values()) == result["trained_params_head"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run("", None, None, None, None, None, {}, [], "", "")
    assert not list(tmp_path.iterdir())


PROCESSES = """
import sys
sys.path.insert(0, sys.argv[1])
import pandas as pd
from conftest import random_model
from gpt2lib.data import load_task
from gpt2lib.model.base import load_tokenizer
from gpt2lib.study.record import write_pretraining, write_run, write_tables
from gpt2lib.tasks import Encoder, prepare
from gpt2lib.common.machine import processes
from gpt2lib.training import TrainingSettings, evaluate, fit

data, tokenizer = load_task("sst", "toy-few", quiet=True), load_tokenizer("gpt2-mini")
model = prepare(data, random_model(vocab_size=len(tokenizer), n_positions=64), tokenizer, "last-linear")
encoder = Encoder("sst", tokenizer, 64)
dev, settings = encoder(data.dev), TrainingSettings(epochs=1, batch_size=4, max_steps=2)
evaluate(model, dev)  # an early look at the processes
out = f"{sys.argv[2]}/{processes().process_index}"  # so that two that write are seen
progress = fit(model, encoder(data.train), dev, settings, quiet=True)
metrics, predictions = evaluate(model, dev)
write_run(f"{out}-run", data, model, encoder, progress, settings, metrics, predictions, "tiny", "last-linear")
write_tables(f"{out}-tables", {"one": pd.DataFrame({"a": [1]})}, {})
if processes().is_main_process:
    __import__("os").mkdir(f"{out}-pretraining")
write_pretraining(f"{out}-pretraining", model, progress, settings, metrics, "tiny", "toy", [])
"""


def test_of_two_processes_one_writes(tmp_path):
    (tmp_path / "script.py").write_text(PROCESSES)
    tests = os.path.dirname(__file__)
    assert launched([sys.executable, str(tmp_path / "script.py"), tests, str(tmp_path)], processes=2) == [0, 0]
    written = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("result.json"))
    assert written == ["0-pretraining", "0-run", "0-tables"]
    assert not any(path.name.startswith("1") for path in tmp_path.iterdir())
    data = load_task("sst", "toy-few", quiet=True)
    assert read_submission(tmp_path / "0-run" / "test-predictions.csv", "sst")["id"].tolist() == [
        e.id for e in data.test
    ]


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "two-rows"])
def test_a_tables_name_is_a_plain_one(tmp_path, name):
    with pytest.raises(ValueError, match="a table's name must be"):
        write_tables(tmp_path / "run", {name: pd.DataFrame()}, {})
    assert not list(tmp_path.iterdir())


def revision_in(root):
    """What the record says of code in that folder."""
    module = root / "gpt2lib" / "common" / "machine.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(machine.__file__, module)
    specification = importlib.util.spec_from_file_location("copied", module)
    copied = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(copied)
    record = copied.environment()
    return record["revision"], record["revision_clean"]


def test_the_revision_is_that_of_the_code_itself(tmp_path, monkeypatch):
    """Not that of a repository around it; and where git is not installed, a run's record is written all the same."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "of another project"]):
        subprocess.run(git + arguments, check=True)
    inside = tmp_path / "environment" / "site-packages"
    assert revision_in(inside)[0].startswith("version ") and revision_in(inside)[1] is None
    revision, clean = revision_in(tmp_path)
    other = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    assert revision == other.stdout.strip() and clean is False
    monkeypatch.setenv("PATH", "")
    assert revision_in(tmp_path)[0].startswith("version ") and machine.environment()["revision_clean"] is None


def test_weight_files_are_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
        os.umask(0o077)
        write_tensors(tmp_path / "b.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.safetensors", "b.safetensors")] == [0o644, 0o600]


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_megabytes_everywhere(monkeypatch, system, unit):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(machine.sys, "platform", system)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(resource, "getrusage", lambda who: types.SimpleNamespace(ru_maxrss=2_000_000_000 // unit))
    assert machine.peak_memory_mb() == pytest.approx(2000, rel=1e-3)
