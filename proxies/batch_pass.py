"""One forward pass of a batch, and the backward passes that start from it: what most proxies read.

All readings of a batch share the forward pass; the loss is walked back once for all that read its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, floats, hooked

Graph = Literal["none", "inputs", "weights"]
"""What of a forward pass has to be recorded: nothing, how outputs depend on inputs, or on parameters too."""


class BatchReading(Reading, Protocol):
    """A reading of `run_batch`."""

    graph: ClassVar[Graph]

    def watch(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Hooks for the time of the forward pass; what it gives is handed to `value`."""
        ...

    def value(self, watched: Any, tape: Tape) -> Any: ...


@dataclass
class Tape:
    """A forward pass that was run, from which it is walked back. Gradients are taken once and kept."""

    model: nn.Module
    inputs: Any
    outputs: Tensor
    targets: Tensor
    loss: Loss
    seed: int = 0
    listeners: list[LayerOutputs] = field(default_factory=list)
    weights_are_read: bool = True
    _loss: Tensor | None = None
    _gradients: dict[str, Tensor | None] | None = None
    _input_gradient: Tensor | None = None

    def loss_value(self) -> Tensor:
        """The batch's mean loss, a scalar. Raises ProxyUndefined where it is not finite."""
        if self._loss is None:
            self._loss = self.loss(self.outputs, self.targets)
        if not torch.isfinite(self._loss):
            raise ProxyUndefined(f"the loss of a batch is {self._loss.item()}")
        return self._loss

    def loss_gradients(self) -> dict[str, Tensor | None]:
        """Gradients of the loss by name of parameter, None where it does not depend on one.

        Raises ProxyUndefined where it depends on none.
        """
        if self._gradients is None:
            named = dict(self.model.named_parameters())
            value = self.loss_value()
            if not named or not value.requires_grad:
                raise ProxyUndefined("the loss depends on no parameter")
            with listening(self.listeners):
                found = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True)
            self._gradients = dict(zip(named, found, strict=True))
            if all(gradient is None for gradient in found):
                self._gradients = None
                raise ProxyUndefined("the loss depends on no parameter")
        return self._gradients

    def walk_loss_back(self) -> None:
        """Takes the loss's gradients past every watched layer, without those of weights unless they are read too."""
        if self.weights_are_read:
            self.loss_gradients()
            return
        value = self.loss_value()
        edges = [edge for one in self.listeners for edge in one.edges]
        if not value.requires_grad or not edges:
            return
        with listening(self.listeners):
            torch.autograd.grad(value, edges, allow_unused=True, retain_graph=True)

    def input_gradient(self) -> Tensor:
        """d(sum of the batch's outputs) / d(inputs), [N, D]; of several inputs, side by side."""
        if self._input_gradient is None:
            inputs = floats(self.inputs)
            total = self.outputs.sum()
            found = (
                torch.autograd.grad(total, inputs, allow_unused=True, retain_graph=True)
                if total.requires_grad
                else [None] * len(inputs)
            )
            if all(gradient is None for gradient in found):
                raise ProxyUndefined("the outputs do not depend on the inputs")
            zeros = (torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))
            self._input_gradient = torch.cat([gradient.flatten(1) for gradient in zeros], dim=1)
        return self._input_gradient


