"""GPT2 and Llama compute what transformers' do, whatever the padding, and keep their weights through files."""

import json

import pytest
import torch
import transformers
from conftest import FAMILIES, random_model
from safetensors.torch import load_file, save_file

from gpt2lib import GPT2, GPT2Config, Llama, LlamaConfig, load_base
from gpt2lib.model.attention import KVCache
from gpt2lib.model.base import load_model
from gpt2lib.model.config import SIZES
from gpt2lib.model.linear import Linear, linear
from gpt2lib.model.llama import apply_rope, rotary_angles

TOLERANCE = 1e-4


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family):
    return random_model(family=family)


def gpt2_peer(folder, n_layer, n_head, n_embd) -> transformers.GPT2LMHeadModel:
    sizes = dict(n_layer=n_layer, n_head=n_head, n_embd=n_embd, vocab_size=307, n_positions=64)
    config = transformers.GPT2Config(**sizes, bos_token_id=306, eos_token_id=306)
    return randomised(transformers.GPT2LMHeadModel, config, folder)


def llama_peer(folder, n_layer, n_head, n_embd, n_kv_head, n_inner, **more) -> transformers.LlamaForCausalLM:
    sizes = dict(num_hidden_layers=n_layer, num_attention_heads=n_head, num_key_value_heads=n_kv_head)
    sizes |= dict(hidden_size=n_embd, intermediate_size=n_inner, vocab_size=307, max_position_embeddings=64)
    config = transformers.LlamaConfig(**sizes, bos_token_id=305, eos_token_id=306, pad_token_id=0, **more)
    return randomised(transformers.LlamaForCausalLM, config, folder)


def randomised(kind, config, folder):
    """A transformers model with large random weights, saved in `folder`."""
    torch.manual_seed(0)
    model = kind(config).eval()
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
    theirs = gpt2_peer(tmp_path, n_layer=2 if c.n_embd > 1024 else 4, n_head=c.n_head, n_embd=c.n_embd)
    equal(GPT2.from_pretrained(tmp_path), theirs)


LLAMAS = {  # heads, width, key/value heads, feed-forward width
    "smollm2-135m": (9, 576, 3, 1536),
    "smollm2-360m": (15, 960, 5, 2560),
    "tinyllama": (32, 2048, 4, 5632),
    "every head its own": (4, 64, 4, 96),
    "one for all": (4, 64, 1, 96),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", LLAMAS)
def test_llamas_logits_equal_transformers(size, tied, tmp_path):
    n_head, n_embd, n_kv_head, n_inner = LLAMAS[size]
    n_layer = 1 if n_embd > 1024 else 3
    theirs = llama_peer(tmp_path, n_layer, n_head, n_embd, n_kv_head, n_inner, tie_word_embeddings=tied, rope_theta=5e4)
    equal(Llama.from_pretrained(tmp_path), theirs)


def equal(ours, theirs):
    for side in ("none", "right", "left"):
        ids, mask = padded(side)
        with torch.no_grad():
            position_ids = (mask.cumsum(1) - 1).clamp(min=0)
            expected = theirs(ids, attention_mask=mask, position_ids=position_ids).logits[mask.bool()]
            seen = ours.logits(ours(ids, None if side == "none" else mask))[mask.bool()]
        assert (seen - expected).abs().max() < TOLERANCE, side


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_greedy_equals_transformers_token_for_token(side, family, tmp_path):
    if family == "gpt2":
        theirs = gpt2_peer(tmp_path, n_layer=3, n_head=4, n_embd=64)
    else:
        theirs = llama_peer(tmp_path, n_layer=3, n_head=9, n_embd=144, n_kv_head=3, n_inner=160)
    ids, mask = padded(side)
    ours = load_model(tmp_path)
    new = ours.generate(ids, mask, max_new_tokens=24, temperature=0)[:, 20:]
    for row in range(len(ids)):  # one by one, so that padding cannot help them agree
        prompt = ids[row, mask[row].bool()][None]
        expected = theirs.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert torch.equal(new[row], expected[0, prompt.shape[1] :])


def test_save_pretrained_loads_in_transformers_bit_for_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 61, (2, 9))
    with torch.no_grad():
        assert (theirs(ids).logits - model.logits(model(ids))).abs().max() < TOLERANCE
    again = type(model).from_pretrained(tmp_path)
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
def test_gradient_checkpointing_changes_no_gradient(masked, family):
    gradients = []
    for checkpointing in (False, True):
        model = random_model(family=family).train()
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


