"""The DALI graph of both pipelines and the engine that feeds it; nothing in it is random.

One graph, on the CPU (device_id None) or a GPU: decode the window, resize, RandAugment, colour, normalise and mirror.
Encoded bytes and all parameters come from outside, so an output depends on its own inputs alone.

Pinned: RGB; linear interpolation with antialiasing (a triangular filter, PIL's BILINEAR); EXIF orientation ignored, as
PIL ignores it; libjpeg's fancy chroma upsampling; ImageNet's mean and deviation. On whole 8-bit images the CPU decoder
gives PIL's pixels, bit for bit: grey files become three equal channels, CMYK is converted as PIL converts it, and
transparency is dropped. At the border of a window the resize repeats the last pixel, where PIL's filter leaves it out.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import nvidia.dali.auto_aug.augmentations as auto
import nvidia.dali.fn as fn
import nvidia.dali.types as types
from numpy.typing import NDArray
from nvidia.dali import Pipeline, pipeline_def
from nvidia.dali.auto_aug.core import augmentation, select, signed_bin
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from subshot.data.augment import RANDOM_CHOICES, RANDOM_MAGNITUDES

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_DEPTH = 2


@dataclass(frozen=True)
class GraphOptions:
    """What is fixed in a graph.

    crop "window": integer window inside the image; the decoder reads no more than that, and the resize sees no pixel
    outside. "padded": integer window that may stick out, black outside. "region": a window of real numbers inside the
    image, whose edge pixels are filtered together with their neighbours outside, as in a resize of the whole image.
    """

    size: int
    crop: Literal["window", "padded", "region"]
    colour: bool = False
    operations: int = 0
    magnitude: int = 0


@dataclass(frozen=True)
class Feed:
    """One batch for the graph: encoded files and, for each image, the graph's inputs by name."""

    encoded: Sequence[NDArray[np.uint8]]
    inputs: Mapping[str, NDArray[Any]]


# DALI's own wrappers of these two still call deprecated names.
@augmentation
def _equalize(data: Any, _: Any) -> Any:
    return fn.equalize(data)


@augmentation(mag_range=(0, 0.9), randomly_negate=True, mag_to_param=auto.sharpness_kernel, param_device="auto")
def _sharpness(data: Any, kernel: Any) -> Any:
    return fn.filter(data, kernel)


def random_operations() -> list[Any]:
    """RandAugment's operations with DALI's monotonic ranges; translations of up to 100/224 of the side."""
    side = 100 / 224
    return [
        auto.translate_x.augmentation((0, side), True),
        auto.translate_y.augmentation((0, side), True),
        auto.shear_x.augmentation((0, 0.3), True),
        auto.shear_y.augmentation((0, 0.3), True),
        auto.rotate.augmentation((0, 30), True),
        auto.brightness.augmentation((0, 0.9), True, auto.shift_enhance_range),
        auto.contrast.augmentation((0, 0.9), True, auto.shift_enhance_range),
        auto.color.augmentation((0, 0.9), True, auto.shift_enhance_range),
        _sharpness,
        auto.posterize.augmentation((8, 4), False, auto.poster_mask_uint8),
        auto.solarize.augmentation((256, 0)),
        _equalize,
        auto.auto_contrast,
        auto.identity,
    ]


def build_pipeline(options: GraphOptions, max_batch: int, num_threads: int, device_id: int | None) -> Pipeline:
    """The graph for batches of up to max_batch images; its one output is [N, 3, size, size] float32."""
    pipeline = _graph(
        options,
        batch_size=max_batch,
        num_threads=num_threads,
        device_id=device_id,
        prefetch_queue_depth=_DEPTH,
        enable_conditionals=options.operations > 0,  # RandAugment branches on each image's operation
    )
    pipeline.build()
    return pipeline


@pipeline_def
def _graph(options: GraphOptions) -> Any:
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    mirror = fn.external_source(name="mirror", dtype=types.INT32, ndim=0)
    images = _decode_and_resize(options, encoded)
    if options.operations:
        operation = fn.external_source(name="operation", dtype=types.INT32, ndim=1)
        sign = fn.external_source(name="sign", dtype=types.INT32, ndim=1)
        suite = random_operations()
        assert len(suite) == RANDOM_CHOICES
        for level in range(options.operations):
            images = select(
                suite,
                operation[level],
                data=images,
                magnitude_bin=signed_bin(options.magnitude, random_sign=sign[level]),
                num_magnitude_bins=RANDOM_MAGNITUDES,
                fill_value=128,
                interp_type=types.INTERP_LINEAR,
                shape=[options.size, options.size],
            )
    if options.colour:
        colour = fn.external_source(name="colour", dtype=types.FLOAT, ndim=1)
        # On the CPU this takes two thirds of color_twist's time: only the grey image is touched twice.
        grey = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)
        images = images * colour[0] + (grey * colour[1] + colour[2])
    return fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        mean=[255.0 * value for value in MEAN],
        std=[255.0 * value for value in STD],
        dtype=types.FLOAT,
        output_layout="CHW",
    )


