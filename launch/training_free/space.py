"""The networks of a training-free run: a benchmark space, what may be drawn of it, and how a network begins."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from subshot.launch.config import BenchmarkSpaceConfig, TrainingFreeConfig
from subshot.launch.vision.build import Builder
from subshot.search.objectives import Limit
from subshot.search.rejection import CostLimit
from subshot.search.walk import WalkSampler
from subshot.supernet import BENCHMARK_SPACES
from subshot.supernet.cost import Cost, activation_mib
from subshot.supernet.darts import DartsSpace
from subshot.supernet.nasbench101 import NasBench101Space
from subshot.supernet.nasbench201 import to_string
from subshot.supernet.network_space import NetworkSpace
from subshot.supernet.space import Genotype
from subshot.supernet.zennas import ZenSpace, to_structure
from subshot.train.fit import seeded

CPU = torch.device("cpu")


def make_benchmark_space(config: BenchmarkSpaceConfig, classes: int) -> NetworkSpace:
    return BENCHMARK_SPACES[config.name](config.input_size, classes)


class BenchmarkNetworks:
    """See subshot.launch.domain.Networks. Raises ImpossibleLimit where no network is found that meets the limits."""

    def __init__(self, config: TrainingFreeConfig, classes: int) -> None:
        self.space = make_benchmark_space(config.space, classes)
        self.cost: Callable[[Genotype], Cost] = lru_cache(maxsize=1 << 16)(self.space.cost)
        limits = config.limits
        self._sampler = self._under(
            Limit("macs", limits.max_macs or None, limits.min_macs or None),
            Limit("params", limits.max_params or None),
            Limit("activation_mib", limits.max_activation_mib or None),
        )
        self._sampler.draw(np.random.default_rng(0), 1)

    def _under(self, *limits: Limit) -> WalkSampler:
        costs: dict[str, Callable[[Genotype], float]] = {
            "macs": lambda genotype: self.cost(genotype).macs,
            "params": lambda genotype: self.cost(genotype).params,
            "activation_mib": lambda genotype: activation_mib(self.cost(genotype).activation_elements),
        }
        closed = [limit for limit in limits if math.isfinite(limit.low) or math.isfinite(limit.high)]
        return WalkSampler(self.space, [CostLimit(costs[limit.name], limit) for limit in closed])

    def sampler(self, near: Limit | None = None) -> WalkSampler:
        return self._sampler if near is None else self._under(near)

    def costs(self, genotype: Genotype) -> dict[str, int]:
        cost = self.cost(genotype)
        return {"macs": cost.macs, "params": cost.params, "activation_elements": cost.activation_elements}


def initialised(space: NetworkSpace, genotype: Genotype, seed: int) -> nn.Module:
    """The network on the CPU, with torch's initial weights: a function of (seed, genotype) alone."""
    (own,) = np.random.SeedSequence([seed, *genotype]).generate_state(1)
    with seeded(int(own), CPU):
        return space.build(genotype)


def benchmark_builder(space: NetworkSpace) -> Builder:
    """What retraining asks for. Parameters that no logit depends on, those of a cell's dead edges, are not trained."""

    def build(genotype: Genotype, seed: int) -> nn.Module:
        network = initialised(space, genotype, seed).eval()
        parameters = list(network.parameters())
        logits = network(torch.zeros(1, 3, space.input_size, space.input_size))
        gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        return network.train()

    return build


def published_form(space: NetworkSpace, genotype: Genotype) -> str:
    """The network as its authors' code reads it."""
    if isinstance(space, NasBench101Space):
        matrix, ops = space.to_matrix(genotype)
        return f"ModelSpec(matrix={[list(row) for row in matrix]}, ops={list(ops)})"
    if isinstance(space, DartsSpace):
        normal, reduce = space.to_genotype(genotype)
        concat = list(range(2, 6))
        return f"Genotype(normal={list(normal)}, normal_concat={concat}, reduce={list(reduce)}, reduce_concat={concat})"
    if isinstance(space, ZenSpace):
        return to_structure(space, genotype)
    return to_string(genotype)
