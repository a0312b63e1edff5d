"""Trainings from scratch that judge a score: what a domain brings to them, and how the records that they leave are
read.

A record is correlation/trials/<name>.json below the run: the settings of the training and what it reached. No weights
are kept. A training that retraining has done already, with the same settings, is not done again: its record is copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from subshot.launch.config import differences
from subshot.launch.manifest import Element
from subshot.launch.run_log import RunLog
from subshot.proxies import Proxy, ProxyUndefined
from subshot.supernet.space import Genotype
from subshot.train.run_dir import RunDir, read_json

Measure = Callable[[Genotype], Mapping[str, float | ProxyUndefined]]
"""Proxies of a freshly initialised network, by name."""


class Trainings(Protocol):
    """How networks of a run are trained from scratch, and by what they are judged."""

    @property
    def metric(self) -> str:
        """Its name in a record, with the split in front."""
        ...

    @property
    def maximize(self) -> bool: ...

    @property
    def guess(self) -> float:
        """The metric of a model that knows nothing: what a training that diverged counts as."""
        ...

    @property
    def looked_at(self) -> str:
        """In a sentence or two: on which rows or images networks are measured, and what that allows."""
        ...

    @property
    def learning_rate(self) -> float | None:
        """Of all trainings; None where the recipe alone says it."""
        ...

    @property
    def terms(self) -> Mapping[str, bool]:
        """Terms of the score, as the history calls them, and whether higher is better."""
        ...

    def depends_on(self) -> str:
        """A hash of all settings and data that the trainings depend on, but for network and seed."""
        ...

    def name(self, network: str, seed: int) -> str:
        """Of one training, as its files are called."""
        ...

    def in_per_cent(self, value: float) -> float:
        """The metric as nDCG reads it: 0 for what knows nothing, or for nothing right, up to 100."""
        ...

    def train(self, elements: Sequence[Element], run: RunDir, log: RunLog) -> None:
        """Leaves a record of each; finished ones are only checked. Raises Preempted after a checkpoint, and ValueError
        for a record that is damaged or was made with other settings."""
        ...

    def trained_before(self, run: RunDir) -> set[Genotype]:
        """Networks of which a first training with these settings is there, here or in retraining."""
        ...

    def measure(self, proxies: Sequence[Proxy]) -> Measure: ...


def read_record(path: Path, metric: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """A finished training's; None where there is none. Raises ValueError where it is damaged or was made with other
    settings."""
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged (not JSON); delete it, and its training is done again") from error
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict) or not _is_whole(record, metric):
        raise ValueError(f"{path} is damaged (no {metric}, or no settings); delete it, and its training is done again")
    changed = differences(record["settings"], settings)
    if changed:
        raise ValueError(f"{path} was made with other settings ({'; '.join(changed)}); use the same, or delete it")
    return record


def _is_whole(record: dict[str, Any], metric: str) -> bool:
    return isinstance(record.get("diverged"), str) or value_of(record, metric) is not None


def value_of(record: dict[str, Any], metric: str) -> float | None:
    """The metric of a record, which may have an interval; None where it is missing or no finite number."""
    found = record.get(metric)
    if isinstance(found, dict):
        found = found.get("value")
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def same_training(records: Iterable[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a training with just these settings, marked as a copy; None where there is none."""
    found = next((record for record in records if record.get("settings") == settings), None)
    return None if found is None else {"diverged": None, **found, "copy_of": found["name"]}


def same_settings(records: Iterable[dict[str, Any]], settings: dict[str, Any]) -> set[Genotype]:
    """The networks of those records that were made with these settings, whatever network these are of."""
    found = (record["settings"] for record in records if isinstance(record.get("settings"), dict))
    return {
        tuple(theirs["genotype"])
        for theirs in found
        if theirs.get("genotype") is not None and {**theirs, "genotype": None} == {**settings, "genotype": None}
    }


def finished_records(folder: RunDir) -> Iterator[dict[str, Any]]:
    """Those that are whole JSON objects; whoever needs a damaged one is told of it by `read_record`."""
    for path in sorted(folder.trial_json("x").parent.glob("*.json")):
        with suppress(ValueError):
            record = read_json(path)
            if isinstance(record, dict):
                yield record
