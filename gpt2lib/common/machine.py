"""Facts of the machine and of this installation: where files are kept, hardware, versions, memory; and what hangs on
its device: precision, waiting for it."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "sacrebleu", "papermill")


def cache_folder() -> Path:
    """Where downloads, toy data and token ids are kept: GPT2LIB_CACHE, or the user's cache folder."""
    return Path(os.environ.get("GPT2LIB_CACHE") or Path.home() / ".cache" / "gpt2lib")


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB: of the GPU if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of what getrusage counts
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def environment() -> dict:
    """Hardware, versions, and the revision of the code."""
    cuda = torch.cuda.is_available()
    threads = torch.get_num_threads()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{_processor()}, {threads} thread{'s' * (threads > 1)}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    } | _revision()


def _revision() -> dict:
    """Which code this is: the git revision of the checkout that it stands in, and whether nothing there was changed;
    without one (a repository further up is another project's), or without git, the installed version."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        if (root / ".git").exists():
            revision, changes = git("rev-parse", "--short", "HEAD").strip(), git("status", "--porcelain")
            return {"revision": revision, "revision_clean": not changes}
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        return {"revision": f"version {version('gpt2lib')}", "revision_clean": None}
    except PackageNotFoundError:
        return {"revision": "unknown", "revision_clean": None}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def processes():
    """accelerate's state: which of how many processes this is. An early PartialState() of its own takes every process
    of a run on CPUs for the only one."""
    from accelerate import PartialState  # two seconds of imports that a user of the model alone need not pay

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=several and not torch.cuda.is_available())


def autocast(device, precision: str):
    """Matrix products in bf16, for precision "bf16"; nothing at all for "float32"."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")


def wait() -> None:
    """Until the GPU, if there is one, has done what it was asked to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
