"""Which network a step of a CTR supernet's warm-up trains: a function of (seed, step), the same on every process."""

from __future__ import annotations

import random
from dataclasses import dataclass

from subshot.supernet.nasrec import Connections, NasrecSpace
from subshot.supernet.nasrec_spec import NasrecSpec


@dataclass(frozen=True)
class PathSampling:
    """Single-operator any-connection sampling, with full paths at first.

    full_path_steps: the probability of the full path (every operator and connection at the greatest width) falls
    linearly from 1 at step 0 to 0 there. connections: how many inputs a block of the other paths reads.

    Source: NASRec, section 4 and train_supernet.py. There the draws for connections and for each block are independent,
    here one draw decides for the whole path; and there the number of steps (15,000 on Criteo) is fixed, so that a short
    warm-up hardly leaves the full path.
    """

    full_path_steps: int
    connections: Connections = "binomial"

    def full_path_probability(self, step: int) -> float:
        return max(0.0, 1.0 - step / self.full_path_steps) if self.full_path_steps else 0.0


def click_path_at(space: NasrecSpace, step: int, seed: int, sampling: PathSampling) -> NasrecSpec:
    """The network of one warm-up step."""
    rng = random.Random(f"path {seed} {step}")
    if rng.random() < sampling.full_path_probability(step):
        return space.full_spec()
    return space.decode(space.draw(rng, sampling.connections))
