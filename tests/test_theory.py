"""alpha-LoRA's theory: its formulas against simulation, against a fine grid, and in the limits that can be proved."""

import itertools

import numpy as np
import pytest

from gpt2lib.theory import accuracy, best_alpha, ridge_source, simulate, simulate_ridge_source

ALPHAS = np.array([-1, 0, 0.5, 1, 2, 4, 8])
GRID = list(itertools.product((0.5, 1, 2, 5), (0.1, 1, 5), (-0.5, 0.4, 0.9)))  # eta, gamma, beta


@pytest.mark.parametrize(("eta", "gamma", "beta"), GRID)
def test_theory_is_simulation_within_a_hundredth(eta, gamma, beta):
    c, w2 = ridge_source(2.0, beta, 1.0, 1.0)
    expected = accuracy(ALPHAS, 2.0, c, w2, eta, gamma)
    seen = simulate_ridge_source(ALPHAS, 2.0, beta, 1.0, 1.0, eta, gamma, p=300, draws=20)
    assert abs(seen.mean(0) - expected).max() <= 0.01


@pytest.mark.parametrize(
    ("m2", "c", "w2", "eta", "gamma"), [(2, 1, 1, 2, 1), (1, -0.5, 0.5, 1, 0.1), (4, 3, 3, 0.5, 2)]
)
def test_an_arbitrary_source_too(m2, c, w2, eta, gamma):
    seen = simulate(ALPHAS, m2, c, w2, eta, gamma, p=400, draws=20)
    assert abs(seen.mean(0) - accuracy(ALPHAS, m2, c, w2, eta, gamma)).max() <= 0.01


@pytest.mark.parametrize(("eta", "gamma", "beta"), GRID)
def test_best_alpha_is_the_argmax_of_a_fine_grid(eta, gamma, beta):
    c, w2 = ridge_source(2.0, beta, 1.0, 1.0)
    best = float(best_alpha(2.0, c, w2, eta, gamma))
    grid = best + np.arange(-3000, 3001) / 1000
    assert abs(grid[accuracy(grid, 2.0, c, w2, eta, gamma).argmax()] - best) <= 0.05


def test_alpha_0_is_training_from_scratch():
    """Without the source neither c nor w2 matters, and the accuracy is that of a ridge classifier alone."""
    values = [accuracy(0, 2.0, c, w2, 1.5, 0.7) for c, w2 in ((0, 0), (1, 1), (-2, 5))]
    assert np.ptp(values) < 1e-12
    scratch = simulate(0.0, 2.0, 0.0, 0.0, 1.5, 0.7, p=600, draws=10).mean()
    assert abs(scratch - values[0]) <= 0.01


def test_a_source_that_knows_nothing_is_best_forgotten():
    assert best_alpha(2.0, 0.0, 3.0, 1.0, 1.0) == 0
    assert best_alpha(2.0, 0.0, 0.0, 1.0, 1.0) == 0
    c, w2 = ridge_source(2.0, np.array([-0.8, 0.0, 0.8]), 1.0, 1.0)
    assert (np.sign(best_alpha(2.0, c, w2, 1.0, 1.0)) == [-1, 0, 1]).all()


def test_more_target_data_leaves_less_to_gain():
    """eta = p / n falls: the best alpha's gain over training from scratch goes to 0, monotonically."""
    eta = np.array([8, 4, 2, 1, 0.5, 0.1, 0.01, 1e-4])
    c, w2 = ridge_source(2.0, 0.7, 1.0, 1.0)
    best = best_alpha(2.0, c, w2, eta, 1.0)
    gain = accuracy(best, 2.0, c, w2, eta, 1.0) - accuracy(0, 2.0, c, w2, eta, 1.0)
    assert (np.diff(gain) < 0).all() and gain[0] > 0.02 and gain[-1] < 1e-4


def test_best_alpha_is_never_worse_than_0_or_1():
    rng = np.random.default_rng(0)
    m2, w2, eta, gamma = rng.uniform(0.1, 5, (4, 500))
    c = rng.uniform(-1, 1, 500) * np.sqrt(m2 * w2)
    best = accuracy(best_alpha(m2, c, w2, eta, gamma), m2, c, w2, eta, gamma)
    for alpha in (0, 1):
        assert (best >= accuracy(alpha, m2, c, w2, eta, gamma) - 1e-12).all()


def test_arguments_broadcast():
    assert accuracy(ALPHAS[:, None], 2.0, 1.0, 1.0, np.array([0.5, 1, 2]), 1.0).shape == (7, 3)
    assert best_alpha(2.0, 1.0, 1.0, np.array([0.5, 1, 2]), 1.0).shape == (3,)
    assert simulate(ALPHAS, 2.0, 1.0, 1.0, 1.0, 1.0, p=20, draws=3).shape == (3, 7)
    assert (simulate(1.0, 2, 1, 1, 1, 1, p=20, seed=1) == simulate(1.0, 2, 1, 1, 1, 1, p=20, seed=1)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(1, 2, 1, 1, 1, 0), "gamma must be a number above 0, not 0"),
        (lambda: accuracy(1, 2, 1, 1, [1, -1], 1), "eta must be a number above 0, not -1"),
        (lambda: accuracy(np.nan, 2, 1, 1, 1, 1), "alpha must be finite"),
        (lambda: best_alpha(0, 0, 1, 1, 1), "m2"),
        (lambda: best_alpha(2, 0, -1, 1, 1), "w2"),
        (lambda: best_alpha(2, 3, 1, 1, 1), "any two vectors"),
        (lambda: ridge_source(2, 1.1, 1, 1), r"beta must be in \[-1, 1\], not 1\.1"),
        (lambda: simulate(1, 2, 1, 1, 1, 1, p=0), "p must be an integer of at least 1"),
        (lambda: simulate(1, 2, 1, 1, 9, 1, p=3), "below 1 sample"),
        (lambda: simulate(1, 2, 1, 1, 1, 1, draws=0), "draws"),
        (lambda: simulate_ridge_source(1, 2, -2, 1, 1, 1, 1), "beta"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
