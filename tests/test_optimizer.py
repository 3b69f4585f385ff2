"""AdamW: its formula, its agreement with PyTorch's, and its refusals."""

import pytest
import torch

from gpt2lib import AdamW
from gpt2lib.training.optimizer import Muon, orthogonalise


def train(optimizer_class, steps=1000, **settings):
    """A small regression, stochastic like real training."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    x, noise = torch.randn(steps, 32, 8), torch.randn(steps, 32, 1)
    optimizer = optimizer_class(net.parameters(), **settings)
    for step in range(steps):
        optimizer.zero_grad()
        (net(x[step]) - x[step].sum(1, keepdim=True).sin() - 0.1 * noise[step]).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_agrees_with_torch_over_1000_steps(weight_decay):
    settings = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)
    difference = (train(AdamW, **settings) - train(torch.optim.AdamW, **settings)).abs().max()
    assert difference < 1e-4


@pytest.mark.parametrize("correct_bias", [True, False])
def test_steps_are_the_formula(correct_bias):
    torch.manual_seed(0)
    p = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    expected, m, v = p.detach().clone(), 0, 0
    lr, b1, b2, eps, decay = 0.1, 0.8, 0.95, 1e-6, 0.3
    optimizer = AdamW([p], lr, (b1, b2), eps, decay, correct_bias)
    for t in range(1, 8):
        g = torch.randn(3, 2, dtype=torch.float64)
        p.grad = g.clone()
        optimizer.step()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        rate = lr * (1 - b2**t) ** 0.5 / (1 - b1**t) if correct_bias else lr
        expected = expected - rate * m / (v**0.5 + eps)
        expected = expected - lr * decay * expected
    assert (p - expected).abs().max() < 1e-12


def test_a_parameter_without_gradient_rests_and_counts_its_own_steps():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = AdamW([a, b], lr=0.1, weight_decay=0.5)
    a.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(b, torch.ones(2))
    b.grad = torch.ones(2)
    optimizer.step()
    alone = torch.ones(2, requires_grad=True)
    alone.grad = torch.ones(2)
    AdamW([alone], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(b, alone)


def test_state_survives_saving():
    torch.manual_seed(0)
    gradients = torch.randn(20, 4)

    def run(interrupt):
        p = torch.zeros(4, requires_grad=True)
        optimizer = AdamW([p], lr=0.1, weight_decay=0.1)
        for step, g in enumerate(gradients):
            if step == interrupt:
                state = optimizer.state_dict()
                optimizer = AdamW([p], lr=9.9)
                optimizer.load_state_dict(state)
            p.grad = g.clone()
            optimizer.step()
        return p.detach()

    assert torch.equal(run(None), run(10))


@pytest.mark.parametrize(
    "settings", [dict(lr=-1), dict(betas=(1.0, 0.9)), dict(betas=(0.9, -0.1)), dict(eps=-1e-8), dict(weight_decay=-1)]
)
def test_bad_settings_name_themselves(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        AdamW([torch.zeros(1, requires_grad=True)], **settings)
    with pytest.raises(ValueError, match=next(iter(settings))):  # of a group, too
        AdamW([{"params": [torch.zeros(1, requires_grad=True)], **settings}])


def test_sparse_gradients_are_refused():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse"):
        AdamW(embedding.parameters()).step()


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4)])
def test_muon_orthogonalises(shape):
    """All singular values of the update but tiny ones are brought near 1 in five iterations, its directions stay."""
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    g = u * torch.linspace(1, 0.1, min(shape)) @ v
    update = orthogonalise(g)
    values = torch.linalg.svdvals(update)
    assert values.max() < 1.2 and values.min() > 0.6
    rotated = u.mT @ update @ v.mT  # diagonal in the gradient's own basis
    assert (rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-3


def test_muon_moves_matrices_by_its_own_rule_and_the_rest_by_adamws():
    torch.manual_seed(0)
    matrix, bias = (torch.nn.Parameter(torch.randn(*shape)) for shape in ((6, 4), (6,)))
    reference = torch.nn.Parameter(bias.detach().clone())
    start, grads = matrix.detach().clone(), [torch.randn(6, 4), torch.randn(6)]
    muon = Muon([matrix], [bias], lr=0.1, betas=(0.9, 0.95), weight_decay=0.01)
    adamw = AdamW([reference], lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    matrix.grad, bias.grad, reference.grad = grads[0], grads[1], grads[1].clone()
    muon.step()
    adamw.step()
    assert torch.equal(bias, reference)
    expected = start - 0.1 * 0.2 * 6**0.5 * orthogonalise((1 + 0.95) * grads[0][None])[0]
    assert torch.allclose(matrix, expected * (1 - 0.1 * 0.01), atol=1e-5)
    with pytest.raises(ValueError, match=r"matrices; give parameters of shape \[6\]"):
        Muon([bias], [matrix])
