"""Bad input to the command line and the library: one line that names what is wrong, and what would be right."""

import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, random_model

from gpt2lib import GPT2, GPT2Config, cli
from gpt2lib.adapters import (
    AlphaLoRA,
    GraphLoRA,
    KANLoRA,
    KronA,
    KronAB,
    LoRA,
    Spec,
    attach,
    from_peft,
    load,
    merge,
    save,
    to_peft,
)
from gpt2lib.data import Batch, Encoded, Example, load_task, pretraining
from gpt2lib.model.base import load_base, load_tokenizer
from gpt2lib.model.generate import generate
from gpt2lib.tasks import METHODS, Encoder, method_named, paraphrase_prompt
from gpt2lib.training import TrainingSettings, fit

RESULTS = str(REPOSITORY / "report" / "results")
STUDY = str(REPOSITORY / "notebooks" / "studies" / "demo.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stduy"], "No such command 'stduy'"),
        (["study"], "Missing argument 'FILE'"),
        (["study", "nowhere.toml"], "there is no study nowhere.toml"),
        (["study", STUDY, "--jobs", "0"], "Invalid value for '--jobs'"),
        (["study", STUDY, "--jobs", "many"], "'many' is not a valid integer"),
        (["study", STUDY, "--engine", "slurm"], "'slurm' is not one of 'local', 'ray'"),
        (["study", STUDY, "--address", "auto"], "--address is for --engine ray"),
        (["study", STUDY, "--nothing"], "No such option"),
        (["study", "broken.toml"], "broken.toml"),
        (["study", STUDY, "--collect", "--runs", "nowhere"], "no run of demo is finished"),
        (["report", "--study", "nothing"], "run `gpt2lib study"),
        (["report", "--study", "alpha", "--results", RESULTS], "alpha.csv: no column"),
        (["report", "--study", "benchmarks", "--results", RESULTS], "benchmarks.csv: no column"),
        (["report", "--study", "../results/mini", "--results", RESULTS], "a study must be a plain name"),
        (["data", "--source", "/nowhere"], "'/nowhere' is no folder"),
        (["data", "--source", "toy", "sstt"], "no task is called 'sstt'; possible: sst"),
        (["data", "--source", "toy", "glue/rte"], "there is no toy data for glue/rte"),
        (["score", "nowhere.parquet", "labels.csv"], "there is no file nowhere.parquet"),
        (["score", "nowhere.parquet"], "Missing argument 'LABELS'"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_the_command_line_says_what_is_wrong_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.toml").write_text("[[runs]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpt2lib", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said
    assert len(said.strip().splitlines()) == 1 and "Traceback" not in said


def test_a_fault_of_ours_does_not_look_like_a_users(monkeypatch, capsys):
    from gpt2lib.data import load

    def broken(task, source):
        return {}[task]

    monkeypatch.setattr(load, "load_task", broken)
    monkeypatch.setattr(sys, "argv", ["gpt2lib", "data", "sst"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.startswith("gpt2lib: a fault of gpt2lib, KeyError: 'sst' (gpt2lib --debug")
    assert len(said.strip().splitlines()) == 1
    monkeypatch.setattr(sys, "argv", ["gpt2lib", "--debug", "data", "sst"])
    with pytest.raises(KeyError):
        cli.main()


def ids(*rows):
    return torch.tensor(rows)


ROW = ids([1, 2, 3])
CASES = {
    "width": (lambda model: GPT2Config(n_embd=30, n_head=4), "n_head=4 does not divide n_embd=30; possible"),
    "layers": (lambda model: GPT2Config(n_layer=0), "n_layer must be an integer of at least 1"),
    "dropout": (lambda model: GPT2Config(attn_pdrop=1.0), r"attn_pdrop must be in \[0, 1\)"),
    "folder": (lambda model: GPT2.from_pretrained("./nowhere"), "there is no folder"),
    "base": (lambda model: load_base("untrained:./nowhere"), "there is no folder"),
    "too long": (lambda model: model(torch.zeros(1, 60, dtype=torch.long)), "60 tokens are more than .*n_positions=48"),
    "one text": (
        lambda model: model(ROW[0]),
        r"input_ids must be \[batch, seq\], not \[3\]; a single text is ids\[None\]",
    ),
    "one prompt": (lambda model: generate(model, ROW[0]), r"input_ids must be \[batch, seq\], not \[3\]"),
    "token": (lambda model: model(ids([1, 61])), "input_ids must be 0 to 60, and position_ids 0 to 47"),
    "position": (
        lambda model: model(ROW, position_ids=ROW + 45),
        "input_ids must be 0 to 60, and position_ids 0 to 47",
    ),
    "from nowhere": (lambda model: model(ROW, first=1), "first=1 goes on from `hidden`"),
    "from two blocks": (
        lambda model: Batch.of([Encoded([1]), Encoded([2], hidden=np.zeros((1, 32), np.float32), first=2)]),
        "goes on from the same block in all its examples",
    ),
    "no file": (lambda model: load_base("models/x.gguf"), "there is no file models/x.gguf"),
    "mask": (lambda model: model(ROW, torch.ones(1, 2)), r"attention_mask is \[1, 2\], expected \[1, 3\]"),
    "mask of a prompt": (lambda model: generate(model, ROW, torch.ones(1, 2)), r"attention_mask is \[1, 2\], expected"),
    "empty row": (lambda model: generate(model, ROW, torch.zeros(1, 3)), "at least one real token in every row"),
    "new tokens": (lambda model: generate(model, ROW, max_new_tokens=-1), "must be an integer of at least 0"),
    "room": (lambda model: generate(model, ROW, max_new_tokens=99), "n_positions"),
    "temperature": (lambda model: generate(model, ROW, temperature=-1.0), "temperature must be a number from 0"),
    "temperature nan": (lambda model: generate(model, ROW, temperature=float("nan")), "temperature must be .*not nan"),
    "top k": (lambda model: generate(model, ROW, top_k=0), "top_k must be an integer of at least 1"),
    "top p": (lambda model: generate(model, ROW, top_p=0.0), "top_p must be a number from 1e-09 to 1"),
    "rank": (lambda model: LoRA(rank=0), "rank must be an integer of at least 1"),
    "rank above": (lambda model: attach(model, LoRA(rank=33)), "rank=33 is above that of .*possible: 1 to 32"),
    "dropout of LoRA": (lambda model: LoRA(dropout=1.0), r"dropout must be in \[0, 1\)"),
    "targets": (lambda model: LoRA(targets=("q", "x")), "give a tuple of different names among q, k, v, o, up, down"),
    "no targets": (lambda model: LoRA(targets=()), "targets="),
    "a target twice": (lambda model: LoRA(targets=("q", "q")), "different names"),
    "a target as a text": (lambda model: LoRA(targets="q"), "targets must be a tuple"),
    "no gate": (
        lambda model: attach(model, LoRA(targets=("up", "gate"))),
        "a block of GPT2 has no 'gate'; possible: q, k, v, o, up, down",
    ),
    "shape": (
        lambda model: attach(model, KronA(shape=(5, 4))),
        r"\[5, 4\] does not divide a layer of shape \[32, 32\]; possible: one of \[1, 2, 4",
    ),
    "shape of nothing": (lambda model: KronA(shape=(0, 2)), "two integers of at least 1, a1 and a2"),
    "least budget": (lambda model: KronAB(budget=1), "budget must be an integer of at least 2"),
    "dropout of KronAB": (lambda model: KronAB(dropout=-1), r"dropout must be in \[0, 1\)"),
    "shape and budget": (lambda model: KronA(shape=(4, 4), budget=9), "not both"),
    "share": (lambda model: AlphaLoRA(share=1.0), r"^share must be in \[0, 1\)"),
    "every": (lambda model: AlphaLoRA(every=0), "every must be an integer of at least 1"),
    "heads": (lambda model: GraphLoRA(heads=3), r"heads=3 does not divide graph_rank=8; possible: \[1, 2, 4, 8\]"),
    "neighbours": (lambda model: GraphLoRA(top_k=0), "top_k must be an integer of at least 1"),
    "scores": (lambda model: GraphLoRA(scores="cosine"), "scores must be 'gatv2' or 'dot'"),
    "graph rank": (lambda model: attach(model, GraphLoRA(graph_rank=64)), "graph_rank=64 is above .*possible: 1 to 32"),
    "threshold": (lambda model: GraphLoRA(top_k=None, threshold=2.0), r"a cosine, in \[-1, 1\]"),
    "spline rank": (lambda model: attach(model, KANLoRA(kan_rank=33)), "kan_rank=33 is above .*possible: 1 to 32"),
    "grid": (lambda model: KANLoRA(grid=0), "grid must be an integer"),
    "twice": (lambda model: attach(attach(model, LoRA()), LoRA()), "the model already has"),
    "nothing to merge": (lambda model: merge(model), "there is no adapter to merge"),
    "no merge": (lambda model: merge(attach(model, GraphLoRA())), "cannot be merged into the weights of"),
    "nothing to save": (lambda model: save(model, "x"), "there is no adapter to save"),
    "no adapter": (lambda model: load(model, "nowhere"), "holds no adapter.json"),
    "not peft's": (lambda model: from_peft(model, "nowhere"), "peft's save_pretrained"),
    "nothing for peft": (lambda model: to_peft(model, "x"), "plain LoRA; attached is nothing"),
    "not for peft": (lambda model: to_peft(attach(model, KronA()), "x"), "plain LoRA; attached is KronA"),
    "method": (lambda model: method_named("lorra"), "no method is called 'lorra'; possible: last-linear, full, lora"),
    "task": (lambda model: load_task("imdb"), "no task is called 'imdb'; possible"),
    "budget": (lambda model: method_named("lora", model.config, -5), "budget must be an integer of at least 0, not -5"),
    "no shape to size it on": (lambda model: method_named("lora", None, 100), "give its config, too"),
    "far from the budget": (
        lambda model: method_named("graph-lora", model.config, 100),
        "graph-lora of 100 parameters: the nearest that this model has trains [0-9]{4}",
    ),
    "a list of the wrong kind": (
        lambda model: LoRA(targets=[1]),
        r"targets must be a tuple \(a text, ...\), not \[1\]",
    ),
    "a cloze of one text": (
        lambda model: paraphrase_prompt(Example("x1", "one text")),
        "example x1 has one text, and the question is about two",
    ),
    "no length": (lambda model: Encoder("sst", None, 0), "max_length must be an integer of at least 2, not 0"),
    "a negative length": (lambda model: Encoder("sonnets", None, -5), "max_length must be an integer of at least 2"),
    "nothing to score": (
        lambda model: Encoder("sonnets", load_tokenizer("gpt2-mini"), 8)(
            load_task("sonnets", "toy-few", quiet=True).dev, score_from_prompt=True
        ),
        "max_length=8 ends within the 4[0-9] tokens that are given",
    ),
    "no data": (lambda model: fit(model, [], []), "training needs examples: 0 to train on"),
    "epochs": (lambda model: TrainingSettings(epochs=0), "epochs must be an integer of at least 1"),
    "batch size": (lambda model: TrainingSettings(batch_size=0), "batch_size must be an integer of at least 1"),
    "learning rate": (lambda model: TrainingSettings(lr=0.0), "lr must be a finite number above 0, not 0.0"),
    "learning rate nan": (lambda model: TrainingSettings(lr=float("nan")), "lr must be a finite number, not nan"),
    "weight decay": (lambda model: TrainingSettings(weight_decay=-1.0), "weight_decay must be a number from 0"),
    "patience": (lambda model: TrainingSettings(patience=0), "patience must be an integer of at least 1"),
    "steps": (lambda model: TrainingSettings(max_steps=0), "max_steps must be an integer of at least 1"),
    "warmup": (lambda model: TrainingSettings(warmup=2.0), "^warmup must be a number from 0 to 1, not 2.0$"),
    "norm": (
        lambda model: TrainingSettings(max_grad_norm=0.0),
        "^max_grad_norm must be above 0 and at most inf, not 0.0$",
    ),
    "precision": (lambda model: TrainingSettings(precision="fp8"), "precision must be 'float32' or 'bf16'"),
    "corpus": (lambda model: pretraining.corpus("nowhere"), "no .txt or .txt.xz file in nowhere"),
    "no text": (lambda model: pretraining.pack([[]], 0, 8, 1, 0), "there is no text to pack"),
    "tokens": (lambda model: pretraining.mix({"a": [[1]]}, {"a": 1.0}, 0, 8, 0, 1), "tokens must be an integer of at"),
    "share of a part": (
        lambda model: pretraining.mix({"a": [[1]]}, {"a": -1.0}, 0, 8, 9, 1),
        "every part needs a positive share; 'a' has -1.0",
    ),
    "factors": (lambda model: pretraining.count_embeddings({}, 0, 8, 9), "8 tokens have no 9 factors"),
    "method of an adapter": (lambda model: Spec.from_dict({"method": "lorra"}), "no adapter method is called 'lorra'"),
    "setting of an adapter": (
        lambda model: Spec.from_dict({"method": "lora", "bank": 3}),
        "LoRA has no setting .*bank",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_library_says_what_is_wrong_in_one_line(case, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = CASES[case]
    before = {name: p.clone() for name, p in random_model().named_parameters()}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        call(model)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)
    assert not list(tmp_path.iterdir())  # nothing was written


def test_a_vocabulary_larger_than_the_models_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    load_tokenizer("gpt2-mini").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its tokenizer has 8192 tokens, its model only 61"):
        load_base(tmp_path)


def test_several_tasks_may_be_trained_by_any_method(tmp_path):
    from gpt2lib.tasks.multitask import prepare_tasks

    datas = [load_task(task, "toy-few", quiet=True) for task in ("sst", "cfimdb")]
    tokenizer = load_tokenizer("gpt2-mini")
    for name in METHODS:
        body = random_model(vocab_size=len(tokenizer))
        prepared = prepare_tasks(datas, body, tokenizer, method_named(name))
        assert any(p.requires_grad for p in prepared.parameters()), name
