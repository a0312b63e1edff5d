"""The NAS-Bench-101 space against published counts, its built networks, and networks with moved weights."""

import random
from itertools import combinations, permutations, product

import pytest
import torch
from torch import nn

from subshot.supernet.nasbench101 import MAX_EDGES, OPS, NasBench101Space, encode, pruned, reordered
from subshot.supernet.nasbench101_network import Cell, vertex_channels
from subshot.supernet.space import crossover, from_named_choices, mutate, named_choices, sample, validated

SPACE = NasBench101Space()
TINY = NasBench101Space(input_size=9, classes=3, channels=8, stacks=3, modules=2)
INCEPTION = [
    [0, 1, 1, 1, 0, 1, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0],
]
CONV3, CONV1, POOL = OPS
INCEPTION_OPS = ["input", CONV1, CONV3, CONV3, CONV3, POOL, "output"]
"""The example of the public README."""


def raw(rng):
    return tuple(rng.randrange(len(decision.choices)) for decision in SPACE.decisions)


def valid(rng):
    while True:
        genotype = raw(rng)
        if SPACE.why_invalid(genotype) is None:
            return genotype


def test_the_published_example_has_its_published_parameters(check_costs) -> None:
    genotype = SPACE.from_matrix(INCEPTION, INCEPTION_OPS)
    assert (SPACE.cost(genotype).params, SPACE.cost(genotype).macs) == (2_694_282, 402_002_944)
    check_costs(SPACE, genotype)


def test_costs_are_those_of_the_built_network(check_costs) -> None:
    rng = random.Random(0)
    for space in (SPACE, TINY, NasBench101Space(17, 7, 13, 2, 1)):
        for _ in range(6):
            genotype = valid(rng)
            check_costs(space, genotype)


def test_the_plainest_cell_is_a_projection(check_costs) -> None:
    genotype = SPACE.from_matrix([[0, 1], [0, 0]], ["input", "output"])
    assert SPACE.to_matrix(genotype) == (((0, 1), (0, 0)), ("input", "output"))
    assert sum(genotype) == 1
    check_costs(SPACE, genotype)


@pytest.mark.parametrize(("vertices", "channels", "cells"), [(3, 128, 7), (4, 128, 91), (5, 60, 2532)])
def test_the_number_of_cells(vertices, channels, cells) -> None:
    """7, 91 and 2,532 cells up to isomorphism have at most 3, 4 and 5 vertices (the public graph generator's counts).

    60 channels are shared evenly by 2 or 3 vertices, so that isomorphic cells build equal networks.
    """
    space = NasBench101Space(channels=channels)
    edges = list(combinations(range(vertices), 2))
    found = set()
    for chosen in product((0, 1), repeat=len(edges)):
        on = {edge for edge, bit in zip(edges, chosen, strict=True) if bit}
        matrix = tuple(tuple(int((i, j) in on) for j in range(vertices)) for i in range(vertices))
        if space.why_invalid(encode(Cell(matrix, (CONV3,) * (vertices - 2)))) is None:
            found |= {space.canonical(encode(Cell(matrix, ops))) for ops in product(OPS, repeat=vertices - 2)}
    assert len(found) == cells


def test_canonical_is_idempotent_and_keeps_costs_and_validity() -> None:
    rng = random.Random(1)
    for _ in range(200):
        genotype = raw(rng)
        canonical = SPACE.canonical(genotype)
        assert SPACE.canonical(canonical) == canonical
        assert (SPACE.why_invalid(canonical) is None) == (SPACE.why_invalid(genotype) is None)
        if pruned(genotype) is not None:
            assert SPACE.cost(canonical) == SPACE.cost(genotype)


