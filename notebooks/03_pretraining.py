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
# # Pretraining: a small GPT-2 of one's own
#
# **The question.** Adapters change a model that knows language already. Where does that knowledge come from, and how
# much of it can be had on a laptop?
#
# After this notebook you can
# - train a byte-level tokenizer like GPT-2's, and pack documents into rows without any padding,
# - read from counts alone which tokens belong together, and start a model from that,
# - pretrain a small GPT-2, and save it in the layout of transformers.
#
# Needs notebook 02. It runs in about a minute on one core, on text that is made up; the model that the other notebooks
# use took 102.

# %% tags=["parameters"]
source: str = "toy"  # "toy", a folder with one .txt or .txt.xz file a part, or "" for GPT2LIB_CORPUS
parts: list = ["reviews", "questions", "poetry"]  # parts of the corpus to train on
shares: list = [0.4, 0.3, 0.3]  # of the tokens, for each part
sources: str = "The text is made up."  # what it is and where it comes from, for the model card
name: str = "toy-brief"  # what the model is called: its folder's name
vocab_size: int = 512  # entries of the tokenizer, at most (little text has fewer pairs to merge)
n_layer: int = 2  # blocks
n_head: int = 4  # attention heads
n_embd: int = 64  # width
length: int = 128  # tokens a row, and the model's n_positions
tokens: int = 200000  # to train on
batch_size: int = 16  # rows per update
embeddings: str = "counts"  # what the token embeddings start from; or "random"
optimizer: str = "adamw"  # or "muon", for the matrices of the blocks
lr: float = 4e-3  # highest learning rate
weight_decay: float = 0.01  # decoupled, as in AdamW
warmup: float = 0.05  # fraction of the steps in which the learning rate rises
decay: float = 1.0  # fraction of the rest in which it falls to 0
eval_every: int = 25  # steps between evaluations
precision: str = "float32"  # or "bf16" where the hardware is fast at it
prompts: int = 1  # held-out documents of each part whose beginning the model continues at the end
seed: int = 0  # of the weights and the order of the data
out: str = ""  # folder for the model and the results; "" keeps none

# %%
import copy
import math
import random
import tempfile
from pathlib import Path

import pandas as pd
import torch

from gpt2lib import GPT2, GPT2Config, report
from gpt2lib.common.checks import check_name
from gpt2lib.course import Verdicts, card, exercise, predict, show
from gpt2lib.data import pretraining, tokenize
from gpt2lib.model.base import load_tokenizer
from gpt2lib.report import figures
from gpt2lib.study.record import write_pretraining
from gpt2lib.training import TrainingSettings, evaluate, fit
from gpt2lib.training.objectives import LanguageModel

check = Verdicts()
check_name("name", name)
folder = Path(out or tempfile.mkdtemp()) / name
share = dict(zip(parts, shares, strict=True))

# %% [markdown]
# ## The text
#
# Every hundredth document of each part is held out; no model sees it in training.

# %%
documents = pretraining.corpus(source)
train, held_out = {}, {}
for part in parts:
    train[part], held_out[part] = pretraining.every_nth_held_out(documents[part], every=100)
    print(f"{part}: {len(train[part])} documents, {len(held_out[part])} held out")

# %% [markdown]
# ## The tokenizer
#
# Byte-level BPE begins with the 256 bytes and merges the pair of neighbours that is most frequent, again and again
# (Sennrich et al. 2016; Radford et al. 2019): what you wrote in notebook 02, on bytes, so that any text can be written.
# The `tokenizers` package does the thousands of steps fast.

# %%
rng = random.Random(seed)
sample = [text for part in parts for text in rng.sample(train[part], min(len(train[part]), 15_000))]
tokenizer = pretraining.train_tokenizer(sample, vocab_size, folder)
text = held_out[parts[0]][0][:60]
print(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))

