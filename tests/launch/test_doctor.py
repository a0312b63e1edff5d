"""The doctor finds what is wrong, says how to mend it, and leaves nothing behind."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from subshot.launch import doctor

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "doctor.py"


@pytest.mark.parametrize(
    ("torch", "fbgemm", "torchrec", "why"),
    [
        ("2.13.0+cpu", "1.8.0", "1.8.0", None),
        ("2.14.1", "1.9.0", "1.9.2", None),
        ("2.13.0", "1.9.0", "1.9.2", "fbgemm 1.9.0 needs torch 2.14, and torch is 2.13.0"),
        ("2.13.0", "1.7.0", "1.7.0", "fbgemm 1.7.0 needs torch 2.12, and torch is 2.13.0"),
        ("2.13.0", "1.8.0", "1.9.2", "torchrec 1.9.2 needs fbgemm 1.9, and fbgemm is 1.8.0"),
    ],
)
def test_the_version_rule(torch: str, fbgemm: str, torchrec: str, why: str | None) -> None:
    assert doctor.why_mismatched(torch, fbgemm, torchrec) == why


def test_a_sound_machine(tmp_path: Path) -> None:
    """The whole program, in an environment that passes these tests; warnings depend on the machine, failures do not."""
    run_dir = tmp_path / "runs" / "first"
    ran = subprocess.run([sys.executable, SCRIPT, run_dir], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *findings, last = ran.stdout.splitlines()
    assert last == "the machine is ready"
    assert all(re.fullmatch(r"ok   .+|warn .+ -> .+", line) for line in findings), ran.stdout
    for text in (
        "belong together",
        "import fbgemm_gpu",
        "import torchrec",
        "decodes a JPEG",
        "rename take",
        "disk free",
    ):
        assert sum(text in line for line in findings) == 1, text
    assert not list(tmp_path.iterdir())


def test_modules_are_those_that_setup_asks_for() -> None:
    asked = [Requirement(text) for text in metadata.requires("subshot") or []]
    names = {canonicalize_name(need.name) for need in asked if "extra" not in str(need.marker)}
    assert names == {*doctor.MODULES.values(), "torch", "nvidia-dali-cuda130"}


@pytest.mark.parametrize("where", ["file", "file/run", "/proc/subshot-runs"])
def test_a_run_folder_that_cannot_be(where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert doctor.main([str(tmp_path / where)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"RUN_DIR .+: .+; name a folder.*\.\n", told.err)


def test_a_module_that_breaks_on_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "built_for_another_torch.py").write_text("raise OSError('undefined symbol\\nsecond line')")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.why_not_importable("built_for_another_torch") == "OSError: undefined symbol"
    assert doctor.why_not_importable("json") is None


def test_missing_packages_are_failures_with_a_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MODULES", {"json": "deap", "no_such_module": "no-such-distribution"})
    failure, found = doctor.check_modules()
    assert str(failure) == "FAIL import no_such_module: not installed -> run: make setup"
    assert str(found) == f"ok   import deap {metadata.version('deap')}"


def test_a_folder_that_takes_no_files_fails(tmp_path: Path) -> None:
    """/proc has a size, and refuses every file."""
    levels = [finding.level for finding in doctor.check_run_folder(Path("/proc"))]
    assert levels[-1] == "FAIL"
    assert doctor.replace_once(tmp_path) > 0
    assert not list(tmp_path.iterdir())
