"""Coding exercises: the check accepts the solution and rejects each typical mistake, in every notebook and in place."""

import ast
import contextlib
import io

import jupytext
import pytest
from conftest import REPOSITORY

from gpt2lib.adapters import SPECIFICATIONS
from gpt2lib.course import exercises

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.py"))


@pytest.fixture(autouse=True)
def nothing_known_and_nothing_left(monkeypatch):
    """No answers of earlier tests; and a method that a notebook registers is gone when its test ends."""
    monkeypatch.setattr(exercises, "_known", {})
    before = dict(SPECIFICATIONS)
    yield
    SPECIFICATIONS.clear()
    SPECIFICATIONS.update(before)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def tagged(path) -> list:
    """The cells that exercises need, in order: parameters, the imports after them, and the four tags."""
    cells = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    first = next(i for i, cell in enumerate(cells) if "parameters" in tags(cell))
    wanted = {"cases", "exercise", "solution"}
    return [cell for i, cell in enumerate(cells) if i in (first, first + 1) or wanted & set(tags(cell))]


def answers_of(source: str) -> list[tuple[str, ast.AST]]:
    """The statements of a solution's cell that answer, in order, each with its way: 'mistake' or 'solution'."""
    found = []
    for node in ast.parse(source).body:
        calls = getattr(node, "decorator_list", None) or [getattr(getattr(node, "value", None), "func", None)]
        names = [call.func if isinstance(call, ast.Call) else call for call in calls]
        ways = {name.attr for name in names if isinstance(name, ast.Attribute)} & {"mistake", "solution"}
        found += [(way, node) for way in ways]
    return found


def answered(question: str, source: str, which: int) -> str:
    """The source of an exercise with an answer written into it: the one of number `which` in the solution's cell."""
    tree, (_, answer) = ast.parse(question), answers_of(source)[which]
    place = tree.body[-1]
    if isinstance(place, ast.Assign):  # name = exercise(...)(None)
        place.value.args = answer.value.args
        return ast.unparse(tree)
    answers = {node.lineno for _, node in answers_of(source)}
    helpers = [node for node in ast.parse(source).body if node.lineno not in answers]
    answer.decorator_list, answer.name = place.decorator_list, place.name
    tree.body[-1:] = [*helpers, answer]
    return ast.unparse(tree)


def run(path, choose) -> dict[str, tuple[str, str, bool]]:
    """Execute the tagged cells of a notebook; by title, the state of each exercise, what was printed, and whether it is
    given as broken code to mend.

    choose: from the ways of an exercise's answers, the number of the one to write in; None leaves it empty.
    """
    names, states = {}, {}
    cells = tagged(path)
    for i, cell in enumerate(cells):
        source, printed = cell.source, io.StringIO()
        if "exercise" in tags(cell):
            which = choose([way for way, _ in answers_of(cells[i + 1].source)])
            source = source if which is None else answered(source, cells[i + 1].source, which)
        with contextlib.redirect_stdout(printed):
            exec(compile(source, f"{path.stem}, {tags(cell)}", "exec"), names)
        if "exercise" in tags(cell):
            last = ast.parse(cell.source).body[-1]
            one = names[last.targets[0].id if isinstance(last, ast.Assign) else last.name]
            assert one.title not in states, f"{path.stem}: two exercises are called {one.title!r}"
            states[one.title] = (one.state, printed.getvalue(), "broken" in tags(cell))
    return states


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_exercises_with_folded_solutions_and_a_mistake(path):
    cells = tagged(path)
    questions = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    assert questions, "no coding exercise"
    for i in questions:
        assert "solution" in tags(cells[i + 1]), cells[i].source
        assert cells[i + 1].metadata.get("jupyter") == {"source_hidden": True}, "not folded"
        assert {way for way, _ in answers_of(cells[i + 1].source)} == {"mistake", "solution"}, cells[i + 1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_exercise_waits_then_rejects_its_mistakes_and_accepts_its_solution(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    for title, (state, _, broken) in run(path, lambda _: None).items():
        assert state == ("not yet" if broken else "waits"), title
    for title, (state, printed, _) in run(path, lambda found: found.index("solution")).items():
        assert state == "right", (title, printed)
    # the notebook has told its mistakes by now, and names the one that was made
    ways = [[way for way, _ in answers_of(cell.source)] for cell in tagged(path) if "solution" in tags(cell)]
    for nth in range(max(found.count("mistake") for found in ways)):
        wrong = run(path, lambda found, nth=nth: min(nth, found.count("mistake") - 1) + found.index("mistake"))
        for state, printed, _ in wrong.values():
            assert state == "not yet" and "this is what one gets when" in printed, printed


SMALL = """
# %% tags=["parameters"]
seed: int = 0

# %%
import torch

from gpt2lib.course import exercise

# %%
raise RuntimeError("no cell without a tag is needed")

# %% tags=["cases"]
cases = [(torch.tensor([1.0, -2.0]),)]

# %% tags=["exercise"]
@exercise("1 relu", like=torch.relu, on=cases)
def relu(x): ...

# %% jupyter={"source_hidden": true} tags=["solution"]
@relu.mistake("the sign is turned")
def relu(x):
    return torch.relu(-x)

@relu.mistake("nothing is cut")
def relu(x):
    return x

def half(x):
    return x.clamp(min=0) / 2

@relu.solution
def relu(x):
    return half(x) * 2

# %% tags=["exercise"]
@exercise("2 layer", like=torch.nn.Linear, run=lambda layer: layer(2, 3)(torch.ones(2)))
class Layer(torch.nn.Linear):
    def forward(self, x): ...

# %% jupyter={"source_hidden": true} tags=["solution"]
@Layer.mistake("the bias is forgotten")
class Layer(torch.nn.Linear):
    def forward(self, x):
        return x @ self.weight.T

@Layer.solution
class Layer(torch.nn.Linear):
    def forward(self, x):
        return x @ self.weight.T + self.bias

# %% tags=["exercise"]
share = exercise("3 share", like=4)(None)

# %% jupyter={"source_hidden": true} tags=["solution"]
share.mistake("one is forgotten")(3)
share = share.solution(4)
"""


def test_answers_are_written_into_a_notebook_in_place(tmp_path, monkeypatch):
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    test_each_exercise_waits_then_rejects_its_mistakes_and_accepts_its_solution(path, monkeypatch)
    states = run(path, lambda found: 1 if found.count("mistake") == 2 else None)
    assert [state for state, _, _ in states.values()] == ["not yet", "waits", "waits"]
    assert "nothing is cut" in states["1 relu"][1]
    path.write_text(SMALL.replace("torch.relu(-x)", "torch.relu(x)"))
    with pytest.raises(AssertionError, match="the sign is turned"):
        run(path, lambda _: None)