# %%
texts = [text for part in parts for text in held_out[part]]
back = tokenizer.batch_decode(tokenizer(texts)["input_ids"])
check("decoding gives every held-out text back, byte for byte", back == texts)
check("the end of text is the last token", tokenizer.eos_token_id == len(tokenizer) - 1)


# %% [markdown]
# ## Packing
#
# Documents of all lengths are laid end to end, an end-of-text token before each, and cut into rows of `length` tokens:
# nothing is padding, and every token but the first of a row is a lesson. Small parts are repeated to get their share.
# Write it for documents in the order in which they come; what does not fill a last row is dropped.
#
# <details><summary>Hint</summary>
#
# One long list first, then slices of it: `range(0, len(stream) - length + 1, length)`.
#
# </details>


# %% tags=["cases"]
def some_rows(function):
    documents = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]
    return {length: function(copy.deepcopy(documents), 0, length) for length in (3, 4, 5, 15, 16)}


# %% tags=["exercise"]
@exercise("1 packed", digest="4a1122703a22", run=some_rows, look="where the end-of-text token stands, and the last row")
def packed(documents, end, length):
    """Lists of tokens, the end-of-text token, tokens a row -> a list of rows, each a list of `length` tokens"""


# %% jupyter={"source_hidden": true} tags=["solution"]
def cut(stream, length):
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


@packed.mistake("nothing stands between the documents, and the model reads across them")
def packed(documents, end, length):
    return cut([token for document in documents for token in document], length)


@packed.mistake("the last row is kept though it is not full")
def packed(documents, end, length):
    stream = [token for document in documents for token in (end, *document)]
    return [stream[i : i + length] for i in range(0, len(stream), length)]


@packed.mistake("every document is cut for itself, and its rest is lost")
def packed(documents, end, length):
    return [row for document in documents for row in cut([end, *document], length)]


@packed.solution
def packed(documents, end, length):
    return cut([token for document in documents for token in (end, *document)], length)


# %%
end = tokenizer.eos_token_id
ids = {part: tokenize(train[part], tokenizer) for part in parts}
rows = pretraining.mix(ids, share, end, length, tokens, seed)
dev_rows = {part: pretraining.pack(tokenize(held_out[part], tokenizer), end, length, 20, seed) for part in parts}
dev = [row for part in parts for row in dev_rows[part]]
print(f"{len(rows)} rows of {length} tokens to train on, {len(dev)} held out")

# %%
check("every row is full", {len(row.ids) for row in rows} == {length})

# %% [markdown]
# ## Training
#
# The model starts from random weights (normal, 0.02, as in Radford et al. 2018; smaller on the residual path, as in
# section 2.3 of Radford et al. 2019), where it gives every token about the same chance: the loss starts at about
# $\log V$.

# %%
torch.manual_seed(seed)
model = GPT2(
    GPT2Config(
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        vocab_size=len(tokenizer),
        n_positions=length,
        bos_token_id=end,
        eos_token_id=end,
    )
)
language_model = LanguageModel(model)
show.count_table(language_model)

# %%
untrained, _ = evaluate(language_model, dev)
uniform = torch.tensor(float(len(tokenizer))).log()
check.close("an untrained model's loss is log(vocab_size)", torch.tensor(untrained["loss"]), uniform, 0.3)

# %% [markdown]
# ### A head start for the embeddings
#
# Which tokens stand near which is known without any training: one pass counts it. Let $p(a, b)$ be the share of the
# neighbouring pairs, counted in both orders, that is $(a, b)$, and $p(a) = \sum_b p(a, b)$. The **pointwise mutual
# information** says how much more often two tokens meet than by chance; its positive part is
#
# $$I(a, b) = \max\!\Big(0,\ \log \frac{p(a, b)}{p(a)\, p(b)}\Big), \qquad I(a, b) = 0 \text{ if they never meet.}$$
#
# Write it.
#
# <details><summary>Hint</summary>
#
# `pairs.index_put_((left, right), ones, accumulate=True)` counts; adding the transpose counts both orders. The
# logarithm of 0 is minus infinity, which `clamp` cuts, too; 0 / 0, of a token that never occurs, is no number, and
# `nan_to_num` makes it 0.
#
# </details>

