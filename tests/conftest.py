"""Shared fixtures: a tiny random GPT-2 and toy data. A cache of its own, so that a test never sees a user's files."""

import os
import tempfile
from pathlib import Path

import pytest

# kept between runs of the tests, and shared by their workers
os.environ.setdefault("GPT2LIB_CACHE", str(Path(tempfile.gettempdir()) / f"gpt2lib-tests-{os.getuid()}"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from gpt2lib import GPT2, GPT2Config

REPOSITORY = Path(__file__).resolve().parent.parent


def random_model(seed: int = 0, **sizes) -> GPT2:
    """A small GPT-2 whose weights are large enough that no part of it is negligible."""
    torch.manual_seed(seed)
    model = GPT2(GPT2Config(**{"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 61, "n_positions": 48} | sizes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.fixture
def model() -> GPT2:
    return random_model()


@pytest.fixture(scope="session")
def toy_folder() -> Path:
    from gpt2lib import toy
    from gpt2lib.encoding import cache_folder

    return toy.write(cache_folder() / f"toy-{toy.VERSION}")


@pytest.fixture
def real_data() -> None:
    """Skips unless GPT2LIB_DATA names a folder with the course's files."""
    folder = os.environ.get("GPT2LIB_DATA")
    if not folder or not (Path(folder) / "ids-sst-train.csv").is_file():
        pytest.skip("needs the course's data files; set GPT2LIB_DATA to their folder")
