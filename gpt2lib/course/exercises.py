"""Coding exercises: an answer is run beside a reference of the library, or hashed, and told at once what is amiss.

`exercise` is a decorator that stands on the reader's own function; `gpt2lib.course` shows how the cells lie.
"""

import copy
import dis
import hashlib
import inspect
from collections.abc import Callable

import torch

from gpt2lib.course.compare import difference, rounded

_EMPTY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "COPY_FREE_VARS"}
_known: dict[str, dict[str, object]] = {}  # by title: the mistakes of which the reader is told that it is theirs


def exercise(
    title: str,
    *,
    like: object = None,
    digest: str = "",
    on: list[tuple] | None = None,
    run: Callable | None = None,
    tolerance: float = 1e-5,
    digits: int = 4,
    look: str = "",
) -> Callable[[object], "Exercise"]:
    """A decorator that says whether a function (or a class, or a plain value) is the answer: right, waits, or not yet.

    It is compared with `like`, the library's own; or, where there is none to name, with `digest`, the hash of the
    result rounded to `digits` decimals (leave it empty, and a solution that is not accepted tells it). on: argument
    tuples to call both with, each time on copies and from the same random state; gradients with respect to arguments
    that require one are compared, too. run: instead of `on`, what to do with an answer to get a result. Without either
    the answer is itself the result. tolerance: see `compare.difference`. look: said when it is not right yet.
    """
    return lambda answer: Exercise(title, answer, _Check(title, like, digest, on, run, tolerance, digits, look))


class Exercise:
    """A reader's answer and its verdict, which was printed; stands where the answer stands, until the solution came.

    state: "right", "waits" (nothing written yet) or "not yet".
    """

    def __init__(self, title: str, answer: object, check: "_Check"):
        self.title, self.answer, self.check = title, answer, check
        self.rejected = 0
        self.state, complaint = check(answer)
        if self.state == "not yet":
            for why, wrong in _known.get(title, {}).items():
                complaint = f"this is what one gets when {why}" if check.same(answer, wrong) else complaint
        print(f"exercise {title}: {self.state}" + (f". {complaint}" if complaint else ""))

    def __call__(self, *arguments, **named):
        """Call the answer."""
        return self.answer(*arguments, **named)

    def mistake(self, why: str) -> Callable[[object], "Exercise"]:
        """A decorator for a wrong answer, one that runs: an error tells itself. why: goes on after "this is what one
        gets when". Raises AssertionError if the check does not notice."""

        def reject(wrong):
            state, _ = self.check(wrong)
            if state != "not yet":
                raise AssertionError(f"exercise {self.title}: the check says {state!r} of the mistake: {why}")
            self.rejected += 1
            _known.setdefault(self.title, {})[why] = wrong
            return self

        return reject

    def solution(self, answer: object) -> object:
        """A decorator for the solution. Returns the reader's answer if that was right, and the solution otherwise, so
        that the notebook goes on. Raises AssertionError if the check does not accept it."""
        state, complaint = self.check(answer)
        if state != "right":
            hint = f" (its digest: {self.check.hash(answer)})" if self.check.hashed else ""
            raise AssertionError(f"exercise {self.title}: the solution is not accepted ({state}). {complaint}{hint}")
        print(f"exercise {self.title}: the solution is accepted, {self.rejected} wrong answer(s) rejected")
        return self.answer if self.state == "right" else answer


class _Check:
    """What `exercise` was told, as a function of an answer."""

    def __init__(self, title, like, digest, on, run, tolerance, digits, look):
        self.title, self.like, self.digest, self.on, self.run = title, like, digest, on, run
        self.tolerance, self.digits, self.look = tolerance, digits, look
        self.hashed = like is None

    def __call__(self, answer) -> tuple[str, str]:
        if untouched(answer):
            return "waits", "write the answer in place of None" if answer is None else ""
        if self.hashed:
            place = f"{self.digits} decimals" if self.digits >= 0 else f"multiples of {10**-self.digits}"
            kept = f"rounded to {place} it is not the answer, of which only a hash is kept here"
            complaint = "" if self.hash(answer) == self.digest else kept
        else:
            complaint = difference(self.result(answer), self.result(self.like), self.tolerance)
        return ("not yet", f"{complaint}. {self.look}".strip(". ")) if complaint else ("right", "")

    def hash(self, answer) -> str:
        """Of the title and the rounded result."""
        text = f"{self.title}|{rounded(self.result(answer), self.digits)}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def result(self, answer) -> object:
        with torch.random.fork_rng(devices=[]):  # the notebook's own draws go on as if nothing had been checked
            if self.run is not None:
                torch.manual_seed(0)
                return self.run(answer)
            if self.on is None:
                return answer
            return {f"case {i}": _called(answer, arguments) for i, arguments in enumerate(self.on, 1)}

    def same(self, one, other) -> bool:
        """Whether two answers give the same result."""
        return not difference(self.result(one), self.result(other), self.tolerance)


def _called(answer, arguments: tuple) -> object:
    """The result of a call on copies of the arguments, and the gradients of those that require one."""
    torch.manual_seed(0)
    arguments = copy.deepcopy(arguments)
    value = answer(*arguments)
    leaves = {i: a for i, a in enumerate(arguments, 1) if isinstance(a, torch.Tensor) and a.requires_grad}
    if not leaves or not isinstance(value, torch.Tensor):
        return value
    if not value.requires_grad:
        return {"value": value} | {f"gradient of argument {i}": None for i in leaves}
    weights = torch.linspace(0.5, 1.5, value.numel()).view_as(value)  # a plain sum would hide an exchange of elements
    gradients = torch.autograd.grad((value * weights).sum(), list(leaves.values()), allow_unused=True)
    return {"value": value.detach()} | {f"gradient of argument {i}": g for i, g in zip(leaves, gradients, strict=True)}


def untouched(answer: object) -> bool:
    """Whether nothing was written yet: None, a function of at most a docstring, a class with such a method."""
    if answer is None:
        return True
    if inspect.isclass(answer):
        return any(untouched(part) for part in vars(answer).values() if inspect.isfunction(part))
    if not inspect.isfunction(answer):
        return False
    steps = list(dis.get_instructions(answer))
    loaded = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return loaded == [None] and {step.opname for step in steps} <= _EMPTY
