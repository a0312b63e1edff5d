"""MobileNetV2 spaces: chains of inverted residual blocks (MBConv) that choose kernel and expansion.

`mobilenetv2`: the ProxylessNAS-GPU table that SPOS and BNNAS search (bychen515/BNNAS @6570c92, supernet/config.py):
21 layers, kernel {3, 5, 7} x expansion {3, 6}, identity where the shape allows. Choice indices 0..5 are BNNAS's
codes; its -1 is `identity`. `depth="fixed"` is BNNAS's restriction: layers 1, 5, 6 and 9 are always identity.
`mobilenetv2_mobile`: the FairNAS table, 19 layers x 6, no identity (AngleNAS FairNAS/searching/config.py).
"""

from __future__ import annotations

from typing import Literal

from subshot.supernet.chain import IDENTITY, ChainSpace, Op, place_layers, scaled
from subshot.supernet.cost import Conv

GPU_STAGES = ((32, 4, 2), (56, 4, 2), (112, 4, 2), (128, 4, 1), (256, 4, 2), (432, 1, 1))
MOBILE_STAGES = ((32, 2, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
"""(channels, layers, stride of the first layer), stage by stage."""

BNNAS_IDENTITY_LAYERS = (1, 5, 6, 9)


def mbconv(in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int) -> Op:
    """Inverted residual block: 1x1 expansion, depthwise kernel, linear 1x1 projection; residual where shapes agree."""
    middle = in_channels * expansion
    expand = (Conv(in_channels, middle),) if expansion != 1 else ()
    return Op(
        name=f"k{kernel}e{expansion}",
        main=(
            *expand,
            Conv(middle, middle, kernel, stride, groups=middle),
            Conv(middle, out_channels, activation=False),
        ),
        wiring="residual" if stride == 1 and in_channels == out_channels else "plain",
    )


def mobilenetv2(
    input_size: int = 224,
    classes: int = 1000,
    width: float = 1.0,
    reduced_strides: int = 0,
    depth: Literal["searchable", "fixed"] = "searchable",
) -> ChainSpace:
    """The 21-layer space. `reduced_strides` turns that many of the strides of 2 into 1, from the input on (small
    images)."""
    space = _space("mobilenetv2", GPU_STAGES, (40, 24, 1728), True, input_size, classes, width, reduced_strides)
    if depth == "searchable":
        return space
    fixed = dict.fromkeys(BNNAS_IDENTITY_LAYERS, (IDENTITY,))
    searched = {
        number: tuple(op.name for op in layer.ops if op.name != IDENTITY)
        for number, layer in enumerate(space.layers)
        if number not in fixed
    }
    return space.restricted("mobilenetv2-fixed-depth", {**fixed, **searched})


def mobilenetv2_mobile(
    input_size: int = 224, classes: int = 1000, width: float = 1.0, reduced_strides: int = 0
) -> ChainSpace:
    """The 19-layer mobile space of FairNAS."""
    return _space(
        "mobilenetv2-mobile", MOBILE_STAGES, (32, 16, 1280), False, input_size, classes, width, reduced_strides
    )


def _space(
    name: str,
    stages: tuple[tuple[int, int, int], ...],
    stem_first_head: tuple[int, int, int],
    identity: bool,
    input_size: int,
    classes: int,
    width: float,
    reduced_strides: int,
) -> ChainSpace:
    stem_channels, first_channels, head_channels = (scaled(channels, width) for channels in stem_first_head)
    strides = [2] + [stride for _, _, stride in stages]
    if not 0 <= reduced_strides <= strides.count(2):
        raise ValueError(f"{name}: reduced_strides is {reduced_strides}; allowed: 0 to {strides.count(2)}")
    for _ in range(reduced_strides):
        strides[strides.index(2)] = 1
    stem = (
        Op("stem", (Conv(3, stem_channels, 3, strides[0]),)),
        mbconv(stem_channels, first_channels, kernel=3, expansion=1, stride=1),
    )
    shapes, runs, in_channels = [], [], first_channels
    for stage, ((channels, repeats, _), first_stride) in enumerate(zip(stages, strides[1:], strict=True), start=1):
        out_channels = scaled(channels, width)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            ops = [
                mbconv(in_channels, out_channels, kernel, expansion, stride)
                for kernel in (3, 5, 7)
                for expansion in (3, 6)
            ]
            if identity and stride == 1 and in_channels == out_channels:
                ops.append(Op(IDENTITY, ()))
            shapes.append((f"stage{stage}.layer{repeat}", in_channels, out_channels, stride, tuple(ops)))
            in_channels = out_channels
        if identity and repeats > 1:
            runs.append((len(shapes) - repeats + 1, len(shapes)))
    return ChainSpace(
        name=name,
        stem=stem,
        layers=place_layers(shapes, stem, input_size),
        head=Op("head", (Conv(in_channels, head_channels),)),
        classes=classes,
        input_size=input_size,
        activation="relu6",
        interchangeable=tuple(runs),
    )
