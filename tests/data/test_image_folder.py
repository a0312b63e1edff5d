"""The index: one order, labels by train's classes, and what it does with files and folders that are not right."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subshot.data.image_folder import DataError, scan, split_train
from subshot.data.image_header import dimensions


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of three photos in train and one in val."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(256, size=(24, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.JPEG")
    return tmp_path


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_paths_are_sorted_and_labels_follow_the_classes(tree: Path) -> None:
    folder = scan(tree, "train")
    assert folder.classes == ("ant", "bee")
    assert folder.paths == tuple(f"train/{name}/{i}.JPEG" for name in ("ant", "bee") for i in range(3))
    assert folder.labels == (0, 0, 0, 1, 1, 1)
    assert (folder.skipped, folder.ignored) == ((), 0)
    assert scan(tree, "train") == folder


def test_names_that_are_no_images_are_ignored_and_counted(tree: Path) -> None:
    ant = tree / "train" / "ant"
    (ant / "notes.txt").write_text("x")
    (ant / ".hidden.jpg").write_bytes(b"")
    (ant / "nested").mkdir()
    shutil.copy(ant / "0.JPEG", ant / "nested" / "deep.JPEG")
    shutil.copy(ant / "0.JPEG", ant / "upper.JPG")
    (tree / "train" / ".cache").mkdir()
    folder = scan(tree, "train")
    assert folder.ignored == 3
    assert len(folder) == 7
    assert folder.classes == ("ant", "bee")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "cut off (no end-of-image marker)"),
        (lambda path: path.write_text("I am no picture\n"), "neither JPEG nor PNG"),
        (lambda path: path.write_bytes(b""), "no bytes"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), "cannot be opened"),
    ],
)
def test_a_bad_file_is_an_error_with_its_path_or_skipped_and_counted(tree: Path, damage, reason: str) -> None:
    path = tree / "train" / "bee" / "1.JPEG"
    damage(path)
    with pytest.raises(DataError) as caught:
        scan(tree, "train")
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    folder = scan(tree, "train", on_bad_image="skip")
    assert len(folder) == 5
    assert folder.skipped[0][0] == "train/bee/1.JPEG"
    assert reason in folder.skipped[0][1]


def test_bytes_after_the_end_and_a_png_named_jpeg_are_good(tree: Path) -> None:
    first, second = tree / "train" / "ant" / "0.JPEG", tree / "train" / "ant" / "1.JPEG"
    first.write_bytes(first.read_bytes() + bytes(5000))
    Image.open(second).save(second, format="PNG")
    assert len(scan(tree, "train")) == 6
    _truncate(second)
    with pytest.raises(DataError, match="the PNG is cut off"):
        scan(tree, "train")


def test_an_empty_class_is_an_error_or_keeps_its_label(tree: Path) -> None:
    (tree / "train" / "bat").mkdir()
    with pytest.raises(DataError, match="holds 1 bad image file or class folder: .*bat .the class") as error:
        scan(tree, "train")
    assert "--images.on-bad-image skip" in str(error.value)
    folder = scan(tree, "train", on_bad_image="skip")
    assert folder.classes == ("ant", "bat", "bee")
    assert set(folder.labels) == {0, 2}
    assert folder.skipped == (("train/bat", "the class folder holds no image"),)
    assert scan(tree, "val").labels == (0, 2), "val takes its labels from train's classes"


def test_a_class_that_val_alone_has_is_named(tree: Path) -> None:
    shutil.copytree(tree / "val" / "ant", tree / "val" / "cow")
    with pytest.raises(DataError, match="has cow, which .*train lacks"):
        scan(tree, "val")
    shutil.rmtree(tree / "val" / "cow")
    shutil.rmtree(tree / "val" / "ant")
    assert scan(tree, "val").labels == (1,), "a class that val lacks is no error"


def test_missing_folders_and_no_images_are_told(tree: Path) -> None:
    with pytest.raises(DataError, match=r"no folder 'test' \(it has train, val\)"):
        scan(tree, "test")
    with pytest.raises(DataError, match="does not exist"):
        scan(tree / "nowhere", "train")
    with pytest.raises(DataError, match="no class folders"):
        (tree / "flat").mkdir()
        scan(tree, "flat")
    for path in tree.glob("val/*/*"):
        _truncate(path)
    with pytest.raises(DataError, match="no usable image"):
        scan(tree, "val", on_bad_image="skip")
    with pytest.raises(ValueError, match="on_bad_image"):
        scan(tree, "val", on_bad_image="ignore")  # type: ignore[arg-type]


def test_split_train_is_stratified_disjoint_and_repeatable(digits: Path) -> None:
    folder = scan(digits, "train")
    train, search = split_train(folder, 0.2, seed=3)
    assert set(train.paths) | set(search.paths) == set(folder.paths)
    assert not set(train.paths) & set(search.paths)
    assert list(train.paths) == sorted(train.paths)
    sizes, held = Counter(folder.labels), Counter(search.labels)
    assert all(held[label] == round(0.2 * sizes[label]) for label in sizes)
    assert split_train(folder, 0.2, seed=3) == (train, search)
    assert split_train(folder, 0.2, seed=4) != (train, search)
    for path, label in zip(search.paths, search.labels, strict=True):
        assert path.split("/")[1] == folder.classes[label]


def test_split_train_never_takes_from_val(digits: Path) -> None:
    with pytest.raises(ValueError, match="never of 'val'"):
        split_train(scan(digits, "val"), 0.2, seed=0)
    with pytest.raises(ValueError, match="fraction"):
        split_train(scan(digits, "train"), 1.0, seed=0)


def test_a_class_of_one_image_stays_in_train(tree: Path) -> None:
    for index in (1, 2):
        (tree / "train" / "ant" / f"{index}.JPEG").unlink()
    train, search = split_train(scan(tree, "train"), 0.01, seed=0)
    assert train.labels == (0, 1, 1)
    assert search.labels == (1,)


@pytest.mark.parametrize("save", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "PNG"}])
def test_dimensions_are_read_from_the_header(tmp_path: Path, save: dict[str, object]) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn, which is not applied
    exif[37510] = b"x" * 30_000
    Image.new("RGB", (31, 17)).save(tmp_path / "image", exif=exif, **save)
    data = (tmp_path / "image").read_bytes()
    assert dimensions(data) == (17, 31)
    with pytest.raises(ValueError, match="no (frame header|IHDR)"):
        dimensions(data[:20])


def test_dimensions_agree_with_pil_on_real_photos(photos: Path) -> None:
    folder = scan(photos, "train")
    for path in folder.paths:
        with Image.open(photos / path) as image:
            assert dimensions((photos / path).read_bytes()) == (image.height, image.width)
