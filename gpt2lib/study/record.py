"""What a run leaves behind: result.json and the files beside it. Notebooks call `write_run` in their last cell."""

import hashlib
from pathlib import Path

import pandas as pd

from gpt2lib import adapters
from gpt2lib.common.checks import check_name
from gpt2lib.common.machine import environment, processes
from gpt2lib.common.whole import write_json, write_table, write_tensors
from gpt2lib.data.load import TaskData
from gpt2lib.tasks.adapted import head_state, save_adapted
from gpt2lib.tasks.submission import write_submission
from gpt2lib.training import TrainingSettings, predict, trained_parameters
from gpt2lib.training.checkpoint import Progress


def write_run(
    folder: str | Path,
    data: TaskData,
    model,
    encoder,
    progress: Progress,
    settings: TrainingSettings,
    metrics: dict,
    predictions: list,
    base_model: str,
    method: str,
    test_predictions: list | None = None,
    files: dict | None = None,
    trial: bool = False,
    floor: list | None = None,
) -> None:
    """Write a run's folder: dev and test predictions as the course wants them, history.csv, examples.csv (one row a dev
    example), what was trained (adapter/, for `load_adapted`; without an adapter the head alone, head.safetensors, and
    not the body, which is large), and last of all result.json. Nothing if folder is "".

    metrics, predictions: what the run measured on data.dev, and for each example (see `evaluate`); result.json has
    `selection` beside them, what the kept weights reached where the epoch was chosen. test_predictions: texts for
    sonnets; classes are predicted here. files: further JSON files, by name. trial: data.dev is a part of the training
    data (see `data.split`), so nothing is to be handed in. floor: what is to be beaten on each example of data.dev,
    which examples.csv has beside the run's own: the bag of words' class (see `baselines.floors`), or the loss before
    training.
    """
    if not folder:
        return
    folder = Path(folder)
    dev = encoder(data.dev, score_from_prompt=True)
    if data.class_names and data.test:  # several processes share the work; one writes
        test_predictions = [p for p, _ in predict(model, encoder(data.test), settings.batch_size)]
    if not processes().is_main_process:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"id": [e.id for e in data.dev]}
    if data.class_names:
        classes = [p for p, _ in predictions]
        labels = [e.label for e in data.dev]
        rows |= {"label": labels, "prediction": classes, "loss": [loss for _, loss in predictions]}
        rows["correct"] = [p == label for p, label in zip(classes, labels, strict=True)]
        if floor is not None:
            rows["bag_of_words_correct"] = [p == label for p, label in zip(floor, labels, strict=True)]
        if not trial:
            write_submission(folder / "dev-predictions.csv", data.name, data.dev, classes)
    else:
        rows |= {"loss": predictions, "tokens": [model.weight(e) for e in dev]}
        rows |= {} if floor is None else {"loss_before": floor}
    if test_predictions:
        name = "test-predictions.csv" if data.class_names else "test-sonnets.txt"
        write_submission(folder / name, data.name, data.test, test_predictions)
    write_table(folder / "examples.csv", pd.DataFrame(rows))
    write_table(folder / "history.csv", pd.DataFrame(progress.history))
    for name, content in (files or {}).items():
        write_json(folder / name, content)
    trained, head = trained_parameters(model), head_state(model)
    if model.body.adapter:
        save_adapted(folder / "adapter", data.name, model, base_model, encoder.max_length)
    elif head:
        write_tensors(folder / "head.safetensors", head)
    added = [*adapters.adapter_parameters(model.body).values(), *head.values()]

    write_json(
        folder / "result.json",
        {
            "task": data.name,
            "source": data.source,
            "method": method,
            "base_model": base_model,
            "base_params": count(model.parameters()) - count(added),
            "trained_params": count(trained.values()),
            "trained_params_head": count(head.values()),
            "data_hash": hashlib.sha256(repr((data.train, data.dev)).encode()).hexdigest()[:16],
            "shortened_examples": encoder.shortened(encoder(data.train)),
        }
        | _settings(settings)
        | training_facts(progress)
        | {"metric": model.metric, "sign": model.sign, "metrics": metrics}
        # what the kept weights reached where they were chosen: it may be another part of the data than `metrics` is of
        | {"selection": {key: value for key, value in progress.best.items() if key in metrics}}
        | environment(),
    )


def write_tables(folder: str | Path, tables: dict[str, pd.DataFrame], about: dict) -> None:
    """Write the record of a run whose result is tables: tables/NAME.csv, and result.json with `about`. Nothing if
    folder is "". Of several processes one writes. Raises ValueError for a name with a dash, which parts names.
    """
    for name in tables:
        check_name("a table's name", name)
        if "-" in name:
            raise ValueError(f"a table's name must be without a dash, not {name!r}")
    if not folder or not processes().is_main_process:
        return
    folder = Path(folder)
    for name, table in tables.items():
        write_table(folder / "tables" / f"{name}.csv", table, digits=6)
    write_json(folder / "result.json", about | {"metrics": {}} | environment())


def write_pretraining(
    folder: str | Path,
    model,
    progress: Progress,
    settings: TrainingSettings,
    metrics: dict,
    name: str,
    source: str,
    samples: list,
) -> None:
    """Write the record of a pretrained base model beside its folder: history.csv, samples.json (prompts
    and what it wrote after them), result.json."""
    if not folder or not processes().is_main_process:
        return
    folder = Path(folder)
    write_table(folder / "history.csv", pd.DataFrame(progress.history))
    write_json(folder / "samples.json", samples)
    parameters = count(model.parameters())
    about = {
        "task": "pretraining",
        "source": "toy" if source == "toy" else "real",
        "method": "full",
        "base_model": name,
    }
    about |= {"base_params": parameters, "trained_params": parameters, "trained_params_head": 0}
    write_json(
        folder / "result.json",
        about | _settings(settings) | training_facts(progress) | {"metrics": metrics} | environment(),
    )


def _settings(settings: TrainingSettings) -> dict:
    return {name: getattr(settings, name) for name in ("batch_size", "lr", "weight_decay", "precision", "seed")}


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def training_facts(progress: Progress) -> dict:
    """How much was trained, how long it took, and how much memory the process held at its peak."""
    return {
        "steps": progress.step,
        "examples": progress.examples,
        "tokens": progress.tokens,
        "padded_tokens": progress.padded_tokens,
        "seconds": progress.seconds,
        "seconds_evaluating": progress.seconds_evaluating,
        "tokens_per_second": progress.tokens_per_second,
        "peak_memory_mb": progress.peak_memory_mb,
    }
