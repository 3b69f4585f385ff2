"""What can go wrong around a study ends in one clear line, and leaves nothing half-written."""

import subprocess
import sys
import textwrap

import pytest
from faults import Net
from faults_disk import attack

from gpt2lib import GPT2
from gpt2lib.data import HASHES, find_file


def test_killed_at_random_moments_a_study_loses_nothing(tmp_path):
    net = Net(say=lambda line: None)
    attack(net, tmp_path, 1)
    assert net.counts and not net.lost, net.lost


def test_a_full_disk_is_one_line_and_leaves_no_run(tmp_path):
    """In a mount namespace of its own, with a disk of 300 KB."""
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        import torch
        from gpt2lib import GPT2, GPT2Config
        from gpt2lib.training.checkpoint import Checkpoint
        folder = Path(sys.argv[1])
        for write in (lambda: GPT2(GPT2Config(n_layer=1, n_embd=64, n_head=1, vocab_size=3000)).save_pretrained(folder),
                      lambda: Checkpoint(folder, "x", True).save(weights=torch.zeros(1_000_000))):
            try:
                write()
            except Exception as error:
                print(type(error).__name__, "|", str(error).splitlines()[0])
        print(sorted(path.name for path in folder.iterdir()))
    """)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=300k none {disk} && exec {sys.executable} -c '{code}' {disk}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "unshare" in done.stderr:
        pytest.skip("needs the right to mount a small disk")
    *errors, left = done.stdout.strip().splitlines()
    assert len(errors) == 2 and all(line.startswith("OSError |") for line in errors), done.stdout + done.stderr
    assert "No space left" in errors[0] and "checkpoint.pt: could not be written" in errors[1]
    assert left == "['config.json']", left  # no part of a weight file, no part of a checkpoint


def test_a_truncated_checkpoint_is_named(tmp_path):
    from conftest import random_model

    from gpt2lib.data import Encoded
    from gpt2lib.training import TrainingSettings, fit
    from gpt2lib.training.objectives import LanguageModel

    rows = [Encoded(list(range(8)))] * 8
    fit(
        LanguageModel(random_model()), rows, rows, TrainingSettings(epochs=1, batch_size=4), folder=tmp_path, quiet=True
    )
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: damaged .*; delete it to start this run again"):
        fit(
            LanguageModel(random_model()),
            rows,
            rows,
            TrainingSettings(epochs=1, batch_size=4),
            folder=tmp_path,
            quiet=True,
        )


def test_a_corrupt_weight_file_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged or cut short"):
        GPT2.from_pretrained(tmp_path)


def test_a_download_with_another_hash_is_refused(tmp_path, monkeypatch):
    import pooch

    def fetched(*args, **kwargs):
        raise ValueError("SHA256 hash of downloaded file does not match")

    monkeypatch.setenv("GPT2LIB_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", fetched)
    name = next(name for name in HASHES if HASHES[name] is not None)
    with pytest.raises(ValueError, match="the download is not the course's file"):
        find_file(name)
