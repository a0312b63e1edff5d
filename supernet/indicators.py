"""BatchNorm indicators: what the trained scales of a supernet say about operations and layers.

Block indicator of an operation (BNNAS, arXiv 2108.07375): the mean of |gamma| over the channels of its last
BatchNorm. The authors' code takes the absolute value (search/ea.py), the paper's text does not; both are here. An
identity without BatchNorm reads 0, as in the authors' code. Layer indicator (dynamical-isometry NAS, arXiv
2307.02263): the same statistic of the BatchNorm on the layer's parallel identity; how the two are combined is not in
the paper, so every combination here is a named rule.

All rules are sums over layers, so each gives an `Additive` of the genotype. Higher is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from subshot.supernet.cost import strided
from subshot.supernet.network import Block, ChainSupernet, ConvUnit
from subshot.supernet.space import Additive

Statistic = Callable[[Tensor], Tensor]

STATISTICS: dict[str, Statistic] = {
    "mean_abs": lambda gamma: gamma.abs().mean(),
    "mean": lambda gamma: gamma.mean(),
    "root_mean_square": lambda gamma: gamma.square().mean().sqrt(),
    "std": lambda gamma: gamma.std(unbiased=False),
}


@dataclass(frozen=True)
class Indicators:
    """Read off a supernet: one number per candidate, one per layer.

    block[layer][choice]: statistic of the last BatchNorm's scales; 0 where the candidate has no BatchNorm.
    has_bn[layer][choice]: whether it has one.
    has_branch[layer]: whether the layer has a parallel identity.
    layer[layer]: statistic of the parallel identity's scales; 0 where the layer has no such connection.
    weighted_activations[layer][choice]: over all convolutions of the candidate, the statistic of the BatchNorm's
    scales times the
    elements that it puts out for one image, in millions: the activations, each counted at the size that training
    gave it.
    """

    block: tuple[tuple[float, ...], ...]
    has_bn: tuple[tuple[bool, ...], ...]
    has_branch: tuple[bool, ...]
    layer: tuple[float, ...]
    weighted_activations: tuple[tuple[float, ...], ...]


@torch.no_grad()
def read_indicators(supernet: ChainSupernet, statistic: str = "mean_abs") -> Indicators:
    """The indicators of a supernet as it stands. Both last BatchNorms of a two-branch block count, channel by
    channel."""
    measure = STATISTICS[statistic]
    block, has_bn, layer_scores, weighted = [], [], [], []
    for number, layer in enumerate(supernet.space.layers):
        bns = [supernet.block(number, choice).last_bns() for choice in range(len(layer.ops))]
        block.append(tuple(float(measure(torch.cat([bn.weight for bn in pair]))) if pair else 0.0 for pair in bns))
        has_bn.append(tuple(bool(pair) for pair in bns))
        blocks = [supernet.block(number, choice) for choice in range(len(layer.ops))]
        weighted.append(tuple(_weighted_activations(candidate, layer.size, measure) for candidate in blocks))
        branch = supernet.branch(number)
        layer_scores.append(0.0 if branch is None else float(measure(branch.bn.weight)))
    has_branch = tuple(supernet.branch(number) is not None for number in range(len(block)))
    return Indicators(tuple(block), tuple(has_bn), has_branch, tuple(layer_scores), tuple(weighted))


@torch.no_grad()
def block_gammas(supernet: ChainSupernet) -> Tensor:
    """Every scale that a block indicator is made of, [channels of all candidates' last BatchNorms]."""
    return torch.cat(
        [
            bn.weight
            for number, layer in enumerate(supernet.space.layers)
            for choice in range(len(layer.ops))
            for bn in supernet.block(number, choice).last_bns()
        ]
    )


def _weighted_activations(block: Block, size: int, measure: Statistic) -> float:
    total = 0.0
    for path in (block.main, block.projection):
        side = size
        for unit in path:
            assert isinstance(unit, ConvUnit)
            side = strided(side, unit.conv.stride[0])
            total += float(measure(unit.bn.weight)) * side * side * unit.conv.out_channels
    return total / 1e6


def _block_sum(indicators: Indicators) -> list[list[float]]:
    """BNNAS: the sum of the block indicators."""
    return [list(row) for row in indicators.block]


def _factors(indicators: Indicators) -> list[float]:
    """The layer indicators, 1 where a layer has none: such a layer is neither raised nor lowered."""
    return [layer if has else 1.0 for layer, has in zip(indicators.layer, indicators.has_branch, strict=True)]


def _block_times_layer(indicators: Indicators) -> list[list[float]]:
    factors = _factors(indicators)
    return [[score * factor for score in row] for row, factor in zip(indicators.block, factors, strict=True)]


def _block_over_layer(indicators: Indicators) -> list[list[float]]:
    """A large scale on the parallel identity says that the layer can be spared."""
    factors = [max(factor, 1e-6) for factor in _factors(indicators)]
    return [[score / factor for score in row] for row, factor in zip(indicators.block, factors, strict=True)]


def _block_centred(indicators: Indicators) -> list[list[float]]:
    """Within a layer, relative to the mean of the candidates that have a BatchNorm; those that have none read 0."""
    return [
        [
            score - sum(s for s, has in zip(row, bns, strict=True) if has) / max(1, sum(bns)) if has_bn else 0.0
            for score, has_bn in zip(row, bns, strict=True)
        ]
        for row, bns in zip(indicators.block, indicators.has_bn, strict=True)
    ]


def _identity_as_layer(indicators: Indicators) -> list[list[float]]:
    """A candidate without BatchNorm takes the layer's indicator: the identity's own scale, on a common footing."""
    return [
        [score if has else layer for score, has in zip(row, bns, strict=True)]
        for row, bns, layer in zip(indicators.block, indicators.has_bn, indicators.layer, strict=True)
    ]


def _weighted_activations_sum(indicators: Indicators) -> list[list[float]]:
    """All BatchNorms of an operation, not the last alone, each weighted by its feature map. A rule of this project."""
    return [list(row) for row in indicators.weighted_activations]


RULES: dict[str, Callable[[Indicators], list[list[float]]]] = {
    "block_sum": _block_sum,
    "block_times_layer": _block_times_layer,
    "block_over_layer": _block_over_layer,
    "block_centred": _block_centred,
    "identity_as_layer": _identity_as_layer,
    "weighted_activations": _weighted_activations_sum,
}


NEEDS_BRANCH = ("block_times_layer", "block_over_layer", "identity_as_layer")


def indicator_score(indicators: Indicators, rule: str) -> Additive:
    """The subnet score under a named rule, as a table over layers and choices. Higher is better."""
    if rule not in RULES:
        raise ValueError(f"unknown indicator rule {rule!r}; known: {', '.join(RULES)}")
    if rule in NEEDS_BRANCH and not any(indicators.has_branch):
        raise ValueError(
            f"the rule {rule} needs layer indicators: build the supernet with a branch (identity or projected)"
        )
    return Additive(0.0, tuple(tuple(row) for row in RULES[rule](indicators)))
