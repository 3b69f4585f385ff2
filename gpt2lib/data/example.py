"""One example of a task, as its file gives it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A sentence, a pair of sentences, or a sonnet. label: its class, or None where none is given (test files).

    For a sonnet, text is all that the file gives: fourteen lines, or the first three.
    """

    id: str
    text: str
    pair: str | None = None
    label: int | None = None
