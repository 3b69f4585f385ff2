"""Execute the notebook pairs from their .py halves and write both halves back, stripped of what differs by machine.

python tools/execute_notebooks.py [NAME ...]      # all of notebooks/ by default
"""

import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from tqdm import tqdm

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOISE = {"application/vnd.jupyter.widget-view+json"}
STILL = {"image/png", "text/html"}


def strip(notebook) -> None:
    """Keep kernel, tags, counts and results; drop progress bars, warnings, timings and widget state."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = type(notebook.metadata)(kernelspec=kernel)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "jupyter")}
        if cell.cell_type == "code":
            for output in cell.outputs:  # a widget has no kernel any more: its still picture stays, if it has one
                if NOISE & set(output.get("data", {})):
                    output.data = {kind: data for kind, data in output.data.items() if kind in STILL}
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and o.get("data") != {}]


def execute(path: Path) -> None:
    notebook = jupytext.read(path)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    ).execute()
    strip(notebook)
    jupytext.write(notebook, path.with_suffix(".ipynb"))
    jupytext.write(notebook, path, fmt="py:percent")


if __name__ == "__main__":
    names = sys.argv[1:] or [path.stem for path in sorted(FOLDER.glob("*.py"))]
    for name in tqdm(names):
        execute(FOLDER / f"{name}.py")
