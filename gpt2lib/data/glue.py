"""Four tasks of GLUE (Wang et al. 2019), from its own TSV files under glue/ or through the hub's nyu-mll/glue."""

from dataclasses import dataclass
from pathlib import Path

from gpt2lib.common.checks import shown
from gpt2lib.data.example import Example
from gpt2lib.data.tables import places_of, read_rows


@dataclass(frozen=True)
class GlueTask:
    """folder: under glue/. texts, label: columns of the TSV file, by name, or by number where it has no header.
    answers: what the label column may hold, in the order of the classes, and class_names what they mean. hub: the
    columns there."""

    folder: str
    texts: tuple
    label: str | int
    answers: tuple[str, ...]
    class_names: tuple[str, ...]
    hub: tuple[str, ...]


GLUE = {
    "glue/rte": GlueTask(
        "RTE",
        ("sentence1", "sentence2"),
        "label",
        ("entailment", "not_entailment"),
        ("entailed", "not"),
        ("sentence1", "sentence2"),
    ),
    "glue/mrpc": GlueTask(
        "MRPC", ("#1 String", "#2 String"), "Quality", ("0", "1"), ("different", "same"), ("sentence1", "sentence2")
    ),
    "glue/cola": GlueTask("CoLA", (3,), 1, ("0", "1"), ("unacceptable", "acceptable"), ("sentence",)),
    "glue/sst2": GlueTask("SST-2", ("sentence",), "label", ("0", "1"), ("negative", "positive"), ("sentence",)),
}


def find_folder(task: GlueTask, places: list[Path]) -> Path | None:
    """The folder with the task's train.tsv and dev.tsv, glue/<TASK> in one of the places; None if there is none."""
    for place in places:
        folder = place / "glue" / task.folder
        if all((folder / f"{part}.tsv").is_file() for part in ("train", "dev")):
            return folder
    return None


def read_tsv(path: Path, task: GlueTask) -> list[Example]:
    """Read one of GLUE's files; quotes mean nothing in them. Raises ValueError naming file and line."""
    rows = read_rows(path, quoted=False)
    columns = (*task.texts, task.label)
    if isinstance(task.label, str):
        header = rows[0][1] if rows else []
        columns, rows = tuple(places_of(columns, header, path)), rows[1:]
    examples = []
    for number, (line, row) in enumerate(rows):
        if len(row) <= max(columns):
            raise ValueError(f"{path}, line {line}: {len(row)} columns, expected at least {max(columns) + 1}")
        *texts, label = (row[column].strip() for column in columns)
        if not all(texts):
            raise ValueError(f"{path}, line {line}: a sentence is empty")
        if label not in task.answers:
            raise ValueError(f"{path}, line {line}: the label is {shown(label)}; possible: {', '.join(task.answers)}")
        examples.append(Example(str(number), *texts, label=task.answers.index(label)))
    if not examples:
        raise ValueError(f"{path}: there is no row")
    return examples


def from_hub(name: str) -> tuple[list[Example], list[Example]]:
    """Train and dev from nyu-mll/glue. Raises FileNotFoundError where it cannot be reached."""
    from datasets import load_dataset  # two seconds that only a download needs

    task = GLUE[name]
    try:
        parts = load_dataset("nyu-mll/glue", name.removeprefix("glue/"))
    except Exception as error:  # the hub's many kinds of "not reachable"
        raise FileNotFoundError(
            f"{name} could not be fetched from the hub ({type(error).__name__}); put GLUE's files at "
            f"glue/{task.folder}/train.tsv and dev.tsv in the folder that GPT2LIB_DATA names, or in data/"
        ) from None
    return tuple(
        [Example(str(row["idx"]), *(row[column] for column in task.hub), label=row["label"]) for row in parts[part]]
        for part in ("train", "validation")
    )
