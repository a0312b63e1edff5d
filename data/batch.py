"""The batch of images that every vision part of the project takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
