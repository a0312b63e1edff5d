"""The raw inputs in a winner's folder: records that read, crop or count otherwise are refused, whatever the hashes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from subshot.data.click_formats import AVAZU, FORMATS, KDD12_TSV, ClickFormat
from subshot.data.click_lines import encoded_lines
from subshot.data.click_schema import ClickSchema
from subshot.data.click_serving import serving_rules, vocabularies
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.launch import export
from subshot.launch.winners.check import check_winner
from subshot.launch.winners.handover import checksums
from subshot.launch.winners.raw import RAW_BYTES, RawInputs, read_raw, write_raw
from subshot.launch.winners.raw_check import check_raw
from subshot.launch.winners.raw_lines import MOST, log_lines
from subshot.launch.winners.raw_pictures import pictures
from subshot.launch.winners.schema import BY_DALI, BY_ITSELF, BY_TRAINING
from subshot.launch.winners.space import CLICKS
from subshot.train.winner_dir import WinnerDir

Made = Any  # of conftest.py
Record = dict[str, Any]


def seal(folder: Path) -> None:
    """SHA256SUMS of what is there now."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)  # the folder may share its files with another
    (folder / "SHA256SUMS").write_text(checksums(folder))


@pytest.fixture
def refusal(reason_of: Callable[[Path], str]) -> Callable[[Path], str]:
    """Of a folder whose hashes are made to fit."""

    return lambda folder: (seal(folder), reason_of(folder))[1]


def changed(path: Path, change: Callable[[Record], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def sentences(folder: Path) -> str:
    return "\n".join(check_winner(folder))


def test_whole_folders_say_what_was_compared(made_images: Made, made_clicks: Made) -> None:
    assert "3 raw pictures become the golden grey levels to 1 (allowed: 1)" in sentences(made_images.winner)
    assert f"computed by {BY_DALI}" in sentences(made_images.winner)
    clicks = sentences(made_clicks.winner)
    assert f"raw log lines become the golden dense values and ids, all equal, as computed by {BY_TRAINING}" in clicks


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("crop_ratio", 0.875, "grey levels; allowed: 1"),
        ("crop_ratio", 0.95, "grey levels; allowed: 1"),
        ("mean", [0.485, 0.456, 0.4061], "does not normalise grey levels"),
        ("mean", [0.406, 0.456, 0.485], "does not normalise grey levels"),
        ("mean", [0, 0, 0], "does not normalise grey levels"),
        ("std", [0.229, 0.2241, 0.225], "does not normalise grey levels"),
        ("std", [1e-300, 0.224, 0.225], "does not normalise grey levels"),
        ("mean", [1e300, 0.456, 0.406], "preprocess.json"),
        ("size", 64, "preprocess.json: size is 64"),
    ],
)
def test_other_preprocessing_of_pictures_is_refused(
    image_copy: Path, field: str, value: Any, words: str, refusal: Callable[[Path], str]
) -> None:
    changed(image_copy / "preprocess.json", lambda record: record.update({field: value}))
    text = (image_copy / "MODEL_CARD.md").read_text()
    if field == "size":
        (image_copy / "MODEL_CARD.md").write_text(text.replace("32 x 32", "64 x 64"))
    assert words in refusal(image_copy)


def swap(several: list[Any], one: int, other: int) -> None:
    several[one], several[other] = several[other], several[one]


def swap_of(rules: list[Record], one: int, other: int) -> None:
    rules[one]["of"], rules[other]["of"] = rules[other]["of"], rules[one]["of"]


CLICK_CHANGES: Mapping[str, Callable[[Record], None]] = {
    "fields in another order": lambda how: swap(how["columns"], 20, 21),
    "dense fields in another order": lambda how: swap(how["columns"], 3, 4),
    "ids in another order": lambda how: swap(how["categories"], 4, 5),
    "another field's cells": lambda how: swap_of(how["categories"], 5, 9),
    "another field's numbers": lambda how: swap_of(how["dense"], 0, 1),
    "another step": lambda how: how["dense"][2].update(step="log1p"),
    "no number": lambda how: how["dense"][2].update(of=None),
    "a hash": lambda how: how["categories"][7].update(hash_size=how["categories"][7]["cardinality"]),
    "another kind": lambda how: how["columns"][22].update(kind="text"),
    "another word for missing": lambda how: how["missing"].append("0"),
    "another separator": lambda how: how.update(separator=","),
    "a header": lambda how: how.update(header=True),
}


@pytest.mark.parametrize("name", CLICK_CHANGES)
def test_other_preprocessing_of_lines_is_refused(click_copy: Path, name: str, refusal: Callable[[Path], str]) -> None:
    changed(click_copy / "preprocess.json", CLICK_CHANGES[name])
    words = refusal(click_copy)
    assert "preprocess.json" in words and "golden" in words


