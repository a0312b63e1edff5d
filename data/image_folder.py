"""The index of an ImageNet-layout folder: <root>/<split>/<class>/<image>, read by one walk, in one order everywhere.

Classes are the folders of <root>/train in sorted order, for every split, so a label means the same class in all of
them. Files are sorted by name within a class. What is taken: .jpg, .jpeg and .png, in any case. Anything else (other
endings, hidden files, folders below a class) is left out and counted in `ignored`.

Each image's first and last bytes are looked at: an empty file, a file that is neither JPEG nor PNG, and a file whose
end is missing are bad. Damage in between shows only when the image is decoded; see data/imagenet.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from subshot.data.image_header import HEAD_BYTES, TAIL_BYTES, why_broken

EXTENSIONS = (".jpg", ".jpeg", ".png")
_NEAR_END = 64
_SHOWN = 5


class DataError(ValueError):
    """The data on disk are not what they should be; the message names the file or folder and the mend."""


@dataclass(frozen=True)
class ImageFolder:
    """Images of one split and their labels. paths are relative to root; labels index into classes.

    skipped: (path, reason) of every bad image or empty class folder that was dropped. ignored: the number of entries
    that are no images by name. fingerprint: sha256 over names and sizes of the whole split's good images.
    """

    root: Path
    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    ignored: int = 0
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _ClassListing:
    good: tuple[str, ...]
    sizes: tuple[int, ...]
    bad: tuple[tuple[str, str], ...]
    ignored: int


def scan(root: Path, split: str, *, on_bad_image: Literal["error", "skip"] = "error") -> ImageFolder:
    """Index <root>/<split>.

    A missing split, a class that train lacks, and a split without one good image raise DataError. So does a bad image
    or an empty class folder where on_bad_image is "error"; where it is "skip" they are listed in `skipped`, and an
    empty class keeps its label.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f'on_bad_image must be "error" or "skip", not {on_bad_image!r}')
    root = Path(root)
    classes = _class_folders(root, "train")
    present = classes if split == "train" else _class_folders(root, split)
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise DataError(
            f"{root / split} has {_some(unknown)}, which {root / 'train'} lacks: each class needs a folder in train"
        )
    with ThreadPoolExecutor(max_workers=8) as pool:
        listings = list(pool.map(lambda name: _list_class(root, f"{split}/{name}"), present))
    bad = [entry for listing in listings for entry in listing.bad]
    if bad and on_bad_image == "error":
        raise DataError(
            f"{root} holds {len(bad)} bad image file{'' if len(bad) == 1 else 's'} or class folder"
            f"{'' if len(bad) == 1 else 's'}: {_some([f'{root / path} ({reason})' for path, reason in bad])}. "
            "Mend or remove what is bad, or leave it out with --images.on-bad-image skip"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    paths = tuple(path for listing in listings for path in listing.good)
    labels = tuple(
        label_of[name] for name, listing in zip(present, listings, strict=True) for _ in range(len(listing.good))
    )
    if not paths:
        raise DataError(f"{root / split} holds no usable image: it needs {split}/<class>/<name>.JPEG (or .jpg, .png)")
    ignored = sum(listing.ignored for listing in listings)
    names = (f"{path} {size}\n" for part in listings for path, size in zip(part.good, part.sizes, strict=True))
    digest = hashlib.sha256("".join(names).encode()).hexdigest()
    return ImageFolder(root, split, classes, paths, labels, tuple(bad), ignored, digest)


def split_train(folder: ImageFolder, fraction: float, seed: int) -> tuple[ImageFolder, ImageFolder]:
    """(train, search): a share of each class of train, drawn by seed, held out to rank architectures on.

    A class of n images gives round(fraction * n) of them, at least one and at most n - 1; a class of one image stays in
    train whole. Only the train split is taken: what a search sees must not be the images that a result is told on.
    """
    if folder.split != "train":
        raise ValueError(f"a search split is held out of the train split, never of {folder.split!r}")
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must lie between 0 and 1 (both excluded), not {fraction}")
    labels = np.asarray(folder.labels)
    held: list[int] = []
    for label in range(len(folder.classes)):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        rng = np.random.Generator(np.random.Philox(key=[seed, label]))
        held.extend(rng.permutation(members)[:count].tolist())
    if not held:
        raise DataError(f"{folder.root / folder.split} has no class of two or more images, so none can be held out")
    chosen = set(held)
    rest = (index for index in range(len(folder)) if index not in chosen)
    return _subset(folder, "train", rest), _subset(folder, "search", sorted(chosen))


def _subset(folder: ImageFolder, split: str, indices: Iterable[int]) -> ImageFolder:
    kept = tuple(indices)
    paths = tuple(folder.paths[index] for index in kept)
    labels = tuple(folder.labels[index] for index in kept)
    return replace(folder, split=split, paths=paths, labels=labels)


def _class_folders(root: Path, split: str) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist")
    folder = root / split
    if not folder.is_dir():
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        raise DataError(
            f"{root} has no folder {split!r} (it has {_some(found) if found else 'no folders'}): "
            f"images are expected as {split}/<class>/<name>.JPEG"
        )
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no class folders: sort the images into {split}/<class>/")
    return tuple(names)


def _list_class(root: Path, relative: str) -> _ClassListing:
    """The images of one class folder; reads a few bytes of each."""
    good: list[str] = []
    sizes: list[int] = []
    bad: list[tuple[str, str]] = []
    ignored = 0
    for entry in sorted(os.scandir(root / relative), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.name.lower().endswith(EXTENSIONS) or entry.is_dir():
            ignored += 1
            continue
        path = f"{relative}/{entry.name}"
        size, reason = _looked_at(entry.path)
        if reason is None:
            good.append(path)
            sizes.append(size)
        else:
            bad.append((path, reason))
    if not good and not bad:
        bad.append((relative, "the class folder holds no image"))
    return _ClassListing(tuple(good), tuple(sizes), tuple(bad), ignored)


def _looked_at(path: str) -> tuple[int, str | None]:
    """(Size in bytes, why it is bad or None) of an image file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:  # a dangling link, no permission
        return 0, f"the file cannot be opened: {error.strerror}"
    try:
        length = os.fstat(descriptor).st_size
        head = os.pread(descriptor, HEAD_BYTES, 0)
        reason = why_broken(head, os.pread(descriptor, _NEAR_END, max(length - _NEAR_END, 0)))
        if reason is not None and length > _NEAR_END:  # rare: bytes follow the end marker
            reason = why_broken(head, os.pread(descriptor, TAIL_BYTES, max(length - TAIL_BYTES, 0)))
        return length, reason
    finally:
        os.close(descriptor)


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    shown = ", ".join(listed[:_SHOWN])
    return shown if len(listed) <= _SHOWN else f"{shown} and {len(listed) - _SHOWN} more"
