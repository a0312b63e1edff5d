"""Real broken and unusual files through the loaders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subshot.data.image_folder import DataError, scan
from subshot.data.imagenet import IMAGENET, EvalLoader, TrainLoader

BAD = "train/cat/3.JPEG"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight smooth 60 x 40 pictures of one class."""
    (tmp_path / "train" / "cat").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(8):
        small = Image.fromarray(rng.integers(256, size=(5, 7, 3), dtype=np.uint8))
        small.resize((60, 40), Image.Resampling.BICUBIC).save(tmp_path / "train" / "cat" / f"{index}.JPEG", quality=95)
    return tmp_path


def _wipe(path: Path, start: int, stop: int) -> None:
    data = bytearray(path.read_bytes())
    data[start:stop] = bytes(stop - start)
    path.write_bytes(bytes(data))


def _broken_tables(path: Path) -> None:
    """The Huffman tables are wiped, the size can still be read."""
    data = path.read_bytes()
    start = data.index(b"\xff\xc4") + 4
    _wipe(path, start, start + 20)


def _no_frame_header(path: Path) -> None:
    start = path.read_bytes().index(b"\xff\xc0")
    _wipe(path, start, start + 12)


def _broken_png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    image.save(path, format="PNG")
    _wipe(path, 500, 560)


def _cut_after_indexing(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("damage", [_broken_tables, _no_frame_header, _broken_png, _cut_after_indexing])
def test_what_fails_in_decoding_names_the_file_and_the_loader_goes_on_working(
    tree: Path, damage: Callable[[Path], None]
) -> None:
    whole = (tree / BAD).read_bytes()
    train_folder = scan(tree, "train")
    loaders = (
        TrainLoader(train_folder, size=16, augmentation=IMAGENET, batch_size=2, num_shards=1, seed=0),
        EvalLoader(train_folder, size=16, batch_size=2),
    )
    damage(tree / BAD)
    for loader in loaders:
        with pytest.raises(DataError) as caught:
            if isinstance(loader, EvalLoader):
                list(loader)
            else:  # a window may end above the damage, so it may take some epochs
                [list(loader.batches(epoch)) for epoch in range(10)]
        assert str(tree / BAD) in str(caught.value)
        assert "Replace or remove" in str(caught.value)
    (tree / BAD).write_bytes(whole)
    train, evaluation = loaders
    assert len(list(train.batches(0))) == len(list(evaluation)) == 4


def test_damage_that_libjpeg_conceals_is_decoded_without_an_error(tree: Path) -> None:
    before = next(iter(EvalLoader(scan(tree, "train"), size=32, batch_size=8))).images
    path = tree / BAD
    middle = path.read_bytes().index(b"\xff\xda") + 200
    _wipe(path, middle, middle + 100)
    after = next(iter(EvalLoader(scan(tree, "train"), size=32, batch_size=8))).images
    changed = (before - after).abs().amax(dim=(1, 2, 3)) > 0
    assert changed.tolist() == [index == 3 for index in range(8)]


def test_grey_cmyk_and_png_files_come_out_as_pil_converts_them(tree: Path) -> None:
    paths = [tree / "train" / "cat" / f"{index}.JPEG" for index in range(8)]
    with Image.open(paths[0]) as image:
        image.load()
    image.convert("L").save(paths[0], quality=95)
    image.convert("CMYK").save(paths[1], quality=95)
    image.save(paths[2], format="PNG")
    image.convert("RGBA").save(paths[3], format="PNG")
    image.save(paths[4], quality=95, progressive=True)
    image.convert("P").save(paths[5], format="PNG")
    references = [Image.open(path).convert("RGB").crop((10, 0, 50, 40)) for path in paths]
    (batch,) = EvalLoader(scan(tree, "train"), size=40, crop_ratio=1.0, batch_size=8)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    pixels = 255 * (batch.images.permute(0, 2, 3, 1).numpy() * std + mean)
    np.testing.assert_allclose(pixels, np.stack([np.asarray(image) for image in references]), atol=1e-4)
    assert np.ptp(pixels[0], axis=-1).max() < 1e-4


def test_an_exif_orientation_is_ignored_as_pil_ignores_it(tree: Path) -> None:
    path = tree / "train" / "cat" / "0.JPEG"
    folder = scan(tree, "train")
    loader = EvalLoader(folder, size=32, batch_size=8)
    before = next(iter(loader)).images[0]
    exif = Image.Exif()
    exif[274] = 6
    segment = exif.tobytes()
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + data[2:])
    with Image.open(path) as image:
        assert image.getexif()[274] == 6
    assert (next(iter(loader)).images[0] - before).abs().max() == 0
    (training,) = next(
        TrainLoader(folder, size=32, augmentation=IMAGENET, batch_size=8, num_shards=1, seed=0).batches(0)
    )
    assert training[1].images.shape == (8, 3, 32, 32)


def test_a_file_that_vanished_is_told(tree: Path) -> None:
    folder = scan(tree, "train")
    (tree / BAD).unlink()
    with pytest.raises(FileNotFoundError, match=BAD):
        list(EvalLoader(folder, size=16, batch_size=2))
