"""A raw click log to Parquet: launch/prepare.py criteo|avazu|kdd12 RAW OUT [--protocol nasrec|autoctr|bars-x4].

RAW is the published text file, plain or gzip. A stopped run goes on when it is given again; a finished one is left as
it is. The last line of standard output is the manifest's path.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from subshot.data.click_formats import Dataset
from subshot.data.click_parsing import BadLines, OnBadLine
from subshot.data.click_protocols import ProtocolName
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.launch.cli import go_on, run_command


@dataclass(frozen=True)
class PrepareArguments:
    """What to prepare, and how."""

    dataset: tyro.conf.Positional[Dataset]
    """criteo: Criteo Kaggle train.txt. avazu: Avazu Kaggle train.csv. kdd12: KDD Cup 2012 track 2 training.txt, or
    OpenML's CSV."""
    raw: tyro.conf.Positional[Path]
    """The raw log, plain or gzip."""
    out: tyro.conf.Positional[Path]
    """The folder to write."""
    protocol: ProtocolName = "nasrec"
    """The named steps; data/click_protocols.py lists them."""
    on_bad_line: OnBadLine = "error"
    """Stop at the first bad line, or leave bad lines out and count them."""
    keep_id: bool = False
    """Avazu: keep the row id as a field."""
    drop_impression: bool = False
    """KDD Cup: leave out Impression, which goes with the label by construction; NASRec keeps it."""
    user_profile: Path | None = None
    """KDD Cup: userid_profile.txt, for Gender and Age."""
    seed: int = 2018
    """Of the folds."""
    max_rows_per_table: int = 0
    """A cap on hashed tables (protocol nasrec); 0 for the published sizes."""


class Bars:
    """One progress bar a stage, where there is a terminal."""

    def __init__(self) -> None:
        self.stage = ""
        self.bar: tqdm[None] | None = None

    def __call__(self, stage: str, unit: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.close()
            self.stage = stage
            hidden = not sys.stderr.isatty()
            self.bar = tqdm(
                total=total, desc=stage, unit=unit, unit_scale=True, disable=hidden, leave=False, file=sys.stderr
            )
        assert self.bar is not None
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def prepare(arguments: PrepareArguments) -> None:
    options = PrepareOptions(
        arguments.protocol,
        arguments.on_bad_line,
        arguments.keep_id,
        arguments.drop_impression,
        arguments.user_profile,
        arguments.seed,
        arguments.max_rows_per_table,
    )
    bars = Bars()
    try:
        made = prepare_clicks(arguments.dataset, arguments.raw, arguments.out, options, bars)
    finally:
        bars.close()
    rows = ", ".join(f"{split} {count:,}" for split, count in made.rows.items())
    if made.already:
        print(f"prepared already: {rows} rows", file=sys.stderr)
    else:
        print(f"prepared by the protocol {arguments.protocol}: {rows} rows{left_out(made.bad)}", file=sys.stderr)
    print(made.manifest)


def left_out(bad: BadLines) -> str:
    """The lines that were left out, by reason, and the first of them."""
    if bad.first is None:
        return ""
    reasons = ", ".join(f"{count:,} for their {reason}" for reason, count in bad.counts.items())
    return f"; left out {bad.total:,} bad lines ({reasons}), the first at line {bad.first.line}: {bad.first.text}"


def main() -> int:
    def command() -> None:
        prepare(tyro.cli(PrepareArguments, prog="launch/prepare.py", description=__doc__))

    return run_command(command, lambda: True, go_on())


if __name__ == "__main__":
    sys.exit(main())
