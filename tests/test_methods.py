"""Methods: one record each, settings refused where there is no such one, and what a notebook's parameters become."""

import pytest
import torch
from conftest import random_model

from gpt2lib import adapters
from gpt2lib.adapters import AlphaLoRA, GraphLoRA, KANLoRA, KronA, KronAB, LoRA, trained_count
from gpt2lib.tasks import METHODS, Full, LastLayer, method_named, method_of, settings_of
from gpt2lib.tasks.method import name_in_tables
from gpt2lib.tasks.parameters import parsed
from gpt2lib.training import TrainingSettings

COMMON = {"rank": 4, "alpha": 2.0, "dropout": 0.1, "targets": ["q"], "layers": []}


def test_every_adapter_has_a_record_and_no_two_look_alike():
    built = {record.build.method for record in METHODS.values()}
    assert built == {*adapters.SPECIFICATIONS, "last-linear", "full"}
    assert list(METHODS)[:3] == ["last-linear", "full", "lora"]
    for looks in ("title", "colour"):
        assert len({getattr(record, looks) for record in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_name_makes_what_its_record_says(name):
    spec = method_named(name, common=COMMON)
    record = METHODS[name]
    assert type(spec) is record.build
    assert all(getattr(spec, key) == value for key, value in record.preset.items())
    expected = {"rank": 4, "alpha": 2.0, "dropout": 0.1, "targets": ("q",)}
    assert all(getattr(spec, key) == value for key, value in expected.items() if key in record.settings)


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"lora has no setting 'rnak' \(did you mean 'rank'\?\); possible: .*rank"):
        method_named("lora", rnak=3)
    with pytest.raises(ValueError, match="last-linear has no setting 'rank'; possible: none"):
        method_named("last-linear", rank=3)
    with pytest.raises(ValueError, match="krona-b-res has no setting 'residual'"):  # it is what makes the method
        method_named("krona-b-res", residual=False)
    with pytest.raises(ValueError, match=r"common settings are rank, .*, not rnak"):
        method_named("lora", common={"rnak": 3})
    with pytest.raises(ValueError, match="possible: last-linear, full, lora"):
        method_named("prefix")
    assert method_named("lora", rank=3, targets=["q"]) == LoRA(rank=3, targets=("q",))
    assert method_named("last-linear", common=COMMON) == LastLayer()


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        (
            "graph-lora",
            ["graph_rank=4", "top_k=none", "threshold=0.5"],
            GraphLoRA(graph_rank=4, top_k=None, threshold=0.5),
        ),
        ("graph-lora", ["scores = dot", "fully_connected=true"], GraphLoRA(scores="dot", fully_connected=True)),
        ("kan-lora", ["kan_rank=2", "grid=7"], KANLoRA(kan_rank=2, grid=7)),
        ("krona", ["shape=8,4", "scale=2"], KronA(shape=(8, 4), scale=2.0)),
        ("krona-b-res", ["budget=200"], KronAB(residual=True, budget=200)),
        ("alpha-lora", ["every=5", "lr_alpha=1e-2"], AlphaLoRA(every=5, lr_alpha=0.01)),
        ("lora", ["rank_stabilised=True"], LoRA(rank_stabilised=True)),
    ],
    ids=str,
)
def test_a_study_reaches_every_setting_of_every_method(name, settings, expected):
    assert method_of({"method": name, "settings": settings}) == expected


@pytest.mark.parametrize("name", METHODS)
def test_each_setting_reads_back_what_it_is_by_default(name):
    spec = method_named(name)
    for setting in METHODS[name].settings:
        value = getattr(spec, setting)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert parsed(METHODS[name], [f"{setting}={text}"]) == {setting: value}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("graph_rank=four", "graph_rank=four is not of type int"),
        ("fully_connected=1", "fully_connected=1 is not of type bool"),
        ("top_k=2.5", r"top_k=2.5 is not of type int \| None"),
        ("graph_rnak=4", "did you mean 'graph_rank'"),
        ("graph_rank", "'graph_rank' is no name=value"),
        ("rank=4", "rank is a parameter of its own"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        method_of({"method": "graph-lora", "settings": [setting]} | COMMON)


def test_a_budget_sets_the_size_of_what_has_one():
    config = random_model().config
    for name, record in METHODS.items():
        spec = method_named(name, config, size=3000, common=COMMON)
        if {"rank", "budget"} & set(record.settings):
            assert trained_count(spec, config) == pytest.approx(3000, rel=0.35), name
        else:
            assert spec == method_named(name, common=COMMON)
    with pytest.raises(ValueError, match="1000 parameters are wanted, so shape cannot be given"):
        method_named("krona", config, size=1000, shape=[8, 4])


def test_full_trains_the_blocks_it_is_given_and_nothing_else():
    model = random_model()
    Full(layers=(1, 2)).apply(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("blocks.1.")}
    assert trained_count(Full(layers=(1, 2)), model.config) == sum(p.numel() for p in model.blocks[1].parameters())
    assert trained_count(Full(), model.config) == model.config.parameters
    assert trained_count(LastLayer(), model.config) == 0
    with pytest.raises(ValueError, match="2 blocks"):
        Full(layers=(1, 3)).apply(model)
    with pytest.raises(ValueError, match="layers must be"):
        Full(layers=(2, 2))


def test_layers_of_a_notebook_reach_every_method_but_the_last_layer():
    config = random_model().config
    for name in METHODS:
        spec = method_of({"method": name, "layers": [1, 2], "rank": 2})
        assert getattr(spec, "layers", None) == (None if name == "last-linear" else (1, 2))
        assert trained_count(spec, config) < max(1, trained_count(method_of({"method": name, "rank": 2}), config))


def test_training_settings_are_the_parameters_of_that_name_and_0_is_none():
    parameters = {"epochs": 4, "lr": 0.5, "patience": 0, "max_steps": 7, "rank": 3, "out": "x", "torch": torch}
    assert settings_of(parameters) == TrainingSettings(epochs=4, lr=0.5, patience=None, max_steps=7)
    with pytest.raises(ValueError, match="epochs"):
        settings_of({"epochs": 0})


def test_tables_name_a_rank_that_is_not_the_usual_one():
    assert name_in_tables("lora", 8) == name_in_tables("lora", None) == "lora"
    assert name_in_tables("lora", 4) == "lora r=4" and name_in_tables("full", 4) == "full"
