"""GPT2 computes what transformers' GPT-2 computes, whatever the padding, and keeps its weights through files."""

import json

import pytest
import torch
import transformers
from conftest import random_model

from gpt2lib import GPT2, GPT2Config
from gpt2lib.model.config import SIZES
from gpt2lib.model.linear import Linear, linear

TOLERANCE = 1e-4


def peer(folder, n_layer, n_head, n_embd, vocab_size=307, **more) -> transformers.GPT2LMHeadModel:
    """A transformers model with large random weights, saved in `folder`."""
    torch.manual_seed(0)
    sizes = dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=vocab_size, n_positions=64)
    config = transformers.GPT2Config(**sizes, bos_token_id=306, eos_token_id=306, **more)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    model.save_pretrained(folder)
    return model


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 306, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if side != "none":
        mask[0, 12:] = 0
        mask[1, 19:] = 0
    return ids, mask.flip(1) if side == "left" else mask


@pytest.mark.parametrize("size", SIZES)
def test_logits_equal_transformers(size, tmp_path):
    """All four architectures: true widths and heads; fewer layers, so that the test fits a laptop."""
    c = SIZES[size]
    theirs = peer(tmp_path, n_layer=2 if c.n_embd > 1024 else 4, n_head=c.n_head, n_embd=c.n_embd)
    ours = GPT2.from_pretrained(tmp_path)
    for side in ("none", "right", "left"):
        ids, mask = padded(side)
        with torch.no_grad():
            position_ids = (mask.cumsum(1) - 1).clamp(min=0)
            expected = theirs(ids, attention_mask=mask, position_ids=position_ids).logits[mask.bool()]
            seen = ours.logits(ours(ids, None if side == "none" else mask))[mask.bool()]
        assert (seen - expected).abs().max() < TOLERANCE, (size, side)


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_greedy_equals_transformers_token_for_token(side, tmp_path):
    theirs = peer(tmp_path, n_layer=3, n_head=4, n_embd=64)
    ids, mask = padded(side)
    ours = GPT2.from_pretrained(tmp_path)
    new = ours.generate(ids, mask, max_new_tokens=24, temperature=0)[:, 20:]
    for row in range(len(ids)):  # one by one, so that padding cannot help them agree
        prompt = ids[row, mask[row].bool()][None]
        expected = theirs.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert torch.equal(new[row], expected[0, prompt.shape[1] :])


def test_save_pretrained_loads_in_transformers_bit_for_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 61, (2, 9))
    with torch.no_grad():
        assert (theirs(ids).logits - model.logits(model(ids))).abs().max() < TOLERANCE
    again = GPT2.from_pretrained(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("side", ["left", "right", "holes"])
def test_padding_changes_nothing(model, side):
    ids = torch.randint(1, 61, (1, 10))
    columns = {"left": slice(6, 16), "right": slice(0, 10), "holes": [0, 2, 3, 5, 6, 7, 9, 11, 12, 15]}[side]
    wide, mask = torch.zeros(1, 16, dtype=torch.long), torch.zeros(1, 16, dtype=torch.long)
    wide[:, columns], mask[:, columns] = ids, 1
    with torch.no_grad():
        out = model(wide, mask)
        assert out.isfinite().all()
        assert (out[:, columns] - model(ids)).abs().max() < 1e-5


def test_causality(model):
    ids = torch.randint(0, 61, (1, 12))
    changed = ids.clone()
    changed[0, 7] = (ids[0, 7] + 1) % 61
    with torch.no_grad():
        a, b = model(ids), model(changed)
    assert torch.equal(a[:, :7], b[:, :7]) and not torch.allclose(a[:, 7:], b[:, 7:])


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_checkpointing_changes_no_gradient(masked):
    gradients = []
    for checkpointing in (False, True):
        model = random_model().train()
        model.gradient_checkpointing = checkpointing
        ids = torch.arange(20).reshape(2, 10)
        mask = torch.ones_like(ids)
        mask[0, :3] = 0
        model(ids, mask if masked else None).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(*gradients, strict=True))


