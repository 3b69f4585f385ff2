"""What is measured is not asserted: times are the machine's. What is kept of it is."""

import pandas as pd

from gpt2lib import GPT2Config, benchmarks


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
