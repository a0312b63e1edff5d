"""The sub-one-shot protocol for stand-alone networks: a short training before the scores are measured.

One pass over a share of the training images, without augmentation: SGD with Nesterov momentum 0.9 and a constant
learning rate. (SiGeo's public code takes ten passes at a learning rate of 1 without momentum.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEARNING_RATE = 0.05
MOMENTUM = 0.9


class WarmupFailed(Exception):
    """The training went astray; the message says where."""


@dataclass(frozen=True)
class WarmupImages:
    """Standardised images float32 [n, 3, H, W] in the order in which they are seen, labels int64 [n], and how many a
    step takes."""

    images: Tensor
    labels: Tensor
    batch_size: int


def warm_up(model: nn.Module, data: WarmupImages) -> None:
    """One pass, in place; what is left over of the last batch is not seen. Without images the network stays as it is.

    Raises WarmupFailed where the loss is not finite any more.
    """
    if len(data.images) < data.batch_size:
        return
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    model.train()
    for start in range(0, len(data.images) - data.batch_size + 1, data.batch_size):
        some = slice(start, start + data.batch_size)
        images = data.images[some].contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(images), data.labels[some])
        if not loss.requires_grad or not torch.isfinite(loss):
            raise WarmupFailed(f"the loss of the warm-up is {loss.item()} at step {start // data.batch_size}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
