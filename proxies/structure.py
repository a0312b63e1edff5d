"""What a network's structure and scales alone say: its size, which is what every other score has to beat.

    params              learnable scalars                                 higher is better
    macs                multiply-accumulates for one sample               higher is better
    num_layers          learnable tensors, VKDNW's aleph                  higher is better
    l2_norm             sum over layers of ||w||_2                        higher is better
    bn_indicator        sum over BatchNorms of mean_c |gamma_c|           higher is better
    bn_block_indicator  the same over each block's last BatchNorms        higher is better

MACs are those of convolutions and matrix products; biases, BatchNorm and activations count 0 (see supernet/cost.py).
"Number of trainable layers" is Tybl and Neumann's (VKDNW, arXiv 2503.22325) aleph; their code, ondratybl/VKDNW
@6901b65, counts parameter tensors, dead ones included, and so does this. l2_norm: Abdelfattah et al. (2021, arXiv
2101.08134).

The indicators are BNNAS's (arXiv 2108.07375), of a subnet of a supernet that was trained; on a fresh network they count
BatchNorms. Blocks are the children of the network's first ModuleList. A block may say which BatchNorms end it
(`last_bns()`, as the chain supernets' do: then this is the vision search's block_sum of the path); of any other it is
the last one. supernet/indicators.py has the layer indicators, and the rules that join both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, Setting, first_of
from subshot.proxies.measure import Proxy

EVAL = Setting(batch_norm="eval")


@dataclass(frozen=True)
class Size:
    params: int
    tensors: int
    weight_norms: tuple[float, ...]
    bn_scales: tuple[float, ...]
    """Mean absolute scale of each BatchNorm that has one."""
    block_scales: tuple[float, ...]
    """The same over the last BatchNorms of each block that has one."""


@dataclass(frozen=True)
class StructureReading:
    """`Size` of the network, without running it."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "nothing"

    @property
    def runner(self) -> Runner:
        return read_size


@dataclass(frozen=True)
class MacsReading:
    """Multiply-accumulates for one sample of the batch's shape."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward of one sample"

    @property
    def runner(self) -> Runner:
        return count_macs


def read_size(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    parameters = [parameter.detach() for parameter in model.parameters()]
    norms = [m.weight.detach() for m in model.modules() if isinstance(m, _BatchNorm) and m.affine]
    size = Size(
        params=sum(parameter.numel() for parameter in parameters),
        tensors=len(parameters),
        weight_norms=tuple(float(p.double().norm()) for p in parameters if p.ndim >= 2),
        bn_scales=tuple(float(scale.double().abs().mean()) for scale in norms),
        block_scales=tuple(_block_scales(model)),
    )
    return dict.fromkeys(readings, size)


def _block_scales(model: nn.Module) -> Iterator[float]:
    for block in next((list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)), []):
        norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.affine]
        ends: Callable[[], Sequence[nn.Module]] | None = getattr(block, "last_bns", None)
        last = norms[-1:] if ends is None else ends()
        if last:
            yield float(torch.cat([norm.get_parameter("weight").detach().double().abs() for norm in last]).mean())


def _matrix_vector_flops(matrix: torch.Size, vector: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * matrix.numel()


MATRIX_VECTOR = {torch.ops.aten.mv: _matrix_vector_flops}
"""Products that torch's counter leaves out."""


def count_macs(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    first = first_of(batch[0], 1)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=MATRIX_VECTOR) as counter,
    ):
        model(first)
    return dict.fromkeys(readings, counter.get_total_flops() // 2)


def _positive(count: float) -> float:
    if count <= 0:
        raise ProxyUndefined("the network has nothing of what this counts")
    return float(count)


PARAMS = Proxy("params", (StructureReading(),), lambda s: _positive(s.params), True, "-", layers="all parameters")
MACS = Proxy("macs", (MacsReading(),), _positive, True, "-", EVAL, "convolutions and matrix products")
NUM_LAYERS = Proxy(
    "num_layers",
    (StructureReading(),),
    lambda s: _positive(s.tensors),
    True,
    "Tybl and Neumann 2025, arXiv 2503.22325; parameter tensors, as ondratybl/VKDNW @6901b65 counts them",
    layers="all parameter tensors",
)
L2_NORM = Proxy(
    "l2_norm",
    (StructureReading(),),
    lambda s: _positive(math.fsum(s.weight_norms)),
    True,
    "Abdelfattah et al. 2021, arXiv 2101.08134",
)
BNNAS = "Chen et al. 2021 (BNNAS), arXiv 2108.07375; bychen515/BNNAS @6570c92"
BN_INDICATOR = Proxy(
    "bn_indicator",
    (StructureReading(),),
    lambda s: _positive(math.fsum(s.bn_scales)),
    True,
    BNNAS,
    layers="BatchNorms with a scale",
)
BN_BLOCK_INDICATOR = Proxy(
    "bn_block_indicator",
    (StructureReading(),),
    lambda s: _positive(math.fsum(s.block_scales)),
    True,
    BNNAS,
    layers="the last BatchNorms of each block",
)
