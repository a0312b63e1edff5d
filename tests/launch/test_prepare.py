"""The command: its last line, its exit statuses, and what it says."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def line(number: int) -> str:
    return "\t".join([str(number % 3 % 2), *["5"] * 13, *[f"{number % 7:08x}"] * 26]) + "\n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "train.txt"
    path.write_text("".join(line(number) for number in range(120)))
    return path


def test_prepares_and_prints_the_manifest_s_path(raw: Path, tmp_path: Path, launched: Callable[..., Any]) -> None:
    with raw.open("a") as file:
        file.write("0\t1\n")
    out = tmp_path / "out"
    stopped = launched("prepare", "criteo", raw, out)
    assert stopped.returncode == 2
    assert stopped.stderr.startswith(f"error: {raw}, line 121: it has 2 columns; Criteo Kaggle train.txt has 40 (mend ")
    assert len(stopped.stderr.splitlines()) == 1 and not (out / "manifest.json").exists()
    done = launched("prepare", "criteo", raw, tmp_path / "new", "--on-bad-line", "skip", "--protocol", "autoctr")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == str(tmp_path / "new" / "manifest.json")
    assert "left out 1 bad lines (1 for their columns), the first at line 121: it has 2 columns" in done.stderr
    assert json.loads((tmp_path / "new" / "manifest.json").read_text())["protocol"] == "autoctr"


def test_a_stopped_command_leaves_no_manifest_and_says_how_to_go_on(
    tmp_path: Path, launched: Callable[..., Any], started: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    raw, out = tmp_path / "train.txt", tmp_path / "out"
    raw.write_text("".join(line(number) for number in range(150_000)))
    [process] = started("prepare", "criteo", raw, out)
    wait_for((out / ".prepare" / "journal.jsonl").exists, [process])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "go on with: " in errors and "Traceback" not in errors
    assert not (out / "manifest.json").exists()
    done = launched("prepare", "criteo", raw, out)
    assert done.returncode == 0
    splits = json.loads((out / "manifest.json").read_text())["splits"]
    assert sum(split["rows"] for split in splits.values()) == 150_000
