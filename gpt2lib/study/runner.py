"""Batches of notebook runs with papermill: plan, run, resume, collect. What becomes of a single run is in `work`."""

import json
import time
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from gpt2lib.study import rows, tables
from gpt2lib.study.board import Board
from gpt2lib.study.engines import alive
from gpt2lib.study.group import Run
from gpt2lib.study.notebook import default_values
from gpt2lib.study.plan import plan, rehearsal
from gpt2lib.study.rows import TRIALS, Record
from gpt2lib.study.work import completed, prepared, working_folder


class Study:
    """The runs of one TOML file and the folder they work in; holds a lock, so that no two processes run it at once."""

    def __init__(
        self, path: str | Path, folder: str | Path = "runs", rehearse: bool = False, collected: str | Path | None = None
    ):
        """rehearse: two updates of every kind of run instead, see `plan.rehearsal`. collected: a folder of tables; runs
        whose rows are there with the same parameters count as done."""
        self.name = Path(path).stem + "-rehearsal" * rehearse
        self.planned = rehearsal(plan(path)) if rehearse else plan(path)
        self.folder = Path(folder) / self.name
        self.collected = rows.read_table(Path(collected) / f"{self.name}.csv", self.name) if collected else {}
        self.look()

    def look(self) -> None:
        """Read the records of all runs that have one here, and plan what these trials ask for."""
        self.here: dict[str, Record] = {}
        self.damaged: dict[str, str] = {}
        self.runs, self.by_name = [], {}
        self._add(0, self.planned)
        self._go_on()

    def _add(self, at: int, runs: list[Run]) -> None:
        self.runs[at:at] = runs
        for run in runs:
            self.by_name[run.name] = run
            try:
                if (record := rows.read_run(self.folder / run.name)) is not None:
                    self.here[run.name] = record
                elif (self.folder / run.name).exists():
                    self.damaged[run.name] = f"{self.folder / run.name} exists but holds no result.json; move it away"
            except (ValueError, OSError) as error:
                self.damaged[run.name] = f"{error}; move the folder away to do the run again"

    def _go_on(self) -> bool:
        """Plan the trials beyond those whose best value is the first or the last of them, see `Run.beyond`; whether
        there are such."""
        found, again = False, True
        while again:  # a run may read one that stands behind it in the file
            again = False
            for run in list(self.runs):
                if not run.most or (best := self.best(run)) is None or (value := run.beyond(best)) is None:
                    continue
                try:
                    trials = run.try_also(value)
                except ValueError:  # such as a share beyond 1
                    continue
                at = self.runs.index(run)
                grown = replace(run, trials=run.trials | {trial.name: value for trial in trials})
                self.runs[at] = self.by_name[run.name] = grown
                self._add(at, [trial for trial in trials if trial.name not in self.by_name])
                found = again = True
        return found

    def done(self, run: Run | str) -> bool:
        return self.record(run) is not None

    def record(self, run: Run | str) -> Record | None:
        """What is known of a finished run with just the parameters that it has now; None where there is nothing."""
        run = self.by_name[run] if isinstance(run, str) else run
        if not any(run.name in records for records in (self.here, self.collected)):
            return None
        if (parameters := self.parameters(run)) is None:
            return None
        # a parameter that the notebook did not have then counts as having been what it is by default now
        defaults = default_values(run.notebook)
        for records in (self.here, self.collected):
            if run.name in records:
                row = records[run.name].row
                was = defaults | json.loads(row.get("parameters") or "{}")
                same = was == defaults | parameters and row.get("read", "") == self._read(run)
                if same and row.get("notebook") == run.notebook.stem and row.get("parameters"):
                    return records[run.name]
        return None

    def _read(self, run: Run) -> str:
        """By what parameters the runs that it reads were made: as long as that is so, its record holds."""
        made_by = {name: self.parameters(self.by_name[name]) for name in run.reads}
        return rows.parameters_text(made_by) if made_by else ""

    def parameters(self, run: Run) -> dict | None:
        """The run's parameters, with the best of the values that were tried; None while trials are missing, or if all
        of them diverged."""
        if not run.trials:
            return run.parameters
        best = self.best(run)
        return None if best is None else run.parameters | {run.tuned: best}

    def best(self, run: Run):
        """The best of the values that its trials tried; None while one of them is missing, or if all diverged."""
        tried = [(value, self.record(name)) for name, value in run.trials.items()]
        return None if any(record is None for _, record in tried) else rows.best_value(tried)

    def run(self, engine, say=print) -> dict[str, str]:
        """Do what is missing on an engine (see `engines`); returns the error of every run that failed, by name.

        Ctrl-C, or an error, ends the notebooks that are running; their checkpoints stay.
        """
        work = working_folder(self.folder)
        work.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", blocking=False):
                if any(alive(folder) for folder in work.iterdir()):  # of a study that was itself killed
                    raise Timeout(str(work))
                self.look()
                missing = self.missing()
                elsewhere = sum(run.name not in self.here and self.done(run) for run in self.runs)
                say(
                    f"{self.name}: {len(self.runs)} runs, {len(self.runs) - len(missing)} done"
                    f"{f' ({elsewhere} of them elsewhere)' if elsewhere else ''}, {engine.jobs} at a time"
                )
                return self._run(missing, engine, say)
        except Timeout:
            raise ValueError(f"{self.folder} is in use by another process that runs this study") from None

    def missing(self) -> list[Run]:
        """The runs that are to be done: those without a record, and those that these read files of."""
        missing = {run.name for run in self.runs if not self.done(run)}
        needed = set(missing)
        while needed := {name for run in needed for name in self.by_name[run].reads} - set(self.here) - missing:
            missing |= needed
        return [run for run in self.runs if run.name in missing]

    def _run(self, waiting: list[Run], engine, say) -> dict[str, str]:
        errors: dict[str, str] = {}
        running: dict[str, tuple] = {}  # the run, its job, and when it began
        board = Board(say)
        read = {name for run in self.runs for name in run.reads}  # of these the files must be here, not the row alone
        try:
            while waiting or running:
                for run in list(waiting):
                    if len(running) >= engine.jobs:
                        break
                    if (error := self._hindrance(run, errors)) is not None:
                        waiting.remove(run)
                        errors[run.name] = error
                        board.say(f"FAILED  {run.name}: {error}")
                    elif all(map(self.done, run.needs)) and run.reads <= set(self.here):
                        waiting.remove(run)
                        if self.done(run) and (run.name in self.here or run.name not in read):
                            continue  # its trials chose again what it was done with
                        try:
                            job = engine.start(*prepared(run, self.parameters(run), self.folder))
                            running[run.name] = (run, job, time.monotonic())
                            board.say(f"start   {run.name}")
                        except OSError as error:
                            errors[run.name] = f"could not be started: {error}"
                            board.say(f"FAILED  {run.name}: {errors[run.name]}")
                time.sleep(0.2)
                board.show({name: working_folder(self.folder, name) for name in running})
                for name, (run, job, began) in list(running.items()):
                    if (code := job.poll()) is None:
                        continue
                    del running[name]
                    try:
                        self._complete(run, code)
                    except (ValueError, OSError) as failed:
                        errors[name] = f"{'could not be completed: ' * isinstance(failed, OSError)}{failed}"
                        board.say(f"FAILED  {name}: {errors[name]}")
                    else:
                        left = len(waiting) + len(running)
                        how = "diverged" if self.here[name].row.get("diverged") else "done"
                        board.say(f"{how:7} {name} in {time.monotonic() - began:.0f} s; {left} left")
                        if run.part == TRIALS and self._go_on():
                            waiting[:] = [r for r in self.missing() if r.name not in running and r.name not in errors]
        finally:
            for _, job, _ in running.values():  # only after an interrupt or an error of our own
                job.stop()
            board.close()
        return errors

    def _hindrance(self, run: Run, errors: dict[str, str]) -> str | None:
        """Why a run cannot be done at all, if so."""
        if failed := run.needs & set(errors):
            return f"not started: it needs {', '.join(sorted(failed))}"
        if run.name in self.damaged:
            return self.damaged[run.name]
        if run.trials and all(map(self.done, run.trials)) and self.parameters(run) is None:
            return f"not started: every {run.tuned} that was tried diverged"
        return None

    def _complete(self, run: Run, returncode: int) -> None:
        """Take a run that has ended among those that are here. Raises ValueError, in one line, for what went wrong."""
        replaces = run.name in self.here  # with other parameters
        given = run, self.parameters(run), self._read(run), self.folder
        self.here[run.name] = completed(*given, returncode, replaces)

    def collect(self, folder: str | Path = "report/results", force: bool = False) -> Path:
        """Write the tables of all finished runs, here or in the tables of `folder`, see `tables.collect`; returns the
        path of the main one."""
        folder = Path(folder)
        self.collected = rows.read_table(folder / f"{self.name}.csv", self.name, force)
        self.look()
        records = [self.record(run) for run in self.runs]
        missing = [
            {"run": run.name, "part": run.part, "notebook": run.notebook.stem, "task": run.parameters.get("task", "")}
            | {"parameters": rows.parameters_text(default_values(run.notebook) | run.parameters)}
            for run, record in zip(self.runs, records, strict=True)
            if record is None
        ]
        # where the study's file puts a run now, whatever it said when it was done
        done = [
            Record(record.row | {"part": run.part}, record.folder)
            for run, record in zip(self.runs, records, strict=True)
            if record is not None
        ]
        return tables.collect(self.name, done, folder, missing, force)
