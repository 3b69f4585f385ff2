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
# # Graph LoRA: attention over a graph of similar tokens
#
# **The question.** A sentence can be seen as a graph that joins its similar tokens. What does such a graph add to
# attention, and what goes wrong when it is drawn carelessly?
#
# After this notebook you can
# - build a causal token graph from similarities, without a loop over tokens,
# - add graph attention (GATv2) beside every block so that nothing changes at first,
# - show why the fully connected graph of the published code leaks the future.

# %% tags=["parameters"]
task: str = "sst"  # sst, cfimdb or quora
source: str = "toy"  # "toy", a folder with the course's files, or "" for GPT2LIB_DATA, data/ or a download
base_model: str = "gpt2-mini"  # or a folder in the transformers layout, or a hub name such as "gpt2"
rank: int = 4  # of the LoRA inside
graph_rank: int = 8  # width of the graph's attention
heads: int = 2  # of it
top_k: int = 4  # a token is joined with this many similar earlier ones
lr: float = 2e-3  # highest learning rate
epochs: int = 4  # passes through the training data
batch_size: int = 16  # examples per update
examples: int = 320  # training examples, drawn once and for all; 0 takes all
seed: int = 0  # of the head, the adapter and the order of the data

# %%
import torch

from gpt2lib.adapters import GraphLoRA, LoRA, adapter_parameters, attach, of_size, trained_count
from gpt2lib.course import lessons, show
from gpt2lib.data import load_task
from gpt2lib.model.base import load_base
from gpt2lib.report import figures
from gpt2lib.training import TrainingSettings

# %% [markdown]
# ## The layer
#
# Let $h \in \mathbb{R}^{T \times d}$ be the output of a block and $g = h P_{\text{down}}^\top \in \mathbb{R}^{T \times r}$.
# Token $t$ has an edge to $u$ if $u \le t$, $u$ is no padding, and $\cos(h_t, h_u)$ is among the $k$ largest (or above a
# threshold); and always to itself. Over its edges
#
# $$e_{tu} = a^\top \mathrm{LeakyReLU}(W_l\, g_t + W_r\, g_u), \quad \alpha_{tu} = \operatorname{softmax}_u e_{tu}, \quad o_t = \sum_u \alpha_{tu} W_r\, g_u, \quad h_t \leftarrow h_t + P_{\text{up}}\, o_t$$
#
# with $P_{\text{up}} = 0$ at first. LoRA sits on the attention weights beside it. The pairwise term needs
# $T^2 r$ numbers a sentence; `scores="dot"` takes $\langle W_l g_t, W_r g_u\rangle$ instead, for long texts.

# %% tags=["nbval-check-output"]
spec = GraphLoRA(rank=rank, graph_rank=graph_rank, heads=heads, top_k=top_k)
lessons.check_properties(spec, base_model)
config = load_base(base_model)[0].config
lora, graph = 2 * rank * 2 * config.n_embd, 2 * config.n_embd * graph_rank + 2 * graph_rank**2 + graph_rank
counted = trained_count(spec, config)
show.check("trained in each block: LoRA's, 2 d g, 2 g^2 and g", counted == config.n_layer * (lora + graph), counted)


# %% [markdown]
# ## The published graph, and what it leaks
#
# The paper's public code joins every token with every other. In a causal model a token then sees the tokens that it is
# asked to predict, and padding beside. The literal form is here under its name, `fully_connected=True`, switched off by
# default: change the last token of a text, and see where the outputs change.


# %%
def first_output_that_changes(spec):
    """Position of the first output that is moved by another last token, of 12."""
    body, _ = load_base(base_model)
    torch.manual_seed(seed)
    attach(body, spec)
    with torch.no_grad():
        for p in adapter_parameters(body).values():
            p.normal_(std=0.1)  # as if trained: at first P_up = 0 hides the leak
        ids = torch.randint(0, body.config.vocab_size, (1, 12))
        other = ids.clone()
        other[0, -1] = (ids[0, -1] + 1) % body.config.vocab_size
        moved = (body(ids) - body(other))[0].abs().amax(-1) > 1e-5
    return int(moved.nonzero()[0])


where = {
    name: first_output_that_changes(s) for name, s in {"causal": spec, "full": GraphLoRA(fully_connected=True)}.items()
}
where

# %% tags=["nbval-check-output"]
show.check("in the causal graph only the last output changes", where["causal"] == 11, where)
show.check("in the fully connected graph the first output changes: it has seen the future", where["full"] == 0, where)

# %% [markdown]
# ## Against LoRA, at the same number of parameters

# %%
body, tokenizer = load_base(base_model)
size = trained_count(spec, body.config)
methods = {"Graph LoRA": spec, "LoRA": of_size(LoRA(), size, body.config)}
print(methods["LoRA"])
data = load_task(task, source or None, quiet=True).sample(examples)
settings = TrainingSettings(epochs=epochs, batch_size=batch_size, seed=seed)
models, table = lessons.comparison(methods, dict.fromkeys(methods, lr), data, base_model, settings)
table

# %% [markdown]
# ## The graph over a sentence
#
# In the last block, a row for the token that takes: how similar each two are, which are joined (the most similar, and
# each with itself), and how much each takes from each (heads averaged).

# %%
text = data.dev[0].text
ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :24]
block = models["Graph LoRA"].body.eval().blocks[-1]
seen = {}
handle = block.base.register_forward_hook(lambda module, args, output: seen.update(h=output))
with torch.no_grad():
    models["Graph LoRA"].body(ids)
    attention, _ = block.attend(seen["h"], None)  # [1, heads, seq, seq]
handle.remove()
tokens = [tokenizer.decode([i]) for i in ids[0]]
unit = torch.nn.functional.normalize(seen["h"][0], dim=-1)
figures.token_graph(attention[0].numpy(), tokens, (unit @ unit.T).numpy())

# %% tags=["nbval-check-output"]
joined = (attention[0] > 0).sum(-1)
show.check(
    f"no token has more than top_k edges and its own, {top_k + 1}", int(joined.max()) <= top_k + 1, int(joined.max())
)
show.check("no edge leads to a later token", not bool((attention[0] > 0).triu(1).any()))

# %% [markdown]
# ## What we saw, and what it does not show
#
# The sound graph is a second, narrow attention whose pattern is chosen by similarity, not learned; the published gains
# came from a graph that sees what it should not. Whether the sound one earns its parameters is what the table says, for
# one seed on one task.
#
# **Exercise 1.** How many numbers does the graph of one block train at `graph_rank=8`, `heads=2` and width 768 (without LoRA)?
#
# **Exercise 2.** What is the memory of the pairwise term, in numbers, for a batch of 8 texts of 512 tokens at `graph_rank=8`?

# %% tags=["nbval-check-output"]
answer_1 = None
answer_2 = None
show.exercise(1, answer_1, 12_424, "P_down, P_up, W_l, W_r and a")
show.exercise(2, answer_2, 8 * 512 * 512 * 8, "batch, tokens twice, and graph_rank")

# %% [markdown]
# **Solutions** (open the cell to see them).

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
show.exercise(1, 2 * 768 * 8 + 2 * 8 * 8 + 8, 12_424, "")
show.exercise(2, 8 * 512 * 512 * 8, 16_777_216, "")

# %% [markdown]
# **References.** Bo, Bernardino and Gu 2025 (arXiv 2504.10490); Brody, Alon and Yahav 2021 (GATv2, arXiv 2105.14491).
