"""Pretraining's data: nothing lost, nothing padded, shares kept; and embeddings from counts know who is like whom."""

import numpy as np
import pytest
import torch

from gpt2lib.data import pretraining

END = 0


def test_packed_rows_are_the_documents_end_to_end():
    documents = [[1, 2, 3], [4], [5, 6]]
    rows = pretraining.pack(documents, END, length=3, rows=3, seed=0)
    stream = np.concatenate([row.ids for row in rows]).tolist()
    assert all(len(row.ids) == 3 for row in rows) and len(stream) == 9
    pieces = [[END, *document] for document in documents]
    assert sorted(stream) == sorted(
        token for piece in pieces for token in piece
    )  # each once, behind its end-of-text token
    text = " ".join(map(str, stream))
    assert all(" ".join(map(str, piece)) in text for piece in pieces)


def test_a_small_part_is_repeated_to_get_its_share():
    parts = {"large": [[1] * 50] * 40, "small": [[2] * 5]}
    rows = pretraining.mix(parts, {"large": 0.75, "small": 0.25}, END, length=20, tokens=2000, seed=0)
    small = sum(2 in row.ids for row in rows)
    assert len(rows) == 100 and small == 25


def test_every_hundredth_document_is_held_out():
    train, held_out = pretraining.every_nth_held_out([str(i) for i in range(1000)], every=100)
    assert held_out == [str(i) for i in range(99, 1000, 100)] and len(train) == 990 and not set(train) & set(held_out)


def test_embeddings_from_counts_bring_together_what_stands_in_the_same_places():
    rng = np.random.default_rng(0)
    # "1 or 2" is followed by "5", "3 or 4" by "6": 1 is like 2 and not like 3
    documents = [
        [v for pair in zip(rng.choice(s, 20), [f] * 20, strict=True) for v in pair]
        for s, f in [((1, 2), 5), ((3, 4), 6)] * 50
    ]
    vectors = pretraining.count_embeddings({"a": documents}, END, vocab_size=8, width=4)
    assert vectors.shape == (8, 4) and vectors.dtype == torch.float32
    assert vectors[1:7].pow(2).mean().sqrt().item() == pytest.approx(0.06, rel=1e-3)
    alike = torch.nn.functional.cosine_similarity(vectors[1], vectors[2], dim=0)
    unlike = torch.nn.functional.cosine_similarity(vectors[1], vectors[3], dim=0)
    assert alike > 0.9 and unlike < 0.3
    assert torch.equal(vectors, pretraining.count_embeddings({"a": documents}, END, vocab_size=8, width=4))
