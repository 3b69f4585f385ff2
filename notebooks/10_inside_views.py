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
# # Inside views: what a model does on the way to its answer
#
# **The question.** A number goes in, a number comes out, and thirty blocks lie between. What happens there, what does
# an adapter change of it, and what of all this can be *tested* rather than only looked at?
#
# After this notebook you can
# - read the attention pattern of every head, and know why most of it lies on the first token,
# - ask a model in the middle what it would say (the logit lens), and say what that does not prove,
# - find induction heads with a test, and show that the model needs them by taking them away,
# - see in which blocks an adapter turns an answer, and how large its update has to be.
#
# The base is SmolLM2-135M, which really is pretrained; `gpt2-mini` stands beside it as one that has read too little.
# Needs notebook 02. It runs in about two minutes on one core.

# %% tags=["parameters"]
base_model: str = "smollm2-135m"  # looked into; any base
small_model: str = "gpt2-mini"  # the one that has read little
sentence: str = "The capital of France is Paris, and the capital of Italy is"  # read token by token
answer: str = " Rome"  # the token that should come next
length: int = 30  # random tokens that are repeated
first_block: int = 18  # the adapter sits on this block and those after it
rank: int = 8  # of the adapter
lr: float = 4e-3  # its learning rate
examples: int = 128  # made-up sentences to train it on
epochs: int = 6  # passes through them
seed: int = 0

# %%
import torch

from gpt2lib.adapters import LoRA, attach
from gpt2lib.course import Verdicts, exercise, inside, predict, widgets
from gpt2lib.data import load_task
from gpt2lib.data.batches import Batch, Encoded
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.tasks.prompts import answer_ids
from gpt2lib.training import TrainingSettings, evaluate, fit
from gpt2lib.training.objectives import Classifier, ClozeHead

check = Verdicts()
_ = torch.manual_seed(seed)

# %% [markdown]
# ## 1. Two things to keep
#
# While a model reads, we keep two things of every block: its **attention patterns**, and the **residual stream**, the
# sum that every block reads from and adds to. Nothing is changed for it: the run is the same run.

# %%
model, tokenizer = load_base(base_model)
ids = tokenizer(sentence, return_tensors="pt")["input_ids"]  # [1, seq]
tokens = tokenizer.convert_ids_to_tokens(ids[0])
seen = inside.look_inside(model, ids)
print("hidden  ", list(seen.hidden.shape), "= [n_layer + 1, batch, seq, n_embd]")
print("patterns", list(seen.patterns.shape), "= [n_layer, batch, n_head, seq, seq]")

# %%
with torch.no_grad():
    check.close(
        "the last hidden state, normalised, is the model's output", model.ln_f(seen.hidden[-1]), model(ids), 1e-4
    )
check.close("every row of every pattern sums to 1", seen.patterns.sum(-1), torch.ones(seen.patterns.shape[:-1]), 1e-4)
check.close("no pattern has weight on a later token", seen.patterns.triu(1), torch.zeros_like(seen.patterns), 0)

# %% [markdown]
# ## 2. Attention patterns, head by head
#
# Before you look: on average over all heads of all blocks, where does a token put most of its attention?

# %%
where = predict(
    "Which token gets most of the attention of the others?", ["the first", "the one before", "itself", "the rest"]
)(None)

# %%
later = seen.patterns[:, 0, :, 2:]  # [n_layer, n_head, seq - 2, seq]: tokens that have a first, a previous and others
parts = {
    "the first": later[..., 0].mean((1, 2)),
    "itself": seen.patterns[:, 0].diagonal(0, -2, -1)[..., 2:].mean((1, 2)),
}
parts["the one before"] = seen.patterns[:, 0].diagonal(-1, -2, -1)[..., 1:].mean((1, 2))
parts["the rest"] = 1 - sum(parts.values())
most = max(parts, key=lambda name: parts[name].mean())
shares = ", ".join(f"{name} {100 * share.mean():.0f} %" for name, share in parts.items())
where.was(
    most,
    f"Averages: {shares}. A softmax cannot say 'nothing here', so a head that has nothing to do puts its weight where "
    "it does least: on the first token, whose value vector is short. It is called an attention sink.",
)
figures.curves(
    range(len(later)), {name: share.numpy() for name, share in parts.items()}, "block", "share of the attention"
)


