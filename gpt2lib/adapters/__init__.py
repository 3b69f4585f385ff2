"""Adapters: a few trained parameters beside the frozen weights of a model, all behind one interface.

    attach(model, LoRA(rank=8))     # freeze the base, add the adapter; the outputs are unchanged at first
    ... train ...
    save(model, "my-adapter")       # a few MB, never the base
    merge(model)                    # fold it into the weights: a plain model again
    load(model, "my-adapter")       # on the same base, in place of an adapter that is attached

A new method is one file (a specification and its layer), one import below, which registers it in SPECIFICATIONS, and a
record in `tasks.method`, by which notebooks, studies and the report know it.
"""

from gpt2lib.adapters.alpha_lora import AlphaLoRA
from gpt2lib.adapters.base import SPECIFICATIONS, Spec, adapter_parameters, attach, detach, merge
from gpt2lib.adapters.files import load, save
from gpt2lib.adapters.graph_lora import GraphLoRA
from gpt2lib.adapters.kan_lora import KANLoRA
from gpt2lib.adapters.krona import KronA, KronAB
from gpt2lib.adapters.lora import LoRA
from gpt2lib.adapters.peft_format import from_peft, to_peft
from gpt2lib.adapters.size import of_size, trained_count
from gpt2lib.training.hooks import Hook
