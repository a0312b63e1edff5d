"""Which path of the supernet each training step takes.

A path is a function of (seed, step), so all ranks draw the same one without talking, and a resumed run goes on with
the same. Paths are raw: they are not made canonical, so that every candidate of every layer gets its share.
"""

from __future__ import annotations

import math
import random
from typing import Literal

from subshot.supernet.space import Genotype, SearchSpace

Sampling = Literal["uniform", "fair"]


def path_at(space: SearchSpace, step: int, seed: int, sampling: Sampling) -> Genotype:
    """The path of a step.

    uniform (SPOS): every layer draws independently. fair (FairNAS, arXiv 1907.01845): steps come in rounds of K, the
    largest number of candidates of a layer; in a round a layer goes through its candidates in an order of its own,
    each as often as K allows. Layers with fewer than K candidates fill the round with random ones, no candidate
    twice more than another.
    Differs from FairNAS: every path is an optimiser step of its own; their K paths share one.
    """
    if sampling == "uniform":
        rng = random.Random(f"{seed}/path/{step}")
        return tuple(rng.randrange(len(decision.choices)) for decision in space.decisions)
    period = max(len(decision.choices) for decision in space.decisions)
    turn, place = divmod(step, period)
    rng = random.Random(f"{seed}/round/{turn}")
    return tuple(_round(len(decision.choices), period, rng)[place] for decision in space.decisions)


def _round(choices: int, period: int, rng: random.Random) -> list[int]:
    order: list[int] = []
    for _ in range(math.ceil(period / choices)):
        order += rng.sample(range(choices), choices)
    order = order[:period]
    rng.shuffle(order)
    return order
