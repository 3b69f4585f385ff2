"""Batches of notebook runs with papermill: plan, run, resume, collect.

A study is a TOML file:

    [defaults]                      # parameters for every notebook that has them
    [[runs]]
    notebook = "03_sentiment"       # in the folder above the study's file
    name = "base"                   # optional, for a single run that others refer to
    [runs.parameters]               # the same for all runs of this group; "run:base/x" is the path of x in run "base"
    [runs.grid]                     # lists: one run for each combination

A run works in RUNS/<study>/.work/<run>/ and, when its notebook has written result.json, is renamed to
RUNS/<study>/<run>/; so a folder there is a whole run. A run that was killed finds its checkpoint in its working folder.
"""

import ast
import fcntl
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gpt2lib.collect import collect

TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}


@dataclass(frozen=True)
class Run:
    """One notebook and its parameters; `name` is that of its folder."""

    name: str
    notebook: Path
    parameters: dict

    @property
    def needs(self) -> set[str]:
        """The names of the runs whose files it reads."""
        values = [v for v in self.parameters.values() if isinstance(v, str) and v.startswith("run:")]
        return {value.removeprefix("run:").split("/")[0] for value in values}


def plan(path: str | Path) -> list[Run]:
    """The runs of a study. Raises ValueError for a malformed file or a parameter that its notebook does not have."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no study {path}")
    try:
        study = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if unknown := set(study) - {"defaults", "runs"}:
        raise ValueError(f"{path}: unknown table {sorted(unknown)}; possible: defaults, runs")
    runs, used = [], set()
    for number, group in enumerate(study.get("runs", []), start=1):
        where = f"{path}, group {number}"
        if "notebook" not in group or set(group) - {"notebook", "name", "parameters", "grid"}:
            raise ValueError(f"{where}: give notebook, and optionally name, parameters, grid; not {sorted(group)}")
        notebook = path.parent.parent / f"{group['notebook']}.ipynb"
        if not notebook.is_file():
            raise ValueError(f"{where}: there is no notebook {notebook}")
        known = notebook_parameters(notebook)
        defaults = {key: value for key, value in study.get("defaults", {}).items() if key in known}
        used |= set(defaults)
        grid = group.get("grid", {})
        if empty := [key for key, values in grid.items() if not isinstance(values, list) or not values]:
            raise ValueError(f"{where}: grid.{empty[0]} must be a list that is not empty")
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            parameters = defaults | group.get("parameters", {}) | chosen
            _check_parameters(parameters, known, where)
            names = [group["name"]] if "name" in group else [str(value) for value in chosen.values()]
            # the notebook's defaults belong to it: a run under another default is another run
            everything = [group["notebook"], _defaults(known) | parameters]
            digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
            runs.append(Run("-".join(names if "name" in group else [*names, digest[:6]]), notebook, parameters))
    if unused := set(study.get("defaults", {})) - used:
        raise ValueError(f"{path}: no notebook of this study has the parameter {sorted(unused)}")
    if not runs:
        raise ValueError(f"{path}: there is no [[runs]] in it")
    names = [run.name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: two runs are the same: {sorted(twice)}")
    for run in runs:
        if missing := run.needs - set(names):
            raise ValueError(f"{path}: {run.name} needs a run named {sorted(missing)}; there are: {', '.join(names)}")
    return runs


def notebook_parameters(notebook: Path) -> dict:
    """The parameters of a notebook by name, with their types and defaults as papermill reads them."""
    import papermill

    return papermill.inspect_notebook(str(notebook))


def _check_parameters(parameters: dict, known: dict, where: str) -> None:
    for name, value in parameters.items():
        if name not in known or name == "out":
            raise ValueError(f"{where}: the notebook has no parameter {name!r}; it has {sorted(set(known) - {'out'})}")
        kind = known[name]["inferred_type_name"]
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise ValueError(f"{where}: {name} = {value!r} is not a {kind}")


class Study:
    """The runs of one TOML file and the folder they work in; holds a lock, so that no two processes run it at once."""

    def __init__(self, path: str | Path, folder: str | Path = "runs", jobs: int | None = None):
        self.name = Path(path).stem
        self.runs = plan(path)
        self.folder = Path(folder) / self.name
        self.jobs = jobs or default_jobs()
        self.threads = max(1, (os.cpu_count() or 1) // self.jobs)

    def done(self, run: Run | str) -> bool:
        return (self.folder / getattr(run, "name", run) / "result.json").is_file()

    def run(self, say=print) -> dict[str, str]:
        """Do what is missing, at most `jobs` runs at a time; returns the error of every run that failed, by name.

        Ctrl-C, or an error, ends the notebooks that are running; their checkpoints stay.
        """
        (self.folder / ".work").mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.folder} is in use by another process that runs this study") from None
            waiting = [run for run in self.runs if not self.done(run)]
            say(f"{self.name}: {len(self.runs)} runs, {len(self.runs) - len(waiting)} done, {self.jobs} at a time")
            return self._run(waiting, lock, say)

    def _run(self, waiting: list[Run], lock, say) -> dict[str, str]:
        errors: dict[str, str] = {}
        running: dict[str, tuple[Run, subprocess.Popen, float]] = {}
        board = Board(say)
        say = board.say
        try:
            while waiting or running:
                for run in list(waiting):
                    if failed := run.needs & set(errors):
                        errors[run.name] = f"not started: it needs {', '.join(sorted(failed))}"
                        waiting.remove(run)
                    elif len(running) < self.jobs and all(map(self.done, run.needs)):
                        waiting.remove(run)
                        running[run.name] = (run, self._start(run, lock), time.monotonic())
                        say(f"start   {run.name}")
                time.sleep(0.2)
                board.show({name: self.folder / ".work" / name for name in running})
                for name, (run, process, began) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[name]
                    if error := self._finish(run, process.returncode):
                        errors[name] = error
                        say(f"FAILED  {name}: {error}")
                    else:
                        left = len(waiting) + len(running)
                        say(f"done    {name} in {time.monotonic() - began:.0f} s; {left} left")
        finally:
            for _, process, _ in running.values():  # only after an interrupt or an error of our own
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            board.close()
        return errors

    def _start(self, run: Run, lock) -> subprocess.Popen:
        """Start papermill in a process group of its own. It inherits the lock, so that a study that was killed cannot
        be started again while a notebook of it still runs."""
        work = self.folder / ".work" / run.name
        work.mkdir(parents=True, exist_ok=True)
        (work / "result.json").unlink(missing_ok=True)
        parameters = {"out": str(work.resolve())}
        for key, value in run.parameters.items():
            if isinstance(value, str) and value.startswith("run:"):
                value = str((self.folder / value.removeprefix("run:")).resolve())
            parameters[key] = value
        (work / "parameters.json").write_text(json.dumps(parameters, indent=2), encoding="utf-8")
        command = [sys.executable, "-m", "papermill", str(run.notebook), str(work / "notebook.ipynb")]
        command += ["-f", str(work / "parameters.json"), "-k", "python3", "--no-progress-bar"]
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with (work / "log.txt").open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | threads | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"},
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )

    def _finish(self, run: Run, returncode: int) -> str | None:
        """Complete the record and rename the folder, or say in one line what went wrong; the working folder stays then."""
        work, final = self.folder / ".work" / run.name, self.folder / run.name
        result_path = work / "result.json"
        if returncode or not result_path.is_file():
            lines = (work / "log.txt").read_text(encoding="utf-8").strip().splitlines()
            last = next((line for line in reversed(lines) if line.strip()), "no output")
            if not returncode:
                last = f"the notebook ended without writing result.json; last output: {last}"
            return f"{last} (see {work / 'log.txt'})"
        parameters = _defaults(notebook_parameters(run.notebook)) | run.parameters
        result = json.loads(result_path.read_text(encoding="utf-8"))
        result = {"study": self.name, "run": run.name, "notebook": run.notebook.stem} | result
        result_path.write_text(json.dumps(result | {"parameters": parameters}, indent=2) + "\n", encoding="utf-8")
        for leftover in ("checkpoint.pt", "progress.json", "parameters.json"):
            (work / leftover).unlink(missing_ok=True)
        if final.exists():  # a folder without result.json: somebody's, or half deleted
            return f"{final} exists but holds no result.json; remove it"
        os.rename(work, final)
        return None

    def collect(self, folder: str | Path = "report/results") -> Path:
        """Write the tables of all finished runs, see `collect.collect`; returns the path of the main one."""
        return collect(self.name, [self.folder / run.name for run in self.runs if self.done(run)], Path(folder))


class Board:
    """What a study shows: events as they come, and one line for each run under way, rewritten in place on a terminal and
    said twice a minute elsewhere."""

    def __init__(self, say):
        self.live = sys.stderr.isatty()
        self.say = tqdm.write if self.live else say
        self.bars, self.shown = {}, time.monotonic()

    def show(self, running: dict[str, Path]) -> None:
        if time.monotonic() - self.shown < (1 if self.live else 30):
            return
        self.shown = time.monotonic()
        for name in [name for name in self.bars if name not in running]:
            self.bars.pop(name).close()
        for name, work in running.items():
            try:
                now = json.loads((work / "progress.json").read_text(encoding="utf-8"))
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            line = (
                f"{name}: step {now['step']}/{now['steps']}, loss {now['loss']:.3f}, "
                f"{now['tokens_per_second']:.0f} tokens/s, {now['seconds_left'] / 60:.1f} min left"
            )
            if not self.live:
                self.say(line)
                continue
            if name not in self.bars:
                self.bars[name] = tqdm(bar_format="{desc}", leave=False)
            self.bars[name].set_description_str(line)

    def close(self) -> None:
        for bar in self.bars.values():
            bar.close()


def default_jobs() -> int:
    """One run a core, each with one thread, is the fastest on a CPU; a GPU takes one run at a time."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(8, os.cpu_count() or 1))


def _defaults(known: dict) -> dict:
    """The values that a notebook's parameters cell gives, but where it writes to."""
    return {name: ast.literal_eval(about["default"]) for name, about in known.items() if name != "out"}
