"""What scoring one candidate with SiGeo costs: a ratio measured side by side, interleaved, in one run.

    python benchmarks/sigeo_cost.py [--repetitions 21]

SiGeo's terms (copies of the network's tensors for safe keeping included) against the four forward and backward passes
that they are made from, batch 512, one thread. Wanted: at most 1.15. A multi-layer perceptron of about 2 million
parameters, and paths drawn from the NASRec spaces, on 13 dense features and 26 fields whose embeddings were looked up
beforehand. Seconds of this process, which others on the machine do not lengthen much.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies.base import Probe
from subshot.proxies.sigeo import sigeo_terms
from subshot.supernet.nasrec import NasrecSpace, nasrec_full, nasrec_small
from subshot.supernet.nasrec_supernet import NasrecSupernet

DENSE, FIELDS, DIM = 13, 26, 16
WANTED = 1.15


@dataclass(frozen=True)
class Arguments:
    repetitions: int = 21
    batch_size: int = 512
    batches: int = 4
    paths: int = 8
    """Of each NASRec space."""
    path_repetitions: int = 5


class Perceptron(nn.Module):
    """(dense [N, 13], embedded [N, 26, 16]) to logits [N]."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        sizes = (DENSE + FIELDS * DIM, *widths)
        pairs = zip(sizes, sizes[1:], strict=False)
        self.hidden = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairs))
        self.last = nn.Linear(sizes[-1], 1)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        dense, embedded = inputs
        logits: Tensor = self.last(self.hidden(torch.cat((dense, embedded.flatten(1)), dim=1))).squeeze(1)
        return logits


def click_probe(batches: int, batch_size: int) -> Probe:
    generator = torch.Generator().manual_seed(0)
    return Probe(
        tuple(
            (
                (
                    torch.randn(batch_size, DENSE, generator=generator),
                    torch.randn(batch_size, FIELDS, DIM, generator=generator),
                ),
                torch.randint(2, (batch_size,), generator=generator).float(),
            )
            for _ in range(batches)
        ),
        loss=F.binary_cross_entropy_with_logits,
    )


def passes(model: nn.Module, probe: Probe) -> None:
    """The forward and backward pass of every batch, and nothing else."""
    parameters = list(model.parameters())
    for inputs, targets in probe.batches:
        torch.autograd.grad(probe.loss(model(inputs), targets), parameters, allow_unused=True)


def interleaved(first: Callable[[], object], second: Callable[[], object], repetitions: int) -> np.ndarray:
    """Processor seconds of each, [2, repetitions], taken in turn after a warm-up of both."""
    first()
    second()
    seconds = np.empty((2, repetitions))
    for number in range(repetitions):
        for place, run in enumerate((first, second)):
            began = time.process_time()
            run()
            seconds[place, number] = time.process_time() - began
    return seconds


def report(name: str, model: nn.Module, probe: Probe, repetitions: int) -> tuple[float, float]:
    """Prints and returns the median ratio and the median seconds of a candidate."""
    scoring, plain = interleaved(lambda: sigeo_terms(model, probe), lambda: passes(model, probe), repetitions)
    ratios = scoring / plain
    parameters = sum(parameter.numel() for parameter in model.parameters())
    median = float(np.median(scoring))
    print(
        f"{name}, {parameters / 1e6:.2f} M parameters: SiGeo / forward and backward passes {np.median(ratios):.3f} "
        f"(range {ratios.min():.3f} to {ratios.max():.3f}; wanted at most {WANTED}); medians {1e3 * median:.1f} and "
        f"{1e3 * np.median(plain):.1f} ms",
        flush=True,
    )
    return float(np.median(ratios)), median


def paths(name: str, space: NasrecSpace, probe: Probe, arguments: Arguments) -> None:
    """Paths drawn as the warm-up draws them; each ratio is a median over repetitions."""
    supernet, rng = NasrecSupernet(space, torch.Generator().manual_seed(0)), random.Random(0)
    found = [
        report(f"{name} path {number}", supernet.path(space.draw(rng)), probe, arguments.path_repetitions)
        for number in range(arguments.paths)
    ]
    ratios, seconds = np.array(found).T
    print(
        f"{name}: median ratio {np.median(ratios):.3f}, largest {ratios.max():.3f}; "
        f"{1 / seconds.mean():.2f} candidates a second on one thread",
        flush=True,
    )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    probe = click_probe(arguments.batches, arguments.batch_size)
    report("perceptron", Perceptron(1024, 1024, 512), probe, arguments.repetitions)
    paths("NASRec-Small", nasrec_small(DENSE, FIELDS), probe, arguments)
    paths("NASRec-Full", nasrec_full(DENSE, FIELDS), probe, arguments)


if __name__ == "__main__":
    main()
