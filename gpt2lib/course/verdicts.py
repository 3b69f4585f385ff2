"""The checks of a notebook: each raises at once where it fails, and those that hold stand in one table at the end."""

import torch
from IPython.display import Markdown


class Verdicts:
    """Collects claims that were checked: `check = Verdicts()`, then `check(claim, passed)`, last `check.table()`."""

    def __init__(self):
        self.claims: list[str] = []

    def __call__(self, claim: str, passed: bool, seen: object = "", look: str = "") -> None:
        """Note that a claim holds, in words that are the same on every machine; raise AssertionError with what was seen
        and where to look if it does not."""
        if not passed:
            raise AssertionError(f"does not hold: {claim}; seen: {seen}" + (f"; look at {look}" if look else ""))
        self.claims.append(claim)

    def close(self, claim: str, seen: torch.Tensor, expected: torch.Tensor, tolerance: float, look: str = "") -> None:
        """Check that the largest absolute difference of two tensors is at most `tolerance`."""
        largest = (seen - expected).abs().max().item()
        bound = f"largest difference at most {tolerance:g}" if tolerance else "exactly"
        self(f"{claim} ({bound})", largest <= tolerance, f"{largest:.3g}", look)

    def table(self) -> Markdown:
        """The claims in the order in which they were checked. Raises ValueError where nothing was."""
        if not self.claims:
            raise ValueError("no claim was checked in this notebook")
        rows = [
            f"| {number} | {claim.replace('|', chr(92) + '|')} | holds |" for number, claim in enumerate(self.claims, 1)
        ]
        return Markdown("\n".join(["| | claim | verdict |", "|-:|:-|:-|", *rows]))
