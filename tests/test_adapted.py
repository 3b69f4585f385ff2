"""What training left, in use: the answers that it gave when trained, in batches, files and streams; or one line."""

import json
import sys

import pandas as pd
import pytest
import torch

from gpt2lib import cli
from gpt2lib.adapters import LoRA, adapter_parameters
from gpt2lib.data import Batch, Encoded, load_task
from gpt2lib.model.base import load_base
from gpt2lib.tasks import Encoder, load_adapted, prepare, save_adapted
from gpt2lib.tasks.adapted import OWN, texts_in
from gpt2lib.tasks.sonnets import verse_lines

LENGTHS = {"sst": 32, "quora": 64, "sonnets": 200}
GIVEN = "Shall I compare thee to a summer's day?\nThou art more lovely\nRough winds do shake"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """For each task a model with a random adapter and head, and the folder that it was saved to."""
    made = {}
    for task, length in LENGTHS.items():
        body, tokenizer = load_base("gpt2-mini", depth=2)
        torch.manual_seed(0)
        model = prepare(load_task(task, "toy-few", quiet=True), body, tokenizer, LoRA(rank=2))
        for p in adapter_parameters(body).values():
            torch.nn.init.normal_(p, std=0.05)
        folder = tmp_path_factory.mktemp(task)
        save_adapted(folder, task, model, "gpt2-mini", length)
        made[task] = model.eval(), tokenizer, folder
    return made


@pytest.mark.parametrize("task", ["sst", "quora"])
def test_it_says_what_it_said_when_it_was_trained(kept, task):
    """Every row alone, by the trained model itself, has the probabilities that the batch of unequal texts has."""
    model, tokenizer, folder = kept[task]
    examples = load_task(task, "toy-few", quiet=True).dev[:7]
    texts = [e.text if e.pair is None else (e.text, e.pair) for e in examples]
    table = load_adapted(task, folder).predict(texts, batch_size=3)
    for example, encoded, (_, row) in zip(
        examples, Encoder(task, tokenizer, LENGTHS[task])(examples), table.iterrows(), strict=True
    ):
        expected = model.logits(Batch.of([encoded])).softmax(-1)[0].tolist()
        classes = [c for c in table.columns if c not in ("prediction", "cut")]
        assert row[classes].tolist() == pytest.approx(expected, abs=1e-5), example
        assert row["prediction"] == classes[max(range(len(classes)), key=expected.__getitem__)]


@pytest.mark.parametrize(
    ("texts", "says"), [("great", "a list of texts"), ([None], "text 1 is None"), (["a", 3.0], "text 2 is 3.0")]
)
def test_what_is_no_list_of_texts_is_refused(kept, texts, says):
    with pytest.raises(ValueError, match=says):
        load_adapted("sst", kept["sst"][2]).predict(texts)


