"""A winner's folder as it is read, every file of it taken for what it may be: hashes, names, fields, tensors.

Whatever goes wrong is a ValueError with one sentence; nothing in the folder is run.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subshot.launch.winners.copied import LOAD, preprocess_source
from subshot.launch.winners.copied.load import load_weights
from subshot.launch.winners.network_program import names_in
from subshot.launch.winners.schema import ARCHITECTURE, VOCABULARY, require_schema, schemas
from subshot.launch.winners.space import CLICKS, IMAGES
from subshot.launch.winners.weights import weight_files
from subshot.train.run_dir import RunDir, file_digest, read_json
from subshot.train.winner_dir import LOG_LINES, PICTURES, RAW, WinnerDir

T = TypeVar("T")
LINE = re.compile(rf"([0-9a-f]{{64}})  ((?:{RAW}/)?[A-Za-z0-9][A-Za-z0-9._-]*)")
WEIGHTS = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
GOLDEN_BYTES = 2**28


@dataclass(frozen=True)
class Content:
    """What later checks need of earlier ones."""

    folder: WinnerDir
    records: dict[str, Any]
    weights: dict[str, Tensor]
    golden: dict[str, NDArray[Any]]

    @property
    def architecture(self) -> dict[str, Any]:
        record: dict[str, Any] = self.records["architecture.json"]
        return record

    @property
    def program(self) -> dict[str, Any]:
        record: dict[str, Any] = self.records["network.json"]
        return record


def check_hashes(folder: WinnerDir) -> list[str]:
    path = folder.checksums
    if winners := RunDir(folder.root).winner_names():
        raise ValueError(
            f"{folder.root} is a run; name one of its winners, such as {RunDir(folder.root).winner(winners[0]).root}"
        )
    if not path.is_file() or path.is_symlink():
        raise ValueError(f"{folder.root} is no winner's folder: it has no SHA256SUMS")
    text = path.read_bytes().decode("ascii", "replace")
    listed: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        found = LINE.fullmatch(line)
        if found is None or found[2] in listed:
            raise ValueError(f"{path}, line {number}: not a sha256, two spaces and a file name, each file once")
        listed[found[2]] = found[1]
    if not text.endswith("\n"):
        raise ValueError(f"{path} is cut off in its last line")
    paths = [*vars_of(folder), *map(folder.raw, PICTURES + LOG_LINES)]
    known = {path.relative_to(folder.root).as_posix() for path in paths} | {f"{folder.onnx.name}.data"}
    present = _present(folder)
    if "__pycache__" in present:
        raise ValueError(
            f"delete {folder.root / '__pycache__'}, which Python makes; it is no part of a winner's folder"
        )
    for name in present:
        if name not in known and not WEIGHTS.fullmatch(name):
            raise ValueError(f"{folder.root / name} is no file of a winner's folder; delete it")
        if name not in listed and name != path.name:
            raise ValueError(f"{folder.root / name} is not listed in SHA256SUMS; a winner's folder holds nothing else")
    for name, digest in listed.items():
        file = folder.root / name
        if file.is_symlink() or not file.is_file():
            raise ValueError(f"{file} is listed in SHA256SUMS, and is missing or no ordinary file")
        if file_digest(file) != digest:
            raise ValueError(f"{file} was changed: its sha256 is not the one in SHA256SUMS")
    return list(listed)


def _present(folder: WinnerDir) -> list[str]:
    """Names in the folder; of what lies in golden/, with that before them."""
    raw = folder.root / RAW
    inside = list(raw.iterdir()) if raw.is_dir() and not raw.is_symlink() else None
    names = [path.name for path in folder.root.iterdir() if inside is None or path.name != RAW]
    return sorted([*names, *(f"{RAW}/{path.name}" for path in inside or ())])


def read_records(folder: WinnerDir) -> dict[str, Any]:
    architecture = _json(folder.architecture_json)
    require_schema(folder.architecture_json, architecture, ARCHITECTURE)
    records = {}
    for name, wanted in schemas(architecture["task"]).items():
        path = folder.root / name
        records[name] = _json(path)
        for schema in wanted:
            require_schema(path, records[name], schema)
    if folder.vocabulary_json.is_file():
        records["vocabulary.json"] = _json(folder.vocabulary_json)
        require_schema(folder.vocabulary_json, records["vocabulary.json"], VOCABULARY)
    for path in (folder.load_py, folder.preprocess_py, folder.model_card):
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    return records


def check_code(folder: WinnerDir, records: dict[str, Any]) -> str:
    """Whoever has checked a folder will run its load.py, so that must be subshot's own text."""
    images = records["architecture.json"]["task"] == IMAGES
    for path, source in ((folder.load_py, LOAD), (folder.preprocess_py, preprocess_source(images))):
        if path.read_bytes() != source.read_bytes():
            raise ValueError(
                f"{path} is not the one that this version of subshot writes (the folder says that it was written by "
                f"{records['provenance.json']['subshot']}); do not run it: launch/export.py {folder.root} --out NEW "
                "makes a folder with a new one"
            )
    return "load.py and preprocess.py are subshot's own"


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({type(error).__name__})") from error