# %% [markdown]
# Every head of a block, one by one. In JupyterLab, move through the blocks: the lowest, and a few around block 11, look
# near by; in most others much of the weight rests on the first token; and some heads find a word that matters: in block
# 17, heads 3 to 5 look from the second *capital of* back to what followed the first. Section 4 gives them a name.


# %%
def heads(block=17):
    return figures.head_grid(seen.patterns[min(block, len(seen.patterns) - 1), 0].numpy(), tokens)


widgets.explore(heads, block=(0, len(seen.patterns) - 1))

# %%
if base_model == "smollm2-135m":
    sink = parts["the first"].mean().item()
    check("more than half of the attention rests on the first token", sink > 0.5, sink)
with torch.no_grad():
    inputs = [block.ln_1(x[0]) for block, x in zip(model.blocks, seen.hidden[:-1], strict=True)]  # [seq, n_embd] each
    sizes = torch.stack([block.attn.v(x).norm(dim=-1) for block, x in zip(model.blocks, inputs, strict=True)])
first, others = sizes[:, 0].mean().item(), sizes[:, 1:].mean().item()
print(f"length of a value vector, on average over the blocks: first token {first:.1f}, others {others:.1f}")
if base_model == "smollm2-135m":
    check("the first token's value is less than half as long as the others'", first < others / 2, (first, others))

# %% [markdown]
# ## 3. The logit lens
#
# Each block adds to the residual stream, and the output layer reads its last state. What would it read *earlier*? Take
# the stream after block $l$, normalise it as the last one is, and multiply by the output layer:
#
# $$\log p_l = \log \mathrm{softmax}\big(W_{\text{out}}\, \mathrm{ln_f}(x_l)\big),
# \qquad x_l \in \mathbb{R}^d,\; W_{\text{out}} \in \mathbb{R}^{V \times d}$$
#
# <details><summary>Hint</summary>
#
# Two methods of the model do it: `model.ln_f` and `model.logits`. Both treat whatever stands left of the last dimension
# alike.
#
# </details>

# %% tags=["cases"]
small, small_tokenizer = load_base(small_model)
streams = [(small, 3 * torch.randn(2, 4, small.config.n_embd))]


