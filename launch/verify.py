"""Check a winner's folder: python launch/verify.py WINNER

Compares every file with its sha256, every field with what it must be, the costs with those counted again from the
network, what preprocessing makes of raw inputs with what training's made of them, and the outputs of torch and
onnxruntime with the golden ones. It needs no GPU, no DALI, no torchrec, and runs no code from the folder. The last line
of standard output is the folder's digest, one sha256 for all of it.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from subshot.launch.cli import go_on, run_command
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.started import program
from subshot.launch.winners.check import check_winner
from subshot.launch.winners.handover import winner_digest
from subshot.train.winner_dir import WinnerDir


@dataclass(frozen=True)
class VerifyArguments:
    """Which folder to check."""

    winner: tyro.conf.Positional[Path]
    """A winner's folder, such as runs/digits/winners/1."""


SPARE_BYTES = 4 * 2**30
TIMES_FOLDER = 12


def limit_memory(folder: Path) -> None:
    """What is checked may ask for any amount of memory: beyond what this process has, a few GiB and some times the
    folder's size, it gets none, and is refused."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").is_file() else 0
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0
    wanted = pages * resource.getpagesize() + SPARE_BYTES + TIMES_FOLDER * size
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if pages and (hard == resource.RLIM_INFINITY or wanted < hard):
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


@reader_may_leave
def main() -> int:
    def command() -> None:
        arguments = parsed(VerifyArguments, sys.argv[1:], program("verify"), __doc__)
        limit_memory(arguments.winner)
        for passed in check_winner(arguments.winner):
            print(f"ok    {passed}")
        print(winner_digest(WinnerDir(arguments.winner)))

    return run_command(command, lambda: True, go_on)


if __name__ == "__main__":
    sys.exit(main())
