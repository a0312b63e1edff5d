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
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "config": config,
        "history_sha256": file_digest(run.history_jsonl),
        "data": read_json(run.data_json) if run.data_json.is_file() else {},
        "environment": read_json(run.environment_json),
        "commands": [shlex.join(job.command) for job in jobs if job is not None],
        "randomness": RANDOMNESS,
    }


def git_commit() -> str | None:
    """Of the checkout that this file lies in; None where it is none, or there is no git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
