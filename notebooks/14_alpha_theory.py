# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # alpha-LoRA's theory: why rescaling the frozen weights helps
#
# **The question.** alpha-LoRA multiplies what is frozen. Is there a reason why some alpha other than 1 should be best,
# or is it one more knob? It runs in about a minute on one core.
#
# After this notebook you can
# - state the smallest problem in which the question has an exact answer, and simulate it in seconds,
# - read the best alpha off a closed formula, and say what it depends on,
# - say where something is gained over $\alpha = 1$, and where nothing is.

# %% tags=["parameters"]
p: int = 300  # dimension of the simulation
draws: int = 20  # repetitions
m2: float = 2.0  # |mu|^2: how far apart the two classes are
beta: float = 0.7  # similarity of source and target, -1 to 1
eta: float = 2.0  # dimensions for each target sample, p / n
gamma: float = 1.0  # ridge of the target
eta_source: float = 0.5  # p / N of the source
gamma_source: float = 1.0  # ridge of the source
seed: int = 0  # of the simulation

# %%
import numpy as np
import pandas as pd
from ipywidgets import FloatSlider

from gpt2lib.course import Verdicts, exercise, predict
from gpt2lib.course.widgets import explore
from gpt2lib.report import figures
from gpt2lib.theory import accuracy, best_alpha, compare, ridge_source

check = Verdicts()


# %% [markdown]
# ## The smallest problem
#
# Two classes, $x = y\mu + z$ with $y = \pm 1$ and noise $z \sim \mathcal N(0, I_p)$. Somebody else's classifier $w_s$
# is frozen; we have $n$ samples and train an update $w$ by ridge regression **on top of** $\alpha w_s$:
#
# $$w_\alpha = \alpha w_s + \arg\min_w \frac1n \sum_i \big(y_i - (\alpha w_s + w)^\top x_i\big)^2 + \gamma \lVert w
# \rVert^2 = \tfrac1n Q X y + \alpha \gamma\, Q w_s, \qquad Q = \big(\tfrac1n X X^\top + \gamma I\big)^{-1}$$
#
# That is LoRA's situation with one linear layer: $W = w_s$ frozen, $w$ trained. In GPT-2 $\alpha = 1$ without asking.
#
# The source was trained in the same way on $N$ samples of its own mean $\mu_s$, and
# $\mu = \beta \mu_s + \sqrt{1 - \beta^2}\, \mu_\perp$.


# %% tags=["cases"]
def problem(dimension, samples):
    """One draw: X [p, n], y [n], and a source [p]."""
    rng = np.random.default_rng(dimension)
    y = np.where(np.arange(samples) % 2, 1.0, -1.0)
    mean = rng.standard_normal(dimension)
    return mean[:, None] * y + rng.standard_normal((dimension, samples)), y, mean + rng.standard_normal(dimension)


def try_fine_tuned(function):
    """Answers for two problems, one with more dimensions than samples, and four pairs of alpha and gamma."""
    answers = []
    for sizes in ((6, 9), (9, 6)):
        answers += [function(*problem(*sizes), a, g) for a, g in ((1.0, 1.0), (0.0, 0.5), (2.0, 0.3), (-1.0, 4.0))]
    return [[float(v) for v in answer] for answer in answers]


# %% [markdown]
# **Exercise 1.** Write the formula above: from $X$ `[p, n]`, $y$ `[n]` and $w_s$ `[p]` the fine-tuned $w_\alpha$ `[p]`.
#
# <details><summary>Hint</summary>
#
# `np.linalg.solve(M, v)` is $M^{-1} v$. Both terms have the same $Q$: one `solve` is enough.
#
# </details>


