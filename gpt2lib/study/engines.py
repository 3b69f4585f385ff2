"""Where a study's notebooks run: as processes of this machine, or as tasks of a Ray cluster.

An engine has `jobs`, how many runs it takes at a time, and `start(command, work)`, which returns a job; a job has
`poll()`, its exit code or None while it runs, and `stop()`.
"""

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from filelock import FileLock

from gpt2lib.common.checks import one_line
from gpt2lib.common.whole import read_json, write_json

PATIENCE = 20.0  # seconds that a notebook has to end when it is told to


class Processes:
    """This machine: one run a core, up to eight that share its threads, is the fastest on a CPU; a GPU takes one run at
    a time."""

    def __init__(self, jobs: int | None = None):
        # what a cluster's scheduler or taskset left to us, where the system can say so
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.jobs = jobs or (1 if torch.cuda.is_available() else max(1, min(8, cores)))
        self.threads = max(1, cores // self.jobs)

    def start(self, command: list[str], work: Path) -> "Process":
        return Process(_popen(command, work, os.environ | _threads(self.threads)))


class Process:
    """A job: papermill, and the kernel that it started."""

    def __init__(self, process: subprocess.Popen):
        self.process, self.poll = process, process.poll

    def stop(self) -> None:
        """End all of it: politely, and after PATIENCE by force."""
        try:
            parent = psutil.Process(self.process.pid)
            family = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
            family = psutil.wait_procs(family, PATIENCE)[1]
        self.process.wait()


def alive(work: Path) -> bool:
    """Whether the notebook that was last started in this folder, by this machine, still runs."""
    try:
        known = read_json(work / "process.json")
        process = psutil.Process(known["pid"])
        # numbers of processes are used again, but not at the same time
        same = abs(process.create_time() - known["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return known["machine"] == platform.node() and same
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


class Ray:
    """A Ray cluster whose nodes share the study's folder and the notebooks at the same paths: a GPU a run where there
    are any, else a core.

    address: of the cluster, such as "auto" or "ray://host:10001"; "" starts Ray on this machine alone. A run whose
    worker or node is lost is started again elsewhere and goes on from its checkpoint. Raises ValueError without the
    package ray, or if the cluster cannot be reached.
    """

    def __init__(self, jobs: int | None = None, address: str = ""):
        try:
            import ray
        except ImportError:
            raise ValueError("--engine ray needs the package ray: pip install 'gpt2lib[ray]'") from None
        self.ray = ray
        try:
            if not ray.is_initialized():
                ray.init(address=address or None, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"no Ray cluster at {address!r}: {one_line(error)}") from None
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        self.jobs = jobs or max(1, gpus or cores)
        each = {"num_gpus": 1} if gpus else {"num_cpus": max(1, cores // self.jobs)}
        self.execute = ray.remote(max_retries=-1, **each)(execute)
        self.environment = {k: v for k, v in os.environ.items() if k.startswith(("GPT2LIB_", "HF_"))}
        self.environment |= _threads(each.get("num_cpus", 1))

    def start(self, command: list[str], work: Path) -> "Task":
        return Task(self.ray, self.execute.remote(command, str(work.resolve()), self.environment))


class Task:
    """A job on the cluster."""

    def __init__(self, ray, reference):
        self.ray, self.reference = ray, reference

    def poll(self) -> int | None:
        if not self.ray.wait([self.reference], timeout=0)[0]:
            return None
        try:
            return self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            raise OSError(f"the Ray cluster lost a run: {one_line(error)}") from None

    def stop(self) -> None:
        self.ray.cancel(self.reference, force=True)


def execute(command: list[str], work: str, environment: dict[str, str]) -> int:
    """What a worker does: run the notebook, at most once at a time on the whole cluster; returns its exit code.

    The lock on shared storage keeps two workers apart. A second attempt waits for the end of a first one whose worker
    was lost but whose notebook was not; if that one has finished the run, nothing is left to do.
    """
    folder = Path(work)
    with FileLock(folder / ".lock"):
        while alive(folder):
            time.sleep(1)
        if (folder / "result.json").is_file():
            return 0
        tied = {"preexec_fn": _die_with_parent} if sys.platform == "linux" else {}
        return _popen(command, folder, os.environ | environment, **tied).wait()


def _popen(command: list[str], work: Path, environment: dict[str, str], **settings) -> subprocess.Popen:
    """Start it in a session of its own, so that Ctrl-C reaches it through `stop` alone, and note which one it is."""
    environment |= {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    with (work / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, **settings
        )
    try:
        created = psutil.Process(process.pid).create_time()
        write_json(work / "process.json", {"pid": process.pid, "created": created, "machine": platform.node()})
    except psutil.NoSuchProcess:  # it has ended already
        pass
    except OSError:
        process.kill()
        raise
    return process


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def _die_with_parent() -> None:
    """Linux: let the kernel end this process when the worker that started it dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
