"""Readers of published benchmark tables and of CIFAR-10 samples that lie in one folder, each checked by its sha256.

Accuracies are percent. `index` is the benchmark's own number of an architecture, 0 to 15,624 in NAS-Bench-201. Every
reader takes verify=False for a file of the same form that is not the published one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from subshot.data.image_folder import DataError

Accuracy = tuple[str, str, int]
"""(data set, "test" or "valid", epochs of training), as in ACCURACIES."""
_Types = Mapping[str, type[pl.DataType]]


@dataclass(frozen=True)
class BenchmarkDataset:
    """A data set of NAS-Bench-201: its prefix in column names, its number of classes, its image side in pixels."""

    prefix: str
    classes: int
    input_size: int


DATASETS = {
    "cifar10": BenchmarkDataset("c10", 10, 32),
    "cifar100": BenchmarkDataset("c100", 100, 32),
    "ImageNet16-120": BenchmarkDataset("in16", 120, 16),
}

ACCURACIES: dict[Accuracy, str] = {
    (dataset, split, epochs): f"{dataset}: {meaning}"
    for dataset in DATASETS
    for split, epochs, meaning in (
        ("test", 200, "test accuracy after 200 epochs, mean over all trained seeds"),
        ("valid", 200, "validation accuracy after 200 epochs, as NASLib records it"),
        ("test", 12, "test accuracy of the 12-epoch runs"),
        ("valid", 12, "validation accuracy of the 12-epoch runs"),
    )
}
"""The accuracies of NAS-Bench-201 that exist, and what each one is. For CIFAR-10, valid is of networks trained on half
of the training set, test of networks trained on the whole."""

ZC_SCORES = (
    *("flops", "params", "synflow", "grasp", "fisher", "grad_norm"),
    *("l2_norm", "plain", "nwot", "epe_nas", "jacov", "snip"),
)
"""The scores of NAS-Bench-Suite-Zero; `<score>_time_s` beside each is its run time in seconds."""

DEVICES = (
    *(f"{gpu}_{batch}" for gpu in ("1080ti", "2080ti") for batch in (1, 256, 32)),
    *("essential_ph_1", "eyeriss", "fpga", "gold_6226", "gold_6240", "pixel2", "pixel3", "raspi4"),
    *("samsung_a50", "samsung_s7", "silver_4114", "silver_4210r"),
    *(f"{gpu}_{batch}" for gpu in ("titan_rtx", "titanx", "titanxp") for batch in (1, 256, 32)),
)
"""The device settings of HELP's latencies; a number behind a GPU's name is the batch size."""


@dataclass(frozen=True)
class _Table:
    """A gzipped CSV: its file name, sha256, columns and their types, the columns that may lack values."""

    name: str
    sha256: str
    types: _Types
    may_lack: tuple[str, ...] = field(default=())


_NASBENCH201 = _Table(
    "nasbench201.csv.gz",
    "3f9a76dd3ead6e94547cbfe18a109522517f30ae6e0d8501b9ac0c27091c18a4",
    {
        "index": pl.Int64,
        "arch_str": pl.String,
        **{f"{DATASETS[name].prefix}_{split}_{epochs}": pl.Float64 for name, split, epochs in ACCURACIES},
        **{f"{dataset.prefix}_{count}": pl.Int64 for dataset in DATASETS.values() for count in ("params", "flops")},
        "unique_str": pl.String,
    },
)
_PROXIES = _Table(
    "nasbench201_proxies.csv.gz",
    "5054fa3d7b12a437a8d4a43d924661547f8b9a5b371cf412d855f8777cae08d5",
    {
        "index": pl.Int64,
        **{
            f"{dataset.prefix}_{score}": pl.Float64
            for dataset in DATASETS.values()
            for score in ("naswot", "synflow", "logsynflow", "nregions", "zen")
            if (dataset.prefix, score) != ("in16", "nregions")
        },
    },
)
_ZC_NASLIB = _Table(
    "nasbench201_zc_naslib.csv.gz",
    "66910554fc3d94d31f06c110a4506a694f3bbfcbc2af339f487436d8922e5868",
    {
        "dataset": pl.String,
        "index": pl.Int64,
        "arch_str": pl.String,
        "val_accuracy": pl.Float64,
        **{f"{score}{what}": pl.Float64 for score in ZC_SCORES for what in ("", "_time_s")},
    },
    may_lack=("synflow", "synflow_time_s"),
)
_LATENCY = _Table(
    "nasbench201_latency_help.csv.gz",
    "573acde4f54d375670caf9ffbe22c4141add7f47b17f3a0510354c888e7aea94",
    {"index": pl.Int64, **dict.fromkeys(DEVICES, pl.Float64)},
)
_MACRO = _Table(
    "nasbench_macro_cifar10.csv.gz",
    "113bb3bff96d0bb61fb61072f5f8d249da0b4100b9fcdb155c0f9977fdf35950",
    {
        "arch": pl.String,
        **dict.fromkeys(("test_acc_1", "test_acc_2", "test_acc_3", "mean_acc", "std"), pl.Float64),
        **dict.fromkeys(("params", "flops"), pl.Int64),
    },
)
_CIFAR10 = {
    "cifar10_train10k.npz": "b59262fd06ab113dfe3ce579c61f169354623e1d09a6fcf1772bd01594555da2",
    "cifar10_test2k.npz": "06b023770a54a6bc6e5df5a89ce98270de2021abebba909eb0c7c6815bb3dc4e",
}


@dataclass(frozen=True)
class NasBench201Table:
    """NAS-Bench-201, one entry an architecture in each array, all in the same order.

    index int64 [n]. arch_str: official strings. accuracy: percent, float64 [n], by the keys of ACCURACIES. params and
    flops: by data set, int64 [n]; FLOPs are the benchmark's own, MACs of convolutions and classifier and its bias.
    unique_str: equal for isomorphic cells.
    """

    index: NDArray[np.int64]
    arch_str: tuple[str, ...]
    accuracy: dict[Accuracy, NDArray[np.float64]]
    params: dict[str, NDArray[np.int64]]
    flops: dict[str, NDArray[np.int64]]
    unique_str: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Cifar10Sample:
    """10,000 training and 2,000 test images of CIFAR-10, balanced over classes: uint8 [n, 32, 32, 3] RGB, labels uint8
    [n]. The pixels went through JPEG."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    class_names: tuple[str, ...]


