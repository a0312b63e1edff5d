"""From image files to the network's input, and from its logits to labels, as preprocess.json and labels.json say."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHOWN = 5


def stop(sentence: str) -> None:
    raise ValueError(sentence)


def read(
    files: Sequence[str], folder: Path, refuse: Callable[[str], None] = stop
) -> Iterator[tuple[list[str], tuple[Tensor]]]:
    """(names, images [N, 3, size, size]) of some files at a time. refuse: is told of each that cannot be read."""
    how = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    good = _images(files, how, refuse)
    while batch := list(islice(good, 32)):
        yield [name for name, _ in batch], (torch.stack([pixels for _, pixels in batch]),)


def _images(files: Sequence[str], how: dict[str, Any], refuse: Callable[[str], None]) -> Iterator[tuple[str, Tensor]]:
    for name in files:
        try:
            yield name, image(name, how)
        except ValueError as error:
            refuse(str(error))


def outputs(names: Sequence[str], logits: Tensor, folder: Path) -> list[str]:
    """A line an image: its name, and the most probable labels with their probabilities."""
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    lines = []
    for name, row in zip(names, torch.softmax(logits, dim=1), strict=True):
        best = torch.topk(row, min(SHOWN, len(row)))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        lines.append("\t".join([name, *(f"{labels[str(place)]} {value:.6f}" for place, value in found)]))
    return lines


def image(path: str | Path, how: dict[str, Any]) -> Tensor:
    """[3, size, size] float32: what the network takes."""
    return normalised(levels(path, how), how)


def normalised(grey: Tensor, how: dict[str, Any]) -> Tensor:
    """grey: [3, H, W] uint8."""
    mean, std = (torch.tensor(how[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (grey.float() * how["scale"] - mean) / std


def levels(path: str | Path, how: dict[str, Any]) -> Tensor:
    """[3, size, size] uint8: shorter side to round(size / crop_ratio), the central square of that.

    Needs Pillow. The filter is triangular, as wide as the image shrinks; EXIF's orientation is not looked at.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading images needs Pillow: pip install pillow") from None
    try:
        with Image.open(path) as file:
            width, height = file.size
            deep = file.mode == "I" or file.mode.startswith("I;16")  # grey of 16 bits, which convert("RGB") would clip
            content = file.convert("I" if deep else "RGB").tobytes()
    except Exception as error:  # of a damaged file, decoders raise anything
        raise ValueError(f"{path} cannot be read as an image ({error})") from None
    if deep:
        grey = torch.frombuffer(bytearray(content), dtype=torch.int32).view(1, height, width)
        pixels = (grey / 257).round().clamp(0, 255).to(torch.uint8).expand(3, -1, -1)
    else:
        pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)
    size, resized = how["size"], round(how["size"] / how["crop_ratio"])
    down, across = (resized, int(resized * width / height)), (int(resized * height / width), resized)
    sides = down if height <= width else across
    rows, columns = (_filter(n, side, size) for n, side in zip((height, width), sides, strict=True))
    resized_channels = [rows @ channel.double() @ columns.t() for channel in pixels]  # one at a time, for memory
    return torch.stack(resized_channels).round().clamp(0, 255).to(torch.uint8)


def _filter(count: int, resized: int, size: int) -> Tensor:
    """[size, count]: the share that each of the central `size` of `resized` pixels takes of each of `count`."""
    step = count / resized  # source pixels of one resized pixel
    reach = max(1.0, step)
    centres = (round((resized - size) / 2) + torch.arange(size, dtype=torch.float64) + 0.5) * step
    edge = math.ceil(reach) + 1
    places = torch.arange(-edge, count + edge)
    shares = (1 - (places + 0.5 - centres[:, None]).abs() / reach).clamp(min=0)
    inside = torch.zeros(size, count, dtype=torch.float64)
    return inside.index_add_(1, places.clamp(0, count - 1), shares / shares.sum(dim=1, keepdim=True))
