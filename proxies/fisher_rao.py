"""What "the Fisher-Rao norm" may mean: the readings that SiGeo's text leaves open, and what its public programs take.

Over batches b with mean-loss gradients g_b, samples n with gradients g_n, parameter tensors m and their entries j:

    mean_square      mean_b (theta . g_b)^2                        the definition that sigeo.py keeps
    elementwise      mean_b sum_j (theta_j g_bj)^2                 the diagonal of the Fisher matrix alone
    block_diagonal   mean_b sum_m (theta_m . g_bm)^2               its blocks of one tensor each
    samples          mean_n (theta . g_n)^2                        the empirical Fisher matrix of single samples
    nasrec_code      |theta . sum_b g_b|                           no norm: neither squares nor a mean
    naslib_code      sum_m |theta_m . sum_b g_bm|                  no norm either

The last two are defects of the authors' programs, which no score here uses: NasRec-SiGeo @4d6f718, once equal layers
are told apart, and NASLib-SiGeo @65e789c, at weights that it would move between batches. `nasrec_code_log` and
`naslib_code_log` are the terms that those add to their scores. Source: SiGeo, arXiv 2311.13169, Appendix E.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from subshot.proxies.base import BatchNormMode, ProxyUndefined, Setting
from subshot.proxies.batch_pass import LossGradients, ParameterValues
from subshot.proxies.measure import Proxy
from subshot.proxies.sample_layers import Chunk
from subshot.proxies.sample_pass import OfSampleLosses, Scope, in_scope
from subshot.proxies.zico import Gradients

Version = Literal["mean_square", "elementwise", "block_diagonal", "nasrec_code", "naslib_code"]
NASREC_FLOOR, NASLIB_FLOOR = 1e-10, 1e-5


@dataclass(frozen=True)
class Products:
    """by_tensor: theta_m . g_bm, float64 [batches, tensors]. squares: sum_j (theta_j g_bj)^2, float64 [batches]."""

    by_tensor: Tensor
    squares: Tensor


def products(parameters: Mapping[str, Tensor], *by_batch: Gradients, scope: Scope = "all") -> Products:
    """Of a scope's parameters; those that no batch's loss depends on are left out."""
    used = [
        name
        for name, parameter in parameters.items()
        if in_scope(scope, name, parameter) and any(row[name] is not None for row in by_batch)
    ]
    if not used:
        raise ProxyUndefined("the loss depends on no parameter that this reads")
    device = parameters[used[0]].device
    sums = torch.zeros(len(by_batch), len(used), dtype=torch.float64, device=device)
    squares = torch.zeros(len(by_batch), dtype=torch.float64, device=device)
    for b, gradients in enumerate(by_batch):
        for m, name in enumerate(used):
            gradient = gradients[name]
            if gradient is not None:
                product = parameters[name].double() * gradient
                sums[b, m] = product.sum()
                squares[b] += product.square().sum()
    return Products(sums, squares)


def value_of(found: Products, version: Version) -> float:
    if version == "elementwise":
        return float(found.squares.mean())
    if version == "block_diagonal":
        return float(found.by_tensor.square().sum(dim=1).mean())
    if version == "nasrec_code":
        return float(found.by_tensor.sum().abs())
    if version == "naslib_code":
        return float(found.by_tensor.sum(dim=0).abs().sum())
    return float(found.by_tensor.sum(dim=1).square().mean())


def nasrec_code_log(value: float) -> float:
    return math.log(value + NASREC_FLOOR)


def naslib_code_log(value: float) -> float:
    return 2.0 * math.log(value + NASLIB_FLOOR)


class ProductSums:
    def __init__(self, count: int, targets: Tensor) -> None:
        self.sums = torch.zeros(count, dtype=torch.float64, device=targets.device)

    def add(self, chunk: Chunk) -> None:
        self.sums += chunk.gradients.double() @ chunk.theta.double()

    def value(self) -> Tensor:
        return self.sums


@dataclass(frozen=True)
class SampleProducts(OfSampleLosses):
    """theta . g_n of every sample, float64 [N], over a scope's parameters."""

    scope: Scope = "all"

    def accumulator(self, count: int, targets: Tensor) -> ProductSums:
        return ProductSums(count, targets)


def fisher_rao(
    version: Version = "mean_square", scope: Scope = "all", num_batches: int = 4, batch_norm: BatchNormMode = "train"
) -> Proxy:
    """The norm, or what stands for it, over so many batches."""

    def formula(parameters: Mapping[str, Tensor], *by_batch: Gradients) -> float:
        return value_of(products(parameters, *by_batch, scope=scope), version)

    readings = (ParameterValues(), *(LossGradients(batch) for batch in range(num_batches)))
    return _proxy(f"fisher_rao_{version}", readings, formula, scope, batch_norm)


def fisher_rao_of_samples(scope: Scope = "all", num_batches: int = 1, batch_norm: BatchNormMode = "single") -> Proxy:
    """The norm over single samples; BatchNorm must not let them meet (`batch_norm` "single" or "eval")."""

    def formula(*by_batch: Tensor) -> float:
        return float(torch.cat(by_batch).square().mean())

    readings = tuple(SampleProducts(scope, batch) for batch in range(num_batches))
    return _proxy("fisher_rao_samples", readings, formula, scope, batch_norm)


def _proxy(name: str, readings: Any, formula: Any, scope: Scope, batch_norm: BatchNormMode) -> Proxy:
    layers = {
        "all": "all parameters",
        "weights": "all weights of two or more dimensions",
        "named_weight": 'parameters named "weight"',
    }
    source = "SiGeo, arXiv 2311.13169, Appendix E"
    return Proxy(name, readings, formula, True, source, Setting(batch_norm=batch_norm), layers[scope])
