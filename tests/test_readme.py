"""What the README tells people to type exists."""

import re
import subprocess
import tomllib
from itertools import pairwise

import pytest
from conftest import REPOSITORY

from gpt2lib.model import pretrained

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_make_targets_exist():
    targets = set(re.findall(r"make ([a-z]+)", TEXT))
    assert {"demo", "lab", "study", "report", "test", "notebooks"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_commands_and_their_options_exist():
    from gpt2lib.cli import cli

    seen = set()
    typed = "\n".join(re.findall(r"`[^`\n]+`|```sh\n.*?```", TEXT, re.DOTALL))
    for command, rest in re.findall(r"(?:^|`)gpt2lib ([a-z]+)([^`\n]*)", typed, re.MULTILINE):
        options = {option for parameter in cli.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= options, (command, rest)
        seen.add(command)
    assert {"data", "study", "score"} <= seen


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert link.startswith("https://") or (REPOSITORY / link).exists(), link


def test_the_library_example_runs(tmp_path, monkeypatch):
    """The first Python block of the README on models, on a small random model in place of the download."""
    from conftest import random_model

    random_model().save_pretrained(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    block = next(block for block in BLOCKS if "from_pretrained" in block)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "my-adapter" / "adapter.safetensors").is_file()
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_the_adapters_example_runs(capsys):
    try:
        pretrained.find("smollm2-135m")
    except FileNotFoundError as error:  # its weights are a package of their own
        pytest.skip(str(error))
    (block,) = (block for block in BLOCKS if "load_adapted" in block)
    exec(compile(block, "README.md", "exec"), {"three_lines": "One line,\nanother,\nand a third:"})
    assert "and a third:" in capsys.readouterr().out


def test_the_table_of_bases_is_what_was_measured():
    import pandas as pd

    measured = pd.read_csv(REPOSITORY / "report" / "results" / "bases.csv")
    bits = measured.pivot(index="text", columns="base", values="bits_per_byte")
    names = {"film reviews": "reviews", "SST's sentences": "sst", "Quora's questions": "quora", "prose": "prose"}
    rows = dict(re.findall(r"^\| bits a byte: (.+?) \| (.+) \|$", TEXT, re.MULTILINE))
    assert set(rows) == {*names, "verse"}
    for name, cells in rows.items():
        of_bases = bits.loc[names.get(name, "poetry"), ["gpt2-mini", "smollm2-135m", "untrained gpt2-mini"]]
        assert [float(cell) for cell in cells.split(" | ")] == [round(value, 2) for value in of_bases], name


def test_the_course_map_is_what_the_notebooks_ask_for():
    """Arrows and minutes of the README against each notebook's own first words."""
    arrows = re.findall(r"^  (.* --> .*)$", TEXT, re.M)
    needs: dict[str, set[str]] = {}
    for chain in arrows:
        groups = [re.findall(r"\d\d", group) for group in chain.split("-->")]
        for before, after in pairwise(groups):
            for name in after:
                needs.setdefault(name, set()).update(before)
    contents = tomllib.loads((REPOSITORY / "site" / "contents.toml").read_text(encoding="utf-8"))
    of_site = {f"{int(name):02}": {f"{n:02}" for n in before} for name, before in contents["needs"].items()}
    assert of_site == needs
    routes = [[f"{n:02}" for n in route["numbers"]] for route in contents["routes"]]
    assert routes == [re.findall(r"\d\d", text) for text in re.findall(r"\*To [^*]*\*: ([\d, \n]+)", TEXT)]
    times = dict(re.findall(r"^\| \[(\d\d)_.* \| ([a-z ]+) \|$", TEXT, re.M))
    for path in sorted((REPOSITORY / "notebooks").glob("*.py")):
        number, first = path.name[:2], path.read_text(encoding="utf-8").split("\n# %% tags", 1)[0].replace("\n# ", " ")
        asked = re.search(r"Needs notebooks? ((?:[^.;]|\.ipynb)*)", first)
        seen = set(re.findall(r"\b(\d\d)\b", re.sub(r"\(.*?\)", "", asked[1]))) if asked else set()
        assert seen == needs.get(number, set()), (path.name, seen, needs.get(number))
        assert re.search(rf"runs in (about )?{times[number]}\b", first), (path.name, times[number])
