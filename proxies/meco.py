"""MeCo: the smallest eigenvalue of the correlations among a layer's channels, for one random image.

    score = sum over modules of lambda_min( correlations of the rows of the module's first output, [C, H W] )

Higher is better. Source: Jiang et al. (2023, "MeCo", NeurIPS), HamsterMimi/MeCo @0d830dd: one Gaussian image of 64 x 64
pixels, BatchNorm in train mode, every module that puts out a feature map, containers and the network itself among them
(so a block's last map counts as often as it is nested). Correlations that do not exist count 0, and so does a module
that puts out a single channel. The eigenvalues are of a symmetric matrix; the authors take a general solver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, Setting, hooked
from subshot.proxies.conditions import gaussian
from subshot.proxies.measure import Proxy

SIZE = 64


@dataclass(frozen=True)
class ChannelCorrelations:
    """The score, for an image of its own: of the batch only the number of channels is read."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = f"forward of one image of {SIZE} x {SIZE} pixels"

    @property
    def runner(self) -> Runner:
        return run_one_image


def run_one_image(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    images = batch[0]
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise ProxyUndefined("the inputs are no images [N, C, H, W]")
    generator = torch.Generator().manual_seed(seed)
    image = gaussian((1, images.shape[1], SIZE, SIZE), generator).to(images)
    values: list[float] = []

    def read(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            values.append(smallest_eigenvalue(output[0].detach()))

    with hooked([module.register_forward_hook(read) for module in model.modules()]), torch.no_grad():
        try:
            model(image)
        except (RuntimeError, ValueError, AssertionError) as error:
            model(images)  # where this fails too, the network does
            raise ProxyUndefined(f"the network takes no image of {SIZE} x {SIZE} pixels") from error
    if not values:
        raise ProxyUndefined("no module of the network puts out a feature map")
    return dict.fromkeys(readings, sum(values))


def smallest_eigenvalue(feature: Tensor) -> float:
    """Of the correlations of a map's channels, [C, H, W]; 0 to 1."""
    if len(feature) < 2 or feature[0].numel() < 2:
        return 0.0
    correlations = torch.corrcoef(feature.flatten(1)).nan_to_num(0.0, 0.0, 0.0)
    return float(torch.linalg.eigvalsh(correlations.double())[0])


PROXY = Proxy(
    "meco",
    (ChannelCorrelations(),),
    float,
    True,
    "Jiang et al. 2023 (NeurIPS); HamsterMimi/MeCo @0d830dd",
    Setting(inputs="gaussian"),
    "all modules that put out a feature map",
)
