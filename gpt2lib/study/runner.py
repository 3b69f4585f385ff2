"""Batches of notebook runs with papermill: plan, run, resume, collect.

A run works in RUNS/<study>/.work/<run>/ and, when its notebook has written result.json, is renamed to
RUNS/<study>/<run>/; so a folder there is a whole run. A run that was killed finds its checkpoint in its working folder.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import yaml
from tqdm import tqdm

from gpt2lib.study.plan import Run, default_values, notebook_parameters, plan, rehearsal
from gpt2lib.study.tables import collect


class Study:
    """The runs of one TOML file and the folder they work in; holds a lock, so that no two processes run it at once."""

    def __init__(self, path: str | Path, folder: str | Path = "runs", rehearse: bool = False):
        """rehearse: two updates of every kind of run instead, see `plan.rehearsal`."""
        self.name = Path(path).stem + "-rehearsal" * rehearse
        self.runs = rehearsal(plan(path)) if rehearse else plan(path)
        self.folder = Path(folder) / self.name

    def done(self, run: Run | str) -> bool:
        return (self.folder / getattr(run, "name", run) / "result.json").is_file()

    def parameters(self, run: Run) -> dict:
        """The run's parameters, with the tuned one's best value if its trials are done."""
        if not run.trials or run.name in run.trials:
            return run.parameters
        return run.parameters | {run.tuned: run.trials[self.best_trial(run)]}

    def best_trial(self, run: Run) -> str | None:
        """The name of the trial that did best on dev, of those that are done."""

        def score(name: str) -> float:
            result = json.loads((self.folder / name / "result.json").read_text(encoding="utf-8"))
            return result["sign"] * result["metrics"][result["metric"]]

        return max(filter(self.done, run.trials), key=score, default=None)

    def run(self, engine, say=print) -> dict[str, str]:
        """Do what is missing on an engine (see `engines`); returns the error of every run that failed, by name.

        Ctrl-C, or an error, ends the notebooks that are running; their checkpoints stay.
        """
        (self.folder / ".work").mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.folder} is in use by another process that runs this study") from None
            waiting = [run for run in self.runs if not self.done(run)]
            say(f"{self.name}: {len(self.runs)} runs, {len(self.runs) - len(waiting)} done, {engine.jobs} at a time")
            return self._run(waiting, engine, lock, say)

    def _run(self, waiting: list[Run], engine, lock, say) -> dict[str, str]:
        errors: dict[str, str] = {}
        running: dict[str, tuple] = {}  # the run, its job, and when it began
        board = Board(say)
        say = board.say
        try:
            while waiting or running:
                for run in list(waiting):
                    if failed := run.needs & set(errors):
                        errors[run.name] = f"not started: it needs {', '.join(sorted(failed))}"
                        waiting.remove(run)
                    elif len(running) < engine.jobs and all(map(self.done, run.needs)):
                        waiting.remove(run)
                        running[run.name] = (run, engine.start(*self._prepare(run), lock), time.monotonic())
                        say(f"start   {run.name}")
                time.sleep(0.2)
                board.show({name: self.folder / ".work" / name for name in running})
                for name, (run, job, began) in list(running.items()):
                    if (code := job.poll()) is None:
                        continue
                    del running[name]
                    if error := self._finish(run, code):
                        errors[name] = error
                        say(f"FAILED  {name}: {error}")
                    else:
                        left = len(waiting) + len(running)
                        say(f"done    {name} in {time.monotonic() - began:.0f} s; {left} left")
        finally:
            for _, job, _ in running.values():  # only after an interrupt or an error of our own
                job.stop()
            board.close()
        return errors

    def _prepare(self, run: Run) -> tuple[list[str], Path]:
        """The command that executes the notebook, and the folder it works in."""
        work = self.folder / ".work" / run.name
        work.mkdir(parents=True, exist_ok=True)
        (work / "result.json").unlink(missing_ok=True)
        parameters = {"out": str(work.resolve())}
        for key, value in self.parameters(run).items():
            if isinstance(value, str) and value.startswith("run:"):
                value = str((self.folder / value.removeprefix("run:")).resolve())
            parameters[key] = value
        # papermill reads YAML, to which JSON's 1e-05 is a string
        (work / "parameters.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "papermill",
            str(run.notebook.resolve()),
            str(work.resolve() / "notebook.ipynb"),
        ]
        command += ["-f", str(work.resolve() / "parameters.yaml"), "-k", "python3", "--no-progress-bar"]
        return command, work

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
        parameters = default_values(notebook_parameters(run.notebook)) | self.parameters(run)
        result = json.loads(result_path.read_text(encoding="utf-8"))
        result = {"study": self.name, "run": run.name, "part": run.part, "notebook": run.notebook.stem} | result
        result_path.write_text(json.dumps(result | {"parameters": parameters}, indent=2) + "\n", encoding="utf-8")
        for leftover in ("checkpoint.pt", "progress.json", "parameters.yaml", "worker.txt", ".lock"):
            (work / leftover).unlink(missing_ok=True)
        if final.exists():  # a folder without result.json: somebody's, or half deleted
            return f"{final} exists but holds no result.json; remove it"
        os.rename(work, final)
        return None

    def collect(self, folder: str | Path = "report/results") -> Path:
        """Write the tables of all finished runs, see `collect.collect`; returns the path of the main one."""
        done = [run for run in self.runs if self.done(run)]
        lost = {run.name for run in done if run.name in run.trials and run.name != self.best_trial(run)}
        missing = [
            {"run": run.name, "part": run.part, "notebook": run.notebook.stem, "task": run.parameters.get("task", "")}
            for run in self.runs
            if not self.done(run)
        ]
        return collect(self.name, [self.folder / run.name for run in done], Path(folder), lost, missing)


class Board:
    """What a study shows: events as they come, and one line for each run under way, rewritten in place on a terminal and
    said twice a minute elsewhere, if there is news."""

    def __init__(self, say):
        self.live = sys.stderr.isatty()
        self.say = tqdm.write if self.live else say
        self.bars, self.lines, self.shown = {}, {}, time.monotonic()

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
                if self.lines.get(name) != line:
                    self.lines[name] = line
                    self.say(line)
                continue
            if name not in self.bars:
                self.bars[name] = tqdm(bar_format="{desc}", leave=False)
            self.bars[name].set_description_str(line)

    def close(self) -> None:
        for bar in self.bars.values():
            bar.close()
