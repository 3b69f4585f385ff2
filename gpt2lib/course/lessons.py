"""What the adapters' notebooks share: the properties that every adapter must have, checked on a real base, and a fair
comparison of methods on one task."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from gpt2lib.adapters import AlphaLoRA, Spec, adapter_parameters, attach, load, merge, save
from gpt2lib.adapters.alpha_lora import BETAS
from gpt2lib.common.machine import autocast
from gpt2lib.course.verdicts import Verdicts
from gpt2lib.data.load import TaskData
from gpt2lib.model.base import load_base
from gpt2lib.tasks.method import Trainable
from gpt2lib.tasks.prepare import Encoder, prepare
from gpt2lib.training import TrainingSettings, evaluate, fit, trained_parameters
from gpt2lib.training.objectives import merit
from gpt2lib.training.optimizer import AdamW


def alphas_of_noise(spec: AlphaLoRA, moves: int, rows: int = 10_000) -> np.ndarray:
    """Where the rows' alphas would be after so many of alpha-LoRA's updates on gradients that are nothing but noise."""
    alpha = torch.nn.Parameter(torch.full((rows,), float(spec.initial)))
    optimizer = AdamW([alpha], lr=spec.lr_alpha, betas=BETAS)
    draws = torch.Generator().manual_seed(0)
    for _ in range(moves):
        alpha.grad = torch.randn(rows, generator=draws)
        optimizer.step()
    return alpha.detach().numpy()


def check_properties(spec: Spec, base_model: str, check: Verdicts) -> None:
    """Attach, train for 20 steps on random tokens, and check each property that an adapter must have."""
    body, _ = load_base(base_model)
    torch.manual_seed(0)
    ids = torch.randint(0, body.config.vocab_size, (3, 24))
    later = ids.clone()
    later[:, 16] = (ids[:, 16] + 1) % body.config.vocab_size

    @torch.no_grad()
    def run(model, ids=ids, mask=None):
        return model.eval()(ids, mask)

    before = run(body)
    check.close("attaching changes no output", run(attach(body, spec)), before, 2e-5, "the factor that starts at 0")
    frozen = {name: p.clone() for name, p in body.named_parameters() if not p.requires_grad}
    optimizer = AdamW([p for p in body.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        body.train()(ids).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    same = all(torch.equal(p, frozen[name]) for name, p in body.named_parameters() if name in frozen)
    check("after 20 steps the base's weights are the same bits", same)
    trained = run(body)
    check("after 20 steps the outputs have changed", (trained - before).abs().max().item() > 1e-3)

    seen = run(body, later)[:, :16]
    check.close("a changed token changes no earlier output", seen, trained[:, :16], 1e-5, "causality")
    filler = torch.zeros(3, 5, dtype=torch.long)
    ones = torch.ones_like(ids)
    left = run(body, torch.cat([filler, ids], 1), torch.cat([filler, ones], 1))[:, 5:]
    right = run(body, torch.cat([ids, filler], 1))[:, :24]
    check.close("padding on the left changes nothing", left, trained, 1e-3)
    check.close("padding on the right changes nothing", right, trained, 1e-3)
    expected = ids
    for _ in range(6):
        expected = torch.cat([expected, body.logits(run(body, expected)[:, -1]).argmax(-1, keepdim=True)], 1)
    cached = body.generate(ids, max_new_tokens=6, temperature=0)
    check("generation with the cache gives the same tokens as without", torch.equal(cached, expected))

    gradients = []
    for body.gradient_checkpointing in (False, True):
        body.zero_grad()
        body(ids).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in adapter_parameters(body).values()]))
    close = (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
    check("gradient checkpointing gives the same gradients", bool(close), (gradients[0] - gradients[1]).abs().max())
    with autocast(ids.device, "bf16"):
        rounded = run(body)
    error = ((rounded.float() - trained).abs().mean() / trained.abs().mean()).item()
    check("in bf16 the outputs are the same within 5 %", error < 0.05, error)

    with tempfile.TemporaryDirectory() as folder:
        save(body, folder)
        again, _ = load_base(base_model)
        check.close("saved and loaded on a fresh base it gives the same outputs", run(load(again, folder)), trained, 0)
    exact = run(again.double())
    try:
        merge(again)
    except ValueError:
        check.close("it cannot be merged, says so, and is left as it was", run(again), exact, 0)
    else:
        check.close("merging is exact in float64", run(again), exact, 1e-10, "merged()")


def comparison(
    methods: dict[str, str | Trainable],
    rates: Sequence[float] | dict[str, float],
    data: TaskData,
    base_model: str,
    settings: TrainingSettings,
    hooks: dict[str, list] | None = None,
    max_length: int | None = None,
    depth: int = 0,
) -> tuple[dict, pd.DataFrame]:
    """Train each method on the same task and base, with the same seed; the models, on the CPU to be looked at, and a
    table of their dev results.

    rates: learning rates, of which each method takes its best on dev (of equals, that of the smaller loss); or one for
    each by name. A rate with which a method diverges is out, unless it is the only one. A method whose best rate is an
    end of the list is named. hooks: by name, where each has one rate. max_length: tokens of a text, as many as the
    model takes by default. depth: so many of the base's blocks are kept; 0: all. Raises ValueError without a rate, and
    for hooks that would see several runs.
    """
    tried = {name: [rates[name]] if isinstance(rates, dict) else list(rates) for name in methods}
    for name, of_one in tried.items():
        if not of_one or (len(of_one) > 1 and hooks):
            raise ValueError(
                f"{len(of_one)} learning rates for {name}: give one at least, and one alone where hooks watch"
            )
    models, rows = {}, {}
    runs = tqdm([(name, lr) for name, of_one in tried.items() for lr in of_one], unit="run", leave=False)
    for name, lr in runs:
        runs.set_description(f"{name}, lr {lr:g}")
        body, tokenizer = load_base(base_model, depth=depth or None)
        encoder = Encoder(data.name, tokenizer, min(max_length or body.config.n_positions, body.config.n_positions))
        torch.manual_seed(settings.seed)
        model = prepare(data, body, tokenizer, methods[name])
        train, dev = encoder(data.train), encoder(data.dev)
        try:
            fit(model, train, dev, replace(settings, lr=lr), hooks=(hooks or {}).get(name, []), quiet=True)
        except FloatingPointError:
            if name not in rows and lr == tried[name][-1]:
                raise
            continue
        trained = trained_parameters(body) or trained_parameters(model)  # without the head that all have
        row = {"trained": sum(p.numel() for p in trained.values()), "lr": lr} | evaluate(model, dev)[0]
        if name not in rows or merit(model, row) > merit(model, rows[name]):
            models[name], rows[name] = model.cpu(), row
    ranges = {name: {min(of_one), max(of_one)} for name, of_one in tried.items() if len(of_one) > 1}
    if ends := [name for name, row in rows.items() if row["lr"] in ranges.get(name, ())]:
        print(f"best at an end of the rates that were tried, so perhaps better beyond: {', '.join(ends)}")
    return models, pd.DataFrame(rows).T.astype({"trained": int})
