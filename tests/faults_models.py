"""Settings of wrong sizes and types, and every adapter on every family in every precision."""

import tempfile
from dataclasses import fields
from pathlib import Path

import torch
from conftest import FAMILIES, random_model
from faults import Net
from hypothesis import strategies as st

from gpt2lib import GPT2Config, LlamaConfig, theory
from gpt2lib.adapters import SPECIFICATIONS, adapter_parameters, attach, load, merge, save
from gpt2lib.data import Encoded
from gpt2lib.model.generate import generate
from gpt2lib.tasks import Encoder
from gpt2lib.training import TrainingSettings, fit
from gpt2lib.training.objectives import LanguageModel

STRANGE = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    5,
    10**30,
    -0.5,
    0.0,
    1e-45,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
]
STRANGE += [
    "",
    "x",
    "q",
    "dot",
    "bf16",
    [],
    (),
    ("q", "q"),
    ("gate",),
    (1, 0),
    (0, 1),
    (-1, 2),
    (0, 99),
    [1.5],
    {},
    b"x",
]
CAN_MERGE = {"lora", "krona", "alpha-lora"}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def models(net: Net) -> None:
    settings(net)
    matrix(net)


def settings(net: Net) -> None:
    """Any setting may be given any value: it is refused by its name, or the model works with it."""
    rows = [Encoded([1, 2, 3, 4, 5])] * 4
    ids = torch.tensor([[1, 2, 3]])

    def adapted(given: tuple) -> None:
        method, name, value = given

        def call() -> None:
            model = attach(random_model(family="llama"), SPECIFICATIONS[method](**{name: value}))
            with torch.no_grad():
                for p in adapter_parameters(model).values():
                    p.add_(0.01)
            h = model(ids)
            assert h.isfinite().all()
            h.sum().backward()

        net.attempt("settings", f"{method} {name}={value!r}", call, names=plain(name))

    places = [(name, field.name) for name, spec in SPECIFICATIONS.items() for field in fields(spec)]
    net.draw(150, st.tuples(st.sampled_from(places), st.sampled_from(STRANGE)).map(lambda p: (*p[0], p[1])), adapted)

    def trained(given: tuple) -> None:
        name, value = given

        def call() -> None:
            how = TrainingSettings(**{"epochs": 1, "batch_size": 2, "max_steps": 2} | {name: value})
            fit(LanguageModel(random_model(n_layer=1)), rows, rows, how, quiet=True)

        net.attempt("settings", f"TrainingSettings {name}={value!r}", call, names=plain(name))

    names = [field.name for field in fields(TrainingSettings)]
    usual = st.sampled_from([v for v in STRANGE if v not in (10**30, 1e308)])  # as epochs they would take for ever
    net.draw(60, st.tuples(st.sampled_from(names), usual), trained)

    def generated(given: tuple) -> None:
        name, value = given

        def call() -> None:
            out = generate(random_model(), ids, **{"max_new_tokens": 4} | {name: value})
            assert out.shape[0] == 1 and (out >= 0).all() and (out < 61).all()

        net.attempt("settings", f"generate {name}={value!r}", call, names=plain(name))

    names = ["max_new_tokens", "temperature", "top_k", "top_p", "eos_token_id"]
    net.draw(50, st.tuples(st.sampled_from(names), st.sampled_from(STRANGE)), generated)

    def shaped(given: tuple) -> None:
        (config, name), value = given
        small = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 11, "n_positions": 16}
        small |= {"n_kv_head": 1, "n_inner": 8} if config is LlamaConfig else {}

        def call() -> None:
            made = config(**small | {name: value})
            assert made.parameters > 0

        net.attempt("settings", f"{config.__name__} {name}={value!r}", call, names=plain(name))

    places = [(config, field.name) for config in (GPT2Config, LlamaConfig) for field in fields(config)]
    net.draw(40, st.tuples(st.sampled_from(places), st.sampled_from(STRANGE)), shaped)

    def lengths(value) -> None:
        net.attempt("settings", f"max_length={value!r}", lambda: Encoder("sst", None, value), names="max_length")

    net.draw(10, st.sampled_from(STRANGE), lengths)

    def theoretical(given: tuple) -> None:
        name, value = given
        usual = {"alpha": 1.0, "m2": 1.0, "c": 0.5, "w2": 1.0, "eta": 1.0, "gamma": 1.0}

        def call() -> None:
            assert 0 <= theory.accuracy(**usual | {name: value}) <= 1

        net.attempt("settings", f"theory.accuracy {name}={value!r}", call, names=plain(name))

    names, numbers = ["alpha", "m2", "c", "w2", "eta", "gamma"], [v for v in STRANGE if isinstance(v, int | float)]
    net.draw(30, st.tuples(st.sampled_from(names), st.sampled_from(numbers)), theoretical)


def plain(name: str) -> str:
    """What of a setting's name an error must say: some name a group of settings by its common word."""
    return name.split("_")[-1] if name.startswith("n_") else name


def matrix(net: Net) -> None:
    """Adapters, families, precisions, devices: the forward pass is finite, gradients reach the adapter, what is saved
    loads to the same bits, a merged model computes what the adapted one did, and generates."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    cells = [(m, f, d, on) for m in SPECIFICATIONS for f in FAMILIES for d in DTYPES for on in devices]
    wanted = net.part(len(cells))
    with tempfile.TemporaryDirectory() as folder:
        for number, (method, family, dtype, device) in enumerate(cells[:: max(1, len(cells) // wanted)]):
            for order in ("cast, then attach", "attach, then cast"):
                what = f"{method}, {family}, {str(dtype).removeprefix('torch.')}, {device}: {order}"
                place = Path(folder) / f"{number}-{order[0]}"
                net.attempt(
                    "matrix",
                    what,
                    lambda m=method, f=family, d=dtype, o=device, c=order, p=place: cell(m, f, d, o, c, p),
                    may_refuse=False,
                )


def cell(method: str, family: str, dtype: torch.dtype, device: str, order: str, folder: Path) -> None:
    ids = torch.randint(1, 61, (2, 9), generator=torch.Generator().manual_seed(0)).to(device)
    base = random_model(family=family).to(device)
    model = random_model(family=family).to(device)
    torch.manual_seed(0)
    if order.startswith("cast"):
        attach(model.to(dtype), SPECIFICATIONS[method]())
    else:
        attach(model, SPECIFICATIONS[method]()).to(dtype)
    tolerance = {torch.float16: 0.05, torch.bfloat16: 0.3}.get(dtype, 1e-4)
    plain = base.to(dtype)(ids).double()
    assert (model(ids).double() - plain).abs().max() <= tolerance, "an adapter changes nothing when it is attached"
    with torch.no_grad():
        for p in adapter_parameters(model).values():
            p.add_(0.05 * torch.randn_like(p))
    h = model(ids)
    assert h.isfinite().all() and (h.double() - plain).abs().max() > 0
    h.float().pow(2).sum().backward()
    gradients = [p.grad for p in adapter_parameters(model).values() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients) and any(g.abs().max() > 0 for g in gradients)
    save(model, folder)
    again = load(random_model(family=family).to(device).to(dtype), folder)
    if order.startswith("attach"):
        again.to(dtype)
    assert torch.equal(again(ids), model(ids)), "what was saved is not what was loaded"
    out = generate(model, ids, max_new_tokens=3, temperature=0)
    assert out.shape == (2, 12)
    if method in CAN_MERGE:
        before = model(ids).double()
        merged = merge(model)(ids).double()
        assert (merged - before).abs().max() <= tolerance, f"merged: off by {(merged - before).abs().max():.3g}"
