"""The training loop: seeds, resuming after a kill at any moment, accumulation, several processes, and refusals."""

import functools
import itertools
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict

import pytest
import torch
from conftest import random_model

from gpt2lib.adapters import AlphaLoRA, GraphLoRA, Hook, KANLoRA, KronA, KronAB, LoRA, attach
from gpt2lib.data import Batch, Encoded
from gpt2lib.tasks.multitask import MultiTask, labelled_by_task
from gpt2lib.training import Trainer, TrainingSettings, evaluate, fit, trained_parameters
from gpt2lib.training.objectives import Classifier, LanguageModel, LinearHead


def examples(count, seed=0):
    """Sequences whose label is whether their first token is below 30; lengths differ."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 61, (count, 12), generator=generator)
    lengths = torch.randint(3, 13, (count,), generator=generator)
    return [Encoded(row[:n].tolist(), int(row[0] < 30)) for row, n in zip(ids, lengths, strict=True)]


def classifier(adapter=None, dropout=0.1):
    body = random_model(resid_pdrop=dropout, embd_pdrop=dropout)
    torch.manual_seed(0)
    if adapter:
        attach(body, adapter)
    return Classifier(body, LinearHead(32, 2))


SETTINGS = TrainingSettings(epochs=3, batch_size=8, lr=3e-3, weight_decay=0.01, seed=5)


def bits(model):
    """All that training changes, in one row."""
    values = [*trained_parameters(model).values(), *model.buffers()]
    return torch.cat([value.detach().flatten() for value in values])


def trained(settings=SETTINGS, folder=None, adapter=None, **more):
    model = classifier(adapter)
    progress = fit(model, examples(60), examples(40, 1), settings, folder, quiet=True, **more)
    return model, progress


def test_it_learns():
    model = classifier(dropout=0.0)
    settings, train, dev = TrainingSettings(epochs=6, batch_size=16, lr=3e-3), examples(600), examples(150, 1)
    progress = fit(model, train, dev, settings, quiet=True)
    assert progress.best["accuracy"] > 0.85
    assert evaluate(model, dev)[0]["accuracy"] == progress.best["accuracy"]  # the best weights are kept
    assert progress.tokens == progress.step // 38 * sum(len(e.ids) for e in train) <= progress.padded_tokens


def test_same_seed_same_result_another_seed_another():
    first = bits(trained()[0])
    assert torch.equal(first, bits(trained()[0]))
    assert not torch.equal(first, bits(trained(TrainingSettings(**asdict(SETTINGS) | {"seed": 6}))[0]))


ADAPTERS = [
    LoRA(rank=2, dropout=0.2),
    AlphaLoRA(every=3, share=0.1),
    GraphLoRA(),
    KANLoRA(refresh=5),
    KronAB(residual=True),
]


@functools.cache
def undisturbed(adapter):
    """The bits and the progress of a run that nothing stops."""
    model, progress = trained(adapter=adapter)
    return bits(model), progress


@pytest.mark.parametrize("adapter", [None, *ADAPTERS], ids=lambda spec: spec.method if spec else "full")
@pytest.mark.parametrize("stop_at", [1, 7, 8, 9, 23])
def test_a_run_stopped_at_any_step_resumes_to_the_same_bits(tmp_path, monkeypatch, adapter, stop_at):
    expected, whole = undisturbed(adapter)
    from gpt2lib.training import trainer as training

    steps = 0
    original = training.Trainer.gradients

    def dying(*args):
        nonlocal steps
        steps += 1
        if steps > stop_at:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(training.Trainer, "gradients", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path, adapter=adapter, checkpoint_seconds=0)
    monkeypatch.setattr(training.Trainer, "gradients", original)
    resumed, progress = trained(folder=tmp_path, adapter=adapter)
    assert torch.equal(bits(resumed), expected)
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in progress.history]
    assert timeless == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history]
    assert progress.steps == progress.step == whole.step

    again, _ = trained(folder=tmp_path, adapter=adapter)  # a finished run does nothing, and gives the same
    assert torch.equal(bits(again), expected)


SCRIPT = textwrap.dedent("""
    import sys, torch
    sys.path.insert(0, sys.argv[1])
    from test_training import SETTINGS, bits, trained
    torch.set_num_threads(1)
    model, progress = trained(folder=sys.argv[2], checkpoint_seconds=0)
    torch.save(bits(model), sys.argv[2] + "/final.pt")
