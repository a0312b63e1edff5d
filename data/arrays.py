"""Arrays of images written as ImageNet-layout class folders, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from subshot.data.image_folder import DataError

MANIFEST = "images.json"

Split = tuple[NDArray[np.uint8], NDArray[np.integer], tuple[str, ...]]


def write_class_folders(out: Path, splits: Mapping[str, Split], *, file_type: Literal["png", "jpeg"] = "png") -> Path:
    """Write <out>/<split>/<class>/<position>.<file_type> for each split -> (images, labels, class names); returns out.

    images: uint8 [N, H, W, C], C is 1 (grey) or 3 (RGB). PNG is lossless; JPEG is written at quality 95 without chroma
    subsampling. The folder appears at once by a rename, so a half-written one is never seen under its name. If it is
    there already and whole by its manifest, nothing is done; if it is there and not whole, DataError.
    """
    counts = {}
    for name, (images, labels, class_names) in splits.items():
        _check(name, images, labels, class_names)
        counts[name] = len(images)
    out = Path(out)
    if out.exists():
        _require_whole(out, counts)
        return out
    with _appearing(out) as folder:
        for name, (images, labels, class_names) in splits.items():
            for class_name in class_names:
                (folder / name / class_name).mkdir(parents=True)
            for position, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / name / class_names[int(label)] / f"{position:06d}.{file_type}"
                picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
                if file_type == "png":
                    picture.save(path)
                else:
                    picture.save(path, quality=95, subsampling=0)
        (folder / MANIFEST).write_text(json.dumps(counts, sort_keys=True) + "\n")
    _require_whole(out, counts)
    return out


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `out` at the end; thrown away where filling fails or another process was first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder = holder / "folder"
        folder.mkdir()
        yield folder
        try:
            os.rename(folder, out)
        except OSError:
            if not out.is_dir():
                raise
    finally:
        shutil.rmtree(holder)


def _require_whole(out: Path, counts: Mapping[str, int]) -> None:
    mend = f"delete {out} and run again"
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise DataError(f"{out} exists but was not written whole (it has no {MANIFEST}): {mend}")
    if json.loads(manifest.read_text()) != counts:
        raise DataError(f"{out} holds other images than asked for (its {MANIFEST} differs): {mend}")
    for name, count in counts.items():
        found = sum(len(files) for _, _, files in os.walk(out / name))
        if found != count:
            raise DataError(f"{out / name} holds {found} files where {count} were written: {mend}")


def _check(name: str, images: NDArray[np.uint8], labels: NDArray[np.integer], class_names: tuple[str, ...]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"the images of split {name!r} must be uint8 [N, H, W, 1 or 3], not {images.dtype} {list(images.shape)}"
        )
    if labels.shape != (len(images),):
        raise ValueError(f"split {name!r} has {len(images)} images but labels of shape {list(labels.shape)}")
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < len(class_names)):
        raise ValueError(
            f"the labels of split {name!r} run from {int(labels.min())} to {int(labels.max())}, "
            f"but it names {len(class_names)} classes"
        )
