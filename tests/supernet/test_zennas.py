"""Zen-NAS's residual space against the public code's networks and numbers."""

import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from subshot.search.objectives import Limit
from subshot.search.rejection import CostLimit, RejectionSampler
from subshot.supernet.space import cardinality, mutate, named_choices, sample, validated
from subshot.supernet.zennas import PARAMS_LIMIT, SEED, ZENNETS, ZenSpace, from_structure, to_structure

SPACE = ZenSpace()
PUBLISHED = {"seed": SEED, **ZENNETS}
every_published = pytest.mark.parametrize("structure", PUBLISHED.values(), ids=PUBLISHED)


def counted(structure: str, classes: int) -> tuple[int, int, int]:
    """(parameters, parameters as the public code counts them, MACs at 32 x 32), by loops over the string."""
    words = [(name, [int(n) for n in sizes.split(",")]) for name, sizes in re.findall(r"(\w+)\(([\d,]+)\)", structure)]
    weights = normalised = macs = 0
    side = 32

    def conv(a: int, b: int, kernel: int) -> None:
        nonlocal weights, normalised, macs
        weights += a * b * kernel * kernel
        macs += a * b * kernel * kernel * side * side
        normalised += b

    for name, (a, b, stride, *rest) in words:
        if name.startswith("SuperConv"):
            conv(a, b, int(name[len("SuperConvK")]))
            continue
        inner, layers = rest
        kernels = [int(k) for k in name.removeprefix("SuperResK").split("K")]
        links = [(layer, half) for layer in range(layers) for half in range(len(kernels) - 1)]
        for link in links:
            if link == (0, 0):
                side //= stride
                conv(a, b, 1)  # the projection
                side *= stride
            if len(kernels) == 3:
                conv(a, inner, 1)
                if link == (0, 0):
                    side //= stride
                conv(inner, inner, kernels[1])
                conv(inner, b, 1)
            elif link[1] == 0:
                if link == (0, 0):
                    side //= stride
                conv(a, inner, kernels[0])
                conv(inner, b, kernels[1])
            a = b
    features = words[-1][1][1]
    weights, macs = weights + features * classes, macs + features * classes
    if side != 4:
        raise AssertionError(side)
    return weights + 2 * normalised + classes, weights + normalised + 1, macs


@every_published
def test_published_networks_are_of_the_space(structure) -> None:
    genotype = from_structure(SPACE, structure)
    assert SPACE.why_invalid(genotype) is None
    assert to_structure(SPACE, genotype) == structure


@every_published
@pytest.mark.parametrize("classes", (10, 100))
def test_costs_are_those_of_loops_over_the_public_string(structure, classes) -> None:
    space = ZenSpace(32, classes)
    cost = space.cost(from_structure(space, structure))
    params, public, macs = counted(structure, classes)
    assert (cost.params, cost.macs) == (params, macs)
    assert 0.98 < public / params < 1


@pytest.mark.parametrize("name, params, millions", [("zennet-0.5M", 0.5, 140), ("zennet-1M", 1.0, 162)])
def test_costs_are_those_of_the_public_readme(name, params, millions) -> None:
    """Its FLOPs count BatchNorm too, which here is 1 to 3 % more."""
    cost = SPACE.cost(from_structure(SPACE, ZENNETS[name]))
    assert round(cost.params / 1e6, 1) == params and cost.params <= params * 1e6
    assert 0.97 < cost.macs / (millions * 1e6) < 1


def test_random_networks_too_cost_what_the_loops_count() -> None:
    rng = random.Random(0)
    for _ in range(200):
        genotype = sample(SPACE, rng)
        cost = SPACE.cost(genotype)
        params, _, macs = counted(to_structure(SPACE, genotype), 10)
        assert (cost.params, cost.macs) == (params, macs)


def test_34_decisions() -> None:
    assert len(SPACE.decisions) == 34
    assert cardinality(SPACE) == 12 * (6 * 5 * 32 * 8) ** 4 * (6 * 6 * 32 * 8) ** 4 * 8
    assert SPACE.name == "zennas-cifar"


def test_the_decisions_of_an_absent_super_block_read_0() -> None:
    rng = random.Random(1)
    absent = 0
    for _ in range(100):
        raw = tuple(rng.randrange(len(decision.choices)) for decision in SPACE.decisions)
        canonical = SPACE.canonical(raw)
        names = named_choices(SPACE, canonical)
        for stage in range(1, 5):
            place = 1 + 8 * (stage - 1) + 4
            if names[f"stage{stage}.b.layers"] == "0":
                absent += 1
                assert canonical[place : place + 4] == (0, 0, 0, 0)
            else:
                assert canonical[place : place + 4] == raw[place : place + 4]
        assert SPACE.decode(raw) == SPACE.decode(canonical)
        assert to_structure(SPACE, raw) == to_structure(SPACE, canonical)
    assert absent > 20


def test_18_layers_are_the_most() -> None:
    """ZenNet-1M has 18 of them."""
    deepest = from_structure(SPACE, ZENNETS["zennet-1M"])
    place = [decision.name for decision in SPACE.decisions].index("stage1.a.layers")
    deeper = (*deepest[:place], deepest[place] + 1, *deepest[place + 1 :])
    with pytest.raises(ValueError, match="at most 18 layers with stem and head; this has 19"):
        validated(SPACE, deeper)