def test_every_swap_in_a_small_vocabulary_is_refused(click_copy: Path, refusal: Callable[[Path], str]) -> None:
    """Of two values, and of a value for one that is none; not of two that the capped table folds into one row."""
    path, rules = click_copy / "vocabulary.json", json.loads((click_copy / "preprocess.json").read_text())
    folder, before = WinnerDir(click_copy), path.read_text()
    records = {"architecture.json": {"task": CLICKS}, "preprocess.json": rules}
    raw, draw, tried = read_raw(folder, records), random.Random(0), 0
    for rule in rules["categories"]:
        values = json.loads(before)[rule["name"]]
        if not 2 <= len(values) <= MOST:
            continue
        one, other = draw.sample(range(len(values)), 2)
        if (one - other) % (rule["rows"] - 1) == 0:
            continue
        changed(path, lambda record, rule=rule, pair=(one, other): swap(record[rule["name"]], *pair))  # type: ignore[misc]
        with pytest.raises(ValueError, match=f"field {rule['name']}, [0-9]+, and expected.safetensors holds"):
            check_raw(folder, records, raw)
        path.write_text(before)
        changed(path, lambda record, rule=rule, one=one: record[rule["name"]].__setitem__(one, 7))  # type: ignore[misc]
        with pytest.raises(ValueError, match=f"field {rule['name']}, [0-9]+, and expected.safetensors holds"):
            check_raw(folder, records, raw)
        path.write_text(before)
        tried += 1
    assert tried > 10
    changed(path, lambda record: swap(record["C3"], 0, 1))
    assert "vocabulary.json make of" in refusal(click_copy)


@dataclass(frozen=True)
class Log:
    """A folder with preprocess.json, vocabulary.json and golden/ alone."""

    folder: WinnerDir
    how: Record

    def check(self, how: Record) -> str:
        self.folder.preprocess_json.write_text(json.dumps(how))
        records = {"architecture.json": {"task": CLICKS}, "preprocess.json": how}
        return check_raw(self.folder, records, read_raw(self.folder, records))


def made_log(place: Path, dataset: Any, raw: Path, options: PrepareOptions, cap: int = 0) -> Log:
    """Raw lines, and what the encoder of prepared logs makes of them."""
    prepared, folder = place / "prepared", WinnerDir(place / "winner")
    prepare_clicks(dataset, raw, prepared, options)
    manifest = json.loads((prepared / "manifest.json").read_text())
    how, vocabulary = serving_rules(manifest, cap), vocabularies(prepared, manifest)
    folder.root.mkdir()
    folder.vocabulary_json.write_text(json.dumps(vocabulary))
    lines = log_lines(how, vocabulary)
    assert lines == log_lines(how, vocabulary), "drawn by a rule alone"
    dense, ids = encoded_lines(prepared, manifest, lines, cap)
    expected = {"dense": torch.from_numpy(dense), "ids": torch.from_numpy(ids)}
    write_raw(folder, RawInputs({"rows.txt": lines}, expected, BY_TRAINING))
    return Log(folder, how)


def drawn_log(form: ClickFormat, place: Path) -> Path:
    """A log in a published layout, of few values a column, so that vocabularies have some."""
    draw, path = random.Random(0), place / "raw"
    cells: dict[str, Callable[[], str]] = {
        "label": lambda: draw.choice("01"),
        "clicks": lambda: draw.choice("012"),
        "integer": lambda: str(draw.choice(["", -1, 0, 2, 3, 40, 5000])),
        "hex": lambda: f"{draw.choice([5, 77, 2**31, 2**32 - 2]):08x}",
        "decimal": lambda: str(draw.choice(["", -1, 7, 12, 10**12])),
        "unsigned": lambda: str(draw.choice([7, 2**63, 2**64 - 1])),
        "rounded": lambda: draw.choice(["7", "1.42024e+19", "12"]),
        "hour": lambda: f"1410{draw.randrange(20, 30)}{draw.randrange(24):02d}",
    }
    rows = [[cells[column.kind]() for column in form.columns] for _ in range(600)]
    names = [[column.in_header for column in form.columns]] if form.header else []
    path.write_text("".join(form.separator.decode().join(row) + "\n" for row in names + rows))
    return path


def options_of(form: ClickFormat, protocol: Any, place: Path) -> PrepareOptions:
    if form.title == KDD12_TSV.title:
        (place / "users").write_text("7\t1\t3\n12\t2\t5\n")
        return PrepareOptions(protocol=protocol, user_profile=place / "users")
    return PrepareOptions(protocol=protocol)


