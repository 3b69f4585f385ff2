"""Why rescaling frozen weights helps: alpha-LoRA's theory for a linear classifier (arXiv 2510.21345), simulated.

The setting. Target data x = y mu + z with labels y = +-1, noise z ~ N(0, I_p) and n samples. A source vector w_s is
frozen; the fine-tuned classifier is w_alpha = alpha w_s + w, where w minimises
    (1/n) sum_i (y_i - (alpha w_s + w)^T x_i)^2 + gamma |w|^2,
and it answers sign(w_alpha^T x). As p and n grow with eta = p / n fixed, its test accuracy depends on five numbers:
    m2 = |mu|^2     c = <w_s, mu>     w2 = |w_s|^2     eta = p / n     gamma
All functions take numbers or arrays that broadcast. They hold for large p and n (hundreds: within a hundredth) and for
a source that does not depend on the target's samples.
"""

import math

import numpy as np
import pandas as pd
from scipy.stats import norm

from gpt2lib.common.checks import check_count


def accuracy(alpha, m2, c, w2, eta, gamma) -> np.ndarray:
    """The asymptotic test accuracy Phi(m / sqrt(E2 - m^2)) of w_alpha, broadcast over the arguments.

    m(alpha) and E2(alpha) are the first two moments of the decision y w_alpha^T x (the paper's theorem 1). alpha may be
    any number; for the others see `best_alpha`.
    """
    alpha, m2, c, w2, eta, gamma = _checked(m2, c, w2, eta, gamma, alpha=alpha)
    with np.errstate(all="ignore"):  # what overflows is refused below
        k, lam, h = _resolvent(m2, eta, gamma)
        mean = (m2 + alpha * k * c) / lam
        t1 = _second_moment_from_scratch(m2, k, lam, h)
        t2 = 2 * k * c * ((m2 + 1) / lam - (1 - h)) / (h * lam)
        t3 = k**2 * ((c / lam) ** 2 + (1 - h) * w2 / eta + (1 - h) * c**2 * (m2 / lam - 2) / (eta * lam)) / h
        result = norm.cdf(mean / np.sqrt(t1 + alpha * t2 + alpha**2 * t3 - mean**2))
    _refuse(np.isfinite(result), alpha, "alpha, m2, c, w2, eta or gamma is beyond floating point: alpha")
    return result


def best_alpha(m2, c, w2, eta, gamma) -> np.ndarray:
    """The alpha of highest accuracy, eta (1 + k) c / (k (lam m2 w2 - (lam - eta) c^2)), broadcast over the arguments.

    It has the sign of c, and is 0 for a source that knows nothing (c = 0).
    Raises ValueError unless m2 > 0, w2 >= 0, eta > 0, gamma > 0 and c^2 <= m2 w2, as for any two vectors.
    """
    m2, c, w2, eta, gamma = _checked(m2, c, w2, eta, gamma)
    k, lam, _ = _resolvent(m2, eta, gamma)
    denominator = k * (lam * m2 * w2 - (lam - eta) * c**2)  # at least k eta c^2
    return np.divide(eta * (1 + k) * c, denominator, out=np.zeros_like(denominator), where=c != 0)


def ridge_source(m2, beta, eta, gamma) -> tuple[np.ndarray, np.ndarray]:
    """c and w2 of a source that is a ridge classifier itself, in the limit of large p: two arrays.

    It was trained on N = p / eta samples of mean mu_s with ridge gamma, where |mu_s|^2 = m2 and the target's mean is
    mu = beta mu_s + sqrt(1 - beta^2) mu_orth, |mu| = |mu_s|. By the target's formulas at alpha = 0 its mean decision on
    its own data is m2 / lam, and its squared norm is the second moment less the mean squared.
    Raises ValueError unless -1 <= beta <= 1, m2 > 0, eta > 0, gamma > 0.
    """
    m2, beta, eta, gamma = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (m2, beta, eta, gamma)))
    _refuse(np.abs(beta) <= 1, beta, "beta must be in [-1, 1]")
    _positive(m2=m2, eta=eta, gamma=gamma)
    k, lam, h = _resolvent(m2, eta, gamma)
    return beta * m2 / lam, _second_moment_from_scratch(m2, k, lam, h) - (m2 / lam) ** 2


