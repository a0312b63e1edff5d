"""Chains as data: canonical runs, groups, restrictions, channel rounding."""

import itertools

import pytest

from subshot.supernet.chain import IDENTITY, ChainSpace, Op, place_layers, scaled
from subshot.supernet.cost import Conv
from subshot.supernet.space import enumerate_genotypes


def toy(runs=((1, 4),)) -> ChainSpace:
    stem = (Op("stem", (Conv(3, 4, 3, 2),)),)
    conv = tuple(Op(f"conv{k}", (Conv(4, 4, k),)) for k in (1, 3))
    shapes = [(f"layer{i}", 4, 4, 1, (*conv, Op(IDENTITY, ()))) for i in range(5)]
    head = Op("head", (Conv(4, 8),))
    return ChainSpace("toy", stem, place_layers(shapes, stem, 9), head, 3, 9, "relu", True, runs)


def test_canonical_forms_are_the_distinct_networks() -> None:
    """Inside a run, what counts is the order of what is left when the identities are taken out."""
    space = toy()
    networks: dict[tuple, set] = {}
    for genotype in enumerate_genotypes(space):
        inside = tuple(gene for gene in genotype[1:4] if gene != 2)
        networks.setdefault((genotype[0], inside, genotype[4]), set()).add(space.canonical(genotype))
    assert all(len(forms) == 1 for forms in networks.values())
    forms = set().union(*networks.values())
    assert len(forms) == len(networks) == 3 * (1 + 2 + 4 + 8) * 3
    product = {sum(parts, ()) for parts in itertools.product(*space.groups)}
    assert product == forms


def test_layers_know_the_map_they_see() -> None:
    space = toy()
    assert [layer.size for layer in space.layers] == [5] * 5
    assert space.features == 8 and space.decode((0,) * 5).features == 8
    # stem 3 x 4 x 9 on 5 x 5, head 4 x 8 on 5 x 5, classifier 8 x 3
    assert space.fixed_cost.macs == 25 * 108 + 25 * 32 + 24
    assert space.fixed_cost.params == (108 + 8) + (32 + 16) + (24 + 3)
    assert space.fixed_cost.activation_elements == 100 + 200 + 3


def test_restricting_without_identities_ends_the_exchange() -> None:
    space = toy()
    fewer = space.restricted("fewer", {0: ("conv3",), 4: ("conv1", "conv3")})
    assert [len(d.choices) for d in fewer.decisions] == [1, 3, 3, 3, 2]
    assert fewer.interchangeable == space.interchangeable and fewer.name == "fewer"
    fixed = space.restricted("fixed", {1: (IDENTITY,), 2: ("conv1",), 3: ("conv1",)})
    assert fixed.interchangeable == ()
    assert fixed.canonical((0,) * 5) == (0,) * 5
    with pytest.raises(AssertionError):
        space.restricted("none", {0: ("conv9",)})


def test_scaled_channels() -> None:
    assert [scaled(c, 1.0) for c in (3, 17, 40)] == [3, 17, 40]
    for channels in range(4, 200, 7):
        for width in (0.1, 0.25, 0.5, 0.75, 1.5):
            value = scaled(channels, width)
            assert value % 4 == 0 and value >= 4
            assert abs(value - channels * width) <= 2 or value == 4
