"""What notebooks share to ask and to check: exercises, comparisons, predictions, verdicts."""

import contextlib
import io

import pytest
import torch

from gpt2lib.adapters import LoRA
from gpt2lib.course import Verdicts, exercise, exercises, lessons, predict
from gpt2lib.course.compare import difference, rounded
from gpt2lib.data import load_task
from gpt2lib.model.base import load_tokenizer
from gpt2lib.tasks import Encoder
from gpt2lib.training import TrainingSettings, evaluate


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(exercises, "_known", {})


def silent(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        value = function(*arguments)
    return value, printed.getvalue()


CASES = [(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 5.0], requires_grad=True))]


def test_an_untouched_function_class_or_value_waits():
    def empty(x, y):
        """Says what to write."""

    def dots(x, y): ...

    class Half:
        def __init__(self):
            self.x = 1

        def forward(self, x):
            """Says what to write."""

    for answer in (empty, dots, Half, None):
        assert exercise("1", like=lambda x, y: x, on=CASES)(answer).state == "waits"
    assert exercise("1", like=lambda x, y: None, on=CASES)(lambda x, y: x.zero_()).state == "not yet"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, y: x - y, "value: 1 at [0], expected 5"),
        (lambda x, y: (x + y)[:1], "shape [1], expected [2]"),
        (lambda x, y: (x + y).detach(), "gradient of argument 2: nothing"),
        (lambda x, y: x + y.detach() + 0 * y, "gradient of argument 2: 0 at [0], expected 0.5"),
        (lambda x, y: (x + y).flip(0).flip(0) + 1e-3, "2 of 2 numbers differ"),
        (lambda x, y: (x + y).tolist(), "a list"),
    ],
)
def test_a_wrong_answer_is_told_what_is_amiss(answer, words):
    one, printed = silent(exercise("1 sum", like=torch.add, on=CASES, look="the sign"), answer)
    assert one.state == "not yet" and words in printed and "the sign" in printed, printed


def test_the_same_random_state_and_copies_for_both():
    x = torch.ones(3)
    noisy = exercise("1", like=lambda t: t + torch.randn(3), on=[(x,)])
    assert noisy(lambda t: t.add_(torch.randn(3))).state == "right"
    assert torch.equal(x, torch.ones(3))
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    noisy(lambda t: torch.randn(3))
    assert torch.equal(torch.randn(3), expected)


def test_the_notebook_goes_on_with_the_readers_answer_if_right_and_the_solution_otherwise():
    def solution(x, y):
        return x + y

    def mine(x, y):
        return y + x

    for answer, expected in ((mine, mine), (None, solution), (lambda x, y: x, solution)):
        one = exercise("1", like=torch.add, on=CASES)(answer)
        assert one.mistake("the sign is wrong")(lambda x, y: x - y) is one
        assert one.solution(solution) is expected


def test_a_known_mistake_is_named_the_next_time():
    make = exercise("1", like=torch.add, on=CASES)
    make(None).mistake("the sign is wrong")(lambda x, y: x - y)
    assert "this is what one gets when the sign is wrong" in silent(make, lambda x, y: -(y - x))[1]
    assert "the sign" not in silent(make, lambda x, y: x * y)[1]


def test_a_check_that_accepts_a_mistake_or_rejects_the_solution_is_an_error():
    one = exercise("1", like=torch.add, on=CASES)(None)
    with pytest.raises(AssertionError, match="'right' of the mistake"):
        one.mistake("it is not one")(lambda x, y: x + y)
    with pytest.raises(AssertionError, match="not accepted"):
        one.solution(lambda x, y: x - y)


def test_a_value_by_its_hash():
    with pytest.raises(AssertionError, match="digest: ") as error:
        exercise("2", digits=2)(None).solution(0.3158)
    digest = str(error.value).split("digest: ")[1].rstrip(")")
    make = exercise("2", digest=digest, digits=2)
    assert make(0.3161).state == "right" and make(0.33).state == "not yet" and make(None).state == "waits"
    assert exercise("3", digest=digest, digits=2)(0.32).state == "not yet"  # the title is hashed with it


