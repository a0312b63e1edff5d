"""What is installed: one top-level name, every file, every dependency pinned; and scripts that shadow nothing."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("supernet", "search", "proxies", "data", "train", "launch")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of a wheel built from a copy, so that nothing left in build/ gets in."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "out"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "."]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "out").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert archive.read(points).decode().split("\n")[:2] == [
            "[console_scripts]",
            "subshot = subshot.launch.main:main",
        ]
        return archive.namelist()


def test_the_wheel_has_one_top_level_name(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"subshot"}


def test_the_wheel_has_every_file(wheel: list[str]) -> None:
    """A file that is no Python needs a line in setup.py's package_data, a nested folder an __init__.py."""
    files = {path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    expected = {f"subshot/{path.as_posix()}" for path in files if "__pycache__" not in path.parts}
    assert {name for name in wheel if ".dist-info/" not in name} == expected


def test_launch_scripts_shadow_nothing() -> None:
    """A script has launch/ first on sys.path: launch/profile.py would break `import cProfile` for every rank."""
    scripts = {path.stem for path in (ROOT / "launch").iterdir()} - {"__init__", "__pycache__"}
    assert "doctor" in scripts
    assert not scripts & sys.stdlib_module_names
    assert not scripts & set(metadata.packages_distributions())


def test_scripts_start_from_any_folder(tmp_path: Path) -> None:
    script = str(ROOT / "launch" / "doctor.py")
    told = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "RUN_DIR" in told.stdout
    assert not list(tmp_path.iterdir())


def pins() -> dict[str, str]:
    """Distribution to version, from the constraints file."""
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+(post[0-9]+)?", line) for line in pinned)
    assert len({line.split("==")[0] for line in pinned}) == len(pinned)
    return dict(line.split("==") for line in pinned)  # type: ignore[misc]


def needs_of(distribution: str, extra: str) -> list[Requirement]:
    """What an installed distribution asks for here, with one of its extras."""
    asked = [Requirement(text) for text in metadata.requires(distribution) or []]
    return [need for need in asked if need.marker is None or need.marker.evaluate({"extra": extra})]


def test_everything_installed_for_subshot_is_pinned() -> None:
    """Follows what subshot asks for, and what that asks for, to the end."""
    pinned = pins()
    waiting = [(need, "subshot") for extra in ("", "dev") for need in needs_of("subshot", extra)]
    assert waiting
    seen: set[tuple[str, str]] = set()
    while waiting:
        need, asker = waiting.pop()
        name = canonicalize_name(need.name)
        assert name in pinned, f"{asker} needs {name}, which requirements/constraints.txt does not pin"
        assert need.specifier.contains(pinned[name]), f"{asker} needs {need}, and the pin is {pinned[name]}"
        for extra in ("", *need.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(deeper, name) for deeper in needs_of(name, extra)]


def test_torchrec_finds_what_it_needs() -> None:
    """Installed without its dependencies, it gets them from our own list; fbgemm is either of its builds."""
    pinned = pins()
    ours = {canonicalize_name(need.name) for need in needs_of("subshot", "")}
    for need in needs_of("torchrec", ""):
        name = canonicalize_name(need.name)
        assert need.specifier.contains(pinned[name])
        assert name in ours or name == "fbgemm-gpu"
