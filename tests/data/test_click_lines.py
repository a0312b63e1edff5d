"""Raw lines by the folder's rule alone, against the rows that preparing wrote of the same lines."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subshot.data.click_lines import encoded_lines
from subshot.data.click_schema import ClickSchema
from subshot.data.image_folder import DataError
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log


@pytest.fixture
def require_equal(require_prepared: Callable[..., Any]) -> Callable[[Path, bytes, int], None]:
    def check(folder: Path, text: bytes, rows: int) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        for cap in (0, 25):
            dense, ids = encoded_lines(folder, manifest, text, cap)
            assert dense.dtype == np.float32 and ids.dtype == np.int64 and len(dense) == rows
            require_prepared(np.concatenate([dense.astype(np.float64), ids], axis=1), folder, cap)

    return check


@pytest.mark.parametrize("protocol", ["nasrec", "autoctr", "bars-x4"])
def test_a_published_log(tmp_path: Path, protocol: Any, require_equal: Callable[..., Any]) -> None:
    raw = write_synthetic_log(tmp_path / "raw.tsv", 1200, 0)
    prepare_clicks("criteo", raw, tmp_path / "prepared", PrepareOptions(protocol=protocol))
    require_equal(tmp_path / "prepared", raw.read_bytes(), 1200)


def test_user_profiles_stand_behind_a_lines_own_cells(tmp_path: Path, require_equal: Callable[..., Any]) -> None:
    draw = random.Random(0)
    lines = []
    for _ in range(400):
        cells = [draw.randrange(2), *(draw.randrange(60) for _ in range(10)), draw.randrange(1, 31)]
        lines.append("\t".join(map(str, cells)))
    (tmp_path / "raw").write_text("\n".join(lines) + "\n")
    profile = {str(user): (user % 3, user % 7) for user in range(1, 31)}
    users = "".join(f"{user}\t{gender}\t{age}\n" for user, (gender, age) in profile.items())
    (tmp_path / "users").write_text(users)
    options = PrepareOptions(user_profile=tmp_path / "users")
    prepare_clicks("kdd12", tmp_path / "raw", tmp_path / "prepared", options)
    joined = ["\t".join([line, *map(str, profile[line.rsplit("\t", 1)[1]])]) + "\n" for line in lines]
    require_equal(tmp_path / "prepared", "".join(joined).encode(), 400)


def own_log(folder: Path) -> tuple[Path, ClickSchema]:
    """A log of one's own, with a time, a column that is left out, and words for what is missing."""
    draw, raw = random.Random(0), folder / "log.csv"
    with raw.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", "clicked", "site", "row", "views", "price"])
        for row in range(600):
            site = draw.choice(["news", "News", 'a "shop", big', "día", "", "NA", f"rare{draw.randrange(50)}"])
            price = draw.choice(["", "NA", "0", "-0.5", "1e-3", ".5", "99999"])
            writer.writerow([row, draw.choice("001"), site, row, draw.choice(["", "0", "-7", "2.5", "31"]), price])
    columns = {"counts": ("views",), "numbers": ("price",), "categories": ("site",), "left_out": ("row",)}
    return raw, ClickSchema("clicked", **columns, time="day", missing=("NA",), separator=",", min_count=3)


def test_a_log_of_ones_own_whose_columns_stand_in_another_order(
    tmp_path: Path, require_equal: Callable[..., Any]
) -> None:
    raw, schema = own_log(tmp_path)
    prepare_clicks("csv", raw, tmp_path / "prepared", PrepareOptions(schema=schema))
    require_equal(tmp_path / "prepared", raw.read_bytes(), 600)
    wanted = ["price", "site", "clicked", "views"]
    with raw.open(encoding="utf-8", newline="") as file, (tmp_path / "other.csv").open("w", newline="") as other:
        writer = csv.DictWriter(other, wanted, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(csv.DictReader(file))
    require_equal(tmp_path / "prepared", (tmp_path / "other.csv").read_bytes(), 600)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    raw = write_synthetic_log(tmp_path / "raw.tsv", 1200, 0)
    prepare_clicks("criteo", raw, tmp_path / "prepared", PrepareOptions())
    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    first, second = raw.read_bytes().splitlines(keepends=True)[:2]
    with pytest.raises(DataError, match="line 2: it has 39 columns"):
        encoded_lines(tmp_path / "prepared", manifest, first + second.split(b"\t", 1)[1], 0)
