"""AZ-NAS: three measurements of the feature maps along a network's blocks, to be joined by rank with the MACs.

    expressivity  = sum over features of s,  s = entropy of the normalised eigenvalues of the channel covariance
    progressivity = min over consecutive features of the growth of s
    trainability  = mean over blocks of 2 - a - 1 / a,  a = largest singular value of the mean of g_in g_out^T,
                    g_out = +-1 at random at a block's output, g_in = its gradient at the block's input

All higher is better. Source: Lee and Ham (2024, arXiv 2403.19232); cvlab-yonsei/AZ-NAS @5e6683a, whose setting is the
default: Kaiming initialisation by fan-in, Gaussian images, BatchNorm in train mode, no labels.

The blocks are the children of the network's first ModuleList; the features are the first block's input and all outputs.
A block that returns its input is no block, so a network with an identity scores as the network without it does, as in
the authors' code for chains (AutoFormer). Their code for NAS-Bench-201 gives minus infinity to the trainability there,
and where a block adds nothing but zeros to its input; `az_trainability_nasbench201` is undefined then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies.base import ProxyUndefined, Setting, hooked
from subshot.proxies.batch_pass import Graph, OfBatch, Tape
from subshot.proxies.measure import Proxy

Identities = Literal["skipped", "undefined"]

IDENTITY = "a block is the identity, which the authors' code for NAS-Bench-201 rules out"
SMALL_PART = 1e-8
SMALL_SCALE = 1e-6


@dataclass
class Features:
    """maps: the first block's input and the output of every block that does anything, each [N, C, H, W]. identities:
    how many blocks returned their input."""

    maps: list[Tensor] = field(default_factory=list)
    identities: int = 0


@contextmanager
def block_features(model: nn.Module) -> Iterator[Features]:
    """Of the next forward pass; the network goes on with copies, since what follows may overwrite them in place."""
    features = Features()
    maps = features.maps
    versions: dict[nn.Module, int] = {}

    def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
        if not isinstance(args[0], Tensor):
            return None
        first = not maps
        versions[module] = 0 if first else args[0]._version
        if first:
            maps.append(args[0])
        return (args[0].clone(), *args[1:]) if first else None

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if output is args[0] and output._version == versions.get(module):
            features.identities += 1
            return None
        maps.append(output)
        return output.clone() if isinstance(output, Tensor) else None

    blocks = next((list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)), [])
    handles = [block.register_forward_pre_hook(before) for block in blocks]
    with hooked([*handles, *(block.register_forward_hook(keep) for block in blocks)]):
        yield features


def require_maps(maps: Sequence[Any]) -> None:
    if len(maps) < 2:
        raise ProxyUndefined("the network has no ModuleList of blocks, between which the score is taken")
    if not all(isinstance(feature, Tensor) and feature.dim() == 4 for feature in maps):
        raise ProxyUndefined("the network's blocks do not hand on feature maps [N, C, H, W]")


@dataclass(frozen=True)
class BlockEntropies(OfBatch):
    """s of each feature map, 0 to log C."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward"
    graph: ClassVar[Graph] = "none"

    def watch(self, model: nn.Module) -> Any:
        return block_features(model)

    def value(self, watched: Features, tape: Tape) -> list[float]:
        require_maps(watched.maps)
        return entropies([feature.detach() for feature in watched.maps])


@dataclass(frozen=True)
class BlockTrainability(OfBatch):
    """The trainability; the random signs come from the measurement's seed."""

    identities: Identities = "skipped"
    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; backward of random signs through each block"
    graph: ClassVar[Graph] = "inputs"

    def watch(self, model: nn.Module) -> Any:
        return block_features(model)

    def value(self, watched: Features, tape: Tape) -> float:
        if watched.identities and self.identities == "undefined":
            raise ProxyUndefined(IDENTITY)
        require_maps(watched.maps)
        generator = torch.Generator().manual_seed(tape.seed)
        signs = [random_signs(feature, generator) for feature in watched.maps[1:]]
        return trainability_of(watched.maps, signs, self.identities)


