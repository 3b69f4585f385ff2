"""How far a run has come, and the file that it goes on from: written beside, then renamed, so it is whole or old."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from gpt2lib.common.digest import digest_of
from gpt2lib.common.whole import write_json, write_whole
from gpt2lib.data.batches import Encoded
from gpt2lib.training.objectives import Objective, trained_parameters
from gpt2lib.training.settings import TrainingSettings


@dataclass
class Progress:
    """What a run has done so far; all of it is in the checkpoint, and at the end it is what `fit` returns.

    history: one row per evaluation. best: the best row. seconds and seconds_evaluating: training, evaluation.
    """

    step: int = 0
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    seconds_evaluating: float = 0.0
    peak_memory_mb: float = 0.0
    stale: int = 0
    best: dict = field(default_factory=dict)
    history: list = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Checkpoint:
    """checkpoint.pt in a folder, replaced in one step, and progress.json beside it; nothing at all without a folder."""

    def __init__(self, folder: str | Path | None, identity: dict[str, str], writes: bool):
        """identity: what makes the run this one, by what it is called ("the adapter", say); a checkpoint of a run that
        differs in any of it is refused."""
        self.folder = None if folder is None else Path(folder)
        self.identity = identity
        self.writes = writes and folder is not None

    def load(self) -> dict | None:
        path = self.folder and self.folder / "checkpoint.pt"
        if path is None or not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            known = state.get("identity", {})
        except Exception as error:  # torch raises many types for a damaged file
            raise ValueError(f"{path}: damaged ({type(error).__name__}); delete it to start this run again") from None
        if other := [name for name, value in self.identity.items() if known.get(name) != value]:
            raise ValueError(
                f"{path}: another run wrote it, with other {', '.join(other)}; delete it or use another folder"
            )
        return state

    def save(self, **state) -> None:
        if self.writes:
            content = state | {"identity": self.identity}
            path = self.folder / "checkpoint.pt"
            try:
                write_whole(path, lambda partial: torch.save(content, partial))
            except RuntimeError as error:  # torch's word for a full disk, among others
                raise OSError(f"{path}: could not be written: {str(error).splitlines()[0]}") from None

    def report(self, progress: Progress, loss: float) -> None:
        """What a study shows of a run that is under way."""
        if self.writes:
            now = {"step": progress.step, "steps": progress.steps, "loss": loss}
            now["tokens_per_second"] = progress.tokens_per_second
            now["seconds_left"] = progress.seconds / progress.step * (progress.steps - progress.step)
            write_json(self.folder / "progress.json", now)


def identity_of(
    model: Objective, train: list[Encoded], dev: list[Encoded], settings: TrainingSettings
) -> dict[str, str]:
    """What makes a run this one. Weights that start at random (an adapter's, a head's) follow from the seed."""
    body, trained = model.body, trained_parameters(model)
    given = ((name, p) for name, p in body.named_parameters() if not p.requires_grad or body.adapter is None)
    return {
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "adapter": json.dumps(body.adapter.to_dict()) if body.adapter else "none",
        "base model": digest_of(given),
        "trained parameters": json.dumps({name: list(p.shape) for name, p in trained.items()}),
        "training examples": _digest_of_examples(train),
        "dev examples": _digest_of_examples(dev),
    }


def _digest_of_examples(examples: list[Encoded]) -> str:
    digest = hashlib.sha256()
    for e in examples:
        digest.update(np.array([len(e.ids), -1 if e.label is None else e.label, e.start, e.task, *e.ids]).tobytes())
    return digest.hexdigest()[:32]
