"""Scores of completed sonnets: what they are by definition, and where their floors lie."""

import pytest

from gpt2lib.data import Example, load_task
from gpt2lib.tasks import verse
from gpt2lib.tasks.sonnets import verse_lines


def test_a_perfect_completion_scores_100_and_an_unwritten_one_nothing():
    truths = [example.text for example in load_task("sonnets", "toy", quiet=True).dev]
    perfect = verse.overlap(truths, truths)
    assert all(score == pytest.approx(100) for score in perfect.values())
    given = ["\n".join(text.splitlines()[:3]) for text in truths]
    alone = verse.overlap(given, truths)
    assert alone["chrf_continuation"] == alone["bleu_continuation"] == 0 < alone["chrf_whole"]
    longer = [text + "\n" + text for text in truths]  # more than fourteen lines are cut
    assert verse.overlap(longer, truths) == perfect


@pytest.mark.parametrize(
    ("a", "b", "rhyme"),
    [
        ("Shall I compare thee to a summer's day?", "Rough winds do shake the darling buds of May,", True),
        ("And often is his gold complexion dimmed", "By chance or nature's changing course untrimmed:", True),
        ("So long lives this, and this gives life to thee", "So long as men can breathe or eyes can see", True),
        ("Thou art more lovely and more temperate", "Rough winds do shake the darling buds of May,", False),
        ("in the day", "by the day", False),  # the same word is no rhyme
        ("", "by the day", False),
        ("so he quoldeth", "as she moldeth", True),  # not in the dictionary: by spelling
    ],
)
def test_rhymes(a, b, rhyme):
    assert verse.rhymes(a, b) == rhyme == verse.rhymes(b, a)


def test_form():
    data = load_task("sonnets", "toy", quiet=True)
    true = verse.form([example.text for example in data.dev], data.train)
    assert true["lines"] == 14 and true["rhyme_rate"] > 0.8 and true["copied_line_rate"] == 0
    copied = [
        "\n".join(verse_lines(dev.text)[:3] + verse_lines(train.text)[3:9])
        for dev, train in zip(data.dev, data.train, strict=False)
    ]
    seen = verse.form(copied, data.train)
    assert seen["copied_line_rate"] == 1 and seen["lines"] == 9 and seen["rhyme_rate"] < true["rhyme_rate"]
    empty = verse.form(["a\nb\nc"], [Example("1", "x")])
    assert empty == {"lines": 3, "rhyme_rate": 0, "copied_line_rate": 0}


def test_the_floors_on_the_courses_sonnets(real_data):
    """Published scores of 27.37 and 42.097 lie where random lines of other sonnets do."""
    floors = verse.floors(load_task("sonnets"))["given and random lines"]
    assert floors["chrf_whole"] == pytest.approx(42.1, abs=0.5)
    assert floors["chrf_continuation"] == pytest.approx(26.8, abs=0.5)