def test_bf16_stays_near_float32(model):
    ids = torch.randint(0, 61, (2, 12))
    with torch.no_grad():
        expected = model.logits(model(ids))
        seen = model.bfloat16().logits(model(ids))
    assert seen.dtype == torch.bfloat16
    assert (seen.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_tied_head_and_untied_copy(model):
    h = torch.randn(1, 3, 32)
    expected = h @ model.wte.weight.T
    assert torch.allclose(model.logits(h), expected, atol=1e-5)
    model.untie()
    assert torch.allclose(model.logits(h), expected, atol=1e-5)
    with torch.no_grad():
        model.output_weight.add_(1)
    assert not torch.allclose(model.logits(h), expected)


def test_loading_refuses_what_is_not_this_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, settings = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        GPT2.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    for change, message in (
        ({"n_layer": 3}, "h.2.ln_1.weight' is missing"),
        ({"n_layer": 1}, "no place"),
        ({"vocab_size": 60}, "asks for"),
        ({"activation_function": "gelu"}, "activation_function"),
        ({"model_type": "llama"}, "model_type"),
        ({"n_head": 5}, "does not divide"),
    ):
        config.write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=message):
            GPT2.from_pretrained(tmp_path)
    config.write_text("{ not json")
    with pytest.raises(ValueError, match=r"config\.json, line 1"):
        GPT2.from_pretrained(tmp_path)


def test_pickle_is_refused_unless_asked_for(model, tmp_path):
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="allow_pickle"):
        GPT2.from_pretrained(tmp_path)
    again = GPT2.from_pretrained(tmp_path, allow_pickle=True)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))

    class Evil:
        def __reduce__(self):
            return (print, ("this code must not run",))

    torch.save({"wte.weight": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        GPT2.from_pretrained(tmp_path, allow_pickle=True)


def test_sharded_safetensors(model, tmp_path):
    from safetensors.torch import load_file, save_file

    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, tmp_path / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    again = GPT2.from_pretrained(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(1, 49, dtype=torch.long)), "n_positions=48"),
        (lambda m: m(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 4)), "attention_mask"),
        (lambda m: GPT2Config(n_embd=30, n_head=4), "does not divide"),
        (lambda m: GPT2Config(n_layer=0), "n_layer"),
        (lambda m: GPT2Config(resid_pdrop=1.0), "resid_pdrop"),
        (lambda m: GPT2Config.from_name("gpt3"), "gpt2-medium"),
    ],
)
def test_bad_input_is_one_clear_error(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_missing_model_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        GPT2.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="hub"):
        GPT2.from_pretrained("no-such-model")
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"it has: readme\.txt"):
        GPT2.from_pretrained(tmp_path)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_reading_one_position_gives_what_all_positions_give(model, checkpointing):
    """The last block then computes that position alone; outputs and gradients stay."""
    ids = torch.randint(0, 61, (4, 11), generator=torch.Generator().manual_seed(0))
    read = torch.tensor([10, 0, 4, 7])
    model.gradient_checkpointing = checkpointing
    outputs, gradients = [model(ids)[torch.arange(4), read], model(ids, read=read)], []
    for h in outputs:
        model.zero_grad()
        h.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert (outputs[0] - outputs[1]).abs().max() < 1e-5
    assert all((a - b).abs().max() < 1e-3 * (1 + a.abs().max()) for a, b in zip(*gradients, strict=True))
    with pytest.raises(ValueError, match="read is for batches"):
        model(ids, torch.ones_like(ids), read=read)


def test_the_last_block_works_on_the_positions_that_are_read_alone(model):
    rows = []
    model.blocks[-1].mlp.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    model(torch.zeros(2, 9, dtype=torch.long), read=torch.tensor([8, 3]))
    assert rows == [1]


@pytest.mark.parametrize("shape", [(1, 24), (2, 24), (3, 5, 24), (16, 1, 24), (64, 24), (65, 24)])
def test_few_rows_are_multiplied_as_many_are(shape):
    layer = Linear(24, 10)
    x = torch.randn(shape)
    expected = layer(x)  # with gradients: torch's own way
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, atol=1e-6) and layer(x).shape == expected.shape
        assert torch.allclose(linear(x, layer.weight), expected - layer.bias, atol=1e-6)
