"""Zen-NAS's residual space for CIFAR: residual and bottleneck super-blocks of free kernel, width and depth.

Published (Lin et al. 2021, arXiv 2102.01063; idstcv/ZenNAS @d1d617e, SearchSpace/search_space_XXBL.py,
scripts/Zen_NAS_cifar_params1M.sh, evolution_search.py): a network is a 3x3 stem of stride 1, super-blocks, a 1x1 head,
a global average pool and a classifier. A super-block has a kind (two KxK convolutions, or a bottleneck K1-KX-K1; kernel
3, 5 or 7), output channels, inner channels and a number of layers. A mutation draws the kind anew, adds -2..2 layers
and multiplies widths by one of 0.4, 0.5, 2/3, 0.8, 1, 1.25, 1.5, 2, 2.5, rounded to multiples of 8 within 8..2048;
the widths of stem and head mutate too. A super-block of 6 layers or more is split into two of 3. At most 18 layers,
stem and head included, a bottleneck layer of two units counting as one. Search begins at `SEED`: four super-blocks of
strides 1, 2, 2, 2 on 32 x 32 images.

Our encoding: those strings grow without bound, and a genotype has a fixed length. So each of the four stages has a
super-block `a` and, where the layers of `b` are not 0, a second one `b` of stride 1, as a split leaves it; each has at
most 5 layers, because 6 would be split; widths are on the grids below, in steps of 8 (the head: 64). The published
ZenNets of 0.5 M and 1 M parameters are in the space (`ZENNETS`); that of 2 M, with four super-blocks in one stage, is
not. Costs are no sums over decisions: draw by `search/rejection.py`.

The comparison of Zen-NAS, ZiCo and SiGeo on CIFAR-10 and CIFAR-100 allows 1 M parameters; pass it as a limit:
`CostLimit(lambda g: space.cost(g).params, Limit("params", maximum=PARAMS_LIMIT))`. One uniform draw in 200 meets it.
The public code counts 1 for each BatchNorm channel, where there are 2 parameters, and 1 for the classifier's biases, so
that it finds about 1 % fewer parameters than there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from subshot.supernet.cost import Conv, Cost
from subshot.supernet.space import Decision, Genotype, from_named_choices, named_choices, validated, why_not_of
from subshot.supernet.zennas_network import KINDS, SuperBlock, ZenNetwork, ZenSpec, zen_cost

PARAMS_LIMIT = 1_000_000
"""Parameters, of the published comparison on CIFAR."""
MAX_LAYERS = 18
"""Stem and head count as one layer each."""
MAX_SUPER_BLOCK_LAYERS = 5
STRIDES = (1, 2, 2, 2)
"""Of the four stages, as in the published seed."""
STEM_CHANNELS = tuple(range(8, 97, 8))
CHANNELS = tuple(range(8, 257, 8))
BOTTLENECKS = tuple(range(8, 65, 8))
HEAD_CHANNELS = tuple(range(64, 513, 64))

SEED = (
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)SuperResK3K3(16,32,2,16,1)SuperResK3K3(32,64,2,32,1)"
    "SuperResK3K3(64,64,2,32,1)SuperConvK1BNRELU(64,128,1,1)"
)
"""Where the published search begins: scripts/Zen_NAS_cifar_params1M.sh."""
ZENNETS = {
    "zennet-0.5M": "SuperConvK3BNRELU(3,64,1,1)SuperResK1K5K1(64,168,1,16,3)SuperResK1K3K1(168,80,2,32,4)"
    "SuperResK1K5K1(80,112,2,16,3)SuperResK1K5K1(112,144,1,24,3)SuperResK1K3K1(144,32,2,40,1)"
    "SuperConvK1BNRELU(32,512,1,1)",
    "zennet-1M": "SuperConvK3BNRELU(3,88,1,1)SuperResK1K7K1(88,120,1,16,1)SuperResK1K7K1(120,192,2,16,3)"
    "SuperResK1K5K1(192,224,1,24,4)SuperResK1K5K1(224,96,2,24,2)SuperResK1K3K1(96,168,2,40,3)"
    "SuperResK1K3K1(168,112,1,48,3)SuperConvK1BNRELU(112,512,1,1)",
}
"""What the published search found (ZenNet/zennet_cifar_model_size*_res32.txt): 96.2 % on CIFAR-10, both; 79.9 % and
80.1 % on CIFAR-100."""

_KINDS = tuple(KINDS)
_SLOTS = tuple((stage, slot) for stage in range(len(STRIDES)) for slot in "ab")
_GENES = 4


@dataclass(frozen=True)
class ZenSpace:
    """34 decisions: `stem.channels`, then kind, layers, channels and bottleneck of `stage1.a` to `stage4.b`, then
    `head.channels`; 2.4e33 genotypes. One of more than 18 layers is invalid. Raises ValueError for a size below 1.
    """

    input_size: int = 32
    classes: int = 10
    name: str = "zennas-cifar"

    def __post_init__(self) -> None:
        if min(self.input_size, self.classes) < 1:
            raise ValueError(
                f"{self.name}: input_size and classes must be at least 1; they are {self.input_size}, {self.classes}"
            )

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Layers of a second super-block may be 0: it is absent then, and its other decisions read 0."""
        found = [Decision("stem.channels", _names(STEM_CHANNELS))]
        for stage, slot in _SLOTS:
            found += [
                Decision(f"stage{stage + 1}.{slot}.kind", _KINDS),
                Decision(f"stage{stage + 1}.{slot}.layers", _names(_layers(slot))),
                Decision(f"stage{stage + 1}.{slot}.channels", _names(CHANNELS)),
                Decision(f"stage{stage + 1}.{slot}.bottleneck", _names(BOTTLENECKS)),
            ]
        return (*found, Decision("head.channels", _names(HEAD_CHANNELS)))

    def canonical(self, genotype: Genotype) -> Genotype:
        genes = list(genotype)
        for place, (_, slot) in zip(range(1, len(genes), _GENES), _SLOTS, strict=False):
            if _layers(slot)[genes[place + 1]] == 0:
                genes[place : place + _GENES] = [0] * _GENES
        return tuple(genes)

    def why_invalid(self, genotype: Genotype) -> str | None:
        reason = why_not_of(self, genotype)
        if reason is None:
            layers = 2 + sum(block.layers for block in self.decode(genotype).super_blocks)
            if layers > MAX_LAYERS:
                return f"{self.name}: a network has at most {MAX_LAYERS} layers with stem and head; this has {layers}"
        return reason

    def decode(self, genotype: Genotype) -> ZenSpec:
        channels = STEM_CHANNELS[genotype[0]]
        stem, blocks = Conv(3, channels, 3), []
        for place, (stage, slot) in zip(range(1, len(genotype), _GENES), _SLOTS, strict=False):
            kind, depth, width, bottleneck = genotype[place : place + _GENES]
            layers = _layers(slot)[depth]
            if layers == 0:
                continue
            block = SuperBlock(
                kind=_KINDS[kind],
                in_channels=channels,
                channels=CHANNELS[width],
                stride=STRIDES[stage] if slot == "a" else 1,
                bottleneck=BOTTLENECKS[bottleneck],
                layers=layers,
            )
            blocks.append(block)
            channels = block.channels
        return ZenSpec(stem, tuple(blocks), Conv(channels, HEAD_CHANNELS[genotype[-1]]), self.input_size, self.classes)

    def cost(self, genotype: Genotype) -> Cost:
        return zen_cost(self.decode(genotype))

    def build(self, genotype: Genotype) -> nn.Module:
        return ZenNetwork(self.decode(validated(self, genotype)))


