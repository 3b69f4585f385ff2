"""Measuring a model on examples: its prediction for each of them, and metrics of all."""

from collections.abc import Callable

import torch
from tqdm.auto import tqdm

from gpt2lib.common.machine import autocast, processes
from gpt2lib.data.batches import Batch, Encoded, sorted_batches
from gpt2lib.model.generate import evaluating
from gpt2lib.training.objectives import Objective
from gpt2lib.training.prefix import with_prefix


def evaluate(
    model: Objective,
    examples: list[Encoded],
    batch_size: int = 16,
    precision: str = "float32",
    keep: bool = True,
) -> tuple[dict[str, float], list]:
    """Metrics of `model` on labelled examples, and its prediction for each of them in their order; keep: see `predict`.

    Under `accelerate launch` every process measures its share, and all return the whole.
    """
    predictions = predict(model, examples, batch_size, precision, keep)
    return model.metrics(predictions, examples), predictions


@torch.no_grad()
def predict(
    model: Objective,
    examples: list[Encoded],
    batch_size: int = 16,
    precision: str = "float32",
    keep: bool = True,
    progress: str = "",
    of: Callable[[Batch], list] | None = None,
) -> list:
    """The model's prediction for each example, labelled or not, in their order; with `of`, what it gives instead.

    keep: use and keep what frozen blocks make of these texts (see `prefix`). progress: what a progress bar says, if it
    takes more than two seconds.
    """
    from accelerate.utils import gather_object

    if keep and all(e.hidden is None for e in examples):
        examples = with_prefix(model, examples, precision, quiet=not progress)
    state = processes()
    device = next(model.parameters()).device
    batches = sorted_batches([len(e.ids) for e in examples], batch_size)[state.process_index :: state.num_processes]
    outputs = []
    bar = tqdm(batches, desc=progress, unit="batch", leave=False, delay=2, disable=not progress)
    with evaluating(model), autocast(device, precision):
        for indices in bar:
            made = (of or model.predict)(Batch.of([examples[i] for i in indices], device))
            outputs += zip(indices, made, strict=True)
    return [prediction for _, prediction in sorted(gather_object(outputs), key=lambda output: output[0])]
