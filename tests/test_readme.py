"""What the README tells people to type exists."""

import re
import subprocess
import sys

from conftest import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_make_targets_exist():
    targets = set(re.findall(r"make ([a-z]+)", TEXT))
    assert {"demo", "lab", "study", "report", "test", "notebooks"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_commands_and_their_options_exist():
    commands = set(re.findall(r"gpt2lib (data|study|report)", TEXT))
    assert {"data", "study"} <= commands
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "gpt2lib.cli", command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "Usage" in done.stdout
    assert (
        "--plan" in TEXT
        and "--plan"
        in subprocess.run(
            [sys.executable, "-m", "gpt2lib.cli", "study", "--help"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert link.startswith("https://") or (REPOSITORY / link).exists(), link


def test_the_library_example_runs(tmp_path, monkeypatch):
    """The Python block of the README, on a small random model in place of the download."""
    from conftest import random_model

    random_model().save_pretrained(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "my-adapter" / "adapter.safetensors").is_file()
    assert (tmp_path / "merged" / "model.safetensors").is_file()