# %% tags=["exercise"]
@exercise("1 lens", like=inside.lens, on=streams, tolerance=1e-4, look="the last norm belongs to it")
def lens(model, hidden):
    """[..., n_embd] -> log-probabilities of the next token, [..., vocab_size]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@lens.mistake("the last norm is left out: early states are small, and the lens sees nothing but fog")
@torch.no_grad()
def lens(model, hidden):
    return model.logits(hidden).log_softmax(-1)


@lens.solution
@torch.no_grad()
def lens(model, hidden):
    return model.logits(model.ln_f(hidden)).log_softmax(-1)


# %%
when = predict(f"After how many of the {len(model.blocks)} blocks is {answer!r} the first choice?")(None)

# %%
opinions = lens(model, seen.hidden[:, 0])  # [n_layer + 1, seq, vocab_size]
shown = [*range(0, len(opinions) - 1, 3), len(opinions) - 1]
chances, best = opinions[shown].max(-1)  # [blocks, seq] each
tops = [tokenizer.convert_ids_to_tokens(row) for row in best]
figures.lens_table(tops, chances.exp().numpy(), tokens, shown)

# %% [markdown]
# (A "_" is a space, and a token of more than nine letters is cut, as in "<filename".) At the bottom most tokens predict
# *themselves*: the output layer is the embedding, turned round. Then comes a long stretch in which punctuation, spaces
# and small words lead almost everywhere. What has been written before is continued from half-way on (the second
# *capital* expects its " of"); a name that has to be known appears only near the top. A finer measure is the **rank**
# of the right answer among all tokens.

# %%
right = tokenizer(answer, add_special_tokens=False)["input_ids"][0]
ranks = (opinions[:, -1] > opinions[:, -1, right, None]).sum(-1) + 1  # [n_layer + 1], 1 is the first choice
arrived = next((block for block, place in enumerate(ranks.tolist()) if place == 1), len(model.blocks))
late = 4 * len(model.blocks) // 5
way = f"{ranks[0]:,} at the embedding, {ranks[len(ranks) // 2]:,} half-way, {ranks[late]:,} after {late} blocks"
when.was(
    arrived,
    f"Its rank among {opinions.shape[-1]:,} tokens: {way}, {ranks[-1]} at the end. The table shows first choices only.",
    digits=0,
)
figures.curves(range(len(ranks)), {"": ranks.numpy()}, "blocks passed", f"rank of {answer.strip()!r}", log="y")

# %%
check(
    "at the last block the lens is the model's own prediction",
    lens(model, seen.hidden[-1]).argmax(-1).equal(model.logits(model(ids)).argmax(-1)),
)
if base_model == "smollm2-135m":
    check("at the end the right answer is the first choice", int(ranks[-1]) == 1, ranks[-1])
    check("half-way it is not among the first ten", int(ranks[len(ranks) // 2]) > 10, ranks[len(ranks) // 2])

# %% [markdown]
# What this does **not** show: that the model "does not know" the answer before. The lens reads each state with the
# *last* block's glasses; what stands there in another form, it cannot see. Lenses that are trained for each block see
# it earlier (Belrose et al. 2023).
#
# ## 4. Induction heads
#
# Write random tokens, and then **the same ones again**. No knowledge of language helps, and yet the second half can be
# told: find the earlier copy of the token at hand, and say what came after it. Heads that do this, *induction heads*,
# look from position $t$ of the second half at position $t - L + 1$: the token **after** the earlier copy.
#
# ```
# position:    0 1 2 3 4 | 5 6 7 8 9        L = 5
# token:       a b c d e | a b c d e
#                ^---------'                 at 5 (a), look at 1 (b)
# ```

# %%
pairs = inside.repeated(model.config.vocab_size, length, rows=4, seed=seed)  # [4, 2 * length]
copied = inside.look_inside(model, pairs)
small_pairs = inside.repeated(small.config.vocab_size, length, rows=4, seed=seed)
small_copied = inside.look_inside(small, small_pairs)


def losses(opinion, ids):
    """Minus the log-probability of each token after the first, averaged over rows: [seq - 1]"""
    return -opinion[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1).mean(0)


by_position = {
    base_model: losses(lens(model, copied.hidden[-1]), pairs),
    small_model: losses(lens(small, small_copied.hidden[-1]), small_pairs),
}
figures.curves(
    range(1, 2 * length), {name: loss.numpy() for name, loss in by_position.items()}, "position", "loss (nats)"
)

# %%
first_half, second_half = (
    by_position[base_model][: length - 1].mean().item(),
    by_position[base_model][length:].mean().item(),
)
if base_model == "smollm2-135m":
    check(
        "repeated random tokens cost less than a third of what they cost at first",
        second_half < first_half / 3,
        second_half,
    )
if small_model == "gpt2-mini":
    ratio = (by_position[small_model][length:].mean() / by_position[small_model][: length - 1].mean()).item()
    check("to the model that has read little they cost about the same both times", ratio > 0.9, ratio)

# %% [markdown]
# **Exercise.** The induction score of a head: the mean weight from each position $t \ge L$ to position $t - L + 1$.
#
# <details><summary>Hint</summary>
#
# Take the rows of the second half: `patterns[..., L:, :]`, of shape `[..., L, 2 L]`. Row $i$ of them is position
# $L + i$ and looks at $i + 1$: that is the first diagonal above the main one, `diagonal(1, -2, -1)`.
#
# </details>

# %% tags=["cases"]
patterns = torch.rand(2, 3, 4, 10, 10).tril().softmax(-1)  # [n_layer, batch, n_head, 2 L, 2 L]


# %% tags=["exercise"]
@exercise(
    "2 induction",
    like=inside.induction,
    on=[(patterns,)],
    look="which token does position t of the second half look at",
)
def induction(patterns):
    """[n_layer, batch, n_head, 2 L, 2 L] -> [n_layer, n_head]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@induction.mistake("it looks at the earlier copy of the token itself, not at the one after it")
