"""The frozen list of trainings that a job array goes through: manifest.json, read by every element, and
replaced only when all of it is trained.

A run has one of retrainings, and one of the trainings that judge its score.

Element I of an array trains line I. The list is frozen because a later search, or another --top, must not change what a
line means while elements run; each line says by hashes what it is, and by a file when it is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from subshot.train.run_dir import RunDir, read_json, write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Array:
    """A kind of job array. name: of the command in launch/, of its batch script, and what its jobs begin with. options:
    those of the command that decide what is in the manifest."""

    name: str
    options: str

    def manifest_json(self, run: RunDir) -> Path:
        return (run.correlation if self == CORRELATION else run).manifest_json


RETRAINING = Array("retrain", "--top, --controls, --seeds and --epochs")
CORRELATION = Array("correlate", "--sample, --seeds and --epochs")

LEAST_SAMPLE, MOST_SAMPLE = 8, 30
"""Networks that are trained to judge a score. Fewer say nothing, and more are worth a study of their own."""


@dataclass(frozen=True)
class Element:
    """One training. network: what it trains, the same for all its seeds. genotype: None for a named baseline. result:
    the file, relative to the run, that is there if and only if the training is finished; it holds the metric."""

    index: int
    name: str
    network: str
    role: str
    genotype: tuple[int, ...] | None
    genotype_hash: str
    seed: int
    learning_rate: float | None
    score: float | None
    result: str


@dataclass(frozen=True)
class Manifest:
    """config_hash: of all settings and data that the trainings depend on. metric: what each result is collected by."""

    config_hash: str
    metric: str
    elements: tuple[Element, ...]


def hash_of(value: Any) -> str:
    """The first 16 digits of the sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def freeze(run: RunDir, manifest: Manifest, array: Array = RETRAINING) -> None:
    """Writes the manifest. Raises ValueError where another one is frozen, unless that is finished and of the same
    settings."""
    path = array.manifest_json(run)
    if path.is_file():
        frozen = read_manifest(run, array)
        may_follow = frozen.config_hash == manifest.config_hash and is_finished(frozen, run)
        if frozen != manifest and not may_follow:
            raise ValueError(
                f"{path} was frozen with other trainings or settings; give the same {array.options}, or delete it when "
                "no element of it runs"
            )
    write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(manifest)})


def is_finished(manifest: Manifest, run: RunDir) -> bool:
    return all((run.root / element.result).is_file() for element in manifest.elements)


def read_manifest(run: RunDir, array: Array = RETRAINING) -> Manifest:
    """Raises ValueError where there is none, or it is damaged or of another version."""
    path = array.manifest_json(run)
    if not path.is_file():
        command = f"launch/{array.name}.py {run.root} --freeze"
        raise ValueError(f"{run.root} has no frozen manifest; write it with: {command}")
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path} is of another version of subshot; delete it and freeze it again")
    names = {field.name for field in fields(Element)}
    elements = []
    for number, line in enumerate(record.get("elements", [])):
        if set(line) != names or line["index"] != number:
            raise ValueError(f"{path}: element {number} is damaged; delete the file and freeze it again")
        genotype = None if line["genotype"] is None else tuple(line["genotype"])
        elements.append(Element(**line | {"genotype": genotype}))
    return Manifest(record["config_hash"], record["metric"], tuple(elements))


def element_of(run: RunDir, present: Manifest, index: int, array: Array = RETRAINING) -> Element:
    """Line `index` of the frozen manifest, or of `present`, what the command would freeze, where none is frozen.

    Raises ValueError for an index outside, and where the settings are not those that the manifest was frozen with.
    """
    path = array.manifest_json(run)
    manifest = read_manifest(run, array) if path.is_file() else present
    if manifest.config_hash != present.config_hash:
        raise ValueError(
            f"{path} was frozen with other settings or data (hash {manifest.config_hash}, now "
            f"{present.config_hash}); give the same --epochs and data"
        )
    if not 0 <= index < len(manifest.elements):
        raise ValueError(f"--index is {index}; the manifest has lines 0 to {len(manifest.elements) - 1}")
    return manifest.elements[index]


def numbered(elements: Iterable[dict[str, Any]]) -> tuple[Element, ...]:
    """Elements with their indices, from all their other fields."""
    return tuple(Element(index=number, **fields) for number, fields in enumerate(elements))
