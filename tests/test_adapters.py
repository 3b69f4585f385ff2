"""What every adapter must do, as one list of properties over one list of specifications."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import random_model

from gpt2lib import AdamW
from gpt2lib.adapters import (
    METHODS,
    LoRA,
    Spec,
    adapter_parameters,
    attach,
    detach,
    load,
    merge,
    save,
)

ALL = ("q", "k", "v", "o", "up", "down")
SPECS = [LoRA(), LoRA(rank=3, alpha=5.0, targets=ALL), LoRA(rank=2, dropout=0.3, targets=("up", "o"))]
IDS = torch.randint(0, 61, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=SPECS, ids=str)
def spec(request) -> Spec:
    return request.param


def randomised(model, seed=0):
    """An attached adapter whose parameters are far from their first values, so that it certainly acts."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in adapter_parameters(model).values():
            p.normal_(std=0.5)
    return model.eval()


def outputs(model, ids=IDS, mask=None):
    with torch.no_grad():
        return model(ids, mask)


def test_every_method_is_tested():
    assert {spec.method for spec in SPECS} == set(METHODS)


def test_identity_at_first_and_an_effect_when_randomised(model, spec):
    before = outputs(model)
    attach(model, spec)
    assert torch.equal(outputs(model), before)
    assert (outputs(randomised(model)) - before).abs().max() > 1e-2


def test_trained_parameters_equal_the_formula(model, spec):
    attach(model, spec)
    d, layers = 32, 2
    sizes = {"q": 2 * d, "k": 2 * d, "v": 2 * d, "o": 2 * d, "up": 5 * d, "down": 5 * d}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(adapter_parameters(model))
    expected = layers * spec.rank * sum(sizes[target] for target in spec.targets)
    assert sum(p.numel() for p in adapter_parameters(model).values()) == expected


