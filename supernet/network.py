"""Networks of chain spaces: the modules of an operation, a fixed network, and the weight-sharing supernet.

Images are float tensors [N, 3, H, W]; logits are [N, classes].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.supernet.chain import IDENTITY, ChainSpace, ChainSpec, Layer, Op
from subshot.supernet.cost import Conv
from subshot.supernet.space import Genotype

Branch = Literal["none", "identity", "projected"]
BRANCHES: tuple[Branch, ...] = ("none", "identity", "projected")
TANH_GAIN = 0.2


class ScaledTanh(nn.Module):
    """tanh(g x) / g with g = 0.2: slope 1 at zero, and near linear for the unit-variance input that BatchNorm gives.

    Dynamical-isometry NAS argues with a tanh that "behaves linearly near zero"; after a BatchNorm of scale 1 a plain
    tanh is far from there (mean squared slope 0.46, against 0.93 here).
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(TANH_GAIN * x) / TANH_GAIN


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "tanh": nn.Tanh,
    "scaled_tanh": ScaledTanh,
    "linear": nn.Identity,
}


class FrozenConvolution(torch.autograd.Function):
    """A convolution whose weight does not train: keeps no input for the backward pass, as torch's own would.

    Forward and input gradient are torch's. It has no forward-mode derivative, so it is used in training mode only.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        conv, (gradient,) = ctx.conv, gradients
        like = gradient.new_empty(1).expand(ctx.shape)  # only its shape and type are read
        options = (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups, (True, False, False))
        found = torch.ops.aten.convolution_backward(gradient, like, conv.weight, None, *options)
        return found[0], None


class ConvUnit(nn.Module):
    """Convolution without bias, BatchNorm, activation."""

    def __init__(self, conv: Conv, activation: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel,
            conv.stride,
            padding=conv.kernel // 2,
            groups=conv.groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(conv.out_channels)
        self.activation = ACTIVATIONS[activation]() if conv.activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        frozen = self.training and x.requires_grad and not self.conv.weight.requires_grad
        convolved = FrozenConvolution.apply(x, self.conv) if frozen else self.conv(x)  # type: ignore[no-untyped-call]
        out: Tensor = self.activation(self.bn(convolved))
        return out


class Block(nn.Module):
    """The modules of one `Op`. An identity has none, or a BatchNorm of its own where the supernet asks for it."""

    def __init__(self, op: Op, activation: str, identity_bn_channels: int | None = None) -> None:
        super().__init__()
        self.op = op
        self.main = nn.Sequential(*(ConvUnit(conv, activation) for conv in op.main))
        self.projection = nn.Sequential(*(ConvUnit(conv, activation) for conv in op.projection))
        self.identity_bn = None if identity_bn_channels is None else nn.BatchNorm2d(identity_bn_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.identity_bn is not None:
            x = self.identity_bn(x)
        if self.op.wiring == "residual":
            return x + self.main(x)
        if self.op.wiring == "shuffle":
            passed, taken = x[:, 0::2], x[:, 1::2]
            return torch.cat((passed, self.main(taken)), dim=1)
        if self.op.wiring == "shuffle_down":
            return torch.cat((self.projection(x), self.main(x)), dim=1)
        out: Tensor = self.main(x)
        return out

    def convs(self) -> list[ConvUnit]:
        return [unit for unit in (*self.main, *self.projection) if isinstance(unit, ConvUnit)]

    def last_bns(self) -> tuple[nn.BatchNorm2d, ...]:
        """The BatchNorms whose scales are the block indicator: the last of each branch that ends in the output.

        A stride-2 ShuffleNetV2 block concatenates two branches, so it has two, and the indicator is taken over the
        channels of both. An identity has its own BatchNorm or none.
        """
        if self.identity_bn is not None:
            return (self.identity_bn,)
        last = [units[-1] for units in (self.main, self.projection) if len(units)]
        return tuple(unit.bn for unit in last if isinstance(unit, ConvUnit))


class LayerBranch(nn.Module):
    """The parallel connection of the layer indicator: identity with BatchNorm; its scale measures the layer's
    importance.

    Source: dynamical-isometry NAS (arXiv 2307.02263). The paper does not say what stands where the shape changes;
    here it is average pooling by the stride and a frozen 1x1 convolution, both inside `shortcut`.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.shortcut = nn.Sequential()
        if layer.stride > 1:
            self.shortcut.append(nn.AvgPool2d(layer.stride, ceil_mode=True))
        if not layer.keeps_shape:
            self.shortcut.append(nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=False).requires_grad_(False))
        self.bn = nn.BatchNorm2d(layer.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.shortcut(x))
        return out


