"""What a run needs of its task: texts as the model reads them, and the task's head on a prepared body."""

from dataclasses import dataclass, replace

from gpt2lib.common.checks import check_count
from gpt2lib.data.batches import Encoded
from gpt2lib.data.example import Example
from gpt2lib.data.load import TaskData
from gpt2lib.model.decoder import Decoder
from gpt2lib.tasks.method import Trainable, method_named
from gpt2lib.tasks.task import TASKS
from gpt2lib.training.objectives import Classifier, LanguageModel


@dataclass(frozen=True)
class Encoder:
    """Turns a task's examples into what the model reads, at most `max_length` tokens each: of a longer text that is to
    be judged the end is kept, of a longer one that is to be written the beginning."""

    task: str
    tokenizer: object
    max_length: int

    def __post_init__(self):
        check_count("max_length", self.max_length, at_least=2)  # a next token has one before it

    def __call__(self, examples: list[Example], score_from_prompt: bool = False) -> list[Encoded]:
        """score_from_prompt: a sonnet's loss counts the lines to be written only, not the given ones or the end."""
        return TASKS[self.task].encode(examples, self.tokenizer, self.max_length, score_from_prompt)

    def as_read(self, examples: list[Example]) -> list[Example]:
        """The examples of a classification with what is read of their texts: of one that is longer than max_length, its
        end. Pairs stay whole."""
        read = zip(examples, self(examples), strict=True)
        return [
            replace(example, text=self.tokenizer.decode(encoded.ids))
            if example.pair is None and len(encoded.ids) == self.max_length
            else example
            for example, encoded in read
        ]

    def shortened(self, encoded: list[Encoded]) -> int:
        """How many examples fill all of max_length: those that were cut, and any that fit exactly."""
        return sum(len(e.ids) == self.max_length for e in encoded)


def prepare(data: TaskData, body: Decoder, tokenizer, method: Trainable | str) -> Classifier | LanguageModel:
    """Put the task's head on `body` and leave exactly those parameters trainable that `method` trains.

    method: `LastLayer()`, `Full()`, an adapter's specification such as `LoRA()`, or the name of one of
    `method.METHODS`. Sentiment and GLUE add a linear layer, which every method trains; the cloze task and the sonnets
    read the body's own output layer, of which `LastLayer` trains a copy (the rows of the two answers, or the whole).
    """
    if isinstance(method, str):
        method = method_named(method)
    method.apply(body)
    return TASKS[data.name].head(body, tokenizer, own_output_layer=method.own_output_layer)
