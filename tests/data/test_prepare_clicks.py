"""Prepared folders against a slow reference that takes a cell at a time, and what the options do."""

import datetime
import gzip
import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss

from subshot.data.click_parts import part_writer, row_groups
from subshot.data.click_protocols import PROTOCOLS
from subshot.data.click_text import sha256_of
from subshot.data.folds import stratified_folds
from subshot.data.image_folder import DataError
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.prepare_stages import Pieces

AVAZU_HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
).split(",")
OPENML_HEADER = (
    "click,impression,url_hash,ad_id,advertiser_id,depth,position,query_id,keyword_id,title_id,description_id,user_id"
).split(",")


def criteo_rows(count: int, seed: int = 0) -> list[list[str]]:
    """Blanks and negative integers included; few different categories, so that some are frequent."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        dense = [draw.choice(["", "-2", "-1", "0", "1", "2", "3", "17", "65535", "23159456"]) for _ in range(13)]
        hexes = [draw.choice(["", "0", "ffffffff", *(f"{int(draw.paretovariate(0.7)):08x}",) * 5]) for _ in range(26)]
        hexes = [word[-8:] for word in hexes]
        rows.append([draw.choice("0001"), *dense, *hexes])
    return rows


def avazu_rows(count: int, seed: int = 0) -> list[list[str]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        hour = f"14{draw.choice(['1021', '1025', '1026', '1030'])}{draw.randrange(24):02d}"
        hexes = [draw.choice(["", "12345678", "0a0b0c0d", f"{draw.randrange(40):08x}"]) for _ in range(9)]
        numbers = [draw.choice(["", "-1", "100084", str(draw.randrange(9))]) for _ in range(10)]
        identity = str(10**19 + draw.randrange(10**17))
        rows.append([identity, draw.choice("0001"), hour, "1005", draw.choice("01"), *hexes, *numbers])
    return rows


def kdd_rows(count: int, seed: int = 0) -> list[list[str]]:
    """In the order of training.txt, with counted clicks."""
    draw = random.Random(seed)
    return [
        [
            draw.choice(["0", "0", "0", "1", "2"]),
            str(draw.randrange(1, 9)),
            str(2**63 + draw.randrange(20)),
            *(str(draw.randrange(30)) for _ in range(2)),
            *(str(draw.randrange(1, 4)) for _ in range(2)),
            *(str(draw.randrange(50)) for _ in range(5)),
        ]
        for _ in range(count)
    ]


def write_rows(path: Path, rows: list[list[str]], separator: str = "\t", header: list[str] | None = None) -> Path:
    """gzip where the name ends in .gz."""
    lines = ([header] if header else []) + rows
    text = "".join(separator.join(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


KDD_NAMES = (
    "Click Impression DisplayURL AdID AdvertiserID Depth Position QueryID KeywordID TitleID DescriptionID UserID"
).split()
NAMES = {
    "criteo": ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))],
    "avazu": AVAZU_HEADER,
    "kdd12": KDD_NAMES,
}
DENSE = {"criteo": NAMES["criteo"][1:14], "avazu": [], "kdd12": ["Impression", "Depth", "Position"]}
LABEL = {"criteo": "label", "avazu": "click", "kdd12": "Click"}
HEX = {"criteo": set(NAMES["criteo"][14:]), "avazu": set(AVAZU_HEADER[5:14]), "kdd12": set()}
MIN_COUNTS = {("autoctr", "criteo"): 11, ("autoctr", "avazu"): 5, ("autoctr", "kdd12"): 10}
MIN_COUNTS |= {("bars-x4", "criteo"): 10, ("bars-x4", "avazu"): 2}
PAIRS = [("nasrec", dataset) for dataset in NAMES] + list(MIN_COUNTS)


def number(word: str, dataset: str, field: str, protocol: str) -> int | None:
    """What a category's text says."""
    if not word:
        return None
    if dataset == "criteo" or (field in HEX[dataset] and protocol != "nasrec"):
        return int(word, 16)
    try:
        value = int(word)
    except ValueError:
        value = int(word, 16)
    return value % 2147483647 if protocol == "nasrec" else value


def squared_log(word: str) -> float:
    return int(math.log(int(word)) ** 2) if int(word) > 2 else int(word)


