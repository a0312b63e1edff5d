"""Where a winner comes from: provenance.json, from the run's own files."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from subshot.train.job_record import read_job
from subshot.train.run_dir import RunDir, file_digest, read_json

RANDOMNESS = (
    "weights, order, augmentation and proposals are functions of the seed and a position (docs/design.md); with one "
    "thread a process the CPU gives the same bits again"
)


def provenance_of(run: RunDir) -> dict[str, Any]:
    """config: as the search was begun. commands: as they were given, the search's first."""
    config = read_json(run.config_json)
    jobs = [read_job(run, name) for name in ("search", "retrain")]
    return {
        "subshot": version("subshot"),
        "git_commit": git_commit(),
        "run": run.root.resolve().name,
        "config_sha256": config_digest(config),
        "config": config,
        "history_sha256": file_digest(run.history_jsonl),
        "data": read_json(run.data_json) if run.data_json.is_file() else {},
        "environment": read_json(run.environment_json),
        "commands": [shlex.join(job.command) for job in jobs if job is not None],
        "randomness": RANDOMNESS,
    }


def config_digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def git_commit() -> str | None:
    """Of the checkout that this file lies in, with -dirty where it was changed; None where it lies in none, or there is
    no git."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
