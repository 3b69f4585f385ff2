"""What a task is: its prompt, its head, and the file its predictions are handed in as; and the methods to train it with.

The prompt functions are the only ones there are: training, evaluation and test all read their examples through them.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from gpt2lib.adapters import METHODS, Spec, attach, of_size
from gpt2lib.data.batches import Encoded
from gpt2lib.data.load import PROMPT_LINES, Example, TaskData
from gpt2lib.data.tokens import tokenize
from gpt2lib.model.config import Config
from gpt2lib.model.decoder import Decoder
from gpt2lib.training.objectives import Classifier, ClozeHead, LanguageModel, LinearHead

LAST_LINEAR, FULL = "last-linear", "full"
VARIANTS = {"krona-b-res": ("krona-b", {"residual": True})}  # methods that are another with a setting
COURSE_ANSWERS = (3919, 8505)  # "no" and "yes" in GPT-2's vocabulary, which the course's file wants from every model


def plain_prompt(example: Example) -> str:
    """The sentence, or both of a pair with a line between them: sentiment and GLUE."""
    return example.text if example.pair is None else f"{example.text}\n{example.pair}"


def paraphrase_prompt(example: Example) -> str:
    """A cloze: the next token is to be "yes" or "no"."""
    return (
        f"First question: {example.text}\nSecond question: {example.pair}\n"
        "Do the two questions ask the same thing? Answer yes or no:\n"
    )


def sonnet_prompt(example: Example) -> tuple[str, str]:
    """The given lines, and those to be written (empty where the truth is not given)."""
    lines = example.text.splitlines()
    given, rest = lines[:PROMPT_LINES], lines[PROMPT_LINES:]
    return "\n".join(given) + "\n", "\n".join(rest)


def answer_ids(tokenizer) -> list[int]:
    """The tokens of "no" and "yes": GPT-2's 3919 and 8505. A tokenizer that splits one gives its first piece."""
    return [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("no", "yes")]


@dataclass(frozen=True)
class Encoder:
    """Turns a task's examples into what the model reads, at most `max_length` tokens each: of a longer text the end is
    kept, where the cloze question stands and a review's verdict tends to."""

    task: str
    tokenizer: object
    max_length: int

    def __call__(self, examples: list[Example], score_from_prompt: bool = False) -> list[Encoded]:
        """score_from_prompt: a sonnet's loss counts the lines to be written only, not the given ones or the end."""
        if self.task == "sonnets":
            return self._sonnets(examples, score_from_prompt)
        prompt = paraphrase_prompt if self.task == "quora" else plain_prompt
        ids = tokenize([prompt(example) for example in examples], self.tokenizer)
        return [Encoded(i[-self.max_length :], e.label) for i, e in zip(ids, examples, strict=True)]

    def _sonnets(self, examples: list[Example], score_from_prompt: bool) -> list[Encoded]:
        prompts, rests = zip(*map(sonnet_prompt, examples), strict=True)
        end = self.tokenizer.eos_token_id
        encoded = []
        for prompt, rest in zip(tokenize(prompts, self.tokenizer), tokenize(rests, self.tokenizer), strict=True):
            ids = [end, *prompt, *rest] + ([] if score_from_prompt else [end])
            start = 1 + len(prompt) if score_from_prompt else 1
            encoded.append(Encoded(ids[: self.max_length], start=start))
        return encoded

    def shortened(self, encoded: list[Encoded]) -> int:
        """How many examples fill all of max_length: those that were cut, and any that fit exactly."""
        return sum(len(e.ids) == self.max_length for e in encoded)


def prepare(data: TaskData, body: Decoder, tokenizer, method: str | Spec) -> Classifier | LanguageModel:
    """Put the task's head on `body` and leave exactly those parameters trainable that `method` trains.

    method: "last-linear" (the head alone, on a frozen body), "full" (everything), or an adapter's specification (the
    adapter, and the head if the task adds one). Sentiment and GLUE add a linear layer; the cloze task and the sonnets read
    GPT-2's own output layer, of which "last-linear" trains a copy (the rows of the two answers, or the whole).
    """
    if method not in (LAST_LINEAR, FULL) and not isinstance(method, Spec):
        raise ValueError(f"method={method!r}: give {LAST_LINEAR!r}, {FULL!r} or an adapter's specification")
    if isinstance(method, Spec):
        attach(body, method)
    else:
        body.requires_grad_(method == FULL)
    return with_head(data, body, tokenizer, own_output_layer=method == LAST_LINEAR)


