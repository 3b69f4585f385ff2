"""One adapter for several tasks: a head for each, and batches drawn from all of them."""

import math
import random
from dataclasses import replace

import torch
from torch import Tensor, nn

from gpt2lib.data.batches import Batch, Encoded
from gpt2lib.data.load import TaskData
from gpt2lib.model.decoder import Decoder
from gpt2lib.tasks.method import Trainable
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.objectives import Classifier, LanguageModel


class MultiTask(nn.Module):
    """Heads for several tasks on one body, an `Objective`; an example's `task` says which one it is for.

    Every example counts the same: a class's cross-entropy, or a text's mean per token. The metric that early stopping
    follows is the mean of the tasks' dev losses.
    """

    metric, sign, reads_last_token = "loss", -1, False

    def __init__(self, tasks: dict[str, Classifier | LanguageModel]):
        super().__init__()
        self.names = list(tasks)
        self.tasks = nn.ModuleList(tasks.values())
        self.body: Decoder = self.tasks[0].body
        if any(task.body is not self.body for task in self.tasks):
            raise ValueError("the tasks must share one body")

    def _parts(self, batch: Batch):
        for i, task in enumerate(self.tasks):
            rows = (batch.tasks == i).nonzero()[:, 0]
            if len(rows):
                yield task, rows, batch.select(rows)

    def forward(self, batch: Batch) -> Tensor:
        """Summed loss."""
        total = torch.zeros((), device=batch.input_ids.device)
        for task, _, part in self._parts(batch):
            total = total + task.means(part).sum()
        return total

    def weight(self, example: Encoded) -> int:
        return 1

    def predict(self, batch: Batch) -> list:
        """Each example's prediction, as its own task gives it."""
        predictions = [None] * len(batch.lengths)
        for task, rows, part in self._parts(batch):
            for row, prediction in zip(rows.tolist(), task.predict(part), strict=True):
                predictions[row] = prediction
        return predictions

    def metrics(self, predictions: list, examples: list[Encoded]) -> dict[str, float]:
        """Every task's metrics, as "sst_accuracy" and so on, and the mean of their losses."""
        metrics, losses = {}, []
        for i, (name, task) in enumerate(zip(self.names, self.tasks, strict=True)):
            chosen = [(p, e) for p, e in zip(predictions, examples, strict=True) if e.task == i]
            if chosen:
                own = task.metrics(*map(list, zip(*chosen, strict=True)))
                metrics |= {f"{name}_{key}": value for key, value in own.items()}
                losses.append(own["loss"])
        return {"loss": sum(losses) / len(losses)} | metrics


def prepare_tasks(tasks: list[TaskData], body: Decoder, tokenizer, method: Trainable) -> MultiTask:
    """Prepare one body, with one adapter for all, and put every task's head on it."""
    method.apply(body)
    own = method.own_output_layer
    return MultiTask({data.name: TASKS[data.name].head(body, tokenizer, own) for data in tasks})


def labelled_by_task(parts: list[list[Encoded]]) -> list[list[Encoded]]:
    """The same examples, each knowing the number of its task."""
    return [[replace(example, task=i) for example in part] for i, part in enumerate(parts)]


def mixture(parts: list[list[Encoded]], temperature: float = 1.0, total: int | None = None, seed: int = 0):
    """About `total` examples of all tasks (by default as many as there are), those of one pass through a mixture.

    A task of n examples gets a share in proportion to n ** (1 / temperature): 1 is by size, infinity gives every task
    the same. A task that gets more than it has is repeated, each time in another order.
    Raises ValueError for a temperature below 1 or a task without examples.
    """
    if not temperature >= 1:
        raise ValueError(f"temperature must be at least 1 (1: by size; inf: equal shares), not {temperature!r}")
    if not parts or not all(parts):
        raise ValueError("every task needs at least one example")
    total = total or sum(map(len, parts))
    largest = max(map(len, parts))
    weights = [math.exp(math.log(len(part) / largest) / temperature) for part in parts]
    mixed = []
    for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        wanted = max(1, round(total * weight / sum(weights)))
        rng = random.Random(f"mixture/{seed}/{i}")
        while wanted > 0:
            mixed += rng.sample(part, min(wanted, len(part)))
            wanted -= len(part)
    return mixed
