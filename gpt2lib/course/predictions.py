"""Predict, then run: a guess is written down before a result is seen, and afterwards read beside it."""

import textwrap
from collections.abc import Callable

WIDTH = 90  # of what is printed: no page of the course is narrower


def predict(question: str, options: list | None = None) -> Callable[[object], "Prediction"]:
    """A question that is asked before its result; call what it returns with the guess, or with None for none.

    options: what may be guessed; without them the guess is a number. Raises ValueError for any other guess.
    """
    return lambda guess: Prediction(question, options, guess)


class Prediction:
    """A guess that waits for the result."""

    def __init__(self, question: str, options: list | None, guess: object):
        number = isinstance(guess, int | float) and not isinstance(guess, bool)
        if guess is not None and not (guess in options if options else number):
            raise ValueError(f"{guess!r} is no answer to {question!r}; possible: {options or 'a number'}")
        self.question, self.options, self.guess = question, options, guess
        print(textwrap.fill(question + (f" ({', '.join(map(str, options))})" if options else ""), WIDTH))
        print("Write your guess in place of None, then go on." if guess is None else f"You say: {guess}.")

    def was(self, result: object, follows: str | dict = "", digits: int = 2) -> None:
        """Print the result beside the guess, and what follows from it.

        result: one of the options, or a number, computed from what was run. follows: a sentence or, by option, the
        sentence for each result, so that no text can contradict its number. Raises ValueError for a result that is
        not among the options, or that `follows` has no sentence for.
        """
        if self.options and result not in self.options:
            raise ValueError(f"{result!r} is not among the options of {self.question!r}: {self.options}")
        if isinstance(follows, dict):
            if result not in follows:
                raise ValueError(f"nothing is said to follow from {result!r}; there is: {list(follows)}")
            follows = follows[result]
        shown = result if self.options else f"{result:.{digits}f}"
        for line in (self.question, f"It is {shown}; {self._beside(result, digits)}.", follows):
            print(textwrap.fill(line, WIDTH), end="\n" if line else "")

    def _beside(self, result, digits: int) -> str:
        if self.guess is None:
            return "you wrote no guess"
        if self.options:
            return "as you said" if self.guess == result else f"you said {self.guess}"
        return f"you said {self.guess:g}, which is {abs(self.guess - result):.{digits}f} off"