def test_loading_refuses_what_is_not_this_model(tmp_path):
    random_model().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, settings = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        GPT2.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    save_file(load_file(weights) | {"wte.weight": torch.full((65, 32), float("inf"))}, weights)
    with pytest.raises(ValueError, match=r"wte\.weight holds values that are no numbers"):
        GPT2.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    for change, message in (
        ({"n_layer": 3}, "h.2.ln_1.weight' is missing"),
        ({"n_layer": 1}, "no place"),
        ({"vocab_size": 60}, "asks for"),
        ({"activation_function": "gelu"}, "activation_function"),
        ({"layer_norm_epsilon": None}, r"config\.json: layer_norm_epsilon"),
        ({"n_layer": float("nan")}, r"config\.json: n_layer"),
        ({"eos_token_id": "end"}, r"config\.json: eos_token_id"),
        ({"resid_pdrop": "none"}, r"config\.json: resid_pdrop"),
        ({"model_type": "llama"}, "model_type"),
        ({"n_head": 5}, "does not divide"),
    ):
        config.write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=message):
            GPT2.from_pretrained(tmp_path)
    for content, message in ((b"{ not json", ", line 1"), (b"[]", ": no table"), (b"\xff\xfe{}", ".*not UTF-8")):
        config.write_bytes(content)
        with pytest.raises(ValueError, match=rf"config\.json{message}"):
            GPT2.from_pretrained(tmp_path)


def test_loading_refuses_what_is_not_a_llama_as_it_is_computed_here(tmp_path):
    random_model(family="llama", tie_word_embeddings=False).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    settings = json.loads(config.read_text())
    for change, message in (
        ({"num_hidden_layers": 3}, r"layers\.2\.input_layernorm\.weight' is missing"),
        ({"num_hidden_layers": 1}, "no place in this Llama"),
        ({"num_key_value_heads": 4}, "asks for"),
        ({"num_key_value_heads": 3}, "n_kv_head=3 does not divide n_head=4"),
        ({"attention_bias": True}, "attention_bias=True is not computed"),
        ({"mlp_bias": True}, "mlp_bias=True is not computed"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not computed"),
        ({"head_dim": 16}, r"head_dim=16 is not computed here; possible: \(None, 8\)"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_type='llama3' is not computed"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type='linear'"),
        ({"rope_parameters": [1]}, "no table of settings"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from the token embedding"),
        ({"model_type": "mistral"}, "model_type='mistral'"),
    ):
        config.write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=message):
            Llama.from_pretrained(tmp_path)
    del settings["intermediate_size"]
    config.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="intermediate_size missing"):
        Llama.from_pretrained(tmp_path)
    config.write_text(json.dumps(settings | {"model_type": "mamba"}))
    with pytest.raises(ValueError, match="model_type='mamba' is not computed here; possible: gpt2, llama"):
        load_base(tmp_path)


HUB = {  # config.json of HuggingFaceTB/SmolLM2-135M, as the hub has it
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 49152,
}


def test_the_hubs_llamas_are_read_as_they_are(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HUB))
    assert LlamaConfig.from_json(tmp_path / "config.json") == LlamaConfig(bos_token_id=0, eos_token_id=0)
    tiny = dict(hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=4)
    tiny |= dict(num_hidden_layers=22, rope_theta=10000.0, tie_word_embeddings=False, vocab_size=32000)
    (tmp_path / "config.json").write_text(json.dumps(HUB | tiny))
    assert LlamaConfig.from_json(tmp_path / "config.json").parameters == 1_100_048_384  # TinyLlama-1.1B


def test_settings_that_a_file_leaves_out_have_transformers_defaults(tmp_path):
    """Not SmolLM2's: a folder written before transformers 5 says nothing of what was usual then."""
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4)
    old = sizes | dict(model_type="llama", vocab_size=61, max_position_embeddings=48)
    (tmp_path / "config.json").write_text(json.dumps(old | {"rope_theta": 500.0, "eos_token_id": [5, 6]}))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    ours = LlamaConfig.from_json(tmp_path / "config.json")
    assert ours.n_kv_head == theirs.num_key_value_heads == 4
    assert ours.rms_norm_eps == theirs.rms_norm_eps and ours.tie_word_embeddings is theirs.tie_word_embeddings is False
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"] == 500.0 and ours.eos_token_id == 5
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert LlamaConfig.from_json(tmp_path / "config.json").rope_theta == 10_000.0


def test_sharded_safetensors(model, tmp_path):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, tmp_path / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    again = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("depth", [1, 2])
def test_depth_keeps_the_lower_blocks(model, depth, tmp_path):
    model.save_pretrained(tmp_path)
    ids = torch.arange(9)[None]
    lower = type(model).from_pretrained(tmp_path, depth=depth)
    x = []
    model.blocks[depth - 1].register_forward_hook(lambda block, args, output: x.append(output))
    with torch.no_grad():
        model(ids)
        assert torch.equal(lower(ids), model.ln_f(x[0]))
    assert lower.config.n_layer == depth
    lower.save_pretrained(tmp_path / "lower")  # a model like any other
    assert len(load_model(tmp_path / "lower").blocks) == depth
    for wrong in (0, 3, -1, 1.0):
        with pytest.raises(ValueError, match="possible: 1 to 2"):
            load_model(tmp_path, wrong)


