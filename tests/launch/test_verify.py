"""launch/verify.py on whole folders, and on 500 that were damaged: each is refused in a sentence, none runs code."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Made = Any  # of conftest.py
REPOSITORY = Path(__file__).resolve().parents[2]
PLAIN = 175
"""Damaged folders of either domain; with those of test_verify_sealed.py 500."""


@pytest.mark.parametrize("domain", ["images", "clicks"])
def test_a_whole_folder_is_passed(
    made_images: Made, made_clicks: Made, domain: str, launched: Callable[..., Any]
) -> None:
    winner = made_images.winner if domain == "images" else made_clicks.winner
    done = launched("verify", winner)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 12 and all(line.startswith("ok ") for line in lines[:-1])
    assert "counted again from the genotype and network.json" in done.stdout
    assert done.stdout.splitlines()[-1] == launched("verify", winner).stdout.splitlines()[-1]
    listed = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=winner, capture_output=True)
    assert listed.returncode == 0, "SHA256SUMS is of coreutils' own form"


def test_it_needs_no_dali_torchrec_or_polars(made_clicks: Made) -> None:
    script = f"""
import sys, runpy
for name in ("torchrec", "fbgemm_gpu", "nvidia", "polars", "deap", "matplotlib"):
    sys.modules[name] = None
sys.argv = ["verify.py", {str(made_clicks.winner)!r}]
runpy.run_path({str(REPOSITORY / "launch" / "verify.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_mistakes_end_with_2(tmp_path: Path, launched: Callable[..., Any]) -> None:
    for folder, sentence in (("no/such", "is no folder"), (str(tmp_path), "it has no SHA256SUMS")):
        done = launched("verify", folder)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(folder: Path, rng: random.Random) -> None:
    """One random damage to one random file, the hashes left as they were."""
    path = rng.choice(files_of(folder))
    content = path.read_bytes()
    kind = rng.choice(["flip", "flip", "flip", "cut", "grow", "delete", "empty", "swap", "add", "link"])
    if kind == "flip":
        changed = bytearray(content)
        for place in {rng.randrange(len(content)) for _ in range(rng.choice([1, 1, 4, 100]))}:
            changed[place] ^= rng.randrange(1, 256)
        rewrite(path, bytes(changed))
    elif kind == "cut":
        rewrite(path, content[: rng.randrange(len(content))])
    elif kind == "grow":
        rewrite(path, content + rng.randbytes(rng.randrange(1, 100)))
    elif kind == "delete":
        path.unlink()
    elif kind == "empty":
        rewrite(path, b"")
    elif kind == "swap":
        other = rng.choice([each for each in files_of(folder) if each != path])
        theirs = other.read_bytes()
        rewrite(other, content)
        rewrite(path, theirs)
    elif kind == "add":
        (folder / rng.choice(["setup.py", "weights.pt", "__init__.py", ".hidden"])).write_text("print('run')")
    else:
        outside = folder.parent / "outside"
        outside.write_bytes(content)
        path.unlink()
        path.symlink_to(outside)


@pytest.mark.parametrize("domain", ["images", "clicks"])
def test_every_damage_is_refused(
    made_images: Made, made_clicks: Made, domain: str, linked: Callable[[Path], Path], reason_of: Callable[[Path], str]
) -> None:
    winner = made_images.winner if domain == "images" else made_clicks.winner
    for seed in range(PLAIN):
        folder = linked(winner)
        damage(folder, random.Random(f"{domain} {seed}"))
        reason_of(folder)
