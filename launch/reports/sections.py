"""The sections that the report of every run has, whatever it searches: the search, the training, the run itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from subshot.launch.reports import charts, findings, page
from subshot.launch.reports.dot_charts import Dot
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.progress_chart import progress
from subshot.launch.reports.record import Endings, Record

Sections = tuple[tuple[str, str, Callable[[Record], Html]], ...]
"""(anchor, title, what writes it), in the order of the page."""

_DATA = re.compile(r"\] (images|clicks): (?!\d+ process)(.*)")
"""The log's line on the data of a run."""


@dataclass(frozen=True)
class Results:
    """What testing gave, network by network, with intervals. digits: after the point."""

    quantity: str
    digits: int
    rows: list[Dot]


@dataclass(frozen=True)
class DomainReport:
    """What a domain brings to a page.

    trained: how many networks were trained from scratch. caution: what the first line of the page must say of the data,
    with a space before it; mostly nothing. data: what a run's data are. picture: of the winner, under a name of its
    own, or a sentence. results: empty where nothing was tested. endings: see `stage_seconds` in
    launch/reports/record.py.
    """

    sections: Sections
    trained: Callable[[Record], int]
    caution: Callable[[Record], str]
    data: Literal["images", "clicks"]
    picture: Callable[[Record, str], Html]
    results: Callable[[Record], list[Results]]
    endings: Endings


def data_line(record: Record) -> tuple[str, str] | None:
    """(`images` or `clicks`, what the log says of them), of the last command; None before the log has it."""
    found = [match for match in map(_DATA.search, record.log) if match is not None]
    return (found[-1].group(1), found[-1].group(2)) if found else None


def search_section(record: Record) -> Html:
    if not any(record.scored.values()):
        return paragraph("No candidate has been scored yet.")
    best = {method: findings.best_so_far(rows) for method, rows in record.history.items() if record.scored[method]}
    optimum = record.summary.get("optimum", {}).get("score")
    title = findings.beside_random(record) or "Best score against the number of candidates"
    caption = "Random search scores as many candidates, under the same limits. One seed each."
    picture = page.figure(progress(best, optimum), title, caption)
    return page.grid([picture, page.bullets(findings.methods(record))])


SHOWN = (
    ("train/loss", "training loss", "loss"),
    ("train/accuracy", "training accuracy", "accuracy"),
    ("gamma_movement", "how far the indicators have moved", "mean absolute change"),
    ("ranking_kendall", "agreement of the ranking with the epoch before", "Kendall's tau"),
    ("learning_rate", "learning rate", "learning rate"),
    ("images_per_second", "speed", "images a second"),
    ("rows_per_second", "speed", "rows a second"),
)
"""Name in metrics.jsonl, what it is, and its axis."""


def training_section(record: Record) -> Html:
    if not record.metrics:
        return paragraph("Nothing has been trained yet.")
    retrained = [
        stage for stage in dict.fromkeys(row["stage"] for row in record.metrics) if stage.startswith("retrain")
    ]
    figures = []
    for kind, stages in (("Warm-up", ["warmup"]), ("Retraining", retrained)):
        for name, said, unit in SHOWN:
            found = {_network(stage): record.curve(stage, name) for stage in stages}
            lines = {
                stage: ([x for x, _ in points], [y for _, y in points]) for stage, points in found.items() if points
            }
            if not lines:
                continue
            last = next(iter(lines.values()))[1][-1]
            figure = f"{last:.3g}" if last < 1000 else f"{last:,.0f}"
            title = f"{kind}: {said}" + (f", {figure} at the end" if len(lines) == 1 else "")
            picture = charts.curves(f"{kind} {name}", lines, unit, "optimiser step", winner="winner 1")
            figures.append(page.figure(picture, title))
    return page.grid(figures)


def _network(stage: str) -> str:
    """`winner 1` of the stage retrain/1."""
    return findings.network_name(stage.removeprefix("retrain/"))


def run_section(record: Record) -> Html:
    named: tuple[str, ...] = ("preset", "seed", "threads", "data")
    rows = [(name, str(record.config[name])) for name in named if name in record.config]
    data = data_line(record)
    rows += [data] if data is not None else []
    for name, value in record.environment.items():
        together = (
            ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else str(value)
        )
        if together:
            rows.append((name.replace("_", " "), together))
    parts = [page.table((), rows, numbers=False)] if rows else []
    if record.config:
        settings = page.table(("setting", "value"), flat(record.config), numbers=False)
        parts.append(page.folded("Every setting", settings))
    return join(parts) if parts else paragraph("The folder holds no configuration, no environment and no log.")


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in flat(inner, f"{name}.{key}".lstrip("."))]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    return [(name, f"{value:,.0f}" if isinstance(value, float) and value >= 1e4 else str(value))]
