"""A raw click log to Parquet: launch/prepare.py criteo|avazu|kdd12 RAW OUT [--protocol nasrec|autoctr|bars-x4],
or of one's own: launch/prepare.py csv RAW OUT --schema FILE [--guess].

RAW is the published text file, or one with a header and a column for the label, plain or gzip. A stopped run goes on
when it is given again; a finished one is left as it is. The last line of standard output is the path of the manifest
(with --guess, of the schema). docs/own_clicks.md goes through it for one's own log.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import tyro
from tqdm import tqdm

from subshot.data.click_formats import Dataset
from subshot.data.click_guess import guess_schema
from subshot.data.click_parsing import BadLines, OnBadLine
from subshot.data.click_protocols import ProtocolName
from subshot.data.click_schema import read_schema
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.launch.cli import go_on, nearest, run_command
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.started import program
from subshot.train.run_dir import replacing


@dataclass(frozen=True)
class PrepareArguments:
    """What to prepare, and how."""

    dataset: tyro.conf.Positional[Dataset]
    """criteo: Criteo Kaggle train.txt. avazu: Avazu Kaggle train.csv. kdd12: KDD Cup 2012 track 2 training.txt, or
    OpenML's CSV. csv: one's own, with a header and a --schema."""
    raw: tyro.conf.Positional[Path]
    """The raw log, plain or gzip."""
    out: tyro.conf.Positional[Path]
    """The folder to write."""
    schema: Path | None = None
    """csv: the JSON file that says what every column is; see data/click_schema.py and docs/own_clicks.md."""
    guess: bool = False
    """csv: only write --schema FILE, guessed from the log's first rows, to look at and correct."""
    protocol: ProtocolName | None = None
    """The named steps of a published log, listed in data/click_protocols.py; None: nasrec."""
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


def guess(arguments: PrepareArguments) -> None:
    """Writes the schema. Raises ValueError where there is one already."""
    path = arguments.schema
    if arguments.dataset != "csv" or path is None:
        raise ValueError("--guess is for csv, and needs the file to write: csv RAW OUT --schema FILE --guess")
    if path.exists():
        raise ValueError(f"{path} is there already; look at it, or delete it to have it guessed anew")
    require_raw(arguments.raw)
    schema = guess_schema(arguments.raw).record()
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in schema.items()]
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print("a guess: look at it, correct it, then give the command without --guess", file=sys.stderr)
    print(path)


def require_raw(raw: Path) -> None:
    """Raises ValueError where there is no such file."""
    if not raw.exists() or raw.is_dir():
        what = "is a folder" if raw.is_dir() else "does not exist"
        raise ValueError(f"the raw log {raw} {what}; give the path of the text file, plain or gzip")


def prepare(arguments: PrepareArguments) -> None:
    if arguments.guess:
        guess(arguments)
        return
    if arguments.dataset == "csv" and arguments.protocol is not None:
        raise ValueError("--protocol is for the published logs; the steps of a csv are those of its --schema")
    options = PrepareOptions(
        arguments.protocol or "nasrec",
        arguments.on_bad_line,
        arguments.keep_id,
        arguments.drop_impression,
        arguments.user_profile,
        arguments.seed,
        arguments.max_rows_per_table,
        read_schema(arguments.schema) if arguments.schema is not None else None,
    )
    require_raw(arguments.raw)
    bars = Bars()
    try:
        made = prepare_clicks(arguments.dataset, arguments.raw, arguments.out, options, bars)
    finally:
        bars.close()
    rows = ", ".join(f"{split} {count:,}" for split, count in made.rows.items())
    if made.already:
        print(f"prepared already: {rows} rows", file=sys.stderr)
    else:
        steps = "its schema" if arguments.dataset == "csv" else f"the protocol {options.protocol}"
        print(f"prepared by {steps}: {rows} rows{left_out(made.bad)}", file=sys.stderr)
    print(made.manifest)


def left_out(bad: BadLines) -> str:
    """The lines that were left out, by reason, and the first of them."""
    if bad.first is None:
        return ""
    reasons = ", ".join(f"{count:,} for their {reason}" for reason, count in bad.counts.items())
    return f"; left out {bad.total:,} bad lines ({reasons}), the first at line {bad.first.line}: {bad.first.text}"


@reader_may_leave
def main() -> int:
    def command() -> None:
        first = next(iter(sys.argv[1:]), "-")
        if not first.startswith("-") and first not in get_args(Dataset):
            raise ValueError(f"there is no data set {first!r}; {nearest(first, get_args(Dataset))}")
        prepare(parsed(PrepareArguments, sys.argv[1:], program("prepare"), __doc__))

    return run_command(command, lambda: True, go_on)


if __name__ == "__main__":
    sys.exit(main())
