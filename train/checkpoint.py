"""Checkpoints of training: whole or not there, checked when they are read, the one before kept.

A checkpoint is <folder>/<name>-<step>-<first 16 digits of its sha256>.pt. It appears by rename after its bytes are on
the disk, and only then is all but the one before it deleted; so there is one that loads at every instant. A damaged one
is named and the older one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from subshot.train.dist import World, of_main
from subshot.train.run_dir import file_digest, naming, put_in_place, temporary_beside

KEPT = 2
DIGITS = 16


def checkpoint_paths(folder: Path, name: str) -> list[Path]:
    """The checkpoints of a name, the latest first."""
    found = [path for path in folder.glob(f"{name}-*.pt") if _step(path, name) is not None]
    return sorted(found, key=lambda path: _step(path, name) or 0, reverse=True)


def save_checkpoint(folder: Path, name: str, step: int, state: Mapping[str, Any]) -> None:
    """Writes the state after `step` steps. One process alone writes the checkpoints of a name."""
    temporary = temporary_beside(folder / f"{name}-{step}")
    try:
        with naming(folder / f"{name}-{step}.pt"):
            folder.mkdir(parents=True, exist_ok=True)
            for abandoned in folder.glob(f".{name}-[0-9]*.tmp"):
                abandoned.unlink(missing_ok=True)
            with temporary.open("wb") as file:
                torch.save(dict(state), file)
            path = folder / f"{name}-{step:09d}-{file_digest(temporary)[:DIGITS]}.pt"
            put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    others = [other for other in checkpoint_paths(folder, name) if other != path]
    earlier = [other for other in others if (_step(other, name) or 0) < step]
    for old in others:  # those of a later step were damaged, or are of something else
        if old not in earlier[: KEPT - 1]:
            old.unlink(missing_ok=True)


def load_checkpoint(
    folder: Path, name: str, world: World, complain: Callable[[str], None], device: torch.device | None = None
) -> dict[str, Any] | None:
    """The latest state that is whole; None where there is none. The same on all ranks, each of which calls this.

    complain: is told, in a sentence, of each damaged checkpoint that was passed over. device: where tensors are put; by
    default the world's.
    """
    chosen = of_main(_latest_whole(folder, name, complain) if world.is_main else None, world)
    if chosen is None:
        return None
    state: dict[str, Any] = torch.load(chosen, map_location=device or world.device, weights_only=True)
    return state


def read_weights(path: Path, device: torch.device | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError where it is damaged."""
    try:
        return load_file(path, device=str(device or "cpu"))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete it and resume: what made it goes on from its last checkpoint"
        ) from error


def remove_checkpoints(folder: Path, name: str) -> None:
    """Deletes all of a name, when what they led to is finished."""
    for path in checkpoint_paths(folder, name):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty, or not there: others' checkpoints may lie beside
        folder.rmdir()


def _latest_whole(folder: Path, name: str, complain: Callable[[str], None]) -> Path | None:
    for path in checkpoint_paths(folder, name):
        if file_digest(path)[:DIGITS] == path.stem.rsplit("-", 1)[1]:
            return path
        complain(f"{path} is damaged (its sha256 is not the one in its name); it is passed over")
    return None


def _step(path: Path, name: str) -> int | None:
    """The step in a checkpoint's file name; None where it is not of this name."""
    parts = path.stem.removeprefix(f"{name}-").split("-")
    return int(parts[0]) if len(parts) == 2 and parts[0].isdigit() and len(parts[1]) == DIGITS else None
