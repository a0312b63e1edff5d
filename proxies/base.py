"""What a proxy is: a number that is measured on a network without training it, and leaves the network as it was.

A proxy reads a model (a plain network, or a bound subnet of a supernet) and a `Probe`: the batches, the loss and the
seed that it is measured with. Its BatchNorm mode, its labels and its direction belong to its definition. Where a score
does not exist (no ReLU, no gradient, a singular matrix), it raises `ProxyUndefined`; never NaN, infinity or a sentinel.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Any, Tensor]
"""Model inputs, and targets of shape [N]. A proxy that needs no labels never reads the targets."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(model outputs, targets) to the mean loss of the batch, a scalar."""


Saved = tuple[dict[Any, Any], dict[Any, Any]]
"""A table of a module, and what was in it."""


class ProxyUndefined(Exception):
    """This network has no such score; the message says why."""


@dataclass(frozen=True)
class Probe:
    """What a proxy measures with. The same probe gives the same score, whatever the global random state."""

    batches: tuple[Batch, ...]
    loss: Loss = F.cross_entropy
    seed: int = 0


@dataclass(frozen=True)
class Proxy:
    """A named measurement, `fn(model, probe) -> score`.

    maximize: higher scores are better. min_batches: how many batches `fn` reads. needs_labels: it reads the targets.
    source: paper, and the public code that `fn` agrees with or departs from.
    """

    name: str
    fn: Callable[[nn.Module, Probe], float]
    maximize: bool
    min_batches: int
    needs_labels: bool
    source: str

    def __call__(self, model: nn.Module, probe: Probe) -> float:
        """The score; the model and the global random states are untouched, also where this raises.

        Works under `no_grad` and `inference_mode`. Raises ProxyUndefined where the network has no such score, and
        ValueError where the probe has too few batches.
        """
        if len(probe.batches) < self.min_batches:
            raise ValueError(f"{self.name} reads {self.min_batches} batches; the probe has {len(probe.batches)}")
        with torch.inference_mode(False), torch.enable_grad(), preserved(model):
            torch.manual_seed(probe.seed)
            score = self.fn(model, probe)
        if not math.isfinite(score):
            raise ProxyUndefined(f"{self.name} is {score}")
        return score


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Whatever the block does to the model, afterwards it is as before; so are the global random states.

    Covered: parameters and buffers (identity, dtype, device, values), gradients, requires_grad, training modes, module
    hooks, and the states of `random`, numpy and torch on every device. Inside, gradients start as None. Costs one copy
    of the model's tensors. Not covered: submodules that the block adds or removes, and hooks on tensors.
    """
    modules = list(model.modules())
    tables: list[Saved] = [(t, dict(t)) for module in modules for t in (module._parameters, module._buffers)]
    modes = [(module, module.training) for module in modules]
    hooks: list[Saved] = [(table, dict(table)) for module in modules for table in _hook_tables(module)]
    tensors = {id(t): t for _, saved in tables for t in saved.values() if isinstance(t, Tensor)}
    values = [(tensor, tensor.data, tensor.data.clone()) for tensor in tensors.values()]
    gradients = [(tensor, tensor.grad, tensor.requires_grad) for tensor in tensors.values() if tensor.is_leaf]
    states = _random_states()
    try:
        for tensor, _, _ in gradients:
            tensor.grad = None
        yield
    finally:
        for table, saved in (*tables, *hooks):
            table.clear()
            table.update(saved)
        for tensor, data, copy in values:
            tensor.data = data
            data.copy_(copy)
        for tensor, gradient, wanted in gradients:
            tensor.grad = gradient
            tensor.requires_grad_(wanted)
        for module, training in modes:
            module.training = training
        _restore_random_states(states)


def _hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The dictionaries in which torch keeps a module's forward and backward hooks and their options."""
    return [table for name, table in vars(module).items() if "_hooks" in name and isinstance(table, dict)]


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda  # noqa: NPY002


def _restore_random_states(states: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def hooked(handles: list[Any]) -> Iterator[None]:
    """Removes the hooks at the end; `handles` are what torch's `register_*_hook` gave."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def weight_layers(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The layers whose weights the gradient proxies read, in the order of `modules()`; each once."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def weight_gradients(model: nn.Module, batch: Batch, loss: Loss) -> list[Tensor | None]:
    """Gradients of the batch's mean loss by every convolution and linear weight, frozen ones included.

    None for a weight that the loss does not depend on. The model's own `.grad` is not used. Raises ProxyUndefined where
    the model has no such weight or the loss depends on none.
    """
    weights = [layer.weight.requires_grad_(True) for layer in weight_layers(model)]
    if not weights:
        raise ProxyUndefined("the network has no convolution and no linear layer")
    inputs, targets = batch
    value = loss(model(inputs), targets)
    if not value.requires_grad:
        raise ProxyUndefined("the loss depends on no convolution or linear weight")
    return list(torch.autograd.grad(value, weights, allow_unused=True))
