"""The tree is the architecture: imports point one way along it, and little stands at its top."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gpt2lib"
FLOORS = [  # a folder imports what stands on an earlier line, never its neighbours on the same one
    ["common"],
    ["model", "data", "theory"],
    ["training"],
    ["adapters"],
    ["tasks"],
    ["benchmarks", "course", "study"],
    ["report"],
    ["cli"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported(path: Path) -> set[str]:
    """The parts of the package (folders, or modules at its top) that a file imports from."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gpt2lib":
            below = node.module.split(".")[1:]
            parts |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("gpt2lib.")}
    return parts


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    wrong = {part for part in imported(path) - {home} if FLOOR[part] >= FLOOR[home]}
    assert not wrong, (
        f"{home} imports {sorted(wrong)}, which {'stand' if len(wrong) > 1 else 'stands'} above or beside it"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_little_stands_at_the_top():
    assert {path.name for path in PACKAGE.glob("*.py")} <= {"__init__.py", "cli.py", "theory.py"}
    for folder in {path.parent for path in FILES} - {PACKAGE}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, f"{folder.name}/__init__.py does not say what lives there"
