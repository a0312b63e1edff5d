"""The report of a run: python launch/report.py RUN writes RUN/report.html from the run's files, finished or not; of
several runs, launch/report.py RUN RUN ..., it writes one page that sets them side by side.

One self-contained page that says nothing which it did not read from the run folders. What is not there yet leaves a
sentence in its place. A section is a function of the record. Which sections a page has follows from the type of the
run's configuration, here and nowhere else; their order is SECTIONS in report.py of launch/vision/, launch/clicks/
and launch/training_free/.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tyro

from subshot.launch.cli import go_on, run_command
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.config import TrainingFreeConfig, VisionConfig
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.reports import findings, page
from subshot.launch.reports.compare import Run, sections_of
from subshot.launch.reports.record import read_record
from subshot.launch.reports.sections import DomainReport
from subshot.launch.started import program
from subshot.train.run_dir import RunDir, replacing


def _vision() -> DomainReport:
    from subshot.launch.vision.report import REPORT

    return REPORT


def _clicks() -> DomainReport:
    from subshot.launch.clicks.report import REPORT

    return REPORT


def _training_free() -> DomainReport:
    from subshot.launch.training_free.report import REPORT

    return REPORT


REPORTS: dict[type, Callable[[], DomainReport]] = {
    VisionConfig: _vision,
    ClickConfig: _clicks,
    TrainingFreeConfig: _training_free,
}
"""Imported when they are written: the report of a vision run loads no torchrec."""


def report_for(config: dict[str, Any]) -> DomainReport:
    """That of the configuration whose fields differ least from those of config.json, whichever version wrote it;
    vision's where there is no config.json."""

    def differing(kind: type) -> int:
        return len(config.keys() ^ {field.name for field in dataclasses.fields(kind)}) if config else 0

    return REPORTS[min(REPORTS, key=differing)]()


def write_report(run: RunDir, price_per_hour: float | None = None, out: Path | None = None) -> Path:
    """Writes the report of a run as it stands, in one piece, to `out` or into its folder; returns its path. The same
    files give the same bytes.

    Raises ValueError where there is no such folder, or a file in it cannot be read as what it should be.
    """
    record = read_record(run, price_per_hour)
    report = report_for(record.config)
    sections = [(anchor, title, write(record)) for anchor, title, write in report.sections]
    candidates = findings.counted(sum(map(len, record.history.values())), "candidate")
    count = report.trained(record)
    retrained = findings.counted(count, "network") if count else "no network"
    state = "The search is over" if record.summary else "The search is not over"
    lead = f"{state}: {candidates} scored, {retrained} retrained.{report.caution(record)}"
    space = record.config.get("space", {}).get("name", "an unknown space")
    eyebrow = " · ".join(["subshot report", *([record.config["preset"]] if record.config else []), record.name])
    return _write(out or run.report_html, f"Architecture search in {space}", eyebrow, lead, sections)


def write_comparison(runs: Sequence[RunDir], price_per_hour: float | None = None, out: Path | None = None) -> Path:
    """Writes one page on several runs, to `out` or beside them; returns its path.

    Raises ValueError for a folder that is no run or is named twice, and as `write_report` does.
    """
    roots = [run.root.resolve() for run in runs]
    for run, root in zip(runs, roots, strict=True):
        require_run(run)
        if roots.count(root) > 1:
            raise ValueError(f"{run.root} is named twice; name each run once")
    names = names_of(roots)
    read = [read_record(run, price_per_hour) for run in runs]
    page_path = out or beside(roots, names)
    links = [link_from(page_path, run) for run in runs]
    found = [
        Run(name, record, report_for(record.config), link)
        for name, record, link in zip(names, read, links, strict=True)
    ]
    over = sum(bool(run.record.summary) for run in found)
    lead = f"{len(found)} runs, the search of {over} of them over."
    title = f"{len(found)} runs side by side"
    eyebrow = " · ".join(["subshot report", *names])
    return _write(page_path, title, eyebrow, lead, sections_of(found))


def link_from(page_path: Path, run: RunDir) -> str | None:
    """The relative address of a run's own report; None where there is none."""
    if not run.report_html.is_file():
        return None
    return quote(Path(os.path.relpath(run.report_html.resolve(), page_path.resolve().parent)).as_posix())


def require_run(run: RunDir) -> None:
    """Raises ValueError where a folder has no settings of a run, which are the first that a run writes."""
    if run.root.is_dir() and not run.config_json.is_file():
        why = f"it has no {run.config_json.name}"
        raise ValueError(f"{run.root} is no run folder ({why}); name one that launch/search.py wrote")


def names_of(roots: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of their paths as tells them apart."""
    for parts in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["/".join(root.parts[-parts:]) for root in roots]
        if len(set(names)) == len(names):
            break
    return names


def beside(roots: Sequence[Path], names: Sequence[str]) -> Path:
    """`report-a-b.html` in the folder that all runs are in; of many runs their number instead of their names."""
    joined = "-".join(name.replace("/", "-") for name in names)
    stem = joined if len(joined) <= 100 else f"{len(names)}-runs"
    return Path(os.path.commonpath([root.parent for root in roots])) / f"report-{stem}.html"


def _write(out: Path, title: str, eyebrow: str, lead: str, sections: Sequence[tuple[str, str, page.Html]]) -> Path:
    with replacing(out) as temporary:
        temporary.write_text(page.page(title, eyebrow, lead, sections), encoding="utf-8")
    return out


@dataclass(frozen=True)
class ReportArguments:
    """Which runs to report on: one has a page of its own, several have one page together."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, finished or not."""
    out: Path | None = None
    """Where the page goes; None: RUN/report.html, and of several runs report-<names>.html in the folder that all are
    in."""
    price_per_hour: float | None = None
    """What an hour of one device (a GPU, or a CPU process) costs, in any currency; without it no money is stated."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name a run folder, as in: launch/report.py runs/digits")
        if self.price_per_hour is not None and not 0.0 <= self.price_per_hour < math.inf:
            raise ValueError(f"--price-per-hour is {self.price_per_hour}; it must be 0 or more")
        if self.out is not None and self.out.is_dir():
            raise ValueError(f"--out {self.out} is a folder; name the file to write, as in {self.out / 'report.html'}")


@reader_may_leave
def main() -> int:
    def command() -> None:
        arguments = parsed(ReportArguments, sys.argv[1:], program("report"), __doc__)
        runs = [RunDir(root) for root in arguments.runs]
        if len(runs) == 1:
            require_run(runs[0])
            print(write_report(runs[0], arguments.price_per_hour, arguments.out))
        else:
            print(write_comparison(runs, arguments.price_per_hour, arguments.out))

    return run_command(command, lambda: True, go_on)


if __name__ == "__main__":
    sys.exit(main())