def random_signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """+-1 with equal chances, of the same shape, type and layout. generator: on the CPU."""
    return torch.randint(2, like.shape, generator=generator, dtype=torch.float32).mul_(2).sub_(1).to(like)


def entropies(maps: Sequence[Tensor]) -> list[float]:
    """s of each feature map."""
    values = []
    for feature in maps:
        rows = feature.movedim(1, -1).flatten(0, -2)
        mean = rows.mean(dim=0)
        covariance = (rows - mean).T @ (rows - mean) / len(rows)
        if not covariance.isfinite().all():
            raise ProxyUndefined("a block's output is not finite")
        spectrum = torch.linalg.eigvalsh(covariance.double()).clamp(min=0.0)
        if float(spectrum.sum()) == 0.0:
            raise ProxyUndefined("a block's output is the same for all images and positions")
        parts = spectrum / spectrum.sum()
        values.append(-float((parts * (parts + SMALL_PART).log()).sum()))
    return values


def progressivity_of(values: Sequence[float]) -> float:
    return min(after - before for before, after in pairwise(values))


def trainability_of(maps: Sequence[Tensor], signs: Sequence[Tensor], identities: Identities = "skipped") -> float:
    """From connected feature maps, and g_out for each but the first.

    identities: undefined if a block whose g_in is its g_out leaves the network without a score. Raises ProxyUndefined
    for a block that its input does not reach, or whose input is no multiple of its output, which leaves no stride.
    """
    terms = []
    for (before, after), g_out in zip(pairwise(maps), signs, strict=True):
        if not after.requires_grad:
            raise ProxyUndefined("a block's output does not depend on its input")
        (g_in,) = torch.autograd.grad(after, before, g_out, retain_graph=True, allow_unused=True)
        if g_in is None:
            raise ProxyUndefined("a block's output does not depend on its input")
        if identities == "undefined" and torch.equal(g_in, g_out):
            raise ProxyUndefined(IDENTITY)
        sizes = [tuple(gradient.shape[2:]) for gradient in (g_in, g_out)]
        stride = sizes[0][0] // sizes[1][0]
        if sizes[0] != (stride * sizes[1][0], stride * sizes[1][1]):
            raise ProxyUndefined(f"a block maps {sizes[0]} pixels to {sizes[1]}, which is no stride alike both ways")
        ins = (F.pixel_unshuffle(g_in, stride) if stride > 1 else g_in).movedim(1, -1).flatten(0, -2)
        if not g_in.isfinite().all():
            raise ProxyUndefined("the gradient through a block is not finite")
        mean = (ins.T @ g_out.movedim(1, -1).flatten(0, -2)).double() / (g_out.numel() / g_out.shape[1])
        scale = float(torch.linalg.matrix_norm(mean, ord=2))
        terms.append(2.0 - scale - 1.0 / (scale + SMALL_SCALE))
    return sum(terms) / len(terms)


SOURCE = "Lee and Ham 2024, arXiv 2403.19232; cvlab-yonsei/AZ-NAS @5e6683a"
SETTING = Setting(weights="kaiming_fan_in", inputs="gaussian")
BLOCKS = "children of the first ModuleList"
EXPRESSIVITY = Proxy("az_expressivity", (BlockEntropies(),), sum, True, SOURCE, SETTING, BLOCKS)
PROGRESSIVITY = Proxy("az_progressivity", (BlockEntropies(),), progressivity_of, True, SOURCE, SETTING, BLOCKS)
TRAINABILITY = Proxy("az_trainability", (BlockTrainability(),), float, True, SOURCE, SETTING, BLOCKS)
TRAINABILITY_NASBENCH201 = Proxy(
    "az_trainability_nasbench201", (BlockTrainability("undefined"),), float, True, SOURCE, SETTING, BLOCKS
)
