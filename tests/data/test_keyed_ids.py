"""The prepared KeyedJaggedTensor against the one that torchrec works out from lengths alone."""

import pytest
import torch
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from subshot.data.batch import ClickBatch
from subshot.data.keyed_ids import keyed_ids

KEYS = ["C1", "C2", "C3"]


def _ids(samples: int) -> torch.Tensor:
    return torch.randint(0, 20, (3, samples), generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [1, 5, 64])
def test_equal_to_what_torchrec_computes(samples: int) -> None:
    ids = _ids(samples)
    known = keyed_ids(KEYS, ids)
    plain = KeyedJaggedTensor(keys=KEYS, values=ids.flatten(), lengths=torch.ones(3 * samples, dtype=torch.int32))
    assert known.stride() == plain.stride() == samples
    assert torch.equal(known.offsets(), plain.offsets())
    assert known.length_per_key() == plain.length_per_key()
    assert known.offset_per_key() == plain.offset_per_key()
    for key, expected in plain.to_dict().items():
        assert torch.equal(known[key].values(), expected.values())
        assert torch.equal(known[key].lengths(), expected.lengths())
    tables = EmbeddingBagCollection(
        tables=[EmbeddingBagConfig(name=key, embedding_dim=4, num_embeddings=20, feature_names=[key]) for key in KEYS]
    )
    assert torch.equal(tables(known).values(), tables(plain).values())


def test_the_ids_are_not_copied_and_lengths_are_shared() -> None:
    ids = _ids(8)
    first, second = keyed_ids(KEYS, ids), keyed_ids(KEYS, _ids(8) + 1)
    assert first.values().data_ptr() == ids.data_ptr()
    assert first.lengths().data_ptr() == second.lengths().data_ptr()


def test_a_row_a_key() -> None:
    with pytest.raises(ValueError, match="ids has 3 rows for 2 keys"):
        keyed_ids(KEYS[:2], _ids(4))


def test_a_batch_moves_to_a_device_whole() -> None:
    batch = ClickBatch(torch.ones(4, 2), keyed_ids(KEYS, _ids(4)), torch.zeros(4))
    moved = batch.to("meta")
    assert len(moved) == 4
    assert moved.dense.is_meta and moved.labels.is_meta and moved.sparse.values().is_meta
    same = batch.to("cpu")
    assert same.dense is batch.dense and same.sparse.values() is batch.sparse.values()
    assert same.sparse.keys() == KEYS and same.sparse.stride() == 4
