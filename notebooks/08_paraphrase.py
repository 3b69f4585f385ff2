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
# # Paraphrase: do two questions ask the same thing?
#
# **The question.** A language model already has an output layer over every word. Can it *say* whether two questions are
# the same, so that no new layer is needed at all?
#
# After this notebook you can
# - turn a classification into a **cloze**: a prompt whose next word is the answer,
# - read the two logits that matter out of a whole vocabulary,
# - write predictions as the course wants them, whatever model made them.
#
# It runs in about a minute on one core. Needs notebook 07.
#
# Comparing two questions is beyond a base that has read as little as `gpt2-mini`, so this one is `smollm2-135m`: its
# lowest twelve blocks, of which four are adapted, and the eight below them run once for each text. They are adapted by
# LoRA: beside a frozen matrix it trains two thin ones (notebook 11).
#
# The data are pairs of questions from Quora (2017), some of them marked as duplicates.

# %% tags=["parameters"]
task: str = "quora"  # the cloze task
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA or data/
base_model: str = "smollm2-135m"  # or "gpt2-mini", a folder in the transformers layout, or a hub name such as "gpt2"
depth: int = 12  # keep so many of the base's blocks; 0: all
method: str = "lora"  # or another adapter, "last-linear", "full"
rank: int = 8  # the adapter's rank
budget: int = 0  # instead: about how many parameters the adapter is to train, whatever its kind; 0 takes the rank
alpha: float = 16.0  # the adapter's scale
dropout: float = 0.0  # on what enters the adapter
targets: list = ["q", "k", "v", "o", "up", "down"]  # layers the adapter sits on, among q k v o up down
layers: list = [8, 12]  # the blocks that train, [first, end]; empty: all
settings: list = []  # of the method alone, a text each: a name, an equals sign, a value
epochs: int = 2  # passes through the training data, at most
batch_size: int = 8  # examples per update
lr: float = 2e-3  # highest learning rate
weight_decay: float = 0.0  # decoupled, as in AdamW
patience: int = 6  # epochs without a better dev accuracy before training stops
max_length: int = 192  # tokens; of a longer prompt the end is kept
precision: str = "float32"  # or "bf16" where the hardware is fast at it
max_steps: int = 0  # updates after which training stops; 0 does all epochs
examples: int = 400  # training examples, drawn once and for all; 0 takes all
select: str = "dev"  # what chooses rate and epoch: "dev", or "held-out": a tenth of the training data
trial: bool = False  # with "held-out": a run that tries a rate, and never looks at dev
seed: int = 0  # of the adapter and the order of the data
out: str = ""  # folder for the results; "" keeps none

# %%
import torch

from gpt2lib.course import Verdicts, exercise, predict, show
from gpt2lib.data import Batch, load_task, selection
from gpt2lib.model.base import base_name, load_base
from gpt2lib.report import figures
from gpt2lib.study.record import write_run
from gpt2lib.tasks import Encoder, answer_ids, baselines, method_of, paraphrase_prompt, prepare, settings_of
from gpt2lib.training import evaluate, fit

check = Verdicts()

# %% [markdown]
# ## The data, as a prompt
#
# One function writes the prompt, for training, dev and test alike.

# %% tags=["nbval-check-output"]
data = load_task(task, source or None).sample(examples)
data, seen = selection(data, select, trial)  # what the run is measured on, and what training sees
for example in data.train[:2]:
    print(paraphrase_prompt(example) + data.class_names[example.label] + "\n")

# %% [markdown]
# ## The floors
#
# Two questions that share many words are often the same one, so a bag of words does well here.

# %%
floors, counted = baselines.floors(data, seen)
{name: round(value, 3) for name, value in floors.items()}

# %% [markdown]
# ## Two rows of the output layer
#
# GPT-2's logits are $h_{\text{last}} E^\top$ with the token embedding $E \in \mathbb{R}^{V \times d}$. The answer needs
# two of the $V$ rows:
#
# $$\left(z_{\text{no}}, z_{\text{yes}}\right) = h_{\text{last}} \left[e_{\text{no}};\, e_{\text{yes}}\right]^\top$$
#
# No parameter is added. The words' numbers depend on the tokenizer (GPT-2: 3919 and 8505); the course's prediction file
# wants GPT-2's numbers from every model. Write it, without making the $V$ logits.
#
# <details><summary>Hint</summary>
#
# `E[[n, y]]` is `[2, d]`; the last real token of row $i$ stands at `lengths[i] - 1`.
#
# </details>

# %% tags=["cases"]
cloze_cases = [(torch.randn(3, 5, 4), torch.tensor([5, 2, 4]), torch.randn(7, 4), 6, 2)]


def library_cloze(hidden, lengths, E, no, yes):
    every = torch.nn.functional.linear(hidden, E)  # [batch, seq, V]
    return torch.stack([row[n - 1, [no, yes]] for row, n in zip(every, lengths.tolist(), strict=True)])


