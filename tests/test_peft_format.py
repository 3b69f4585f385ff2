"""LoRA folders written by peft load here, and ours there, with the same logits."""

import json

import pytest
import torch
from conftest import random_model
from test_adapters import randomised

from gpt2lib.adapters import KronA, LoRA, attach, attached_spec, detach, from_peft, to_peft

peft = pytest.importorskip("peft")
IDS = torch.randint(0, 61, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pair(model, tmp_path):
    """Our model and transformers' with the same weights."""
    from transformers import GPT2LMHeadModel

    model.save_pretrained(tmp_path / "base")
    return model, GPT2LMHeadModel.from_pretrained(tmp_path / "base").eval()


def logits(model):
    with torch.no_grad():
        return model.logits(model(IDS))


@pytest.mark.parametrize("rank_stabilised", [False, True])
@pytest.mark.parametrize(
    "targets", [("q", "v"), ("q", "k", "v"), ("k",), ("o", "up"), ("q", "k", "v", "o", "up", "down")]
)
def test_ours_in_peft_and_back(pair, tmp_path, targets, rank_stabilised):
    ours, theirs = pair
    spec = LoRA(rank=3, alpha=5.0, targets=targets, rank_stabilised=rank_stabilised)
    randomised(attach(ours, spec))
    expected = logits(ours)
    to_peft(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert (theirs(IDS).logits - expected).abs().max() < 1e-4
    from_peft(ours, tmp_path / "adapter")  # in place of the one attached
    assert attached_spec(ours) == spec
    assert (logits(ours) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        dict(target_modules=["c_attn"], r=4, lora_alpha=8),
        dict(target_modules=["c_attn", "c_proj", "c_fc"], r=4, lora_alpha=3, lora_dropout=0.1),
        dict(target_modules=["c_attn", "c_proj"], r=4, lora_alpha=8, use_rslora=True),
        dict(target_modules=["c_fc", "c_attn"], r=2, rank_pattern={"c_attn": 5}, alpha_pattern={"mlp.c_fc": 7}),
        dict(target_modules=["c_fc"], r=2, layers_to_transform=[1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("trained", [True, False])
def test_pefts_here(pair, tmp_path, settings, trained):
    ours, theirs = pair
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(fan_in_fan_out=True, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_A" in name or (trained and "lora_B" in name):
                p.normal_(std=0.3)
        expected = theirs.eval()(IDS).logits
    theirs.save_pretrained(tmp_path / "adapter")
    from_peft(ours, tmp_path / "adapter").eval()
    assert (logits(ours) - expected).abs().max() < 1e-4


def test_peft_cannot_attach_lokr_to_gpt2(pair):
    """One reason for KronA to be here; when peft learns it, compare the whole model."""
    with pytest.raises((ValueError, NotImplementedError, TypeError), match=r"(?i)conv1d|not supported"):
        peft.get_peft_model(pair[1], peft.LoKrConfig(target_modules=["c_attn"]))


def test_refusals(model, tmp_path):
    with pytest.raises(ValueError, match="plain LoRA; attached is nothing"):
        to_peft(model, tmp_path)
    with pytest.raises(ValueError, match="plain LoRA; attached is KronA"):
        to_peft(attach(model, KronA()), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        from_peft(model, tmp_path)
    detach(model)
    to_peft(attach(model, LoRA()), tmp_path)
    detach(model)
    with pytest.raises(ValueError, match="another"):
        from_peft(random_model(n_embd=64), tmp_path)
    with pytest.raises(ValueError, match="n_layer=1"):
        from_peft(random_model(n_layer=1), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for change, message in (
        ({"peft_type": "LOKR"}, "LOKR"),
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"bias": "all"}, "bias='all'"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            from_peft(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        from_peft(model, tmp_path)
    assert attached_spec(model) is None
