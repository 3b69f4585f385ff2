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
# **The question.** alpha-LoRA multiplies what is frozen. Is there a reason why some alpha other than 1 should be best, or
# is it one more knob?
#
# After this notebook you can
# - state the smallest problem in which the question has an exact answer, and simulate it in seconds,
# - read the best alpha off a closed formula, and say what it depends on,
# - say where nothing is gained.

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
from ipywidgets import FloatSlider, interact

from gpt2lib.course import show
from gpt2lib.report import figures
from gpt2lib.theory import accuracy, best_alpha, compare, ridge_source

# %% [markdown]
# ## The smallest problem
#
# Two classes, $x = y\mu + z$ with $y = \pm 1$ and noise $z \sim \mathcal N(0, I_p)$. Somebody else's classifier $w_s$ is frozen;
# we have $n$ samples and train an update $w$ by ridge regression **on top of** $\alpha w_s$:
#
# $$w_\alpha = \alpha w_s + \arg\min_w \frac1n \sum_i \big(y_i - (\alpha w_s + w)^\top x_i\big)^2 + \gamma \lVert w \rVert^2 = \tfrac1n Q X y + \alpha \gamma\, Q w_s, \qquad Q = \big(\tfrac1n X X^\top + \gamma I\big)^{-1}$$
#
# That is LoRA's situation with one linear layer: $W = w_s$ frozen, $w$ trained. In GPT-2 $\alpha = 1$ without asking.
#
# The source was trained in the same way on $N$ samples of its own mean $\mu_s$, and $\mu = \beta \mu_s + \sqrt{1 - \beta^2}\, \mu_\perp$.

# %% [markdown]
# ## The answer
#
# When $p$ and $n$ grow together, $Q$ behaves like a fixed matrix, and the accuracy depends on five numbers only:
# $m_2 = \lVert\mu\rVert^2$, $c = \langle w_s, \mu\rangle$, $w_2 = \lVert w_s\rVert^2$, $\eta = p/n$ and $\gamma$. With
#
# $$k = \gamma + \frac{\eta - \gamma - 1 + \sqrt{(\eta - \gamma - 1)^2 + 4 \eta \gamma}}{2}, \qquad \lambda = m_2 + 1 + k$$
#
# the decision $y\, w_\alpha^\top x$ has mean $m(\alpha) = (m_2 + \alpha k c) / \lambda$ and a second moment $E_2(\alpha)$ that is
# quadratic in $\alpha$ (`theory.accuracy` has it), the accuracy is $\Phi\big(m / \sqrt{E_2 - m^2}\big)$, and its maximiser is
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

# %% tags=["nbval-check-output"]
gap = (points["theory"] - points["accuracy"]).abs().max()
show.check("theory and simulation differ by at most 0.01 everywhere", gap <= 0.01, gap)
for name in settings:
    grid = lines[lines["setting"] == name]
    argmax = float(grid["alpha"].iloc[grid["accuracy"].argmax()])
    inside = best[name] if alphas[0] <= best[name] <= alphas[-1] else argmax  # the grid ends at 6
    show.check(f"{name}: the formula finds the top of the line", abs(argmax - inside) <= 0.05, (argmax, best[name]))
show.check("a source that has nothing to do with the target is best forgotten", best["beta = 0"] == 0)

# %% [markdown]
# ## Move it yourself
#
# In JupyterLab, run the next cell and drag: the same picture for one setting at a time.

# %%
slider = {"beta": FloatSlider(beta, min=-1, max=1, step=0.05), "eta": FloatSlider(eta, min=0.1, max=8, step=0.1)}
slider["gamma"] = FloatSlider(gamma, min=0.05, max=8, step=0.05)


@interact(**slider)
def picture(beta, eta, gamma):
    return figures.accuracy_over_alpha(*compare({f"beta = {beta:g}": (beta, eta, gamma)}, alphas, shown, **common))


# %% [markdown]
# ## What the best alpha depends on
#
# The more similar the source, the larger the best alpha. For a very similar one it is above 1: the source was shrunk by *its*
# ridge and wants to be stretched. With more target data ($n/p$ large) the update can repair everything, and alpha matters less and less.

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
# In points of accuracy, over similarity and shortage of data: blue where the best alpha lies below 1, red where above.

# %%
columns, rows = np.linspace(0, 0.95, 77), np.geomspace(0.1, 10, 60)
c, w2 = ridge_source(m2, columns[None], eta_source, gamma_source)
e = rows[:, None]
best = best_alpha(m2, c, w2, e, gamma)
gain = accuracy(best, m2, c, w2, e, gamma) - accuracy(1, m2, c, w2, e, gamma)
figures.gain_map(columns, rows, gain, best)

# %% tags=["nbval-check-output"]
show.check("the best alpha is never worse than alpha = 1", bool((gain >= -1e-12).all()), gain.min())
show.check("with ten samples a dimension and a similar source, little is left to gain", gain[0, -1] < 0.01, gain[0, -1])
scarce = accuracy(best, m2, c, w2, e, gamma) - accuracy(0, m2, c, w2, e, gamma)
falling = bool((np.diff(scarce[:, -1]) > 0).all())
show.check("the scarcer the data, the more a similar source is worth over none", falling)

# %% [markdown]
# ## What we saw, and what it does not show
#
# In this problem the best alpha is a number that can be computed, and it is rarely 1. A deep network is not this problem:
# its layers are not classifiers, its features change, and nobody gives us beta. That is why alpha-LoRA *learns* alpha, on
# examples held out for it (notebook 15); the theory says that there is something to learn, most of it when data is scarce.
#
# **Exercise 1.** The source is replaced by $w_s / 2$. What happens to $\alpha^*$?
#
# **Exercise 2.** For a source with $c < 0$: which sign has $\alpha^*$, and why can it still help?

# %% tags=["nbval-check-output"]
answer_1 = None  # the factor by which alpha* changes
answer_2 = None  # +1 or -1
show.exercise(1, answer_1, 2, "only alpha w_s enters the model")
show.exercise(2, answer_2, -1, "a source that is wrong more often than right is informative when it is turned round")

# %% [markdown]
# **Solutions** (open the cell to see them).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
c, w2 = ridge_source(m2, beta, eta_source, gamma_source)
halved = best_alpha(m2, c / 2, w2 / 4, eta, gamma) / best_alpha(m2, c, w2, eta, gamma)
show.exercise(1, round(float(halved), 9), 2, "")
show.exercise(2, int(np.sign(best_alpha(m2, -c, w2, eta, gamma))), -1, "")

# %% [markdown]
# **Reference.** El Firdoussi et al. 2025 (alpha-LoRA, arXiv 2510.21345), theorem 1 and its corollaries.
