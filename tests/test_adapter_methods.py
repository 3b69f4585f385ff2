"""What one adapter alone must do, and what the file of an adapter must be."""

import json

import pytest
import torch
from conftest import random_model
from test_adapters import IDS, outputs, randomised

from gpt2lib import GPT2, GPT2Config
from gpt2lib.adapters import GraphLoRA, KANLoRA, KronA, LoRA, attach, detach, load, save
from gpt2lib.adapters.kan_lora import KANMLP, bspline_bases
from gpt2lib.adapters.krona import factor_shapes, kronecker_linear


def test_a_base_that_differs_in_one_number_is_another(model, tmp_path):
    save(attach(model, LoRA()), tmp_path)
    detach(model)
    for name, p in model.named_parameters():
        with torch.no_grad():
            p.view(-1)[-1] += 1
            with pytest.raises(ValueError, match="another base"):
                load(model, tmp_path)
            p.view(-1)[-1] -= 1
            p.data = p.data.clone()  # elsewhere in memory, and the same
        assert load(model, tmp_path) is model, name
        detach(model)
    load(model.bfloat16(), tmp_path)


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
