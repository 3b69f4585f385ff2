"""The tasks, one record each. What depends on the task stands here once: its prompt, what the model reads and what
stands on top of it, the metric, the file it is handed in as."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from gpt2lib.data.batches import Encoded
from gpt2lib.data.example import Example
from gpt2lib.data.glue import GLUE
from gpt2lib.data.load import TABLES
from gpt2lib.data.tokens import tokenize
from gpt2lib.model.decoder import Decoder
from gpt2lib.tasks.prompts import answer_ids, paraphrase_prompt, plain_prompt, sonnet_prompt
from gpt2lib.tasks.sonnets import LINES, verse_lines
from gpt2lib.training.objectives import Classifier, ClozeHead, LanguageModel, LinearHead


@dataclass(frozen=True)
class Task(ABC):
    """What every task says; `classes` are its labels' meanings in order, none where it is to write; `pairs`: whether an
    example is two texts.

    name: in parameters, tables and published results. title: in figures and the report.
    """

    name: str
    title: str
    objective: ClassVar[type[nn.Module]]  # whose `metric` is followed, the higher the better where its `sign` is 1

    @property
    def metric(self) -> str:
        return self.objective.metric

    @property
    def sign(self) -> int:
        return self.objective.sign

    @abstractmethod
    def text(self, example: Example) -> str:
        """All that the model reads of an example."""

    @abstractmethod
    def encode(self, examples: list[Example], tokenizer, max_length: int, score_from_prompt: bool) -> list[Encoded]:
        """What the model reads, at most max_length tokens each; see `prepare.Encoder`."""

    @abstractmethod
    def head(self, body: Decoder, tokenizer, own_output_layer: bool = False) -> Classifier | LanguageModel:
        """What stands on `body`. own_output_layer: train a copy of GPT-2's, where the task has no other head."""

    @abstractmethod
    def submission(self, examples: list[Example], predictions: list) -> str:
        """The file of predictions as the course wants it."""


@dataclass(frozen=True)
class Classification(Task):
    """A class from a new linear layer on the hidden state of the last token.

    column: of the predictions in the course's file; codes: what it calls the
    classes, their numbers by default.
    """

    classes: tuple[str, ...]
    pairs: bool = False
    prompt: Callable[[Example], str] = plain_prompt
    column: str = "Predicted_Sentiment"
    codes: tuple[int, ...] = ()
    objective = Classifier

    def text(self, example: Example) -> str:
        return self.prompt(example)

    def encode(self, examples: list[Example], tokenizer, max_length: int, score_from_prompt: bool) -> list[Encoded]:
        """Of a longer text the end is kept, where the cloze question stands and a review's verdict tends to."""
        ids = tokenize([self.prompt(example) for example in examples], tokenizer)
        return [Encoded(i[-max_length:], e.label) for i, e in zip(ids, examples, strict=True)]

    def head(self, body: Decoder, tokenizer, own_output_layer: bool = False) -> Classifier:
        return Classifier(body, LinearHead(body.config.n_embd, len(self.classes)))

    def submission(self, examples: list[Example], predictions: list[int]) -> str:
        # the course's header is separated by a tab, its rows by commas
        labels = [self.codes[p] if self.codes else p for p in predictions]
        rows = (f"{example.id}, {label}\n" for example, label in zip(examples, labels, strict=True))
        return f"id \t {self.column}\n" + "".join(rows)


@dataclass(frozen=True)
class Cloze(Classification):
    """A class from the body's own output layer: the prompt ends in a question, and the classes' names answer it."""

    def head(self, body: Decoder, tokenizer, own_output_layer: bool = False) -> Classifier:
        return Classifier(body, ClozeHead(body, answer_ids(tokenizer, self.classes), trained=own_output_layer))


@dataclass(frozen=True)
class Writing(Task):
    """Texts to be continued; prompt gives what is given, and the rest."""

    prompt: Callable[[Example], tuple[str, str]]
    classes: ClassVar[tuple[str, ...]] = ()
    pairs: ClassVar[bool] = False
    objective = LanguageModel

    def text(self, example: Example) -> str:
        return "".join(self.prompt(example))

    def encode(self, examples: list[Example], tokenizer, max_length: int, score_from_prompt: bool) -> list[Encoded]:
        """An end-of-text token on either side, so that a model learns to begin and to stop. Raises ValueError for a
        length that leaves none of the tokens that are to be scored."""
        parts = [self.prompt(example) for example in examples]
        prompts, rests = (tokenize([part[i] for part in parts], tokenizer) for i in (0, 1))
        end = tokenizer.eos_token_id
        encoded = []
        for prompt, rest in zip(prompts, rests, strict=True):
            ids = [end, *prompt, *rest] + ([] if score_from_prompt else [end])
            start = 1 + len(prompt) if score_from_prompt else 1
            if start >= max_length:
                raise ValueError(
                    f"max_length={max_length} ends within the {start} tokens that are given; allow for more"
                )
            encoded.append(Encoded(ids[:max_length], start=start))
        return encoded

    def head(self, body: Decoder, tokenizer, own_output_layer: bool = False) -> LanguageModel:
        if own_output_layer:
            body.untie()
        return LanguageModel(body)

    def submission(self, examples: list[Example], predictions: list[str]) -> str:
        """Whole texts, of which the first fourteen lines are handed in."""
        poems = ("\n".join(verse_lines(text)[:LINES]) for text in predictions)
        return "--Generated Sonnets--\n\n" + "".join(
            f"\n{example.id}\n{poem}\n" for example, poem in zip(examples, poems, strict=True)
        )


_RECORDS = (
    Classification("sst", "SST", TABLES["sst"].class_names),
    Classification("cfimdb", "CFIMDB", TABLES["cfimdb"].class_names),
    Cloze(
        "quora",
        "Quora",
        TABLES["quora"].class_names,
        pairs=True,
        prompt=paraphrase_prompt,
        column="Predicted_Is_Paraphrase",
        codes=(3919, 8505),  # "no" and "yes" in GPT-2's vocabulary, which the course's file wants from every model
    ),
    Writing("sonnets", "Sonnets", sonnet_prompt),
    *(Classification(name, task.folder, task.class_names, len(task.texts) == 2) for name, task in GLUE.items()),
)
TASKS: dict[str, Task] = {task.name: task for task in _RECORDS}  # in the order in which tables and figures show them
