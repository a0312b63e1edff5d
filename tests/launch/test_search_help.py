"""The help reads: presets state what they cost and give, options say what they are, mistakes name the nearest."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from subshot.launch import correlate, export, latency, prepare, report, retrain, score, search, verify
from subshot.launch.presets import PRESET_GROUPS, PRESETS
from subshot.launch.search_help import description, help_text, summary

ROOT = Path(__file__).resolve().parents[2]
VALUES = r"(?: (?:\{[^}]*\}|[A-Z]+|\[[A-Z]+ \[[A-Z]+ \.\.\.\]\])(?:\|[A-Z]+)?(?= ))*"
"""Placeholders of an option's values, as tyro shows them."""
ENTRIES = ["Command", "Hardware", "Time", "Result"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_command_hardware_time_and_result(name: str) -> None:
    first, *entries = [" ".join(part.split()) for part in description(name).split("\n\n")]
    assert first == summary(name) and len(first) <= 90 and first.endswith(".")
    assert [entry.split(": ")[0] for entry in entries] == ENTRIES
    command, _, time, result = (entry.split(": ", 1)[1] for entry in entries)
    assert re.fullmatch(
        rf"(torchrun --nproc-per-node \d )?launch/search\.py {name}( --data [A-Z0-9]+)? --run-dir \S+", command
    )
    assert ("--data" in command) == (name not in ("digits", "clicks"))
    assert "measured" in time and "measured" in result
    for said in (time, result):
        assert "not measured" in said or re.search(r"\d", said), "what was measured has a figure"


def test_the_help_has_every_preset_once_and_its_pages_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/search.py"])
    text = help_text()
    for group, names in PRESET_GROUPS.items():
        assert f"presets for {group}:" in text
        for name in names:
            assert text.count(f"  {name:25}{summary(name)}\n") == 1
    pages = re.findall(r"docs/\w+\.md", text)
    assert len(pages) >= 5 and all((ROOT / page).is_file() for page in pages)
    assert max(map(len, text.splitlines())) <= 120
    for example in re.findall(r"(?<=search\.py )([a-z0-9-]+) ", text):
        assert example in PRESETS


def help_of(
    command: object, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", ["launch/command.py", *words, "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        command.main()  # type: ignore[attr-defined]
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        *((search, [name]) for name in ("digits", "zennas-cifar", "clicks")),
        (latency, ["digits"]),
        (correlate, ["nasbench201"]),
        (correlate, ["RUN"]),
        *((command, []) for command in (retrain, prepare, score, export, report)),
    ],
    ids=[
        *("images", "training-free", "clicks", "latency", "correlate", "correlate a run", "retrain", "prepare"),
        *("score", "export", "report"),
    ],
)
def test_every_option_says_what_it_is(
    command: object, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.strip(" │|") for line in help_of(command, words, monkeypatch, capsys).splitlines()]
    shown = " ".join(" ".join(line for line in lines if re.search(r"\w", line)).split())
    options = re.findall(rf"(?<= )(--[a-z][a-z.-]*)(?:, --[a-z.-]+)?{VALUES}(.*?)\((?:default|required)", shown)
    assert len(options) >= 2
    assert [name for name, text in options if len(text.strip()) < 8] == []


def test_a_command_without_options_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "A winner's folder, such as runs/digits/winners/1" in help_of(verify, [], monkeypatch, capsys)


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), ([], 2)])
def test_a_first_page_shows_both_forms_of_correlate(
    words: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/correlate.py", *words])
    assert correlate.main() == status
    said = capsys.readouterr().out
    assert "launch/correlate.py RUN [--sample" in said and "launch/correlate.py nasbench201 --data" in said
    assert len(said.splitlines()) <= 25 and max(map(len, said.splitlines())) <= 120


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        (search, ["digts"], "there is no preset 'digts'; did you mean digits?"),
        (search, ["nasrec-smal-criteo"], "did you mean nasrec-small-criteo?"),
        (search, ["digits", "--score.kind", "one_shott"], "--score.kind is 'one_shott'; did you mean one_shot?"),
        (search, ["digits", "--supernet.activation=tnh"], "--supernet.activation is 'tnh'; did you mean tanh?"),
        (search, ["digits", "--warmup.recipe.optimizer", "lion"], "there are sgd, adam, adagrad"),
        (search, ["clicks", "--space.name", "nasrec-ful"], "--space.name is 'nasrec-ful'; did you mean nasrec-full?"),
        (search, ["clicks", "--retrain.baselines", "deepfn"], "no baseline 'deepfn'; did you mean deepfm?"),
        (search, ["digits", "--space.name", "shufflenet"], "no space 'shufflenet'; did you mean shufflenetv2?"),
        (search, ["digits", "--evolution.costs", "macs", "latency"], "is 'latency'; did you mean latency_ms?"),
        (
            search,
            ["--run-dir", "x", "digits"],
            "the preset comes first, and --run-dir after it: launch/search.py",
        ),
        (search, ["digits", "--evolution.budget", "0"], "error: evolution"),
        (retrain, ["runs/x", "--top", "0"], "error: --top is 0; it must be 1 or more"),
        (report, [], "error: name a run folder"),
        (export, ["x", "--tables", "int4"], "--tables is 'int4'; did you mean int8?"),
        (correlate, ["--sample", "4", "here"], "error: --sample is 4; it must be 8 to 30"),
        (latency, ["digits", "--networks", "3"], "error: --networks is 3; it must be 8 or more"),
        (prepare, ["critteo", "a", "b"], "there is no data set 'critteo'; did you mean criteo?"),
        (prepare, ["criteo", "a", "b", "--protocol", "bars"], "--protocol is 'bars'; did you mean bars-x4?"),
        (prepare, ["csv", "a", "b", "--protocol", "nasrec"], "the steps of a csv are those of its --schema"),
        (prepare, ["csv", "a", "b", "--guess"], "needs the file to write"),
        (prepare, ["csv", "a", "b", "--schema", "none.json"], "none.json does not exist; write it, or have it guessed"),
        (prepare, ["csv", "a", "b", "--schema", "s.json", "--guess"], "the raw log a does not exist; give the path of"),
        (prepare, ["criteo", "a", "b"], "the raw log a does not exist; give the path of"),
        (search, ["nasrec-small"], "(python launch/prepare.py csv RAW FOLDER --schema FILE)"),
        (search, ["nasrec-small-avazu"], "(python launch/prepare.py avazu RAW FOLDER)"),
        (
            search,
            ["nasrec-tiny", "--data", "log.csv"],
            "log.csv is a file; --data takes the folder that launch/prepare.py writes: python launch/prepare.py csv "
            "log.csv FOLDER --schema schema.json\n",
        ),
        (search, ["nasrec-small-avazu", "--data", "log.csv"], "python launch/prepare.py avazu log.csv FOLDER\n"),
        (
            search,
            ["digits", "--limits.latency-table", "t.json"],
            "the latency table t.json does not exist; correct its",
        ),
    ],
)
def test_a_mistake_names_the_nearest_that_is_right(
    command: ModuleType,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    status_of: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("a file")
    Path("here").mkdir()
    Path("here/config.json").write_text("{}")
    assert status_of(command, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) == 1, said
    assert sentence in said and "--resume" not in said
