"""Gradients of single samples, read layer by layer while one backward pass of the whole batch goes by.

Where samples do not meet (BatchNorm in eval mode, or each sample by its own statistics), the gradient of a layer's
output belongs to the sample alone, and with the layer's input it gives that sample's gradient by the layer's weights
(proxies/sample_layers.py). Layers of other kinds are covered by torch.func instead, which takes longer and holds more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, detached, floats, hooked
from subshot.proxies.conditions import normalises_alone
from subshot.proxies.sample_layers import Call, Chunk, is_covered, sample_gradients

Scope = Literal["weights", "named_weight", "all"]
"""Parameters of two or more dimensions, those whose name ends in "weight" (BatchNorm's scales too), or all."""

Of = Literal["loss", "outputs"]
"""Gradients of each sample's own loss, or of the sum of its outputs."""

Emit = Callable[[str, Chunk], None]

MAX_HELD = 2**27
"""Entries of single samples' gradients that the way through torch.func holds at once."""


class Accumulator(Protocol):
    def add(self, chunk: Chunk) -> None:
        """Some entries of the gradients of all samples; each entry comes once."""
        ...

    def value(self) -> Any: ...


class SampleReading(Reading, Protocol):
    """A reading of `run_samples`: what is added up over all entries of the samples' gradients."""

    of: ClassVar[Of]
    scope: Scope

    def accumulator(self, count: int, targets: Tensor) -> Accumulator: ...


@dataclass(frozen=True)
class OfSampleLosses:
    """What readings of the samples' own losses share."""

    scope: Scope = "weights"
    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward; backward of the loss, read by sample"
    of: ClassVar[Of] = "loss"

    @property
    def runner(self) -> Runner:
        return run_samples


def in_scope(scope: Scope, name: str, parameter: Tensor) -> bool:
    if scope == "weights":
        return parameter.ndim >= 2
    return scope == "all" or name.rpartition(".")[2] == "weight"


def run_samples(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[SampleReading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner. The gradients are of each sample's own loss, or of the sum of its outputs."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if any(module.training and not normalises_alone(module) for module in norms):
        raise ProxyUndefined(
            "no sample has a gradient of its own where BatchNorm is in train mode; take the setting batch_norm "
            '"eval" or "single"'
        )
    model.requires_grad_(False)
    inputs, targets = batch
    values: dict[Reading, Any] = {}
    for of in dict.fromkeys(reading.of for reading in readings):
        chosen = [reading for reading in readings if reading.of == of]
        wanted = {
            name: parameter
            for name, parameter in model.named_parameters()
            if any(in_scope(reading.scope, name, parameter) for reading in chosen)
        }
        if not wanted:
            raise ProxyUndefined("the network has no parameter that this reads")
        sums = [(reading, reading.accumulator(len(targets), targets)) for reading in chosen]

        read_samples(model, inputs, targets, loss, of, wanted, partial(_add, sums, wanted), seed)
        values |= {reading: one.value() for reading, one in sums}
    return values


def _add(
    sums: Sequence[tuple[SampleReading, Accumulator]], wanted: Mapping[str, Tensor], name: str, chunk: Chunk
) -> None:
    for reading, one in sums:
        if in_scope(reading.scope, name, wanted[name]):
            one.add(chunk)


def read_samples(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    loss: Loss,
    of: Of,
    wanted: Mapping[str, Tensor],
    emit: Emit,
    seed: int,
) -> None:
    """Calls `emit` with every entry of the wanted parameters' gradients by each sample, by the parameter's name."""
    owners = owners_of(model, wanted)
    if owners is not None:
        walk = Walk(wanted, owners, emit)
        with hooked(walk.hooks):
            total = walk.forward(model, inputs, targets, loss, of)
            if walk.saw_all(total):
                walk.back(total)
                return
        model.requires_grad_(False)
    torch.manual_seed(seed)
    _read_by_transforms(model, inputs, targets, loss, of, wanted, emit)


def owners_of(model: nn.Module, wanted: Mapping[str, Tensor]) -> dict[str, nn.Module] | None:
    """The module of each wanted parameter; None where one has no covered module of its own."""
    names = defaultdict(list)
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            names[id(parameter)].append((path, name, module))
    owners = {}
    for name, parameter in wanted.items():
        if len(names[id(parameter)]) != 1 or not is_covered(names[id(parameter)][0][2]):
            return None
        owners[name] = names[id(parameter)][0][2]
    return owners


def uses_of(total: Tensor) -> tuple[set[Any], Counter[int]]:
    """The nodes of the graph that a tensor comes from, and how often each leaf is used in it, by the leaf's id."""
    nodes: set[Any] = set()
    uses: Counter[int] = Counter()
    todo: list[Any] = [total.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for following, _ in node.next_functions:
            if hasattr(following, "variable"):
                uses[id(following.variable)] += 1
            else:
                todo.append(following)
    return nodes, uses


class Walk:
    """One forward pass with the layers' inputs kept, and one backward pass that is read as it goes by.

    The wanted parameters take part in the graph, which tells whether the network uses them in another way than by
    calling their modules; but the backward pass does not go to them.
    """

    def __init__(self, wanted: Mapping[str, Tensor], owners: Mapping[str, nn.Module], emit: Emit) -> None:
        self.emit = emit
        self.wanted = wanted
        self.names: dict[nn.Module, list[str]] = defaultdict(list)
        for name in wanted:
            self.names[owners[name]].append(name)
        self.samples, self.strange = 0, False
        self.count: Counter[nn.Module] = Counter()
        self.nodes: dict[nn.Module, list[Any]] = defaultdict(list)
        self.leaves: list[Tensor] = []
        self.hooks: list[Any] = []
        self.calls: dict[nn.Module, list[Call]] = defaultdict(list)

    def forward(self, model: nn.Module, inputs: Any, targets: Tensor, loss: Loss, of: Of) -> Tensor:
        """The sum of the samples' losses, or of their outputs."""
        self.samples = len(targets)
        self.leaves.extend(floats(inputs))
        for tensor in (*self.leaves, *self.wanted.values()):
            tensor.requires_grad_(True)
        with hooked([module.register_forward_hook(self._watch, prepend=True) for module in self.names]):
            return summed(model(inputs), targets, loss, of)

    def _watch(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled() or not args or len(args[0]) != self.samples:
            self.strange = True
            return None
        self.count[module] += 1
        x, version = args[0].detach(), args[0]._version
        changed = None
        if args[0].requires_grad:
            self.nodes[module].append(output.grad_fn)
        else:  # a constant, behind which there is nothing to walk back to
            self.leaves.append(output.detach().requires_grad_(True))
            changed = output = self.leaves[-1].clone()

        def read(gradient: Tensor) -> None:
            if x._version != version:
                raise ProxyUndefined("the input of a layer is overwritten in place before its gradient is taken")
            self.calls[module].append((x, gradient.detach()))
            if len(self.calls[module]) == self.count[module]:
                self._emit(module)

        self.hooks.append(output.register_hook(read))
        return changed

    def saw_all(self, total: Tensor) -> bool:
        """Whether the wanted parameters act on the total by calls of their modules alone, each with all samples."""
        if self.strange:
            return False
        nodes, uses = uses_of(total)
        called = {module: sum(node in nodes for node in found) for module, found in self.nodes.items()}
        return all(
            uses[id(self.wanted[name])] == called.get(module, 0)
            for module, names in self.names.items()
            for name in names
        )

    def back(self, total: Tensor) -> None:
        if total.requires_grad and self.leaves:
            torch.autograd.backward(total, inputs=self.leaves)
        for module in list(self.calls):  # some of their calls led nowhere
            self._emit(module)

    def _emit(self, module: nn.Module) -> None:
        calls = self.calls.pop(module)
        for name in self.names[module]:
            for chunk in sample_gradients(module, name.rpartition(".")[2], calls, alone=normalises_alone(module)):
                self.emit(name, chunk)


def summed(outputs: Tensor, targets: Tensor, loss: Loss, of: Of) -> Tensor:
    return loss(outputs, targets) * len(targets) if of == "loss" else outputs.sum()


def _read_by_transforms(
    model: nn.Module, inputs: Any, targets: Tensor, loss: Loss, of: Of, wanted: Mapping[str, Tensor], emit: Emit
) -> None:
    """The same for any network, by torch.func: some parameters at a time, so that memory stays bounded."""
    values = trainable_values(model)
    inputs = detached(inputs)

    def total(some: dict[str, Tensor], one: Any, target: Tensor) -> Tensor:
        with_batch = tree_map(lambda x: x.unsqueeze(0), one)
        outputs = functional_call(model, {**values, **some}, (with_batch,))
        return summed(outputs, target.unsqueeze(0), loss, of)

    groups: list[list[str]] = [[]]
    held = 0
    for name, parameter in wanted.items():
        if groups[-1] and held + parameter.numel() * len(targets) > MAX_HELD:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += parameter.numel() * len(targets)
    for names in groups:
        some = {name: values[name] for name in names}
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            per_sample = vmap(grad(total), in_dims=(None, 0, 0), randomness="different")
            found = per_sample(some, inputs, targets)
        for name in names:
            if found[name].any():  # else the parameter leads nowhere
                emit(name, Chunk(found[name].flatten(1), values[name].detach().flatten()))


def trainable_values(model: nn.Module) -> dict[str, Tensor]:
    """All parameters by name, detached, but such that a network sees no frozen one: where it does, it may run what
    torch.func does not know. To be used under no_grad."""
    return {name: parameter.detach().requires_grad_(True) for name, parameter in model.named_parameters()}
