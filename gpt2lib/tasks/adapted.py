"""What a task's training left, as a folder, and what it is good for: to judge texts, and to finish a sonnet.

A folder holds adapter.json and adapter.safetensors (see `adapters.files`), head.safetensors where the task's head was
trained, and task.json: the task, and what base they belong to. The best LoRA of each task comes with the package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from gpt2lib import adapters
from gpt2lib.common.checks import brief, check_count, check_number, naming, one_line, shown
from gpt2lib.common.whole import read_json, read_tensors, write_json, write_tensors, written_together
from gpt2lib.data.batches import Encoded
from gpt2lib.data.example import Example
from gpt2lib.data.tokens import token_ids
from gpt2lib.model.base import load_base
from gpt2lib.tasks.sonnets import LINES, complete, given_ids, verse_lines
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.evaluate import predict
from gpt2lib.training.objectives import Classifier, LanguageModel, trained_parameters

OWN = Path(__file__).resolve().parents[1] / "weights" / "adapters" / "smollm2-135m"


def head_state(model: Classifier | LanguageModel) -> dict[str, Tensor]:
    """What is trained of a model's head, or of an output layer of its own."""
    trained = trained_parameters(model)
    return {name: p.detach() for name, p in trained.items() if name.startswith(("head.", "body.output_weight"))}


def save_adapted(
    folder: str | Path, task: str, model: Classifier | LanguageModel, base_model: str, max_length: int
) -> None:
    """Write the adapter and the head that were trained on `base_model`, for texts of at most max_length tokens."""
    about = {"task": task, "base_model": base_model, "depth": model.body.config.n_layer, "max_length": max_length}
    with written_together(Path(folder)) as new:
        adapters.save(model.body, new)
        if head := head_state(model):
            write_tensors(new / "head.safetensors", head)
        write_json(new / "task.json", about)
    if not head:  # an older one's
        (Path(folder) / "head.safetensors").unlink(missing_ok=True)


def load_adapted(task: str, folder: str | Path | None = None, base: str | None = None) -> "Adapted":
    """A base with the adapter that was trained for `task`.

    folder: a run's adapter/; without it the LoRA that comes with gpt2lib. base: where the base is, if not by the name
    in the folder. Raises FileNotFoundError for what is not there, and ValueError for a folder of another task or base.
    """
    if task not in TASKS:
        raise ValueError(f"no task is called {shown(task)}; possible: {', '.join(TASKS)}")
    if folder is None and not (OWN / task / "task.json").is_file():
        there = sorted(path.parent.relative_to(OWN).as_posix() for path in OWN.rglob("task.json"))
        raise FileNotFoundError(f"no adapter for {task} comes with gpt2lib (there are: {', '.join(there)}); give one")
    folder = Path(folder) if folder is not None else OWN / task
    if not (folder / "task.json").is_file():
        raise FileNotFoundError(f"{folder} holds no task.json; give the folder adapter/ that a run left")
    about = read_json(folder / "task.json")
    try:
        trained_for, name = about["task"], base or about["base_model"]
        if not isinstance(trained_for, str) or not isinstance(name, str):
            raise TypeError(f"task {shown(trained_for)} and base_model {shown(name)} must be names")
        own, depth, max_length = about["base_model"], about["depth"], about["max_length"]
        check_count("depth", depth)
        check_count("max_length", max_length, at_least=2)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'task.json'}: damaged ({type(error).__name__}: {one_line(error)})") from None
    if trained_for != task:
        raise ValueError(f"{folder} was trained for {brief(trained_for)}, not for {task}")
    try:
        with naming(folder):
            body, tokenizer = load_base(name, depth)
        adapters.load(body, folder)
    except ValueError as error:
        if name == own:
            raise
        raise ValueError(f"the adapter belongs to {brief(own)}, not to {name} ({one_line(error)})") from None
    model = TASKS[task].head(body, tokenizer)
    _load_head(model, folder / "head.safetensors")
    return Adapted(task, model.eval(), tokenizer, min(max_length, body.config.n_positions))


def _load_head(model: Classifier | LanguageModel, path: Path) -> None:
    needed = head_state(model)
    if not needed and not path.is_file():
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, and the task's head was trained; give a run's whole folder")
    head = read_tensors(path)
    if {name: v.shape for name, v in head.items()} != {name: v.shape for name, v in needed.items()}:
        raise ValueError(f"{path} does not hold this task's head: {shown(sorted(head))}")
    model.load_state_dict(head, strict=False)


