"""The weight-sharing supernet of a NASRec space: one weight a projection and block that it reads; a path takes slices.

The public supernet computes every path at full width on zero-padded inputs and masks the outputs. Here a path computes
its own widths only, layer normalisation and attention see what the path has, and the path and its extracted copy are
the same computation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_network import Inputs, NasrecNetwork, new_weights
from subshot.supernet.nasrec_ops import Fill
from subshot.supernet.nasrec_spec import NasrecSpec
from subshot.supernet.space import Genotype


class NasrecSupernet(nn.Module):
    """Weights of a NASRec space, as large as its widest network; `path` is a network whose parameters are views.

    The views share storage with the weights of `full` but are leaves of their own: a backward pass along a path leaves
    its gradients, of the slices' sizes, in the path's parameters, and an optimiser that changes those changes the
    supernet. Every weight is read by some path. layer_norm: on while weights are shared, off in final networks.
    """

    def __init__(self, space: NasrecSpace, generator: torch.Generator | None = None, layer_norm: bool = True) -> None:
        super().__init__()
        self.space = space
        self.layer_norm = layer_norm
        self.full = NasrecNetwork(space.full_spec(), new_weights(generator), layer_norm, skip=False)
        self._places = {
            f"{prefix}.{name}" if prefix else name: (module, name)
            for prefix, module in self.full.named_modules()
            for name in module._parameters
            if module._parameters[name] is not None
        }

    def _view(self, name: str, index: tuple[slice, ...], fill: Fill) -> nn.Parameter:
        module, own = self._places[name]
        weight = module._parameters[own]
        assert weight is not None
        view = weight.detach()[index]
        assert all(n == part.stop - part.start for n, part in zip(view.shape, index, strict=True)), name
        return nn.Parameter(view, requires_grad=weight.requires_grad)

    def path(self, chosen: Genotype | NasrecSpec) -> NasrecNetwork:
        """The network of a genotype or a spec, its parameters views into the supernet's weights."""
        spec = chosen if isinstance(chosen, NasrecSpec) else self.space.decode(chosen)
        network = NasrecNetwork(spec, self._view, self.layer_norm)
        return network.train(self.training)

    def forward(self, inputs: Inputs, chosen: Genotype | NasrecSpec) -> Tensor:
        """Logits [N] along a path. Gradients stay with that path's views: to train, call `path` and keep it."""
        logits: Tensor = self.path(chosen)(inputs)
        return logits
