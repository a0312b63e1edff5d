"""Fisher: how much the loss would change if a channel were cut off.

    D_c = 1/2 mean_n ( sum over positions of a_nc dL/da_nc )^2,      a = what a convolution or linear layer puts out

    fisher               sum over channels c of D_c times the number of weights that c has
    fisher_channel_sum   sum over channels of D_c                                                  higher is better

L is the mean loss of one labelled batch, BatchNorm in train mode. Source: Theis et al. (2018, arXiv 1801.05787), Turner
et al. (2020, arXiv 1906.04113); as a proxy Abdelfattah et al. (2021, arXiv 2101.08134). Their code, SamsungLabs/
zero-cost-nas @a43bfbc, repeats a channel's value over its weights before it adds up; that weighting by fan-in is what
published correlations are of, so it keeps the name; the sum without it is the second score.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from subshot.proxies.base import ProxyUndefined
from subshot.proxies.batch_pass import Graph, LayerOutputs, OfBatch, Tape, layer_outputs
from subshot.proxies.measure import Proxy


@dataclass
class ChannelSums:
    """Sums of D_c, plain and repeated over weights, while the loss is walked back."""

    model: nn.Module
    products: dict[str, Tensor] = field(default_factory=dict)
    """By layer, sum over positions of a dL/da, float64 [N, C]; a layer that is called twice adds up."""

    def __call__(self, name: str, output: Tensor, gradient: Tensor) -> None:
        axis = 1 if isinstance(self.model.get_submodule(name), nn.modules.conv._ConvNd) else output.dim() - 1
        others = [d for d in range(1, output.dim()) if d != axis]
        product = (output * gradient).sum(dim=others) if others else output * gradient
        self.products[name] = self.products[name] + product.double() if name in self.products else product.double()


@dataclass(frozen=True)
class ChannelSaliency(OfBatch):
    """(repeated over weights, plain) sums of D_c."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward; backward of the loss to the layers' outputs"
    graph: ClassVar[Graph] = "inputs"

    def watch(self, model: nn.Module) -> AbstractContextManager[LayerOutputs]:
        return layer_outputs(model, ChannelSums(model))

    def value(self, watched: LayerOutputs, tape: Tape) -> tuple[float, float]:
        tape.walk_loss_back()
        if watched.overwritten:
            raise ProxyUndefined(f"what layer {watched.overwritten[0]} puts out is overwritten in place by a function")
        sums: ChannelSums = watched.collect
        if not sums.products:
            raise ProxyUndefined("the loss depends on no convolution and no linear layer")
        repeated = plain = 0.0
        for name, products in sums.products.items():
            layer: Any = tape.model.get_submodule(name)
            value = float(products.square().mean(dim=0).sum()) / 2
            repeated += value * (layer.weight.numel() // products.shape[1])
            plain += value
        return repeated, plain


SOURCE = "Turner et al. 2020, arXiv 1906.04113; Abdelfattah et al. 2021, arXiv 2101.08134"
LAYERS = "convolutions and linear layers"
PROXY = Proxy("fisher", (ChannelSaliency(),), lambda sums: sums[0], True, SOURCE, layers=LAYERS)
CHANNEL_SUM = Proxy("fisher_channel_sum", (ChannelSaliency(),), lambda sums: sums[1], True, SOURCE, layers=LAYERS)
