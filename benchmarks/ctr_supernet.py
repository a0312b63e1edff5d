"""What sharing weights by slices costs, and what masks cost instead: ratios measured side by side in one run.

    python benchmarks/ctr_supernet.py [--paths 20] [--repetitions 3] [--batch-size 512]

A step is: the path, forward, loss, backward, the clipping of the gradients at norm 5, and Adagrad. Paths are drawn as
in training; embedded inputs are random numbers. NASRec-Small and NASRec-Full, Criteo's 13 + 26 fields, one thread.

1. A step along a path of the supernet against the same step of the extracted subnet with torch.optim.Adagrad (wanted:
   at most 1.1 at the median).
2. The same step by a full-width supernet, as the public code shares weights: all operators built, inputs zero-padded,
   outputs masked, torch.optim.Adagrad walking over every parameter (wanted: at least 5 times the time at the median).
   Gradients are zeroed in place, as torch did when the public code was written; and, `unset`, set to None, so that the
   optimiser passes over operators that have none.

On a CPU the time is that of this process's one thread, so that other processes disturb it little.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.supernet.base import extract
from subshot.supernet.nasrec import NasrecSpace, nasrec_full, nasrec_small
from subshot.supernet.nasrec_masked import MaskedSupernet
from subshot.supernet.nasrec_network import Inputs
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import Genotype
from subshot.train.sliced_adagrad import SlicedAdagrad

LEARNING_RATE, EPS, CLIP_NORM = 0.12, 1e-2, 5.0


@dataclass(frozen=True)
class Arguments:
    paths: int = 20
    repetitions: int = 3
    """Of each step on each path; the fastest counts."""
    batch_size: int = 512
    device: str = "cpu"


@dataclass(frozen=True)
class Batch:
    inputs: Inputs
    labels: Tensor


def random_batch(space: NasrecSpace, size: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(size, space.dense_features, generator=generator).to(device)
    embedded = torch.randn(size, space.sparse_fields, space.embedding_dim, generator=generator).to(device)
    labels = torch.randint(2, (size,), generator=generator).float().to(device)
    return Batch((dense, embedded), labels)


def gradients(network: Callable[[Inputs], Tensor], parameters: list[nn.Parameter], batch: Batch) -> None:
    F.binary_cross_entropy_with_logits(network(batch.inputs), batch.labels).backward()
    torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], CLIP_NORM)


def sliced_step(supernet: NasrecSupernet, optimizer: SlicedAdagrad, genotype: Genotype, batch: Batch) -> None:
    path = supernet.path(genotype)
    optimizer.follow(path.parameters())
    gradients(path, list(path.parameters()), batch)
    optimizer.step()


def subnet_step(subnet: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad()
    gradients(subnet, list(subnet.parameters()), batch)
    optimizer.step()


def with_gradients(supernet: MaskedSupernet) -> None:
    """Every operator has been on a path before."""
    for parameter in supernet.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def masked_step(
    supernet: MaskedSupernet, optimizer: torch.optim.Optimizer, genotype: Genotype, batch: Batch, unset: bool
) -> None:
    optimizer.zero_grad(set_to_none=unset)
    gradients(lambda inputs: supernet(inputs, genotype), list(supernet.parameters()), batch)
    optimizer.step()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        began = time.process_time()
        run()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def adagrad(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(module.parameters(), lr=LEARNING_RATE, eps=EPS)


def measured(space: NasrecSpace, arguments: Arguments) -> dict[str, np.ndarray]:
    """Seconds of each kind of step on each path, the kinds taken in turn."""
    device = torch.device(arguments.device)
    batch = random_batch(space, arguments.batch_size, device)
    sliced = NasrecSupernet(space, torch.Generator().manual_seed(0)).to(device)
    masked = MaskedSupernet(space, "public").to(device)
    shared = SlicedAdagrad(dict(sliced.named_parameters()), LEARNING_RATE, EPS)
    whole = adagrad(masked)
    rng = random.Random(1)
    found: dict[str, list[float]] = {name: [] for name in ("build", "path", "subnet", "masked", "unset")}
    for _ in range(arguments.paths):
        genotype = space.draw(rng)
        subnet = extract(sliced, genotype)
        own = adagrad(subnet)
        runs: dict[str, Callable[[], object]] = {
            "build": partial(sliced.path, genotype),
            "path": partial(sliced_step, sliced, shared, genotype, batch),
            "subnet": partial(subnet_step, subnet, own, batch),
            "unset": partial(masked_step, masked, whole, genotype, batch, unset=True),
            "masked": partial(masked_step, masked, whole, genotype, batch, unset=False),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(1 + arguments.repetitions):
            for name, run in runs.items():
                if name == "masked":
                    with_gradients(masked)
                times[name].append(seconds(run, device))
        for name, values in times.items():
            found[name].append(min(values[1:]))
    return {name: np.array(values) for name, values in found.items()}


def report(name: str, ratios: np.ndarray, wanted: str) -> None:
    low, high = np.quantile(ratios, (0.1, 0.9))
    print(
        f"    {name}: median {np.median(ratios):.2f} (10 % to 90 %: {low:.2f} to {high:.2f}; wanted {wanted})",
        flush=True,
    )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    for space in (nasrec_small(13, 26), nasrec_full(13, 26)):
        times = measured(space, arguments)
        medians = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
        print(
            f"{space.name}, batch {arguments.batch_size}, {arguments.paths} paths; medians: building a path "
            f"{medians['build']:.1f} ms; a step: path {medians['path']:.1f}, subnet {medians['subnet']:.1f}, masked "
            f"{medians['masked']:.1f}, masked with unset gradients {medians['unset']:.1f} ms"
        )
        report("supernet step / extracted subnet's step", times["path"] / times["subnet"], "at most 1.1")
        report("masked supernet's step / supernet step", times["masked"] / times["path"], "at least 5")
        report("the same with unset gradients", times["unset"] / times["path"], "at least 5")


if __name__ == "__main__":
    main()
