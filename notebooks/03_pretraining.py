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
# - train a byte-level BPE tokenizer like GPT-2's,
# - pack documents into rows without any padding,
# - pretrain a small GPT-2, resume it after an interruption, and save it so that transformers loads it too.

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
import random
import tempfile
from pathlib import Path

import pandas as pd
import torch

from gpt2lib import GPT2, GPT2Config, report
from gpt2lib.common.checks import check_name
from gpt2lib.course import card, show
from gpt2lib.data import pretraining, tokenize
from gpt2lib.model.base import load_tokenizer
from gpt2lib.report import figures
from gpt2lib.study.record import write_pretraining
from gpt2lib.training import TrainingSettings, evaluate, fit
from gpt2lib.training.objectives import LanguageModel

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
    train[part], held_out[part] = pretraining.hold_out(documents[part], every=100)
    print(f"{part}: {len(train[part])} documents, {len(held_out[part])} held out")

# %% [markdown]
# ## The tokenizer
#
# Byte-level BPE begins with the 256 bytes and merges the pair of neighbours that is most frequent, again and again
# (Sennrich et al. 2016; Radford et al. 2019). Frequent words become one token; any text can be written.

# %%
rng = random.Random(seed)
sample = [text for part in parts for text in rng.sample(train[part], min(len(train[part]), 15_000))]
tokenizer = pretraining.train_tokenizer(sample, vocab_size, folder)
text = held_out[parts[0]][0][:60]
print(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))

# %% tags=["nbval-check-output"]
texts = [text for part in parts for text in held_out[part]]
back = tokenizer.batch_decode(tokenizer(texts)["input_ids"])
show.check("decoding gives every held-out text back, byte for byte", back == texts)
show.check("the end of text is the last token", tokenizer.eos_token_id == len(tokenizer) - 1)

# %% [markdown]
# ## Packing
#
# Documents of all lengths are laid end to end, an end-of-text token before each, and cut into rows of `length` tokens:
# nothing is padding, and every token but the first of a row is a lesson. Small parts are repeated to get their share.

# %%
end = tokenizer.eos_token_id
ids = {part: tokenize(train[part], tokenizer) for part in parts}
rows = pretraining.mix(ids, share, end, length, tokens, seed)
dev_rows = {part: pretraining.pack(tokenize(held_out[part], tokenizer), end, length, 20, seed) for part in parts}
dev = [row for part in parts for row in dev_rows[part]]
print(f"{len(rows)} rows of {length} tokens to train on, {len(dev)} held out")

# %% tags=["nbval-check-output"]
show.check("every row is full", {len(row.ids) for row in rows} == {length})

# %% [markdown]
# ## Training
#
# The model starts from random weights (section 2.3 of Radford et al. 2019: normal, 0.02, smaller on the residual
# path), where it gives every token about the same chance: the loss starts at about $\log V$.

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

# %% tags=["nbval-check-output"]
untrained, _ = evaluate(language_model, dev)
uniform = torch.tensor(float(len(tokenizer))).log()
show.check_close("an untrained model's loss is log(vocab_size)", torch.tensor(untrained["loss"]), uniform, 0.3)

# %% [markdown]
# ### A head start for the embeddings
#
# Which tokens stand near which is known without any training: one pass counts it. The pointwise mutual information
# $\log \frac{p(a, b)}{p(a)\, p(b)}$ of neighbours, cut at 0 and factored by a singular value decomposition, gives word
# vectors like word2vec's (Levy and Goldberg 2014), in seconds. The model starts from them, and trains them on.

# %%
if embeddings == "counts":
    with torch.no_grad():
        model.wte.weight.copy_(pretraining.count_embeddings(ids, end, len(tokenizer), n_embd))

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
{part: round(value, 1) for part, value in by_part.items()}

# %% tags=["nbval-check-output"]
show.check("perplexity fell to less than a fifth", metrics["perplexity"] < untrained["perplexity"] / 5, metrics)

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

# %% tags=["nbval-check-output"]
same = all(torch.equal(p.half().float(), q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
show.check("the saved model is the trained one, rounded to half precision", same)

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
# from counts earned their places; a larger batch and two more layers did not, at this budget.

# %%
figures.trials(pd.read_csv(report.FOLDER / "results" / "pretraining-trials.csv"))

# %% [markdown]
# ## What it is worth
#
# `gpt2lib study notebooks/studies/pretraining.toml` trains `gpt2-mini`, and the same architecture from random weights,
# on real data, by the same settings: all parameters, each base with the learning rate that was best for it, and LoRA
# alone. Dev accuracy in per cent, beside the floors:

# %%
worth = report.worth(pd.read_csv(report.FOLDER / "results" / "pretraining.csv"))
floors = worth.groupby("task")[["bag_of_words_accuracy", "majority_accuracy"]].first()
(100 * worth.pivot(index="task", columns=["method", "base_model"], values="accuracy")).round(1)

# %%
(100 * floors).round(1)

# %% [markdown]
# ## What we saw, and what it does not show
#
# What twelve million tokens are worth depends on what may move. With LoRA alone `gpt2-mini` is nine points better on
# SST than random weights, which few parameters cannot mend; with all parameters trained, almost four. On CFIMDB and
# Quora the two bases cannot be told apart, and a bag of words is better than both: those tasks want whole reviews
# weighed and questions compared, and this model has read too little for that. More text would close the gap, not
# another adapter.
#
# A few million tokens teach spelling, common phrases and the manner of each part; they do not teach the world. A model
# that has seen 10 000 times fewer words than GPT-2 is no GPT-2, and results on it are never shown as GPT-2's.
#
# **Try it.** Halve `n_embd` and double `tokens`: the same time, about. Which one has the lower held-out perplexity?
#
# **References.** Radford et al. 2019 (GPT-2); Sennrich, Haddow and Birch 2016 (BPE).
