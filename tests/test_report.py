"""The report is its tables: it rebuilds from the committed ones, in seconds, and a changed number changes it."""

import shutil
import time

import pandas as pd
import pytest
from conftest import REPOSITORY

from gpt2lib import report

SOURCE = REPOSITORY / "report" / "report.typ"


@pytest.fixture
def copy(tmp_path):
    """The report's source and the committed tables of the study mini, to play with."""
    shutil.copytree(REPOSITORY / "report", tmp_path / "report", ignore=shutil.ignore_patterns("*.pdf"))
    return tmp_path


def build(copy, name="out.pdf"):
    output = copy / name
    report.build("mini", copy / "report" / "results", copy / "figures", copy / "report" / "report.typ", output)
    return output.read_bytes(), {p.name: p.read_bytes() for p in (copy / "figures" / "mini").iterdir()}


def test_figures_and_pdf_rebuild_alike_in_less_than_a_minute(copy):
    began = time.monotonic()
    pdf, figures = build(copy)
    assert time.monotonic() - began < 60
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    assert (pdf, figures) == build(copy, "again.pdf")


def test_the_committed_tables_of_the_figures_are_those_of_the_results(copy):
    build(copy)
    for table in (REPOSITORY / "figures" / "mini").glob("*.csv"):
        seen, committed = (pd.read_csv(folder / table.name) for folder in (copy / "figures" / "mini", table.parent))
        pd.testing.assert_frame_equal(seen, committed, rtol=1e-4)


def test_a_changed_number_changes_figure_and_pdf(copy):
    pdf, figures = build(copy)
    path = copy / "report" / "results" / "mini.csv"
    table = pd.read_csv(path)
    row = table.index[(table["task"] == "sst") & (table["method"] == "lora") & table["counts"]][0]
    table.loc[row, "accuracy"] -= 0.05
    table.to_csv(path, index=False)
    changed_pdf, changed_figures = build(copy)
    assert changed_pdf != pdf
    changed = {name for name in figures if figures[name] != changed_figures[name]}
    assert {"methods.svg", "methods.png", "methods.csv"} <= changed
    assert "theory.svg" not in changed  # what did not change stays as it was


def test_missing_tables_and_columns_are_one_clear_error(copy):
    results = copy / "report" / "results"
    with pytest.raises(FileNotFoundError, match=r"there is no .*nothing\.csv; run"):
        report.build("nothing", results, copy / "figures", SOURCE, copy / "out.pdf")
    pd.read_csv(results / "mini.csv").drop(columns="seconds").to_csv(results / "mini.csv", index=False)
    with pytest.raises(ValueError, match=r"mini\.csv: no column seconds"):
        build(copy)
    assert not (copy / "out.pdf").exists()


def test_no_number_is_typed_into_the_results_of_the_report():
    """Numbers with a decimal point occur in the source only as lengths, sizes and arXiv numbers."""
    import re

    text = SOURCE.read_text(encoding="utf-8")
    text = re.sub(r'numbering: "[^"]*"|arXiv [\d.]+|\d+(\.\d+)?(cm|em|pt|fr|%)', "", text)
    assert not re.findall(r"\d+\.\d+", text)
