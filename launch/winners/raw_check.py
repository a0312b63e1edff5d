"""Whether a winner's preprocess.json and vocabulary.json make of its raw inputs what is expected of them, by subshot's
own copy of preprocess.py; and raw inputs for a folder that has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from subshot.launch.winners.content import told
from subshot.launch.winners.copied import preprocess_clicks, preprocess_images
from subshot.launch.winners.raw import RawInputs
from subshot.launch.winners.raw_lines import log_lines
from subshot.launch.winners.raw_pictures import pictures
from subshot.launch.winners.schema import BY_ITSELF
from subshot.launch.winners.space import IMAGES
from subshot.train.winner_dir import LOG_LINES, WinnerDir

MAX_LEVELS = 1
"""Between grey levels: other decoders and other resizers round otherwise."""
MAX_NORMALISED = 1e-5
EXACT = {"dense": torch.float32, "ids": torch.int64}

Expected = Mapping[str, Tensor]


def check_raw(folder: WinnerDir, records: dict[str, Any], raw: RawInputs) -> str:
    """A sentence on what was compared. Raises ValueError where preprocessing gives something else."""
    _require_shapes(folder, records, raw)
    paths = [folder.raw(name) for name in raw.files]
    found = told(
        lambda: preprocessed(folder, records, paths),
        f"{folder.preprocess_json} does not fit the raw inputs in {paths[0].parent}",
    )
    by = f"as computed by {raw.expected_by}"
    if records["architecture.json"]["task"] != IMAGES:
        _require_same_rows(folder, records, found, raw.expected)
        return f"{len(found['ids'])} raw log lines become the golden dense values and ids, all equal, {by}"
    levels = _distances(found["levels"], raw.expected["levels"])
    normalised = float(_distances(found["normalised"], raw.expected["normalised"]).max())
    for path, each in zip(paths, levels, strict=True):
        if not float(each.max()) <= MAX_LEVELS:
            raise ValueError(
                f"{folder.preprocess_json} does not make of {path} what {folder.raw_expected} holds: resized and "
                f"cropped they differ by {float(each.max()):.0f} grey levels; allowed: {MAX_LEVELS}"
            )
    if not normalised <= MAX_NORMALISED:
        raise ValueError(
            f"{folder.preprocess_json} does not normalise grey levels as {folder.raw_expected} says: mean or std gives "
            f"values that differ by {normalised:.3g}; allowed: {MAX_NORMALISED:g}"
        )
    largest = f"{float(levels.max()):.0f} (allowed: {MAX_LEVELS})"
    return (
        f"{len(paths)} raw pictures become the golden grey levels to {largest}, and these the golden values to "
        f"{normalised:.2g} (allowed: {MAX_NORMALISED:g}), {by}"
    )


def preprocessed(folder: WinnerDir, records: dict[str, Any], paths: Sequence[Path]) -> dict[str, Tensor]:
    """What preprocess.json makes of raw inputs, as RawInputs.expected has it."""
    how = records["preprocess.json"]
    if records["architecture.json"]["task"] == IMAGES:
        levels = torch.stack([preprocess_images.levels(path, how) for path in paths])
        ramp = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
        return {"levels": levels, "normalised": preprocess_images.normalised(ramp, how)[:, 0]}
    parts = [inputs for _, inputs in preprocess_clicks.read([str(path) for path in paths], folder.root)]
    return {name: torch.cat(values) for name, values in zip(EXACT, zip(*parts, strict=True), strict=True)}


def raw_by_itself(folder: WinnerDir, records: dict[str, Any]) -> RawInputs:
    """Raw inputs for a folder that has none: drawn now, and expected to become what its own files make of them."""
    how = records["preprocess.json"]
    if records["architecture.json"]["task"] == IMAGES:
        files = pictures(how["size"], how["crop_ratio"])
    else:
        files = {LOG_LINES[0]: log_lines(how, records.get("vocabulary.json", {}))}
    with TemporaryDirectory() as place:
        paths = [Path(place) / name for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        return RawInputs(files, preprocessed(folder, records, paths), BY_ITSELF)


def _require_shapes(folder: WinnerDir, records: dict[str, Any], raw: RawInputs) -> None:
    """Before anything of the sizes that preprocess.json tells of is made."""
    how = records["preprocess.json"]
    if records["architecture.json"]["task"] == IMAGES:
        levels = (torch.uint8, (len(raw.files), 3, how["size"], how["size"]))
        wanted: dict[str, Any] = {"levels": levels, "normalised": (torch.float32, (3, 256))}
    else:
        rows = raw.files[LOG_LINES[0]].count(b"\n") - how["header"]
        sizes = {"dense": len(how["dense"]), "ids": len(how["categories"])}
        wanted = {name: (kind, (rows, sizes[name])) for name, kind in EXACT.items()}
    found = {name: (value.dtype, tuple(value.shape)) for name, value in raw.expected.items()}
    if found != wanted:
        shown = ", ".join(f"{name} {kind} {list(shape)}" for name, (kind, shape) in wanted.items())
        by = f"for this {folder.preprocess_json.name}"
        raise ValueError(f"{folder.raw_expected} must hold {shown}, and nothing else, {by}".replace("torch.", ""))


def _distances(found: Tensor, wanted: Tensor) -> Tensor:
    return (found.double() - wanted.double()).abs()


def _require_same_rows(folder: WinnerDir, records: dict[str, Any], found: Expected, wanted: Expected) -> None:
    how = records["preprocess.json"]
    for name, rules in (("dense", how["dense"]), ("ids", how["categories"])):
        different = (found[name] != wanted[name]).nonzero()
        if len(different):
            row, field = different[0].tolist()
            line = row + 1 + how["header"]
            raise ValueError(
                f"{folder.preprocess_json} and {folder.vocabulary_json.name} make of {folder.raw(LOG_LINES[0])}, line "
                f"{line}, field {rules[field]['name']}, {found[name][row, field].item():.9g}, and "
                f"{folder.raw_expected.name} holds {wanted[name][row, field].item():.9g} ({len(different)} such)"
            )
