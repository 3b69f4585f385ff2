"""Figures of sonnets by their scores: methods and completions that know nothing, in both conventions of chrF."""

import pandas as pd
from matplotlib.figure import Figure

from gpt2lib.report.figures.theme import GREY, MAIN, done, family_of, panels, title
from gpt2lib.tasks import METHODS

CONVENTIONS = {"whole": "chrF of whole sonnets, given lines included", "continuation": "chrF of the continuation alone"}


def sonnet_scores(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """chrF of every method's sonnets and of completions that know nothing (grey), in both conventions, the best on top.

    table: columns method, chrf_whole, chrf_continuation. published: rows of published.csv; a score is drawn, with its
    work's name, in the panel of the convention that it seems to follow, and nowhere else.
    """
    known = table["method"].map(lambda name: family_of(name) in METHODS)
    rows = pd.concat([part.sort_values("chrf_continuation", ascending=False) for part in (table[known], table[~known])])
    names, colours = [title(name) for name in rows["method"]], [MAIN] * known.sum() + [GREY] * (~known).sum()
    figure, (axes,) = panels(1, 2, height=0.17 * len(rows) + 0.85, sharey=True)
    for axis, (convention, label) in zip(axes, CONVENTIONS.items(), strict=True):
        axis.barh(names, rows[f"chrf_{convention}"], height=0.7, color=colours)
        axis.set_xlabel(label)
        axis.grid(axis="y", visible=False)
        axis.margins(y=0.02)
        for row in published[published["convention"] == convention].itertuples():
            axis.axvline(row.value, color="black", linestyle=":", linewidth=1)
            name = row.work if len(row.work) < 16 else row.source
            place = dict(transform=axis.get_xaxis_transform(), ha="right", va="bottom", fontsize=6.5)
            axis.text(row.value, 1.01, f"{name}, {row.base_model}: {row.value:.1f}", **place)
    axes[0].invert_yaxis()
    return done(figure)


def overlap_floors(table: pd.DataFrame) -> Figure:
    """chrF of a model and of the floors, in both conventions. table: a row each, with chrf_whole, chrf_continuation."""
    colours = [GREY if floor else MAIN for floor in table.index.str.startswith("given")]
    figure, (axes,) = panels(1, 2, height=0.22 * len(table) + 0.6, sharey=True)
    for axis, (convention, label) in zip(axes, CONVENTIONS.items(), strict=True):
        axis.barh(table.index, table[f"chrf_{convention}"], height=0.7, color=colours)
        axis.set_xlabel(label)
        axis.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    return done(figure)
