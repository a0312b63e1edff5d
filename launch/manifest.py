"""The frozen list of trainings that a job array goes through: manifest.json, written once, read by every element.

Element I of an array trains line I. The list is frozen because a later search, or another --top, must not change what a
line means while elements run; each line says by hashes what it is, and by a file when it is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from subshot.train.run_dir import RunDir, read_json, write_json

SCHEMA_VERSION = 1


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


def freeze(run: RunDir, manifest: Manifest) -> None:
    """Writes the manifest. Raises ValueError where another one is frozen already."""
    if run.manifest_json.is_file() and read_manifest(run) != manifest:
        raise ValueError(
            f"{run.manifest_json} was frozen with other trainings or settings; give the same --top, --controls, "
            "--seeds and --epochs, or delete it when no element of it runs"
        )
    write_json(run.manifest_json, {"schema_version": SCHEMA_VERSION, **asdict(manifest)})


def read_manifest(run: RunDir) -> Manifest:
    """Raises ValueError where there is none, or it is damaged or of another version."""
    path = run.manifest_json
    if not path.is_file():
        raise ValueError(f"{run.root} has no frozen manifest; write it with: launch/retrain.py {run.root} --freeze")
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


def element_of(run: RunDir, present: Manifest, index: int) -> Element:
    """Line `index` of the frozen manifest, or of `present`, what the command would freeze, where none is frozen.

    Raises ValueError for an index outside, and where the settings are not those that the manifest was frozen with.
    """
    manifest = read_manifest(run) if run.manifest_json.is_file() else present
    if manifest.config_hash != present.config_hash:
        raise ValueError(
            f"{run.manifest_json} was frozen with other settings or data (hash {manifest.config_hash}, now "
            f"{present.config_hash}); give the same --epochs and data"
        )
    if not 0 <= index < len(manifest.elements):
        raise ValueError(f"--index is {index}; the manifest has lines 0 to {len(manifest.elements) - 1}")
    return manifest.elements[index]


def numbered(elements: Iterable[dict[str, Any]]) -> tuple[Element, ...]:
    """Elements with their indices, from all their other fields."""
    return tuple(Element(index=number, **fields) for number, fields in enumerate(elements))
