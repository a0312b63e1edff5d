"""How every output of every sample changes with a few single scalars of the parameters: J, [N, outputs, scalars].

One forward pass and one backward pass an output, in which nothing but those scalars' derivatives is read off: for a
convolution weight, the sum over places of the output's gradient times the input that the tap sees, which is cut out
once. Samples must not meet (BatchNorm in eval mode, or each sample by its own statistics). Networks whose first
parameters belong to layers of other kinds are covered by torch.func instead, which takes longer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, detached, floats, hooked
from subshot.proxies.conditions import normalises_alone
from subshot.proxies.sample_layers import geometry
from subshot.proxies.sample_pass import owners_of, trainable_values, uses_of


@dataclass(frozen=True)
class ScalarJacobian:
    """(J, float64 [N, outputs, scalars]; the outputs, float64 [N, outputs]).

    Scalars: of each of the first `tensors` parameters, the one at index 0, or `per_tensor` evenly spaced ones, the
    first and the last among them. Outputs [N] are taken as [N, 1].
    """

    tensors: int = 128
    per_tensor: int = 1
    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; a backward of each output, read at single weights"

    @property
    def runner(self) -> Runner:
        return run_scalars


def run_scalars(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[ScalarJacobian], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    if any(isinstance(m, _BatchNorm) and m.training and not normalises_alone(m) for m in model.modules()):
        raise ProxyUndefined("samples meet where BatchNorm is in train mode; take the setting batch_norm='eval'")
    model.requires_grad_(False)
    return {reading: _jacobian(model, batch[0], chosen_scalars(model, reading)) for reading in readings}


def chosen_scalars(model: nn.Module, reading: ScalarJacobian) -> dict[str, list[int]]:
    """Flat indices by name of parameter."""
    chosen = {}
    for name, parameter in list(model.named_parameters())[: reading.tensors]:
        places = torch.linspace(0, parameter.numel() - 1, reading.per_tensor).long().tolist()
        chosen[name] = [0] if reading.per_tensor == 1 else places
    if not chosen:
        raise ProxyUndefined("the network has no parameter")
    return chosen


def _jacobian(model: nn.Module, inputs: Any, chosen: Mapping[str, list[int]]) -> tuple[Tensor, Tensor]:
    owners = owners_of(model, {name: model.get_parameter(name) for name in chosen})
    if owners is None:
        return _by_transforms(model, inputs, chosen)
    cuts = Cuts(owners, chosen)
    cuts.leaves.extend(floats(inputs))
    for tensor in (*cuts.leaves, *(model.get_parameter(name) for name in chosen)):
        tensor.requires_grad_(True)
    with hooked(cuts.hooks):
        with hooked([module.register_forward_hook(cuts.watch, prepend=True) for module in cuts.names]):
            outputs = model(inputs)
        if cuts.saw_all(model, chosen, outputs):
            return _walk_each_back(outputs, cuts, chosen)
    model.requires_grad_(False)
    return _by_transforms(model, inputs, chosen)


def _walk_each_back(outputs: Tensor, cuts: Cuts, chosen: Mapping[str, list[int]]) -> tuple[Tensor, Tensor]:
    """One backward pass for each column of the outputs [N, outputs] or [N]."""
    flat = outputs.flatten(1) if outputs.dim() > 1 else outputs[:, None]
    zeros = torch.zeros(len(flat), dtype=flat.dtype, device=flat.device)
    rows = []
    for number in range(flat.shape[1]):
        cuts.found = {}
        if flat.requires_grad and cuts.leaves:
            torch.autograd.backward(flat[:, number].sum(), retain_graph=True, inputs=cuts.leaves)
        columns = [cuts.found.get((name, place), zeros) for name, places in chosen.items() for place in places]
        rows.append(torch.stack(columns, dim=1))
    return torch.stack(rows, dim=1).double(), flat.detach().double()


class Cuts:
    """What of a layer's input a scalar meets, kept at the forward pass; its derivative by sample, at each backward."""

    def __init__(self, owners: Mapping[str, nn.Module], chosen: Mapping[str, list[int]]) -> None:
        self.names: dict[nn.Module, list[tuple[str, int]]] = defaultdict(list)
        for name, places in chosen.items():
            self.names[owners[name]].extend((name, place) for place in dict.fromkeys(places))
        self.strange = False
        self.lengths: set[int] = set()
        self.calls: Counter[nn.Module] = Counter()
        self.nodes: dict[nn.Module, Any] = {}
        self.leaves: list[Tensor] = []
        self.hooks: list[Any] = []
        self.found: dict[tuple[str, int], Tensor] = {}

    def watch(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        self.calls[module] += 1
        if not torch.is_grad_enabled() or not args:
            self.strange = True
            return None
        x = args[0].detach()
        self.lengths.add(len(x))
        met = [(key, *what_it_meets(module, key[0].rpartition(".")[2], key[1], x)) for key in self.names[module]]
        changed = None
        if args[0].requires_grad:
            self.nodes[module] = output.grad_fn
        else:  # a constant, behind which there is nothing to walk back to
            self.leaves.append(output.detach().requires_grad_(True))
            changed = output = self.leaves[-1].clone()
        channel_axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1

        def read(gradient: Tensor) -> None:
            for key, channel, seen in met:
                own = gradient.select(channel_axis, channel)
                self.found[key] = (own if seen is None else own * seen).reshape(len(own), -1).sum(dim=1)

        self.hooks.append(output.register_hook(read))
        return changed

    def saw_all(self, model: nn.Module, chosen: Mapping[str, list[int]], outputs: Tensor) -> bool:
        """Whether each module was called once, with all samples, and the outputs depend on its parameters by that call
        alone."""
        if self.strange or self.lengths - {len(outputs)}:
            return False
        nodes, uses = uses_of(outputs)
        owners = {name: module for module, keys in self.names.items() for name, _ in keys}
        return all(self.calls[module] == 1 for module in self.names) and all(
            uses[id(model.get_parameter(name))] == (self.nodes.get(owners[name]) in nodes) for name in chosen
        )


def what_it_meets(module: nn.Module, parameter: str, place: int, x: Tensor) -> tuple[int, Tensor | None]:
    """The output channel that a scalar acts on, and what it is multiplied with there: [N, ...] without the channel
    axis; None for a shift, which meets ones."""
    if parameter == "bias":
        return place, None
    if isinstance(module, _BatchNorm):
        own = x[:, place]
        if normalises_alone(module):
            variance, mean = torch.var_mean(own, dim=tuple(range(1, own.dim())), correction=0, keepdim=True)
        else:
            assert module.running_mean is not None and module.running_var is not None
            variance, mean = module.running_var[place], module.running_mean[place]
        return place, (own - mean) * (variance + module.eps).rsqrt()
    weight = module.get_parameter("weight")
    index = [int(i) for i in torch.unravel_index(torch.tensor(place), weight.shape)]
    if isinstance(module, nn.Linear):
        return index[0], x[..., index[1]]
    assert isinstance(module, nn.Conv2d)
    channel = index[0] // (module.out_channels // module.groups) * (module.in_channels // module.groups) + index[1]
    (top, left), (down, right), (dy, dx) = geometry(module)
    padded = F.pad(x[:, channel], (left, left, top, top))
    last = [p - d * (k - 1) for p, d, k in zip(padded.shape[1:], (dy, dx), module.kernel_size, strict=True)]
    row, column = index[2] * dy, index[3] * dx
    return index[0], padded[:, row : row + last[0] : down, column : column + last[1] : right].contiguous()


def _by_transforms(model: nn.Module, inputs: Any, chosen: Mapping[str, list[int]]) -> tuple[Tensor, Tensor]:
    values = trainable_values(model)
    like = next(iter(values.values()))

    def outputs_at(moves: Tensor, one: Any) -> tuple[Tensor, Tensor]:
        moved, start = dict(values), 0
        for name, places in chosen.items():
            index = torch.tensor(places, device=like.device)
            step = moves[start : start + len(places)]
            moved[name] = values[name].flatten().index_add(0, index, step).view_as(values[name])
            start += len(places)
        out = functional_call(model, moved, (tree_map(lambda x: x.unsqueeze(0), one),)).flatten()
        return out, out

    none = torch.zeros(sum(map(len, chosen.values())), dtype=like.dtype, device=like.device)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        jacobian, outputs = vmap(jacrev(outputs_at, has_aux=True), in_dims=(None, 0))(none, detached(inputs))
    return jacobian.detach().double(), outputs.detach().double()
