"""Ours against transformers + peft on the same work: one process, in turns, medians of the rounds' ratios.

Needs peft. Most quantities are functions that return rows for `report/results/benchmarks.csv`: quantity, ours, peer
(what it is compared with), ratio, unit; others a table for a figure of its own. "ours" and the peer's value are
medians; a ratio above 1 is in our favour.
Memory and start-up are measured in processes of their own.
"""

from gpt2lib.benchmarks.decoding import decoding
from gpt2lib.benchmarks.resources import memory, optimizer, start_up
from gpt2lib.benchmarks.training import (
    adapter_costs,
    dev_curves,
    frozen_prefix,
    growth,
    last_linear,
    training,
    utilisation,
    waterfall,
)
from gpt2lib.benchmarks.work import Work, keep
