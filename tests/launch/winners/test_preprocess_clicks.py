"""A winner's preprocess.py on whole raw logs, against the batches that training reads: equal to the last bit."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from subshot.data.click_schema import ClickSchema
from subshot.data.click_serving import serving_rules, vocabularies
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.launch.winners.copied import preprocess_clicks


def served(raw: Path, prepared: Path, cap: int, folder: Path) -> NDArray[np.float64]:
    """Every row of the raw file as the winner's folder reads it: dense values, then ids."""
    manifest = json.loads((prepared / "manifest.json").read_text())
    (folder / "preprocess.json").write_text(json.dumps(serving_rules(manifest, cap)))
    (folder / "vocabulary.json").write_text(json.dumps(vocabularies(prepared, manifest)))
    parts = [inputs for _, inputs in preprocess_clicks.read([str(raw)], folder)]
    return np.concatenate([np.concatenate([part.numpy().astype(np.float64) for part in row], axis=1) for row in parts])


@pytest.fixture
def require_equal(require_prepared: Callable[..., NDArray[np.float64]]) -> Callable[..., NDArray[np.float64]]:
    """require_equal(raw, prepared, folder): the rows that training gets without a cap, which are those served."""

    def check(raw: Path, prepared: Path, folder: Path) -> NDArray[np.float64]:
        rows = []
        for cap in (0, 30):
            found = served(raw, prepared, cap, folder)
            assert len(found) > 200
            rows.append(require_prepared(found, prepared, cap))
        return rows[0]

    return check


@pytest.mark.parametrize("protocol", ["nasrec", "autoctr", "bars-x4"])
def test_a_synthetic_log(tmp_path: Path, protocol: Any, require_equal: Callable[..., Any]) -> None:
    raw = write_synthetic_log(tmp_path / "raw.tsv", 1500, 0)
    prepare_clicks("criteo", raw, tmp_path / "prepared", PrepareOptions(protocol=protocol))
    require_equal(raw, tmp_path / "prepared", tmp_path)


@pytest.mark.parametrize("protocol", ["nasrec", "autoctr", "bars-x4"])
@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("criteo", "criteo_kaggle_8k.tsv.gz"),
        ("avazu", "avazu_8k.csv.gz"),
        ("kdd12", "kdd12_click_small_32k.csv.gz"),
    ],
)
def test_real_logs(
    shared_data: Path, tmp_path: Path, dataset: Any, name: str, protocol: Any, require_equal: Callable[..., Any]
) -> None:
    if (dataset, protocol) == ("kdd12", "bars-x4"):
        pytest.skip("bars-x4 is not defined for kdd12")
    raw = tmp_path / "raw"
    raw.write_bytes(gzip.decompress((shared_data / name).read_bytes()))
    prepare_clicks(dataset, raw, tmp_path / "prepared", PrepareOptions(protocol=protocol))
    require_equal(raw, tmp_path / "prepared", tmp_path)


def test_a_log_of_ones_own(tmp_path: Path, require_equal: Callable[..., Any]) -> None:
    draw = random.Random(0)
    sites = ["news", "News", " news", 'a "shop", big', "día", "", "NA"]
    numbers = ["", "NA", "0", "-0.5", "1e-3", "+3.", ".5", "99999"]
    raw = tmp_path / "log.csv"
    with raw.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", "clicked", "site", "views", "price"])
        for row in range(1000):
            site = draw.choice([*sites, f"rare{draw.randrange(50)}"])
            views, price = draw.choice(["", "0", "-7", "2.5", str(draw.randrange(10**6))]), draw.choice(numbers)
            writer.writerow([row, draw.choice("001"), site, views, price])
    schema = ClickSchema(
        "clicked", ("views",), ("price",), ("site",), time="day", missing=("NA",), separator=",", min_count=3
    )
    prepare_clicks("csv", raw, tmp_path / "prepared", PrepareOptions(schema=schema))
    require_equal(raw, tmp_path / "prepared", tmp_path)


OPENML = (
    "click,impression,url_hash,ad_id,advertiser_id,depth,position,query_id,keyword_id,title_id,description_id,user_id"
)
PROFILES = {"1": ("1", "3"), "2": ("2", "6"), "3": ("0", "1"), "23907634": ("2", "5")}


def kdd12_rows(draw: random.Random, is_csv: bool) -> list[list[str]]:
    """Of users with and without a profile, and of none; a link as a 64-bit number, or as a double printed it."""
    rows = []
    for _ in range(1000):
        link = draw.choice(["", str(2**63 + draw.randrange(9))])
        link = f"{float(link):.6g}" if link and is_csv else link
        numbers = [draw.choice(["", "1", "2", str(draw.randrange(3000))]) for _ in range(8)]
        user = draw.choice(["", "7", "99999999", *PROFILES, *PROFILES])
        click = draw.choice("01" if is_csv else "0012")
        rows.append([click, str(draw.randrange(1, 40)), link, *numbers, user])
    return rows


@pytest.mark.parametrize(("protocol", "drops"), [("nasrec", False), ("nasrec", True), ("autoctr", False)])
@pytest.mark.parametrize("is_csv", [False, True], ids=["training.txt", "openml"])
def test_user_profiles_stand_behind_a_line(
    tmp_path: Path, protocol: Any, drops: bool, is_csv: bool, require_equal: Callable[..., Any]
) -> None:
    """What prepare joins by UserID, a served line brings along: Gender and Age, 0 for a user who has no profile."""
    rows, separator = kdd12_rows(random.Random(0), is_csv), "," if is_csv else "\t"
    behind = [[*row, *PROFILES.get(row[-1], ("0", "0"))] for row in rows]
    header = [f"{OPENML}\n", f"{OPENML},Gender,Age\n"] if is_csv else ["", ""]
    raw, lines = tmp_path / "training.txt", tmp_path / "lines"
    for path, head, table in ((raw, header[0], rows), (lines, header[1], behind)):
        path.write_text(head + "".join(separator.join(row) + "\n" for row in table))
    profile = tmp_path / "userid_profile.txt"
    profile.write_text("".join(f"{user}\t{gender}\t{age}\n" for user, (gender, age) in PROFILES.items()))
    options = PrepareOptions(protocol=protocol, user_profile=profile, drop_impression=drops)
    prepare_clicks("kdd12", raw, tmp_path / "prepared", options)
    trained = require_equal(lines, tmp_path / "prepared", tmp_path)
    fields = [
        field["name"]
        for field in json.loads((tmp_path / "prepared" / "manifest.json").read_text())["categorical_fields"]
    ]
    ids = trained[:, -len(fields) :]
    assert [len(set(ids[:, fields.index(name)])) for name in ("Gender", "Age")] == [3, 5], "the test has all of them"
    said: list[str] = []
    assert list(preprocess_clicks.read([str(raw)], tmp_path, said.append)) == []
    wanted = "has no field 'Gender'" if is_csv else "line 1: it has 12 cells, and 14 are wanted"
    assert wanted in said[0] and len(said) == (1 if is_csv else len(rows))
    if not is_csv:
        lines.write_text("".join("\t".join(row[1:]) + "\n" for row in behind))
        require_equal(lines, tmp_path / "prepared", tmp_path)
