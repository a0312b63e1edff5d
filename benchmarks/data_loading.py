"""Images a second of the DALI CPU training pipeline against PIL and NumPy loaders of the same transforms.

    python benchmarks/data_loading.py [FOLDER] [--size 224] [--workers 2] [--repetitions 7] [--images 640]

FOLDER is in ImageNet layout; without it the embedded digits are used. Both sides read the same files, with the same
windows, flips and colour factors from the same draws, and give float32 batches [N, 3, size, size]. The PIL loader is
timed in its four plain forms: threads or processes, and the colour jitter as three ImageEnhance steps or as one colour
matrix (the fastest that PIL has). Each repetition times every loader once, in turn, over the same images.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from subshot.data.augment import IMAGENET, draw, epoch_order
from subshot.data.dali import MEAN, STD
from subshot.data.digits import write_digits
from subshot.data.image_folder import ImageFolder, scan
from subshot.data.imagenet import TrainLoader

SEED = 0
_MEAN = 255.0 * np.asarray(MEAN, np.float32)
_STD = 255.0 * np.asarray(STD, np.float32)
_LUMA = np.asarray([0.299, 0.587, 0.114])


def pil_image(path: Path, size: int, epoch: int, index: int, *, matrix: bool) -> NDArray[np.float32]:
    """One training image [3, size, size]."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    sample = draw(IMAGENET, size, image.height, image.width, SEED, epoch, index)
    window = sample.window
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    if sample.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    brightness, contrast, saturation = sample.colour
    if matrix:
        gain, offset = brightness * contrast, 128.0 * brightness * (1.0 - contrast)
        rows = gain * (saturation * np.eye(3) + (1.0 - saturation) * _LUMA)
        image = image.convert("RGB", tuple(np.column_stack([rows, np.full(3, offset)]).ravel().tolist()))
    else:
        image = ImageEnhance.Color(image).enhance(saturation)
        image = Image.blend(Image.new("RGB", image.size, (128, 128, 128)), image, contrast)
        image = ImageEnhance.Brightness(image).enhance(brightness)
    pixels = np.asarray(image, dtype=np.float32)
    return ((pixels - _MEAN) / _STD).transpose(2, 0, 1)


def pil_batch(task: tuple[list[Path], list[int], int, int, bool]) -> NDArray[np.float32]:
    paths, indices, size, epoch, matrix = task
    return np.stack(
        [pil_image(path, size, epoch, index, matrix=matrix) for path, index in zip(paths, indices, strict=True)]
    )


def pil_epoch(pool: Executor, folder: ImageFolder, size: int, batch_size: int, epoch: int, *, matrix: bool) -> int:
    order = epoch_order(SEED, epoch, len(folder)).tolist()
    tasks = []
    for start in range(0, len(order) - batch_size + 1, batch_size):
        indices = order[start : start + batch_size]
        tasks.append(([folder.root / folder.paths[index] for index in indices], indices, size, epoch, matrix))
    return sum(len(torch.from_numpy(batch)) for batch in pool.map(pil_batch, tasks))


def dali_epoch(loader: TrainLoader, epoch: int) -> int:
    return sum(len(batch) for step in loader.batches(epoch) for _, batch in step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder in ImageNet layout (default: the digits)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--images", type=int, default=640, help="images of a repetition, spread over the classes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or write_digits(Path(temporary) / "digits")
        compare(
            spread(scan(root, "train"), options.images),
            options.size,
            options.batch_size,
            options.workers,
            options.repetitions,
        )


def spread(folder: ImageFolder, count: int) -> ImageFolder:
    """About `count` images at equal distances."""
    step = max(1, len(folder) // count)
    return dataclasses.replace(folder, paths=folder.paths[::step], labels=folder.labels[::step])


def compare(folder: ImageFolder, size: int, batch_size: int, workers: int, repetitions: int) -> None:
    loader = TrainLoader(
        folder,
        size=size,
        augmentation=IMAGENET,
        batch_size=batch_size,
        num_shards=1,
        seed=SEED,
        num_threads=workers,
    )
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(workers) as threads, ProcessPoolExecutor(workers, mp_context=spawn) as processes:

        def pil(pool: Executor, matrix: bool) -> Callable[[int], int]:
            return lambda epoch: pil_epoch(pool, folder, size, batch_size, epoch, matrix=matrix)

        loaders: dict[str, Callable[[int], int]] = {
            "DALI": lambda epoch: dali_epoch(loader, epoch),
            "PIL, threads, enhance": pil(threads, False),
            "PIL, processes, enhance": pil(processes, False),
            "PIL, threads, matrix": pil(threads, True),
            "PIL, processes, matrix": pil(processes, True),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for epoch in range(repetitions + 1):
            for name, run in loaders.items():
                start = time.perf_counter()
                count = run(epoch)
                if epoch:  # the first round warms up
                    rates[name].append(count / (time.perf_counter() - start))
    print(f"{len(folder)} images, {size} x {size}, batch {batch_size}, {workers} workers, {repetitions} repetitions")
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["DALI"], values, strict=True)]
        print(
            f"{name:24} {statistics.median(values):7.0f} images/s (from {min(values):.0f} to {max(values):.0f})"
            f"   DALI is {statistics.median(ratios):.2f} times as fast (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