def test_a_residual_super_block_as_published() -> None:
    network = SPACE.build(from_structure(SPACE, SEED))
    assert len(network.blocks) == 4
    strides = []
    for unit in network.blocks:
        first, second = (part.conv for part in unit.main)
        assert first.kernel_size == second.kernel_size == (3, 3)
        assert second.stride == (1, 1) and unit.projection.conv.stride == first.stride
        assert unit.projection.conv.kernel_size == (1, 1) and unit.projection.conv.bias is None
        assert isinstance(unit.main[1].activation, nn.Identity)
        strides.append(first.stride[0])
    assert strides == [1, 2, 2, 2]
    assert isinstance(network.blocks[3].projection.conv, nn.Conv2d)
    assert network.stem.conv.stride == (1, 1) and network.head.conv.kernel_size == (1, 1)


def test_a_bottleneck_layer_is_two_units_and_only_the_first_unit_projects() -> None:
    network = SPACE.build(from_structure(SPACE, ZENNETS["zennet-0.5M"]))
    assert len(network.blocks) == 2 * (3 + 4 + 3 + 3 + 1)
    projected = [index for index, unit in enumerate(network.blocks) if not isinstance(unit.projection, nn.Identity)]
    assert projected == [0, 6, 14, 20, 26]
    assert [part.conv.kernel_size[0] for part in network.blocks[0].main] == [1, 5, 1]
    assert [part.conv.stride[0] for part in network.blocks[6].main] == [1, 2, 1]
    assert [part.conv.stride[0] for part in network.blocks[7].main] == [1, 1, 1]
    assert [part.conv.out_channels for part in network.blocks[0].main] == [16, 16, 168]
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 2 + 3 * 28 + 5


def test_maps_halve_three_times() -> None:
    sides: list[int] = []
    network = SPACE.build(from_structure(SPACE, SEED)).eval()
    for block in network.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sides == [32, 16, 8, 4]


def test_a_unit_is_relu_of_the_sum() -> None:
    unit = SPACE.build(from_structure(SPACE, SEED)).eval().blocks[1]
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = unit(x)
        inner = torch.relu(unit.main[0].bn(unit.main[0].conv(x)))
        expected = torch.relu(unit.main[1].bn(unit.main[1].conv(inner)) + unit.projection.bn(unit.projection.conv(x)))
    torch.testing.assert_close(found, expected)
    assert (found == 0).any() and (found > 0).any()


def test_activations_are_not_in_place_and_batch_norm_has_the_published_epsilon() -> None:
    network = SPACE.build(from_structure(SPACE, ZENNETS["zennet-1M"]))
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))
    assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


def test_the_parameter_limit_can_be_met() -> None:
    """About 1 draw in 200 is legal; of the children of legal parents, with two settings drawn anew, most are."""
    limit = CostLimit(lambda genotype: SPACE.cost(genotype).params, Limit("params", maximum=PARAMS_LIMIT))
    sampler = RejectionSampler(
        SPACE,
        lambda rng: sample(SPACE, rng),
        lambda genotype, rng, changes: mutate(SPACE, genotype, rng, changes / len(SPACE.decisions)),
        [limit],
    )
    drawn = sampler.draw(np.random.default_rng(0), 20)
    assert len(set(drawn)) == 20
    assert all(SPACE.cost(genotype).params <= PARAMS_LIMIT for genotype in drawn)
    for structure in PUBLISHED.values():
        assert sampler.is_legal(from_structure(SPACE, structure))
    rng = random.Random(0)
    children = [sampler.mutate(genotype, rng, 2) for genotype in drawn for _ in range(10)]
    assert sum(map(sampler.is_legal, children)) > len(children) / 2


# ZenNet-2M, with its one width above our grid (272) made 240: it still has four super-blocks in one stage.
ZENNET_2M = (
    "SuperConvK3BNRELU(3,32,1,1)SuperResK1K5K1(32,120,1,40,1)SuperResK1K5K1(120,176,2,32,3)"
    "SuperResK1K7K1(176,240,1,24,3)SuperResK1K3K1(240,176,1,56,3)SuperResK1K3K1(176,176,1,64,4)"
    "SuperResK1K5K1(176,216,2,40,2)SuperResK1K3K1(216,72,2,56,2)SuperConvK1BNRELU(72,512,1,1)"
)


@pytest.mark.parametrize(
    "structure, reason",
    [
        (SEED.removeprefix("SuperConvK3BNRELU(3,8,1,1)"), "a K3 stem, super-blocks and a K1 head"),
        (SEED.replace("(8,16,1,8,1)", "(8,16,1,1)"), "a K3 stem, super-blocks and a K1 head"),
        (SEED.replace("SuperResK3K3(8", "SuperResK9K9(8"), "stage1.a.kind cannot be 'k9k9'"),
        (SEED.replace("(8,16,1,8,1)", "(8,16,1,8,6)"), "stage1.a.layers cannot be '6'"),
        (SEED.replace("(16,32,2", "(24,32,2"), "this structure is not of the space"),
        (SEED.replace("SuperResK3K3(64,64,2,32,1)", ""), "this structure is not of the space"),
        (ZENNET_2M, "have unknown .*stage5"),
    ],
)
def test_structures_that_are_not_of_the_space_are_refused(structure, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        from_structure(SPACE, structure)


@pytest.mark.parametrize("input_size, classes", [(0, 10), (32, 0)])
def test_sizes_below_1_are_refused(input_size, classes) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        ZenSpace(input_size, classes)
