"""The raw pictures of a winner's folder, drawn from arithmetic: PNG and JPEG, wide and tall, of 8 and of 16 bits."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from subshot.train.winner_dir import PICTURES

LARGEST = 300
"""The side that sizes follow from, where the network's own is larger: pictures stay small, and are enlarged then."""


def pictures(size: int, crop_ratio: float) -> dict[str, bytes]:
    """Contents by name. A wide one that is about as high as the network's resized images, a tall one that is enlarged
    and one that shrinks by half; none has a side of the network's size."""
    side = min(round(size / crop_ratio), LARGEST)
    wide, tall, deep = PICTURES
    return {
        wide: _encoded(_pattern(side + 5, side * 3 // 2 + 7), "PNG"),
        tall: _encoded(_pattern(side * 5 // 4 + 3, side * 2 // 3 + 1), "JPEG"),
        deep: _encoded(_pattern(side * 2 + 9, side * 2 + 1)[..., 0].astype(np.uint16) * 250, "PNG"),
    }


def _pattern(height: int, width: int) -> NDArray[np.uint8]:
    """[height, width, 3] of edges at every place, other ones in each channel, so that a shift by a pixel shows."""
    down, across = np.mgrid[:height, :width]
    channels = [((down // a) ^ (across // b)) * c + across * 255 // width // 2 for a, b, c in _STEPS]
    return np.stack(channels, axis=-1).astype(np.uint8)


_STEPS = ((2, 3, 37), (3, 1, 11), (1, 2, 23))


def _encoded(pixels: NDArray[np.generic], kind: str) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, kind, quality=90)
    return held.getvalue()