""")


def test_a_killed_process_resumes_to_the_same_bits(tmp_path):
    """SIGKILL at three moments of one run, wherever it then is: also in the middle of writing a checkpoint."""

    def start(folder):
        command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(folder)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    (tmp_path / "whole").mkdir()
    whole = start(tmp_path / "whole")
    assert whole.wait(120) == 0, whole.stderr.read().decode()
    folder = tmp_path / "killed"
    folder.mkdir()
    for pause in (0.05, 0.11, 0.02):
        seen = (folder / "checkpoint.pt").stat().st_mtime_ns if (folder / "checkpoint.pt").exists() else 0
        process = start(folder)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (folder / "checkpoint.pt").exists() and (folder / "checkpoint.pt").stat().st_mtime_ns > seen:
                break
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = start(folder)
    assert last.wait(120) == 0, last.stderr.read().decode()
    assert torch.equal(torch.load(folder / "final.pt"), torch.load(tmp_path / "whole" / "final.pt"))


def gradients_of(model, rows, accumulate):
    """The loss and all gradients of one update's batch; clipping and Adam, which hide a wrong scale, are left out."""
    run = Trainer(model, rows, rows, TrainingSettings(batch_size=8, accumulate=accumulate))
    loss = run.gradients(rows)
    return loss, torch.cat([p.grad.flatten() for p in run.trained.values()])


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    (loss, whole), (summed, parts) = (gradients_of(classifier(dropout=0.0), examples(8), n) for n in (1, 3))
    assert summed == pytest.approx(loss, rel=1e-5)
    assert whole.norm() > 0.1 and (whole - parts).norm() < 1e-5 * whole.norm()


def test_a_language_model_mean_counts_tokens_not_rows():
    """Accumulated parts hold different numbers of tokens; the mean must be over all tokens all the same."""
    rows = [Encoded(list(range(1, 4 + 5 * i))) for i in range(8)]
    (loss, whole), (summed, parts) = (gradients_of(LanguageModel(random_model()), rows, n) for n in (1, 4))
    assert summed == pytest.approx(loss, rel=1e-5)
    assert whole.norm() > 0.1 and (whole - parts).norm() < 1e-5 * whole.norm()


PROCESSES = textwrap.dedent("""
    import sys, torch
    sys.path.insert(0, sys.argv[1])
    from gpt2lib.common.machine import processes
    from gpt2lib.training import TrainingSettings, fit
    from test_training import bits, one_task, two_tasks
    torch.set_num_threads(1)
    assert processes().num_processes == int(sys.argv[3])
    model, train, dev, batch_size = {"one": one_task, "two": two_tasks}[sys.argv[4]]()
    progress = fit(model, train, dev, TrainingSettings(epochs=2, batch_size=batch_size, lr=1e-3), quiet=True)
    if processes().is_main_process:
        torch.save((bits(model), [row["loss"] for row in progress.history]), sys.argv[2])
""")


def one_task():
    return classifier(dropout=0.0), examples(61), examples(41, 1), 8


def two_tasks():
    """Batches of two examples: each of two processes has one, and so no gradient for the other task's head."""
    first = classifier(dropout=0.0)
    model = MultiTask({"a": first, "b": Classifier(first.body, LinearHead(32, 2))})
    (a, b), (dev_a, dev_b) = (labelled_by_task([examples(21, seed), examples(21, seed + 2)]) for seed in (0, 1))
    return model, a + b, dev_a + dev_b, 2


