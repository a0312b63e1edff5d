"""Every candidate's mean eigenvalue of J J^T, for every construction, and the traps that the constructions avoid."""

import functools
import itertools
import zlib

import pytest
import torch

from subshot.supernet import SPACES
from subshot.supernet.isometry import CONSTRUCTIONS, initialise, initialise_block, orthogonal, tap_fractions
from subshot.supernet.mobilenetv2 import mbconv
from subshot.supernet.network import Block, ChainSupernet
from subshot.supernet.spectrum import moments

BAND = 0.05
ISOMETRIC = ("delta", "blend", "shift")
ACTIVATIONS = ("space", "scaled_tanh")
COMBINATIONS = tuple(itertools.product(ISOMETRIC, ACTIVATIONS))


def seed(number=0):
    return torch.Generator().manual_seed(number)


def distinct_modules(name):
    """Each (operation, map size) of a space once: two layers that agree in both are initialised by the same code."""
    space = SPACES[name](16, 10, 0.25, 1)
    places = {(op, layer.size): layer for layer in space.layers for op in layer.ops if op.main}
    return space, [(op, size, layer.in_channels) for (op, size), layer in places.items()]


@functools.cache
def phi_of(op, size, channels, activation, construction):
    block, generator = Block(op, activation).eval(), seed()
    initialise_block(block, size, construction, generator)
    return moments(block, (channels, size, size), generator, 200_000)[0]


@pytest.mark.parametrize("name", SPACES)
def test_every_candidate_has_phi_1(name) -> None:
    """A quarter of the modules, constructions and activations taking turns; test_all_combinations is everything."""
    space, modules = distinct_modules(name)
    for op, size, channels in modules:
        draw = zlib.crc32(f"{op} {size}".encode())
        if draw % 4:
            continue
        construction, activation = COMBINATIONS[draw // 4 % len(COMBINATIONS)]
        used = space.activation if activation == "space" else activation
        phi = phi_of(op, size, channels, used, construction)
        assert abs(phi - 1) <= BAND, (op.name, size, channels, construction, used, phi)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("construction", ISOMETRIC)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_combinations(name, construction, activation) -> None:
    space, modules = distinct_modules(name)
    used = space.activation if activation == "space" else activation
    phis = {(op.name, size, channels): phi_of(op, size, channels, used, construction) for op, size, channels in modules}
    assert not {key: phi for key, phi in phis.items() if abs(phi - 1) > BAND}


def test_kaiming_and_independent_leave_the_band() -> None:
    """So the band is no accident. A residual block of unit branch has phi 2 without alignment."""
    assert abs(phi_of(mbconv(8, 8, 3, 6, 1), 8, 8, "relu6", "kaiming") - 1) > 2 * BAND
    assert abs(phi_of(mbconv(8, 16, 5, 3, 2), 8, 8, "relu6", "kaiming") - 1) > 2 * BAND
    assert phi_of(mbconv(8, 8, 3, 6, 1), 8, 8, "relu6", "independent") == pytest.approx(2.0, abs=0.15)


def test_a_linear_delta_block_is_exactly_orthogonal() -> None:
    """Without activations the residual is a reflection and a plain block keeps every norm."""
    for op in (mbconv(8, 8, 5, 3, 1), mbconv(8, 12, 3, 6, 1)):
        block = Block(op, "linear").eval()
        initialise_block(block, 3, "delta", seed())
        x = torch.randn(8, 3, 3)
        jacobian = torch.func.jacrev(block)(x[None]).detach().reshape(-1, x.numel())
        values = torch.linalg.svdvals(jacobian)
        assert float(values.max() / values.min()) == pytest.approx(1.0, abs=0.03)


def test_kernels_differ_under_blend_and_not_under_delta() -> None:
    x = torch.randn(2, 8, 8, 8)
    outputs = {}
    for construction in ("delta", "blend", "shift"):
        for kernel in (3, 5, 7):
            block = Block(mbconv(8, 8, kernel, 3, 1), "relu6").eval()
            initialise_block(block, 8, construction, seed())
            # The same pointwise weights, so that only the depthwise kernel differs.
            twin = Block(mbconv(8, 8, 3, 3, 1), "relu6").eval()
            initialise_block(twin, 8, construction, seed())
            for place in (0, 2):
                block.main[place].conv.weight.data.copy_(twin.main[place].conv.weight)
            outputs[construction, kernel] = block(x).detach()
    for first, second in itertools.combinations((3, 5, 7), 2):
        torch.testing.assert_close(outputs["delta", first], outputs["delta", second])
        for construction in ("blend", "shift"):
            gap = (outputs[construction, first] - outputs[construction, second]).square().mean()
            assert gap > 0.01 * outputs[construction, first].square().mean()


@pytest.mark.parametrize("rows, columns", [(5, 5), (12, 4), (4, 12), (1, 7), (7, 1)])
def test_orthogonal(rows, columns) -> None:
    matrix = orthogonal(rows, columns, seed(3)).double()
    assert matrix.shape == (rows, columns)
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    scale = rows / columns if rows >= columns else 1.0
    torch.testing.assert_close(gram, scale * torch.eye(min(rows, columns), dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(matrix.square().sum(dim=1).mean()) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(matrix, orthogonal(rows, columns, seed(3)).double())


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_tap_fractions_by_counting(kernel, stride, size) -> None:
    fractions = tap_fractions(kernel, stride, size)
    positions = range(0, size, stride)
    for row, column in itertools.product(range(kernel), repeat=2):
        inside = 0
        for y, x in itertools.product(positions, repeat=2):
            inside += 0 <= y + row - kernel // 2 < size and 0 <= x + column - kernel // 2 < size
        assert float(fractions[row, column]) == pytest.approx(inside / len(positions) ** 2)


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_a_supernet_is_initialised_whole_and_reproducibly(construction) -> None:
    """Every weight is set, BatchNorms start at (1, 0) and (0, 1), and the mode is kept."""
    space = SPACES["nasbench-macro"](8, 5, 0.125, 2)
    states = []
    for filler in (3.0, 7.0):
        supernet = ChainSupernet(space, branch="projected", identity_bn=True)
        with torch.no_grad():
            for value in (*supernet.parameters(), *supernet.buffers()):
                value.fill_(filler)
        supernet.train()
        initialise(supernet, construction, seed(), branch_gamma=0.5)
        assert supernet.training and all(module.training for module in supernet.modules())
        states.append(supernet.state_dict())
    first, second = states
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        assert torch.isfinite(value).all()
        if key.endswith(("running_mean", "bn.bias")):
            assert not value.any()
        if key.endswith("running_var"):
            assert torch.equal(value, torch.ones_like(value))
        if key.endswith("bn.weight"):
            assert torch.equal(value, torch.full_like(value, 0.5 if key.startswith("branches") else 1.0))


def test_a_frozen_branch_keeps_the_mean_square() -> None:
    """Average pooling loses a factor of stride^2 of white noise's power; the frozen 1x1 makes up for it."""
    space = SPACES["nasbench-macro"](16, 5, 0.25, 0)
    supernet = ChainSupernet(space, branch="projected")
    initialise(supernet, "delta", seed())
    supernet.eval()
    for number in (0, 2):
        layer = space.layers[number]
        phi, _ = moments(supernet.branch(number), (layer.in_channels, layer.size, layer.size), seed(), 200_000)
        assert phi == pytest.approx(1.0, abs=BAND)
