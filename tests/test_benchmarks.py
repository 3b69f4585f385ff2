"""What is measured is not asserted: times are the machine's. What is kept of it is."""

import pandas as pd
import pytest
import torch
from conftest import FAMILIES, random_model

from gpt2lib import GPT2Config, benchmarks
from gpt2lib.adapters import AlphaLoRA, LoRA, adapter_parameters, of_size, trained_count
from gpt2lib.benchmarks.peer import Peer
from gpt2lib.benchmarks.training import our_run, steps_at_random, steps_of
from gpt2lib.data.batches import Batch


def test_kept_measurements_replace_their_own_kind_alone(tmp_path):
    small, large = (benchmarks.Work(GPT2Config(n_layer=n, n_head=1, n_embd=8, vocab_size=9), (3, 4)) for n in (1, 2))
    speed, grown = {"quantity": "LoRA training", "peer": "peft"}, {"quantity": "LoRA epoch of 9 examples"}
    benchmarks.keep(small, "sst", [speed | {"ratio": 1.5}, grown | {"ours": 3.0}], tmp_path)
    benchmarks.keep(large, "sst", [speed | {"ratio": 2.0}], tmp_path)
    benchmarks.keep(small, "quora", [speed | {"ratio": 2.5}], tmp_path)
    benchmarks.keep(small, "sst", [speed | {"ratio": 3.0}, grown | {"ours": 4.0}], tmp_path)
    table = pd.read_csv(tmp_path / "benchmarks.csv").set_index(["task", "n_layer", "quantity"])
    assert len(table) == 4
    assert table["ratio"].dropna().to_dict() == {
        ("sst", 2, "LoRA training"): 2.0,
        ("quora", 1, "LoRA training"): 2.5,
        ("sst", 1, "LoRA training"): 3.0,
    }
    assert table["ours"].dropna().to_dict() == {("sst", 1, "LoRA epoch of 9 examples"): 4.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_compute_and_train_the_same(family):
    """Else a ratio of their speeds would mean nothing."""
    lora = LoRA(rank=8, targets=("q", "k", "v"))
    config = random_model(family=family, n_layer=1, n_embd=64).config
    work = benchmarks.Work(config, (3, 9, 5), batch_size=3)
    ours, theirs = our_run(work, lora).model, Peer(work, lora)
    head = theirs.model.get_submodule("base_model.model.score.modules_to_save.default")
    with torch.no_grad():
        head.weight.copy_(ours.head.weight)
        ours.head.bias.zero_()
        seen = ours.eval().logits(Batch.of(work.examples, work.device))
        expected = theirs.model.eval()(**theirs._padded(work.examples)).logits
    assert (seen - expected).abs().max() < 1e-5
    trained = sum(p.numel() for p in adapter_parameters(ours.body).values())
    fused = config.family == "gpt2"  # rank 8 on one layer of 64 x 192, where ours are three of 64 x 64
    assert (
        sum(p.numel() for name, p in theirs.model.named_parameters() if "lora_" in name) == trained - 2 * 8 * 64 * fused
    )


TINY = benchmarks.Work(GPT2Config(n_layer=3, n_head=1, n_embd=16, vocab_size=9, n_positions=64), (3, 9, 30) * 12, 4, 2)
LAST = (2, 3)


def costs_of_the_last_block() -> pd.DataFrame:
    lora = LoRA(layers=LAST)
    specs = {"alpha-LoRA": (of_size(AlphaLoRA(layers=LAST), trained_count(lora, TINY.config), TINY.config), lora)}
    return benchmarks.adapter_costs(TINY, specs)


@pytest.mark.parametrize(
    "measure, quantities",
    [
        (
            lambda: benchmarks.waterfall(TINY, LAST),
            {"adapters on the last blocks only", "what lies below computed once"},
        ),
        (lambda: pd.DataFrame(benchmarks.last_linear(TINY)).set_index("quantity"), {"last linear, an epoch"}),
        (
            lambda: pd.DataFrame(benchmarks.frozen_prefix(TINY, LAST, epochs=2, size=5)).set_index("quantity"),
            {f"LoRA on blocks 2 to 2 of 3, {what}" for what in ("an epoch after the first", "2 epochs")},
        ),
        (costs_of_the_last_block, {"alpha-LoRA"}),
    ],
    ids=["waterfall", "last layer", "prefix", "adapters"],
)
def test_what_is_kept_of_random_weights_goes_with_the_measurement(measure, quantities, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    table = measure()
    assert quantities <= set(table.index) and (table.select_dtypes("number") > 0).all(axis=None)
    assert not list(tmp_path.iterdir())


def test_batches_drawn_at_random_are_padded_more():
    """Which is what the waterfall's bar of batches by length shows."""
    by_length, at_random = (our_run(TINY, LoRA()) for _ in range(2))
    steps_of(by_length, 9)()
    steps_at_random(at_random, 9)()
    ours, theirs = by_length.progress, at_random.progress
    assert ours.tokens == theirs.tokens and ours.padded_tokens < 0.8 * theirs.padded_tokens


def test_bf16_is_held_against_the_peers_float32_too():
    work = benchmarks.Work(TINY.config, TINY.lengths, 4, 1, rounds=1, precision="bf16")
    rows = benchmarks.training(work, ["LoRA"])
    assert [row["peer"] for row in rows] == ["peft", "peft in float32"]
    assert rows[0]["ours"] == rows[1]["ours"] and rows[0]["peer_value"] != rows[1]["peer_value"]
