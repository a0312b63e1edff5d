"""The NAS-Bench-Macro space: 8 layers of {identity, MB3-k3, MB6-k5} on 32 x 32 images; all 6,561 networks were trained.

Source: Su et al. (2021, arXiv 2103.11922), xiusu/NAS-Bench-Macro @61a2bfc2. Three stages of 2, 3 and 3 layers; the
first layer of a stage halves the map and doubles the channels, and its "identity" is a 1x1 convolution of stride 2
with BatchNorm. Genotypes read as in the table's strings. Identities after a stage's first layer may stand anywhere
in it, so 3,969 distinct networks stand behind the 6,561 strings.
"""

from __future__ import annotations

from subshot.supernet.chain import IDENTITY, ChainSpace, Op, place_layers, scaled
from subshot.supernet.cost import Conv
from subshot.supernet.mobilenetv2 import mbconv

STAGES = ((64, 2), (128, 3), (256, 3))
"""(channels, layers)."""


def nasbench_macro(input_size: int = 32, classes: int = 10, width: float = 1.0, reduced_strides: int = 0) -> ChainSpace:
    """The 8-layer space; at size 32, 10 classes and width 1 it is the table's, to the parameter."""
    if not 0 <= reduced_strides <= 3:
        raise ValueError(f"nasbench-macro: reduced_strides is {reduced_strides}; allowed: 0 to 3, one a stage")
    stem_channels = scaled(32, width)
    stem = (Op("stem", (Conv(3, stem_channels, 3),)),)
    shapes, runs, in_channels = [], [], stem_channels
    for stage, (channels, repeats) in enumerate(STAGES, start=1):
        out_channels = scaled(channels, width)
        for repeat in range(repeats):
            stride = 2 if repeat == 0 and stage > reduced_strides else 1
            keeps = repeat > 0
            skip = (
                Op(IDENTITY, ())
                if keeps
                else Op("skip-conv1", (Conv(in_channels, out_channels, 1, stride, activation=False),))
            )
            blocks = (mbconv(in_channels, out_channels, 3, 3, stride), mbconv(in_channels, out_channels, 5, 6, stride))
            shapes.append((f"stage{stage}.layer{repeat}", in_channels, out_channels, stride, (skip, *blocks)))
            in_channels = out_channels
        runs.append((len(shapes) - repeats + 1, len(shapes)))
    return ChainSpace(
        name="nasbench-macro",
        stem=stem,
        layers=place_layers(shapes, stem, input_size),
        head=Op("head", (Conv(in_channels, scaled(1280, width)),)),
        classes=classes,
        input_size=input_size,
        activation="relu",
        interchangeable=tuple(runs),
    )
