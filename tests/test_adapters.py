"""What every adapter must do, as one list of properties over one list of specifications."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import FAMILIES, difference_in_chunks, random_model
from safetensors.torch import load_file, save_file

from gpt2lib import AdamW, GPT2Config
from gpt2lib.adapters import (
    SPECIFICATIONS,
    AlphaLoRA,
    GraphLoRA,
    KANLoRA,
    KronA,
    KronAB,
    LoRA,
    Spec,
    adapter_parameters,
    attach,
    detach,
    load,
    merge,
    save,
    to_peft,
    trained_count,
)
from gpt2lib.adapters.krona import factor_shapes
from gpt2lib.model.base import random_model as new_model
from gpt2lib.model.config import PUBLISHED
from gpt2lib.tasks.adapted import save_adapted
from gpt2lib.training.objectives import LanguageModel

ALL = ("q", "k", "v", "o", "up", "down")
SPECS = [
    LoRA(),
    LoRA(rank=3, alpha=5.0, targets=ALL, rank_stabilised=True),
    LoRA(rank=2, dropout=0.3, targets=("up", "o")),
    KronA(),
    KronA(shape=(2, 16), targets=ALL, scale=0.5),
    KronA(budget=100, targets=("up", "down"), dropout=0.1),
    KronAB(),
    KronAB(residual=True, budget=100),
    AlphaLoRA(),
    AlphaLoRA(rank=3, targets=ALL),
    GraphLoRA(top_k=3),
    GraphLoRA(rank=2, targets=("v", "up"), graph_rank=4, heads=1, top_k=None, threshold=0.1, scores="dot"),
    KANLoRA(),
    KANLoRA(rank=2, targets=("q", "down"), kan_rank=3, grid=4, order=2),
    KANLoRA(full_size=True),
]
GATED = [  # what a family with a gate has beside those
    LoRA(targets=(*ALL, "gate")),
    KronA(targets=("gate", "up")),
    AlphaLoRA(targets=("down", "gate")),
    GraphLoRA(targets=("gate",), top_k=None),  # a choice of edges is no matter of degree, as bf16 is
    KANLoRA(targets=("gate", "up", "down")),
]
CASES = [(family, spec) for family in FAMILIES for spec in SPECS + GATED * (family == "llama")]
MERGEABLE = [case for case in CASES if isinstance(case[1], KronA | AlphaLoRA | LoRA)]
IDS = torch.randint(0, 61, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=CASES, ids=str)
def case(request) -> tuple[str, Spec]:
    return request.param


@pytest.fixture
def spec(case) -> Spec:
    return case[1]


@pytest.fixture
def model(request):
    """A GPT-2, or of the family that the case is about."""
    return random_model(family=request.getfixturevalue("case")[0] if "case" in request.fixturenames else "gpt2")


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
    assert {spec.method for spec in SPECS} == set(SPECIFICATIONS)


def test_identity_at_first_and_an_effect_when_randomised(model, spec):
    before = outputs(model)
    attach(model, spec)
    assert torch.equal(outputs(model), before)
    assert (outputs(randomised(model)) - before).abs().max() > 1e-2


def formula(spec: Spec, config) -> int:
    """Trained parameters of one block, by the formulas of the papers."""
    d = config.n_embd
    shared = d * getattr(config, "n_kv_head", config.n_head) // config.n_head
    inner = getattr(config, "n_inner", 4 * d)
    shapes = {"q": (d, d), "k": (shared, d), "v": (shared, d), "o": (d, d)}
    shapes |= {"up": (inner, d), "gate": (inner, d), "down": (d, inner)}

    def kronecker(d_out, d_in):
        (a1, a2), (b1, b2) = factor_shapes(d_out, d_in, spec.shape, spec.budget)
        assert (a1 * b1, a2 * b2) == (d_out, d_in)
        return a1 * a2 + b1 * b2

    if isinstance(spec, KronAB):
        return kronecker(d, d) + spec.residual
    if isinstance(spec, KronA):
        return sum(kronecker(*shapes[target]) for target in spec.targets)
    count = sum(spec.rank * sum(shapes[target]) for target in spec.targets)
    if isinstance(spec, AlphaLoRA):
        count += sum(shapes[target][0] for target in spec.targets)
    if isinstance(spec, GraphLoRA):
        r = spec.graph_rank
        count += 2 * d * r + 2 * r * r + r * (spec.scores == "gatv2")
    if isinstance(spec, KANLoRA):
        r = d if spec.full_size else spec.kan_rank
        count += 2 * d * r * (not spec.full_size) + r * r * (1 + spec.grid + spec.order)
    return count


def test_trained_parameters_equal_the_formula(model, spec):
    attach(model, spec)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(adapter_parameters(model))
    assert sum(p.numel() for p in adapter_parameters(model).values()) == 2 * formula(spec, model.config)


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("method", SPECIFICATIONS)
def test_all_published_sizes(size, method):
    """The published width and heads, one block of it: identity, count, and one trained step of every parameter."""
    config, spec = replace(PUBLISHED[size], n_layer=1, vocab_size=61, n_positions=16), SPECIFICATIONS[method]()
    model = new_model(config).eval()
    before = outputs(model)
    attach(model, spec)
    assert (outputs(model) - before).abs().max() < 1e-6
    assert sum(p.numel() for p in adapter_parameters(model).values()) == formula(spec, config)
    randomised(model)(IDS).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in adapter_parameters(model).values())


def test_the_count_of_lora_on_gpt2_small():
    assert trained_count(LoRA(rank=8), GPT2Config()) == 294_912


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


@pytest.mark.parametrize("case", MERGEABLE, ids=str)
def test_merging_is_exact_and_happens_once(model, spec):
    attach(model.double(), spec)
    expected = outputs(randomised(model.double()))
    merge(model)
    assert (outputs(model) - expected).abs().max() < 1e-10
    assert not adapter_parameters(model)
    with pytest.raises(ValueError, match="no adapter"):
        merge(model)


@pytest.mark.parametrize("case", [case for case in CASES if case not in MERGEABLE], ids=str)
def test_what_cannot_merge_says_so_and_stays(model, spec):
    expected = outputs(randomised(attach(model, spec)))
    with pytest.raises(ValueError, match=rf"{spec.method} cannot be merged .* blocks\.0"):
        merge(model)
    assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize("case", MERGEABLE, ids=str)
def test_a_merged_model_is_a_plain_one(model, spec, tmp_path):
    attach(model, spec)
    with pytest.raises(ValueError, match="merge"):
        model.save_pretrained(tmp_path)
    expected = outputs(randomised(model))
    merge(model).save_pretrained(tmp_path)
    assert all(p.requires_grad for p in model.parameters())  # as `from_pretrained` would give them
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
        assert (outputs(model, wide, mask)[:, real] - outputs(model)).abs().max() < 1e-4


def test_cached_generation_equals_uncached(model, spec):
    randomised(attach(model, spec))
    expected = IDS
    for _ in range(8):
        expected = torch.cat([expected, model.logits(outputs(model, expected)[:, -1]).argmax(-1, keepdim=True)], 1)
    assert torch.equal(model.generate(IDS, max_new_tokens=8, temperature=0), expected)


@pytest.mark.parametrize("size", [1, 4])
def test_a_prompt_in_chunks_gives_what_one_pass_gives(model, spec, size):
    """Chunks of several tokens with a cache, padded or not: every adapter is given a mask that it can read."""
    randomised(attach(model, spec))
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0
    for attention_mask in (None, mask):
        assert difference_in_chunks(model, IDS, attention_mask, size) < 1e-4


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
        assert (outputs(model).float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_a_base_held_in_bf16_beside_a_float32_adapter(model, spec):
    attach(model.bfloat16(), spec)
    assert all(p.dtype == torch.float32 for p in adapter_parameters(model).values())
    model(IDS).float().square().mean().backward()
    assert all(p.grad is not None for p in adapter_parameters(model).values())


def test_cast_to_bf16_with_its_base(model, spec):
    randomised(attach(model, spec))
    expected = outputs(model)
    seen = outputs(model.bfloat16())
    assert seen.dtype == torch.bfloat16
    assert (seen.float() - expected).abs().mean() < 0.1 * expected.abs().mean()
    model(IDS).float().square().mean().backward()
    assert model.generate(IDS, max_new_tokens=3, temperature=0).shape == (3, 14)


def test_saved_and_loaded_in_turn(model, spec, tmp_path):
    expected = {}
    for seed in (1, 2):
        randomised(attach(model, spec), seed)
        expected[seed] = outputs(model)
        save(model, tmp_path / str(seed))
        detach(model)
    for seed in (1, 2, 1):  # an attached adapter gives way
        assert torch.equal(outputs(load(model, tmp_path / str(seed)).eval()), expected[seed])


def test_files_that_belong_together_are_replaced_together(tmp_path, monkeypatch):
    """A disk that is full after the first of two files: what was saved there before stays, as a whole."""
    writers = {
        "adapter": lambda model, folder: save(model, folder),
        "peft": lambda model, folder: to_peft(model, folder),
        "run": lambda model, folder: save_adapted(folder, "sonnets", LanguageModel(model), "mine", 9),
        "base": lambda model, folder: merge(model).save_pretrained(folder),
    }
    for name, write in writers.items():
        write(attach(random_model(), LoRA(alpha=16)), tmp_path / name)

    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before, whole, calls = contents(), os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        whole(source, target)

    monkeypatch.setattr(os, "replace", full)
    for name, write in writers.items():
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            write(attach(random_model(seed=1), LoRA(rank=2, alpha=1)), tmp_path / name)
        assert len(calls) == 2 and contents() == before


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_in_another_process(family, tmp_path):
    model = random_model(family=family)
    model.save_pretrained(tmp_path / "base")
    expected = []
    for i, spec in enumerate(spec for name, spec in CASES if name == family):
        expected.append(outputs(randomised(attach(model, spec))))
        save(model, tmp_path / str(i))
        detach(model)
    torch.save(IDS, tmp_path / "ids.pt")
    code = (
        "import sys, torch; from gpt2lib.model.base import load_model; from gpt2lib.adapters import load\n"
        "f = sys.argv[1]\n"
        "torch.set_grad_enabled(False); model, ids = load_model(f + '/base'), torch.load(f + '/ids.pt')\n"
        "out = [load(model, f'{f}/{i}').eval()(ids) for i in range(int(sys.argv[2]))]\n"
        "torch.save(out, f + '/out.pt')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(len(expected))], check=True)
    # another process may run with another number of threads, which rounds otherwise
    for seen, out in zip(torch.load(tmp_path / "out.pt"), expected, strict=True):
        assert (seen - out).abs().max() < 1e-5


def test_a_failing_load_leaves_the_adapter_that_was_attached(case, tmp_path):
    family, spec = case
    save(attach(random_model(family=family), LoRA(rank=3)), tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    save_file({name: t[:1].clone() for name, t in tensors.items()}, tmp_path / "adapter.safetensors")
    model = randomised(attach(random_model(family=family), spec))
    expected, trained = outputs(model), {name for name, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="does not hold"):
        load(model, tmp_path)
    assert model.adapter == spec and torch.equal(outputs(model), expected)
    assert (
        trained == {name for name, p in model.named_parameters() if p.requires_grad} == set(adapter_parameters(model))
    )
    plain = random_model(family=family)
    with pytest.raises(ValueError, match="does not hold"):
        load(plain, tmp_path)
    assert plain.adapter is None and all(p.requires_grad for p in plain.parameters())


def test_specifications_go_through_json_and_back(spec):
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_range_of_blocks_is_adapted_and_no_other(case, model, tmp_path):
    family, spec = case
    ranged = replace(spec, layers=(1, 2))
    attach(model, ranged)
    assert adapter_parameters(model) and all(name.startswith("blocks.1.") for name in adapter_parameters(model))
    assert trained_count(ranged, model.config) * 2 == trained_count(spec, model.config)
    randomised(model)
    save(model, tmp_path)
    again = load(random_model(family=family), tmp_path)
    assert again.adapter == ranged and torch.equal(outputs(again), outputs(model))


@pytest.mark.parametrize("layers", [(0, 3), (2, 3)])
def test_a_range_beyond_the_model_is_refused(model, spec, layers):
    before = {name: id(p) for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"2 blocks"):
        attach(model, replace(spec, layers=layers))
    assert {name: id(p) for name, p in model.named_parameters()} == before


@pytest.mark.parametrize("layers", [(1, 1), (2, 1), (-1, 2), (1,), [0, 1], 3, (0.0, 1.0)])
def test_what_is_no_range_is_refused(layers):
    said = r"layers must be (None or \(first, end\)|a tuple \(an integer, an integer\) or None)"
    with pytest.raises(ValueError, match=said):
        LoRA(layers=layers)