def test_difference():
    assert difference({"a": [1, torch.ones(2)]}, {"a": [1, torch.ones(2).double()]}, 0) == ""
    assert "[1]: " in difference([1, 2], [1, 3], 0) and "expected 3 results" in difference([1], [1, 2, 3], 0)
    assert "nan" in difference(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]), 1e3)
    assert (
        difference("a", "a", 0) == ""
        and difference("a", "b", 0)
        and difference(None, 1.0, 0)
        and difference(1.0, "a", 0)
    )
    assert difference(torch.tensor([1000.001]), torch.tensor([1000.0]), 1e-5) == ""  # relative to the largest
    assert difference(torch.tensor([7]), torch.tensor([8]), 10)  # whole numbers are equal or not
    assert rounded(-0.0001, 2) == rounded(torch.tensor(0), 2) == "0.00"


def test_predictions():
    guess, printed = silent(predict("Which rank?", [1, 4]), None)
    assert "1, 4" in printed and "None" in printed
    assert "you wrote no guess" in silent(guess.was, 4, {1: "a", 4: "b"})[1]
    assert "as you said" in silent(predict("Which rank?", [1, 4])(4).was, 4, {4: "more is better"})[1]
    assert "1.50 off" in silent(predict("The loss?")(4.5).was, 6.0)[1]
    for wrong in (
        lambda: predict("Which?", [1, 4])(2),
        lambda: predict("Loss?")("six"),
        lambda: guess.was(3),
        lambda: guess.was(4, {1: "a"}),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            wrong()


def test_verdicts():
    check = Verdicts()
    check("one | two", True)
    check.close("near", torch.ones(2), torch.ones(2) + 1e-7, 1e-6)
    assert "| 1 | one \\| two | holds |\n| 2 | near (largest difference at most 1e-06) | holds |" in check.table().data
    with pytest.raises(AssertionError, match=r"does not hold: far.*seen: 1; look at here"):
        check.close("far", torch.ones(2), torch.zeros(2), 0.1, "here")
    with pytest.raises(ValueError, match="no claim"):
        Verdicts().table()


def test_a_comparison_takes_each_methods_best_rate():
    """And no hook watches several runs as if they were one."""
    data = load_task("sst", "toy", quiet=True).sample(32)
    settings = TrainingSettings(epochs=1, batch_size=8)
    methods = {"LoRA": LoRA(rank=2), "head": "last-linear"}
    rates = (1e-6, 5e-3)
    each = [lessons.comparison(methods, dict.fromkeys(methods, lr), data, "gpt2-mini", settings)[1] for lr in rates]
    models, best = lessons.comparison(methods, rates, data, "gpt2-mini", settings)
    for name in methods:
        expected = max((table.loc[name] for table in each), key=lambda row: (row["accuracy"], -row["loss"]))
        assert best.loc[name].to_dict() == expected.to_dict()
        assert expected["lr"] == 5e-3  # or the test says little
    encoded = Encoder("sst", load_tokenizer("gpt2-mini"), 512)(data.dev)
    assert evaluate(models["LoRA"], encoded)[0]["loss"] == best.loc["LoRA", "loss"]
    for wrong in ({"rates": rates, "hooks": {"LoRA": []}}, {"rates": []}):
        with pytest.raises(ValueError, match="give one at least, and one alone where hooks watch"):
            lessons.comparison(methods, data=data, base_model="gpt2-mini", settings=settings, **wrong)
    one = {"LoRA": methods["LoRA"]}
    survivor = lessons.comparison(one, (5e-3, 1e30), data, "gpt2-mini", settings)[1]
    assert survivor.loc["LoRA"].to_dict() == best.loc["LoRA"].to_dict()
    with pytest.raises(FloatingPointError, match="lower lr"):
        lessons.comparison(one, (1e30,), data, "gpt2-mini", settings)


def test_an_answer_may_have_fewer_digits_than_the_solution():
    """Where two decimals, or hundreds, are asked for."""
    for digits, answers, wrong in ((2, (1 / 6, 0.167, 0.17), 0.16), (-2, (9604, 9604.0, 9600), 9500)):
        assert len({rounded(answer, digits) for answer in answers}) == 1
        assert rounded(wrong, digits) != rounded(answers[0], digits)