# %% tags=["exercise"]
@exercise("1 cloze", like=library_cloze, on=cloze_cases, look="which token is read, and the order of no and yes")
def cloze(hidden, lengths, E, no, yes):
    """hidden [batch, seq, d], real tokens [batch], embedding [V, d], two tokens -> logits of no and yes [batch, 2]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
@cloze.mistake("yes comes first")
def cloze(hidden, lengths, E, no, yes):
    return hidden[torch.arange(len(hidden)), lengths - 1] @ E[[yes, no]].T


@cloze.mistake("the last column is read, which may be padding")
def cloze(hidden, lengths, E, no, yes):
    return hidden[:, -1] @ E[[no, yes]].T


@cloze.solution
def cloze(hidden, lengths, E, no, yes):
    return hidden[torch.arange(len(hidden)), lengths - 1] @ E[[no, yes]].T  # [batch, d] @ [d, 2]


# %%
body, tokenizer = load_base(base_model, depth=depth or None)
encoder = Encoder(task, tokenizer, min(max_length, body.config.n_positions))
train, chooses, dev = encoder(seen.train), encoder(seen.dev), encoder(data.dev)
torch.manual_seed(seed)
spec = method_of(globals(), body.config)
model = prepare(data, body, tokenizer, spec)
print("tokens of no and yes:", answer_ids(tokenizer), "->", tokenizer.convert_ids_to_tokens(answer_ids(tokenizer)))
print(spec)
show.count_table(model)

# %% [markdown]
# **Check.** The two logits are exactly those of the whole vocabulary's.

# %%
batch = Batch.of(dev[:8])
with torch.no_grad():
    two = model.logits(batch)  # [8, 2]
    hidden = body(batch.input_ids)[torch.arange(len(two)), batch.lengths - 1]  # [8, d]
    whole = body.logits(hidden)[:, answer_ids(tokenizer)]  # [8, 2] out of [8, V]
check.close("the cloze logits are rows of the output layer", two, whole, 1e-4, "objectives.ClozeHead")

# %% [markdown]
# ## Training
#
# Asked before any training, what is left of the model has its habits: it is cut at `depth` blocks, so the output layer
# reads states that it was never trained on (notebook 06 asks the whole one). How often does it say which word?

# %%
before, answers = evaluate(model, dev)
said = [label for label, _ in answers]
print({word: said.count(i) for i, word in enumerate(data.class_names)}, "of", len(said))
print(f"before training: {before['accuracy']:.3f}, the majority class: {floors['majority_accuracy']:.3f}")
ahead = predict("By how many points will the model beat the majority class on dev?")(None)

# %%
how = settings_of(globals())
progress = fit(model, train, chooses, how, folder=out or None)

# %%
figures.learning_curve(
    progress.history,
    "accuracy",
    {"majority": floors["majority_accuracy"], "bag of words": floors["bag_of_words_accuracy"]},
)

# %% [markdown]
# ## The result

# %%
metrics, predictions = evaluate(model, dev)
classes = [predicted for predicted, _ in predictions]
print({name: round(value, 3) for name, value in metrics.items()})
ahead.was(
    100 * (metrics["accuracy"] - floors["majority_accuracy"]),
    f"The bag of words is {100 * (floors['bag_of_words_accuracy'] - floors['majority_accuracy']):.1f} "
    "points above it; a 95 % interval "
    f"of one accuracy on {len(data.dev)} pairs is up to {98 / len(data.dev) ** 0.5:.1f} points wide to either side.",
    digits=1,
)
figures.confusion([e.label for e in data.dev], classes, data.class_names)

# %%
kept, _ = evaluate(model, chooses, how.batch_size, how.precision)  # as training measured it
check(
    "the weights that were best while training were kept",
    abs(kept["accuracy"] - max(row["accuracy"] for row in progress.history)) < 1e-9,
    (kept, progress.history),
    "training.fit",
)

# %%
show.mistakes(data.dev, classes)

# %% [markdown]
# Written last, where a folder was given: the record of this run, and predictions ready to hand in.

# %%
metrics, base = metrics | floors, base_name(base_model)
write_run(out, data, model, encoder, progress, how, metrics, predictions, base, method, trial=trial, floor=counted)

# %% [markdown]
# ## What we saw, and what it does not show
#
# A cloze needs no new parameters: the output layer that a language model has anyway gives the answer, once the blocks
# below it have learnt to ask for it. Whether two questions "ask the same" is what Quora's users and editors decided;
# some labels are wrong, and a dev set of 2,000 pairs leaves 1.9 points open to either side of one accuracy.
#
# On made-up pairs, which differ in a rule, a base that knows English finds the rule at once; on Quora's own pairs the
# same training is the report's. The bag of words is handed the comparison as a feature; where it stays ahead, that is a
# result, too: see the floors first.
#
# **Try it.** Set `base_model = "gpt2-mini"`, `depth = 0`, `layers = []`, `method = "full"`, `lr = 5e-4` and
# `epochs = 6`: the same pairs, all parameters, and a base that has read a hundred thousand times less. ExpLoRA adapts
# only keys and values here (`targets = ["k", "v"]`). Does it cost accuracy on your data? What does
# `method = "last-linear"` train, and why is it so little?
#
# | paper, section | equation | file and class here | where we deviate |
# |---|---|---|---|
# | [Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), 2 | a task as text to continue | [training/objectives.py](../gpt2lib/training/objectives.py), `ClozeHead` | trained, and two words only are weighed |
#
# **References.** [Radford et al.
# 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) (GPT-2);
# [Quora 2017](https://quoradata.quora.com/First-Quora-Dataset-Release-Question-Pairs) (question pairs); Penfold, Bruvik
# and Srinivasan (ExpLoRA).

# %% tags=["nbval-check-output"]
check.table()
