"""How fast the search's own parts are, on a chain of 21 layers and six operations with the MACs of MobileNetV2 at 224.

    python benchmarks/search_speed.py [repetitions]

One line a part: the median over the repetitions, the spread, and the bar that it must clear. The repetitions of the
parts take turns, so that a busy moment of the machine meets all of them alike.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from subshot.search.evaluator import AdditiveEvaluator
from subshot.search.evolution import EvolutionConfig, init, run_to_end
from subshot.search.knapsack import optimum
from subshot.search.objectives import Constraint, Limit
from subshot.search.sampling import LegalSampler
from subshot.supernet.space import Additive, Decision, Genotype, why_not_of


@dataclass(frozen=True)
class Chain:
    """A space of independent decisions."""

    name: str
    decisions: tuple[Decision, ...]

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    def why_invalid(self, genotype: Genotype) -> str | None:
        return why_not_of(self, genotype)

    def decode(self, genotype: Genotype) -> Genotype:
        return genotype


@dataclass(frozen=True)
class Part:
    """Something timed: `work` done once, as `amount` of `unit`, better when `higher`."""

    name: str
    work: Callable[[], object]
    unit: str
    measure: Callable[[float], float]
    bar: float
    higher: bool


def macs_of_mobilenetv2() -> Additive:
    """MACs per layer of kernel {3, 5, 7} x expansion {3, 6}, and identity where the shape allows it."""
    stages = [(24, 32, 4, 2, 112), (32, 56, 4, 2, 56), (56, 112, 4, 2, 28), (112, 128, 4, 1, 14), (128, 256, 4, 2, 14)]
    table = []
    for inp, out, depth, stride, side in [*stages, (256, 432, 1, 1, 7)]:
        for layer in range(depth):
            width, before, after = (inp, side, side // stride) if layer == 0 else (out, side // stride, side // stride)
            row = [
                float(before**2 * width * width * e + after**2 * width * e * (k**2 + out))
                for k in (3, 5, 7)
                for e in (3, 6)
            ]
            table.append(tuple(row + [0.0] * (layer > 0)))
    return Additive(70_138_904.0, tuple(table))


def parts() -> list[Part]:
    macs = macs_of_mobilenetv2()
    space = Chain(
        "mobilenetv2", tuple(Decision(f"layer{i}", tuple("abcdefg"[: len(r)])) for i, r in enumerate(macs.table))
    )
    rng = random.Random(0)
    score = Additive(0.0, tuple(tuple(rng.random() for _ in row) for row in macs.table))
    limits = [Constraint(macs, Limit("macs", 475e6))]
    sampler = LegalSampler(space, limits)
    evaluator = AdditiveEvaluator(score)
    sizes = [len(row) for row in macs.table]
    genotypes = [tuple(row) for row in np.random.default_rng(0).integers(0, sizes, (200_000, len(sizes))).tolist()]
    config = EvolutionConfig(budget=10_000)
    seconds, draws = (lambda t: t), 10_000
    return [
        Part(
            "genotypes scored by indicators",
            lambda: evaluator.evaluate(genotypes),
            "1/s",
            lambda t: len(genotypes) / t,
            2e5,
            True,
        ),
        Part("exact optimum, lattice", lambda: optimum(score, limits, "lattice"), "s", seconds, 0.2, False),
        Part("exact optimum, pareto", lambda: optimum(score, limits, "pareto"), "s", seconds, 0.2, False),
        Part(
            "evolution, 10,000 candidates",
            lambda: run_to_end(config, sampler, init(0), evaluator),
            "s",
            seconds,
            5.0,
            False,
        ),
        Part("legal sampler, set-up", lambda: LegalSampler(space, limits), "s", seconds, 0.2, False),
        Part(
            "legal draws under 475 M MACs",
            lambda: sampler.draw(np.random.default_rng(0), draws),
            "1/s",
            lambda t: draws / t,
            2e4,
            True,
        ),
    ]


def main() -> int:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    timed = parts()
    values: list[list[float]] = [[] for _ in timed]
    for _ in range(repetitions):
        for part, seen in zip(timed, values, strict=True):
            begin = time.perf_counter()
            part.work()
            seen.append(part.measure(time.perf_counter() - begin))
    missed = 0
    for part, seen in zip(timed, values, strict=True):
        median = statistics.median(seen)
        met = median >= part.bar if part.higher else median <= part.bar
        missed += not met
        print(
            f"{part.name:32} {median:12,.4g} {part.unit:4} ({min(seen):,.4g} to {max(seen):,.4g} in {repetitions}), "
            f"{'at least' if part.higher else 'at most'} {part.bar:,.4g}: {'met' if met else 'MISSED'}"
        )
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
