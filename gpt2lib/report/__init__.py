"""From tables to figures, statistics and the PDF; it trains nothing. The only place that plots.

Notebooks and the command line call it.
"""

from gpt2lib.report.pdf import FOLDER, build
from gpt2lib.report.summaries import (
    alpha_gain,
    block_ranges,
    needs,
    planned_ways,
    shared_design,
    sonnet_scores,
    summarise,
    worth,
)
