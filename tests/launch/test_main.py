"""`subshot VERB` is `launch/VERB.py` in one process: the same history, statuses and ways to go on."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from subshot.launch import main, started

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = [
    "digits",
    "--space.width=0.125",
    "--warmup.recipe.epochs=1",
    "--score.kind=indicator",
    "--evolution.budget=20",
    "--evolution.population=10",
    "--evolution.sample=4",
]
AS_MODULE = ["-m", "subshot.launch.main"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def status_of(words: list[str], monkeypatch: pytest.MonkeyPatch, name: str = "/usr/bin/subshot") -> int:
    monkeypatch.setattr(sys, "argv", [name, *words])
    try:
        return main.main()
    except SystemExit as stop:
        return int(stop.code or 0)


def test_a_search_by_its_verb_is_the_script_s_and_goes_on_as_it_says(tmp_path: Path) -> None:
    script = run(tmp_path, str(REPOSITORY / "launch" / "search.py"), *QUICK, "--run-dir=script")
    assert script.returncode == 0, script.stderr
    command = [sys.executable, *AS_MODULE, "search", *QUICK, "--run-dir=verb"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "verb" / "config.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    words = shlex.split(said.splitlines()[-1].split("go on with: ")[1])
    assert words == ["python", *command[1:], "--resume"]
    assert json.loads((tmp_path / "verb" / "jobs" / "search.json").read_text())["command"] == words
    done = run(tmp_path, *words[1:])
    assert done.returncode == 0, done.stderr
    histories = [(tmp_path / name / "history.jsonl").read_bytes() for name in ("script", "verb")]
    assert histories[0] == histories[1]
    assert done.stdout.splitlines()[-1] == script.stdout.splitlines()[-1]


def test_verbs_are_commands_and_say_what_they_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["--help"]):
        assert status_of(words, monkeypatch) == 0
        said = capsys.readouterr().out
        for verb, (module, *_) in main.VERBS.items():
            assert callable(import_module(f"subshot.launch.{module}").main)
            assert f"  {verb:11}{main.summary(verb)}\n" in said
            assert 10 < len(main.summary(verb)) < 110 and "launch/" not in main.summary(verb)


def test_every_command_is_a_verb() -> None:
    scripts = {path.stem for path in (REPOSITORY / "launch").glob("*.py") if "\ndef main(" in path.read_text()}
    assert scripts - {"main"} == {module for module, *_ in main.VERBS.values()}


def test_an_unknown_verb_is_a_mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["serach", "digits"], monkeypatch) == 2
    assert capsys.readouterr().err == "error: there is no verb 'serach'; did you mean search?\n"


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_usage_names_the_verb(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([verb, "--help"], monkeypatch) == 0
    module, *before = main.VERBS[verb]
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['subshot', module, *before])} ")


def test_statuses_are_those_of_the_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["search", "digit"], monkeypatch) == 2
    assert status_of(["retrain", str(tmp_path)], monkeypatch) == 2
    assert status_of(["status", str(tmp_path / "none")], monkeypatch) == 2
    assert status_of(["collect"], monkeypatch) == 2
    assert capsys.readouterr().err.count("\n") >= 4


@pytest.mark.parametrize(
    ("name", "launcher", "expected"),
    [
        ("launch/search.py", {}, "python launch/search.py digits --resume"),
        ("subshot search", {}, "subshot search digits --resume"),
        ("python -m subshot.launch.main search", {}, "python -m subshot.launch.main search digits --resume"),
        ("launch/search.py", {"WORLD_SIZE": "4"}, "torchrun --nproc-per-node=2 launch/search.py digits --resume"),
        (
            "python -m subshot.launch.main search",
            {"WORLD_SIZE": "2"},
            "torchrun --standalone --nproc-per-node=2 -m subshot.launch.main search digits --resume",
        ),
    ],
)
def test_how_a_command_is_given_again(
    name: str, launcher: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "digits"])
    for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (launcher | ({"LOCAL_WORLD_SIZE": "2"} if launcher else {})).items():
        monkeypatch.setitem(os.environ, variable, value)
    assert shlex.join(started.again("--resume")) == expected


def test_another_command_is_given_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "launch/slurm.py": ["python", "launch/status.py"],
        "subshot slurm": ["subshot", "status"],
        "python -m subshot.launch.main slurm": ["python", "-m", "subshot.launch.main", "status"],
        "my folder/slurm.py": ["python", "my folder/status.py"],
    }
    for name, words in expected.items():
        monkeypatch.setattr(sys, "argv", [name])
        assert started.another("status") == words
