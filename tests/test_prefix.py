"""The frozen prefix: the same training as without it, computed once, whatever happens to its files."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import random_model
from test_training import examples

from gpt2lib.adapters import AlphaLoRA, GraphLoRA, Hook, KANLoRA, KronA, KronAB, LoRA, attach
from gpt2lib.data import Encoded
from gpt2lib.tasks.multitask import MultiTask
from gpt2lib.training import TrainingSettings, evaluate, fit, predict, trained_parameters
from gpt2lib.training.objectives import Classifier, ClozeHead, LanguageModel, LinearHead
from gpt2lib.training.prefix import frozen_blocks, with_prefix

TOP = (2, 4)  # of the four blocks of these models
ADAPTERS = [
    LoRA(rank=2, layers=TOP, targets=("q", "v", "up")),
    KronA(layers=TOP),
    KronAB(layers=TOP, residual=True),
    AlphaLoRA(every=3, share=0.1, layers=TOP),
    GraphLoRA(layers=TOP),
    KANLoRA(refresh=5, layers=TOP),
]
SETTINGS = TrainingSettings(epochs=2, batch_size=8, lr=3e-4, seed=5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prefix"


def body(adapter=None, **sizes):
    """In float64, where sums in another order agree far beyond what training can enlarge to 1e-6."""
    model = random_model(n_layer=4, **sizes).double()
    torch.manual_seed(0)
    if adapter:
        return attach(model, adapter).double()
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(("blocks.2.", "blocks.3.")))
    return model


def objectives(adapter=None):
    torch.manual_seed(1)
    return {
        "classifier": lambda: Classifier(body(adapter), LinearHead(32, 2).double()),
        "cloze": lambda: Classifier(model := body(adapter), ClozeHead(model, [3, 4], trained=False)),
        "language model": lambda: LanguageModel(body(adapter)),
    }


def weights(model):
    return torch.cat([p.detach().flatten() for p in trained_parameters(model).values()])


def trained(make, monkeypatch, gigabytes, **more):
    monkeypatch.setenv("GPT2LIB_PREFIX_GB", str(gigabytes))
    torch.manual_seed(2)
    model = make()
    first = weights(model).clone()
    progress = fit(model, examples(40), examples(20, 1), SETTINGS, quiet=True, **more)
    assert (weights(model) - first).abs().max() > 1e-3  # it was trained at all
    return weights(model), progress


@pytest.mark.parametrize("adapter", [None, *ADAPTERS], ids=lambda spec: spec.method if spec else "full")
@pytest.mark.parametrize("objective", ["classifier", "cloze", "language model"])
def test_training_ends_in_the_same_weights_with_and_without_it(adapter, objective, monkeypatch, cache):
    make = objectives(adapter)[objective]
    without, _ = trained(make, monkeypatch, 0)
    assert not cache.exists()
    kept, _ = trained(make, monkeypatch, 1)
    assert len(list(cache.glob("*.npy"))) == 2
    assert (without - kept).abs().max() < 1e-6


@pytest.mark.parametrize("adapted", [True, False], ids=["adapter", "heads alone"])
def test_several_tasks_at_once(adapted, monkeypatch):
    def make():
        model = body(ADAPTERS[0]) if adapted else body().requires_grad_(False)
        if not adapted:
            return MultiTask({n: Classifier(model, LinearHead(32, 2).double()) for n in "ab"})
        return MultiTask({"a": Classifier(model, LinearHead(32, 2).double()), "b": LanguageModel(model)})

    def run(gigabytes):
        monkeypatch.setenv("GPT2LIB_PREFIX_GB", str(gigabytes))
        torch.manual_seed(2)
        model = make()
        mixed = [Encoded(e.ids, e.label, task=i % 2) for i, e in enumerate(examples(40))]
        fit(model, mixed, mixed, SETTINGS, quiet=True)
        return weights(model)

    assert (run(0) - run(1)).abs().max() < 1e-6


class Runs(Hook):
    """Counts the rows that each block sees."""

    def __init__(self, model):
        self.rows = [0] * len(model.body.blocks)
        for i, block in enumerate(model.body.blocks):  # not by torch's hooks, with which nothing is kept
            block.forward = partial(self.run, i, block.forward)

    def run(self, i, forward, x, *others):
        self.rows[i] += len(x)
        return forward(x, *others)

    def before_step(self, run):
        pass


def test_frozen_blocks_run_once_for_each_text_whatever_the_epochs(monkeypatch):
    model = objectives(ADAPTERS[0])["classifier"]()
    runs = Runs(model)
    train, dev = examples(40), examples(20, 1)
    progress = fit(model, train, dev, SETTINGS, quiet=True)
    assert runs.rows == [60, 60, 2 * 60, 2 * 60]
    metrics, _ = evaluate(model, dev)  # of the same texts: nothing below is run again
    assert runs.rows == [60, 60, 140, 140] and metrics == {key: progress.best[key] for key in metrics}
    assert all(e.hidden is None for e in train)  # the caller's examples are left alone
    again = objectives(ADAPTERS[3])["classifier"]()  # another method, the same blocks below
    other = Runs(again)
    fit(again, train, dev, SETTINGS, quiet=True)
    assert other.rows[:2] == [0, 0]


def test_of_the_last_layer_alone_only_the_last_tokens_are_kept(cache):
    model = Classifier(random_model(n_layer=4).requires_grad_(False), LinearHead(32, 2))
    runs = Runs(model)
    train, dev = examples(40), examples(20, 1)
    progress = fit(model, train, dev, TrainingSettings(epochs=5, batch_size=8, lr=1e-2), quiet=True)
    assert runs.rows == [60] * 4
    assert sorted(np.load(path, mmap_mode="r").shape for path in cache.glob("*.npy")) == [(20, 32), (40, 32)]
    with_body = model.metrics(predict(model, dev, keep=False), dev)
    assert with_body["accuracy"] == progress.best["accuracy"]
    assert with_body["loss"] == pytest.approx(progress.best["loss"], rel=1e-4)


def test_a_finished_run_computes_nothing(tmp_path):
    make = objectives(ADAPTERS[0])["classifier"]
    train, dev = examples(40), examples(20, 1)
    for rows in ([60, 60, 120, 120], [0, 0, 0, 0]):
        torch.manual_seed(2)
        model = make()
        runs = Runs(model)
        fit(model, train, dev, SETTINGS, tmp_path / "run", quiet=True)
        assert runs.rows == rows
        for path in (tmp_path / "cache" / "prefix").glob("*.npy"):
            path.unlink()


def test_deleting_or_damaging_the_files_costs_time_and_nothing_else(monkeypatch, cache):
    make = objectives(ADAPTERS[0])["language model"]
    whole, _ = trained(make, monkeypatch, 1)

    class Deletes(Hook):
        def before_step(self, run):
            if run.progress.step == 3:
                for path in cache.glob("*.npy"):
                    path.unlink()

    assert torch.equal(trained(make, monkeypatch, 1, hooks=[Deletes()])[0], whole)
    trained(make, monkeypatch, 1)
    for path in cache.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-400])
    assert torch.equal(trained(make, monkeypatch, 1)[0], whole)


def test_states_of_one_model_text_or_precision_are_never_taken_for_another():
    def states(model, rows, precision="float32"):
        return with_prefix(LanguageModel(model), rows, precision)[0].hidden

    rows = examples(4)
    first = states(body(ADAPTERS[0]), rows)
    changed = body(ADAPTERS[0])
    with torch.no_grad():
        changed.blocks[1].mlp.down.bias[-1] += 1
    others = [
        states(changed, rows),
        states(body(LoRA(layers=(3, 4))), rows),
        states(random_model(n_layer=4).requires_grad_(False), rows, "bf16"),
        states(body(ADAPTERS[0]), rows[1:]),
    ]
    assert all(other.shape != first.shape or not np.array_equal(other, first) for other in others)
    scaled = []
    for alpha in (2.0, 64.0):  # frozen, with the same weights
        model = body(LoRA(alpha=alpha))
        for name, p in model.named_parameters():
            p.requires_grad_(False).add_(0.1 * name.endswith(".B"))
        scaled.append(states(model, rows))
    assert not np.array_equal(*scaled)
    again = body(ADAPTERS[0])
    assert np.array_equal(states(again, rows), first)
    with torch.no_grad():  # the same model object, changed in place
        again.blocks[0].ln_1.weight *= 2
    changed = states(again, rows)
    assert not np.array_equal(changed, first)
    for exchanged in (again.blocks[0].attn.q.weight, again.blocks[1].mlp.up.bias, again.wte.weight):
        exchanged.data.copy_(exchanged.data.flip(0))  # which torch does not count
        assert not np.array_equal(states(again, rows), changed)
        changed = states(again, rows)


def test_what_hooks_change_is_not_kept(cache):
    model, dev = Classifier(body(ADAPTERS[0]), LinearHead(32, 2).double()), examples(4)
    handle = model.body.blocks[0].register_forward_pre_hook(lambda block, args: (0 * args[0], *args[1:]))
    silenced = predict(model, dev)
    handle.remove()
    assert predict(model, dev) == predict(model, dev, keep=False) != silenced


def test_models_that_differ_above_share_them(cache):
    rows = examples(4)
    for depth in (4, 3):
        model = body(LoRA(layers=(2, depth)))
        model.cut(depth)
        with_prefix(LanguageModel(model), rows)
    assert len(list(cache.glob("*.npy"))) == 1


def test_where_they_do_not_fit_the_blocks_run_in_every_step(monkeypatch, capsys, cache):
    make = objectives(ADAPTERS[0])["classifier"]
    without, _ = trained(make, monkeypatch, 0)
    small, _ = trained(make, monkeypatch, 1e-6)
    assert "more than GPT2LIB_PREFIX_GB allows: the 2 frozen blocks run in every step" in capsys.readouterr().err
    assert not list(cache.glob("*.npy")) and torch.equal(small, without)
    monkeypatch.setenv("GPT2LIB_PREFIX_GB", "much")
    with pytest.raises(ValueError, match="GPT2LIB_PREFIX_GB must be a number of gigabytes, not 'much'"):
        with_prefix(make(), examples(3))


def test_the_least_recently_used_files_make_way(monkeypatch, cache):
    model = Classifier(body(ADAPTERS[0]), LinearHead(32, 2).double())
    tokens = sum(len(e.ids) for e in examples(40))
    monkeypatch.setenv("GPT2LIB_PREFIX_GB", str(2.5 * tokens * 32 * 8 / 1e9))  # room for two
    with_prefix(model, examples(40, 0))
    (cache / "taken.npy").symlink_to("nowhere")  # as one that another process takes away meanwhile
    for seed in (1, 0, 2):
        with_prefix(model, examples(40, seed))
    (cache / "taken.npy").unlink()
    before = set(cache.glob("*.npy"))
    assert len(before) == 2
    with_prefix(model, examples(40, 0))  # used after 1, so it is still there
    assert set(cache.glob("*.npy")) == before


def test_how_many_blocks_are_frozen():
    model = random_model(n_layer=4)
    assert frozen_blocks(model) == 0
    model.wpe.requires_grad_(False), model.wte.requires_grad_(False)
    assert frozen_blocks(model) == 0
    model.blocks[0].requires_grad_(False)
    assert frozen_blocks(model) == 1
    assert frozen_blocks(attach(model, LoRA(layers=(3, 4)))) == 3
    assert frozen_blocks(model.requires_grad_(False)) == 4


@pytest.mark.parametrize("adapter", [ADAPTERS[0], KANLoRA(refresh=1, layers=TOP)], ids=lambda spec: spec.method)
def test_what_is_kept_does_not_drop_out(adapter):
    """Frozen blocks below what is trained are in evaluation mode, kept or not, so that both are the same training."""
    model = Classifier(body(adapter, resid_pdrop=0.5, embd_pdrop=0.5), LinearHead(32, 2).double())
    modes = []

    class Watch(Hook):
        def before_step(self, run):
            modes.append([model.body.dropout.training, *(block.training for block in model.body.blocks)])

    fit(model, examples(8), examples(8), TrainingSettings(epochs=1, batch_size=8), quiet=True, hooks=[Watch()])
    assert modes == [[False, False, False, True, True]]
    for mode in (True, False):
        model.train(mode)
        evaluate(model, examples(4))  # between steps of a loop of one's own, say
        assert {module.training for module in model.modules()} == {mode}