def read_nasbench201(folder: Path, *, verify: bool = True) -> NasBench201Table:
    """Accuracies, parameters and FLOPs of all 15,625 architectures."""
    frame = _read_table(folder, _NASBENCH201, verify)
    return NasBench201Table(
        index=frame["index"].to_numpy(),
        arch_str=tuple(frame["arch_str"]),
        accuracy={key: frame[f"{DATASETS[key[0]].prefix}_{key[1]}_{key[2]}"].to_numpy() for key in ACCURACIES},
        params={name: frame[f"{dataset.prefix}_params"].to_numpy() for name, dataset in DATASETS.items()},
        flops={name: frame[f"{dataset.prefix}_flops"].to_numpy() for name, dataset in DATASETS.items()},
        unique_str=tuple(frame["unique_str"]),
    )


def read_nasbench201_proxies(folder: Path, *, verify: bool = True) -> pl.DataFrame:
    """FreeREA's scores and NASLib's zen for all architectures: `<prefix>_<score>`, the prefixes of DATASETS.

    naswot is -inf for 201 degenerate architectures; nregions is missing for in16.
    """
    return _read_table(folder, _PROXIES, verify)


def read_nasbench201_zc_naslib(folder: Path, *, verify: bool = True) -> pl.DataFrame:
    """NAS-Bench-Suite-Zero, one row a data set and architecture (2,174): the ZC_SCORES and their run times.

    flops and params are in millions, and flops counts BatchNorm too. One synflow is null; three nwot are -inf.
    """
    return _read_table(folder, _ZC_NASLIB, verify)


def read_nasbench201_latency(folder: Path, *, verify: bool = True) -> pl.DataFrame:
    """HELP's latencies of all architectures, a column each of DEVICES; the source names no unit (milliseconds by their
    size)."""
    return _read_table(folder, _LATENCY, verify)


def read_nasbench_macro(folder: Path, *, verify: bool = True) -> pl.DataFrame:
    """NAS-Bench-Macro on CIFAR-10, 6,561 rows. arch is a string of 8 digits: 0 identity, 1 MB3_K3, 2 MB6_K5."""
    return _read_table(folder, _MACRO, verify)


def read_cifar10(folder: Path, *, verify: bool = True) -> Cifar10Sample:
    """cifar10_train10k.npz and cifar10_test2k.npz."""
    (train, names), (test, test_names) = (
        _read_images(Path(folder) / name, sha256 if verify else None) for name, sha256 in _CIFAR10.items()
    )
    if names != test_names:
        raise DataError(
            f"the train and test files of CIFAR-10 in {folder} name different classes: take both of one source"
        )
    return Cifar10Sample(*train, *test, names)


def _bytes_of(path: Path, sha256: str | None) -> bytes:
    """The file's bytes, checked against sha256 unless that is None."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: put the published file there, or name the folder that holds it") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise DataError(
            f"{path} is not the published file: its sha256 is {found} and must be {sha256}; copy it again, or read a "
            "file of your own with verify=False"
        )
    return content


def _read_table(folder: Path, table: _Table, verify: bool) -> pl.DataFrame:
    """The table's columns, in its order and types; a missing column, a bad value or a gap raises DataError."""
    path = Path(folder) / table.name
    content = _bytes_of(path, table.sha256 if verify else None)
    try:
        text = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged, it does not unpack as gzip ({error}): copy it again") from None
    header = text.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r").split(",")
    missing = [name for name in table.types if name not in header]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}: it needs {', '.join(table.types)}")
    try:
        frame = pl.read_csv(text, schema_overrides=table.types).select(*table.types)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is no table of {len(header)} columns: {str(error).splitlines()[0]}") from None
    if frame.is_empty():
        raise DataError(f"{path} holds a header and no rows: copy it again")
    for name in table.types:
        if name not in table.may_lack and frame[name].null_count():
            row = int(frame[name].is_null().arg_true()[0])
            raise DataError(f"{path}, line {row + 2}: column {name} is empty, and every row needs a value there")
    return frame


def _read_images(path: Path, sha256: str | None) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], tuple[str, ...]]:
    """((images, labels), class names) of one npz."""
    content = _bytes_of(path, sha256)
    try:
        with np.load(io.BytesIO(content)) as arrays:
            images, labels, names = (arrays[name] for name in ("images", "labels", "class_names"))
    except KeyError as error:
        raise DataError(f"{path} lacks an array ({error.args[0]}): it needs images, labels and class_names") from None
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged, it does not open as npz ({error}): copy it again") from None
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise DataError(f"{path}: images must be uint8 [n, 32, 32, 3], not {images.dtype} {list(images.shape)}")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(names):
        raise DataError(
            f"{path}: labels must be uint8 [{len(images)}], each below the {len(names)} classes; they are "
            f"{labels.dtype} {list(labels.shape)} up to {labels.max(initial=0)}"
        )
    return (images, labels), tuple(map(str, names))
