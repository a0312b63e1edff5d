"""Stopping a preparation, going on, refusing; and what bad lines do to it."""

import contextlib
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subshot.data.click_text import sha256_of
from subshot.data.image_folder import DataError
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.prepare_stages import Pieces, Progress

SMALL = Pieces(block_bytes=3000, group_rows=64, part_rows=150)


def criteo_rows(count: int, seed: int = 0) -> list[list[str]]:
    draw = random.Random(seed)
    words = ["", *(f"{i:08x}" for i in range(6))]
    return [
        [draw.choice("0001"), *draw.choices(["", "-1", "3", "70"], k=13), *draw.choices(words, k=26)]
        for _ in range(count)
    ]


def write_rows(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


def digests(out: Path) -> dict[str, str]:
    """Every file of a folder by its content; the manifest, which names them, included."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): sha256_of(path) for path in files}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("protocol", ["nasrec", "autoctr"])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(tmp_path: Path, protocol: Any, packed: bool) -> None:
    raw = write_rows(tmp_path / "train.txt", criteo_rows(400))
    if packed:
        raw.write_bytes(gzip.compress(raw.read_bytes()))
    options = PrepareOptions(protocol)
    calls: list[str] = []
    prepare_clicks("criteo", raw, tmp_path / "whole", options, lambda stage, *_: calls.append(stage), SMALL)
    assert {"check", "read", "write"} <= set(calls)

    def stopper(after: int) -> Progress:
        left = iter(range(after))

        def progress(*_: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        return progress

    out = tmp_path / "out"
    stops = 0
    for after in [*range(3, len(calls), max(1, len(calls) // 12)), len(calls) - 1]:
        with contextlib.suppress(KeyboardInterrupt):
            prepare_clicks("criteo", raw, out, options, stopper(after), SMALL)
        if (out / "manifest.json").exists():
            break
        assert not list(out.rglob("*.tmp"))
        stops += 1
    assert stops >= 2
    if not (out / "manifest.json").exists():
        prepare_clicks("criteo", raw, out, options, pieces=SMALL)
    assert digests(out) == digests(tmp_path / "whole")


def test_a_journal_line_that_a_crash_tore_off_is_done_again(tmp_path: Path) -> None:
    raw = write_rows(tmp_path / "train.txt", criteo_rows(400))
    prepare_clicks("criteo", raw, tmp_path / "whole", PrepareOptions(), pieces=SMALL)

    def stop(stage: str, *_: Any) -> None:
        if stage == "write":
            raise KeyboardInterrupt

    def stop_early(stage: str, unit: str, done: int, total: int) -> None:
        if stage == "read" and done > total / 2:
            raise KeyboardInterrupt

    journal = tmp_path / "out" / ".prepare" / "journal.jsonl"
    for stopped, stage in ((stop_early, "parsed"), (stop, "written")):
        with pytest.raises(KeyboardInterrupt):
            prepare_clicks("criteo", raw, tmp_path / "out", PrepareOptions(), stopped, SMALL)
        lines = journal.read_bytes().splitlines()
        assert list(json.loads(lines[-1])) == [stage]
        with journal.open("ab") as file:  # a line that was not yet whole
            file.write(lines[-1][:-5])
    prepare_clicks("criteo", raw, tmp_path / "out", PrepareOptions(), pieces=SMALL)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_finished_folder_is_left_alone_and_other_settings_are_refused(tmp_path: Path) -> None:
    raw = write_rows(tmp_path / "train.txt", criteo_rows(200))
    out = tmp_path / "out"
    assert not prepare_clicks("criteo", raw, out, PrepareOptions()).already
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = prepare_clicks("criteo", raw, out, PrepareOptions())
    assert again.already and sum(again.rows.values()) == 200
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(ValueError, match=r"seed 2018 instead of 1\); give another folder, or delete it"):
        prepare_clicks("criteo", raw, out, PrepareOptions(seed=1))
    with pytest.raises(ValueError, match="protocol 'nasrec' instead of 'autoctr'"):
        prepare_clicks("criteo", raw, out, PrepareOptions("autoctr"))
    part = out / "train" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"part-00000\.parquet is missing or was changed since it was prepared"):
        prepare_clicks("criteo", raw, out, PrepareOptions())
    write_rows(tmp_path / "train.txt", criteo_rows(200, seed=1))
    with pytest.raises(ValueError, match="the raw log is another file, or was changed"):
        prepare_clicks("criteo", raw, out, PrepareOptions())
    with pytest.raises(ValueError, match="holds other files"):
        prepare_clicks("criteo", raw, tmp_path, PrepareOptions())


def test_a_log_that_changes_while_it_is_read_is_not_prepared(tmp_path: Path) -> None:
    raw = write_rows(tmp_path / "train.txt", criteo_rows(600))

    def grow(stage: str, *_: Any) -> None:
        if stage == "read":
            with raw.open("a") as file:
                file.write("\t".join(criteo_rows(1)[0]) + "\n")

    with pytest.raises(DataError, match="was changed while it was read"):
        prepare_clicks("criteo", raw, tmp_path / "out", PrepareOptions(), grow, SMALL)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_bad_lines_stop_the_run_or_are_counted_by_reason(tmp_path: Path) -> None:
    good = criteo_rows(300)
    bad = [["2", *good[0][1:]], good[1][:-1], [*good[2][:-1], "nothex"], [good[3][0], "1.5", *good[3][2:]], [""]]
    places = [0, 77, 150, 233, 301]
    rows = list(good)
    for place, row in zip(places, bad, strict=True):
        rows.insert(place, row)
    raw = write_rows(tmp_path / "train.txt", rows)
    with pytest.raises(DataError, match=r"train\.txt, line 1: field label is '2'; it must be 0 or 1 \(mend or"):
        prepare_clicks("criteo", raw, tmp_path / "stopped", PrepareOptions(), pieces=SMALL)
    assert not (tmp_path / "stopped" / "manifest.json").exists()
    made = prepare_clicks("criteo", raw, tmp_path / "out", PrepareOptions(on_bad_line="skip"), pieces=SMALL)
    assert made.bad.counts == {"label": 1, "columns": 2, "category": 1, "number": 1}
    assert made.bad.first is not None and made.bad.first.line == 1
    manifest = json.loads(made.manifest.read_text())
    assert manifest["bad_lines"] == 5 and manifest["bad_lines_by_reason"] == made.bad.counts
    clean = write_rows(tmp_path / "clean.txt", good)
    other = prepare_clicks("criteo", clean, tmp_path / "clean", PrepareOptions(), pieces=Pieces())
    for split in ("train", "val", "test"):
        parts = [pq.read_table(path) for path in sorted((tmp_path / "out" / split).iterdir())]
        assert pa.concat_tables(parts).equals(pq.read_table(other.manifest.parent / split))


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([["x"] * 40] * 3, "no usable row; its 3 lines are all bad, the first being line 1"),
        ([["0", *row[1:]] for row in criteo_rows(30)], "the label is 0 in each of the 30 rows"),
        ([["1", *criteo_rows(1)[0][1:]], ["0", *criteo_rows(1)[0][1:]]], "holds 2 rows, too few to put one into"),
    ],
)
def test_a_log_that_nothing_can_be_learnt_from_is_refused(tmp_path: Path, rows: list[list[str]], what: str) -> None:
    raw = write_rows(tmp_path / "train.txt", rows)
    with pytest.raises(DataError, match=what):
        prepare_clicks("criteo", raw, tmp_path / "out", PrepareOptions(on_bad_line="skip"))
    assert not (tmp_path / "out" / "manifest.json").exists()
