"""A CTR network and its tables as one module that needs torch alone, with float32 or int8 tables.

(dense [N, D], ids [N, F] int64) to probabilities [N]. Every field has one id, so its table is a row lookup: a Gather in
ONNX, where an EmbeddingBag would become a loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FloatTable(nn.Module):
    """weight [rows, width]."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


class Int8Table(nn.Module):
    """Rows of 8-bit codes, each row with its own scale and bias: value = code * scale + bias.

    codes [rows, width] uint8, scale_bias [rows, 2] float32. The bias is a row's minimum, the scale its span / 255, as
    in fbgemm's FloatToFused8BitRowwiseQuantized; torchrec's quantised tables keep scale and bias in 16 bits.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        low, high = weight.amin(dim=1, keepdim=True), weight.amax(dim=1, keepdim=True)
        span = high - low
        inverse = 255.0 / (span + 1e-8)
        codes = ((weight - low) * inverse).round().clamp(0, 255).to(torch.uint8)
        self.register_buffer("codes", codes)
        self.register_buffer("scale_bias", torch.cat((span / 255.0, low), dim=1))
        self.codes: Tensor
        self.scale_bias: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        scale, bias = F.embedding(ids, self.scale_bias).unbind(dim=-1)
        return F.embedding(ids, self.codes) * scale.unsqueeze(-1) + bias.unsqueeze(-1)


def table_name(field: str) -> str:
    """Of a module: a field may be called type, or items, which modules have already."""
    return f"table_{field}"


class ServedNetwork(nn.Module):
    """network: (dense, embedded [N, F, width]) to logits [N]. tables: by field, in the order of the ids."""

    def __init__(self, network: nn.Module, tables: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.network = network
        self.tables = nn.ModuleDict({table_name(field): table for field, table in tables.items()})

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        looked_up = [table(ids[:, place]) for place, table in enumerate(self.tables.values())]
        return torch.sigmoid(self.network((dense, torch.stack(looked_up, dim=1))))


def served(
    network: nn.Module, weights: Mapping[str, Tensor], fields: Sequence[str], int8: bool = False
) -> ServedNetwork:
    """weights: "<field>.weight" of every field."""
    kind = Int8Table if int8 else FloatTable
    return ServedNetwork(network, {name: kind(weights[f"{name}.weight"]) for name in fields}).eval()