def test_a_text_is_the_same_with_space_around_it_and_is_kept_nowhere(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    table = load_adapted("sst", kept["sst"][2]).predict([" a fine film\n", "a fine film"])
    assert table.iloc[0].tolist() == pytest.approx(table.iloc[1].tolist())
    assert not (tmp_path / "tokens").exists() and not (tmp_path / "prefix").exists()


def test_of_a_long_text_the_end_is_read(kept):
    """All that fits is read; of 10,000 words, the last 32 tokens."""
    model, tokenizer, folder = kept["sst"]
    long = "nothing " * 10_000 + "good"
    fits = next(text for n in range(100) if len(tokenizer(text := "good" + " good" * n)["input_ids"]) == 32)
    table = load_adapted("sst", folder).predict([fits, long, fits + " good"])
    assert table["cut"].tolist() == [False, True, True]
    ends = [tokenizer(text)["input_ids"][-32:] for text in (fits, long, fits + " good")]
    expected = model.logits(Batch.of([Encoded(ids) for ids in ends])).softmax(-1)
    assert table["neutral"].tolist() == pytest.approx(expected[:, 2].tolist(), abs=1e-5)


def test_a_sonnet_streams_as_it_is_returned(kept):
    adapted = load_adapted("sonnets", kept["sonnets"][2])
    pieces = []
    poem = adapted.write(GIVEN.replace("\n", "\n\n  "), seed=3, show=pieces.append)
    assert len(pieces) > 5 and verse_lines("".join(pieces)) == poem.splitlines()
    assert "\n\n" not in "".join(pieces) and "\n " not in "".join(pieces)
    assert poem.startswith(GIVEN + "\n") and len(poem.splitlines()) <= 14
    assert poem == adapted.write(GIVEN, seed=3) != adapted.write(GIVEN, seed=4)


def test_decoding_stops_when_it_is_told_to():
    body, _ = load_base("gpt2-mini", depth=1)
    seen = []
    out = body.generate(torch.tensor([[1, 2]]), max_new_tokens=9, on_token=lambda t: seen.append(t) or len(seen) == 3)
    assert out[0, 2:].tolist() == [int(t) for t in seen] and len(seen) == 3


def damaged(folder, tmp_path, change: str):
    """A copy of a folder with one thing wrong."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    about = json.loads((copy / "task.json").read_text())
    if change == "no depth":
        del about["depth"]
    elif change == "negative":
        about["max_length"] = -3
    elif change == "no head":
        (copy / "head.safetensors").unlink()
    elif change == "half a head":
        content = (copy / "head.safetensors").read_bytes()
        (copy / "head.safetensors").write_bytes(content[: len(content) // 2])
    elif change == "another's head":
        from safetensors.torch import save_file

        save_file({"head.weight": torch.zeros(2, 3)}, copy / "head.safetensors")
    elif change == "other weights":
        about["depth"] = 1
    (copy / "task.json").write_text("[1" if change == "no JSON" else json.dumps(about))
    return copy


@pytest.mark.parametrize(
    ("change", "says"),
    {
        "no depth": "task.json: damaged",
        "negative": "max_length must be an integer of at least 2",
        "no head": "head.safetensors is not there",
        "half a head": "head.safetensors: damaged",
        "another's head": "does not hold this task's head",
        "other weights": "another base model",
        "no JSON": "not JSON",
    }.items(),
)
def test_a_damaged_folder_is_refused(kept, tmp_path, change, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        load_adapted("sst", damaged(kept["sst"][2], tmp_path, change))


@pytest.fixture
def call(monkeypatch):
    """Runs the command line with arguments, and returns its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gpt2lib", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code
        return 0

    return run


def test_the_command_writes_a_table(kept, tmp_path, call, capsys):
    file, out = tmp_path / "texts.txt", tmp_path / "classes.tsv"
    texts = ["a gorgeous, witty movie", 'he said "no"', "é\u2028not the end of a line"]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    folder = kept["sst"][2]
    assert call("predict", "sst", "--adapter", str(folder), "--file", str(file), "--output", str(out)) == 0
    table = pd.read_csv(out, sep="\t")
    expected = load_adapted("sst", folder).predict(texts)
    assert table["text"].tolist() == texts and table["prediction"].tolist() == expected["prediction"].tolist()
    assert table["neutral"].tolist() == pytest.approx(expected["neutral"].tolist(), abs=1e-4)
    assert call("predict", "sst", texts[0], "--adapter", str(folder)) == 0
    shown = capsys.readouterr().out
    assert f"> {expected['prediction'][0]}" in shown and f"{100 * expected['neutral'][0]:.1f} %" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("predict", "sst", ""), "text 1 is empty"),
        (("predict", "sst"), "give either TEXT or --file"),
        (("predict", "sst", "x", "--output", "o.tsv"), "--output is for --file"),
        (("write", "a line", "--seed", "99999999999999999999"), "seed must be an integer from 0"),
        (("predict", "imdb", "x"), "no task is called 'imdb'"),
        (("predict", "quora", "one text"), "quora judges two texts at a time"),
        (("predict", "sonnets", "a line"), "sonnets is written, not predicted"),
        (("write", " / "), "from 1 to 13 of them, not from 0"),
        (("write", "word " * 10_000), "the model was trained on 200 at most"),
        (("predict", "sst", "x", "--base", "untrained:gpt2-mini"), "belongs to gpt2-mini, not to untrained:gpt2-mini"),
        (("predict", "sst", __file__), "is a file: give it by --file"),
        (("predict", "sst", "caf\udce9"), "text 1 is not UTF-8"),
        (("predict", "sst", "--file", "no.txt"), "there is no file no.txt"),
        (("predict", "sst", "--file", __file__, "--output", "no/o.tsv"), "there is no folder"),
        (("predict", "sst", "x", "--adapter", "nowhere"), "nowhere holds no task.json"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_one_line(kept, call, capsys, arguments, says):
    task = "sonnets" if arguments[0] == "write" else arguments[1]
    adapter = () if "--adapter" in arguments else ("--adapter", str(kept[task][2]) if task in kept else "nowhere")
    assert call(*arguments, *adapter) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error


@pytest.mark.parametrize(
    ("content", "pairs", "says"),
    [
        ("a\n\nb", False, "f, line 2: the line is empty"),
        ("a\tb", False, "f, line 1: expected one text, without a tab"),
        ("a\tb\nc", True, "f, line 2: expected two texts with a tab"),
        ("a\t \n", True, "f, line 1: a text is empty"),
        ("", False, "f: there is no text in it"),
    ],
)
def test_a_file_with_a_wrong_line_is_refused(content, pairs, says):
    with pytest.raises(ValueError, match=says):
        texts_in(content, "f", pairs)


@pytest.mark.parametrize("folder", sorted(OWN.glob("*/")), ids=lambda folder: folder.name)
def test_what_comes_with_the_package_can_be_used(folder):
    """Each adapter is small, has a card, and fits the base that it names; it answers better than by chance."""
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6 and (folder / "README.md").is_file()
    try:
        adapted = load_adapted(folder.name)
    except FileNotFoundError as error:  # the base is a package of its own
        pytest.skip(str(error))
    assert adapted.model.body.adapter.method == "lora"
    clear = {
        "sst": (["a gorgeous, witty, seductive movie", "a dull, stupid, badly acted mess"], ("positive", "negative")),
        "cfimdb": (
            ["I loved every minute of this film.", "A boring, stupid film with bad actors; do not waste your time."],
            ("positive", "negative"),
        ),
        "quora": (
            [("How do I learn to cook?",) * 2, ("How do I learn to cook?", "Why is the sky blue?")],
            ("yes", "no"),
        ),
    }
    if folder.name in clear:
        texts, expected = clear[folder.name]
        said = adapted.predict(texts)["prediction"]
        assert all(word in answer for word, answer in zip(expected, said, strict=True))
    else:
        assert len(adapted.write(GIVEN).splitlines()) == 14
