"""Several tasks on one body: routing, shares, and agreement with each task alone."""

import math
from collections import Counter

import pytest
import torch
from conftest import random_model

from gpt2lib.adapters import LoRA, attach
from gpt2lib.data import Batch, Encoded
from gpt2lib.tasks.multitask import MultiTask, labelled_by_task, mixture
from gpt2lib.training import TrainingSettings, evaluate, fit
from gpt2lib.training.objectives import Classifier, LanguageModel, LinearHead


def examples(count, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = [
        torch.randint(0, 61, (int(n),), generator=generator)
        for n in torch.randint(4, 14, (count,), generator=generator)
    ]
    return [Encoded(row.tolist(), int(row[0]) % classes if classes else None) for row in rows]


@pytest.fixture
def parts():
    return labelled_by_task([examples(30, 2, 0), examples(10, 3, 1), examples(20, 0, 2)])


@pytest.fixture
def model():
    body = random_model()
    attach(body, LoRA())
    tasks = {"two": Classifier(body, LinearHead(32, 2)), "three": Classifier(body, LinearHead(32, 3))}
    return MultiTask(tasks | {"text": LanguageModel(body)}).eval()


def test_every_task_gets_what_it_gets_alone(model, parts):
    mixed = [example for part in parts for example in part[:7]]
    metrics, predictions = evaluate(model, mixed)
    for i, (name, task) in enumerate(zip(model.names, model.tasks, strict=True)):
        alone, own = evaluate(task, parts[i][:7])
        assert metrics[f"{name}_loss"] == pytest.approx(alone["loss"], rel=1e-4)
        flat = [p if isinstance(p, float) else p[1] for p in predictions[7 * i : 7 * i + 7]]
        assert flat == pytest.approx([p if isinstance(p, float) else p[1] for p in own], rel=1e-4)
    assert metrics["loss"] == pytest.approx(sum(metrics[f"{name}_loss"] for name in model.names) / 3)


def test_every_example_counts_the_same(model, parts):
    mixed = [example for part in parts for example in part[:5]]
    with torch.no_grad():
        together = model(Batch.of(mixed))
        apart = sum(model(Batch.of([example])) for example in mixed)
        text = parts[2][0]
        assert model(Batch.of([text])) == pytest.approx(float(model.tasks[2](Batch.of([text]))) / (len(text.ids) - 1))
    assert together == pytest.approx(float(apart), rel=1e-5)


def test_it_trains_all_heads_and_one_adapter(model, parts):
    before = {name: p.clone() for name, p in model.named_parameters()}
    fit(model, mixture(parts, 2.0), [part[0] for part in parts], TrainingSettings(epochs=1, batch_size=8), quiet=True)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in changed if ".head." in name} == {
        f"tasks.{i}.head.{p}" for i in (0, 1) for p in ("weight", "bias")
    }
    assert all(".A" in name or ".B" in name or ".head." in name for name in changed) and len(changed) == 4 + 8


def test_shares_follow_the_temperature(parts):
    def shares(**settings):
        return [Counter(e.task for e in mixture(parts, **settings))[i] for i in range(3)]

    assert shares() == [30, 10, 20]
    assert shares(temperature=math.inf) == [20, 20, 20]
    roots = [math.sqrt(n) for n in (30, 10, 20)]
    assert shares(temperature=2, total=600) == [round(600 * root / sum(roots)) for root in roots]
    repeated = Counter(map(id, (e for e in mixture(parts, math.inf) if e.task == 1)))
    assert set(repeated.values()) == {2}  # the small task, twice each
    assert mixture(parts, 2, seed=1) == mixture(parts, 2, seed=1) != mixture(parts, 2, seed=2)


def test_refusals(parts):
    with pytest.raises(ValueError, match="temperature must be at least 1"):
        mixture(parts, 0.5)
    with pytest.raises(ValueError, match="at least one example"):
        mixture([parts[0], []])
    with pytest.raises(ValueError, match="share one body"):
        MultiTask({"a": LanguageModel(random_model()), "b": LanguageModel(random_model())})
