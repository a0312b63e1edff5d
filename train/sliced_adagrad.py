"""Adagrad for supernets whose paths are views: a step costs the size of the path, not of the supernet.

A path's parameters are slices that share storage with the supernet's weights (see subshot.supernet.nasrec_supernet).
The sum of squared gradients is kept at full size beside every weight, and is sliced in the same way, so entries that a
path does not use are neither read nor written. That is exactly torch.optim.Adagrad with zero gradients elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class SlicedAdagrad:
    """Holds the accumulators of `parameters`; `follow` says which views of them the next step moves.

    Source: Duchi, Hazan, Singer, Adaptive Subgradient Methods, JMLR 2011; eps is added to the root, as torch does.
    Every parameter must have its own storage.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], learning_rate: float, eps: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": learning_rate}]
        self.eps = eps
        self._accumulators = {name: torch.zeros_like(weight) for name, weight in parameters.items()}
        self._names = {weight.untyped_storage().data_ptr(): name for name, weight in parameters.items()}
        self._origins = {name: weight.storage_offset() for name, weight in parameters.items()}
        assert len(self._names) == len(self._accumulators), "two parameters share a storage"
        self._followed: list[nn.Parameter] = []

    def follow(self, path: Iterable[nn.Parameter]) -> None:
        """The parameters of the network that the next steps train: views of the supernet's."""
        self._followed = list(path)

    def accumulator(self, view: Tensor) -> Tensor:
        """The part of the accumulators that belongs to a view, as a view; in place changes stay."""
        name = self._names[view.untyped_storage().data_ptr()]
        offset = view.storage_offset() - self._origins[name]
        return self._accumulators[name].as_strided(view.shape, view.stride(), offset)

    @torch.no_grad()
    def step(self) -> None:
        """Moves the followed parameters that have a gradient."""
        views = [parameter for parameter in self._followed if parameter.grad is not None]
        if not views:
            return
        gradients = [view.grad for view in views if view.grad is not None]
        sums = [self.accumulator(view) for view in views]
        torch._foreach_addcmul_(sums, gradients, gradients)
        roots = torch._foreach_sqrt(sums)
        torch._foreach_add_(roots, self.eps)
        weights: list[Tensor] = list(views)
        torch._foreach_addcdiv_(weights, gradients, roots, value=-self.param_groups[0]["lr"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self._followed:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"accumulators": self._accumulators}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError or RuntimeError where the state is of another supernet."""
        for name, accumulator in self._accumulators.items():
            accumulator.copy_(state["accumulators"][name])
