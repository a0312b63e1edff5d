"""What a proxy is: a number that is measured on a network without training it, and leaves the network as it was.

A proxy says what it reads (`Reading`s, each taken in one pass over the network), under which conditions (`Setting`: the
weights, BatchNorm's mode, the inputs), and the formula that makes a score of what was read. `measure` takes the
readings of several proxies together, so that passes are shared. Where a score does not exist (no ReLU, no gradient, a
singular matrix), there is a `ProxyUndefined` with the reason; never NaN, infinity or a sentinel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

Batch = tuple[Any, Tensor]
"""Model inputs, and targets of shape [N]. A proxy that needs no labels never reads the targets."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(model outputs, targets) to the mean loss of the batch, a scalar."""

Weights = Literal["given", "kaiming_fan_in", "kaiming_fan_out", "gaussian", "absolute"]
BatchNormMode = Literal["train", "eval", "single", "bypassed"]
Inputs = Literal["given", "gaussian", "ones"]

Saved = tuple[dict[Any, Any], dict[Any, Any]]
"""A table of a module, and what was in it."""


class ProxyUndefined(Exception):
    """This network has no such score; the message says why."""


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement.

    weights: "given": as they are. "kaiming_fan_in", "kaiming_fan_out": convolution and linear weights drawn from
        N(0, 2 / fan). "gaussian": from N(0, 1). All three with biases 0 and BatchNorm scales 1, shifts 0, drawn from
        the seed. "absolute": the absolute values of what is given, in float64.
    batch_norm: "train": the batch's statistics, and the whole network in train mode. "eval": the running statistics,
    and
        the whole network in eval mode; at their initial (0, 1) that is next to no normalisation. "single": each
        sample's own statistics, as in train mode with a batch of one. "bypassed": the identity, as are ReLUs (see
        synflow.py).
    inputs: "given": the batches. "gaussian": N(0, 1) of the same shapes, from the seed. "ones": a single sample of
    ones.
    """

    weights: Weights = "given"
    batch_norm: BatchNormMode = "train"
    inputs: Inputs = "given"

    def __post_init__(self) -> None:
        for name, allowed in (("weights", Weights), ("batch_norm", BatchNormMode), ("inputs", Inputs)):
            if getattr(self, name) not in get_args(allowed):
                words = ", ".join(get_args(allowed))
                raise ValueError(f"Setting: {name} cannot be {getattr(self, name)!r}; allowed: {words}")


@dataclass(frozen=True)
class Probe:
    """What a proxy measures with. The same probe gives the same score, whatever the global random state."""

    batches: tuple[Batch, ...]
    loss: Loss = F.cross_entropy
    seed: int = 0


class Reading(Protocol):
    """Something that one pass reads off a network; frozen, so that equal readings are taken once.

    batch: which of the batches, from 0. needs_labels: it reads the targets. cost: what it adds to the pass, in words.
    """

    needs_labels: ClassVar[bool]
    cost: ClassVar[str]

    @property
    def batch(self) -> int: ...

    @property
    def runner(self) -> Runner:
        """Takes this reading and all others of the same runner, setting and batch in one pass."""
        ...


class Runner(Protocol):
    """Takes readings of one batch off a network that is set up already; a reading that has no value gets its
    ProxyUndefined. `seed` is the measurement's."""

    def __call__(
        self, model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Any], seed: int
    ) -> Mapping[Reading, Any]: ...


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
    """Removes the hooks at the end, those that `handles` got meanwhile too; they are what torch's `register_*_hook`
    gave.

    A hook on a tensor that keeps what knows of the tensor's graph must go, or the graph is never freed: the garbage
    collector cannot see through torch's part of that circle.
    """
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def forwards_replaced(changes: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Inside, the modules compute what is given; one that had a forward of its own, put upon it, has it back."""
    before = {module: vars(module)["forward"] for module in changes if "forward" in vars(module)}
    try:
        for module, forward in changes.items():
            module.forward = forward
        yield
    finally:
        for module in changes:
            vars(module).pop("forward", None)
        for module, forward in before.items():
            module.forward = forward


def weights_of(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Names and values of the parameters that "weights" means everywhere: those of two or more dimensions, each once.

    In networks of convolutions and linear layers these are their weights, as in the public code; NASRec's layers, which
    own their weights otherwise, are covered too. Raises ProxyUndefined where there is none.
    """
    found: list[tuple[str, Tensor]] = [(name, p) for name, p in model.named_parameters() if p.ndim >= 2]
    if not found:
        raise ProxyUndefined("the network has no weight of two or more dimensions")
    return found


def floats(inputs: Any) -> list[Tensor]:
    """The floating tensors of an input, which may be nested in tuples."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.is_floating_point() else []
    return [tensor for item in inputs for tensor in floats(item)] if isinstance(inputs, tuple | list) else []


def first_of(inputs: Any, count: int) -> Any:
    """The first samples of an input, which may be nested in tuples."""
    return tree_map(lambda x: x[:count], detached(inputs))


def detached(inputs: Any) -> Any:
    return tree_map(lambda x: x.detach(), inputs)