def reference(protocol: str, dataset: str, rows: list[list[str]]) -> dict[str, list[dict[str, float]]]:
    """The rows of each split, a dict of cells each."""
    names = NAMES[dataset] + (["Gender", "Age"] if dataset == "kdd12" else [])
    cells = [dict(zip(names, row, strict=True)) for row in rows]
    if dataset == "avazu":
        cells = [{name: word for name, word in row.items() if name != "id"} for row in cells]
    labels = np.array([int(row.pop(LABEL[dataset])) > 0 for row in cells], np.uint8)
    folds = stratified_folds(labels, 2018, "stratified-0.19" if protocol == "bars-x4" else "stratified")
    if protocol == "nasrec":
        split_of = ["val" if fold == 8 else "test" if fold == 9 else "train" for fold in folds]
    else:
        split_of = ["test" if fold == 0 else "val" if fold == 1 else "train" for fold in folds]
    found: list[dict[str, float]] = [{"label": int(label)} for label in labels]
    for name in DENSE[dataset] if protocol != "bars-x4" else []:
        for row, out in zip(cells, found, strict=True):
            word = row[name]
            if protocol == "nasrec":
                out[name] = math.log(1 + max(int(word), 0)) if word else 0.0
            else:
                out[name] = squared_log(word) if word else 0.0
    if not DENSE[dataset] or protocol == "bars-x4":
        for out in found:
            out["zero"] = 0.0
    values: dict[str, list[float | None]] = {}
    for name in cells[0]:
        words = [row[name] for row in cells]
        if name in DENSE[dataset]:
            if protocol == "bars-x4":
                values[name] = [squared_log(word) if word else None for word in words]
        elif name == "hour" and protocol == "bars-x4":
            days = [datetime.date(2000 + int(w[:2]), int(w[2:4]), int(w[4:6])).isoweekday() % 7 for w in words]
            values |= {"hour": [int(word[6:]) for word in words], "weekday": list(days)}
            values["is_weekend"] = [int(day in (0, 6)) for day in days]
        else:
            values[name] = [number(word, dataset, name, protocol) for word in words]
    for name, column in values.items():
        if protocol == "nasrec":
            size = PROTOCOLS["nasrec"].table_sizes[dataset][name]
            ids = [0 if value is None else int(math.fmod(value, size - 1)) + 1 for value in column]
        else:
            seen = Counter(v for v, split in zip(column, split_of, strict=True) if split == "train" and v is not None)
            kept = sorted((-count, v) for v, count in seen.items() if count >= MIN_COUNTS[protocol, dataset])
            places = {v: place for place, (_, v) in enumerate(kept, start=2)}
            ids = [0 if value is None else places.get(value, 1) for value in column]
        for out, place in zip(found, ids, strict=True):
            out[name] = place
    return {
        s: [out for out, split in zip(found, split_of, strict=True) if split == s] for s in ("train", "val", "test")
    }


def raw_log(folder: Path, dataset: str, rows: list[list[str]]) -> Path:
    if dataset == "avazu":
        return write_rows(folder / "train.csv", rows, ",", AVAZU_HEADER)
    return write_rows(folder / "train.txt.gz", rows)


def rows_of(dataset: str, count: int, seed: int = 0) -> list[list[str]]:
    return {"criteo": criteo_rows, "avazu": avazu_rows, "kdd12": kdd_rows}[dataset](count, seed)


def options_for(protocol: Any, dataset: str, folder: Path, **changes: Any) -> PrepareOptions:
    if dataset == "kdd12":
        profile = write_rows(folder / "userid_profile.txt", [["7", "1", "4"], ["9", "2", "6"], ["7", "0", "0"]])
        changes["user_profile"] = profile
    return PrepareOptions(protocol, **changes)


SMALL = Pieces(block_bytes=3000, group_rows=64, part_rows=150)


