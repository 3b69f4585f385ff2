"""LoRA folders written by peft load here, and ours there, with the same logits."""

import json

import pytest
import torch
from conftest import FAMILIES, random_model
from safetensors.torch import load_file, save_file
from test_adapters import randomised

from gpt2lib.adapters import LoRA, attach, detach, from_peft, to_peft

peft = pytest.importorskip("peft")
IDS = torch.randint(0, 61, (3, 11), generator=torch.Generator().manual_seed(0))


def pair(family, tmp_path):
    """Our model and transformers' with the same weights."""
    from transformers import AutoModelForCausalLM

    model = random_model(family=family)
    model.save_pretrained(tmp_path / "base")
    return model, AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()


def logits(model):
    with torch.no_grad():
        return model.logits(model(IDS))


@pytest.mark.parametrize("layers", [None, (1, 2)])
@pytest.mark.parametrize("rank_stabilised", [False, True])
@pytest.mark.parametrize(
    ("family", "targets"),
    [(family, targets) for family in FAMILIES for targets in (("q", "v"), ("q", "k", "v"), ("k",), ("o", "up"))]
    + [("gpt2", ("q", "k", "v", "o", "up", "down")), ("llama", ("q", "k", "v", "o", "up", "down", "gate"))],
)
def test_ours_in_peft_and_back(family, tmp_path, targets, rank_stabilised, layers):
    ours, theirs = pair(family, tmp_path)
    spec = LoRA(rank=3, alpha=5.0, targets=targets, rank_stabilised=rank_stabilised, layers=layers)
    randomised(attach(ours, spec))
    expected = logits(ours)
    to_peft(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert (theirs(IDS).logits - expected).abs().max() < 1e-4
    from_peft(ours, tmp_path / "adapter")  # in place of the one attached
    assert ours.adapter == spec
    assert (logits(ours) - expected).abs().max() < 1e-4


THEIRS = {
    "gpt2": [
        dict(target_modules=["c_attn"], r=4, lora_alpha=8),
        dict(target_modules=["c_attn", "c_proj", "c_fc"], r=4, lora_alpha=3, lora_dropout=0.1),
        dict(target_modules=["c_attn", "c_proj"], r=4, lora_alpha=8, use_rslora=True),
        dict(target_modules=["c_fc", "c_attn"], r=2, rank_pattern={"c_attn": 5}, alpha_pattern={"mlp.c_fc": 7}),
        dict(target_modules=["c_fc"], r=2, layers_to_transform=[1]),
    ],
    "llama": [
        dict(target_modules=["q_proj", "v_proj"], r=4, lora_alpha=8),
        dict(target_modules="all-linear", r=4, lora_alpha=3, lora_dropout=0.1),
        dict(target_modules=["k_proj", "o_proj"], r=4, lora_alpha=8, use_rslora=True),
        dict(
            target_modules=["gate_proj", "q_proj"], r=2, rank_pattern={"q_proj": 5}, alpha_pattern={"mlp.gate_proj": 7}
        ),
        dict(target_modules=["up_proj"], r=2, layers_to_transform=[1]),
    ],
}


@pytest.mark.parametrize(
    ("family", "settings"), [(family, settings) for family in THEIRS for settings in THEIRS[family]], ids=str
)
@pytest.mark.parametrize("trained", [True, False])
def test_pefts_here(family, tmp_path, settings, trained):
    ours, theirs = pair(family, tmp_path)
    given = dict(fan_in_fan_out=family == "gpt2", task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**given, **settings))
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_A" in name or (trained and "lora_B" in name):
                p.normal_(std=0.3)
        expected = theirs.eval()(IDS).logits
    theirs.save_pretrained(tmp_path / "adapter")
    from_peft(ours, tmp_path / "adapter").eval()
    assert (logits(ours) - expected).abs().max() < 1e-4
    if "layers_to_transform" in settings:
        assert ours.adapter.layers == (1, 2)


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "pissa", "pissa_niter_2", "olora", "mica"])
def test_a_start_is_read_right_or_refused(tmp_path, start):
    """Some of peft's initialisations take what A and B begin with off the base: their tensors alone are not enough."""
    ours, theirs = pair("llama", tmp_path)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(target_modules=["q_proj"], r=4, init_lora_weights=start))
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_" in name:
                p += torch.randn_like(p) / 4
        expected = theirs.eval()(IDS).logits
    theirs.save_pretrained(tmp_path / "adapter")
    if start in ("pissa", "pissa_niter_2", "olora"):
        with pytest.raises(ValueError, match=f"init_lora_weights='{start}' is not supported"):
            from_peft(ours, tmp_path / "adapter")
    else:
        assert (logits(from_peft(ours, tmp_path / "adapter").eval()) - expected).abs().max() < 1e-4


def test_peft_cannot_attach_lokr_to_gpt2(tmp_path):
    """One reason for KronA to be here; when peft learns it, compare the whole model."""
    with pytest.raises((ValueError, NotImplementedError, TypeError), match=r"(?i)conv1d|not supported"):
        peft.get_peft_model(pair("gpt2", tmp_path)[1], peft.LoKrConfig(target_modules=["c_attn"]))


def test_refusals(model, tmp_path):
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
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"of_next_year": {"rank": 2}}, "of_next_year={'rank': 2} is not supported"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": "much"}, "lora_alpha='much', which is no number"),
        ({"alpha_pattern": {"c_attn": None}}, "c_attn=None"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "is no layer's name"),  # as an expression it would search for ever
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            from_peft(model, tmp_path)
    for content in (b"{", b"[]", b"\xff"):
        (tmp_path / "adapter_config.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"adapter_config\.json.*not JSON|peft_type"):
            from_peft(model, tmp_path)
    assert model.adapter is None
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not LoRA on a layer of a Llama's blocks"):
        from_peft(random_model(family="llama"), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for damage in (lambda name: "lora_A" in name or ".0." in name, lambda name: False):
        left = {name: t for name, t in tensors.items() if damage(name)}
        save_file(left, tmp_path / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=r"not two matrices|is empty"):
            from_peft(model, tmp_path)
    tensors[min(tensors)][0, 0] = float("nan")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors: damaged .*no numbers"):
        from_peft(model, tmp_path)


def test_a_failure_leaves_the_adapter_that_was_attached(model, tmp_path):
    to_peft(randomised(attach(random_model(n_embd=64), LoRA(rank=3))), tmp_path)
    randomised(attach(model, LoRA(targets=("up",))))
    expected = logits(model)
    with pytest.raises(ValueError, match="is for a layer of shape"):
        from_peft(model, tmp_path)
    assert model.adapter == LoRA(targets=("up",))
    assert torch.equal(logits(model), expected)
