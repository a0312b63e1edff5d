"""The running average of a network's weights and statistics that is evaluated and saved in the place of the last
ones."""

from __future__ import annotations

import copy

import torch
from torch import nn


class RunningAverage:
    """average <- d * average + (1 - d) * network, after every step, over floating-point parameters and buffers.

    d is min(decay, (1 + t) / (10 + t)) at step t, so that a short training is not averaged with its initial weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1.0 - decay)
            else:
                mine.copy_(theirs)
