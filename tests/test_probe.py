"""What a base knows before training is measured as it is defined."""

import math

import numpy as np
import pytest
import torch
from conftest import FAMILIES, random_model

from gpt2lib.data.example import Example
from gpt2lib.model.base import load_base
from gpt2lib.tasks import probe
from gpt2lib.tasks.probe import bits_per_byte, block_features, cloze

TEXTS = ["A gorgeous, witty, seductive movie.", "It is not – by any means – a café.", "no", "Dull. " * 60]


@pytest.fixture(scope="module")
def mini():
    return load_base("gpt2-mini")


@torch.no_grad()
def test_bits_per_byte_are_the_texts_own_whatever_the_batch(mini):
    body, tokenizer = mini
    bits = 0.0
    for text in TEXTS:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        log_p = body.logits(body(ids)).log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])
        bits -= log_p.sum().item() / math.log(2)
    size = sum(len(text.encode()) for text in TEXTS)
    assert size > sum(map(len, TEXTS))  # some characters are more than a byte
    for batch_size in (1, 3):
        assert bits_per_byte(body, tokenizer, TEXTS, batch_size=batch_size) == pytest.approx(bits / size, rel=1e-5)


def test_every_token_of_a_long_text_is_predicted_once_and_from_half_a_window():
    for length in (1, 7, 8, 9, 12, 13, 40):
        ids = list(range(length))
        predicted = []
        for piece, start in probe._windows(ids, 8):
            assert len(piece) <= 8 and piece == ids[piece[0] : piece[-1] + 1]
            assert start >= 4 or piece[0] == 0
            predicted += piece[start:]
        assert predicted == ids[1:]


def test_a_longer_window_and_more_reading_need_fewer_bits(mini):
    body, tokenizer = mini
    assert bits_per_byte(body, tokenizer, TEXTS[3:]) < bits_per_byte(body, tokenizer, TEXTS[3:], window=8)
    assert bits_per_byte(body, tokenizer, TEXTS) < bits_per_byte(*load_base("untrained:gpt2-mini"), TEXTS) / 1.5
    with pytest.raises(ValueError, match="no text"):
        bits_per_byte(body, tokenizer, [""])


@torch.no_grad()
@pytest.mark.parametrize("task", probe.QUESTIONS)
def test_a_cloze_is_the_words_log_probabilities_less_those_after_nothing(mini, task):
    body, tokenizer = mini
    examples = [Example("1", text, TEXTS[-1] if task == "quora" else None, 0) for text in TEXTS[:3]]
    prompt, words = probe.QUESTIONS[task]
    first = [tokenizer(word)["input_ids"][0] for word in words]

    def log_p(text):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return body.logits(body(ids)[0, -1]).log_softmax(-1)[first]

    expected = torch.stack([log_p(prompt(e)) - log_p(prompt(probe.NOTHING)) for e in examples])
    assert np.abs(cloze(body, tokenizer, examples, task) - expected.numpy()).max() < 1e-4
    with pytest.raises(ValueError, match="possible: sst, cfimdb, quora"):
        cloze(body, tokenizer, examples, "sonnets")


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_the_last_token_and_the_mean_after_each_block(family):
    body = random_model(family=family, n_layer=3)
    rows = [[3, 4, 5], [7], [8, 2, 40, 41, 13, 6]]
    features = block_features(body, rows, [3, 0, 2])
    assert features.shape == (3, 3, 64)
    for i, ids in enumerate(rows):
        for place, end in enumerate((3, 0, 2)):
            with torch.no_grad():
                h = body(torch.tensor([ids]), end=end)[0]  # [seq, n_embd]
            assert np.abs(features[place, i] - torch.cat([h[-1], h.mean(0)]).numpy()).max() < 1e-5
    with pytest.raises(ValueError, match="text 1 is empty"):
        block_features(body, [[1], []], [0])


def test_a_probe_reads_what_a_line_can_and_is_chance_on_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 20)) * 10 + 3
    labels = x[:, [3, 5, 8]].argmax(1)
    predicted = probe.probe(x[:400], labels[:400], x[400:])
    assert np.mean(predicted == labels[400:]) > 0.85
    noise = rng.normal(size=(600, 20))
    assert (
        abs(np.mean(probe.probe(noise[:400], rng.permutation(labels[:400]), noise[400:]) == labels[400:]) - 1 / 3)
        < 0.12
    )
