"""Checkpoints: one that loads at every instant, whatever was being written."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from subshot.train.checkpoint import (
    checkpoint_paths,
    load_checkpoint,
    read_weights,
    remove_checkpoints,
    save_checkpoint,
)
from subshot.train.dist import World


def state_of(step: int, numbers: int = 1000) -> dict[str, object]:
    return {"step": step, "weights": torch.full((numbers,), float(step))}


def load(folder: Path, world: World) -> tuple[int, list[str]]:
    said: list[str] = []
    state = load_checkpoint(folder, "warmup", world, said.append)
    return (-1 if state is None else state["step"]), said


def test_the_latest_is_loaded_and_the_one_before_is_kept(tmp_path: Path, one_process: World) -> None:
    assert load(tmp_path, one_process) == (-1, [])
    for step in (5, 40, 1000):
        save_checkpoint(tmp_path, "warmup", step, state_of(step))
        assert load(tmp_path, one_process) == (step, [])
    assert [path.name.split("-")[1] for path in checkpoint_paths(tmp_path, "warmup")] == ["000001000", "000000040"]
    state = load_checkpoint(tmp_path, "warmup", one_process, print)
    assert state is not None and torch.equal(state["weights"], torch.full((1000,), 1000.0))


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_one_is_named_and_the_older_one_is_taken(tmp_path: Path, one_process: World, damage: str) -> None:
    for step in (5, 40):
        save_checkpoint(tmp_path, "warmup", step, state_of(step))
    latest = checkpoint_paths(tmp_path, "warmup")[0]
    content = bytearray(latest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    latest.write_bytes(content if damage == "flipped" else content[: 0 if damage == "emptied" else -9])
    step, said = load(tmp_path, one_process)
    assert step == 5
    assert len(said) == 1 and str(latest) in said[0] and "damaged" in said[0]


def test_one_of_a_later_step_gives_way(tmp_path: Path, one_process: World) -> None:
    """What was damaged, or was of other settings, must not be taken before what is written after it."""
    save_checkpoint(tmp_path, "warmup", 10_000, state_of(10_000))
    for step in (100, 200, 300):
        save_checkpoint(tmp_path, "warmup", step, state_of(step))
        assert load(tmp_path, one_process) == (step, [])
    assert [path.name.split("-")[1] for path in checkpoint_paths(tmp_path, "warmup")] == ["000000300", "000000200"]


def test_names_do_not_mix(tmp_path: Path, one_process: World) -> None:
    for name in ("rank-1-lr0.1-seed0", "rank-1", "rank-10"):
        save_checkpoint(tmp_path, name, 7, state_of(len(name)))
    for name in ("rank-1-lr0.1-seed0", "rank-1", "rank-10"):
        state = load_checkpoint(tmp_path, name, one_process, print)
        assert state is not None and state["step"] == len(name)
    remove_checkpoints(tmp_path, "rank-1")
    assert not checkpoint_paths(tmp_path, "rank-1") and checkpoint_paths(tmp_path, "rank-10")


WRITE_FOR_EVER = """
import sys
from pathlib import Path
import torch
from subshot.train.checkpoint import save_checkpoint
step = 0
while True:
    step += 1
    save_checkpoint(Path(sys.argv[1]), "warmup", step, {"step": step, "weights": torch.zeros(200_000)})
"""


def test_kills_at_any_instant_leave_one_that_loads(tmp_path: Path, one_process: World) -> None:
    reached = 0
    writer = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)])
    end = time.monotonic() + 100
    while len(checkpoint_paths(tmp_path, "warmup")) < 2:
        assert writer.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    for pause in (0.0, 0.013, 0.031):
        time.sleep(pause)
        writer.send_signal(signal.SIGSTOP)  # as a kill would leave the folder
        step, said = load(tmp_path, one_process)
        assert step >= reached and said == []
        reached = step
        writer.send_signal(signal.SIGCONT)
    writer.kill()
    writer.wait()
    step, said = load(tmp_path, one_process)
    assert step >= reached and said == []
    save_checkpoint(tmp_path, "warmup", step + 1, state_of(step + 1))
    assert not list(tmp_path.glob(".*")), "what the killed process was writing is cleared away"


def test_a_full_disk_is_told_and_the_old_one_stays(tmp_path: Path, one_process: World, small_disk: Path) -> None:
    save_checkpoint(small_disk, "warmup", 1, state_of(1))
    with pytest.raises(OSError) as raised:
        save_checkpoint(small_disk, "warmup", 2, state_of(2, 2_000_000))
    assert raised.value.errno == errno.ENOSPC and str(small_disk) in str(raised.value.filename)
    assert load(small_disk, one_process) == (1, [])


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "supernet.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not JSON at all")
    with pytest.raises(ValueError, match=r"supernet\.safetensors is damaged .* delete it and resume"):
        read_weights(path)
