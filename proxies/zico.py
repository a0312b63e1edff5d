"""ZiCo: how steady a layer's gradients are from batch to batch.

    score = sum over layers of log( sum over weights of mean_b |g_b| / std_b(g_b) ),     higher is better

g_b is the gradient of batch b's mean loss at unchanged weights. Source: Li et al. (2023, arXiv 2301.11300), as
SLDGroup/ZiCo @b0fec65 computes it: the deviation is of the signed gradient over the batches, divided by their number.
Weights of standard deviation zero are left out, and so are layers without any other, and those that a batch's loss does
not depend on (at which the authors' code stops). BatchNorm in train mode, labels. With two batches
the deviation |g_1 - g_2| / 2 can be tiny and the score is rough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from subshot.proxies.base import ProxyUndefined
from subshot.proxies.batch_pass import LossGradients
from subshot.proxies.measure import Proxy

BLOCK = 32_768

Gradients = Mapping[str, Tensor | None]
"""Of one batch, by name of parameter; None where the loss does not depend on it."""


@dataclass(frozen=True)
class Steadiness:
    """The sum over modules of log(sum over entries of mean_b |g_b| / std_b(g_b)), and what went into it.

    num_modules: modules with an entry that varies; the others add nothing. num_dropped: entries that do not vary.
    """

    log_ratios: float
    num_modules: int
    num_dropped: int


class SteadinessSum:
    """Adds up a `Steadiness` over blocks of entries, which belong to modules of these sizes, one after the other.

    correction: what is taken from N in the variance of the signed gradient: 0 as in ZiCo's NumPy, 1 as torch.std has
    it; the second lowers each module's term by log(N / (N - 1)) / 2.
    """

    def __init__(self, sizes: Sequence[int], correction: int = 0) -> None:
        self.correction = correction
        self.sums = [0.0] * len(sizes)
        self.left = list(sizes)
        self.module = 0
        self.dropped = 0

    def add(self, gradients: Tensor) -> None:
        """The next entries, [N batches, entries], N >= 2."""
        ratios, equal = entry_ratios(gradients, self.correction)
        self.dropped += equal
        while len(ratios) > 0:
            taken = min(len(ratios), self.left[self.module])
            self.sums[self.module] += float(ratios[:taken].sum())
            self.left[self.module] -= taken
            self.module += self.left[self.module] == 0
            ratios = ratios[taken:]

    def result(self) -> Steadiness:
        """Raises ProxyUndefined for a gradient that was not finite, and where no entry varies."""
        assert not any(self.left), "every entry of every module was added"
        if not math.isfinite(math.fsum(self.sums)):
            raise ProxyUndefined("a gradient is not finite")
        logs = [math.log(total) for total in self.sums if total > 0.0]
        if not logs:
            raise ProxyUndefined("no gradient varies from batch to batch")
        return Steadiness(math.fsum(logs), len(logs), self.dropped)


def entry_ratios(gradients: Tensor, correction: int = 0) -> tuple[Tensor, int]:
    """(mean_b |g_b| / std_b(g_b) of gradients [N, entries], in float64; how many entries have N equal gradients).

    The ratio is 0 where all N are equal, and not finite where one is not. Deviations are taken from the first batch's
    gradient, so that equal ones are exactly 0; their squares are float64's, where those of small numbers are not 0.
    """
    count = len(gradients)
    offsets = (gradients[1:] - gradients[0]).double()
    total = offsets.sum(dim=0)
    squares = offsets.square_().sum(dim=0).sub_(total.square_().div_(count))
    equal = squares.numel() - int(squares.count_nonzero())
    sizes = gradients.abs().sum(dim=0).double()
    scale = math.sqrt(count - correction) / count
    ratios = squares.rsqrt().mul_(sizes).mul_(scale)
    return (ratios.masked_fill_(squares == 0, 0.0) if equal else ratios), equal


def blocks(rows: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
    """Rows of tensors of equal shapes, flattened side by side, in blocks of columns [rows, at most BLOCK entries].

    Blocks are so small that a core's cache holds what is computed from them. No tensors, no blocks.
    """
    flat = [[tensor.flatten() for tensor in row] for row in rows]
    pieces: list[tuple[int, int, int]] = []
    room = BLOCK
    for number, tensor in enumerate(flat[0]):
        start = 0
        while start < len(tensor):
            stop = min(len(tensor), start + room)
            pieces.append((number, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield _joined(flat, pieces)
                pieces, room = [], BLOCK
    if pieces:
        yield _joined(flat, pieces)


def _joined(flat: Sequence[Sequence[Tensor]], pieces: Sequence[tuple[int, int, int]]) -> Tensor:
    return torch.stack([torch.cat([row[number][start:stop] for number, start, stop in pieces]) for row in flat])


def zico(*by_batch: Gradients, std_of_magnitudes: bool = False) -> float:
    """The score of the weights' gradients of each batch, by name. Raises ProxyUndefined where no gradient varies.

    std_of_magnitudes: the deviation of |g| instead of g, a reading of the published formula.
    """
    rows = [
        [gradient for gradient in column if gradient is not None]
        for column in zip(*(weight_gradients(gradients) for gradients in by_batch), strict=True)
    ]
    layers = [row for row in rows if len(row) == len(by_batch)]
    steadiness = SteadinessSum([layer[0].numel() for layer in layers])
    for block in blocks(list(zip(*layers, strict=True))):
        steadiness.add(block.abs() if std_of_magnitudes else block)
    return steadiness.result().log_ratios


def weight_gradients(gradients: Gradients) -> list[Tensor | None]:
    """Those of weights of two or more dimensions, in the order of the parameters; None where there is none."""
    return [g if g is None or g.ndim >= 2 else None for g in gradients.values()]


def zico_over(num_batches: int) -> Proxy:
    """ZiCo over so many batches, at least two."""
    if num_batches < 2:
        raise ValueError(f"ZiCo compares batches: num_batches is {num_batches}, and must be at least 2")
    readings = tuple(LossGradients(batch) for batch in range(num_batches))
    return Proxy("zico", readings, zico, True, "Li et al. 2023, arXiv 2301.11300; SLDGroup/ZiCo @b0fec65")


PROXY = zico_over(2)
