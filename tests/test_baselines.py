"""The floors: what they read, and what they are never shown."""

from dataclasses import replace

import pytest

from gpt2lib.data.example import Example
from gpt2lib.data.load import TaskData
from gpt2lib.model.base import load_tokenizer
from gpt2lib.tasks import Encoder
from gpt2lib.tasks.baselines import bag_of_words, floors

FILLER = " and so on" * 20


@pytest.fixture
def told_early(tmp_path, monkeypatch) -> TaskData:
    """Reviews whose first word tells their class, long before their end."""
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))

    def some(first: int, many: int) -> list[Example]:
        return [Example(str(i), ("awful", "superb")[i % 2] + FILLER, label=i % 2) for i in range(first, first + many)]

    return TaskData("cfimdb", "toy", ("negative", "positive"), some(0, 40), some(100, 20), [])


def test_a_bag_of_words_reads_as_much_of_a_text_as_the_model(told_early):
    encoder = Encoder("cfimdb", load_tokenizer("gpt2-mini"), 16)
    assert floors(told_early)[0]["bag_of_words_accuracy"] == 1
    assert floors(told_early, read=encoder.as_read)[0]["bag_of_words_accuracy"] == 0.5
    long = replace(encoder, max_length=500)
    assert long.as_read(told_early.dev) == told_early.dev


def test_the_floors_never_see_the_labels_they_are_measured_by(told_early):
    seen = replace(told_early, dev=told_early.train[:6])
    turned = replace(told_early, dev=[replace(example, label=1 - example.label) for example in told_early.dev])
    assert bag_of_words(told_early, seen)[0] == bag_of_words(turned, seen)[0] == floors(turned, seen)[1]
    mostly_superb = replace(seen, train=told_early.train[1:])
    assert floors(turned, mostly_superb)[0]["majority_accuracy"] == 0.5
    only_awful = replace(turned, dev=[example for example in turned.dev if example.label == 0])
    assert floors(only_awful, mostly_superb)[0]["majority_accuracy"] == 0
    assert floors(only_awful, mostly_superb)[0]["bag_of_words_accuracy"] == 0
