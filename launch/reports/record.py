"""A run folder as the report reads it: whatever files are there, finished or not, and where the time went."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from subshot.launch.config import SpaceConfig, from_json
from subshot.launch.own_space import build_space, require_unchanged
from subshot.supernet.chain import ChainSpace
from subshot.train.run_dir import RunDir, read_json, read_jsonl
from subshot.train.winner_dir import WinnerDir

_STAMPED = re.compile(r"^\[\s*([\d.]+) s\] (.*)")

Endings = tuple[tuple[str, str], ...]
ENDINGS: Endings = (
    (r"images: ", "opening the images"),
    (r"warm-up: |warm-up continues|the supernet is warm", "building and measuring the supernet"),
    (r"epoch \d+: |every candidate was trained", "warm-up"),
    (r"score: |caution: ", "indicators, spectra, preparing the score"),
    (r"evolution: best", "evolution"),
    (r"nsga2: best", "NSGA-II"),
    (r"random: best", "random search"),
    (r"\w+: [\d.e+-]+ % below|winner[:,] ", "exact optimum and controls"),
    (r"\S+: test accuracy|network  |the winner \(", "retraining and export"),
    (r"report: ", "report"),
)
"""What a line begins with that ends a stretch of time, and the stage that the stretch belongs to."""


def stage_seconds(lines: Sequence[str], endings: Endings = ENDINGS) -> dict[str, float]:
    """Seconds a stage, in order of appearance. Each command's stamps begin at 0: one that falls back begins anew."""
    spent: dict[str, float] = {}
    before = 0.0
    for line in lines:
        stamped = _STAMPED.match(line)
        if stamped is None:
            continue
        now, words = float(stamped.group(1)), stamped.group(2)
        took = now - before if now >= before else now
        before = now
        stage = next((stage for pattern, stage in endings if re.match(pattern, words)), "other")
        spent[stage] = spent.get(stage, 0.0) + took
    return {stage: seconds for stage, seconds in spent.items() if seconds >= 0.05}


def commands_of(lines: Sequence[str]) -> list[list[str]]:
    """The lines of a log, parted where a new command's stamps begin."""
    found: list[list[str]] = []
    before = math.inf
    for line in lines:
        stamped = _STAMPED.match(line)
        now = float(stamped.group(1)) if stamped is not None else before
        if now < before or not found:
            found.append([])
        found[-1].append(line)
        before = now
    return found