def read_weights(folder: WinnerDir, program: dict[str, Any]) -> dict[str, Tensor]:
    files = weight_files(folder.root)
    if not files:
        raise ValueError(f"{folder.root} has no model.safetensors")
    weights = told(lambda: load_weights(folder.root, program), f"{folder.root}: the safetensors files cannot be read")
    read = {name for call in program["calls"] for name in names_in(call[2], "@")}
    for name in sorted(read | set(program["parameters"])):
        if name not in weights:
            raise ValueError(f"{folder.network_json} reads the weight {name!r}, which the safetensors files lack")
    used = {name for call in program["calls"] for name in names_in(call[2], "%")} | {program["output"]}
    for call in program["calls"]:
        if call[0] not in used:
            raise ValueError(f"{folder.network_json}: nothing reads what the call {call[0]!r} gives")
    for name, value in weights.items():
        if value.dtype not in (torch.float32, torch.int64, torch.uint8):
            raise ValueError(f"the weight {name!r} in {folder.root} is {value.dtype}; no winner has such")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weight {name!r} in {folder.root} holds a value that is no finite number")
    return weights


def read_golden(folder: WinnerDir, records: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays that network.json takes and gives, each of the same one or more rows."""
    path = folder.golden
    wanted = {*records["network.json"]["inputs"], golden_output(records)}
    golden = told(lambda: _arrays(path, wanted), f"{path} cannot be read")
    if len({len(value) for value in golden.values()}) != 1 or not len(golden[golden_output(records)]):
        raise ValueError(f"{path} must hold the same number of rows of each array, and at least one")
    return golden


def _arrays(path: Path, names: set[str]) -> dict[str, NDArray[Any]]:
    """Plain, uncompressed float32 and int64 arrays under just these names."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sorted(each.filename for each in members) != sorted(f"{name}.npy" for name in names):
            raise ValueError(f"it must hold {', '.join(sorted(names))}, and nothing else")
        plain = all(each.compress_type == zipfile.ZIP_STORED and not each.flag_bits & 1 for each in members)
        if not plain or sum(each.file_size for each in members) > GOLDEN_BYTES:
            raise ValueError(f"it must be uncompressed, and of at most {GOLDEN_BYTES} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        golden = {name: arrays[name] for name in names}
    for name, value in golden.items():
        if value.dtype not in (np.dtype("<f4"), np.dtype("<i8")) or value.ndim == 0:
            raise ValueError(f"{name} is {value.dtype} of {value.ndim} axes; it must be float32 or int64, of rows")
    return golden


def golden_output(records: dict[str, Any]) -> str:
    return "probabilities" if records["architecture.json"]["task"] == CLICKS else "logits"


def vars_of(folder: WinnerDir) -> list[Path]:
    """Every path of a winner's folder, but for those of weights."""
    return [getattr(folder, name) for name, kind in vars(WinnerDir).items() if isinstance(kind, property)]


def told(check: Callable[[], T], what: str) -> T:
    """What `check` gives; whatever it raises becomes a ValueError with `what` before it: the files are not trusted, and
    libraries have errors of their own."""
    try:
        return check()
    except Exception as error:
        raise ValueError(f"{what}: {short(error)}") from error


def short(error: BaseException) -> str:
    words = " ".join(f"{error}".split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:197]}..."