# %% tags=["exercise"]
@exercise(
    "1 fine_tuned", digest="4681ef5e30ef", run=try_fine_tuned, look="what the ridge penalises, and what is divided by n"
)
def fine_tuned(X, y, source, alpha, gamma):
    """X [p, n], y [n], source [p] -> w_alpha [p]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@fine_tuned.mistake("the ridge penalises all of w_alpha and not only the update: then alpha has no effect at all")
def fine_tuned(X, y, source, alpha, gamma):
    p, n = X.shape
    return np.linalg.solve(X @ X.T / n + gamma * np.eye(p), X @ y / n)


@fine_tuned.mistake("the update alone is returned, without the alpha w_s that it stands on")
def fine_tuned(X, y, source, alpha, gamma):
    p, n = X.shape
    return np.linalg.solve(X @ X.T / n + gamma * np.eye(p), X @ (y - alpha * X.T @ source) / n)


@fine_tuned.mistake("X X^T is not divided by n")
def fine_tuned(X, y, source, alpha, gamma):
    p, n = X.shape
    return np.linalg.solve(X @ X.T + gamma * np.eye(p), X @ y / n + alpha * gamma * source)


@fine_tuned.solution
def fine_tuned(X, y, source, alpha, gamma):
    p, n = X.shape
    return np.linalg.solve(X @ X.T / n + gamma * np.eye(p), X @ y / n + alpha * gamma * source)


# %% [markdown]
# ## The answer
#
# When $p$ and $n$ grow together, $Q$ behaves like a fixed matrix, and the accuracy depends on five numbers only:
# $m_2 = \lVert\mu\rVert^2$, $c = \langle w_s, \mu\rangle$, $w_2 = \lVert w_s\rVert^2$, $\eta = p/n$ and $\gamma$. With
#
# $$k = \gamma + \frac{\eta - \gamma - 1 + \sqrt{(\eta - \gamma - 1)^2 + 4 \eta \gamma}}{2},
# \qquad \lambda = m_2 + 1 + k$$
#
# the decision $y\, w_\alpha^\top x$ has mean $m(\alpha) = (m_2 + \alpha k c) / \lambda$ and a second moment
# $E_2(\alpha)$ that is quadratic in $\alpha$ (`theory.accuracy` has it), the accuracy is
# $\Phi\big(m / \sqrt{E_2 - m^2}\big)$, and its maximiser is
#
# $$\alpha^* = \frac{\eta\, (1 + k)\, c}{k \big(\lambda\, m_2 w_2 - (\lambda - \eta)\, c^2\big)}.$$
#
# No data is needed to draw the lines below; the points are simulated.

# %%
alphas, shown = np.linspace(-1, 6, 141), np.array([-1, 0, 0.5, 1, 2, 3, 4.5, 6])
common = dict(m2=m2, eta_source=eta_source, gamma_source=gamma_source, p=p, draws=draws, seed=seed)
settings = {f"beta = {b:g}": (b, eta, gamma) for b in (-0.5, 0.0, 0.4, beta, 0.95)}
lines, points, best = compare(settings, alphas, shown, **common)
figures.accuracy_over_alpha(lines, points, best)

# %%
gap = (points["theory"] - points["accuracy"]).abs().max()
check("theory and simulation differ by at most 0.01 everywhere", gap <= 0.01, gap)
for name in settings:
    grid = lines[lines["setting"] == name]
    argmax = float(grid["alpha"].iloc[grid["accuracy"].argmax()])
    inside = best[name] if alphas[0] <= best[name] <= alphas[-1] else argmax  # the grid ends at 6
    check(f"{name}: the formula finds the top of the line", abs(argmax - inside) <= 0.05, (argmax, best[name]))
check("a source that has nothing to do with the target is best forgotten", best["beta = 0"] == 0)

# %% [markdown]
# ## Move it yourself
#
# In JupyterLab, run the next cell and drag: the same picture for one setting at a time.

# %%
slider = {"beta": FloatSlider(beta, min=-1, max=1, step=0.05), "eta": FloatSlider(eta, min=0.1, max=8, step=0.1)}
slider["gamma"] = FloatSlider(gamma, min=0.05, max=8, step=0.05)


def picture(beta, eta, gamma):
    return figures.accuracy_over_alpha(*compare({f"beta = {beta:g}": (beta, eta, gamma)}, alphas, shown, **common))


explore(picture, **slider)

# %% [markdown]
# ## What the best alpha depends on
#
# The more similar the source, the larger the best alpha. For a very similar one, few target data and a small ridge it
# is above 1: the source was shrunk by *its* ridge and wants to be stretched. With more target data ($n/p$ large) the
# best alpha goes to 0: the update needs no help. The larger the ridge $\gamma$, the smaller it is, too. What a miss
# costs is another question: the next section's.

# %%
betas, ratios, gammas = np.linspace(-0.9, 0.95, 100), np.geomspace(0.1, 20, 100), np.geomspace(0.05, 20, 100)


def best_for(b, e, g):
    return best_alpha(m2, *ridge_source(m2, b, eta_source, gamma_source), e, g)


panels = {
    "beta": (betas, {f"p/n = {e:g}": best_for(betas, e, gamma) for e in (0.5, 2.0, 5.0)}),
    "n / p": (1 / ratios, {f"beta = {b:g}": best_for(b, ratios, gamma) for b in (0.4, 0.7, 0.95)}),
    "gamma": (gammas, {f"beta = {b:g}": best_for(b, eta, gammas) for b in (0.4, 0.7, 0.95)}),
}
figures.best_alphas(panels)

# %% [markdown]
# ## What is gained over alpha = 1
#
# First a guess, for a source that is neither perfect nor useless, and with the ridge $\gamma$ left at its value above.

# %%
where = ["much data", "in between", "few data"]
guess = predict("beta = 0.7, p/n from 0.1 to 10: where does the best alpha gain most over alpha = 1?", where)(None)

# %% [markdown]
# In points of accuracy, over similarity and shortage of data: blue where the best alpha lies below 1, red where above.

# %%
columns, rows = np.linspace(0, 0.95, 77), np.geomspace(0.1, 10, 60)
c, w2 = ridge_source(m2, columns[None], eta_source, gamma_source)
e = rows[:, None]
best = best_alpha(m2, c, w2, e, gamma)
gain = accuracy(best, m2, c, w2, e, gamma) - accuracy(1, m2, c, w2, e, gamma)
figures.gain_map(columns, rows, gain, best)

# %% [markdown]
# The same in numbers, twice: with $\gamma$ as it is, and with $\gamma$ **tuned for both sides**, each at its own best.
# With $\alpha = 1$ the source's part in $w_\alpha$ is $\gamma Q w_s$, so whoever may turn $\gamma$ turns the source's
# weight, too. A fair comparison lets both do so.

# %%
similar, shortage = np.array([0.0, 0.4, 0.7, 0.9]), np.array([0.1, 0.5, 1, 2, 5, 10])
c, w2 = (v[:, None, None] for v in ridge_source(m2, similar, eta_source, gamma_source))
e, ridges = shortage[None, :, None], np.geomspace(1e-3, 1e3, 401)


def gains(g):
    """The points that alpha* gains over alpha = 1, each at its best gamma among g: [betas, shortages]"""
    chosen = accuracy(best_alpha(m2, c, w2, e, g), m2, c, w2, e, g)
    return 100 * (chosen.max(-1) - accuracy(1, m2, c, w2, e, g).max(-1))


fixed, tuned = gains(np.array([gamma])), gains(ridges)
index = pd.Index([f"{b:g}" for b in similar], name="beta")
pd.concat(
    {
        name: pd.DataFrame(table, index, [f"p/n = {v:g}" for v in shortage])
        for name, table in ((f"gamma = {gamma:g}", fixed), ("gamma tuned for both", tuned))
    }
).round(2)

# %%
at = int(fixed[2].argmax())
guess.was(
    where[0 if at == 0 else 2 if at == len(shortage) - 1 else 1],
    {
        "much data": (
            "A source that is of use stands in for data when they are few, and alpha = 1 uses it nearly as well as the "
            "best alpha. With much data, alpha = 1 at a fixed ridge pulls the answer towards a source that is no "
            "longer needed."
        ),
        "in between": "At both ends alpha = 1 is nearly as good as the best alpha.",
        "few data": "The source weighs most where data are few, and alpha = 1 gives it a wrong weight.",
    },
)

# %%
check("the best alpha is never worse than alpha = 1", bool((gain >= -1e-12).all()), gain.min())
check("nor with gamma tuned for both", bool((tuned >= -1e-9).all()), tuned.min())
check("beta 0: the fewer the data, the more is gained", bool((np.diff(fixed[0]) > 0).all()), fixed[0])
for b, line in zip(similar[1:3], fixed[1:3], strict=True):
    check(f"beta {b:g}: the fewer the data, the less is gained", bool((np.diff(line) < 0).all()), line)
check("beta 0.9: most is gained with the most data", fixed[3].argmax() == 0, fixed[3])
check("gamma tuned, beta 0: the fewer the data, the more", bool((np.diff(tuned[0]) > 0).all()), tuned[0])
for b, line in zip(similar[1:], tuned[1:], strict=True):
    check(f"gamma tuned, beta {b:g}: most at neither end", 0 < line.argmax() < len(shortage) - 1, line)
    check(f"gamma tuned, beta {b:g}: something is left with ten dimensions a sample", line[-1] > 0.1, line)
scarce = accuracy(
    best, m2, *(v[None] for v in ridge_source(m2, columns, eta_source, gamma_source)), rows[:, None], gamma
)
scarce = scarce - accuracy(0, m2, 0, 1, rows, gamma)[:, None]
check("the scarcer the data, the more a similar source is worth over none", bool((np.diff(scarce[:, -1]) > 0).all()))

# %% [markdown]
# So there are two things that must not be confused. What a good **source** is worth over none grows as data get scarce,
# always. What the best **alpha** is worth over 1 does so only for a source that knows nothing (there $\alpha^* = 0$: it
# is the price of not being able to forget). At a fixed ridge it *falls* with scarcity for $\beta = 0.4$ and $0.7$, to
# about nothing for the latter. With the ridge tuned for both sides it is greatest in the middle, between half a
# dimension and two for each sample, at the more data the better the source, and falls on either side.
#
# ## Two questions
#
# **Exercise 2.** The source is replaced by $w_s / 2$. By which factor does $\alpha^*$ change?
#
# <details><summary>Hint</summary>
#
# Only the product $\alpha w_s$ enters the model. Or put $c/2$ and $w_2/4$ into the formula.
#
# </details>

# %% tags=["exercise"]
factor = exercise("2 factor", digest="2947ff221bb8")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
factor.mistake("alpha is taken to shrink with the source: then alpha w_s would be a quarter of what it was")(0.5)
factor.mistake("the factor is taken from w2, which is quartered, and c, which is halved, is left out")(4.0)
factor = factor.solution(2.0)

# %% [markdown]
# **Exercise 3.** For a source with $c < 0$: which sign has $\alpha^*$, +1 or -1?
#
# <details><summary>Hint</summary>
#
# A source that is wrong more often than right is informative when it is turned round.
#
# </details>

# %% tags=["exercise"]
sign = exercise("3 sign", digest="18427fa3d1e5")(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
sign.mistake("a misleading source is kept the right way up")(1)
sign = sign.solution(-1)

# %%
c, w2 = ridge_source(m2, beta, eta_source, gamma_source)
halved = best_alpha(m2, c / 2, w2 / 4, eta, gamma) / best_alpha(m2, c, w2, eta, gamma)
check("the formula says the same: half the source, so many times the alpha", abs(halved - factor) < 1e-9, halved)
turned = np.sign(best_alpha(m2, -abs(c), w2, eta, gamma))
check("and the best alpha of a source with c < 0 has the sign of the answer", turned == sign, turned)

# %% [markdown]
# ## What we saw, and what it does not show
#
# In this problem the best alpha is a number that can be computed, and it is rarely 1. What that is worth depends on the
# source, on the data, and on whether the ridge is tuned: from nothing to several points, and not most "when data are
# scarce" but for a useless source. A deep network is not this problem: its layers are not classifiers, its features
# change, and nobody gives us beta. That is why alpha-LoRA *learns* alpha, on examples held out for it (notebook 15);
# the theory says that there is something to learn, and not that it is much.
#
# | paper | equation | here | where it deviates |
# |---|---|---|---|
# | [El Firdoussi et al. 2025](https://arxiv.org/abs/2510.21345), the linear model | $w_\alpha$ above | `fine_tuned`; `simulate` in [theory.py](../gpt2lib/theory.py) | none |
# | the same, theorem 1 | $\Phi(m / \sqrt{E_2 - m^2})$ | `accuracy` in [theory.py](../gpt2lib/theory.py) | written with $k = \gamma (1 + \delta)$ |
# | the same, its corollary on the best alpha | $\alpha^*$ above | `best_alpha` in [theory.py](../gpt2lib/theory.py) | sign, poles and $c = 0$ spelt out |
# | the same, figure 1 | a source that is a ridge classifier itself | `ridge_source` | derived from the general formula, for two tasks whose means have one length |
# | ours | $\gamma$ tuned for both sides | `gains` | not theirs, as far as their code shows |
#
# **Reference.** El Firdoussi et al. 2025, [alpha-LoRA](https://arxiv.org/abs/2510.21345).

# %% tags=["nbval-check-output"]
check.table()