@dataclass(frozen=True)
class Record:
    """What the run folder holds, as it was read; empty for a file that is not there yet or that its domain has not.

    terms: the population's, score.json. trials: by name. data: what the images or clicks were at the run's start. jobs,
    heartbeats: what they said of themselves, those that can be read. log, part_logs: lines, the latter by element of an
    array. price_per_hour: of a device, where whoever reads the record named one. judging_logs: of the trainings that
    judge the score, by job. latency_table: see RunDir.latency_table_json.
    """

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    history: dict[str, list[dict[str, Any]]]
    metrics: list[dict[str, Any]]
    indicators: dict[str, Any]
    spectrum: dict[str, list[dict[str, Any]]]
    winners: list[dict[str, Any]]
    terms: dict[str, Any]
    trials: list[dict[str, Any]]
    comparison: dict[str, Any]
    ranking: dict[str, Any]
    data: dict[str, Any]
    jobs: list[dict[str, Any]]
    heartbeats: list[dict[str, Any]]
    log: list[str]
    part_logs: dict[str, list[str]]
    price_per_hour: float | None = None
    judging_logs: dict[str, list[str]] = field(default_factory=dict)
    latency_table: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def space(self) -> ChainSpace | None:
        """Its layers count here; costs of whole networks come from the run: config.json has no number of classes.
        None where the run is not one of chains. Raises ValueError where the user's own file of it was changed."""
        if not self.config or set(self.config["space"]) != {one.name for one in fields(SpaceConfig)}:
            return None
        space = from_json(SpaceConfig, self.config["space"], "config.json: space")
        require_unchanged(space, self.data)
        return build_space(space, 1)

    @cached_property
    def scored(self) -> dict[str, list[dict[str, Any]]]:
        return {m: [row for row in rows if row["score"] is not None] for m, rows in self.history.items()}

    @cached_property
    def main_method(self) -> str:
        """The search that random search stands beside: by the history, or before that has it by the configuration."""
        asked = "nsga2" if self.config.get("evolution", {}).get("method") == "nsga2" else "evolution"
        return next((method for method in self.history if method != "random"), asked)

    @cached_property
    def winner(self) -> dict[str, Any] | None:
        """Of the summary's networks the one that was handed over, or else the best; before there is a summary, the best
        candidate so far of what is not the random control."""
        if self.summary:
            chosen = self.winners[0].get("settings", {}).get("genotype") if self.winners else None
            best = self.summary["best"]
            return dict(next((network for network in best if network["genotype"] == chosen), best[0]))
        rows = [row for method, found in self.scored.items() if method != "random" for row in found]
        return max(rows, key=lambda row: row["score"]) if rows else None

    def curve(self, stage: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of one number. A resumed run logs some steps twice; the later row holds."""
        return sorted({row["step"]: row[name] for row in self.metrics if row["stage"] == stage and name in row}.items())


def metrics_files(run: RunDir) -> list[Path]:
    """The run's own, and those of elements of arrays."""
    return [run.metrics_jsonl, *sorted(run.part_metrics_jsonl("x").parent.glob("*.jsonl"))]


def read_record(run: RunDir, price_per_hour: float | None = None) -> Record:
    """Raises ValueError where there is no run, or a file of it is not what it should be."""
    if not run.root.is_dir():
        raise ValueError(f"{run.root} is no run folder: there is no such folder; name one that launch/search.py wrote")
    history: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(run.history_jsonl):
        history.setdefault(row["method"], []).append(row)

    def json_of(path: Path) -> dict[str, Any]:
        return dict(read_json(path)) if path.is_file() else {}

    return Record(
        name=run.root.resolve().name,
        config=json_of(run.config_json),
        environment=json_of(run.environment_json),
        summary=json_of(run.summary_json),
        history=history,
        metrics=[row for path in metrics_files(run) for row in read_jsonl(path)],
        indicators=json_of(run.indicators_json),
        spectrum=json_of(run.spectrum_json),
        winners=[_winner(run.winner(name)) for name in run.winner_names()],
        terms=json_of(run.score_json),
        trials=[dict(read_json(path)) for path in sorted(run.trial_json("*").parent.glob("*.json"))],
        comparison=json_of(run.comparison_json),
        data=json_of(run.data_json),
        ranking=json_of(run.ranking_json),
        jobs=_readable(run.job_json("x").parent),
        heartbeats=_readable(run.heartbeat_json("x", 0).parent),
        log=_lines(run.log),
        part_logs=_part_logs(run),
        price_per_hour=price_per_hour,
        judging_logs={"correlate": _lines(run.correlation.log), **_part_logs(run.correlation)},
        latency_table=json_of(run.latency_table_json),
    )


def _winner(folder: WinnerDir) -> dict[str, Any]:
    """Its metrics, and as `latency` what was measured on the machine that wrote the folder."""
    latency = read_json(folder.latency_json) if folder.latency_json.is_file() else []
    return {**read_json(folder.metrics_json), "latency": latency}


def _part_logs(run: RunDir) -> dict[str, list[str]]:
    return {path.stem: _lines(path) for path in sorted(run.log.parent.glob("*.txt")) if path != run.log}


def _lines(path: Path) -> list[str]:
    """Of a log; bytes that a crash left in it are replaced."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _readable(folder: Path) -> list[dict[str, Any]]:
    """The objects in a folder's JSON files, which come and go while a job is at work; one that cannot be read is left
    out."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(ValueError, OSError):
            value = read_json(path)
            found += [value] if isinstance(value, dict) else []
    return found
