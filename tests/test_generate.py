"""Decoding: the cache, padding, sampling and stopping change nothing that they should not."""

import pytest
import torch
from conftest import FAMILIES, difference_in_chunks, random_model

from gpt2lib.model.generate import sample


@pytest.fixture(params=FAMILIES)
def model(request):
    return random_model(family=request.param)


def prompts():
    """The same three prompts, padded on either side."""
    rows = [[5, 9, 3, 22], [17], [8, 2, 40, 41, 13, 6]]
    right, mask = torch.zeros(3, 6, dtype=torch.long), torch.zeros(3, 6, dtype=torch.long)
    left, left_mask = right.clone(), mask.clone()
    for i, row in enumerate(rows):
        right[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        left[i, -len(row) :], left_mask[i, -len(row) :] = torch.tensor(row), 1
    return rows, (right, mask), (left, left_mask)


def test_cached_batches_of_unequal_prompts_equal_uncached_single_ones(model):
    rows, right, left = prompts()
    for ids, mask in (right, left):
        out = model.generate(ids, mask, max_new_tokens=15, temperature=0)
        assert torch.equal(out[:, :6], ids)
        for i, row in enumerate(rows):
            expected = torch.tensor([row])
            for _ in range(15):
                logits = model.logits(model(expected)[:, -1])
                expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], 1)
            assert out[i, 6:].tolist() == expected[0, len(row) :].tolist()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_prompt_in_chunks_gives_what_one_pass_gives(model, size):
    _, (right, mask), (left, left_mask) = prompts()
    for ids, attention_mask in ((torch.randint(0, 61, (2, 11)), None), (right, mask), (left, left_mask)):
        assert difference_in_chunks(model, ids, attention_mask, size) < 1e-5


def test_rows_stop_at_the_end_token_and_only_there(model):
    ids = torch.tensor([[3], [4], [5], [6]])
    free = model.generate(ids, max_new_tokens=20, temperature=0)
    end = free[0, 5].item()  # a token that the first row produces
    out = model.generate(ids, max_new_tokens=20, temperature=0, eos_token_id=end)
    for row, unstopped in zip(out[:, 1:].tolist(), free[:, 1:].tolist(), strict=True):
        length = unstopped.index(end) + 1 if end in unstopped else 20
        assert row[:length] == unstopped[:length][: len(row)]
        assert set(row[length:]) <= {end}


def test_the_same_generator_gives_the_same_text(model):
    ids = torch.tensor([[3, 4]])

    def text(seed):
        return model.generate(ids, max_new_tokens=20, generator=torch.Generator().manual_seed(seed)).tolist()

    torch.manual_seed(1)
    first = text(0)
    torch.manual_seed(2)  # the global generator must not matter
    assert text(0) == first and text(1) != first


def test_sampling_follows_the_distribution_and_its_limits():
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).log_softmax(-1)
    many = logits.expand(20_000, 4)
    generator = torch.Generator().manual_seed(0)

    def frequencies(**settings):
        defaults = dict(temperature=1.0, top_k=None, top_p=None) | settings
        drawn = sample(many, **defaults, generator=generator)
        return torch.bincount(drawn, minlength=4) / len(drawn)

    p = logits.exp()
    assert (frequencies() - p).abs().max() < 0.015
    hot = (logits / 2).softmax(-1)
    assert (frequencies(temperature=2.0) - hot).abs().max() < 0.015
    top2 = torch.tensor([0, 0, p[2], p[3]]) / (p[2] + p[3])
    assert (frequencies(top_k=2) - top2).abs().max() < 0.015
    assert (frequencies(top_p=0.7) - top2).abs().max() < 0.015  # p[3] is 0.64, so one more is needed
    assert frequencies(top_p=0.6)[3] == 1
    assert frequencies(temperature=0)[3] == 1
    assert frequencies(temperature=1e-45)[3] == 1 == frequencies(temperature=1e-45, top_p=0.5)[3]
    assert (frequencies(top_k=99, top_p=1.0) - p).abs().max() < 0.015


@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.95])
def test_a_nucleus_is_the_fewest_tokens_whose_probability_reaches_p(top_p):
    generator = torch.Generator().manual_seed(0)
    p = (2 * torch.randn(500, generator=generator)).softmax(-1)
    ordered, index = p.sort(descending=True)
    nucleus = index[: int((ordered.cumsum(-1) < top_p).sum()) + 1]
    expected = torch.zeros_like(p)
    expected[nucleus] = p[nucleus] / p[nucleus].sum()
    drawn = torch.bincount(sample(p.log().expand(40_000, -1), 1.0, None, top_p, generator), minlength=500) / 40_000
    assert not drawn[expected == 0].any()
    assert (drawn - expected).abs().max() < 4 * (expected.max() / 40_000) ** 0.5  # four standard deviations


def test_generation_leaves_the_training_mode_alone(model, monkeypatch):
    model.train().generate(torch.tensor([[1]]), max_new_tokens=2)
    assert model.training

    def interrupted(h):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.generate(torch.tensor([[1]]), max_new_tokens=2)
    assert model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_generation_under_autocast_and_in_bf16(model, dtype):
    ids = torch.tensor([[1, 2, 3]])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
        assert model.to(dtype).generate(ids, max_new_tokens=4, temperature=0).shape == (1, 7)
