"""Weights, adapters, caches and pickles, damaged at random and by rule."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path
from unittest.mock import patch

import torch
from conftest import random_model
from faults import Net
from faults_damage import damaged, damaged_json, damaged_tensors, each
from hypothesis import strategies as st

from gpt2lib import adapters
from gpt2lib.data import tokenize, toy
from gpt2lib.model.base import load_model, load_tokenizer
from gpt2lib.training.checkpoint import Checkpoint


def weights(net: Net, room: Path) -> None:
    """Models and adapters: a file of another kind is refused, and leaves the model as it was."""
    for family in ("gpt2", "llama"):
        model = random_model(family=family)
        ids = torch.randint(61, (1, 5), generator=torch.Generator().manual_seed(0))
        folder = room / family
        model.save_pretrained(folder)

        def whole(folder=folder, ids=ids) -> None:
            assert load_model(folder)(ids).shape[:2] == ids.shape

        for name, damage in (("config.json", damaged_json), ("model.safetensors", damaged_tensors)):
            path = folder / name
            valid = path.read_bytes()
            made = damage(json.loads(valid) if name.endswith("json") else valid)
            each(net, "models", path, 30, made, whole, names=str(folder))
            path.write_bytes(valid)
        adapters.attach(model, adapters.LoRA(rank=2))
        with torch.no_grad():
            for p in adapters.adapter_parameters(model).values():
                p.normal_()
        before = model(ids).clone()
        adapters.save(model, room / f"{family}-adapter")
        adapters.to_peft(model, room / f"{family}-peft")

        def attached(load, folder, model=model, ids=ids, before=before) -> None:
            try:
                load(model, folder)
            except Exception:
                assert torch.equal(model(ids), before), "the adapter that was attached is gone"
                raise
            finally:  # back to the one that was attached
                good = room / f"{type(model).__name__.lower()}-good"
                adapters.load(model, good)

        shutil.copytree(room / f"{family}-adapter", room / f"{type(model).__name__.lower()}-good")
        for end, load, files in (
            ("adapter", adapters.load, ("adapter.json", "adapter.safetensors")),
            ("peft", adapters.from_peft, ("adapter_config.json", "adapter_model.safetensors")),
        ):
            folder = room / f"{family}-{end}"
            for name in files:
                path = folder / name
                valid = path.read_bytes()
                made = damaged_json(json.loads(valid)) if name.endswith("json") else damaged_tensors(valid)
                each(net, "adapters", path, 20, made, lambda a=attached, b=load, c=folder: a(b, c), names=str(folder))
                path.write_bytes(valid)


def caches(net: Net, room: Path) -> None:
    """What a cache holds may be damaged by anybody; it is made again, and the result is the right one."""
    texts, tokenizer = ["A fine film .", "Dull ."], load_tokenizer("gpt2-mini")
    with patch.dict(os.environ, {"GPT2LIB_CACHE": str(room)}):
        ids = tokenize(texts, tokenizer)
        (path,) = (room / "tokens").iterdir()

        def same() -> None:
            assert tokenize(texts, tokenizer) == ids

        def attempt(content: bytes) -> None:
            path.write_bytes(content)
            net.attempt("caches", f"tokens: {content[:80]}", same, may_refuse=False)

        net.draw(20, damaged(path.read_bytes()), attempt)
    folder = toy.write(room / "toy", 0.02)
    good = {file.name: file.read_bytes() for file in folder.iterdir()}

    def again() -> None:
        assert {file.name: file.read_bytes() for file in toy.write(folder, 0.02).iterdir()} == good

    def spoil(change: tuple[str, bytes]) -> None:
        (folder / change[0]).write_bytes(change[1])
        net.attempt("caches", f"toy data: {change[0]}", again, may_refuse=False)

    net.draw(10, st.tuples(st.sampled_from(sorted(good)), st.binary(max_size=50)), spoil)
    tokenizer_folder = room / "tokenizer"
    tokenizer.save_pretrained(tokenizer_folder)
    path = tokenizer_folder / "tokenizer.json"
    small = json.loads(path.read_text())
    small["model"]["merges"], small["model"]["vocab"] = [], dict(list(small["model"]["vocab"].items())[:300])

    def load() -> None:
        load_tokenizer(tokenizer_folder)("a text")

    (tokenizer_folder / "config.json").write_text('{"model_type": "gpt2"}')
    each(net, "caches", path, 15, damaged_json(small), load, names=str(tokenizer_folder))


class Malicious:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.unlink, (str(self.victim),)


def pickles(net: Net, room: Path) -> None:
    """Checkpoints: damaged, junk, and such as would run a command."""
    victim, inside = room.parent / "victim", room / "run"
    victim.touch()
    checkpoint = Checkpoint(inside, {"settings": "x"}, writes=True)
    checkpoint.save(trained={"a": torch.zeros(3)}, progress={"step": 1})
    path = inside / "checkpoint.pt"
    valid = path.read_bytes()

    def load() -> None:
        state = checkpoint.load()
        assert victim.exists() and set(state) == {"trained", "progress", "identity"}

    odd = io.BytesIO()
    torch.save(["no", "dictionary"], odd)
    others = [pickle.dumps(Malicious(victim)), pickle.dumps(1), odd.getvalue()]
    each(net, "pickles", path, 30, st.one_of(damaged(valid), st.sampled_from(others)), load)
    for content in others:
        path.write_bytes(content)
        net.attempt("pickles", f"checkpoint.pt: {content[:60]}", load, names=path.name, watch=room)