# %% tags=["cases"]
two_texts = [(torch.tensor([0, 1, 2, 0, 1, 3, 0, 1]), 4), (torch.tensor([0, 0, 1, 0, 2, 2, 1, 2, 2]), 4)]


# %% tags=["exercise"]
@exercise("2 information", digest="efaced7fbaf4", on=two_texts, look="both orders, chance, and what lies below 0")
def information(ids, vocab_size):
    """A text's tokens [seq] -> the positive pointwise mutual information of neighbours, [vocab_size, vocab_size]"""


# %% jupyter={"source_hidden": true} tags=["solution"]
def met(ids, vocab_size, both=True):
    """The share of the pairs, [vocab_size, vocab_size]."""
    pairs = torch.zeros(vocab_size, vocab_size)
    pairs.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1), accumulate=True)
    pairs = pairs + pairs.T if both else pairs
    return pairs / pairs.sum()


@information.mistake("a token is met only by what comes before it: the table is not symmetric")
def information(ids, vocab_size):
    p = met(ids, vocab_size, both=False)
    return (p / (p.sum(1)[:, None] * p.sum(0))).log().clamp(min=0).nan_to_num()


@information.mistake("nothing is cut, and pairs that never meet are minus infinity")
def information(ids, vocab_size):
    p = met(ids, vocab_size)
    return (p / (p.sum(1)[:, None] * p.sum(1))).log().nan_to_num(0, neginf=-math.inf)


@information.mistake("frequent tokens win everywhere: chance is not divided out")
def information(ids, vocab_size):
    p = met(ids, vocab_size)
    return (p / p.mean()).log().clamp(min=0)


@information.solution
def information(ids, vocab_size):
    p = met(ids, vocab_size)
    return (p / (p.sum(1)[:, None] * p.sum(1))).log().clamp(min=0).nan_to_num()


# %% [markdown]
# Factored by a singular value decomposition the table gives word vectors like word2vec's (Levy and Goldberg 2014), in
# seconds. The library's counts reach over five tokens, and smooth what is rare (Levy, Goldberg and Dagan 2015). Below
# are the tokens whose vectors point in about the same direction; the model starts from these vectors, and trains them
# on.

# %%
if embeddings == "counts":
    vectors = pretraining.count_embeddings(ids, end, len(tokenizer), n_embd)
    with torch.no_grad():
        model.wte.weight.copy_(vectors)
    direction = torch.nn.functional.normalize(vectors)
    for token in [t for t in ("Ġfilm", "Ġdull", "Ġhow", "Ġlove") if t in tokenizer.get_vocab()]:
        likeness = direction @ direction[tokenizer.convert_tokens_to_ids(token)]  # cosines, [vocab_size]
        nearest = tokenizer.convert_ids_to_tokens(likeness.topk(6).indices[1:].tolist())
        print(f"{token} is near {', '.join(nearest)}")

# %%
reached = predict(
    f"Perplexity on held-out text is {untrained['perplexity']:.0f} before training. What is it after {tokens:,} tokens?"
)(None)

# %%
settings = TrainingSettings(
    epochs=1,
    batch_size=batch_size,
    optimizer=optimizer,
    lr=lr,
    weight_decay=weight_decay,
    warmup=warmup,
    decay=decay,
    eval_every=eval_every,
    precision=precision,
    seed=seed,
)
progress = fit(language_model, rows, dev, settings, folder=out or None, checkpoint_seconds=180)

# %%
figures.learning_curve(progress.history, "perplexity")

# %% [markdown]
# ## What it knows
#
# Perplexity on the held-out documents of each part: how many tokens the model wavers between, on average.