@dataclass(frozen=True)
class Adapted:
    """A model that was adapted to a task, ready for use; see `load_adapted`."""

    task: str
    model: Classifier | LanguageModel
    tokenizer: object
    max_length: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the task's classes; none where it is to write."""
        return TASKS[self.task].classes

    def predict(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], batch_size: int = 16, progress: str = ""
    ) -> pd.DataFrame:
        """What the model takes each text for: one row a text, with the likeliest class (`prediction`), the probability
        of every class, a column each, and whether only the text's end was read (`cut`).

        texts: for a task of two texts pairs of them. progress: what a progress bar says. Raises ValueError for an empty
        text, one text where two are needed, or a task without classes.
        """
        if not self.classes:
            raise ValueError(f"{self.task} is written, not predicted")
        if isinstance(texts, str):
            raise ValueError("give a list of texts, not one text")
        check_count("batch_size", batch_size)
        encoded = self._encode(texts)
        cut = [len(e.ids) > self.max_length for e in encoded]
        encoded = [replace(e, ids=e.ids[-self.max_length :]) for e in encoded]

        def probabilities(batch) -> list[list[float]]:
            return self.model.logits(batch).float().softmax(-1).tolist()

        rows = predict(self.model, encoded, batch_size, keep=False, progress=progress, of=probabilities)
        table = pd.DataFrame(rows, columns=list(self.classes))
        table.insert(0, "prediction", table.idxmax(axis=1))
        return table.assign(cut=cut)

    def _encode(self, texts: Sequence) -> list[Encoded]:
        """Of a text that is too long, one token more than is read."""
        pairs, examples = TASKS[self.task].pairs, []
        for number, text in enumerate(texts, start=1):
            parts = list(text) if isinstance(text, tuple | list) else [text]
            if not all(isinstance(part, str) for part in parts):
                raise ValueError(f"text {number} is {shown(text)}, not text")
            if len(parts) != 1 + pairs:
                raise ValueError(f"text {number}: {self.task} judges {'two texts' if pairs else 'one text'} at a time")
            if not all(part.strip() for part in parts):
                raise ValueError(f"text {number} is empty")
            if any("\ud800" <= letter <= "\udfff" for part in parts for letter in part):  # bytes of another encoding
                raise ValueError(f"text {number} is not UTF-8")
            examples.append(Example(str(number), *(part.strip() for part in parts)))  # as in the data
        ids = token_ids([TASKS[self.task].text(example) for example in examples], self.tokenizer)
        return [Encoded(i[-self.max_length - 1 :]) for i in ids]

    def write(
        self,
        lines: str,
        seed: int = 0,
        temperature: float = 0.9,
        top_p: float = 0.9,
        show: Callable[[str], object] | None = None,
    ) -> str:
        """A sonnet from its first lines, three as in training: all fourteen, or fewer where the model ends it.

        show: called with the given lines, then with every piece of text as it is made. Raises ValueError for no line,
        fourteen or more, or lines too long for the model to finish.
        """
        if self.classes:
            raise ValueError(f"{self.task} is predicted, not written")
        check_number("temperature", temperature, 0, 1e6)
        check_number("top_p", top_p, 1e-9, 1)
        check_count("seed", seed, 0, 2**63 - 1)
        given = verse_lines(lines)
        if not 1 <= len(given) < LINES:
            raise ValueError(f"a sonnet of {LINES} lines goes on from 1 to {LINES - 1} of them, not from {len(given)}")
        prompt, pieces = "\n".join(given) + "\n", show and _tidy(show)
        given_ids(prompt, self.tokenizer, self.max_length)  # may raise, before anything is shown
        sampling = (seed, temperature, top_p, self.max_length)
        if show is not None:
            show(prompt)
        text = complete(self.model.body, self.tokenizer, prompt, *sampling, pieces)
        return "\n".join(verse_lines(text)[:LINES]) + "\n"


def _tidy(show: Callable[[str], object]) -> Callable[[str], None]:
    """Shows pieces of a poem without the empty lines and indentation between them."""
    begun = False  # whether the present line has a letter

    def piece(text: str) -> None:
        nonlocal begun
        kept = ""
        for letter in text:
            if begun or not letter.isspace():
                kept += letter
                begun = letter != "\n"
        if kept:
            show(kept)

    return piece


def texts_in(content: str, name: str, pairs: bool) -> list[str] | list[tuple[str, str]]:
    """The texts of a file, one a line; for `pairs` two a line, with a tab between them.

    name: the file's, for errors. Raises ValueError, with the line, for an empty text, and a line of another number.
    """
    texts = []
    lines = content.removesuffix("\n").split("\n") if content else []  # splitlines would cut at other signs, too
    for number, line in enumerate(lines, start=1):
        parts = tuple(part.strip() for part in line.split("\t"))
        if not all(parts):
            raise ValueError(f"{name}, line {number}: {'the line' if len(parts) == 1 else 'a text'} is empty")
        if len(parts) != 1 + pairs:
            expected = "two texts with a tab between them" if pairs else "one text, without a tab"
            raise ValueError(f"{name}, line {number}: expected {expected}, not {shown(line)}")
        texts.append(parts if pairs else parts[0])
    if not texts:
        raise ValueError(f"{name}: there is no text in it")
    return texts