def induction(patterns):
    length = patterns.shape[-1] // 2
    return patterns[..., length:, :].diagonal(0, -2, -1).mean((1, -1))


@induction.solution
def induction(patterns):
    length = patterns.shape[-1] // 2
    found = patterns[..., length:, :].diagonal(1, -2, -1)  # [n_layer, batch, n_head, L]
    return found.mean((1, -1))


# %%
how_many = predict(
    f"How many of the {len(model.blocks) * model.config.n_head} heads put more than 0.4 of their weight there?"
)(None)

# %%
scores, previous = induction(copied.patterns), inside.previous_token(copied.patterns)  # [n_layer, n_head] each
strong = [(block, head) for block, head in (scores > 0.4).nonzero().tolist()]
how_many.was(
    len(strong),
    f"They are (block, head): {', '.join(map(str, strong))}. The strongest has {scores.max():.2f}; the strongest of "
    f"{small_model} has {induction(small_copied.patterns).max():.2f}.",
    digits=0,
)
figures.head_scores(
    {"looks at the token before": previous.numpy(), "looks at the token after the earlier copy": scores.numpy()}
)

# %% [markdown]
# To find "the token after an earlier *a*", every token has to carry a note of which token stood before it. Heads that
# look one back write that note, and induction heads, later, read it (Olsson et al. 2022). So heads of the upper panel
# that they could read stand below the first of the lower one; those further up look one back for something else.
#
# ### A picture is no proof: take them away
#
# Silence the strongest induction heads, and, as a comparison, equally many other heads **of the same blocks**. If the
# strong ones matter, the second half becomes expensive; the comparison says how much *any* loss of heads would cost.

# %%
taken = [divmod(int(i), model.config.n_head) for i in scores.flatten().topk(10).indices]
generator = torch.Generator().manual_seed(seed)
spared = []
for block, _ in taken:
    free = [(block, head) for head in range(model.config.n_head) if (block, head) not in taken + spared]
    spared.append(free[int(torch.randint(len(free), (1,), generator=generator))])
by_position = {"all heads": by_position[base_model]}
for name, gone in {"without ten induction heads": taken, "without ten others": spared}.items():
    with inside.without_heads(model, gone), torch.no_grad():
        by_position[name] = losses(model.logits(model(pairs)).log_softmax(-1), pairs)
figures.curves(
    range(1, 2 * length), {name: loss.numpy() for name, loss in by_position.items()}, "position", "loss (nats)"
)

# %%
cost = {name: loss[length:].mean().item() for name, loss in by_position.items()}
print("loss in the second half:", {name: round(value, 1) for name, value in cost.items()})
if base_model == "smollm2-135m":
    extra = {name: value - cost["all heads"] for name, value in cost.items()}
    check(
        "without the induction heads, repeated tokens cost at least three times the extra that other heads cost",
        extra["without ten induction heads"] > 3 * extra["without ten others"],
        extra,
    )


# %% [markdown]
# ## 5. Yes or no, before and after an adapter
#
# A small task: is a made-up sentence on a film praise? The model reads the sentence and a question, and the next token
# should be *yes* or *no*. The base was never shown these sentences, which turn on "not" and "but". LoRA (a small
# trained update $B A$ beside a frozen matrix, the subject of notebook 11) sits on the upper blocks only; those below
# run once for each sentence and are kept.


