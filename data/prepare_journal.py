"""The journal of a preparation: what is finished, so that an interrupted one goes on from there.

One JSON line for each finished thing. The first line holds the settings; a line that a crash tore off is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """OUT/.prepare/journal.jsonl and the paths beside it."""

    def __init__(self, out: Path) -> None:
        self.folder = out / ".prepare"
        self.path = self.folder / "journal.jsonl"
        self.folds_npy = self.folder / "folds.npy"
        self.entries: list[dict[str, Any]] = []

    def parsed_part(self, number: int) -> Path:
        return self.folder / f"parsed-{number:05d}.parquet"

    def open(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Reads what is finished, or begins. Returns the settings of the first run."""
        if self.path.is_file():
            text = self.path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            self.entries = [json.loads(line) for line in whole.splitlines()]
            if len(whole) < len(text):
                os.truncate(self.path, len(whole))
        if not self.entries:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.add("settings", settings)
        found: dict[str, Any] = self.entries[0]["settings"]
        return found

    def add(self, stage: str, record: dict[str, Any]) -> None:
        """Appends {stage: record}, on the disk when this returns."""
        entry = {stage: record}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)

    def of(self, stage: str) -> list[dict[str, Any]]:
        """The records of one stage, in order."""
        return [entry[stage] for entry in self.entries if stage in entry]

    def done(self, stage: str) -> bool:
        return bool(self.of(stage))
