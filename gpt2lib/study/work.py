"""One run at work: what its notebook is started with, and the record that is made of what it left.

A run works in RUNS/<study>/.work/<run>/ and, when its notebook has written result.json, is renamed to
RUNS/<study>/<run>/; so a folder there is a whole run. A run that was killed finds its checkpoint in its working folder.
"""

import os
import secrets
import shutil
import sys
from pathlib import Path

import yaml

from gpt2lib.common.checks import one_line
from gpt2lib.common.whole import read_json, write_json, write_text
from gpt2lib.study import rows
from gpt2lib.study.group import Run
from gpt2lib.study.notebook import default_values
from gpt2lib.study.rows import TRIALS, Record

# of a whole run
LEFTOVERS = ("checkpoint.pt", "progress.json", "parameters.yaml", "process.json", ".lock")


def working_folder(folder: Path, name: str = "") -> Path:
    """Where a run of the study in `folder` works until it is whole; without a name, where all of them do."""
    return folder / ".work" / name


def prepared(run: Run, parameters: dict, folder: Path) -> tuple[list[str], Path]:
    """The command that executes a run's notebook with these parameters, and the folder it works in, made ready.

    folder: the study's. A checkpoint of other parameters is removed.
    """
    work = working_folder(folder, run.name)
    given = {"out": str(work.resolve())}
    for key, value in parameters.items():
        if isinstance(value, str) and value.startswith("run:"):
            value = str((folder / value.removeprefix("run:")).resolve())
        given[key] = value
    # papermill reads YAML, to which JSON's 1e-05 is a string
    text, file = yaml.safe_dump(given, sort_keys=False), work / "parameters.yaml"
    if file.is_file() and file.read_text(encoding="utf-8", errors="replace") != text:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / "result.json").unlink(missing_ok=True)
    write_text(file, text)
    command = [sys.executable, "-m", "papermill", str(run.notebook.resolve()), str(work.resolve() / "notebook.ipynb")]
    return [*command, "-f", str(file.resolve()), "-k", "python3", "--no-progress-bar"], work


def completed(run: Run, parameters: dict, read: str, folder: Path, returncode: int, replaces: bool) -> Record:
    """The record of a run whose notebook has ended; its folder then has the run's own name.

    read: by what parameters the runs were made that it reads. replaces: there is an older folder, made with other
    parameters, which is put aside. Raises ValueError, in one line, for what went wrong; the working folder stays then.
    """
    work, final = working_folder(folder, run.name), folder / run.name
    result_path, parameters = work / "result.json", default_values(run.notebook) | parameters
    about = {"study": folder.name, "run": run.name, "part": run.part, "notebook": run.notebook.stem}
    if returncode and run.part == TRIALS and _error_of(work) == "FloatingPointError":
        about |= {key: parameters.get(key, "") for key in ("task", "method", "base_model", "seed", "lr", "batch_size")}
        write_json(result_path, about | {"diverged": True, "sign": 1, "metric": "", "metrics": {}, "versions": {}})
    elif returncode or not result_path.is_file():
        lines = (work / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        if not returncode:
            last = f"the notebook ended without writing result.json; last output: {last}"
        raise ValueError(f"{last} (see {work / 'log.txt'})")
    try:
        result = read_json(result_path)
        about |= {"read": read} if read else {}
        write_json(result_path, about | result | {"tuned": run.tuned, "parameters": parameters})
        record = rows.read_run(work)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the notebook's result.json is no record: {one_line(error)}") from None
    if replaces:
        old = folder / ".replaced"
        old.mkdir(exist_ok=True)
        os.rename(final, old / f"{run.name}-{secrets.token_hex(4)}")
    if final.exists():
        raise ValueError(f"{final} exists, made meanwhile by somebody else; move it away")
    os.rename(work, final)
    for leftover in LEFTOVERS:
        (final / leftover).unlink(missing_ok=True)
    return Record(record.row, final)


def _error_of(work: Path) -> str:
    """The kind of error that ended a notebook; "" if it did not end by one."""
    try:
        cells = read_json(work / "notebook.ipynb")["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        return next((output["ename"] for output in outputs if output["output_type"] == "error"), "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