# %%
def encoded(part, number):
    """Sentences with a clear label, as questions with a yes (1) or no (0) to come."""
    clear = [example for example in part if example.label != 2][:number]
    asked = [f"{example.text}\nIs this praise? Answer yes or no:\n" for example in clear]
    return [Encoded(ids, int(e.label > 2)) for ids, e in zip(tokenizer(asked)["input_ids"], clear, strict=True)]


data = load_task("sst", "toy", quiet=True)
train, dev = encoded(data.train, examples), encoded(data.dev, 64)
answers = answer_ids(tokenizer)  # the tokens "no" and "yes"
print(tokenizer.decode(train[0].ids), {0: "no", 1: "yes"}[train[0].label])

# %%
batch, labels = Batch.of(dev), torch.tensor([example.label for example in dev])
before = inside.answers_by_block(model, batch, answers)  # [n_layer + 1, examples]
before_patterns = inside.look_inside(model, ids).patterns

# %%
attach(model, LoRA(rank=rank, alpha=2 * rank, targets=("q", "v"), layers=(first_block, len(model.blocks))))
classifier = Classifier(model, ClozeHead(model, answers, trained=False))
start = evaluate(classifier, dev)[0]["accuracy"]
settings = TrainingSettings(epochs=epochs, batch_size=8, lr=lr, seed=seed)
fit(classifier, train, dev, settings, quiet=True)
end = evaluate(classifier, dev)[0]["accuracy"]
model.cpu()  # where the sentences are; training may have moved it to a GPU
print(f"dev accuracy {start:.2f} before, {end:.2f} after")

# %%
turn = predict(
    "Where does the adapted model separate yes from no?", ["in the first adapted blocks", "in the last ones"]
)(None)

# %%
after = inside.answers_by_block(model, batch, answers)


def gap(values):
    """The mean of the yes examples less that of the no examples, after each block: [n_layer + 1]"""
    return values[:, labels == 1].mean(1) - values[:, labels == 0].mean(1)


half = int((gap(after) > gap(after)[-1] / 2).nonzero()[0])  # blocks passed when half of the final gap is there
middle = (first_block + len(model.blocks)) / 2
turn.was(
    "in the last ones" if half > middle else "in the first adapted blocks",
    f"Half of the final gap of {gap(after)[-1]:.1f} is there after {half} of {len(model.blocks)} blocks; before "
    f"training the gap was {gap(before)[-1]:.1f}.",
)
figures.answers_by_block({"before": before.numpy(), "after": after.numpy()}, labels.numpy(), first_block)

# %%
check.close(
    "below the first adapted block nothing has changed", after[: first_block + 1], before[: first_block + 1], 1e-3
)
check(
    "the adapter has pulled yes and no apart", gap(after)[-1] > gap(before)[-1] + 1, (gap(after)[-1], gap(before)[-1])
)
check("it has raised the accuracy by ten points or more", end > start + 0.1, (start, end))

# %% [markdown]
# Did the heads change what they look at, too? On the first sentence, which has nothing to do with films:

# %%
change = (inside.look_inside(model, ids).patterns - before_patterns).abs().sum(-1).mean((1, 2, 3)) / 2  # [n_layer]
figures.curves(range(len(change)), {"": change.numpy()}, "block", "attention that has moved (share)")

# %%
check(
    "below the first adapted block no attention has moved",
    change[:first_block].max() < 1e-5,
    change[:first_block].max(),
)

# %% [markdown]
# ## 6. How much rank does the update need?
#
# LoRA's update $B A$ has rank 8 here. The nearest matrix of rank $r$ is its first $r$ singular triples (Eckart and
# Young 1936):
#
# $$\Delta = \sum_i \sigma_i\, u_i v_i^\top, \qquad \Delta_r = \sum_{i \le r} \sigma_i\, u_i v_i^\top,
# \qquad \lVert \Delta - \Delta_r \rVert_F^2 = \sum_{i > r} \sigma_i^2$$
#
# <details><summary>Hint</summary>
#
# `u, s, v = torch.linalg.svd(delta, full_matrices=False)` gives $v$ with its rows as the right singular vectors:
# `(u * s) @ v` is `delta`.
#
# </details>

