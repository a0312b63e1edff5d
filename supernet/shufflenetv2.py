"""ShuffleNetV2 space of SPOS: 20 layers that choose a Shuffle block of kernel 3, 5 or 7, or an Xception block.

Source: Guo et al. (2020, arXiv 1904.00420); megvii-model/SinglePathOneShot @36eed6c, src/Supernet/network.py and
blocks.py.
Differs: all BatchNorms are affine (SPOS's supernet has affine=False), because the indicators are BatchNorm scales.
"""

from __future__ import annotations

from subshot.supernet.chain import ChainSpace, Op, place_layers, scaled
from subshot.supernet.cost import Conv

STAGES = ((64, 4), (160, 4), (320, 8), (640, 4))
"""(channels, layers); the first layer of each stage has stride 2."""


def shuffle_block(in_channels: int, out_channels: int, kernel: int, stride: int) -> Op:
    """1x1, depthwise kernel, 1x1 on one branch; at stride 2 a depthwise and 1x1 projection with the same kernel on
    the other."""
    branch_in = in_channels if stride == 2 else in_channels // 2
    middle = out_channels // 2
    branch_out = out_channels - in_channels if stride == 2 else middle
    return Op(
        name=f"shuffle-k{kernel}",
        main=(
            Conv(branch_in, middle),
            Conv(middle, middle, kernel, stride, groups=middle, activation=False),
            Conv(middle, branch_out),
        ),
        wiring="shuffle_down" if stride == 2 else "shuffle",
        projection=_projection(in_channels, kernel, stride),
    )


def xception_block(in_channels: int, out_channels: int, stride: int) -> Op:
    """Three pairs of depthwise 3x3 and 1x1; the projection at stride 2 has kernel 3."""
    branch_in = in_channels if stride == 2 else in_channels // 2
    middle = out_channels // 2
    branch_out = out_channels - in_channels if stride == 2 else middle
    return Op(
        name="xception",
        main=(
            Conv(branch_in, branch_in, 3, stride, groups=branch_in, activation=False),
            Conv(branch_in, middle),
            Conv(middle, middle, 3, groups=middle, activation=False),
            Conv(middle, middle),
            Conv(middle, middle, 3, groups=middle, activation=False),
            Conv(middle, branch_out),
        ),
        wiring="shuffle_down" if stride == 2 else "shuffle",
        projection=_projection(in_channels, 3, stride),
    )


def _projection(channels: int, kernel: int, stride: int) -> tuple[Conv, ...]:
    if stride == 1:
        return ()
    return (Conv(channels, channels, kernel, stride, groups=channels, activation=False), Conv(channels, channels))


def shufflenetv2(
    input_size: int = 224, classes: int = 1000, width: float = 1.0, reduced_strides: int = 0
) -> ChainSpace:
    """The 20-layer space. A layer that keeps its resolution splits channels; one that halves it concatenates two
    branches.

    `reduced_strides` (small images): the stem's stride becomes 1 at 1. A stage's first layer changes its channels by
    concatenation, which needs its stride of 2 in the authors' blocks; so further reductions keep the two branches
    and run them at stride 1.
    """
    strides = [2, 2, 2, 2, 2]
    if not 0 <= reduced_strides <= len(strides):
        raise ValueError(f"shufflenetv2: reduced_strides is {reduced_strides}; allowed: 0 to {len(strides)}")
    strides[:reduced_strides] = [1] * reduced_strides
    stem_channels = scaled(16, width)
    stem = (Op("stem", (Conv(3, stem_channels, 3, strides[0]),)),)
    shapes, in_channels = [], stem_channels
    for stage, ((channels, repeats), first_stride) in enumerate(zip(STAGES, strides[1:], strict=True), start=1):
        out_channels = scaled(channels, width)
        for repeat in range(repeats):
            block_stride = 2 if repeat == 0 else 1
            ops = tuple(shuffle_block(in_channels, out_channels, kernel, block_stride) for kernel in (3, 5, 7))
            ops += (xception_block(in_channels, out_channels, block_stride),)
            stride = first_stride if repeat == 0 else 1
            if block_stride != stride:
                ops = tuple(_unstrided(op) for op in ops)
            shapes.append((f"stage{stage}.layer{repeat}", in_channels, out_channels, stride, ops))
            in_channels = out_channels
    return ChainSpace(
        name="shufflenetv2",
        stem=stem,
        layers=place_layers(shapes, stem, input_size),
        head=Op("head", (Conv(in_channels, scaled(1024, width)),)),
        classes=classes,
        input_size=input_size,
        activation="relu",
        classifier_bias=False,
    )


def _unstrided(op: Op) -> Op:
    """The same block with every stride 1."""
    main, projection = (
        tuple(Conv(c.in_channels, c.out_channels, c.kernel, 1, c.groups, c.activation) for c in convs)
        for convs in (op.main, op.projection)
    )
    return Op(op.name, main, op.wiring, projection)
