"""What a command says when it ends early."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from subshot.launch import search
from subshot.launch.cli import STOPPED, USER_MISTAKE, run_command


def failing(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOENT, "put it back or correct its path, and go on"),
        (errno.ENOTDIR, "correct its path, and go on"),
        (errno.ENOSPC, "free some space, and go on"),
        (errno.EACCES, "change its permissions, and go on"),
    ],
)
def test_an_error_of_a_file_names_it_and_the_mend(number: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "some/file")
    assert run_command(lambda: failing(error), lambda: True, lambda: "go on") == USER_MISTAKE
    told = capsys.readouterr().err
    assert "some/file" in told and told.endswith(f"{said}\n") and "Errno" not in told


@pytest.mark.parametrize("begun", [False, True])
def test_resume_is_offered_where_a_run_was_begun(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped before, and after, the run folder has its configuration."""

    def stopped(*_: object) -> None:
        if begun:
            (tmp_path / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "search", stopped)
    monkeypatch.setattr("sys.argv", ["launch/search.py", "digits", f"--run-dir={tmp_path}"])
    assert search.main() == STOPPED
    told, line = capsys.readouterr().err, f"python launch/search.py digits --run-dir={tmp_path}"
    assert told == (
        f"stopped; go on with: {line} --resume\n" if begun else f"stopped; give the command again: {line}\n"
    )