def launched(arguments: list[str], processes: int) -> list[int]:
    """Exit codes of a script that several processes run together, as torchrun would start them (accelerate's launcher
    starts one on a CPU, whatever is asked, in accelerate 1.15)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    together |= {"ACCELERATE_USE_CPU": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [os.environ | together | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(processes)]
    started = [subprocess.Popen(arguments, env=environment) for environment in ranks]
    try:
        return [process.wait(120) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize("tasks", ["one", "two"])
def test_two_processes_follow_the_curve_of_one(tmp_path, tasks):
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    results = []
    for processes in (1, 2):
        arguments = [
            sys.executable,
            str(script),
            os.path.dirname(__file__),
            str(tmp_path / f"{processes}.pt"),
            str(processes),
            tasks,
        ]
        assert launched(arguments, processes) == [0] * processes
        results.append(torch.load(tmp_path / f"{processes}.pt"))
    (one, one_losses), (two, two_losses) = results
    assert (one - two).abs().max() < 1e-4
    assert one_losses == pytest.approx(two_losses, abs=1e-4)


def test_early_stopping_and_evaluation_steps():
    settings = TrainingSettings(epochs=30, batch_size=8, lr=1e-5, patience=2, eval_every=4)
    _, progress = trained(settings)
    assert progress.step < progress.steps
    assert [row["step"] for row in progress.history] == list(range(4, progress.step + 1, 4))
    best = max(row["accuracy"] for row in progress.history)
    assert progress.best["accuracy"] == best and all(row["accuracy"] <= best for row in progress.history[-2:])


def test_learning_rate_rises_and_falls():
    settings = TrainingSettings(lr=1.0, warmup=0.1)
    rates = [settings.lr_at(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[9] == max(rates) == 1.0 and all(a > b for a, b in itertools.pairwise(rates[9:]))
    assert 0 < rates[-1] < 0.02


@pytest.mark.parametrize("spec", [LoRA(), KronA(), KronAB(residual=True), AlphaLoRA(every=1), GraphLoRA(), KANLoRA()])
def test_every_adapter_trains_in_bf16(spec):
    model = Classifier(attach(random_model(), spec), LinearHead(32, 2))
    settings = TrainingSettings(epochs=1, batch_size=8, precision="bf16", max_steps=2)
    assert math.isfinite(fit(model, examples(40), examples(8, 1), settings, quiet=True).best["loss"])


def test_a_text_without_a_token_to_learn_from_is_refused():
    model = LanguageModel(random_model())
    with pytest.raises(ValueError, match="1 of the texts"):
        fit(model, [Encoded([3]), Encoded([4, 5, 6])], [Encoded([4, 5])], quiet=True)


def test_bf16_trains_and_keeps_float32_weights():
    model, progress = trained(TrainingSettings(epochs=1, batch_size=8, precision="bf16"))
    assert bits(model).dtype == torch.float32 and math.isfinite(progress.best["loss"])


def test_progress_is_written_for_a_study_to_read(tmp_path):
    import json

    trained(folder=tmp_path)
    now = json.loads((tmp_path / "progress.json").read_text())
    assert now["step"] == now["steps"] == 24 and now["tokens_per_second"] > 0


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="requires a gradient"):
        fit(classifier().requires_grad_(False), examples(3), examples(3))
    with pytest.raises(FloatingPointError, match="step 1"):
        model = classifier()
        with torch.no_grad():
            model.head.weight.fill_(math.inf)
        fit(model, examples(8), examples(3), quiet=True)
    trained(folder=tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: damaged"):
        trained(folder=tmp_path)


def relabelled(rows):
    return [Encoded(e.ids, 1 - e.label) for e in rows]


OTHER = {  # what another run differs in -> how it is called with
    "settings": dict(settings=TrainingSettings(**asdict(SETTINGS) | {"lr": 1e-4})),
    "adapter": dict(adapter=LoRA(rank=2, alpha=1.0)),
    "base model": dict(base_seed=1),
    "training examples": dict(train=relabelled(examples(60))),
    "dev examples": dict(dev=relabelled(examples(40, 1))),
}


@pytest.mark.parametrize("difference", OTHER)
def test_a_checkpoint_of_another_run_is_refused_naming_what_differs(tmp_path, difference):
    def run(settings=SETTINGS, adapter=LoRA(rank=2, alpha=16.0), base_seed=0, train=None, dev=None):
        torch.manual_seed(0)
        model = Classifier(attach(random_model(base_seed), adapter), LinearHead(32, 2))
        return fit(model, train or examples(60), dev or examples(40, 1), settings, tmp_path, quiet=True)

    run()
    with pytest.raises(ValueError, match=rf"checkpoint\.pt: another run wrote it, with other {difference};"):
        run(**OTHER[difference])
    assert run().step == 24  # the same one is still accepted


def test_weight_decay_is_for_matrices_alone():
    """With no gradient at all a step shrinks matrices and leaves biases and scales of norms what they were."""
    model = classifier(dropout=0.0)
    run = Trainer(model, examples(8), examples(8), TrainingSettings(weight_decay=0.5, lr=0.1))
    before = {name: p.detach().clone() for name, p in run.trained.items()}
    for p in run.trained.values():
        p.grad = torch.zeros_like(p)
    run.optimizer.step()
    for name, p in run.trained.items():
        expected = before[name] * (0.95 if p.dim() >= 2 else 1.0)
        assert torch.allclose(p, expected), name


def test_of_equal_accuracies_the_smaller_loss_is_kept(monkeypatch):
    measured = [(0.5, 2.0), (0.5, 1.0), (0.5, 1.5), (0.4, 0.1)]  # accuracy and loss after each epoch
    seen = []

    def measure(model, *args, **settings):
        seen.append(bits(model))
        return dict(zip(("accuracy", "loss"), measured[len(seen) - 1], strict=True)), []

    monkeypatch.setattr("gpt2lib.training.trainer.evaluate", measure)
    model, _ = trained(TrainingSettings(epochs=4, batch_size=8))
    assert [torch.equal(bits(model), values) for values in seen] == [False, True, False, False]


def test_alpha_learns_every_t_steps_from_examples_of_its_own():
    """row_alpha moves at steps 3, 6, ... alone, by its own rate, and no example serves both."""
    spec = AlphaLoRA(every=3, share=0.25, lr_alpha=0.01)
    seen, moved = [], []

    class Watch(Hook):
        def before_step(self, run):
            alpha = run.model.body.blocks[0].attn.q.row_alpha.detach().clone()
            moved.append(bool(seen) and not torch.equal(alpha, seen[-1]))
            seen.append(alpha)
            assert all(p.grad is None for p in run.model.parameters())
            assert len(run.train) == 45

    model = classifier(spec, dropout=0.0)
    fit(model, examples(60), examples(8, 1), TrainingSettings(epochs=2, batch_size=8), quiet=True, hooks=[Watch()])
    assert [step for step, changed in enumerate(moved) if changed] == [3, 6, 9]
    assert (seen[3] - 1).abs().max() == pytest.approx(0.01, rel=0.05)  # Adam's first step is its learning rate
    train, (hook,) = spec.hooks(model.body, examples(60), seed=0)
    ids = [{tuple(e.ids) for e in part} for part in (train, hook.examples)]
    assert len(hook.examples) == 15 and not ids[0] & ids[1]


def test_the_controls_of_alpha_lora():
    """lr_alpha=0 trains exactly what LoRA does on the examples that are kept; share=0 holds none of them out."""
    spec, every = AlphaLoRA(every=2, share=0.25, lr_alpha=0.0), AlphaLoRA(share=0.0)
    kept, _ = spec.hooks(classifier(spec).body, examples(40), seed=0)
    trained = []
    for method, train in ((spec, examples(40)), (LoRA(), kept)):
        model = classifier(method, dropout=0.0)
        fit(model, train, examples(8, 1), TrainingSettings(epochs=1, batch_size=8), quiet=True)
        trained.append({name: p for name, p in model.named_parameters() if p.requires_grad and "alpha" not in name})
    assert len(kept) == 30 and trained[0].keys() == trained[1].keys()
    assert all(torch.equal(p, trained[1][name]) for name, p in trained[0].items())
    train, (hook,) = every.hooks(classifier(every).body, examples(40), seed=0)
    assert len(train) == len(hook.examples) == 40


def test_the_grid_of_a_spline_layer_is_fitted_in_training():
    model = classifier(KANLoRA(refresh=4))
    fit(model, examples(60), examples(8, 1), TrainingSettings(epochs=1, batch_size=8), quiet=True)
    layers = [block.mlp for block in model.body.blocks]
    assert all((layer.width != 1).all() and (layer.middle != 0).all() for layer in layers)


def test_logits_never_exist_for_all_tokens_at_once(monkeypatch):
    """The largest vocabulary-sized tensor is the part's, forward and backward; loss and gradients are the same."""
    from gpt2lib.training import objectives

    ids = [Encoded(torch.randint(0, 61, (n,)).tolist(), start=start) for n, start in ((20, 1), (7, 3))]
    seen = []
    for limit in (objectives.LOGITS_AT_ONCE, 61 * 5):
        monkeypatch.setattr(objectives, "LOGITS_AT_ONCE", limit)
        model = LanguageModel(random_model())
        rows = []
        logits = model.body.logits
        monkeypatch.setattr(model.body, "logits", lambda h, rows=rows, logits=logits: rows.append(len(h)) or logits(h))
        loss = model(Batch.of(ids))
        loss.backward()
        seen.append((loss.item(), model.body.wte.weight.grad.clone(), max(rows)))
    (loss, gradient, whole), (loss_in_parts, gradient_in_parts, part) = seen
    assert whole == 19 + 4 and part == 5  # padding and what is given have no logits at all
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(gradient, gradient_in_parts, rtol=1e-3, atol=1e-4)


