"""Write a winner's folder again: python launch/export.py WINNER_OR_RUN [--out FOLDER] [--tables int8 --data PREPARED]

From the folder's own network and weights: new programs (ONNX, torch.export), latencies of this machine, hashes. --out
leaves the old folder as it is. --tables int8 makes the embedding tables of a CTR winner a quarter as large, and states
the change of the log loss on the test rows. --file-mib cuts the weights into files, --zip puts the folder into one. The
last line of standard output is the path of what was written.
"""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from subshot.launch.cli import go_on, run_command
from subshot.launch.options import at_least
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.started import program
from subshot.launch.winners.export import quantised_handover, read_handover
from subshot.launch.winners.handover import file_names, write_winner
from subshot.launch.winners.weights import FILE_BYTES
from subshot.train.run_dir import RunDir, replacing
from subshot.train.winner_dir import WinnerDir


@dataclass(frozen=True)
class ExportArguments:
    """What to write, and how."""

    winner: tyro.conf.Positional[Path]
    """A winner's folder, or a run, all of whose winners are written again."""
    out: Path | None = None
    """The folder to write; None: in place. Of a run, in place only."""
    tables: Literal["float32", "int8"] = "float32"
    """int8: 8 bits a value and a scale and a bias a row, with --out, so that the float tables are not lost."""
    data: Path | None = None
    """The prepared log that the network was trained on, for --tables int8; None: where the run found it."""
    file_mib: int = FILE_BYTES // 2**20
    """The largest safetensors file; tables above it are cut by rows."""
    zip: bool = False
    """Also write the folder as one zip file beside it."""


def export(arguments: ExportArguments) -> list[Path]:
    """Returns what was written."""
    root, out = arguments.winner, arguments.out
    at_least("--", arguments, file_mib=1)
    names = RunDir(root).winner_names()
    if names:
        if out is not None or arguments.tables != "float32":
            raise ValueError(
                f"{root} is a run; --out and --tables are for one winner, such as {root}/winners/{names[0]}"
            )
        return [written for name in names for written in export_one(RunDir(root).winner(name), None, arguments)]
    if arguments.tables == "int8" and out is None:
        raise ValueError("--tables int8 needs --out FOLDER, so that the float32 tables stay where they are")
    if out is not None and out.exists() and not WinnerDir(out).checksums.is_file():
        raise ValueError(f"--out {out} exists and is no winner's folder; give a new one")
    return export_one(WinnerDir(root), out, arguments)


def export_one(folder: WinnerDir, out: Path | None, arguments: ExportArguments) -> list[Path]:
    given = read_handover(folder)
    if arguments.tables == "int8":
        data = arguments.data or given.provenance["config"].get("data")
        if data is None:
            raise ValueError("--tables int8 measures the log loss: add --data FOLDER, the prepared log of the run")
        given = quantised_handover(given, Path(data))
    target = WinnerDir(out or folder.root)
    write_winner(target, given, arguments.file_mib * 2**20)
    if "int8" in given.metrics:
        found = given.metrics["int8"]
        print(
            f"log loss on {found['test_rows']:.0f} test rows: float32 {found['float32_log_loss']:.6f}, int8 "
            f"{found['int8_change']:+.6f}, torchrec's int8 {found['torchrec_int8_change']:+.6f}; tables "
            f"{found['float32_table_mib']:.1f} MiB, now {found['int8_table_mib']:.1f} MiB"
        )
    written = [target.root]
    if arguments.zip:
        path = target.root.with_name(f"{target.root.name}.zip")
        with replacing(path) as temporary:
            with zipfile.ZipFile(temporary, "w") as archive:
                for name in file_names(target.root):
                    archive.write(target.root / name, f"{target.root.name}/{name}")
        written.append(path)
    return written


@reader_may_leave
def main() -> int:
    def command() -> None:
        arguments = parsed(ExportArguments, sys.argv[1:], program("export"), __doc__)
        for path in export(arguments):
            print(path)

    return run_command(command, lambda: True, go_on)


if __name__ == "__main__":
    sys.exit(main())
