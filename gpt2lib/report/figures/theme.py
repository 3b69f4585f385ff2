"""The theme of all figures: one style, one colour for each method (colour-blind safe), one order of tasks and methods."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

sns.set_theme(
    style="whitegrid", context="paper", palette="colorblind", rc={"figure.dpi": 80, "svg.hashsalt": "gpt2lib"}
)
PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "last-linear": PALETTE[0],
    "full": PALETTE[1],
    "lora": PALETTE[2],
    "krona": PALETTE[3],
    "alpha-lora": PALETTE[4],
    "graph-lora": PALETTE[5],
    "kan-lora": PALETTE[6],
    "krona-b": PALETTE[7],
    "krona-b-res": PALETTE[8],
    "lora r=4": sns.light_palette(PALETTE[2], 5)[2],
    "lora r=16": sns.dark_palette(PALETTE[2], 5)[2],
    "floor": (0.45, 0.45, 0.45),
}
FLOOR_STYLES = {"majority class": "--", "bag of words": ":", "before training": "-."}
TASK_TITLES = {"sst": "SST (5 classes)", "cfimdb": "CFIMDB", "quora": "Quora pairs", "sonnets": "Sonnets"}
TASK_TITLES |= {"glue/rte": "RTE", "glue/mrpc": "MRPC", "glue/cola": "CoLA", "glue/sst2": "SST-2"}
PLACES = {name: i for i, name in enumerate([*TASK_TITLES, *COLOURS])}  # the order of tasks and methods everywhere


def method_colour(method: str):
    return COLOURS.get(method, COLOURS["floor"])


def in_order(methods) -> list[str]:
    """Methods in the order of their colours, which is the same in every figure and table; unknown ones (floors) last."""
    return sorted(dict.fromkeys(methods), key=lambda method: PLACES.get(method, len(PLACES)))


def ordered(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows with tasks and methods in the order that they have in every figure and table; unknown ones (floors) last."""
    return table.sort_values(
        list(columns), key=lambda column: column.map(PLACES).fillna(len(PLACES)), kind="stable", ignore_index=True
    )


def done(figure: Figure, legend: bool = False) -> Figure:
    """Lay the figure out, with one legend above all panels if asked for."""
    found = {}
    if legend:
        for axis in figure.axes:
            found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    width, height = figure.get_size_inches()
    columns = max(1, int(width / 1.25))
    lines = -(-len(found) // columns)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.21 * lines / height))
    if found:
        figure.legend(found.values(), found.keys(), loc="upper center", ncol=min(columns, len(found)), frameon=False)
    plt.close(figure)  # a notebook shows the figure that a cell returns; left open, it would be shown twice
    return figure