def simulate(alpha, m2, c, w2, eta, gamma, p: int = 300, draws: int = 20, seed: int = 0) -> np.ndarray:
    """Accuracy of w_alpha in finite dimension: [draws, number of alphas]. The arguments but alpha are numbers.

    Every draw makes a new mean, a new source with exactly the given c and w2, and n = round(p / eta) new samples, and
    solves the ridge problem. The accuracy of a given w, Phi(<w, mu> / |w|), is exact, so that only training is random.
    """
    _checked(m2, c, w2, eta, gamma)
    along = c / m2

    def task(rng):
        mu, across = _directions(rng, p, m2)
        return mu, along * mu + math.sqrt(max(0.0, w2 - along**2 * m2) / m2) * across

    return _simulated(task, alpha, eta, gamma, p, draws, seed)


def simulate_ridge_source(
    alpha, m2, beta, eta_source, gamma_source, eta, gamma, p: int = 300, draws: int = 20, seed: int = 0
) -> np.ndarray:
    """Like `simulate`, with a source that is trained too, on its own p / eta_source samples (see `ridge_source`)."""
    ridge_source(m2, beta, eta_source, gamma_source)
    samples = _samples(p, eta_source)

    def task(rng):
        mu_source, across = _directions(rng, p, m2)
        X, y = _data(rng, mu_source, samples)
        mu = beta * mu_source + math.sqrt(1 - beta**2) * across
        return mu, _ridge(X, gamma_source, X @ y / len(y))

    return _simulated(task, alpha, eta, gamma, p, draws, seed)


