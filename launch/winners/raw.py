"""golden/ in a winner's folder: a few raw inputs that code has drawn, and what preprocessing must make of them.

The files are written and read here; launch/winners/raw_check.py compares. Whatever is read is looked at before anything
is decoded: names, bytes, the pixels that a picture's header tells of, the longest line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from subshot.launch.winners.content import told
from subshot.launch.winners.schema import raw_schema, require_schema
from subshot.launch.winners.space import IMAGES
from subshot.train.run_dir import read_json, write_json
from subshot.train.winner_dir import LOG_LINES, PICTURES, RAW, WinnerDir

RAW_BYTES = 2**22
"""The largest raw input."""
LINE_BYTES = 2**20
"""The longest line, as in the logs that are prepared."""
SIDE = 1024
"""The longest side of a picture, in pixels."""
EXPECTED_BYTES = 2**28


@dataclass(frozen=True)
class RawInputs:
    """files: contents by name, in order. expected_by: what computed `expected` (see schema.py).

    expected: of pictures `levels` [N, 3, size, size] uint8, the grey levels after resizing and cropping, and
    `normalised` [3, 256] float32, what the network gets for each level of each channel; of log lines `dense` [N, D]
    float32 and `ids` [N, F] int64.
    """

    files: Mapping[str, bytes]
    expected: Mapping[str, Tensor]
    expected_by: str


def raw_names(task: str) -> tuple[str, ...]:
    return PICTURES if task == IMAGES else LOG_LINES


def write_raw(folder: WinnerDir, given: RawInputs) -> None:
    (folder.root / RAW).mkdir()
    for name, content in given.files.items():
        folder.raw(name).write_bytes(content)
    folder.raw_expected.write_bytes(save({name: value.contiguous() for name, value in given.expected.items()}))
    write_json(folder.raw_json, {"files": list(given.files), "expected_by": given.expected_by})


def read_raw(folder: WinnerDir, records: dict[str, Any]) -> RawInputs:
    """Raises ValueError for a folder that has no raw inputs, as earlier ones, and for what cannot be such."""
    if not folder.raw_json.is_file():
        raise ValueError(
            f"{folder.root} has no {RAW}/{folder.raw_json.name}, raw inputs by which its preprocessing is checked: it "
            f"was written by an earlier version; launch/export.py {folder.root} --out NEW writes it again with them"
        )
    record = told(lambda: read_json(folder.raw_json), f"{folder.raw_json} cannot be read")
    task = records["architecture.json"]["task"]
    require_schema(folder.raw_json, record, raw_schema(task))
    wanted = {*raw_names(task), folder.raw_json.name, folder.raw_expected.name}
    found = {path.name for path in (folder.root / RAW).iterdir()}
    if wanted != found:
        raise ValueError(f"{folder.root / RAW} must hold {', '.join(sorted(wanted))}, and has {sorted(wanted ^ found)}")
    files = {}
    for name in record["files"]:
        path = folder.raw(name)
        _require_bytes(path, RAW_BYTES)
        if task == IMAGES:
            told(lambda path=path: _require_small(path), f"{path}")  # type: ignore[misc]
        files[name] = path.read_bytes()
        if task != IMAGES:
            _require_lines(path, files[name])
    _require_bytes(folder.raw_expected, EXPECTED_BYTES)
    expected = told(lambda: load(folder.raw_expected.read_bytes()), f"{folder.raw_expected} cannot be read")
    return RawInputs(files, expected, record["expected_by"])


def _require_bytes(path: Path, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path} has {size} bytes; at most {most} are looked at")


def _require_small(path: Path) -> None:
    """By the header, which is all that Pillow reads before it is asked for pixels."""
    with Image.open(path, formats=("PNG", "JPEG")) as file:
        if max(file.size) > SIDE:
            raise ValueError(f"it is of {file.width} x {file.height} pixels; at most {SIDE} a side are decoded")


def _require_lines(path: Path, content: bytes) -> None:
    if content.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is gzipped, which the raw inputs of a winner are not")
    longest = max(len(line) for line in content.split(b"\n"))
    if longest > LINE_BYTES:
        raise ValueError(f"{path} has a line of {longest} bytes; at most {LINE_BYTES} are read")
