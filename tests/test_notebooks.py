"""The notebook pairs: in step, well formed, small; and each of them runs (nbval, on toy data)."""

import ast
import os
import subprocess
import sys

import jupytext
import nbformat
import pytest
from conftest import REPOSITORY

PAIRS = sorted((REPOSITORY / "notebooks").glob("*.py"))


@pytest.fixture(params=PAIRS, ids=lambda path: path.stem)
def pair(request):
    return request.param, nbformat.read(request.param.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_is_a_pair():
    assert PAIRS and {p.stem for p in PAIRS} == {p.stem for p in (REPOSITORY / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_lines_fit_120_columns_but_for_the_rows_of_tables(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("# |")]


def test_the_halves_agree(pair):
    path, notebook = pair
    script = jupytext.read(path)
    kept = ("tags", "jupyter")  # jupytext notes more in a cell that it has read: the empty lines after it
    cells = [
        [(c.cell_type, c.source, {k: c.metadata[k] for k in kept if k in c.metadata}) for c in half.cells]
        for half in (script, notebook)
    ]
    assert cells[0] == cells[1], "run `make notebooks`"


def test_one_cell_of_flat_parameters_near_the_top(pair):
    _, notebook = pair
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1 and notebook.cells.index(tagged[0]) <= 2
    for line, statement in zip(tagged[0].source.splitlines(), ast.parse(tagged[0].source).body, strict=True):
        assert isinstance(statement, ast.AnnAssign), line
        assert isinstance(ast.literal_eval(statement.value), (str, int, float, bool, list)), line


def test_it_was_executed_in_order_without_errors_and_is_small(pair):
    path, notebook = pair
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert path.with_suffix(".ipynb").stat().st_size < 500_000
    assert all(len(output.get("data", {}).get("image/png", "")) < 140_000 for output in outputs)
    assert set(notebook.metadata) == {"kernelspec"} and notebook.metadata.kernelspec.name == "python3"


def test_claims_are_checked_and_prose_comes_first(pair):
    _, notebook = pair
    checked = [c for c in notebook.cells if "nbval-check-output" in c.metadata.get("tags", [])]
    assert checked and all(cell.outputs for cell in checked)
    outputs = [output for cell in checked for output in cell.outputs]
    assert any("| holds |" in output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


def test_no_output_names_this_machine(pair):
    path, _ = pair
    text = path.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert not any(word in text for word in (str(REPOSITORY), "/root/", "/home/", "/tmp/"))


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_it_runs(path):
    """nbval runs the notebook on its defaults (toy data) and compares its check cells."""
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    command += ["--nbval-cell-timeout", "300", "--rootdir", str(path.parent), "-c", "/dev/null"]
    # nbval reads a cell's messages only when the cell has ended, and ZeroMQ drops what is beyond some 2,000: progress
    # bars at their usual pace fill that in 100 s, and the message that the cell has ended is lost
    environment = os.environ | {"TQDM_MININTERVAL": "5"}
    command.append(path.with_suffix(".ipynb").name)
    done = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