def to_structure(space: ZenSpace, genotype: Genotype) -> str:
    """The network as the public code writes it: Name(in, out, stride, layers), or with inner channels before layers."""
    spec = space.decode(genotype)
    words = [f"SuperConvK3BNRELU(3,{spec.stem.out_channels},1,1)"]
    words += [
        f"SuperRes{b.kind.upper()}({b.in_channels},{b.channels},{b.stride},{b.bottleneck},{b.layers})"
        for b in spec.super_blocks
    ]
    words.append(f"SuperConvK1BNRELU({spec.head.in_channels},{spec.head.out_channels},1,1)")
    return "".join(words)


def from_structure(space: ZenSpace, structure: str) -> Genotype:
    """The canonical genotype of a network in the public code's notation. Raises ValueError where it is not of the
    space."""
    words = [(name, sizes.split(",")) for name, sizes in re.findall(r"(\w+)\(([\d,]+)\)", structure)]
    names, lengths = [name for name, _ in words], [len(sizes) for _, sizes in words]
    if (names[:1], names[-1:]) != (["SuperConvK3BNRELU"], ["SuperConvK1BNRELU"]) or (
        lengths != [4] + [5] * (len(words) - 2) + [4]
    ):
        raise ValueError(f"{space.name}: a K3 stem, super-blocks and a K1 head are wanted; this is {structure!r}")
    choices = named_choices(space, (0,) * len(space.decisions))
    choices |= {"stem.channels": words[0][1][1], "head.channels": words[-1][1][1]}
    stage, slot = 0, "b"
    for name, (_, channels, stride, bottleneck, layers) in words[1:-1]:
        stage, slot = (stage, "b") if slot == "a" and stride == "1" else (stage + 1, "a")
        found = {
            "kind": name.removeprefix("SuperRes").lower(),
            "layers": layers,
            "channels": channels,
            "bottleneck": bottleneck,
        }
        choices |= {f"stage{stage}.{slot}.{key}": value for key, value in found.items()}
    genotype = from_named_choices(space, choices)
    written = to_structure(space, genotype)
    if written != structure:
        raise ValueError(f"{space.name}: this structure is not of the space: {structure}; the nearest is {written}")
    return genotype


def _layers(slot: str) -> tuple[int, ...]:
    return tuple(range(1 if slot == "a" else 0, MAX_SUPER_BLOCK_LAYERS + 1))


def _names(values: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(map(str, values))
