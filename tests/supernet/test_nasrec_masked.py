"""Sliced paths against the masked full-width supernet: where the public masking agrees, and where it does not."""

import random

import pytest
import torch

from subshot.supernet.nasrec import NasrecSpace, nasrec_full, nasrec_small
from subshot.supernet.nasrec_masked import MaskedSupernet
from subshot.supernet.nasrec_masked_weights import copy_weights
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import from_named_choices, named_choices

# 16, 21 and 128 are widths at which a subnet leaves a projection out, and so does 6 as a number of tokens
FULL = NasrecSpace("full", 3, 4, 4, dense_dims=(8, 16, 21, 40, 128), sparse_dims=(4, 6, 11))
# no such coincidences
PLAIN = NasrecSpace("plain", 3, 4, 3, dense_dims=(9, 20, 100), sparse_dims=(5, 12))


def both(space, masking, layer_norm):
    """A sliced supernet and a masked one with its weights, float64, at no special values."""
    sliced = NasrecSupernet(space, torch.Generator().manual_seed(0), layer_norm).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in sliced.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    masked = MaskedSupernet(space, masking, layer_norm).double()
    copy_weights(sliced, masked)
    return sliced, masked


def inputs(space, count=4):
    generator = torch.Generator().manual_seed(2)
    dense = torch.randn(count, space.dense_features, generator=generator, dtype=torch.float64)
    shape = (count, space.sparse_fields, space.embedding_dim)
    return dense, torch.randn(shape, generator=generator, dtype=torch.float64)


def difference(pair, space, chosen) -> float:
    """The largest, relative to the largest logit."""
    with torch.no_grad():
        ours, theirs = (supernet(inputs(space), chosen) for supernet in pair)
    return float((ours - theirs).abs().max() / ours.abs().max())


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("space", [FULL, PLAIN], ids=lambda space: space.name)
def test_active_masking_is_slicing(space, layer_norm) -> None:
    pair, rng = both(space, "active", layer_norm), random.Random(0)
    assert max(difference(pair, space, space.draw(rng)) for _ in range(60)) < 1e-9


def chosen(space, **common):
    """A genotype that reads several blocks, most choices the same in every block; no two widths that meet agree."""
    choices = named_choices(space, space.draw(random.Random(0)))
    for block in range(1, space.num_blocks + 1):
        every = "+".join(map(str, range(block)))
        before = str(block - 1)
        own = {"dense_op": "fc", "sparse_op": "efc", "left": before, "right": before, "sparse_dim": "5"}
        own["dense_dim"] = str(space.dense_dims[1 - block % 2])
        own |= {"dense_in": every, "sparse_in": every, "dense_to_sparse": "on", "fm": "on", **common}
        choices |= {f"b{block}.{name}": choice for name, choice in own.items()}
    return from_named_choices(space, choices)


@pytest.mark.parametrize(
    "common",
    [
        {},
        {"dense_to_sparse": "off"},
        {"fm": "off", "sparse_dim": "12"},
        {"dense_op": "gating", "left": "0"},
        {"dense_op": "gating", "right": "0"},
        {"dense_op": "sum"},
        {"dense_op": "dot_product", "dense_dim": "100"},
        {"sparse_op": "attention", "sparse_dim": "12"},
    ],
    ids=str,
)
def test_without_layer_norm_public_masking_gives_the_subnets_numbers(common) -> None:
    """At widths below the largest ones too, apart from dot_product and attention (next test)."""
    assert difference(both(PLAIN, "public", layer_norm=False), PLAIN, chosen(PLAIN, **common)) < 1e-10


@pytest.mark.parametrize(
    "space, layer_norm, common",
    [
        (PLAIN, True, {}),  # layer normalisation over the full width
        (PLAIN, False, {"dense_op": "dot_product"}),  # pairs among the tokens of the largest width
        (PLAIN, False, {"sparse_op": "attention"}),  # masked tokens among the keys
        (FULL, False, {"dense_dim": "128", "sparse_dim": "4"}),  # 128 = 8 x 16: a subnet does not project
        (FULL, False, {"dense_dim": "16", "sparse_dim": "4"}),  # 16: a subnet does not project the machine
    ],
    ids=["layer-norm", "dot-product", "attention", "merger", "machine"],
)
def test_where_public_masking_differs_from_the_subnet(space, layer_norm, common) -> None:
    genotype = chosen(space, **common)
    assert difference(both(space, "public", layer_norm), space, genotype) > 1e-3
    assert difference(both(space, "active", layer_norm), space, genotype) < 1e-10


def test_left_and_right_of_a_public_sum_meet_different_weights() -> None:
    choices = named_choices(PLAIN, chosen(PLAIN, dense_op="sum"))
    pair = both(PLAIN, "public", layer_norm=False)
    same = from_named_choices(PLAIN, choices | {"b3.left": "2", "b3.right": "2"})
    other = from_named_choices(PLAIN, choices | {"b3.left": "1", "b3.right": "2"})
    assert difference(pair, PLAIN, same) < 1e-10
    assert difference(pair, PLAIN, other) > 1e-3


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_full_path_is_not_masked(layer_norm) -> None:
    assert difference(both(PLAIN, "public", layer_norm), PLAIN, PLAIN.full_spec()) < 1e-9


@pytest.mark.parametrize("make, parameters", [(nasrec_small, 31_143_245), (nasrec_full, 171_529_127)])
def test_the_masked_supernet_is_as_large_as_published(make, parameters) -> None:
    """31.14 M and 171.5 M for Criteo."""
    with torch.device("meta"):
        masked = MaskedSupernet(make(13, 26), "public")
    assert sum(weight.numel() for weight in masked.parameters()) == parameters
