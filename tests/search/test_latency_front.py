"""NSGA-II on NAS-Bench-201's true accuracies and the measured latencies of devices, beside random search."""

from __future__ import annotations

import numpy as np
import pytest

from subshot.data.nasbench import read_nasbench201, read_nasbench201_latency
from subshot.search.evolution import EvolutionConfig, init, random_search
from subshot.search.front import front_of, hypervolume
from subshot.search.methods import method_of
from subshot.search.sampling import LegalSampler
from subshot.supernet.nasbench201 import NasBench201Space, from_string

CONFIG = EvolutionConfig(method="nsga2", costs=("latency_ms",), budget=300, population=20)


@pytest.mark.parametrize("device", ["titan_rtx_256", "gold_6226", "fpga"])
def test_nsga2_finds_more_of_the_front_than_random_search(shared_data, device: str) -> None:
    for name in ("nasbench201.csv.gz", "nasbench201_latency_help.csv.gz"):
        if not (shared_data / name).is_file():
            pytest.skip(f"{shared_data / name} is missing")
    table = read_nasbench201(shared_data)
    ms = read_nasbench201_latency(shared_data)[device].to_numpy()
    points = np.column_stack([table.accuracy["cifar10", "test", 200], ms])
    rows = {from_string(arch): row for row, arch in enumerate(table.arch_str)}
    front = front_of(points)
    reference = [float(np.median(points[:, 0])), float(ms[front].max()) * 1.001]
    whole = hypervolume(points[front], reference)

    def share(config: EvolutionConfig, seed: int) -> float:
        sampler = LegalSampler(NasBench201Space())
        method, state = method_of(config, sampler, lambda genotype: {"latency_ms": ms[rows[genotype]]}), init(seed)
        while proposals := method.ask(state):
            state = method.tell(state, proposals, [points[rows[p.genotype], 0] for p in proposals])
        found = points[[rows[c.genotype] for c in state.history]]
        return hypervolume(found[front_of(found)], reference) / whole

    ours = [share(CONFIG, seed) for seed in range(3)]
    theirs = [share(random_search(CONFIG), seed) for seed in range(3)]
    assert 0.85 < min(ours) and max(ours) <= 1.0
    assert np.mean(ours) > np.mean(theirs) + 0.03
