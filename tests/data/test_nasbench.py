"""The readers of benchmark tables: what the published files hold, and one sentence for each way a file can be bad."""

import gzip

import numpy as np
import polars as pl
import pytest

from subshot.data.image_folder import DataError
from subshot.data.nasbench import (
    ACCURACIES,
    DATASETS,
    DEVICES,
    ZC_SCORES,
    read_cifar10,
    read_nasbench201,
    read_nasbench201_latency,
    read_nasbench201_proxies,
    read_nasbench201_zc_naslib,
    read_nasbench_macro,
)

READERS = {
    "nasbench201.csv.gz": read_nasbench201,
    "nasbench201_proxies.csv.gz": read_nasbench201_proxies,
    "nasbench201_zc_naslib.csv.gz": read_nasbench201_zc_naslib,
    "nasbench201_latency_help.csv.gz": read_nasbench201_latency,
    "nasbench_macro_cifar10.csv.gz": read_nasbench_macro,
    "cifar10_train10k.npz": read_cifar10,
}
TABLES = [name for name in READERS if name.endswith(".csv.gz")]


@pytest.fixture
def tables(shared_data, tmp_path):
    """A copy that a test may spoil."""
    for name in (*READERS, "cifar10_test2k.npz"):
        if not (shared_data / name).is_file():
            pytest.skip(f"{shared_data / name} is missing")
        (tmp_path / name).symlink_to(shared_data / name)
    return tmp_path


def rewrite(path, change) -> None:
    """Change the text of a gzipped table."""
    text = gzip.decompress(path.read_bytes()).decode()
    path.unlink()
    path.write_bytes(gzip.compress(change(text).encode()))


def test_nasbench201(tables) -> None:
    table = read_nasbench201(tables)
    assert len(table) == 15625 and table.index.tolist() == list(range(15625))
    assert table.index.dtype == np.int64 and len(set(table.arch_str)) == 15625 and len(set(table.unique_str)) == 6466
    assert set(table.accuracy) == set(ACCURACIES) and len(ACCURACIES) == 12
    for values in table.accuracy.values():
        assert values.dtype == np.float64 and values.shape == (15625,) and 0 < values.min() and values.max() < 100
    best = [table.accuracy[name, "test", 200].max() for name in DATASETS]
    np.testing.assert_allclose(best, [94.3733, 73.5133, 47.3111], atol=1e-4)
    np.testing.assert_allclose(table.accuracy["cifar10", "test", 200].mean(), 87.063, atol=1e-3)
    assert table.accuracy["cifar10", "valid", 12][0] == 63.36399998
    assert (table.params["cifar100"][0], table.flops["ImageNet16-120"][0]) == (135156, 3919480)
    assert all("accuracy" in meaning for meaning in ACCURACIES.values())


def test_nasbench201_proxies(tables) -> None:
    frame = read_nasbench201_proxies(tables)
    assert frame.shape == (15625, 15) and frame["index"].to_list() == list(range(15625))
    assert [int(frame[f"{d.prefix}_naswot"].is_infinite().sum()) for d in DATASETS.values()] == [201] * 3


def test_nasbench201_zc_naslib(tables) -> None:
    frame = read_nasbench201_zc_naslib(tables)
    assert frame.shape == (2174, 28) and len(ZC_SCORES) == 12
    assert dict(frame.group_by("dataset").len().iter_rows()) == {"cifar10": 725, "cifar100": 725, "ImageNet16-120": 724}
    assert frame.filter(pl.col("synflow").is_null()).select("dataset", "index").rows() == [("cifar10", 15205)]
    assert (frame["nwot"] == -np.inf).sum() == 3


def test_its_parameters_are_the_tables(tables) -> None:
    table, frame = read_nasbench201(tables), read_nasbench201_zc_naslib(tables)
    for name, index, arch, params in frame.select("dataset", "index", "arch_str", "params").iter_rows():
        assert table.arch_str[index] == arch and round(params * 1e6) == table.params[name][index]


def test_latency_and_macro(tables) -> None:
    latency = read_nasbench201_latency(tables)
    assert latency.shape == (15625, 28) and latency.columns[1:] == list(DEVICES) and len(DEVICES) == 27
    assert set(latency.dtypes[1:]) == {pl.Float64} and latency["pixel2"][0] == 9.0
    macro = read_nasbench_macro(tables)
    assert macro.shape == (6561, 8) and macro["arch"][0] == "00000000"
    best = macro.filter(pl.col("mean_acc") == pl.col("mean_acc").max())
    assert "22212202" in best["arch"] and best["mean_acc"][0] == pytest.approx(93.127, abs=1e-3)


