"""The prompts: the only functions that turn an example into text, for training, evaluation and test alike."""

from gpt2lib.data.example import Example
from gpt2lib.data.load import PROMPT_LINES, TABLES


def plain_prompt(example: Example) -> str:
    """The sentence, or both of a pair with a line between them: sentiment and GLUE."""
    return example.text if example.pair is None else f"{example.text}\n{example.pair}"


def paraphrase_prompt(example: Example) -> str:
    """A cloze: the next token is to be "yes" or "no". Raises ValueError for an example of one text."""
    if example.pair is None:
        raise ValueError(f"example {example.id} has one text, and the question is about two, as in quora")
    return (
        f"First question: {example.text}\nSecond question: {example.pair}\n"
        "Do the two questions ask the same thing? Answer yes or no:\n"
    )


def sonnet_prompt(example: Example) -> tuple[str, str]:
    """The given lines, and those to be written (empty where the truth is not given)."""
    lines = example.text.splitlines()
    given, rest = lines[:PROMPT_LINES], lines[PROMPT_LINES:]
    return "\n".join(given) + "\n", "\n".join(rest)


def answer_ids(tokenizer, words: tuple[str, ...] = TABLES["quora"].class_names) -> list[int]:
    """The tokens of the words that answer a cloze: "no" and "yes" are GPT-2's 3919 and 8505. A tokenizer that splits a
    word gives its first piece. Raises ValueError for words that these do not tell apart."""
    first = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    if len(set(first)) < len(first):
        raise ValueError(f"the tokenizer gives some of {words} the same first piece")
    return first
