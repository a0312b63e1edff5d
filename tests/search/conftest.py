"""Chains of decisions that stand for the real spaces: search knows spaces by their decisions and cost tables alone."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from subshot.supernet.space import Additive, Decision, Genotype, why_not_of


@dataclass(frozen=True)
class Chain:
    """A space without switches: every genotype is canonical."""

    name: str
    decisions: tuple[Decision, ...]

    @classmethod
    def of(cls, cost: Additive) -> Chain:
        return cls(
            "chain", tuple(Decision(f"layer{i}", tuple(map(str, range(len(r))))) for i, r in enumerate(cost.table))
        )

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    def why_invalid(self, genotype: Genotype) -> str | None:
        return why_not_of(self, genotype)

    def decode(self, genotype: Genotype) -> Genotype:
        return genotype


@dataclass(frozen=True)
class Switched(Chain):
    """Decision 0 switches decision 1 off; the last decision may not be 0 where the one before it is 0."""

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype if genotype[0] else (0, 0, *genotype[2:])

    def why_invalid(self, genotype: Genotype) -> str | None:
        wrong = genotype[-1] == 0 and genotype[-2] == 0
        return why_not_of(self, genotype) or ("the last two decisions must not both be 0" if wrong else None)


@pytest.fixture(scope="session")
def chain() -> Callable[[Additive], Chain]:
    """The space of a cost table."""
    return Chain.of


@pytest.fixture(scope="session")
def switched() -> Callable[[Additive], Chain]:
    """The same with merged and with forbidden genotypes."""
    return Switched.of


@pytest.fixture(scope="session")
def random_sum() -> Callable[..., Additive]:
    """A random additive quantity over decisions of these sizes: values in [0, 1), or whole numbers up to 20."""

    def make(rng: random.Random, sizes: list[int], *, whole: bool = False) -> Additive:
        rows = (tuple(float(rng.randrange(21)) if whole else rng.random() for _ in range(size)) for size in sizes)
        return Additive(float(rng.randrange(5)) if whole else rng.random(), tuple(rows))

    return make


@pytest.fixture(scope="session")
def mobilenetv2_macs() -> Additive:
    """MACs of 21 inverted residuals, kernel 3, 5, 7 by expansion 3, 6, with the shapes of MobileNetV2 at 224 pixels."""
    stages = [(24, 32, 4, 2, 112), (32, 56, 4, 2, 56), (56, 112, 4, 2, 28), (112, 128, 4, 1, 14), (128, 256, 4, 2, 14)]
    table = []
    for inp, out, depth, stride, side in [*stages, (256, 432, 1, 1, 7)]:
        for layer in range(depth):
            width = inp if layer == 0 else out
            before = side if layer == 0 else side // stride
            after = side // stride
            table.append(
                tuple(
                    float(before**2 * width * width * e + after**2 * width * e * (k**2 + out))
                    for k in (3, 5, 7)
                    for e in (3, 6)
                )
            )
    return Additive(70_138_904.0, tuple(table))


@pytest.fixture(scope="session")
def bnnas_macs(shared_data: Path) -> Additive:
    """The published table of the BNNAS space: 21 layers, six operations, identity where the shape allows it."""
    published = json.loads(gzip.decompress((shared_data / "published_results.json.gz").read_bytes()))["bnnas"]
    flops = published["op_flops_gpu"]
    shapes = published["backbone_info_inp_oup_h_w_stride"]
    table = []
    for shape in shapes[1:-1]:
        row = tuple(flops[op][str(shape)] for op in published["ops"])
        table.append((*row, 0.0) if shape[0] == shape[1] and shape[-1] == 1 else row)
    base = flops["PreProcessing"][str(shapes[0])] + flops["PostProcessing"][str(shapes[-1])]
    return Additive(base, tuple(table))