def test_cifar10(tables) -> None:
    sample = read_cifar10(tables)
    for images, labels, each in (
        (sample.train_images, sample.train_labels, 1000),
        (sample.test_images, sample.test_labels, 200),
    ):
        assert images.shape == (10 * each, 32, 32, 3) and images.dtype == labels.dtype == np.uint8
        assert np.bincount(labels).tolist() == [each] * 10
    assert sample.class_names[0] == "airplane" and len(sample.class_names) == 10
    means = sample.train_images.reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.01)


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file(name, tmp_path) -> None:
    with pytest.raises(DataError, match=f"{name} is missing: put the published file there"):
        READERS[name](tmp_path / "nowhere")


def test_a_folder_in_place_of_the_file(tmp_path) -> None:
    (tmp_path / TABLES[0]).mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_nasbench201(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_and_a_truncated_file(name, tables) -> None:
    path = tables / name
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for bad in (flipped, content[:middle], b""):
        path.write_bytes(bad)
        with pytest.raises(
            DataError, match=f"{name} is not the published file: its sha256 is .* and must be .*copy it"
        ):
            READERS[name](tables)
    for bad in (content[:middle], b"no archive") if name in TABLES else (content[:middle], b"no archive", b""):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=f"{name} is damaged.*copy it again"):
            READERS[name](tables, verify=False)


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_column(name, tables) -> None:
    last = gzip.decompress((tables / name).read_bytes()).decode().split("\n", 1)[0].split(",")[-1]
    rewrite(tables / name, lambda text: text.replace(last, "other", 1))
    with pytest.raises(DataError, match="is not the published file"):
        READERS[name](tables)
    with pytest.raises(DataError, match=f"{name} has no column {last}: it needs "):
        READERS[name](tables, verify=False)


def test_a_table_of_the_same_form_is_read_in_the_order_of_the_published_one(tables) -> None:
    whole = read_nasbench_macro(tables)
    whole.head(3).select(*whole.columns[::-1], extra=pl.lit("x")).write_csv(tables / "own.csv")
    path = tables / "nasbench_macro_cifar10.csv.gz"
    path.unlink()
    path.write_bytes(gzip.compress((tables / "own.csv").read_bytes()))
    assert read_nasbench_macro(tables, verify=False).equals(whole.head(3))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("45.32,", "fine,", 1), "is no table of 8 columns"),
        (lambda text: text.replace("45.32,", ",", 1), "line 2: column test_acc_1 is empty"),
        (lambda text: text.rstrip("\n").rsplit(",", 3)[0], "line 6562: column std is empty"),
        (lambda text: text.replace("45.32,", "45.32,1,", 1), "is no table of 8 columns"),
        (lambda text: text.split("\n")[0] + "\n", "holds a header and no rows"),
        (lambda text: "", "has no column arch, "),
    ],
)
def test_bad_values(change, sentence, tables) -> None:
    rewrite(tables / "nasbench_macro_cifar10.csv.gz", change)
    with pytest.raises(DataError, match=sentence):
        read_nasbench_macro(tables, verify=False)


def save(folder, **arrays) -> None:
    for name in ("cifar10_train10k.npz", "cifar10_test2k.npz"):
        np.savez(folder / name, **arrays)


def test_bad_images(tmp_path) -> None:
    good = {
        "images": np.zeros((2, 32, 32, 3), np.uint8),
        "labels": np.array([0, 1], np.uint8),
        "class_names": np.array(["cat", "dog"]),
    }
    save(tmp_path, **good)
    assert read_cifar10(tmp_path, verify=False).class_names == ("cat", "dog")
    for change, sentence in (
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, r"images must be uint8 \[n, 32, 32, 3\], not uint8 \[2, 3"),
        ({"images": np.zeros((2, 32, 32, 3))}, "images must be uint8 .* not float64"),
        ({"labels": np.array([0, 2], np.uint8)}, "each below the 2 classes; they are uint8 .* up to 2"),
        ({"labels": np.array([0], np.uint8)}, r"labels must be uint8 \[2\]"),
        ({"class_names": np.array([{}], dtype=object)}, "is damaged"),
    ):
        save(tmp_path, **{**good, **change})
        with pytest.raises(DataError, match=sentence):
            read_cifar10(tmp_path, verify=False)
    save(tmp_path, **{name: good[name] for name in ("images", "class_names")})
    with pytest.raises(DataError, match="lacks an array .labels.*it needs images, labels and class_names"):
        read_cifar10(tmp_path, verify=False)
    save(tmp_path, **good)
    np.savez(tmp_path / "cifar10_test2k.npz", **{**good, "class_names": np.array(["cat", "cow"])})
    with pytest.raises(DataError, match="name different classes"):
        read_cifar10(tmp_path, verify=False)
