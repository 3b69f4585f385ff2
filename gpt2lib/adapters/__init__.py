"""Adapters: a few trained parameters beside the frozen weights of GPT-2, all behind one interface.

    attach(model, LoRA(rank=8))     # freeze the base, add the adapter; the outputs are unchanged at first
    ... train ...
    save(model, "my-adapter")       # a few MB, never the base
    merge(model)                    # fold it into the weights: a plain GPT2 again
    load(model, "my-adapter")       # on the same base, in place of an adapter that is attached

A new method is one file (a specification and its layer) and one import below, which registers it in METHODS.
"""

from gpt2lib.adapters.base import METHODS, Spec, adapter_parameters, attach, attached_spec, detach, merge
from gpt2lib.adapters.files import load, save
from gpt2lib.adapters.lora import LoRA

__all__ = [
    "METHODS",
    "LoRA",
    "Spec",
    "adapter_parameters",
    "attach",
    "attached_spec",
    "detach",
    "load",
    "merge",
    "save",
]
