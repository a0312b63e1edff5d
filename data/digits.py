"""The embedded data: scikit-learn's handwritten digits as JPEG class folders, so that a demo needs no download.

Source: UCI "Optical Recognition of Handwritten Digits" (test part), 1,797 grey images of 8 x 8 pixels in 17 levels, as
shipped inside scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from subshot.data.arrays import write_class_folders

SIZE = 32
TEST_EVERY = 5


def write_digits(folder: Path) -> Path:
    """Write train/<0..9>/ and val/<0..9>/ as 32 x 32 grey JPEGs (bicubic upscaling); returns the folder.

    The split is fixed: within each class, in the order of the source, every fifth image is a val image (1,442 train,
    355 val). The same scikit-learn and Pillow give the same bytes each time. A folder that is there and whole is left
    as it is; one that is there and not whole raises DataError.
    """
    levels, labels = load_digits(return_X_y=True)
    images = np.stack([_upscale(image) for image in levels.reshape(-1, 8, 8)])[..., None]
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    names = tuple(str(digit) for digit in range(10))
    return write_class_folders(
        folder,
        {"train": (images[~is_test], labels[~is_test], names), "val": (images[is_test], labels[is_test], names)},
        file_type="jpeg",
    )


def _upscale(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Levels 0..16 to a SIZE x SIZE grey image 0..255."""
    grey = Image.fromarray(np.round(levels * (255.0 / 16.0)).astype(np.uint8))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
