"""Class folders from arrays: lossless, atomic, and the embedded digits."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subshot.data.arrays import MANIFEST, write_class_folders
from subshot.data.digits import write_digits
from subshot.data.image_folder import DataError, scan


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def _some_images(count: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, 8, 6, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_folders_hold_the_arrays_bit_for_bit(tmp_path: Path, channels: int) -> None:
    images, labels = _some_images(5, channels), np.array([1, 0, 1, 1, 0])
    out = write_class_folders(tmp_path / "out", {"train": (images, labels, ("cat", "dog"))})
    folder = scan(out, "train")
    assert folder.classes == ("cat", "dog")
    assert folder.labels == (0, 0, 1, 1, 1)
    for path in folder.paths:
        stored = np.asarray(Image.open(out / path)).reshape(8, 6, channels)
        np.testing.assert_array_equal(stored, images[int(Path(path).stem)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"], "nothing temporary is left"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = _some_images(3, 3), np.array([0, 1, 0])
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_class_folders(tmp_path / "out", {"train": (images, labels, ("a", "b"))})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    splits = {"train": (_some_images(3, 3), np.array([0, 1, 0]), ("a", "b"))}
    out = write_class_folders(tmp_path / "out", splits)
    before = _digest(out)
    assert write_class_folders(out, splits) == out
    assert _digest(out) == before
    (out / "train" / "a" / "000000.png").unlink()
    with pytest.raises(DataError, match="holds 2 files where 3 were written.*delete"):
        write_class_folders(out, splits)
    (out / MANIFEST).unlink()
    with pytest.raises(DataError, match="not written whole.*delete"):
        write_class_folders(out, splits)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.array([0, 1]), "must be uint8"),
        (np.zeros((2, 4, 4, 2), np.uint8), np.array([0, 1]), "must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0]), "labels of shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2]), "names 2 classes"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_class_folders(tmp_path / "out", {"train": (images, labels, ("a", "b"))})


def test_digits_are_stratified_and_the_same_each_time(digits: Path, tmp_path: Path) -> None:
    train, val = scan(digits, "train"), scan(digits, "val")
    assert train.classes == val.classes == tuple("0123456789")
    assert (len(train), len(val)) == (1442, 355)
    assert np.ptp(np.bincount(val.labels)) <= 2
    with Image.open(digits / train.paths[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (32, 32))
    assert _digest(write_digits(tmp_path / "again")) == _digest(digits)
