"""The report of a run: python launch/report.py RUN writes RUN/report.html from the run's files, finished or not.

One self-contained page that says nothing which it did not read from the run folder. What is not there yet leaves a
sentence in its place. A section is a function of the record. Which sections a page has follows from the type of the
run's configuration, here and nowhere else; their order is SECTIONS in launch/vision_report.py, click_report.py
and training_free_report.py.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from subshot.launch import findings, page
from subshot.launch.cli import run_command
from subshot.launch.click_config import ClickConfig
from subshot.launch.config import TrainingFreeConfig, VisionConfig
from subshot.launch.record import read_record
from subshot.launch.report_sections import DomainReport
from subshot.train.run_dir import RunDir, replacing


def _vision() -> DomainReport:
    from subshot.launch.vision_report import REPORT

    return REPORT


def _clicks() -> DomainReport:
    from subshot.launch.click_report import REPORT

    return REPORT


def _training_free() -> DomainReport:
    from subshot.launch.training_free_report import REPORT

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


def write_report(run: RunDir) -> Path:
    """Writes the report of a run as it stands, in one piece; returns its path. The same files give the same bytes.

    Raises ValueError where there is no such folder, or a file in it cannot be read as what it should be.
    """
    record = read_record(run)
    report = report_for(record.config)
    sections = [(anchor, title, write(record)) for anchor, title, write in report.sections]
    candidates = findings.counted(sum(map(len, record.history.values())), "candidate")
    count = report.trained(record)
    retrained = findings.counted(count, "network") if count else "no network"
    state = "The search is over" if record.summary else "The search is not over"
    lead = f"{state}: {candidates} scored, {retrained} retrained.{report.caution(record)}"
    space = record.config.get("space", {}).get("name", "an unknown space")
    eyebrow = " · ".join(["subshot report", *([record.config["preset"]] if record.config else []), record.name])
    with replacing(run.report_html) as temporary:
        temporary.write_text(page.page(f"Architecture search in {space}", eyebrow, lead, sections), encoding="utf-8")
    return run.report_html


@dataclass(frozen=True)
class ReportArguments:
    """Which run to report on."""

    run: tyro.conf.Positional[Path]
    """The run folder, finished or not."""


def main() -> int:
    arguments = tyro.cli(ReportArguments, prog="launch/report.py", description=__doc__)

    def command() -> None:
        print(write_report(RunDir(arguments.run)))

    return run_command(command, lambda: True, f"write it again with: launch/report.py {arguments.run}")


if __name__ == "__main__":
    sys.exit(main())
