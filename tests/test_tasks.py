"""Tasks: one prompt for all parts, the last real token, losses without padding, and the course's prediction files."""

import math

import pytest
import torch
from conftest import random_model

from gpt2lib.adapters import LoRA
from gpt2lib.data import (
    COURSE_TASKS,
    Batch,
    Example,
    bucketed_batches,
    load_task,
    pretraining,
    read_sonnets,
    sorted_batches,
    tokenize,
)
from gpt2lib.data.glue import GLUE
from gpt2lib.tasks import (
    Encoder,
    answer_ids,
    complete_sonnets,
    paraphrase_prompt,
    prepare,
    sonnet_prompt,
    write_submission,
)
from gpt2lib.tasks import task as records
from gpt2lib.training import evaluate, trained_parameters


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [text for part in pretraining.corpus("toy").values() for text in part]
    return pretraining.train_tokenizer(texts, 400, tmp_path_factory.mktemp("tokenizer"))


def body():
    return random_model(vocab_size=400, n_positions=384)


def prepared(task, tokenizer, method="full"):
    data = load_task(task, "toy", quiet=True)
    return data, prepare(data, body(), tokenizer, method).eval(), Encoder(task, tokenizer, 384)


@pytest.mark.parametrize("task", ["sst", "cfimdb", "quora"])
def test_the_last_real_token_is_read_whatever_the_padding(task, tokenizer):
    data, model, encoder = prepared(task, tokenizer)
    encoded = encoder(data.dev[:12])
    assert len({len(e.ids) for e in encoded}) > 1
    with torch.no_grad():
        together = model.logits(Batch.of(encoded))
        apart = torch.cat([model.logits(Batch.of([e])) for e in encoded])
    assert (together - apart).abs().max() < 1e-4


def test_every_task_with_data_has_a_record():
    assert set(records.TASKS) == {*COURSE_TASKS, *GLUE}
    metrics = {name: (task.metric, task.sign) for name, task in records.TASKS.items()}
    assert metrics.pop("sonnets") == ("perplexity", -1) and set(metrics.values()) == {("accuracy", 1)}


def test_train_dev_and_test_share_one_prompt(tokenizer):
    for task in COURSE_TASKS:
        data = load_task(task, "toy", quiet=True)
        encoder = Encoder(task, tokenizer, 384)
        example = data.dev[0]
        bare = Example(example.id, example.text, example.pair)  # as a test file would give it
        assert list(encoder([bare])[0].ids) == list(encoder([example])[0].ids)
    assert paraphrase_prompt(Example("1", "A?", "B?")).endswith("\n")


def test_class_1_is_yes_in_labels_head_and_file(tokenizer, tmp_path):
    data, model, encoder = prepared("quora", tokenizer)
    no, yes = answer_ids(tokenizer)
    assert tokenizer.convert_ids_to_tokens([no, yes]) == ["no", "yes"]
    batch = Batch.of(encoder(data.dev[:4]))
    with torch.no_grad():
        h = model.body(batch.input_ids)[torch.arange(4), batch.lengths - 1]
        vocabulary = model.body.logits(h)
        assert torch.allclose(model.logits(batch)[:, 1], vocabulary[:, yes], atol=1e-5)
    write_submission(tmp_path / "p.csv", "quora", data.dev[:2], [1, 0])
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "id \t Predicted_Is_Paraphrase"
    assert lines[1:] == [f"{data.dev[0].id}, 8505", f"{data.dev[1].id}, 3919"]


def test_words_that_one_piece_stands_for_are_refused(tokenizer):
    assert len({answer_ids(tokenizer, (word,))[0] for word in ("yes", "yesyes")}) == 1
    with pytest.raises(ValueError, match=r"'yesyes'.* the same first piece"):
        answer_ids(tokenizer, ("yes", "yesyes"))