@pytest.mark.parametrize(("protocol", "dataset"), PAIRS)
def test_every_cell_is_the_reference_s(tmp_path: Path, protocol: Any, dataset: Any) -> None:
    rows = rows_of(dataset, 400)
    raw = raw_log(tmp_path, dataset, rows)
    made = prepare_clicks(dataset, raw, tmp_path / "out", options_for(protocol, dataset, tmp_path), pieces=SMALL)
    manifest = json.loads(made.manifest.read_text())
    if dataset == "kdd12":  # the reference sees the profile as two more columns
        profile = {"7": ("1", "4"), "9": ("2", "6")}
        rows = [[*row, *profile.get(row[11], ("0", "0"))] for row in rows]
    expected = reference(protocol, dataset, rows)
    dense, sparse = manifest["dense_fields"], [field["name"] for field in manifest["categorical_fields"]]
    assert ["label", *dense, *sparse] == list(expected["train"][0])
    for split, record in manifest["splits"].items():
        tables = [pq.read_table(tmp_path / "out" / file["name"]) for file in record["files"]]
        assert len(tables) > 1
        found = pa.concat_tables(tables)
        assert found.schema.names == ["label", *dense, *sparse]
        assert [str(kind) for kind in found.schema.types] == ["uint8"] + ["float"] * len(dense) + ["int32"] * len(
            sparse
        )
        wanted = {name: [row[name] for row in expected[split]] for name in expected[split][0]}
        for name in found.schema.names:
            np.testing.assert_allclose(found[name].to_numpy(), wanted[name], rtol=1e-6, err_msg=f"{split} {name}")
        assert record["rows"] == made.rows[split] == len(expected[split])
        assert record["base_rate"] == pytest.approx(np.mean(wanted["label"]))
        for file, table in zip(record["files"], tables, strict=True):
            path = tmp_path / "out" / file["name"]
            assert (file["rows"], file["bytes"]) == (len(table), path.stat().st_size)
            assert file["sha256"] == sha256_of(path)
    for field in manifest["categorical_fields"]:
        highest = max(row[field["name"]] for rows in expected.values() for row in rows)
        assert highest < field["cardinality"]
    assert not (tmp_path / "out" / ".prepare").exists()


