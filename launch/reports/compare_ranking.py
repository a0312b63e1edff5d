"""Does the score rank? Of several runs beside one another: a row for each run of which it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subshot.launch.correlation.ranking import DROVE, SCHEMA_VERSION
from subshot.launch.reports import page
from subshot.launch.reports.honesty import signed
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import Record

HEADS = ("run", "networks", "tau of the score", "95 %", "tau of parameters", "tau of MACs", "to retrain")


def ranking_section(records: Mapping[str, Record]) -> Html:
    """records: by the name of the run on the page."""
    measured = {name: r.ranking for name, r in records.items() if r.ranking.get("schema_version") == SCHEMA_VERSION}
    other = [name for name, record in records.items() if record.ranking and name not in measured]
    missing = [name for name, record in records.items() if not record.ranking]
    parts = []
    if measured:
        words = "Kendall's tau with networks trained from scratch. To retrain: so many of the best by score, of the "
        words += "sample, that the best of them is among these with 90 % confidence."
        parts = [page.table(HEADS, [_row(name, found) for name, found in measured.items()]), paragraph(words, "muted")]
    if missing:
        parts.append(paragraph(f"Not measured, which launch/correlate.py RUN does: {_names(missing)}."))
    if other:
        parts.append(paragraph(f"ranking.json is of another version of subshot: {_names(other)}."))
    return join(parts)


def _row(name: str, ranking: Mapping[str, Any]) -> tuple[object, ...]:
    taus = {key: row["kendall"] for key, row in ranking["scores"].items()}
    mine, found = taus[DROVE], ranking["confidence"]
    span = "–" if mine is None else f"{signed(mine['low'])} to {signed(mine['high'])}"
    counts = [_tau(taus.get(key)) for key in ("params", "macs")]
    retrain = "–" if found["retrain"] is None else f"{found['retrain']} of {found['of']}"
    return (name, ranking["networks"], _tau(mine), span, *counts, retrain)


def _tau(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else signed(found["value"])


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