PUBLISHED = [(form, protocol) for form in FORMATS for protocol in ("nasrec", "autoctr", "bars-x4")]


@pytest.mark.parametrize(
    ("form", "protocol"), [each for each in PUBLISHED if (each[0].dataset, each[1]) != ("kdd12", "bars-x4")]
)
def test_lines_of_published_logs_are_read_as_training_reads_them(
    tmp_path: Path, form: ClickFormat, protocol: Any
) -> None:
    raw = drawn_log(form, tmp_path)
    log = made_log(tmp_path, form.dataset, raw, options_of(form, protocol, tmp_path), cap=5)
    assert "all equal" in log.check(log.how)
    theirs = set(raw.read_bytes().splitlines()[1:])
    assert not theirs & set(log.folder.raw("rows.txt").read_bytes().splitlines()[1:]), "none of the log's own rows"


@pytest.mark.parametrize(("field", "less"), [("hash_size", 1), ("hash_size", -1), ("modulo", 1)])
def test_another_hash_is_refused(tmp_path: Path, field: str, less: int) -> None:
    log = made_log(tmp_path, "avazu", drawn_log(AVAZU, tmp_path), PrepareOptions())
    fields = [rule["name"] for rule in log.how["categories"]]
    for place in [place for place, name in enumerate(fields) if (field, name) != ("modulo", "hour")]:  # hours are below
        how = json.loads(json.dumps(log.how))
        how["categories"][place][field] -= less
        with pytest.raises(ValueError, match=f"field {fields[place]}, "):
            log.check(how)


def own_log(folder: Path) -> Log:
    draw, raw = random.Random(0), folder / "log.csv"
    with raw.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", "clicked", "site", "views", "price", "size"])
        for row in range(500):
            site = draw.choice(["news", " news", 'a "shop", big', "día", "", "NA", "-", "two\u00a0words", "x" * 500])
            numbers = [draw.choice(["", "0", "-7", "2.5"]), f"{draw.gauss(1e6, 3):.3f}", draw.choice(["", "-1", "-"])]
            writer.writerow([row, draw.choice("001"), site, *numbers])
    schema = ClickSchema("clicked", ("views",), ("price", "size"), ("site",), time="day", missing=("NA", "-"))
    return made_log(folder, "csv", raw, PrepareOptions(schema=schema))


def test_a_log_of_ones_own(tmp_path: Path) -> None:
    log = own_log(tmp_path)
    assert "all equal" in log.check(log.how)
    deviation = log.how["dense"][1]["deviation"]
    changes: list[Callable[[Record], None]] = [
        lambda how: how["dense"][1].update(mean=how["dense"][1]["mean"] + deviation / 1000),
        lambda how: how["dense"][1].update(deviation=deviation * 1.0001),
        lambda how: how["dense"][1].update(bound=9.0),
        lambda how: how["dense"][0].update(how["dense"][1] | {"name": "views", "of": "views"}),
        lambda how: how.update(missing=["NA"]),
        lambda how: how.update(quotes="none"),
        lambda how: how["columns"][1].update(header="price"),
        lambda how: swap_of(how["dense"], 1, 2),
    ]
    for change in changes:
        how = json.loads(json.dumps(log.how))
        change(how)
        with pytest.raises(ValueError, match="preprocess.json"):
            log.check(how)


