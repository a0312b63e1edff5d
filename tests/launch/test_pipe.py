"""Output into a pipe that nobody reads to its end."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from subshot.launch.main import VERBS

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_command_is_one_whose_reader_may_leave() -> None:
    """But for doctor, which may load nothing of the program and has the same lines at its end."""
    for module, *_ in VERBS.values():
        main = import_module(f"subshot.launch.{module}").main
        assert hasattr(main, "__wrapped__") == (module != "doctor"), module


@pytest.mark.parametrize(
    "words",
    [
        ["search.py", "digits", "--help"],
        ["main.py"],
        ["status.py", "--help"],
        ["retrain.py", "--help"],
        ["doctor.py"],
        ["export.py", "--help"],
    ],
    ids=lambda words: words[0],
)
def test_a_reader_that_leaves_ends_a_command_without_a_traceback(words: list[str], tmp_path: Path) -> None:
    line = [sys.executable, str(REPOSITORY / "launch" / words[0]), *words[1:]]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before the command has loaded
    said = process.stderr.read()
    assert process.wait(timeout=120) == 0 and "Traceback" not in said and "BrokenPipe" not in said, said


def test_a_command_that_works_says_that_it_stopped(tmp_path: Path) -> None:
    program = (
        "import sys; from subshot.launch.cli import run_command; from subshot.launch.pipe import reader_may_leave;"
        "work = lambda: [print('line', flush=True) for _ in range(100000)];"
        "sys.exit(reader_may_leave(lambda: run_command(work, lambda: True, lambda: 'go on'))())"
    )
    line = [sys.executable, "-c", program]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    said = process.stderr.read()
    process.wait(timeout=120)
    assert said == "stopped: nobody reads the output any more; go on\n"