def _decode_and_resize(options: GraphOptions, encoded: Any) -> Any:
    decoder = "cpu" if Pipeline.current().device_id is None else "mixed"
    kind = types.INT32 if options.crop != "region" else types.FLOAT
    start = fn.external_source(name="start", dtype=kind, ndim=1)
    shape = fn.external_source(name="shape", dtype=kind, ndim=1)
    decoding = {
        "device": decoder,
        "output_type": types.RGB,
        "adjust_orientation": False,
        "jpeg_fancy_upsampling": True,
    }
    resizing = {
        "resize_x": options.size,
        "resize_y": options.size,
        "interp_type": types.INTERP_LINEAR,
        "antialias": True,
    }
    if options.crop == "window":
        images = fn.decoders.image_slice(encoded, start=start, shape=shape, axes=[0, 1], **decoding)
        return fn.resize(images, **resizing)
    images = fn.decoders.image(encoded, **decoding)
    if options.crop == "padded":
        images = fn.slice(images, start=start, shape=shape, axes=[0, 1], out_of_bounds_policy="pad", fill_values=0)
        return fn.resize(images, **resizing)
    return fn.resize(images, roi_start=start, roi_end=start + shape, **resizing)


class Engine:
    """Runs one pipeline over batches that are prepared ahead in threads; built at the first batch and kept."""

    def __init__(self, build: Callable[[], Pipeline], num_threads: int) -> None:
        self._build = build
        self._num_threads = num_threads
        self._pipeline: Pipeline | None = None

    def run(self, tasks: Sequence[Callable[[], Feed]]) -> Generator[Tensor, None, None]:
        """The outputs in order. Where the pipeline fails its error is raised, and the next run builds a new one."""
        ahead: deque[Future[Feed]] = deque()
        waiting = iter(tasks)
        in_flight = 0
        with ThreadPoolExecutor(max_workers=self._num_threads) as pool:
            try:
                ahead.extend(pool.submit(task) for task in itertools.islice(waiting, _DEPTH + self._num_threads))
                while ahead or in_flight:
                    while ahead and in_flight < _DEPTH:
                        self._schedule(ahead.popleft().result())
                        in_flight += 1
                        ahead.extend(pool.submit(task) for task in itertools.islice(waiting, 1))
                    output = self._collect()
                    in_flight -= 1
                    yield output
            except GeneratorExit:  # the reader stopped early: what runs is taken out, so the next run starts clean
                for _ in range(in_flight):
                    self._collect()
                raise
            except BaseException:
                self._pipeline = None
                raise
            finally:
                for future in ahead:
                    future.cancel()

    def _schedule(self, feed: Feed) -> None:
        if self._pipeline is None:
            self._pipeline = self._build()
            # DALI's first run fills its whole queue: it gets copies, which are dropped. From here one feed is one run.
            for _ in range(_DEPTH):
                self._feed(self._pipeline, feed)
            self._pipeline.schedule_run()
            for _ in range(_DEPTH):
                self._collect()
        self._feed(self._pipeline, feed)
        self._pipeline.schedule_run()

    @staticmethod
    def _feed(pipeline: Pipeline, feed: Feed) -> None:
        pipeline.feed_input("encoded", list(feed.encoded))
        for name, values in feed.inputs.items():
            pipeline.feed_input(name, values)

    def _collect(self) -> Tensor:
        assert self._pipeline is not None
        (images,) = self._pipeline.share_outputs()
        self._pipeline.release_outputs()
        # The default executor hands its buffers over: torch keeps them alive, and DALI never writes into them again.
        output: Tensor = from_dlpack(images.as_tensor())
        return output


def decodes(encoded: NDArray[np.uint8], num_threads: int = 1) -> bool:
    """Whether DALI's CPU decoder takes the file whole."""
    pipeline = Pipeline(batch_size=1, num_threads=num_threads, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        source = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(fn.decoders.image(source, adjust_orientation=False))
    pipeline.feed_input("encoded", [encoded])
    try:
        pipeline.run()
    except RuntimeError:
        return False
    return True
