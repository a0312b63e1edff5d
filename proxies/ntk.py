"""TE-NAS's condition number of the neural tangent kernel: how evenly a network can learn in all directions.

    G_i = d(sum of the outputs of sample i) / d(parameters named "weight"),  K = G G^T,  score = lambda_max / lambda_min

Lower is better. Source: Chen et al. (2021, "TE-NAS", arXiv 2102.11535); VITA-Group/TENAS @9df78ff: BatchNorm in train
mode, one batch, Kaiming initialisation by fan-out, BatchNorm's scales among the parameters, no loss and no labels. In
train mode BatchNorm couples the samples, so each row of G is a backward pass through the whole batch;
`ntk_condition_eval` has BatchNorm in eval mode, where one pass gives all rows (proxies/sample_pass.py), and is another
quantity. The authors turn what is not finite into 1e5; here a kernel without full rank has no condition number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subshot.proxies.base import Batch, BatchNormMode, Loss, ProxyUndefined, Reading, Runner, Setting
from subshot.proxies.gradsign import RawSums
from subshot.proxies.measure import Proxy
from subshot.proxies.sample_pass import Of, Scope, in_scope, run_samples


@dataclass(frozen=True)
class CoupledKernel:
    """K, float64 [N, N], whatever BatchNorm does: one backward pass a sample."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; a backward of the outputs to the weights for every sample"

    @property
    def runner(self) -> Runner:
        return run_coupled


@dataclass(frozen=True)
class CoupledGradients:
    """G itself by name of parameter, [N, entries]: for a kernel over several batches. Holds N times the parameters."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; a backward of the outputs to the weights for every sample, all of them held"

    @property
    def runner(self) -> Runner:
        return run_gradients


@dataclass(frozen=True)
class SeparateKernel:
    """K where samples do not meet: one backward pass."""

    scope: Scope = "named_weight"
    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; backward of the sum of outputs, read by sample"
    of: ClassVar[Of] = "outputs"

    @property
    def runner(self) -> Runner:
        return run_samples

    def accumulator(self, count: int, targets: Tensor) -> RawSums:
        return RawSums(count, targets)


def run_coupled(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    return dict.fromkeys(readings, kernel_of([layer] for _, layer in gradients_by_layer(model, batch)))


def run_gradients(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    return dict.fromkeys(readings, dict(gradients_by_layer(model, batch)))


def gradients_by_layer(model: nn.Module, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Name and [N, entries] of every parameter named "weight" that the outputs depend on."""
    model.requires_grad_(False)
    wanted = {
        name: parameter.requires_grad_(True)
        for name, parameter in model.named_parameters()
        if in_scope("named_weight", name, parameter)
    }
    if not wanted:
        raise ProxyUndefined('the network has no parameter named "weight"')
    outputs = model(batch[0])
    if not outputs.requires_grad:
        raise ProxyUndefined('the outputs depend on no parameter named "weight"')
    rows: list[list[Tensor | None]] = []
    for output in outputs.flatten(1).sum(dim=1) if outputs.dim() > 1 else outputs:
        rows.append(list(torch.autograd.grad(output, list(wanted.values()), retain_graph=True, allow_unused=True)))
    for name, column in zip(wanted, zip(*rows, strict=True), strict=True):
        if column[0] is not None:
            yield name, torch.stack([gradient.flatten() for gradient in column if gradient is not None])


def kernel_of(layers: Iterable[Sequence[Tensor]]) -> Tensor:
    """G G^T, float64, of each layer's rows, batch by batch."""
    kernel: Tensor | None = None
    for batches in layers:
        rows = torch.cat(list(batches)) if len(batches) > 1 else batches[0]
        product = (rows @ rows.T).double()
        kernel = product if kernel is None else kernel.add_(product)
    if kernel is None:
        raise ProxyUndefined('the outputs depend on no parameter named "weight"')
    return kernel


def condition(kernel: Tensor) -> float:
    """lambda_max / lambda_min. Raises ProxyUndefined where K has not full rank, to double precision."""
    if not kernel.isfinite().all():
        raise ProxyUndefined("the outputs' gradients are not finite")
    eigenvalues = torch.linalg.eigvalsh(kernel)
    if not eigenvalues[0] > len(kernel) * torch.finfo(torch.float64).eps * eigenvalues[-1]:
        raise ProxyUndefined("the kernel is singular: the outputs of some samples change together")
    return float(eigenvalues[-1] / eigenvalues[0])


def condition_of_gradients(*by_batch: Mapping[str, Tensor]) -> float:
    """Of the kernel over all batches' samples."""
    return condition(kernel_of([found[name] for found in by_batch] for name in by_batch[0]))


def ntk_over(num_batches: int, batch_norm: BatchNormMode = "train") -> Proxy:
    """Over the samples of so many batches, each of which passes through the network by itself."""
    readings = tuple(CoupledGradients(batch) for batch in range(num_batches))
    setting = Setting("kaiming_fan_out", batch_norm)
    return Proxy("ntk_condition", readings, condition_of_gradients, False, SOURCE, setting, LAYERS)


SOURCE = "Chen et al. 2021, arXiv 2102.11535; VITA-Group/TENAS @9df78ff"
LAYERS = 'parameters named "weight"'
PROXY = Proxy("ntk_condition", (CoupledKernel(),), condition, False, SOURCE, Setting("kaiming_fan_out"), LAYERS)
EVAL = Proxy(
    "ntk_condition_eval", (SeparateKernel(),), condition, False, SOURCE, Setting("kaiming_fan_out", "eval"), LAYERS
)
