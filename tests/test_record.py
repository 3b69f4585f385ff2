"""A run's folder: whole, in the course's formats, and true to the model that wrote it."""

import json

import pandas as pd
import pytest
import torch
from conftest import random_model
from safetensors.torch import load_file

from gpt2lib import adapters
from gpt2lib.adapters import LoRA
from gpt2lib.data import TASKS, load_task, pretraining, read_sonnets
from gpt2lib.study.record import write_run
from gpt2lib.tasks.prepare import Encoder, prepare, read_submission, sonnet_prompt
from gpt2lib.training import TrainingSettings, evaluate, fit


@pytest.mark.parametrize("task", TASKS)
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
    write_run(out, data, model, encoder, progress, settings, metrics, predictions, "tiny", name, completed, files)

    result = json.loads((out / "result.json").read_text())
    assert result["metrics"] == metrics and result["source"] == "toy" and result["base_model"] == "tiny"
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
    else:
        assert examples["correct"].mean() == pytest.approx(metrics["accuracy"])
        rows = (out / "test-predictions.csv").read_text().splitlines()[1:]
        assert [row.split(", ")[0] for row in rows] == [e.id for e in data.test]  # test examples have no labels
        read = read_submission(out / "dev-predictions.csv")
        assert read["id"].tolist() == [e.id for e in data.dev]
        assert read["label"].tolist() == [predicted for predicted, _ in predictions]  # the course's numbers undone
        assert len((out / "dev-predictions.csv").read_text().splitlines()) == 1 + len(data.dev)

    if isinstance(method, LoRA):  # the saved adapter and head are the trained model
        adapters.load(body, out / "adapter")
        again = type(model)(body, model.head) if data.classes else type(model)(body)
        assert evaluate(again, dev)[0] == pytest.approx(metrics)
    if (out / "head.safetensors").is_file():
        head = load_file(out / "head.safetensors")
        assert all(torch.equal(head[key], model.state_dict()[key]) for key in head)
        assert sum(p.numel() for p in head.values()) == result["trained_params_head"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run("", None, None, None, None, None, {}, [], "", "")
    assert not list(tmp_path.iterdir())
