"""The DARTS space against published counts, its built networks, and networks with moved weights."""

import random
from itertools import permutations

import pytest
import torch
from torch import nn

from subshot.supernet.darts import DARTS_V2, OPS, DartsSpace, reordered_cells
from subshot.supernet.darts_network import STEPS, DartsCell, cell_shapes, operation
from subshot.supernet.space import crossover, from_named_choices, mutate, named_choices, sample, validated

SPACE = DartsSpace()
TINY = DartsSpace(input_size=9, classes=3, channels=2, cells=4)


def raw(rng):
    return tuple(rng.randrange(len(decision.choices)) for decision in SPACE.decisions)


@pytest.mark.parametrize(("classes", "params", "macs"), [(10, 3_349_342, 528_359_040), (100, 3_401_272, 528_410_880)])
def test_the_published_network_has_its_costs(classes, params, macs, check_costs) -> None:
    """The README says 3.3M parameters; the exact numbers are of a rebuild of the public code without auxiliary head."""
    space = DartsSpace(classes=classes)
    genotype = space.from_genotype(*DARTS_V2)
    assert (space.cost(genotype).params, space.cost(genotype).macs) == (params, macs)
    check_costs(space, genotype)


def test_costs_are_those_of_the_built_network(check_costs) -> None:
    rng = random.Random(0)
    for space in (DartsSpace(channels=32, cells=8), TINY, DartsSpace(33, 7, 3, 5), DartsSpace(16, 2, 1, 3)):
        for _ in range(4):
            genotype = raw(rng)
            check_costs(space, genotype)


def test_reductions_stand_at_the_thirds_and_double_the_channels() -> None:
    shapes = list(cell_shapes(36, 20))
    assert [index for index, shape in enumerate(shapes) if shape.reduction] == [6, 13]
    assert [index for index, shape in enumerate(shapes) if shape.after_reduction] == [7, 14]
    assert [shapes[index].channels for index in (0, 5, 6, 12, 13, 19)] == [36, 36, 72, 72, 144, 144]
    assert (shapes[0].older_channels, shapes[1].older_channels, shapes[2].older_channels) == (108, 108, 144)


def test_published_cells_round_trip() -> None:
    rng = random.Random(1)
    for _ in range(50):
        genotype = SPACE.canonical(raw(rng))
        assert SPACE.from_genotype(*SPACE.to_genotype(genotype)) == genotype
        assert from_named_choices(SPACE, named_choices(SPACE, genotype)) == genotype
    normal, reduce = SPACE.to_genotype(SPACE.from_genotype(*DARTS_V2))
    for cell, published in ((normal, DARTS_V2[0]), (reduce, DARTS_V2[1])):
        steps = [[{*other[2 * step : 2 * step + 2]} for step in range(STEPS)] for other in reordered_cells(published)]
        assert [{*cell[2 * step : 2 * step + 2]} for step in range(STEPS)] in steps
    assert SPACE.from_genotype([list(edge) for edge in DARTS_V2[0]], DARTS_V2[1]) == SPACE.from_genotype(*DARTS_V2)


def test_canonical_is_idempotent_and_keeps_the_costs() -> None:
    rng = random.Random(2)
    for _ in range(100):
        genotype = raw(rng)
        canonical = TINY.canonical(genotype)
        assert TINY.canonical(canonical) == canonical
        assert TINY.cost(canonical) == TINY.cost(genotype)


def test_every_order_of_steps_and_inputs_has_one_canonical_form() -> None:
    rng = random.Random(3)
    for _ in range(20):
        normal, reduce = SPACE.to_genotype(raw(rng))
        wanted = SPACE.from_genotype(normal, reduce)
        for other in reordered_cells(normal):
            swapped = [edge for step in range(STEPS) for edge in reversed(other[2 * step : 2 * step + 2])]
            assert SPACE.from_genotype(swapped, reduce) == wanted
    independent = tuple((op, source) for op in OPS[:4] for source in (0, 1))
    assert len(list(reordered_cells(independent))) == 24
    chain = tuple(("skip_connect", source) for step in range(STEPS) for source in (step, step + 1))
    assert list(reordered_cells(chain)) == [chain]


def copied(old, new, inputs):
    """The weights of a module, whose input channels come in the order `inputs`."""
    state = old.state_dict()
    for name, value in state.items():
        if value.dim() == 4 and inputs is not None:
            state[name] = value[:, inputs]
    new.load_state_dict(state)