def test_only_the_adapter_trains_and_all_of_it(model, spec):
    attach(model, spec)
    base = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    first = {name: p.clone() for name, p in adapter_parameters(model).items()}
    optimizer = AdamW(adapter_parameters(model).values(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        model.train()(IDS).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(p, base[name]) for name, p in model.named_parameters() if name in base)
    assert all(not torch.equal(p, first[name]) for name, p in adapter_parameters(model).items())
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_merging_is_exact_and_happens_once(spec):
    model = random_model().double()
    attach(model, spec)
    expected = outputs(randomised(model.double()))
    merge(model)
    assert (outputs(model) - expected).abs().max() < 1e-10
    assert not adapter_parameters(model)
    with pytest.raises(ValueError, match="no adapter"):
        merge(model)


def test_a_merged_model_is_a_plain_gpt2(model, spec, tmp_path):
    attach(model, spec)
    with pytest.raises(ValueError, match="merge"):
        model.save_pretrained(tmp_path)
    expected = outputs(randomised(model))
    merge(model).save_pretrained(tmp_path)
    assert (outputs(type(model).from_pretrained(tmp_path)) - expected).abs().max() < 1e-4


def test_detaching_gives_the_base_back(model, spec):
    before = outputs(model)
    randomised(attach(model, spec))
    assert torch.equal(outputs(detach(model)), before)


def test_causality_and_padding_invariance(model, spec):
    randomised(attach(model, spec))
    changed = IDS.clone()
    changed[:, 6] = (IDS[:, 6] + 1) % 61
    assert torch.equal(outputs(model)[:, :6], outputs(model, changed)[:, :6])
    for side in ("left", "right"):
        filler = torch.zeros(3, 4, dtype=torch.long)
        wide = torch.cat([filler, IDS] if side == "left" else [IDS, filler], 1)
        mask = torch.cat([filler, torch.ones_like(IDS)] if side == "left" else [torch.ones_like(IDS), filler], 1)
        real = slice(4, None) if side == "left" else slice(0, 11)
        assert (outputs(model, wide, mask)[:, real] - outputs(model)).abs().max() < 1e-5


def test_cached_generation_equals_uncached(model, spec):
    randomised(attach(model, spec))
    expected = IDS
    for _ in range(8):
        expected = torch.cat([expected, model.logits(outputs(model, expected)[:, -1]).argmax(-1, keepdim=True)], 1)
    assert torch.equal(model.generate(IDS, max_new_tokens=8, temperature=0), expected)


def test_gradient_checkpointing_and_bf16(model, spec):
    randomised(attach(model, spec))
    gradients = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        model(IDS).square().mean().backward()
        gradients.append([p.grad.clone() for p in adapter_parameters(model).values()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*gradients, strict=True))
    expected = outputs(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (outputs(model).float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_base_held_in_bf16_beside_a_float32_adapter(model, spec):
    attach(model.bfloat16(), spec)
    assert all(p.dtype == torch.float32 for p in adapter_parameters(model).values())
    model(IDS).float().square().mean().backward()
    assert all(p.grad is not None for p in adapter_parameters(model).values())


def test_saved_and_loaded_in_turn_and_in_another_process(model, spec, tmp_path):
    model.save_pretrained(tmp_path / "base")
    expected = {}
    for seed in (1, 2):
        randomised(attach(model, spec), seed)
        expected[seed] = outputs(model)
        save(model, tmp_path / str(seed))
        detach(model)
    for seed in (1, 2, 1):  # an attached adapter gives way
        assert torch.equal(outputs(load(model, tmp_path / str(seed)).eval()), expected[seed])
    torch.save(IDS, tmp_path / "ids.pt")
    code = (
        "import sys, torch; from gpt2lib import GPT2; from gpt2lib.adapters import load; f = sys.argv[1]\n"
        "model = load(GPT2.from_pretrained(f + '/base'), f + '/2').eval()\n"
        "torch.save(model(torch.load(f + '/ids.pt')).detach(), f + '/out.pt')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    # another process may run with another number of threads, which rounds otherwise
    assert (torch.load(tmp_path / "out.pt") - expected[2]).abs().max() < 1e-5


def test_loading_refuses_another_base_and_damage(model, tmp_path):
    save(attach(model, LoRA()), tmp_path)
    with pytest.raises(ValueError, match="another base"):
        load(random_model(seed=1), tmp_path)
    content = json.loads((tmp_path / "adapter.json").read_text())
    (tmp_path / "adapter.json").write_text(json.dumps(content | {"spec": content["spec"] | {"rank": 4}}))
    with pytest.raises(ValueError, match="does not hold"):
        load(detach(model), tmp_path)
    (tmp_path / "adapter.json").write_text(json.dumps(content | {"spec": {"method": "magic"}}))
    with pytest.raises(ValueError, match=r"magic.*possible: lora"):
        load(model, tmp_path)
    (tmp_path / "adapter.json").write_text(json.dumps(content))
    (tmp_path / "adapter.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        load(model, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"adapter\.json"):
        load(model, tmp_path / "nowhere")


def test_specifications_go_to_json_and_back(spec):
    assert Spec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m: LoRA(rank=0), "rank"),
        (lambda m: LoRA(dropout=1.0), "dropout"),
        (lambda m: LoRA(targets=("q", "c_attn")), "q, k, v, o, up, down"),
        (lambda m: LoRA(targets="q"), "tuple"),
        (lambda m: LoRA(targets=("q", "q")), "different"),
        (lambda m: LoRA(targets=()), "targets"),
        (lambda m: attach(m, LoRA(rank=33)), "rank=33 is above that of q, 32"),
        (lambda m: attach(attach(m, LoRA()), LoRA()), "already"),
        (lambda m: save(m, "unused"), "no adapter"),
        (lambda m: Spec.from_json('{"method": "lora", "bank": 3}'), "bank"),
    ],
)
def test_bad_input(model, build, message):
    with pytest.raises(ValueError, match=message):
        build(model)


def test_a_failed_attach_changes_nothing(model):
    before = dict(model.named_parameters())
    with pytest.raises(ValueError, match="rank"):
        attach(model, LoRA(rank=40, targets=("up", "q")))
    assert dict(model.named_parameters()) == before
    assert all(p.requires_grad for p in model.parameters())