def compare(
    settings: dict[str, tuple[float, float, float]],
    alphas: np.ndarray,
    simulated: np.ndarray,
    m2: float = 2.0,
    eta_source: float = 0.5,
    gamma_source: float = 1.0,
    p: int = 300,
    draws: int = 20,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Theory beside simulation, for `figures.accuracy_over_alpha`: lines, points with standard errors, and best alphas.

    settings: name -> (beta, eta, gamma) of a target whose source is a ridge classifier. alphas, simulated: where the
    lines and the points are.
    """
    lines, points, best = [], [], {}
    for name, (beta, eta, gamma) in settings.items():
        c, w2 = ridge_source(m2, beta, eta_source, gamma_source)
        line = accuracy(alphas, m2, c, w2, eta, gamma)
        lines.append(pd.DataFrame({"setting": name, "alpha": alphas, "accuracy": line}))
        seen = simulate_ridge_source(simulated, m2, beta, eta_source, gamma_source, eta, gamma, p, draws, seed)
        error = seen.std(0, ddof=1) / math.sqrt(draws) if draws > 1 else np.nan
        row = {"setting": name, "alpha": simulated, "accuracy": seen.mean(0), "error": error}
        points.append(pd.DataFrame(row | {"theory": accuracy(simulated, m2, c, w2, eta, gamma)}))
        best[name] = float(best_alpha(m2, c, w2, eta, gamma))
    return pd.concat(lines, ignore_index=True), pd.concat(points, ignore_index=True), best


def _simulated(task, alpha, eta: float, gamma: float, p: int, draws: int, seed: int) -> np.ndarray:
    """Accuracy for every alpha in every draw: [draws, alphas]. task: draws mean and source, [p] each."""
    n = _samples(p, eta)
    draws = _count("draws", draws)
    rng = np.random.default_rng(seed)
    alphas = np.atleast_1d(np.asarray(alpha, dtype=float))
    return np.array([_fine_tuned(rng, *task(rng), n, gamma, alphas) for _ in range(draws)])


def _resolvent(m2, eta, gamma):
    """k = gamma (1 + delta), lam and h of the deterministic equivalent of Q = (X X^T / n + gamma I)^-1."""
    b = eta - gamma - 1
    k = gamma + (b + np.sqrt(b**2 + 4 * eta * gamma)) / 2
    return k, m2 + 1 + k, 1 - eta / (1 + k) ** 2


def _second_moment_from_scratch(m2, k, lam, h):
    """T1, the second moment at alpha = 0: a ridge classifier without any source."""
    return m2 * ((m2 + 1) / lam - 2 * (1 - h)) / (h * lam) + (1 - h) / h


def _directions(rng, p: int, m2: float) -> tuple[np.ndarray, np.ndarray]:
    """Two random orthogonal vectors of squared norm m2: [p] each."""
    a, b = rng.standard_normal((2, p))
    b -= (a @ b) / (a @ a) * a
    return a * math.sqrt(m2 / (a @ a)), b * math.sqrt(m2 / (b @ b))


def _data(rng, mu, n: int) -> tuple[np.ndarray, np.ndarray]:
    """X: [p, n] and y: [n], as many of one class as of the other (or one more)."""
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    return mu[:, None] * y + rng.standard_normal((len(mu), n)), y


def _ridge(X, gamma: float, *right) -> np.ndarray:
    """Q times the given vectors [p]: [p], or [p, number of vectors]. By the smaller of the two Gram matrices."""
    p, n = X.shape
    rhs = np.stack(right, axis=1)
    if p <= n:
        solution = np.linalg.solve(X @ X.T / n + gamma * np.eye(p), rhs)
    else:  # (X X^T / n + gamma I)^-1 = (I - X (X^T X / n + gamma I)^-1 X^T / n) / gamma
        solution = (rhs - X @ np.linalg.solve(X.T @ X / n + gamma * np.eye(n), X.T @ rhs) / n) / gamma
    return solution[:, 0] if len(right) == 1 else solution


def _fine_tuned(rng, mu, source, n: int, gamma: float, alphas) -> np.ndarray:
    """Accuracy for every alpha on one draw of target data: w_alpha = Q X y / n + alpha gamma Q w_s."""
    X, y = _data(rng, mu, n)
    scratch, kept = _ridge(X, gamma, X @ y / n, gamma * source).T
    w = scratch + alphas[:, None] * kept  # [alphas, p]
    return norm.cdf(w @ mu / np.linalg.norm(w, axis=1))


def _checked(m2, c, w2, eta, gamma, **more) -> list[np.ndarray]:
    values = [np.asarray(v, dtype=float) for v in (*more.values(), m2, c, w2, eta, gamma)]
    *rest, m2, c, w2, eta, gamma = np.broadcast_arrays(*values)
    _positive(m2=m2, eta=eta, gamma=gamma)
    for name, value in {"c": c, "w2": w2, **dict(zip(more, rest, strict=True))}.items():
        _refuse(np.isfinite(value), value, f"{name} must be finite")
    _refuse(w2 >= 0, w2, "w2 = |w_s|^2 must be at least 0")
    _refuse(c**2 <= m2 * w2 * (1 + 1e-9), c, "c = <w_s, mu> must satisfy c^2 <= m2 w2, as for any two vectors")
    return [*rest, m2, c, w2, eta, gamma]


def _positive(**values) -> None:
    for name, value in values.items():
        _refuse((value > 0) & np.isfinite(value), value, f"{name} must be a number above 0")


def _refuse(good, value, message: str) -> None:
    if not np.all(good):
        raise ValueError(f"{message}, not {float(np.asarray(value)[~np.asarray(good)].flat[0]):g}")


def _count(name: str, value) -> int:
    """The value, which must be at least 1; numpy's integers are integers too."""
    value = value.item() if isinstance(value, np.integer) else value
    check_count(name, value)
    return value


def _samples(p: int, eta: float) -> int:
    """n = p / eta. Raises ValueError unless p and n are at least 1."""
    p = _count("p", p)
    n = round(p / eta) if eta > 0 else 0
    if n < 1:
        raise ValueError(f"p={p} and eta={eta:g} leave n = p / eta below 1 sample; raise p or lower eta")
    return n
