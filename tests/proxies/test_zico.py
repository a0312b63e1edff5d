"""Sums over blocks of gradients, against NumPy over all of them. ZiCo itself is in test_formulas and test_golden."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from subshot.proxies.base import ProxyUndefined
from subshot.proxies.zico import BLOCK, Steadiness, SteadinessSum, blocks


def steadiness(gradients: Tensor, sizes: list[int]) -> Steadiness:
    total = SteadinessSum(sizes)
    for block in blocks([[row] for row in gradients]):
        total.add(block)
    return total.result()


def test_blocks_hold_every_column_once() -> None:
    sizes = [3, BLOCK - 1, 2 * BLOCK + 5, 1, 7]
    rows = [[torch.randn(size) for size in sizes] for _ in range(3)]
    found = list(blocks(rows))
    assert [block.shape[1] for block in found[:-1]] == [BLOCK] * 3
    assert torch.equal(torch.cat(found, dim=1), torch.stack([torch.cat(row) for row in rows]))
    assert list(blocks([[], []])) == []


@pytest.mark.parametrize("count", [2, 3, 4])
def test_steadiness_over_many_blocks_and_scales(count: int) -> None:
    """Gradients of all sizes, and equal ones: an entry whose gradients are the same is dropped, however it rounds."""
    generator = torch.Generator().manual_seed(count)
    sizes = [7, 40_000, 33_000, 1]
    gradients = torch.randn(count, sum(sizes), generator=generator)
    gradients *= 10.0 ** torch.randint(-30, 10, (sum(sizes),), generator=generator)
    gradients[:, ::5] = gradients[0, ::5].clone()
    gradients[:, -1] = 0.1
    for kind in (torch.float32, torch.float64):
        values = gradients.to(kind)
        found = steadiness(values, sizes)
        logs = []
        for part in np.split(values.double().numpy(), np.cumsum(sizes)[:-1], axis=1):
            varies = np.ptp(part, axis=0) > 0
            if varies.any():
                chosen = part[:, varies]
                logs.append(math.log(math.fsum(np.abs(chosen).mean(axis=0) / np.std(chosen, axis=0))))
        assert found.log_ratios == pytest.approx(sum(logs), rel=1e-12 if kind == torch.float64 else 1e-8)
        assert (found.num_modules, found.num_dropped) == (3, int((values[:, ::5].numel() / count) + 1))


def test_steadiness_refuses_infinite_gradients() -> None:
    with pytest.raises(ProxyUndefined, match="not finite"):
        steadiness(torch.tensor([[1.0, math.inf], [2.0, math.inf]]), [2])
