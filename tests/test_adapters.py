"""What every adapter must do, as one list of properties over one list of specifications."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import random_model

from gpt2lib import GPT2, AdamW, GPT2Config
from gpt2lib.adapters import (
    METHODS,
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
    trained_count,
)
from gpt2lib.adapters.kan_lora import KANMLP, bspline_bases
from gpt2lib.adapters.krona import factor_shapes, kronecker_linear

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
MERGEABLE = [spec for spec in SPECS if isinstance(spec, KronA | AlphaLoRA) or type(spec) is LoRA]
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


def formula(spec: Spec, d: int) -> int:
    """Trained parameters of one block of width d, by the formulas of the papers."""
    shapes = dict.fromkeys("qkvo", (d, d)) | {"up": (4 * d, d), "down": (d, 4 * d)}

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
    assert sum(p.numel() for p in adapter_parameters(model).values()) == 2 * formula(spec, 32)


@pytest.mark.parametrize("size", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
@pytest.mark.parametrize("spec", [method() for method in METHODS.values()], ids=str)
def test_all_sizes_of_gpt2(size, spec):
    """The published width and heads, one block of it: identity, count, and one trained step of every parameter."""
    config = GPT2Config.from_name(size, n_layer=1, vocab_size=61, n_positions=16, embd_pdrop=0.0, resid_pdrop=0.0)
    model = GPT2(config).eval()
    before = outputs(model)
    attach(model, spec)
    assert (outputs(model) - before).abs().max() < 1e-6
    assert sum(p.numel() for p in adapter_parameters(model).values()) == formula(spec, config.n_embd)
    randomised(model)(IDS).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in adapter_parameters(model).values())


def test_the_count_of_lora_on_gpt2_small():
    assert 12 * formula(LoRA(rank=8), 768) == 294_912


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


@pytest.mark.parametrize("spec", MERGEABLE, ids=str)
def test_merging_is_exact_and_happens_once(spec):
    model = random_model().double()
    attach(model, spec)
    expected = outputs(randomised(model.double()))
    merge(model)
    assert (outputs(model) - expected).abs().max() < 1e-10
    assert not adapter_parameters(model)
    with pytest.raises(ValueError, match="no adapter"):
        merge(model)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in MERGEABLE], ids=str)
def test_what_cannot_merge_says_so_and_stays(model, spec):
    expected = outputs(randomised(attach(model, spec)))
    with pytest.raises(ValueError, match=rf"{spec.method} cannot be merged .* blocks\.0"):
        merge(model)
    assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize("spec", MERGEABLE, ids=str)
def test_a_merged_model_is_a_plain_gpt2(model, spec, tmp_path):
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
        "torch.set_grad_enabled(False)\n"
        "model = load(GPT2.from_pretrained(f + '/base'), f + '/2').eval()\n"
        "torch.save(model(torch.load(f + '/ids.pt')), f + '/out.pt')"
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
        (
            lambda m: attach(m, KronA(shape=(5, 4))),
            r"\[5, 4\] does not divide .*\[32, 32\]; possible: one of \[1, 2, 4",
        ),
        (lambda m: KronA(shape=(2, 2), budget=9), "not both"),
        (lambda m: KronAB(budget=1), "budget"),
        (lambda m: KronA(shape=(0, 2)), "a1 and a2"),
        (lambda m: KronAB(dropout=-1), "dropout"),
        (lambda m: AlphaLoRA(every=0), "every"),
        (lambda m: AlphaLoRA(share=1.0), "share"),
        (lambda m: GraphLoRA(heads=3), r"possible: \[1, 2, 4, 8\]"),
        (lambda m: GraphLoRA(threshold=2), "cosine"),
        (lambda m: GraphLoRA(top_k=0), "top_k"),
        (lambda m: GraphLoRA(scores="cosine"), "gatv2"),
        (lambda m: attach(m, GraphLoRA(graph_rank=64)), "possible: 1 to 32"),
        (lambda m: KANLoRA(grid=0), "grid"),
        (lambda m: attach(m, KANLoRA(kan_rank=33)), "possible: 1 to 32"),
        (lambda m: LoRA(rank=0), "rank"),
        (lambda m: LoRA(dropout=1.0), "dropout"),
        (lambda m: LoRA(targets=("q", "c_attn")), "q, k, v, o, up, down"),
        (lambda m: LoRA(targets="q"), "tuple"),
        (lambda m: LoRA(targets=("q", "q")), "different"),
        (lambda m: LoRA(targets=()), "targets"),
        (lambda m: attach(m, LoRA(rank=33)), "rank=33 is above that of q; possible: 1 to 32"),
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


@pytest.mark.parametrize("a", [(2, 6), (12, 1), (1, 12), (4, 3), (12, 12)])
def test_the_kronecker_product_is_applied_without_being_formed(a):
    A, B = torch.randn(a, dtype=torch.float64), torch.randn(24 // a[0], 12 // a[1], dtype=torch.float64)
    x = torch.randn(3, 5, 12, dtype=torch.float64)
    assert torch.allclose(kronecker_linear(x, A, B), x @ torch.kron(A, B).T, atol=1e-12)


def test_factor_shapes_are_balanced_or_meet_a_budget():
    assert factor_shapes(768, 768) == ((24, 24), (32, 32))
    for budget in (3072, 5000, 12_288):  # the least that there is: 2 sqrt(d_out d_in) = 3072
        (a1, a2), (b1, b2) = factor_shapes(768, 3072, budget=budget)
        assert abs(a1 * a2 + b1 * b2 - budget) <= 0.05 * budget


def test_a_kronecker_update_can_have_full_rank(model):
    randomised(attach(model, KronA()))
    assert torch.linalg.matrix_rank(model.blocks[0].attn.q.delta_weight()) == 32


def test_krona_equals_pefts_lokr_on_a_linear_layer():
    peft = pytest.importorskip("peft")
    ours = GPT2(GPT2Config(n_layer=1, n_embd=32, n_head=4, vocab_size=9, n_positions=8))
    attach(ours, KronA(targets=("up",), shape=(8, 4)))  # LoKr's own first factor for 128 x 32
    layer = randomised(ours).blocks[0].mlp.up
    theirs = torch.nn.Sequential(torch.nn.Linear(32, 128))
    config = peft.LoKrConfig(r=64, alpha=64, target_modules=["0"], decompose_both=False)
    theirs = peft.get_peft_model(theirs, config)
    inner = theirs.base_model.model[0]
    shapes = {name: p for name, p in inner.named_parameters() if "lokr_w" in name}
    first, second = (shapes[f"lokr_w{i}.default"] for i in (1, 2))
    shape = tuple(first.shape)
    detach(ours)
    layer = randomised(attach(ours, KronA(targets=("up",), shape=shape))).blocks[0].mlp.up
    with torch.no_grad():
        first.copy_(layer.A)
        second.copy_(layer.B)
        inner.base_layer.weight.copy_(layer.base.weight)
        inner.base_layer.bias.copy_(layer.base.bias)
        x = torch.randn(5, 32)
        assert torch.allclose(theirs(x), layer(x), atol=1e-4)


def test_a_fully_connected_graph_leaks_the_future(model):
    randomised(attach(model, GraphLoRA(fully_connected=True)))
    changed = IDS.clone()
    changed[:, -1] = (IDS[:, -1] + 1) % 61
    assert (outputs(model)[:, 0] - outputs(model, changed)[:, 0]).abs().max() > 1e-3


def test_the_graph_joins_at_most_top_k_similar_tokens(model):
    attach(model, GraphLoRA(top_k=3))
    block = model.blocks[0]
    attention, _ = block.attend(torch.randn(2, 9, 32), None)
    assert torch.allclose(attention.sum(-1), torch.ones(2, 2, 9))
    joined = attention > 0
    assert joined.sum(-1).max() <= 4  # three, and itself
    assert joined.diagonal(dim1=-2, dim2=-1).all()
    assert not joined.triu(1).any()


@pytest.mark.parametrize(("grid", "order"), [(5, 3), (4, 2), (1, 1), (7, 3)])
def test_bsplines_are_scipys_and_sum_to_one(grid, order):
    from scipy.interpolate import BSpline

    z = torch.linspace(-0.999, 0.999, 50, dtype=torch.float64)
    bases = bspline_bases(z, grid, order)
    assert bases.shape == (50, grid + order)
    assert torch.allclose(bases.sum(-1), torch.ones(50, dtype=torch.float64))
    assert (bases > 1e-12).sum(-1).max() <= order + 1
    knots = [-1 + 2 * m / grid for m in range(-order, grid + order + 1)]
    for m in range(grid + order):
        expected = BSpline.basis_element(knots[m : m + order + 2], extrapolate=False)(z.numpy())
        assert torch.allclose(bases[:, m], torch.nan_to_num(torch.as_tensor(expected)), atol=1e-9)


def test_a_refitted_grid_spans_the_data_and_keeps_the_curves(model):
    torch.manual_seed(0)
    attach(model, KANLoRA(kan_rank=4))
    layer = model.blocks[0].mlp
    assert isinstance(layer, KANMLP)
    torch.nn.init.normal_(layer.U)
    x = torch.randn(4000, 32)
    before = layer.delta(x)
    layer.fit_grid(x)
    z = (layer.project(x) - layer.middle) / layer.width
    assert 0.97 < (z.abs() <= 1).float().mean() < 0.99
    error = (layer.delta(x) - before).square().mean() / before.square().mean()
    assert error < 0.01


def test_a_range_of_blocks_is_adapted_and_no_other(model, spec, tmp_path):
    ranged = replace(spec, layers=(1, 2))
    attach(model, ranged)
    assert adapter_parameters(model) and all(name.startswith("blocks.1.") for name in adapter_parameters(model))
    assert trained_count(ranged, model.config) * 2 == trained_count(spec, model.config)
    randomised(model)
    save(model, tmp_path)
    again = load(random_model(), tmp_path)
    assert again.adapter == ranged and torch.equal(outputs(again), outputs(model))


@pytest.mark.parametrize("layers", [(0, 3), (2, 3)])
def test_a_range_beyond_the_model_is_refused(model, spec, layers):
    before = {name: id(p) for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"2 blocks"):
        attach(model, replace(spec, layers=layers))
    assert {name: id(p) for name, p in model.named_parameters()} == before


@pytest.mark.parametrize("layers", [(1, 1), (2, 1), (-1, 2), (1,), [0, 1], 3, (0.0, 1.0)])
def test_what_is_no_range_is_refused(layers):
    with pytest.raises(ValueError, match="layers must be None or"):
        LoRA(layers=layers)