@pytest.mark.parametrize("read", [None, torch.tensor([6, 2])])
def test_a_pass_that_stops_and_goes_on_is_one_pass(model, read):
    ids = torch.randint(0, 61, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model(ids, end=1)
        assert torch.equal(model(ids, hidden=hidden, first=1, read=read), model(ids, read=read))


def test_positions_by_rotation_say_only_how_far_apart_tokens_stand():
    """Rotary scores of a query and a key are the same wherever both move; a turn that keeps every length."""
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = lambda x, t: apply_rope(x, *rotary_angles(torch.tensor([[[t]]]), 8, 100.0))  # noqa: E731
    scores = [(turn(q, t + 3) * turn(k, t)).sum() for t in (0, 5, 40)]
    assert torch.allclose(torch.stack(scores), scores[0], atol=1e-5)
    assert abs(scores[0] - (turn(q, 4) * turn(k, 0)).sum()) > 1e-3
    assert torch.allclose(turn(q, 7).norm(), q.norm())


def test_the_cache_keeps_shared_keys_and_values_once():
    model = random_model(family="llama")  # four heads, two of keys and values
    cache = KVCache(9)
    with torch.no_grad():
        model(torch.arange(5)[None], cache=cache)
    assert {tuple(t.shape) for kept in cache.kept.values() for t in kept} == {(1, 2, 9, 8)}


def test_the_number_of_parameters_is_the_formulas():
    for sizes in (dict(), dict(tie_word_embeddings=False), dict(n_kv_head=4)):
        model = random_model(family="llama", **sizes)
        assert model.config.parameters == sum(p.numel() for p in model.parameters())
    assert LlamaConfig().parameters == 134_515_008  # SmolLM2-135M
    assert GPT2Config().parameters == 124_439_808


def test_a_missing_model_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        GPT2.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="hub"):
        GPT2.from_pretrained("no-such-model")
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"it has: readme\.txt"):
        GPT2.from_pretrained(tmp_path)
    random_model().config.to_json(tmp_path / "config.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle could run code")
    listed = r"config\.json, pytorch_model\.bin, readme\.txt"
    with pytest.raises(FileNotFoundError, match=rf"^\S+ holds no model\.safetensors; it has: {listed}$"):
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
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, atol=1e-6) and layer(x).shape == expected.shape
        assert torch.allclose(linear(x, layer.weight), expected - layer.bias, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(2, 24), (3, 5, 24), (1, 70, 24)], ids=str)
def test_onednns_product_has_the_gradients_of_the_linear_layer(monkeypatch, shape, bias):
    """Of the input, the weight and the bias, and their own gradients: as F.linear's, on any processor that has it."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch is built without oneDNN")
    monkeypatch.setattr("gpt2lib.model.linear.onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    x, weight, biases = torch.randn(shape), torch.randn(16, 24), [torch.randn(32)[::2], torch.randn(1).expand(16)]
    for offset in biases:  # not contiguous, which the operation itself does not see
        assert torch.allclose(linear(x, weight, offset), torch.nn.functional.linear(x, weight, offset), atol=1e-5)
    one = [torch.func.grad(lambda w, f=f: f(x, w).square().sum())(weight) for f in (linear, torch.nn.functional.linear)]
    assert torch.allclose(*one, rtol=1e-4, atol=1e-3)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        linear(x, torch.randn(16, 23))
    found = []
    bias_values = torch.randn(16)
    for function in (linear, torch.nn.functional.linear):
        given = [t.clone().requires_grad_() for t in (x, weight, *[bias_values] * bias)]
        y = function(*given)
        first = torch.autograd.grad((y.sin() * y).sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), given[:2])
        found.append([y, *first, *second])
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_frozen_layer_keeps_no_input_for_its_backward_pass(monkeypatch):
    """Which is most of what training an adapter could need memory for."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch is built without oneDNN")
    kept = []
    for faster in (True, False):
        monkeypatch.setattr("gpt2lib.model.linear.onednn_is_faster", lambda faster=faster: faster)
        for trained in (False, True):
            layer, x = Linear(24, 10).requires_grad_(trained), torch.randn(50, 24, requires_grad=True)
            with torch.autograd.graph.saved_tensors_hooks(lambda t: kept[-1].append(tuple(t.shape)) or t, lambda t: t):
                kept.append([])
                layer(x)
    assert [(50, 24) in shapes for shapes in kept] == [False, True, False, True], kept
