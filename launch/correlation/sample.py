"""Which networks of a run are trained from scratch to judge its score: a sample over the whole range of the score.

Candidates are those that random search scored, which are random networks under the run's limits, and the best that any
search found. A sixth of the sample (at least one) are the best, from the first down. For the others the random
candidates are ranked by score and cut into as many parts of equal size; one network is drawn from each. So the sample
covers all quantiles, and correlations over it are of the whole space under the limits, with its top drawn a little more
often. (A correlation over the search's favourites alone would be of networks that the score takes for equals.)

In each part a network that was trained from scratch already is taken before others. Apart from that the sample is a
function of the run: of its history and seed. It is frozen, so later trainings do not change it, until all of it is
trained and a larger one is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subshot.launch.correlation.trainings import Trainings
from subshot.launch.manifest import LEAST_SAMPLE, Manifest, hash_of, numbered
from subshot.supernet.space import Genotype
from subshot.train.run_dir import RunDir, read_json, read_jsonl

DEFAULT = 12
PART_OF_BEST = 6
"""One network in so many is of the best that the search found."""


@dataclass(frozen=True)
class Scored:
    """A network with the score that the search gave it; higher is better."""

    genotype: Genotype
    score: float


def scored_networks(run: RunDir) -> tuple[list[Scored], list[Scored]]:
    """(The best that any search found, best first; what random search scored), each network once."""
    rows = [row for row in read_jsonl(run.history_jsonl) if row["method"] == "random"]
    return _scored(read_json(run.summary_json)["best"]), _scored(rows)


def _scored(rows: Sequence[dict[str, Any]]) -> list[Scored]:
    found = {tuple(row["genotype"]): float(row["score"]) for row in rows if row["score"] is not None}
    return [Scored(genotype, score) for genotype, score in found.items()]


def stratified(
    best: Sequence[Scored], drawn: Sequence[Scored], count: int, seed: int, trained: Collection[Genotype]
) -> list[Scored]:
    """`count` different networks, highest score first; those in `trained` before others of their part.

    Raises ValueError where there are not so many.
    """
    top = list(best[: max(1, count // PART_OF_BEST)])
    taken = {network.genotype for network in top}
    others = sorted((n for n in drawn if n.genotype not in taken), key=lambda n: (-n.score, n.genotype))
    needed = count - len(top)
    if len(others) < needed:
        raise ValueError(
            f"--sample is {count}, and random search scored only {len(others)} other networks; give a smaller --sample "
            f"({LEAST_SAMPLE} or more), or search with a larger --evolution.budget"
        )
    rng = np.random.default_rng([seed, count])
    for part in np.array_split(np.arange(len(others)), needed):
        place = int(rng.choice(part))
        known = [int(other) for other in part if others[other].genotype in trained]
        top.append(others[known[0] if known else place])
    return sorted(top, key=lambda network: (-network.score, network.genotype))


def planned(trainings: Trainings, networks: Sequence[Scored], seeds: int, space: str, run: RunDir) -> Manifest:
    """Each network with every seed. Networks are called by their hashes, so records stay good in another sample."""
    lines = []
    for network in networks:
        digest = hash_of([space, list(network.genotype)])
        called = f"sampled-{digest[:8]}"
        for seed in range(seeds):
            name = trainings.name(called, seed)
            lines.append(
                {
                    "name": name,
                    "network": called,
                    "role": "sampled",
                    "genotype": network.genotype,
                    "genotype_hash": digest,
                    "seed": seed,
                    "learning_rate": trainings.learning_rate,
                    "score": network.score,
                    "result": str(run.correlation.trial_json(name).relative_to(run.root)),
                }
            )
    return Manifest(trainings.depends_on(), trainings.metric, numbered(lines))