def run_batch(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[BatchReading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner.

    Every parameter takes a gradient, whichever is read: a network may run other operations, past its modules, where
    some do not. What is not asked for is not walked back to.
    """
    graphs = {reading.graph for reading in readings}
    inputs, targets = batch
    model.requires_grad_(True)
    if "inputs" in graphs:
        for tensor in floats(inputs):
            tensor.requires_grad_(True)
    values: dict[Reading, Any] = {}
    with ExitStack() as whole_pass:
        with ExitStack() as forward:
            watched = [forward.enter_context(reading.watch(model)) for reading in readings]
            listeners = [one for one in watched if isinstance(one, LayerOutputs)]
            for one in listeners:
                whole_pass.enter_context(hooked(one.hooks))
            with torch.set_grad_enabled(graphs != {"none"}):
                outputs = model(inputs)
        tape = Tape(model, inputs, outputs, targets, loss, seed, listeners, "weights" in graphs)
        for reading, one in zip(readings, watched, strict=True):
            try:
                values[reading] = reading.value(one, tape)
            except ProxyUndefined as undefined:
                values[reading] = undefined
    return values


@contextmanager
def unwatched() -> Iterator[None]:
    yield None


class OfBatch:
    """What the readings of `run_batch` share."""

    @property
    def runner(self) -> Runner:
        return run_batch


class AfterForward(OfBatch):
    """What readings share that need no hooks: a value is made of the tape."""

    def watch(self, model: nn.Module) -> AbstractContextManager[Any]:
        return unwatched()


@dataclass(frozen=True)
class LossGradients(AfterForward):
    """Gradients of the batch's mean loss: name of parameter to gradient, None where the loss does not depend on it."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward; backward of the loss to the weights"
    graph: ClassVar[Graph] = "weights"

    def value(self, watched: Any, tape: Tape) -> dict[str, Tensor | None]:
        return tape.loss_gradients()


@dataclass(frozen=True)
class LossValue(AfterForward):
    """The batch's mean loss."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward"
    graph: ClassVar[Graph] = "none"

    def value(self, watched: Any, tape: Tape) -> float:
        return tape.loss_value().item()


@dataclass(frozen=True)
class InputGradient(AfterForward):
    """d(sum of the batch's outputs) / d(inputs), float64 [N, D], and the targets."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; backward of the sum of outputs to the inputs"
    graph: ClassVar[Graph] = "inputs"

    def value(self, watched: Any, tape: Tape) -> Tensor:
        return tape.input_gradient().double()


class LayerOutputs:
    """What convolutions and linear layers put out, and `collect(layer, output, gradient)` for the loss's gradients.

    An output that is overwritten in place (by an in-place ReLU) is copied first where `inplace` modules are about.
    """

    def __init__(self, model: nn.Module, collect: Any) -> None:
        self.on = False
        self.collect = collect
        self.overwritten: list[str] = []
        self.edges: list[torch.autograd.graph.GradientEdge] = []
        self.hooks: list[Any] = []
        self.copies = any(getattr(module, "inplace", False) for module in model.modules())

    def attach(self, name: str, output: Tensor) -> None:
        if not output.requires_grad:
            return
        kept = output.detach().clone() if self.copies else output.detach()
        version = output._version

        def hook(gradient: Tensor) -> None:
            if not self.on:
                return
            if not self.copies and kept._version != version:
                self.overwritten.append(name)
            else:
                self.collect(name, kept, gradient)

        self.hooks.append(output.register_hook(hook))
        self.edges.append(torch.autograd.graph.get_gradient_edge(output))


@contextmanager
def listening(listeners: Sequence[LayerOutputs]) -> Iterator[None]:
    for one in listeners:
        one.on = True
    try:
        yield
    finally:
        for one in listeners:
            one.on = False


@contextmanager
def layer_outputs(model: nn.Module, collect: Any) -> Iterator[LayerOutputs]:
    """Watches every convolution and linear layer of the forward pass."""
    outputs = LayerOutputs(model, collect)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: outputs.attach(name, output))
        for name, module in layers
    ]
    with hooked(handles):
        yield outputs


@dataclass(frozen=True)
class ParameterValues(AfterForward):
    """Copies of all parameters by name, as they are while the batch is read."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward"
    graph: ClassVar[Graph] = "none"

    def value(self, watched: Any, tape: Tape) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in tape.model.named_parameters()}


@dataclass(frozen=True)
class Targets(AfterForward):
    """The batch's targets, [N]: for scores that tell classes apart."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "nothing"
    graph: ClassVar[Graph] = "none"

    def value(self, watched: Any, tape: Tape) -> Tensor:
        return tape.targets