def test_parts_can_be_read_through_a_memory_map(tmp_path: Path) -> None:
    """PLAIN, uncompressed, no dictionary, no missing values, row groups of at most 65,536 rows."""
    frame = pl.DataFrame({"label": np.zeros(150_000, np.uint8), "C1": np.arange(150_000, dtype=np.int32)})
    with part_writer(tmp_path / "part.parquet") as part:
        for begin in range(0, 150_000, 7_000):
            part.write(frame[begin : begin + 7_000])
    metadata = pq.ParquetFile(tmp_path / "part.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [65_536, 65_536, 18_928]
    column = metadata.row_group(0).column(1)
    assert column.compression == "UNCOMPRESSED" and not column.has_dictionary_page
    assert set(column.encodings) <= {"PLAIN", "RLE"} and column.total_uncompressed_size < 65_536 * 4 + 1000
    assert not any(field.nullable for field in pq.read_schema(tmp_path / "part.parquet"))
    assert pl.concat(row_groups(tmp_path / "part.parquet")).equals(frame)


def test_options_say_what_stays(tmp_path: Path) -> None:
    raw = raw_log(tmp_path, "avazu", avazu_rows(100))
    options = PrepareOptions(keep_id=True, max_rows_per_table=100)
    fields = json.loads(prepare_clicks("avazu", raw, tmp_path / "id", options).manifest.read_text())
    assert fields["dense_fields"] == ["zero"]
    sizes = {field["name"]: field["cardinality"] for field in fields["categorical_fields"]}
    assert (sizes["id"], sizes["hour"], sizes["C1"]) == (100, 100, 8) and len(sizes) == 23
    table = pq.read_table(tmp_path / "id" / "train")
    assert table["device_ip"].to_numpy().max() < 100
    binary = [["0" if row[0] == "0" else "1", *row[1:2], "1.4202400320782e+19", *row[3:]] for row in kdd_rows(100)]
    quoted = [[f'"{word}"' for word in row] for row in binary]
    csv = write_rows(tmp_path / "click.csv", quoted, ",", [f'"{name}"' for name in OPENML_HEADER])
    made = prepare_clicks("kdd12", csv, tmp_path / "kdd", PrepareOptions(drop_impression=True))
    manifest = json.loads(made.manifest.read_text())
    assert manifest["dense_fields"] == ["Depth", "Position"] and manifest["options"]["drop_impression"]
    assert [field["name"] for field in manifest["categorical_fields"]][-1] == "UserID"
    expected = 14202400320782000128 % 2147483647 % (26274 - 1) + 1
    assert set(pq.read_table(tmp_path / "kdd" / "test")["DisplayURL"].to_pylist()) == {expected}


def test_a_header_alone_is_no_log(tmp_path: Path) -> None:
    raw = write_rows(tmp_path / "train.csv", [], ",", AVAZU_HEADER)
    with pytest.raises(DataError, match=r"train\.csv holds no usable row$"):
        prepare_clicks("avazu", raw, tmp_path / "out", PrepareOptions())


@pytest.mark.parametrize(
    ("dataset", "options", "what"),
    [
        ("criteo", PrepareOptions(keep_id=True), "--keep-id is for avazu alone, and the data set is criteo"),
        ("avazu", PrepareOptions(drop_impression=True), "--drop-impression is for kdd12 alone"),
        ("criteo", PrepareOptions(user_profile=Path("x")), "--user-profile is for kdd12 alone"),
        ("kdd12", PrepareOptions("bars-x4"), "bars-x4 is not defined for kdd12, only for criteo, avazu"),
        ("kdd12", PrepareOptions(), "needs --user-profile"),
        ("criteo", PrepareOptions("autoctr", max_rows_per_table=9), "--max-rows-per-table is for hashed tables"),
        ("criteo", PrepareOptions(max_rows_per_table=1), "it must be 0 .no cap., or 2 or more"),
        ("criteo", PrepareOptions(seed=-1), "--seed is -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, dataset: Any, options: Any, what: str) -> None:
    raw = raw_log(tmp_path, dataset, rows_of(dataset, 20))
    with pytest.raises(ValueError, match=what):
        prepare_clicks(dataset, raw, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_synthetic_log_says_so_and_its_bayes_log_loss_is_that_of_each_split(tmp_path: Path) -> None:
    rows = criteo_rows(600)
    raw = write_rows(tmp_path / "log.tsv", rows)
    labels = np.array([int(row[0]) for row in rows], np.uint8)
    probability = np.random.Generator(np.random.Philox(0)).uniform(0.01, 0.99, 600).astype(np.float32)
    np.save(tmp_path / "log.tsv.bayes.npy", probability)
    side = {"synthetic": True, "bayes_probability_npy": "log.tsv.bayes.npy"}
    (tmp_path / "log.tsv.synthetic.json").write_text(json.dumps(side))
    made = prepare_clicks("criteo", raw, tmp_path / "out", PrepareOptions(), pieces=SMALL)
    manifest = json.loads(made.manifest.read_text())
    assert manifest["synthetic"] is True
    folds = stratified_folds(labels, 2018)
    for split, chosen in {"train": folds < 8, "val": folds == 8, "test": folds == 9}.items():
        expected = log_loss(labels[chosen], probability[chosen].astype(np.float64))
        assert manifest["bayes_log_loss"][split] == pytest.approx(expected, rel=1e-9)
    np.save(tmp_path / "log.tsv.bayes.npy", probability[:-1])
    with pytest.raises(DataError, match="holds 599 probabilities for the 600 rows"):
        prepare_clicks("criteo", raw, tmp_path / "other", PrepareOptions())


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("criteo_kaggle_8k.tsv.gz", "criteo"),
        ("avazu_8k.csv.gz", "avazu"),
        ("kdd12_click_small_32k.csv.gz", "kdd12"),
    ],
)
def test_the_real_samples_lose_no_row(shared_data: Path, tmp_path: Path, name: str, dataset: Any) -> None:
    path = shared_data / name
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with gzip.open(path) as file:
        lines = sum(1 for _ in file)
    made = prepare_clicks(dataset, path, tmp_path / "out", PrepareOptions())
    assert sum(made.rows.values()) == lines - (dataset != "criteo")
    manifest = json.loads(made.manifest.read_text())
    rate = {"criteo": 0.222, "avazu": 0.170, "kdd12": 0.168}[dataset]
    for split in manifest["splits"].values():
        assert split["base_rate"] == pytest.approx(rate, abs=0.003)


def test_the_real_unlabelled_file_and_the_comma_layout_are_told_apart(shared_data: Path, tmp_path: Path) -> None:
    unlabelled = shared_data / "criteo_kaggle_test_unlabelled_10k.tsv.gz"
    if not unlabelled.is_file():
        pytest.skip(f"{unlabelled} is missing")
    with pytest.raises(DataError, match="39 columns, as the unlabelled test file has: a label is needed"):
        prepare_clicks("criteo", unlabelled, tmp_path / "out", PrepareOptions(on_bad_line="skip"))
    with pytest.raises(DataError, match="separated by commas"):
        prepare_clicks("criteo", shared_data / "criteo_deepctr_sample200.csv.gz", tmp_path / "out", PrepareOptions())