# %%
metrics, _ = evaluate(language_model, dev)
by_part = {f"perplexity_{part}": evaluate(language_model, dev_rows[part])[0]["perplexity"] for part in parts}
reached.was(
    metrics["perplexity"],
    f"That is {100 * metrics['loss'] / untrained['loss']:.0f} % of the loss at the start, in nats. Text "
    "that is made up from few patterns is "
    "easily foreseen: on real text the same number of tokens buys far less.",
    digits=1,
)
{part: round(value, 1) for part, value in by_part.items()}

# %%
check("perplexity fell to less than a fifth", metrics["perplexity"] < untrained["perplexity"] / 5, metrics)

# %% [markdown]
# What it writes: the first eight tokens of held-out documents that have more, continued.

# %%
first = []
for part in parts:
    first += [ids[:8] for ids in tokenize(held_out[part], tokenizer) if len(ids) > 8][:prompts]
prompt = torch.tensor([[end, *ids] for ids in first])
written = model.eval().generate(
    prompt, max_new_tokens=48, top_p=0.9, eos_token_id=end, generator=torch.Generator().manual_seed(seed)
)
width = prompt.shape[1]
decode = lambda rows: tokenizer.batch_decode(rows, skip_special_tokens=True)  # noqa: E731
continuations = list(zip(decode(written[:, :width]), decode(written[:, width:]), strict=True))
for begun, text in continuations:
    print(f"{begun} >>>{text}\n---")

# %% [markdown]
# ## Saved, in transformers' layout
#
# Half precision is enough to keep weights, at half the size; loading makes them float32 again.

# %%
model.save_pretrained(folder, torch.float16)
again = GPT2.from_pretrained(folder)
load_tokenizer(folder)
sorted(file.name for file in folder.iterdir())

