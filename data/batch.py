"""The batches that every part of the project takes and gives: of images, and of clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchrec import KeyedJaggedTensor  # seconds to import, and vision needs none of it


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Normalised RGB images [N, 3, H, W] float32, class labels [N] int64, positions in the ImageFolder [N] int64."""

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on a device; tensors that are there already are not copied."""
        return ImageBatch(self.images.to(device), self.labels.to(device), self.indices.to(device))


@dataclass(frozen=True, eq=False)
class ClickBatch:
    """Dense fields [N, D] float32, categorical fields, clicks [N] float32 (0 or 1).

    sparse: one key a field, in field order; one int64 id a sample, so values are [F * N], all of a field together.
    """

    dense: Tensor
    sparse: KeyedJaggedTensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ClickBatch:
        """The same batch on a device; tensors that are there already are not copied."""
        target = torch.device(device)
        return ClickBatch(self.dense.to(target), self.sparse.to(target), self.labels.to(target))