def transplanted(source, target, orders):
    """`target` with the weights of `source`, whose cells are the same with the steps in another order. orders: of a
    normal cell and of a reduction, for each target step the source's."""
    target.stem.load_state_dict(source.stem.state_dict())
    older = last = None
    for old, new in zip(source.blocks, target.blocks, strict=True):
        order = orders[any(op_stride(op) == 2 for op in old.ops)]
        copied(old.older, new.older, older)
        copied(old.last, new.last, last)
        place = (0, 1, *(2 + order.index(step) for step in range(STEPS)))
        for step, old_step in enumerate(order):
            for index in (2 * old_step, 2 * old_step + 1):
                reader = place[old.inputs[index]]
                (found,) = (edge for edge in (2 * step, 2 * step + 1) if new.inputs[edge] == reader)
                new.ops[found].load_state_dict(old.ops[index].state_dict())
        channels = new.last[1].out_channels
        outputs = [channels * old_step + channel for old_step in order for channel in range(channels)]
        older, last = last, outputs
    with torch.no_grad():
        target.classifier.weight.copy_(source.classifier.weight[:, last])
        target.classifier.bias.copy_(source.classifier.bias)
    return target


def op_stride(op):
    strides = [module.stride for module in op.modules() if hasattr(module, "stride")]
    return max((stride if isinstance(stride, int) else stride[0] for stride in strides), default=1)


def test_raw_and_canonical_genotypes_compute_the_same() -> None:
    rng, moved = random.Random(4), 0
    images = torch.randn(4, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for seed in range(12):
        genotype = raw(rng)
        canonical = TINY.canonical(genotype)
        orders = []
        for cell, wanted in zip(TINY.to_genotype(genotype), TINY.to_genotype(canonical), strict=True):
            orders.append(next(order for order in permutations(range(STEPS)) if renamed(cell, order) == wanted))
        moved += any(order != (0, 1, 2, 3) for order in orders)
        torch.manual_seed(seed)
        source, target = TINY.build(genotype).double(), TINY.build(canonical).double()
        torch.testing.assert_close(transplanted(source, target, orders)(images), source(images), rtol=1e-8, atol=1e-8)
    assert moved > 4


def renamed(cell, order):
    """The cell whose step s is step order[s] of `cell`, the lower input of each step first."""
    place = (0, 1, *(2 + order.index(step) for step in range(STEPS)))
    edges = []
    for step in order:
        edges += sorted(((op, place[source]) for op, source in cell[2 * step : 2 * step + 2]), key=lambda edge: edge[1])
    return tuple(edges)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", OPS)
def test_operations_keep_the_channels_and_halve_the_map(op, stride) -> None:
    for size in (5, 8):
        x = torch.randn(2, 4, size, size)
        before = x.clone()
        assert operation(op, 4, stride)(x).shape == (2, 4, -(-size // stride), -(-size // stride))
        assert torch.equal(x, before)


def test_a_cell_by_hand() -> None:
    """The published wiring, written out for the normal cell of DARTS_V2."""
    shape = next(cell_shapes(2, 3))
    cell = DartsCell(DARTS_V2[0], shape).double().eval()
    older, last = torch.randn(2, 2, 6, 5, 5, dtype=torch.float64)
    a, b = cell.older(older), cell.last(last)
    ops = cell.ops
    two = ops[0](a) + ops[1](b)
    three = ops[2](a) + ops[3](b)
    four = ops[4](b) + a
    five = a + ops[7](two)
    torch.testing.assert_close(cell(older, last), torch.cat((two, three, four, five), dim=1))


def test_the_network_holds_its_blocks_first_and_nothing_in_place() -> None:
    network = TINY.build(TINY.from_genotype(*DARTS_V2))
    assert next(module for module in network.modules() if isinstance(module, nn.ModuleList)) is network.blocks
    assert len(network.blocks) == TINY.cells
    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))
    assert all(norm.affine for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))


def test_variation_gives_valid_canonical_genotypes() -> None:
    rng = random.Random(5)
    for _ in range(100):
        first, second = sample(SPACE, rng), sample(SPACE, rng)
        for genotype in (first, mutate(SPACE, first, rng, 0.2), crossover(SPACE, first, second, rng)):
            assert SPACE.why_invalid(genotype) is None
            assert SPACE.canonical(genotype) == genotype


def test_what_is_no_cell_is_refused_with_a_sentence() -> None:
    zeros = (0,) * 24
    assert SPACE.why_invalid(zeros) is None
    with pytest.raises(ValueError, match="a genotype has 24 indices"):
        validated(SPACE, zeros[1:])
    with pytest.raises(ValueError, match=r"normal\.0\.inputs has no choice 1; allowed: 0=0\+1"):
        validated(SPACE, (1, *zeros[1:]))
    normal, reduce = DARTS_V2
    for wrong, reason in (
        (normal[:-1], "the reduce cell needs 8"),
        ((("none", 0), *normal[1:]), "operation 'none'; allowed: max_pool_3x3"),
        ((("skip_connect", 1), *normal[1:]), "two inputs of step 0 .* they are 1 and 1"),
        ((*normal[:3], ("skip_connect", 3), *normal[4:]), "two inputs of step 1 .* 0 to 2; they are 0 and 3"),
    ):
        with pytest.raises(ValueError, match=reason):
            SPACE.from_genotype(normal, wrong)
    with pytest.raises(ValueError, match="3 or more cells"):
        DartsSpace(cells=2)