def test_pictures_are_small_and_drawn_by_a_rule(made_images: Made) -> None:
    for size, ratio in ((8, 1.0), (32, 1.0), (224, 0.875), (1000, 0.9)):
        drawn = pictures(size, ratio)
        assert drawn == pictures(size, ratio) and sum(map(len, drawn.values())) < 300_000
        opened = [Image.open(io.BytesIO(content)) for content in drawn.values()]
        assert [(each.format, each.mode) for each in opened] == [("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "I;16")]
        assert all(size not in each.size for each in opened)
    assert (made_images.winner / "golden" / "wide.png").read_bytes() == pictures(32, 1.0)["wide.png"]


@pytest.mark.parametrize("domain", ["images", "clicks"])
def test_a_folder_of_an_earlier_version_is_written_again(
    made_images: Made,
    made_clicks: Made,
    domain: str,
    tmp_path: Path,
    status_of: Callable[..., int],
    refusal: Callable[[Path], str],
) -> None:
    winner = made_images.winner if domain == "images" else made_clicks.winner
    old = Path(shutil.copytree(winner, tmp_path / "old"))
    shutil.rmtree(old / "golden")
    assert f"launch/export.py {old} --out NEW writes it again" in refusal(old)
    assert status_of(export, str(old), "--out", str(tmp_path / "new")) == 0
    said = next(line for line in check_winner(tmp_path / "new") if "raw" in line)
    assert said.endswith(f"as computed by {BY_ITSELF}")
    assert {path.name for path in (tmp_path / "new" / "golden").iterdir()} == {
        path.name for path in (winner / "golden").iterdir()
    }


def test_export_keeps_raw_inputs_and_refuses_other_preprocessing(
    image_copy: Path, tmp_path: Path, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(export, str(image_copy), "--out", str(tmp_path / "new")) == 0
    for path in (image_copy / "golden").iterdir():
        assert (tmp_path / "new" / "golden" / path.name).read_bytes() == path.read_bytes()
    changed(image_copy / "preprocess.json", lambda record: record.update(crop_ratio=0.5))
    seal(image_copy)
    assert status_of(export, str(image_copy), "--out", str(tmp_path / "laundered")) == 2
    assert "grey levels; allowed: 1" in capsys.readouterr().err and not (tmp_path / "laundered").exists()


def bomb(folder: Path) -> None:
    """64 million pixels in a file of 8 KB."""
    Image.new("1", (8000, 8000)).save(folder / "golden" / "wide.png")


def other_format(folder: Path) -> None:
    Image.new("RGB", (30, 30)).save(folder / "golden" / "wide.png", "GIF")


def large_file(folder: Path) -> None:
    (folder / "golden" / "tall.jpg").write_bytes(b"\xff" * (RAW_BYTES + 1))


def cut_picture(folder: Path) -> None:
    path = folder / "golden" / "tall.jpg"
    path.write_bytes(path.read_bytes()[:-400])


def stranger(folder: Path) -> None:
    (folder / "golden" / "rows.txt").write_text("1\n")


def deep_stranger(folder: Path) -> None:
    (folder / "golden" / "more").mkdir()
    (folder / "golden" / "more" / "raw.json").write_text("{}")


def linked_folder(folder: Path) -> None:
    (folder / "golden").rename(folder.parent / "elsewhere")
    (folder / "golden").symlink_to(folder.parent / "elsewhere")


def other_names(folder: Path) -> None:
    changed(folder / "golden" / "raw.json", lambda record: record.update(files=["../preprocess.json"]))


def other_expectations(folder: Path) -> None:
    path = folder / "golden" / "expected.safetensors"
    save_file(load_file(path) | {"normalised": torch.zeros(3, 255)}, path)


def no_tensors(folder: Path) -> None:
    (folder / "golden" / "expected.safetensors").write_bytes(b"\xff" * 100)


BAD_PICTURES: Mapping[Callable[[Path], None], str] = {
    bomb: "8000 x 8000 pixels; at most 1024 a side",
    other_format: "cannot identify image",
    large_file: "bytes; at most 4194304",
    cut_picture: "cannot be read as an image",
    stranger: "and has ['rows.txt']",
    deep_stranger: "SHA256SUMS, line 6: not a sha256",
    linked_folder: "golden is no file of a winner's folder",
    other_names: "raw.json: files is not what it should be",
    other_expectations: "must hold levels uint8 [3, 3, 32, 32], normalised float32 [3, 256], and nothing else",
    no_tensors: "expected.safetensors cannot be read",
}


@pytest.mark.parametrize("damage", BAD_PICTURES, ids=lambda damage: damage.__name__)
def test_what_can_be_no_raw_picture_is_refused(
    image_copy: Path, damage: Callable[[Path], None], refusal: Callable[[Path], str]
) -> None:
    damage(image_copy)
    assert BAD_PICTURES[damage] in refusal(image_copy)


def bytes_of_lines(path: Path) -> Mapping[str, tuple[bytes, str]]:
    lines = path.read_bytes()
    cells = lines.split(b"\n")[0].split(b"\t")
    number = b"\t".join([*cells[:2], b"9" * 1_000_000 + b"x", *cells[3:]]) + lines[lines.index(b"\n") :]
    return {
        "a giant line": (b"1" * (2**20 + 1) + b"\n", "line of 1048577 bytes; at most 1048576"),
        "a giant number": (number, "which is no integer number"),
        "a gzip bomb": (gzip.compress(b"0" * 2**26), "is gzipped"),
        "no lines": (b"", "must hold dense float32 [0, 13]"),
        "a line less": (lines.split(b"\n", 1)[1], "must hold dense float32"),
        "noise": (random.Random(0).randbytes(5000), "golden"),
    }


def test_what_can_be_no_raw_log_is_refused(click_copy: Path, refusal: Callable[[Path], str]) -> None:
    path = click_copy / "golden" / "rows.txt"
    for content, words in bytes_of_lines(path).values():
        path.write_bytes(content)
        assert words in refusal(click_copy)
