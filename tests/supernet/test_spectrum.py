"""Probed spectra against the exact Jacobian, formed in float64."""

import math

import pytest
import torch
from torch import nn

from subshot.supernet.chain import Op
from subshot.supernet.cost import Conv
from subshot.supernet.mobilenetv2 import mbconv
from subshot.supernet.network import Block
from subshot.supernet.shufflenetv2 import shuffle_block
from subshot.supernet.spectrum import jacobian_products, measure_spectrum, moments, num_probes, transposed_products

SHAPE = (4, 4, 4)
BLOCKS = {
    "plain": mbconv(4, 6, 3, 3, 2),
    "residual": mbconv(4, 4, 5, 3, 1),
    "shuffle": shuffle_block(4, 4, 3, 1),
    "shuffle_down": shuffle_block(4, 12, 3, 2),
    "expanding": Op("conv", (Conv(4, 8, 3),)),
}


def block(name, activation):
    torch.manual_seed(1)
    return Block(BLOCKS[name], activation).double().eval()


def exact_jacobian(module, x):
    jacobian = torch.func.jacrev(module)(x[None])
    return jacobian.detach().reshape(-1, x.numel())


def exact_moments(module, points):
    """(phi, varphi) over the input points of a batch, from the eigenvalues of J J^T."""
    means, squares = [], []
    for x in points:
        eigenvalues = torch.linalg.svdvals(exact_jacobian(module, x)).square()
        n_out = module(x[None]).detach().numel()
        means.append(float(eigenvalues.sum()) / n_out)
        squares.append(float(eigenvalues.square().sum()) / n_out)
    phi = sum(means) / len(means)
    return phi, sum(squares) / len(squares) - phi**2


@pytest.mark.parametrize("activation", ["linear", "relu6", "scaled_tanh"])
@pytest.mark.parametrize("name", BLOCKS)
def test_moments_against_the_exact_jacobian(name, activation) -> None:
    module = block(name, activation)
    points = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    phi, varphi = exact_moments(module, points)
    measured = measure_spectrum(module, SHAPE, torch.Generator().manual_seed(6))
    assert measured.phi == pytest.approx(phi, rel=0.06)
    assert measured.varphi + measured.phi**2 == pytest.approx(varphi + phi**2, rel=0.12)
    with torch.no_grad():
        many = torch.randn(4000, *SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        assert measured.output_mean_square == pytest.approx(float(module(many).square().mean()), rel=0.05)
    assert measured.smallest_singular is None


@pytest.mark.parametrize("activation", ["linear", "scaled_tanh"])
@pytest.mark.parametrize("name", ["plain", "residual", "expanding"])
def test_extremes_against_singular_values(name, activation) -> None:
    module, seed = block(name, activation), torch.Generator().manual_seed(8)
    measured = measure_spectrum(module, SHAPE, seed, extremes=True)
    probes = measured_points(module, 8)
    values = torch.linalg.svdvals(exact_jacobian(module, probes[0]))
    assert measured.largest_singular == pytest.approx(float(values.max()), rel=1e-2)
    assert measured.smallest_singular == pytest.approx(float(values.min()), rel=2e-2, abs=1e-2)


def measured_points(module, seed):
    """The input points that `measure_spectrum` draws first from this seed."""
    n_in, n_out = math.prod(SHAPE), module(torch.zeros(1, *SHAPE, dtype=torch.float64)).numel()
    probes = num_probes(SHAPE, round(200_000 * max(1.0, n_in / n_out)))
    return torch.randn(probes, *SHAPE, generator=torch.Generator().manual_seed(seed)).double()


def test_products_are_those_of_the_jacobian() -> None:
    module = block("plain", "relu6")
    x, v = (torch.randn(1, *SHAPE, dtype=torch.float64) for _ in range(2))
    jacobian = exact_jacobian(module, x[0])
    forwards = jacobian_products(module, x, v)
    torch.testing.assert_close(forwards.flatten(), jacobian @ v.flatten())
    u = torch.randn_like(forwards)
    torch.testing.assert_close(transposed_products(module, x, u).flatten(), jacobian.T @ u.flatten())


def test_trace_of_a_square_map_and_none_of_another() -> None:
    linear = nn.Conv2d(4, 4, 1, bias=False)
    phi, trace = moments(linear, SHAPE, torch.Generator().manual_seed(0), 400_000)
    matrix = linear.weight.detach()[:, :, 0, 0]
    assert trace == pytest.approx(float(matrix.trace()) / 4, abs=0.01)
    assert phi == pytest.approx(float(matrix.square().sum()) / 4, rel=0.02)
    _, none = moments(nn.Conv2d(4, 5, 1), SHAPE, torch.Generator().manual_seed(0), 1000)
    assert math.isnan(none)


def test_identity_is_isometric_and_modes_are_kept() -> None:
    module = nn.Sequential(nn.BatchNorm2d(4), nn.Identity())
    module[0].train()
    module[1].eval()
    spectrum = measure_spectrum(module, SHAPE, torch.Generator().manual_seed(0), extremes=True)
    assert spectrum.phi == pytest.approx(1.0, rel=0.02) and abs(spectrum.varphi) < 0.05
    assert spectrum.smallest_singular == pytest.approx(1.0, rel=1e-3)
    assert spectrum.largest_singular == pytest.approx(1.0, rel=1e-3)
    assert (module[0].training, module[1].training) == (True, False)
    assert torch.equal(module[0].running_mean, torch.zeros(4))