def with_head(data: TaskData, body: Decoder, tokenizer, own_output_layer: bool = False) -> Classifier | LanguageModel:
    """The task's head on `body`. own_output_layer: train a copy of GPT-2's, where the task has no other head."""
    if data.name == "sonnets":
        if own_output_layer:
            body.untie()
        return LanguageModel(body)
    if data.name == "quora":
        return Classifier(body, ClozeHead(body, answer_ids(tokenizer), trained=own_output_layer))
    return Classifier(body, LinearHead(body.config.n_embd, data.classes))


def method_named(name: str, config: Config | None = None, budget: int = 0, **settings) -> str | Spec:
    """A method from a notebook's parameters: the name of an adapter picks from `settings` those that it has.

    budget: about how many parameters the adapter is to train on a model of shape `config`, whatever its rank; 0 leaves
    its size as it is. Raises ValueError for an unknown name.
    """
    if name in (LAST_LINEAR, FULL):
        return name
    if name not in (*METHODS, *VARIANTS):
        raise ValueError(
            f"no method is called {name!r}; possible: {', '.join((LAST_LINEAR, FULL, *METHODS, *VARIANTS))}"
        )
    name, own = VARIANTS.get(name, (name, {}))
    spec, settings = METHODS[name], settings | own
    known = {
        key: tuple(v) if isinstance(v, list) else v for key, v in settings.items() if key in spec.__dataclass_fields__
    }
    return of_size(spec(**known), budget, config) if budget else spec(**known)


@torch.no_grad()
def complete_sonnets(
    body: Decoder,
    tokenizer,
    examples: list[Example],
    seed: int = 0,
    temperature: float = 0.9,
    top_p: float = 0.9,
    max_new_tokens: int = 256,
) -> list[str]:
    """Complete each sonnet from its first three lines, all in one batch: the whole texts, as long as the model made them.

    A model that does not stop is stopped after max_new_tokens, or at n_positions.
    """
    device = body.wte.weight.device
    prompts = [sonnet_prompt(example)[0] for example in examples]
    rows = [[tokenizer.eos_token_id, *ids] for ids in tokenize(prompts, tokenizer)]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    out = body.generate(
        ids,
        mask,
        max_new_tokens=min(max_new_tokens, body.config.n_positions - width),
        temperature=temperature,
        top_p=top_p,
        eos_token_id=tokenizer.eos_token_id,
        generator=torch.Generator(device).manual_seed(seed),
    )
    new = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return [prompt + text for prompt, text in zip(prompts, new, strict=True)]


def write_submission(path: str | Path, task: str, examples: list[Example], predictions: list) -> None:
    """Write predictions in the course's format, ready to hand in.

    predictions: class numbers, or for the sonnets whole texts, of which the first fourteen lines are written.
    """
    if task == "sonnets":
        poems = ("\n".join(verse_lines(text)[:14]) for text in predictions)
        text = "--Generated Sonnets--\n\n" + "".join(
            f"\n{example.id}\n{poem}\n" for example, poem in zip(examples, poems, strict=True)
        )
    else:
        column = "Predicted_Is_Paraphrase" if task == "quora" else "Predicted_Sentiment"
        labels = [COURSE_ANSWERS[p] if task == "quora" else p for p in predictions]
        rows = (f"{example.id}, {label}\n" for example, label in zip(examples, labels, strict=True))
        text = f"id \t {column}\n" + "".join(rows)
    Path(path).write_text(text, encoding="utf-8")


def read_submission(path: str | Path) -> pd.DataFrame:
    """A file of predicted classes as `write_submission` wrote it: columns id (text) and label (the class's number)."""
    # the course's header is separated by a tab, its rows by commas
    table = pd.read_csv(path, dtype=str, skipinitialspace=True, skiprows=1, names=["id", "label"])
    labels = table["label"].astype(int)
    return table.assign(label=labels.replace({token: i for i, token in enumerate(COURSE_ANSWERS)}))


def verse_lines(text: str) -> list[str]:
    """The lines of a poem that are not empty, without indentation."""
    return [line.strip() for line in text.splitlines() if line.strip()]
