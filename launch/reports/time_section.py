"""Where the hours of a run went, by its logs: wall time and device hours by stage, candidates a second, money."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from subshot.launch.reports import findings, page
from subshot.launch.reports.bar_chart import bar_chart
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import ENDINGS, Endings, Record, commands_of, stage_seconds

_PROCESSES = re.compile(r"\] \S+: (\d+) process\(es\)")
_RATE = re.compile(r"\] (\w+): best score .*; ([\d.e+]+) candidates scored a second")

JUDGING: Endings = ((r"", "trainings that judge the score"),)
"""Whatever a line of launch/correlate.py's logs says, it belongs to one stage."""


@dataclass(frozen=True)
class Stretch:
    """A stage of all commands of a run. seconds: on the clock. device_seconds: times the processes at work."""

    stage: str
    seconds: float
    device_seconds: float


def stretches(record: Record, endings: Endings = ENDINGS) -> list[Stretch]:
    """By the run's log, those of its arrays' elements and those of launch/correlate.py, in order of appearance."""
    found: dict[str, Stretch] = {}
    logs = [(job, lines, endings) for job, lines in (("", record.log), *record.part_logs.items())]
    logs += [(job, lines, JUDGING) for job, lines in record.judging_logs.items()]
    for job, lines, known_endings in logs:
        for command in commands_of(lines):
            processes = processes_of(record, job, command)
            for stage, seconds in stage_seconds(command, known_endings).items():
                known = found.get(stage, Stretch(stage, 0.0, 0.0))
                found[stage] = Stretch(stage, known.seconds + seconds, known.device_seconds + processes * seconds)
    return list(found.values())


def processes_of(record: Record, job: str, command: Sequence[str]) -> int:
    """How many processes a command had: as its log says, or its job's last start, or the run's environment."""
    said = next((match for match in map(_PROCESSES.search, command[:3]) if match is not None), None)
    if said is not None:
        return int(said.group(1))
    jobs = {row.get("job"): row for row in record.jobs}
    own = jobs.get(job or "retrain", {}).get("processes")
    return int(own or record.environment.get("processes") or 1)


def rates(record: Record) -> dict[str, float]:
    """Candidates a second of each search, as its last command measured it."""
    found = (match for match in map(_RATE.search, record.log) if match is not None)
    return {match.group(1): float(match.group(2)) for match in found}


def duration(seconds: float) -> str:
    """`41 s`, `12.5 min`, `3.2 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def time_section(record: Record, endings: Endings = ENDINGS) -> Html:
    """endings: see `stage_seconds`."""
    found = stretches(record, endings)
    total = sum(stretch.seconds for stretch in found)
    if not total:
        return join([paragraph("The log does not tell yet where time went."), *_at_work(record)])
    devices = sum(stretch.device_seconds for stretch in found)
    price = record.price_per_hour
    facts = [
        (duration(total), "by the logs, all commands together"),
        (f"{small_text(devices / 3600)} h", "device hours"),
    ]
    facts += [(rate_text(rate), f"candidates a second, {name}") for name, rate in spoken_rates(record)]
    if price is not None:
        facts.append((small_text(price * devices / 3600), f"money, at {price:g} for an hour of a device"))
    longest = max(found, key=lambda stretch: stretch.device_seconds)
    picture = bar_chart("time", [stretch.stage for stretch in found], [stretch.device_seconds for stretch in found])
    title = f"{100 * longest.device_seconds / devices:.0f} % of the device hours went into: {longest.stage}"
    words = f"Device hours: time on the clock times processes; a process has {_a_device(record)}. " + (
        "Not counted: the start of each program, and what a kill without notice lost after the log's last line."
    )
    parts = [page.tiles(facts), page.grid([page.figure(picture, title, words), _table(found, price)])]
    if price is None:
        parts.append(paragraph("No price was given, so no money is stated; --price-per-hour X does that.", "muted"))
    return join([*parts, *_at_work(record)])


def small_text(value: float) -> str:
    """Hours or money, of which a thousandth is nothing."""
    return f"{value:.3g}" if value >= 0.001 else "< 0.001"


def spoken_rates(record: Record) -> list[tuple[str, float]]:
    return [(findings.spoken_method(method), rate) for method, rate in rates(record).items()]


def rate_text(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _a_device(record: Record) -> str:
    device = str(record.environment.get("device", ""))
    if device.startswith("cuda"):
        return f"one GPU ({record.environment.get('device_name') or 'of unknown name'})"
    threads = record.environment.get("threads_per_process", record.config.get("threads", 1))
    return f"{findings.counted(int(threads), 'thread')} of the CPU here"


def _table(found: Sequence[Stretch], price: float | None) -> Html:
    devices = sum(stretch.device_seconds for stretch in found)
    heads = ["stage", "on the clock", "device hours", "share"] + (["money"] if price is not None else [])
    rows = []
    for stretch in found:
        hours = stretch.device_seconds / 3600
        cells = [stretch.stage, duration(stretch.seconds), small_text(hours), f"{100 * hours * 3600 / devices:.0f} %"]
        rows.append([*cells, *([small_text(price * hours)] if price is not None else [])])
    return page.table(heads, rows)


def _at_work(record: Record) -> list[Html]:
    """Jobs that have not finished, and how far they were when they last spoke."""
    said = []
    for job in record.jobs:
        if job.get("state") == "finished":
            continue
        beats = [beat for beat in record.heartbeats if beat.get("job") == job.get("job")]
        last = max(beats, key=lambda beat: beat.get("beat_unix", 0.0), default=None)
        where = ""
        if last is not None:
            of = f" of {last['total']}" if last.get("total") else ""
            where = f"; last heard of at {last['stage']} {last['done']}{of}"
        again = f", begun {job['restarts'] + 1} times" if job.get("restarts") else ""
        said.append(f"The job {job.get('job')}: {job.get('state')}{again}{where}.")
    return [page.bullets(said)] if said else []
