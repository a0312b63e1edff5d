"""Check a winner's folder: python launch/verify.py WINNER

Compares every file with its sha256, every field with what it must be, the costs with those counted again from the
network, and the outputs of torch and onnxruntime with the golden ones. It needs no GPU, no DALI, no torchrec, and runs
no code from the folder. The last line of standard output is the folder's digest, one sha256 for all of it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from subshot.launch.cli import go_on, run_command
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.started import program
from subshot.launch.winner import winner_digest
from subshot.launch.winner_check import check_winner
from subshot.train.winner_dir import WinnerDir


@dataclass(frozen=True)
class VerifyArguments:
    """Which folder to check."""

    winner: tyro.conf.Positional[Path]
    """A winner's folder, such as runs/digits/winners/1."""


@reader_may_leave
def main() -> int:
    def command() -> None:
        arguments = parsed(VerifyArguments, sys.argv[1:], program("verify"), __doc__)
        for passed in check_winner(arguments.winner):
            print(f"ok    {passed}")
        print(winner_digest(WinnerDir(arguments.winner)))

    return run_command(command, lambda: True, go_on)


if __name__ == "__main__":
    sys.exit(main())
