"""The measured spectrum of J J^T, J the Jacobian of a module: a few products with J and J^T, no Jacobian formed.

For a module that maps n_in to n_out numbers, dynamical-isometry NAS (arXiv 2307.02263) asks of every candidate that
phi(J J^T) = 1 and varphi(J J^T) = 0, with (block dynamical isometry, arXiv 2001.00254)

    phi    = tr(J J^T) / n_out                       the mean eigenvalue
    varphi = tr((J J^T)^2) / n_out - phi^2           the variance of the eigenvalues

phi = 1 says that a white input keeps its mean square per element. Both traces are estimated with Gaussian probes
(Hutchinson): phi = E|J v|^2 / n_out, and tr((J J^T)^2) = E|J J^T u|^2. Modules are measured in evaluation mode:
BatchNorm is the fixed affine map of its present statistics, so one sample of a batch is one probe at one input point.
Where J has more rows than columns (or loses resolution), some eigenvalues are 0 by rank alone and varphi cannot vanish:
n_out / n_in - 1 is its floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]
MEASURED_ELEMENTS = 200_000


@dataclass(frozen=True)
class Spectrum:
    """phi (mean eigenvalue of J J^T), varphi (variance), and the extreme singular values of J where they were asked
    for.

    `output_mean_square`: mean square per element of the module's output for the same unit-variance inputs.
    """

    phi: float
    varphi: float
    output_mean_square: float
    smallest_singular: float | None = None
    largest_singular: float | None = None


def jacobian_products(module: Map, x: Tensor, v: Tensor) -> Tensor:
    """J v for every sample, shape of the output. x, v: [N, C, H, W]."""
    product = torch.func.jvp(module, (x,), (v,))[1]
    assert isinstance(product, Tensor)
    return product


def transposed_products(module: Map, x: Tensor, u: Tensor) -> Tensor:
    """J^T u for every sample, shape of the input."""
    pull_back = torch.func.vjp(module, x)[1]
    (product,) = pull_back(u)
    assert isinstance(product, Tensor)
    return product


def num_probes(shape: tuple[int, int, int], elements: int) -> int:
    """Probes of `shape` that together have about `elements` numbers; the relative standard error of phi is sqrt(4 /
    elements)."""
    return max(2, -(-elements // math.prod(shape)))


@torch.no_grad()
def moments(module: Map, shape: tuple[int, int, int], generator: torch.Generator, elements: int) -> tuple[float, float]:
    """(phi, tr(J) / n) by forward products alone, at white inputs of `shape` (C, H, W); the second is nan unless J
    is square."""
    probes = num_probes(shape, elements)
    x, v = (torch.randn(probes, *shape, generator=generator) for _ in range(2))
    product = jacobian_products(module, x, v)
    trace = float((v * product).mean()) if v.shape == product.shape else math.nan
    return float(product.square().mean()), trace


def measure_spectrum(
    module: nn.Module, shape: tuple[int, int, int], generator: torch.Generator, extremes: bool = False
) -> Spectrum:
    """The spectrum of a module in evaluation mode at white inputs of `shape` (C, H, W); modes are as before afterwards.

    extremes: also the smallest and largest singular value at one input point, by Lanczos iteration (scipy's eigsh)
    on the smaller of J J^T and J^T J, to a relative tolerance of 1e-2; a smallest value of 0 may read 1e-2.
    """
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        like = next(module.parameters(), torch.zeros(()))  # dtype and device of the probes; drawn on the CPU
        with torch.no_grad():
            out_elements = module(torch.zeros(1, *shape).to(like)).numel()
        shrinks = max(1.0, math.prod(shape) / out_elements)
        probes = num_probes(shape, round(MEASURED_ELEMENTS * shrinks))
        x, v = (torch.randn(probes, *shape, generator=generator).to(like) for _ in range(2))
        with torch.no_grad():
            out = module(x)
            u = torch.randn(out.shape, generator=generator).to(like)
            phi = float(jacobian_products(module, x, v).square().mean())
        back = transposed_products(module, x, u).detach()
        with torch.no_grad():
            second = float(jacobian_products(module, x, back).square().mean())
        smallest, largest = _extreme_singular_values(module, x[:1]) if extremes else (None, None)
    finally:
        for child, mode in modes.items():
            child.training = mode
    return Spectrum(phi, second - phi**2, float(out.square().mean()), smallest, largest)


def _extreme_singular_values(module: nn.Module, x: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        out_shape = module(x).shape
    n_in, n_out = x.numel(), out_shape.numel()
    n = min(n_in, n_out)

    def gram(vector: np.ndarray) -> np.ndarray:
        probe = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1))).to(x)
        if n_out <= n_in:
            product = jacobian_products(module, x, transposed_products(module, x, probe.view(out_shape)))
        else:
            product = transposed_products(module, x, jacobian_products(module, x, probe.view(x.shape)))
        return product.detach().reshape(-1).double().cpu().numpy()

    operator = LinearOperator((n, n), matvec=gram, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    ends = eigsh(operator, k=2, which="BE", v0=start, tol=1e-2, maxiter=100 * n, return_eigenvectors=False)
    return float(np.sqrt(max(ends.min(), 0.0))), float(np.sqrt(max(ends.max(), 0.0)))
