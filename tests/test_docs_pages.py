"""The how-to pages do what they say: their commands are run as they stand, in a folder that has only launch/ in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from subshot.train.run_dir import RunDir, read_json

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"own_images": "runs/shapes", "own_clicks": "runs/mine", "own_space": "runs/own"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short(name: str) -> None:
    assert len((ROOT / "docs" / f"{name}.md").read_text().splitlines()) <= 40


@pytest.mark.parametrize(("name", "run"), PAGES.items())
def test_a_page_leads_to_a_retrained_winner_and_its_report(name: str, run: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = RunDir(tmp_path / run)
    assert done.stdout.splitlines()[-1] == f"{run}/report.html" and folder.report_html.is_file()
    assert folder.winner("1").weights().is_file() and read_json(folder.winner("1").metrics_json)
