"""Every figure, by subject: a table or a tensor in, a matplotlib figure out. Only this folder plots.

The report and the notebooks call the functions through this package, `figures.methods(table)`.
"""

from gpt2lib.report.figures.adapters import (
    alpha_agreement,
    alpha_paths,
    row_alphas,
    singular_values,
    splines,
    token_graph,
)
from gpt2lib.report.figures.bases import attention_maps, block_ranges, needs, positions, pretraining, trials
from gpt2lib.report.figures.benchmarks import two_sides, waterfall
from gpt2lib.report.figures.comparison import methods
from gpt2lib.report.figures.costs import cost
from gpt2lib.report.figures.families import bits_by_part, cache_sizes, gating, probes, rotary
from gpt2lib.report.figures.inside import (
    answers_by_block,
    gradient_norms,
    head_grid,
    head_scores,
    lens_table,
    next_tokens,
    rate_sweep,
    truncation,
)
from gpt2lib.report.figures.sonnets import overlap_floors, sonnet_scores
from gpt2lib.report.figures.theme import in_order, method_colour, ordered, title
from gpt2lib.report.figures.theory import accuracy_over_alpha, best_alphas, gain_map, small_data
from gpt2lib.report.figures.training import confusion, curves, learning_curve, learning_curves, rates
from gpt2lib.report.figures.use import probabilities, reliability