# %% tags=["cases"]
matrices = [(torch.randn(6, 4), 2), (torch.randn(5, 8), 3), (torch.randn(3, 3), 3)]


# %% tags=["exercise"]
@exercise("3 low_rank", like=inside.low_rank, on=matrices, tolerance=1e-4)
def low_rank(delta, rank):
    """[d_out, d_in] -> the nearest matrix of at most this rank, [d_out, d_in]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@low_rank.mistake("the singular vectors are kept and their sizes forgotten")
def low_rank(delta, rank):
    u, _, v = torch.linalg.svd(delta, full_matrices=False)
    return u[:, :rank] @ v[:rank]


@low_rank.mistake("the first rows are kept: a matrix of that rank, but not the nearest one")
def low_rank(delta, rank):
    return torch.cat([delta[:rank], torch.zeros_like(delta[rank:])])


@low_rank.solution
def low_rank(delta, rank):
    u, s, v = torch.linalg.svd(delta, full_matrices=False)  # [d_out, k], [k], [k, d_in]
    return (u[:, :rank] * s[:rank]) @ v[:rank]


# %%
layer = model.blocks[-1].attn.q
delta = (layer.B @ layer.A).detach()  # [d_out, d_in]
values = torch.linalg.svdvals(delta)[: layer.A.shape[0]]


def kept(r=2):
    return figures.truncation(values.numpy(), r)


widgets.explore(kept, r=(1, len(values)))

# %%
needed = predict(
    "With how small a rank, in every adapted layer, is the dev accuracy still within 5 points?", [1, 2, 4, 8]
)(None)

# %%
accuracy = {}
for r in (0, 1, 2, 4, 8):
    with inside.updates_of_rank(model, r):
        accuracy[r] = evaluate(classifier, dev)[0]["accuracy"]
enough = min(r for r in (1, 2, 4, 8) if accuracy[r] >= end - 0.05)
needed.was(
    enough,
    f"Accuracies by rank: {', '.join(f'{r}: {value:.2f}' for r, value in accuracy.items())}. Cutting a trained update "
    "is not the same as training with a small rank, which may find another way.",
)
figures.curves(list(accuracy), {"dev": list(accuracy.values())}, "rank kept", "accuracy")

# %%
nearest = low_rank(delta, 2)
lost = (delta - nearest).square().sum()
check.close(
    "what rank 2 loses is the sum of the squares of the other singular values", lost, values[2:].square().sum(), 1e-3
)
check("with rank 0 the model is the base again", accuracy[0] == start, (accuracy[0], start))

# %% [markdown]
# ## What you saw, and what it does not show
#
# Patterns and lenses are **pictures**: they suggest. Silencing heads is an **intervention**: it tests. Only the second
# kind supports "the model uses this for that", and even then for these inputs only; other heads can take over what a
# silenced one did. The adapter's story is one task, made up, and one seed.
#
# | paper | section | here | where it deviates |
# |---|---|---|---|
# | [nostalgebraist 2020](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens) | the logit lens | `course/inside.py`, `lens` | none |
# | [Belrose et al. 2023](https://arxiv.org/abs/2303.08112) | section 1: why the plain lens fails | not done | no trained lens |
# | [Olsson et al. 2022](https://arxiv.org/abs/2209.11895) | prefix matching score | `induction`, `previous_token` | one length, four rows |
# | [Xiao et al. 2024](https://arxiv.org/abs/2309.17453) | section 3, attention sinks | `look_inside` | observed, not used |
# | [Hu et al. 2021](https://arxiv.org/abs/2106.09685) | section 7: rank of the update | `updates_of_rank` | cut after training |
#
# **Try it.** Give the model the sentence "When Mary and John went to the store, John gave a drink to" and
# `answer = " Mary"`. Which heads look from the last token at *Mary*? Silence them ([Wang et al.
# 2023](https://arxiv.org/abs/2211.00593) replaced heads of GPT-2 by their means).

# %% tags=["nbval-check-output"]
check.table()