# %%
same = all(torch.equal(p.half().float(), q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
check("the saved model is the trained one, rounded to half precision", same)

# %%
by_name = {part: by_part[f"perplexity_{part}"] for part in parts}
about = card.model_card(name, model.config, settings, progress, share, by_name, continuations, embeddings, sources)
(folder / "README.md").write_text(about, encoding="utf-8")
write_pretraining(out, model, progress, settings, metrics | by_part, name, source, continuations)

# %% [markdown]
# ## What buys most per hour?
#
# Before the long run that made `gpt2-mini`, short ones of half a million tokens compared recipes on the real corpus,
# each on one core of the same kind. Muon, which orthogonalises the updates of the hidden matrices, and word vectors
# from counts earned their places, though AdamW was tried at one rate alone; a larger batch did not. Six layers at their
# best rate reach a little more than four at theirs, in half as much time again. ("counts / 3": the same word
# vectors at a third of their size.)

# %%
figures.trials(pd.read_csv(report.FOLDER / "results" / "pretraining-trials.csv"))

# %% [markdown]
# ## What it is worth
#
# `gpt2lib study notebooks/studies/pretraining.toml` trains `gpt2-mini`, and the same architecture from random weights,
# on real data, by the same settings: all parameters, each base with the learning rate that was best for it, and LoRA
# alone (a frozen base with two thin trained matrices beside each of its own, notebook 11). Dev accuracy in per cent:

# %%
worth = report.worth(pd.read_csv(report.FOLDER / "results" / "pretraining.csv"))
(100 * worth.pivot(index="task", columns=["method", "base_model"], values="accuracy")).round(1)

# %% [markdown]
# How sure is each difference? Both bases answered the same examples, so it is a mean of differences, answer by answer,
# with a standard error from the choice of the examples (notebook 22). Other seeds would move it too, and there is one;
# and where all parameters were trained, the better of two rates was chosen on the same dev set.

# %%
runs = pd.read_csv(report.FOLDER / "results" / "pretraining.csv")
best = runs.loc[runs.groupby(["task", "method", "base_model"])["accuracy"].idxmax()]
answers = pd.read_parquet(report.FOLDER / "results" / "pretraining-examples.parquet").merge(best[["run", "base_model"]])
paired = answers.pivot(index=["method", "task", "id"], columns="base_model", values="correct").astype(float)
points = 100 * (paired["gpt2-mini"] - paired["untrained gpt2-mini"]).groupby(["method", "task"]).agg(["mean", "sem"])
points.rename(columns={"mean": "points more", "sem": "standard error"}).round(1)

# %% [markdown]
# And their floors, each with the data of its own runs: on Quora LoRA and its bag of words had 6,000 pairs, and all
# parameters the whole set. On CFIMDB the bag of words reads whole reviews, and a model no more than the last
# `max_length` tokens of each, which is less in LoRA's runs: there it is no floor under equal conditions.

# %%
columns = ["bag_of_words_accuracy", "majority_accuracy"]
floors = runs.groupby(["task", "method"])[[*columns, "max_length"]].first()
floors.assign(**(100 * floors[columns]).round(1))

# %% [markdown]
# ## What we saw, and what it does not show
#
# What twelve million tokens are worth depends on what may move. With LoRA alone `gpt2-mini` is nine points better on
# SST than random weights, which few parameters cannot mend, and that is five standard errors. All other differences are
# of some two standard errors or less, before other seeds are thought of: nothing to build on. On CFIMDB and Quora a bag
# of words is better than both: on CFIMDB it read more of each review, on Quora it is handed the comparison as a
# feature. This model has read too little; we think that more text would close the gap, and not another adapter, but
# nothing here tests it.
#
# A few million tokens teach spelling, common phrases and the manner of each part; they do not teach the world.
# `gpt2-mini` has read some 900 times less text than GPT-2 (12 million tokens of about 3.7 bytes, against WebText's 40
# GB). It is no GPT-2, and results on it are never shown as GPT-2's.
#
# **Try it.** Halve `n_embd` and double `tokens`, which takes somewhat longer. Which one has the lower held-out
# perplexity?
#
# | paper, section | equation | file and class here | where we deviate |
# |---|---|---|---|
# | [Sennrich, Haddow and Birch 2016](https://arxiv.org/abs/1508.07909), 3.2 | merge the most frequent pair | [data/pretraining.py](../gpt2lib/data/pretraining.py), `train_tokenizer` | on bytes, as GPT-2; "yes" and "no" are sure to be tokens |
# | [Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), 2.3 | normal, 0.02 (GPT-2's code), smaller on the residual path | [model/decoder.py](../gpt2lib/model/decoder.py), `reset_parameters` | token embeddings may start from counts |
# | [Levy and Goldberg 2014](https://papers.nips.cc/paper/2014/hash/feab05aa91085b7a8012516bc3533958-Abstract.html), 3 and 4 | $\max(0, \mathrm{PMI})$, factored | [data/pretraining.py](../gpt2lib/data/pretraining.py), `count_embeddings` | tokens for words; contexts smoothed ([Levy, Goldberg and Dagan 2015](https://doi.org/10.1162/tacl_a_00134)) |
# | [Jordan et al. 2024](https://kellerjordan.github.io/posts/muon/) | Newton-Schulz on the momentum | [training/optimizer.py](../gpt2lib/training/optimizer.py), `Muon` | in the long run, and in all trials but one |
#
# **References.** [Radford et al.
# 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf) (GPT-2);
# [Sennrich, Haddow and Birch 2016](https://arxiv.org/abs/1508.07909) (BPE); [Levy and Goldberg
# 2014](https://papers.nips.cc/paper/2014/hash/feab05aa91085b7a8012516bc3533958-Abstract.html) (vectors from counts);
# [Jordan et al. 2024](https://kellerjordan.github.io/posts/muon/) (Muon).

# %% tags=["nbval-check-output"]
check.table()