def test_idle_vertices_move_nothing() -> None:
    """A vertex on no path, wherever it stands, with any operation and edges, leaves the canonical genotype."""
    matrix = [[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    wanted = SPACE.from_matrix(matrix, ["input", CONV1, POOL, "output"])
    dead_end = [[0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    source = [[0, 1, 0, 1, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert SPACE.from_matrix(dead_end, ["input", CONV3, CONV1, POOL, "output"]) == wanted
    assert SPACE.from_matrix(source, ["input", CONV1, CONV3, POOL, "output"]) == wanted


def test_isomorphic_cells_are_merged_where_their_channels_agree() -> None:
    """Two or three vertices that feed the output: 128 divides by 2 and not by 3."""

    def fan(*ops):
        size = len(ops) + 2
        matrix = [[0] * size for _ in range(size)]
        for vertex in range(1, size - 1):
            matrix[0][vertex] = matrix[vertex][size - 1] = 1
        return SPACE.from_matrix(matrix, ["input", *ops, "output"])

    assert fan(CONV3, POOL) == fan(POOL, CONV3)
    genotypes = {fan(*order) for order in permutations((CONV3, CONV1, POOL))}
    assert len(genotypes) == len({SPACE.cost(genotype) for genotype in genotypes}) == 6
    assert fan(CONV3, CONV3, POOL) != fan(POOL, CONV3, CONV3)


def transplanted(source, target, order):
    """`target` with the weights of `source`, whose cells are the same with the interior vertices in another order."""
    inputs = None  # for each channel that a target cell reads, the source cell's channel
    with torch.no_grad():
        target.stem.load_state_dict(source.stem.state_dict())
        for old, new in zip(source.blocks, target.blocks, strict=True):
            if isinstance(old, nn.MaxPool2d):
                continue
            starts, total = {}, 0
            for vertex in old.cell.concatenated:
                starts[vertex] = total
                total += old.channels[vertex]
            places = (0, *order, old.cell.output)
            outputs = [
                starts[places[vertex]] + channel
                for vertex in new.cell.concatenated
                for channel in range(new.channels[vertex])
            ] or list(range(new.channels[-1]))
            for vertex, old_vertex in enumerate(order, start=1):
                new.ops[vertex - 1].load_state_dict(old.ops[old_vertex - 1].state_dict())
            for name, projection in new.projections.items():
                weight = old.projections[str(places[int(name)])].conv.weight
                weight = weight if inputs is None else weight[:, inputs]
                projection.conv.weight.copy_(weight[outputs] if int(name) == new.cell.output else weight)
            inputs = outputs
        target.classifier.weight.copy_(source.classifier.weight[:, inputs])
        target.classifier.bias.copy_(source.classifier.bias)
    return target


def canonical_moves(genotype):
    return TINY.canonical(genotype) != encode(pruned(genotype))


def test_raw_and_canonical_genotypes_compute_the_same() -> None:
    """Only genotypes whose canonical form orders the vertices anew; pruning alone builds the same modules."""
    rng = random.Random(2)
    images = torch.randn(4, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = [genotype for genotype in (valid(rng) for _ in range(200)) if canonical_moves(genotype)]
    assert len(drawn) > 10
    for seed, genotype in enumerate(drawn[:20]):
        cell, canonical = pruned(genotype), pruned(TINY.canonical(genotype))
        widths = [vertex_channels(cell, 0, TINY.channels << stack) for stack in range(3)]
        wanted = [vertex_channels(canonical, 0, TINY.channels << stack) for stack in range(3)]
        order = next(
            order
            for order in permutations(range(1, cell.output))
            if reordered(cell, order) == canonical
            and all([a[v] for v in order] == list(b[1:-1]) for a, b in zip(widths, wanted, strict=True))
        )
        assert order != tuple(sorted(order))
        torch.manual_seed(seed)
        source, target = TINY.build(genotype).double(), TINY.build(TINY.canonical(genotype)).double()
        torch.testing.assert_close(transplanted(source, target, order)(images), source(images), rtol=1e-9, atol=1e-9)


def test_a_cell_by_hand() -> None:
    """One cell with every rule in it: a truncation, sums, concatenation, a projection onto the output."""
    matrix = ((0, 1, 1, 0, 1), (0, 0, 1, 0, 1), (0, 0, 0, 1, 1), (0, 0, 0, 0, 1), (0, 0, 0, 0, 0))
    space = NasBench101Space(input_size=6, channels=5, stacks=1, modules=1)
    genotype = encode(Cell(matrix, (CONV1, POOL, CONV3)))
    network = space.build(genotype).double().eval()
    x = torch.rand(2, 5, 6, 6, dtype=torch.float64)
    cell = network.blocks[0]
    assert cell.channels == (5, 2, 2, 1, 5)

    def convolved(unit, value):
        return unit.activation(unit.bn(unit.conv(value)))

    first = convolved(cell.ops[0], convolved(cell.projections["1"], x))
    second = nn.functional.max_pool2d(first + convolved(cell.projections["2"], x), 3, 1, 1)
    third = convolved(cell.ops[2], second[:, :1])
    expected = torch.cat((first, second, third), dim=1) + convolved(cell.projections["4"], x)
    torch.testing.assert_close(cell(x), expected)


def test_the_network_holds_its_blocks_first_and_nothing_in_place() -> None:
    network = SPACE.build(SPACE.from_matrix(INCEPTION, INCEPTION_OPS))
    assert next(module for module in network.modules() if isinstance(module, nn.ModuleList)) is network.blocks
    assert [isinstance(block, nn.MaxPool2d) for block in network.blocks] == [*[False] * 3, True] * 2 + [False] * 3
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.momentum, norm.eps) == (pytest.approx(0.003), 1e-5) for norm in norms)


def test_matrices_round_trip() -> None:
    rng = random.Random(3)
    for _ in range(50):
        genotype = SPACE.canonical(valid(rng))
        assert SPACE.from_matrix(*SPACE.to_matrix(genotype)) == genotype
        assert from_named_choices(SPACE, named_choices(SPACE, genotype)) == genotype
    assert pruned(encode(Cell(tuple(map(tuple, INCEPTION)), tuple(INCEPTION_OPS[1:-1])))).matrix == tuple(
        map(tuple, INCEPTION)
    )


def test_variation_gives_valid_or_clearly_invalid_genotypes() -> None:
    rng, legal = random.Random(4), 0
    for _ in range(200):
        first, second = sample(SPACE, rng), sample(SPACE, rng)
        for genotype in (first, mutate(SPACE, first, rng, 0.1), crossover(SPACE, first, second, rng)):
            assert SPACE.canonical(genotype) == genotype
            reason = SPACE.why_invalid(genotype)
            legal += reason is None
            assert reason is None or "at most 9 edges" in reason or "no path of edges" in reason
    assert legal > 300


def test_what_is_no_cell_is_refused_with_a_sentence() -> None:
    zeros = (0,) * len(SPACE.decisions)
    with pytest.raises(ValueError, match="no path of edges leads from the input"):
        validated(SPACE, zeros)
    with pytest.raises(ValueError, match="no path of edges leads from the input"):
        SPACE.decode(zeros)
    full = (1,) * 21 + (0,) * 5
    with pytest.raises(ValueError, match=f"at most {MAX_EDGES} edges after pruning; this one has 21"):
        validated(SPACE, full)
    with pytest.raises(ValueError, match="a genotype has 26 indices"):
        validated(SPACE, zeros[1:])
    with pytest.raises(ValueError, match="op 5 has no choice 3; allowed: 0="):
        validated(SPACE, (*full[:-1], 3))
    two = [[0, 1], [0, 0]]
    for matrix, ops, reason in (
        ([[0, 1]], ["input", "output"], "square matrix"),
        (two, ["input", POOL, "output"], "square matrix"),
        ([[0, 1], [1, 0]], ["input", "output"], "above the diagonal"),
        ([[0, 2], [0, 0]], ["input", "output"], "must hold 0 and 1"),
        (two, ["output", "input"], "ops must be input"),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv5x5", "output"], "ops must be input"),
    ):
        with pytest.raises(ValueError, match=reason):
            SPACE.from_matrix(matrix, ops)
    with pytest.raises(ValueError, match="5 or more channels"):
        NasBench101Space(channels=4)