def test_other_submissions(tokenizer, tmp_path):
    data = load_task("sst", "toy", quiet=True)
    write_submission(tmp_path / "p.csv", "sst", data.dev[:2], [4, 0])
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines == ["id \t Predicted_Sentiment", f"{data.dev[0].id}, 4", f"{data.dev[1].id}, 0"]
    sonnets = load_task("sonnets", "toy", quiet=True)
    write_submission(tmp_path / "s.txt", "sonnets", sonnets.dev, [e.text + "\nand one line more" for e in sonnets.dev])
    assert read_sonnets(tmp_path / "s.txt") == sonnets.dev  # cut to fourteen lines, and read back


def test_gpt2s_own_answer_tokens():
    """With GPT-2's vocabulary the words are the course's 3919 and 8505."""
    import os
    from pathlib import Path

    folder = os.environ.get("GPT2LIB_TOKENIZER")
    if not folder or not (Path(folder) / "vocab.json").is_file():
        pytest.skip("needs GPT-2's vocabulary; set GPT2LIB_TOKENIZER to a folder with its vocab.json and merges.txt")
    from transformers import GPT2TokenizerFast

    assert answer_ids(GPT2TokenizerFast.from_pretrained(folder)) == [3919, 8505]


def test_no_loss_on_padding_and_dev_counts_the_continuation_only(tokenizer):
    data, model, encoder = prepared("sonnets", tokenizer)
    encoded = encoder(data.dev, score_from_prompt=True)
    metrics, nats = evaluate(model, encoded)
    for example, e, seen in zip(data.dev, encoded, nats, strict=True):
        given, rest = (tokenizer(text)["input_ids"] for text in sonnet_prompt(example))
        ids = torch.tensor([[tokenizer.eos_token_id, *given, *rest]])
        with torch.no_grad():
            log_p = model.body.logits(model.body(ids)).log_softmax(-1)[0]
        expected = -sum(log_p[t - 1, ids[0, t]].item() for t in range(1 + len(given), ids.shape[1]))
        assert seen == pytest.approx(expected, rel=1e-4)
        assert model.weight(e) == len(rest)
    assert metrics["perplexity"] == pytest.approx(math.exp(sum(nats) / sum(map(model.weight, encoded))))


@pytest.mark.parametrize("task", COURSE_TASKS)
@pytest.mark.parametrize("method", ["last-linear", "full", LoRA(rank=2)], ids=str)
def test_each_method_trains_what_it_says(task, method, tokenizer):
    _, model, _ = prepared(task, tokenizer, method)
    trained = set(trained_parameters(model))
    head = {name for name in trained if name.startswith("head.") or name == "body.output_weight"}
    if method == "last-linear":
        assert trained == head and head
    elif method == "full":
        assert trained == {name for name, _ in model.named_parameters()}
    else:
        assert {name.rpartition(".")[2] for name in trained - head} == {"A", "B"}
        assert bool(head) == (task in ("sst", "cfimdb"))


def test_completions_begin_as_given_and_differ_by_seed(tokenizer):
    data, model, _ = prepared("sonnets", tokenizer)
    first, again, other = (complete_sonnets(model.body, tokenizer, data.test, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert all(text.startswith(e.text) for text, e in zip(first, data.test, strict=True))


def test_token_ids_come_from_the_cache_the_second_time(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    texts = ["one two", "", "three\nfour"]
    first = tokenize(texts, tokenizer)
    assert first == tokenizer(texts)["input_ids"]

    class Broken:
        backend_tokenizer = tokenizer.backend_tokenizer

    assert tokenize(texts, Broken()) == first  # it could not have tokenised
    assert tokenize([], tokenizer) == []


def test_batches_hold_everything_once_seeded_and_little_padding():
    lengths = [(i * 7919) % 97 + 3 for i in range(1000)]
    batches = bucketed_batches(lengths, 16, seed=3, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    assert batches == bucketed_batches(lengths, 16, seed=3, epoch=0)
    assert batches != bucketed_batches(lengths, 16, seed=3, epoch=1) != bucketed_batches(lengths, 16, seed=4, epoch=1)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert sorted(i for batch in sorted_batches(lengths, 16) for i in batch) == list(range(1000))
