"""gpt2-mini, the base model that comes with the package: it loads everywhere, and knows some English."""

import json
import shutil

import pytest
import torch
from conftest import REPOSITORY

from gpt2lib import GPT2
from gpt2lib.data import Encoded
from gpt2lib.model.base import load_base, load_tokenizer
from gpt2lib.tasks import answer_ids
from gpt2lib.training import evaluate
from gpt2lib.training.objectives import LanguageModel

FOLDER = REPOSITORY / "gpt2lib" / "weights" / "gpt2-mini"
TEXT = (
    "I was really looking forward to this movie, but the plot made no sense and the acting was terrible. "
    "If you want to see a good film about the war, watch something else."
)


def perplexity(body, text: str) -> float:
    tokenizer = load_tokenizer("gpt2-mini")
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    return evaluate(LanguageModel(body), [Encoded(ids)])[0]["perplexity"]


def test_the_folder_is_small_and_whole():
    names = {path.name for path in FOLDER.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 40e6


def test_transformers_loads_it_and_computes_the_same():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours, theirs = GPT2.from_pretrained("gpt2-mini"), AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert (ours.logits(ours(ids)) - theirs.eval()(ids).logits).abs().max() < 1e-4
        written = ours.generate(ids, max_new_tokens=12, temperature=0, eos_token_id=tokenizer.eos_token_id)
        again = theirs.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    assert torch.equal(written, again)
    assert all(p.dtype == torch.float32 for p in ours.parameters())


def test_it_knows_what_an_untrained_one_does_not():
    scrambled = " ".join(sorted(TEXT.split(), key=lambda word: word[::-1]))
    mini = GPT2.from_pretrained("gpt2-mini")
    assert perplexity(mini, TEXT) < 120
    assert perplexity(mini, scrambled) > 3 * perplexity(mini, TEXT)
    torch.manual_seed(0)
    assert perplexity(load_base("untrained:gpt2-mini")[0], TEXT) > 5000


def test_random_weights_are_the_same_in_every_call():
    """Else a run on them that is resumed would go on with another base than it began with."""
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(load_base("untrained:gpt2-mini")[0].state_dict())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


def test_its_tokenizer_is_byte_level_and_suits_the_cloze():
    tokenizer = load_tokenizer("gpt2-mini")
    for text in (TEXT, "naïve – “quotes”\n\n\ttabs 😀", "no"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    no, yes = answer_ids(tokenizer)
    assert tokenizer.decode([no]) == "no" and tokenizer.decode([yes]) == "yes"
    assert tokenizer.eos_token_id == len(tokenizer) - 1


@pytest.mark.parametrize("part", ["Recipe", "Limits", "What it writes"])
def test_its_card_says_what_one_must_know(part):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"## {part}" in card and "not** OpenAI's GPT-2" in card
    assert card.count("\n- **") == 20  # continuations, unchosen


def test_its_cards_accuracies_are_those_of_the_study():
    import pandas as pd

    from gpt2lib.report.pdf import worth

    table = worth(pd.read_csv(REPOSITORY / "report" / "results" / "pretraining.csv"))
    table = table.set_index(["method", "base_model", "task"])[["accuracy", "bag_of_words_accuracy"]].stack()
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for (method, base, column), begun in {
        ("full", "gpt2-mini", "accuracy"): "| all parameters trained |",
        ("full", "untrained gpt2-mini", "accuracy"): "| all parameters trained, from random weights |",
        ("lora", "gpt2-mini", "accuracy"): "| LoRA alone |",
        ("lora", "untrained gpt2-mini", "accuracy"): "| LoRA alone, from random weights |",
        ("full", "gpt2-mini", "bag_of_words_accuracy"): "| bag of words, beside all parameters |",
        ("lora", "gpt2-mini", "bag_of_words_accuracy"): "| bag of words, beside LoRA",
    }.items():
        row = next(line for line in card.splitlines() if line.startswith(begun))
        cells = [float(cell) for cell in row.strip("|").split("|")[1:]]
        assert cells == pytest.approx(
            [100 * table[method, base, task, column] for task in ("sst", "cfimdb", "quora")], abs=0.051
        )


def test_a_tokenizers_folder_needs_no_model(tmp_path):
    """tokenizer.json alone, or GPT-2's two files, which transformers makes of it."""
    whole = load_tokenizer("gpt2-mini")
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    two = tmp_path / "two"
    two.mkdir()
    (two / "vocab.json").write_text(json.dumps(content["vocab"]), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
    (two / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    for folder in (tmp_path, two):
        assert load_tokenizer(folder)(" a fine film")["input_ids"] == whole(" a fine film")["input_ids"]