def test_frozen_weights_are_held_in_bf16_for_the_run_and_come_back(monkeypatch):
    """In bf16 no frozen matrix is cast in a step (autocast would, every time), and afterwards the base has its bits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from gpt2lib.training import trainer as training

    class Casts(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.shapes = []

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16:
                self.shapes.append(tuple(args[0].shape))
            return operation(*args, **(kwargs or {}))

    seen = []

    class Watch(Hook):
        def before_step(self, run):
            with Casts() as casts:
                run.gradients(run.train[:8])
            run.model.zero_grad()
            seen.append([shape for shape in casts.shapes if shape in ((32, 32), (128, 32), (32, 128))])

    settings = TrainingSettings(epochs=1, batch_size=8, max_steps=1, precision="bf16")
    bits = []
    for hold in (True, False):
        if not hold:
            monkeypatch.setattr(training, "_hold_frozen_in_bf16", lambda model: [])
        model = classifier(LoRA(rank=2), dropout=0.0)
        frozen = [p for p in model.body.parameters() if not p.requires_grad]
        before = [p.clone() for p in frozen]
        fit(model, examples(16), examples(8, 1), settings, quiet=True, hooks=[Watch()])
        assert all(torch.equal(p, q) for p, q in zip(before, frozen, strict=True))
        bits.append(torch.cat([p.detach().flatten() for p in trained_parameters(model).values()]))
    assert seen[0] == [] and len(seen[1]) >= 12  # six matrices in each of two blocks
    assert torch.equal(*bits)
