"""What a training image goes through, and the random draws of it.

Every draw is a pure function of (seed, epoch, position of the image in its folder): a counter-based generator (Philox;
Salmon et al., SC 2011) has seed and epoch as its key and the position as its counter. So an image is augmented alike on
any number of processes, in any batch, and after a resume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_ORDER_STREAM, _IMAGE_STREAM = 0, 1
_CROP_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """How a training image becomes size x size pixels; the draws are uniform unless said otherwise.

    crop "random_resized": a window of `area` (share of the image) and `ratio` (width / height, log-uniform), scaled to
    size x size, as torchvision's RandomResizedCrop: ten tries, then the largest central window of a legal ratio.
    crop "shift": the central square, scaled to size x size and moved by up to `pad` output pixels each way; what lies
    outside the image is black.
    flip: mirrored left to right with probability 1/2.
    brightness, contrast, saturation: strength s scales by a factor in [max(0, 1 - s), 1 + s]. Saturation first, then
    contrast about mid grey (128, not the image's mean), then brightness; values are not clipped to 0..255, and the
    grey that saturation blends with is rounded to whole levels.
    random_operations, random_magnitude: RandAugment (Cubuk et al. 2020) with that many operations of one magnitude out
    of 0..30, after the crop and before flip and colour.
    """

    crop: Literal["random_resized", "shift"] = "random_resized"
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    random_operations: int = 0
    random_magnitude: int = 9

    def __post_init__(self) -> None:
        if self.crop not in ("random_resized", "shift"):
            raise ValueError(f'crop must be "random_resized" or "shift", not {self.crop!r}')
        if not 0.0 < self.area[0] <= self.area[1] <= 1.0:
            raise ValueError(f"area must be two shares of the image in order, in (0, 1], not {self.area}")
        if not 0.0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two positive numbers in order, not {self.ratio}")
        if min(self.pad, self.random_operations) < 0 or min(self.brightness, self.contrast, self.saturation) < 0.0:
            raise ValueError("pad, random_operations, brightness, contrast and saturation must not be negative")
        if not 0 <= self.random_magnitude < RANDOM_MAGNITUDES:
            raise ValueError(f"random_magnitude must be 0 to {RANDOM_MAGNITUDES - 1}, not {self.random_magnitude}")

    @property
    def jitters_colour(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation) > 0.0


RANDOM_MAGNITUDES = 31
RANDOM_CHOICES = 14  # the operations in data/dali.py

IMAGENET = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4)
SMALL_PHOTO = Augmentation(crop="shift", pad=4)
DIGITS = Augmentation(crop="shift", pad=4, flip=False)
NONE = Augmentation(crop="shift", flip=False)


@dataclass(frozen=True)
class Window:
    """A rectangle in source pixels; in the "shift" crop it may stick out of the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Draw:
    """The parameters of one image in one epoch. colour: factors of brightness, contrast, saturation.

    operations: RandAugment's, by number; negate: 1 where the operation's magnitude is taken negative, else 0.
    """

    window: Window
    flip: bool
    colour: tuple[float, float, float]
    operations: tuple[int, ...]
    negate: tuple[int, ...]


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The permutation of `count` images in an epoch."""
    return _generator(seed, epoch, _ORDER_STREAM, 0).permutation(count)


def draw(augmentation: Augmentation, size: int, height: int, width: int, seed: int, epoch: int, index: int) -> Draw:
    """The parameters of the image at position `index`, which is height x width pixels as stored."""
    count = 6 + 2 * _CROP_TRIES + 2 * augmentation.random_operations
    # One call for all draws: the calls are what this function spends its time on.
    uniform = _generator(seed, epoch, _IMAGE_STREAM, index).random(count)
    mirror, brightness, contrast, saturation, down, right, *rest = uniform.tolist()
    tries, operations = rest[: 2 * _CROP_TRIES], rest[2 * _CROP_TRIES :]
    if augmentation.crop == "random_resized":
        window = _random_resized(augmentation, height, width, tries, down, right)
    else:
        window = _shifted(augmentation.pad, size, height, width, down, right)
    return Draw(
        window,
        augmentation.flip and mirror < 0.5,
        (
            _factor(augmentation.brightness, brightness),
            _factor(augmentation.contrast, contrast),
            _factor(augmentation.saturation, saturation),
        ),
        tuple(_below(RANDOM_CHOICES, u) for u in operations[::2]),
        tuple(_below(2, u) for u in operations[1::2]),
    )


def _generator(seed: int, epoch: int, stream: int, index: int) -> np.random.Generator:
    # The generator itself counts in the first word, so streams and images lie 2**128 draws apart.
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, index]))


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _below(count: int, u: float) -> int:
    """Of 0 .. count - 1."""
    return int(count * u)


def _factor(strength: float, u: float) -> float:
    return _between(max(0.0, 1.0 - strength), 1.0 + strength, u)


def _random_resized(
    augmentation: Augmentation, height: int, width: int, tries: list[float], down: float, right: float
) -> Window:
    low, high = augmentation.ratio
    for u, v in zip(tries[::2], tries[1::2], strict=True):
        area = height * width * _between(*augmentation.area, u)
        ratio = math.exp(_between(math.log(low), math.log(high), v))
        w = round(math.sqrt(area * ratio))
        h = round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Window(_below(height - h + 1, down), _below(width - w + 1, right), h, w)
    ratio = min(max(width / height, low), high)
    w = min(width, max(1, round(height * ratio)))
    h = min(height, max(1, round(width / ratio)))
    return Window((height - h) // 2, (width - w) // 2, h, w)


def _shifted(pad: int, size: int, height: int, width: int, down: float, right: float) -> Window:
    side = min(height, width)
    rows, columns = (_below(2 * pad + 1, u) - pad for u in (down, right))
    top = (height - side) // 2 + round(rows * side / size)
    left = (width - side) // 2 + round(columns * side / size)
    return Window(top, left, side, side)
