"""Whether a chain fits together: what a builder of our own gets right by construction, and a user's may not."""

from __future__ import annotations

from collections.abc import Iterable

from subshot.supernet.chain import IDENTITY, ChainSpace, Layer, Op
from subshot.supernet.cost import Conv, strided

IMAGE_CHANNELS = 3


def why_unsound(space: ChainSpace) -> str | None:
    """The first place where stem, layers and head do not fit one another, and how; None where all do."""
    channels, size = IMAGE_CHANNELS, space.input_size
    if not space.layers:
        return "it has no layers; a search needs one or more, each with its candidates"
    names = [layer.name for layer in space.layers]
    for name in names:
        if names.count(name) > 1:
            return f"two layers are called {name!r}; every layer needs a name of its own"
    for op in space.stem:
        wrong = _why_op(op, channels, None, op.stride)
        if wrong is not None:
            return f"stem {op.name!r}: {wrong}"
        channels, size = _out_channels(op, channels), strided(size, op.stride)
    for layer in space.layers:
        wrong = _why_layer(layer, channels, size)
        if wrong is not None:
            return f"layer {layer.name!r}: {wrong}"
        channels, size = layer.out_channels, strided(size, layer.stride)
    if not space.head.main:
        return "the head has no convolution"
    wrong = _why_op(space.head, channels, None, space.head.stride)
    return f"head {space.head.name!r}: {wrong}" if wrong is not None else _why_runs(space)


def _why_layer(layer: Layer, channels: int, size: int) -> str | None:
    if layer.in_channels != channels:
        return f"in_channels is {layer.in_channels}, and {channels} channels come in"
    if layer.size != size:
        return f"size is {layer.size}, and its map has a side of {size}; place_layers works that out"
    if not layer.ops:
        return "it has no candidates"
    names = [op.name for op in layer.ops]
    for op in layer.ops:
        if names.count(op.name) > 1:
            return f"two candidates are called {op.name!r}"
        wrong = _why_op(op, channels, layer.out_channels, layer.stride)
        if wrong is not None:
            return f"candidate {op.name!r}: {wrong}"
    return None


def _why_op(op: Op, channels: int, wanted: int | None, stride: int) -> str | None:
    """wanted: output channels, where they are known beforehand."""
    if op.name == IDENTITY and (op.main or op.wiring != "plain"):
        return f"the name {IDENTITY!r} is for an empty plain path"
    if op.wiring == "shuffle" and channels % 2:
        return f"its wiring halves the channels, and {channels} is odd"
    into = channels // 2 if op.wiring == "shuffle" else channels
    for what, path in (("main", op.main), ("projection", op.projection)):
        wrong = _why_path(what, path, into)
        if wrong is not None:
            return wrong
    if op.wiring == "shuffle_down" and _stride(op.main) != _stride(op.projection):
        return f"main has stride {_stride(op.main)} and projection {_stride(op.projection)}"
    if op.wiring != "shuffle_down" and op.projection:
        return f"a projection belongs to the wiring 'shuffle_down', not to {op.wiring!r}"
    out = _out_channels(op, channels)
    if _stride(op.main) != stride:
        return f"its stride is {_stride(op.main)}, the layer's {stride}"
    if op.wiring in ("residual", "shuffle") and (out != channels or stride != 1):
        return f"its wiring {op.wiring!r} keeps the shape, but {channels} channels become {out} at stride {stride}"
    if wanted is not None and out != wanted:
        return f"it gives {out} channels, the layer's out_channels is {wanted}"
    return None


def _why_path(what: str, path: Iterable[Conv], channels: int) -> str | None:
    for number, conv in enumerate(path):
        where = f"convolution {number} of {what}"
        if conv.in_channels != channels:
            return f"{where} takes {conv.in_channels} channels, and {channels} come in"
        if min(conv.out_channels, conv.kernel, conv.stride, conv.groups) < 1 or conv.kernel % 2 == 0:
            return f"{where}: channels, stride and groups must be 1 or more, the kernel odd"
        if conv.in_channels % conv.groups or conv.out_channels % conv.groups:
            return f"{where}: {conv.groups} groups do not divide {conv.in_channels} and {conv.out_channels} channels"
        channels = conv.out_channels
    return None


def _stride(path: Iterable[Conv]) -> int:
    stride = 1
    for conv in path:
        stride *= conv.stride
    return stride


def _out_channels(op: Op, channels: int) -> int:
    into = channels // 2 if op.wiring == "shuffle" else channels
    main = op.main[-1].out_channels if op.main else into
    if op.wiring == "shuffle":
        return channels - into + main
    if op.wiring == "shuffle_down":
        return main + (op.projection[-1].out_channels if op.projection else channels)
    return main


def _why_runs(space: ChainSpace) -> str | None:
    """interchangeable: runs one after the other, each of layers that are alike."""
    until = 0
    for first, last in space.interchangeable:
        if not until <= first < last <= len(space.layers):
            return f"interchangeable: ({first}, {last}) is no run of layers behind {until}"
        alike = {(layer.ops, layer.in_channels, layer.out_channels, layer.size) for layer in space.layers[first:last]}
        if len(alike) > 1 or not space.layers[first].keeps_shape:
            return f"interchangeable: the layers {first} to {last - 1} are not all alike"
        until = last
    return None
