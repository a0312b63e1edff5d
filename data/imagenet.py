"""Loaders of ImageNet-layout folders through DALI, on the CPU or a GPU, alike for every number of processes.

A training batch is a pure function of (seed, epoch, step). The order of an epoch is a permutation of the folder; a
global batch is `batch_size` images of it in a row (what is left at the end is dropped), cut into `num_shards` equal
parts in order; process r of w takes the shards v with v % w == r. Nothing is carried from batch to batch, so the state
of a loader is the pair (epoch, step), and any position can be started from.

Bad files. What the index cannot see shows here: a file that DALI cannot decode, or whose header gives no size, raises
DataError with its path. With a random window only the rows down to its lower edge are decoded, so damage below it
shows in a later epoch. Damage in the middle of a JPEG that libjpeg conceals is decoded as libjpeg does, with a line on
stderr and no error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subshot.data.augment import DIGITS, IMAGENET, NONE, SMALL_PHOTO, Augmentation, draw, epoch_order
from subshot.data.batch import ImageBatch
from subshot.data.dali import Engine, Feed, GraphOptions, build_pipeline, decodes
from subshot.data.image_folder import DataError, ImageFolder
from subshot.data.image_header import dimensions

__all__ = ["DIGITS", "IMAGENET", "NONE", "SMALL_PHOTO", "Augmentation", "EvalLoader", "TrainLoader"]

Indices = NDArray[np.int64]


class TrainLoader:
    """Augmented training batches. size: pixels of a side. device_id: None for the CPU, else the number of the GPU.

    batch_size is global, over all processes. Iterations are independent: several may be open at once, and one may be
    left early.
    """

    def __init__(
        self,
        folder: ImageFolder,
        *,
        size: int,
        augmentation: Augmentation,
        batch_size: int,
        num_shards: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        num_threads: int = 2,
        device_id: int | None = None,
    ) -> None:
        _check_common(size, batch_size, rank, world, num_threads)
        if seed < 0:
            raise ValueError(f"seed must not be negative, but is {seed}")
        if batch_size % num_shards:
            raise ValueError(f"batch_size {batch_size} must be a multiple of num_shards {num_shards}")
        if world > num_shards:
            raise ValueError(f"{world} processes share {num_shards} shards: raise num_shards to {world} or more")
        if len(folder) < batch_size:
            raise ValueError(
                f"batch_size {batch_size} is larger than the {len(folder)} images of {folder.root} ({folder.split})"
            )
        self.folder = folder
        self.size = size
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.seed = seed
        self.shards = tuple(range(rank, num_shards, world))
        self._shard_size = batch_size // num_shards
        options = GraphOptions(
            size,
            "window" if augmentation.crop == "random_resized" else "padded",
            augmentation.jitters_colour,
            augmentation.random_operations,
            augmentation.random_magnitude,
        )
        self._reader = _Reader(folder, options, self._shard_size * len(self.shards), num_threads, device_id)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.folder) // self.batch_size

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[int, ImageBatch]]]:
        """For each step from start_step on: (shard number, batch) for the shards of this process, in order."""
        if epoch < 0 or not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"no such position: epoch {epoch}, step {start_step} (epochs from 0, steps 0 to {self.steps_per_epoch})"
            )
        order = epoch_order(self.seed, epoch, len(self.folder))
        steps = [self._indices(order, step) for step in range(start_step, self.steps_per_epoch)]
        for batch in self._reader.read(steps, functools.partial(self._parameters, epoch)):
            fields = (field.split(self._shard_size) for field in (batch.images, batch.labels, batch.indices))
            parts = [ImageBatch(*part) for part in zip(*fields, strict=True)]
            yield list(zip(self.shards, parts, strict=True))

    def _indices(self, order: Indices, step: int) -> Indices:
        first = step * self.batch_size
        starts = [first + shard * self._shard_size for shard in self.shards]
        return np.concatenate([order[start : start + self._shard_size] for start in starts])

    def _parameters(self, epoch: int, index: int, height: int, width: int) -> dict[str, Sequence[float]]:
        sample = draw(self.augmentation, self.size, height, width, self.seed, epoch, index)
        parameters: dict[str, Sequence[float]] = {
            "start": (sample.window.top, sample.window.left),
            "shape": (sample.window.height, sample.window.width),
            "mirror": (sample.flip,),
        }
        if self.augmentation.jitters_colour:
            parameters["colour"] = colour_coefficients(*sample.colour)
        if self.augmentation.random_operations:
            parameters["operation"] = sample.operations
            parameters["sign"] = sample.negate
        return parameters


class EvalLoader:
    """Every image of the folder once, in order: shorter side to round(size / crop_ratio), then the central crop.

    Batches are consecutive runs of batch_size images, dealt to the processes in turn; the last one may be smaller.
    crop_ratio 1.0 suits images that are stored at about `size`.
    """

    def __init__(
        self,
        folder: ImageFolder,
        *,
        size: int,
        crop_ratio: float = 0.875,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        num_threads: int = 2,
        device_id: int | None = None,
    ) -> None:
        _check_common(size, batch_size, rank, world, num_threads)
        if not 0.0 < crop_ratio <= 1.0:
            raise ValueError(f"crop_ratio must lie in (0, 1], not {crop_ratio}")
        self.folder = folder
        self.size = size
        self.resized = round(size / crop_ratio)
        starts = range(rank * batch_size, len(folder), world * batch_size)
        self._chunks = [np.arange(start, min(start + batch_size, len(folder))) for start in starts]
        self._reader = _Reader(folder, GraphOptions(size, "region"), batch_size, num_threads, device_id)

    def __len__(self) -> int:
        """The number of batches that this process gives."""
        return len(self._chunks)

    def __iter__(self) -> Iterator[ImageBatch]:
        return self._reader.read(self._chunks, self._parameters)

    def _parameters(self, index: int, height: int, width: int) -> dict[str, Sequence[float]]:
        top, left, tall, wide = central_region(height, width, self.size, self.resized)
        return {"start": (top, left), "shape": (tall, wide), "mirror": (0,)}


def central_region(height: int, width: int, size: int, resized: int) -> tuple[float, float, float, float]:
    """(top, left, height, width) in source pixels of "shorter side to `resized`, longer in proportion (rounded down),
    crop the central size x size", with torchvision's rounding of sizes and offsets.
    """
    if height <= width:
        scaled = (resized, int(resized * width / height))
    else:
        scaled = (int(resized * height / width), resized)
    down, right = height / scaled[0], width / scaled[1]  # source pixels of one resized pixel
    top, left = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return top * down, left * right, size * down, size * right


def colour_coefficients(brightness: float, contrast: float, saturation: float) -> tuple[float, float, float]:
    """(gain, blend, offset) of the colour jitter as gain * pixel + blend * grey + offset, on the scale 0..255.

    It is brightness * (128 + contrast * (saturation * pixel + (1 - saturation) * grey - 128)), with Rec. 601's grey.
    """
    gain = brightness * contrast
    return gain * saturation, gain * (1.0 - saturation), 128.0 * brightness * (1.0 - contrast)


Parameters = Callable[[int, int, int], dict[str, Sequence[float]]]


class _Reader:
    """From positions in a folder to batches; keeps idle engines, so each iteration has one of its own."""

    def __init__(
        self, folder: ImageFolder, options: GraphOptions, max_batch: int, num_threads: int, device_id: int | None
    ) -> None:
        self._folder = folder
        self._labels = np.asarray(folder.labels, dtype=np.int64)
        self._build = functools.partial(build_pipeline, options, max_batch, num_threads, device_id)
        self._num_threads = num_threads
        self._kinds = {
            "start": np.float32 if options.crop == "region" else np.int32,
            "shape": np.float32 if options.crop == "region" else np.int32,
            "colour": np.float32,
        }
        self._idle: list[Engine] = []

    def read(self, chunks: Sequence[Indices], parameters: Parameters) -> Iterator[ImageBatch]:
        engine = self._idle.pop() if self._idle else Engine(self._build, self._num_threads)
        done = 0
        outputs = engine.run([functools.partial(self._feed, chunk, parameters) for chunk in chunks])
        try:
            for images in outputs:
                yield self._batch(images, chunks[done])
                done += 1
        except (RuntimeError, ValueError) as error:
            if not isinstance(error, DataError):
                self._blame(chunks[done : done + 3], error)
            raise
        finally:
            outputs.close()
            self._idle.append(engine)

    def _batch(self, images: Tensor, chunk: Indices) -> ImageBatch:
        labels = torch.from_numpy(self._labels[chunk])
        return ImageBatch(images, labels.to(images.device), torch.from_numpy(chunk).to(images.device))

    def _feed(self, chunk: Indices, parameters: Parameters) -> Feed:
        encoded = []
        rows: dict[str, list[Sequence[float]]] = {}
        for index in chunk.tolist():
            data = self._bytes(index)
            try:
                height, width = dimensions(data)
            except ValueError as error:
                raise self._bad(index, str(error)) from error
            encoded.append(np.frombuffer(data, dtype=np.uint8))
            for name, values in parameters(index, height, width).items():
                rows.setdefault(name, []).append(values)
        inputs = {name: np.asarray(values, self._kinds.get(name, np.int32)) for name, values in rows.items()}
        inputs["mirror"] = inputs["mirror"][:, 0]
        return Feed(encoded, inputs)

    def _bytes(self, index: int) -> bytes:
        return (self._folder.root / self._folder.paths[index]).read_bytes()

    def _blame(self, chunks: Sequence[Indices], error: Exception) -> None:
        """Decode the images of the batches in flight one by one, and name the first that fails."""
        for index in np.concatenate(chunks).tolist():
            if not decodes(np.frombuffer(self._bytes(index), dtype=np.uint8)):
                raise self._bad(index, "it cannot be decoded") from error

    def _bad(self, index: int, reason: str) -> DataError:
        path = self._folder.root / self._folder.paths[index]
        return DataError(f"bad image {path}: {reason}. Replace or remove the file and index the folder again")


def _check_common(size: int, batch_size: int, rank: int, world: int, num_threads: int) -> None:
    for name, value in (("size", size), ("batch_size", batch_size), ("num_threads", num_threads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie between 0 and {world - 1}, not {rank}")
