"""Linear regions: how many different switching patterns a network's ReLUs show for the samples.

    score = sum over samples of 1 / (number of samples that switch all ReLUs alike) = number of distinct patterns

Higher is better. Source: Chen et al. (2021, "TE-NAS", arXiv 2102.11535); VITA-Group/TENAS @9df78ff (whose file fails in
current torch): ReLUs over feature maps, Kaiming initialisation by fan-in, BatchNorm in train mode, no labels.

A network of full size never switches two images alike: the score is then the number of samples, for every network. The
authors count over 3,000 crops of 3 x 3 pixels of one channel, on a network of one channel and no stem.
`linear_regions(crop=4)` counts over the central 4 x 4 pixels of each image; the network must be as thin as theirs for
this to say something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, Setting, hooked
from subshot.proxies.measure import Proxy
from subshot.proxies.naswot import RELUS


@dataclass(frozen=True)
class Regions:
    """Switching patterns over crops of `crop` pixels a side (None: whole images), packed to bytes, [N, bytes]."""

    crop: int | None = None
    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward of crops"

    @property
    def runner(self) -> Runner:
        return run_crops


def run_crops(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Regions], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    if not isinstance(batch[0], Tensor) or batch[0].dim() != 4:
        raise ProxyUndefined("the inputs are no images [N, C, H, W]")
    return {one: patterns(model, cropped(batch[0], one.crop)) for one in readings}


def cropped(images: Tensor, size: int | None) -> Tensor:
    """The central size x size pixels."""
    if size is None:
        return images
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def patterns(model: nn.Module, images: Tensor) -> Tensor:
    """Signs of all ReLU inputs over feature maps, packed to bytes, [N, bytes]."""
    rows: list[Tensor] = []

    def pack(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].dim() == 4:
            on = (args[0].detach() > 0).flatten(1)
            on = torch.nn.functional.pad(on, (0, -on.shape[1] % 8)).view(len(on), -1, 8).to(torch.uint8)
            rows.append((on << torch.arange(8, dtype=torch.uint8, device=on.device)).sum(dim=2, dtype=torch.uint8))

    with hooked([m.register_forward_pre_hook(pack) for m in model.modules() if isinstance(m, RELUS)]), torch.no_grad():
        model(images)
    if not rows:
        raise ProxyUndefined("the network runs no ReLU module over feature maps, so it has no linear regions to count")
    return torch.cat(rows, dim=1)


def count_distinct(*by_batch: Tensor) -> float:
    """Of the patterns of all batches together."""
    return float(len(torch.cat(by_batch).unique(dim=0)))


def linear_regions(num_batches: int = 1, crop: int | None = None) -> Proxy:
    """The number of distinct patterns over so many batches, each of which passes through the network by itself."""
    return Proxy(
        "linear_regions",
        tuple(Regions(crop, batch) for batch in range(num_batches)),
        count_distinct,
        True,
        "Chen et al. 2021, arXiv 2102.11535; VITA-Group/TENAS @9df78ff",
        Setting(weights="kaiming_fan_in"),
        "inputs of ReLU modules over feature maps",
    )


PROXY = linear_regions()