class ChainNetwork(nn.Module):
    """One network of a chain space. Dropout acts before the classifier, in training mode only."""

    def __init__(
        self,
        stem: nn.Module,
        layers: Sequence[nn.Module],
        branches: Sequence[nn.Module | None],
        head: nn.Module,
        classifier: nn.Linear,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.layers = nn.ModuleList(layers)
        self.branches = nn.ModuleDict({str(i): branch for i, branch in enumerate(branches) if branch is not None})
        self.head = head
        self.classifier = classifier
        self.dropout = dropout

    def forward(self, images: Tensor) -> Tensor:
        branches = [self.branches[str(i)] if str(i) in self.branches else None for i in range(len(self.layers))]
        return run_chain(images, self.stem, self.layers, branches, self.head, self.classifier, self.dropout)


def run_chain(
    images: Tensor,
    stem: nn.Module,
    layers: Iterable[nn.Module],
    branches: Iterable[nn.Module | None],
    head: nn.Module,
    classifier: nn.Module,
    dropout: float = 0.0,
) -> Tensor:
    """The forward pass that networks, bound subnets and supernets share: one definition, so they cannot drift apart."""
    x = stem(images)
    for layer, branch in zip(layers, branches, strict=True):
        x = layer(x) if branch is None else layer(x) + branch(x)
    features = head(x).mean(dim=(2, 3))
    if dropout:
        features = F.dropout(features, dropout, training=classifier.training)
    logits: Tensor = classifier(features)
    return logits


def build_network(spec: ChainSpec, dropout: float = 0.0) -> ChainNetwork:
    """A stand-alone network, to be trained from scratch and deployed: no layer branches, no BatchNorm on identities."""
    layers = [Block(op, spec.activation) for op in spec.ops]
    return ChainNetwork(
        nn.Sequential(*(Block(op, spec.activation) for op in spec.stem)),
        layers,
        [None] * len(layers),
        Block(spec.head, spec.activation),
        nn.Linear(spec.features, spec.classes, bias=spec.classifier_bias),
        dropout,
    )


class ChainSupernet(nn.Module):
    """All candidates of all layers; a forward pass runs along a genotype.

    branch: the layer indicator's parallel connection: none, on layers that keep their shape (identity), or on all
    (projected).
    identity_bn: an identity candidate gets a BatchNorm, so that every candidate of a layer has an indicator.
    activation: overrides the space's (dynamical isometry argues with tanh).
    BatchNorms normalise by batch statistics in training mode and leave their running statistics at the initial (0, 1):
    statistics averaged over different subnets describe none of them, so evaluation recalibrates a copy.
    """

    def __init__(
        self, space: ChainSpace, branch: Branch = "none", identity_bn: bool = False, activation: str | None = None
    ) -> None:
        super().__init__()
        act = activation or space.activation
        self.space = space
        self.activation = act
        self.stem = nn.Sequential(*(Block(op, act) for op in space.stem))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Block(op, act, layer.out_channels if identity_bn and op.name == IDENTITY else None) for op in layer.ops
            )
            for layer in space.layers
        )
        self.branches = nn.ModuleDict(
            {
                str(number): LayerBranch(layer)
                for number, layer in enumerate(space.layers)
                if branch == "projected" or (branch == "identity" and layer.keeps_shape)
            }
        )
        self.head = Block(space.head, act)
        self.classifier = nn.Linear(space.features, space.classes, bias=space.classifier_bias)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0

    def block(self, layer: int, choice: int) -> Block:
        candidates = self.layers[layer]
        assert isinstance(candidates, nn.ModuleList)
        block = candidates[choice]
        assert isinstance(block, Block)
        return block

    def branch(self, layer: int) -> LayerBranch | None:
        name = str(layer)
        if name not in self.branches:
            return None
        branch = self.branches[name]
        assert isinstance(branch, LayerBranch)
        return branch

    def forward(self, images: Tensor, genotype: Genotype) -> Tensor:
        blocks = [self.block(layer, choice) for layer, choice in enumerate(genotype)]
        branches = [self.branch(layer) for layer in range(len(genotype))]
        return run_chain(images, self.stem, blocks, branches, self.head, self.classifier)

    def path(self, genotype: Genotype) -> ChainNetwork:
        blocks = [self.block(layer, choice) for layer, choice in enumerate(genotype)]
        branches = [self.branch(layer) for layer in range(len(genotype))]
        return ChainNetwork(self.stem, blocks, branches, self.head, self.classifier)
