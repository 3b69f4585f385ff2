"""What is measured is not asserted: times are the machine's. What is kept of it is."""

import pandas as pd
import pytest
import torch
from conftest import FAMILIES, random_model

from gpt2lib import GPT2Config, benchmarks
from gpt2lib.adapters import LoRA, adapter_parameters
from gpt2lib.benchmarks.peer import Peer
from gpt2lib.benchmarks.training import our_run
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
