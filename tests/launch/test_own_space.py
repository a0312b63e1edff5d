"""A space of the user's own: searched, retrained, reported; refused with one sentence where it is wrong or changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subshot.launch.config import SpaceConfig
from subshot.launch.own_space import build_space, placed
from subshot.launch.report import write_report
from subshot.supernet import SPACES
from subshot.supernet.chain_check import why_unsound
from subshot.train.run_dir import RunDir, file_digest, read_json, read_jsonl

OWN = """
from dataclasses import dataclass

from subshot.supernet.chain import IDENTITY, ChainSpace, Op, place_layers, scaled
from subshot.supernet.cost import Conv


@dataclass
class Kernel:
    size: int


def layer(number, inside, outside, stride):
    kernels = (Kernel(1), Kernel(3))
    ops = tuple(Op(f"k{kernel.size}", (Conv(inside, outside, kernel.size, stride),)) for kernel in kernels)
    return f"layer{number}", inside, outside, stride, ops if number == 0 else (*ops, Op(IDENTITY, ()))


def build(input_size, classes, width, reduced_strides):
    stem, c = (Op("stem", (Conv(3, 8, 3, 2),)),), scaled(16, width)
    shapes = [layer(0, 8, c, 2), layer(1, c, c, 1), layer(2, c, c, 1)]
    head = Op("head", (Conv(c, 32),))
    return ChainSpace("own", stem, place_layers(shapes, stem, input_size), head, classes, input_size, "relu",
                      interchangeable=((1, 3),))
"""
QUICK = ["--warmup.recipe.epochs=3", "--space.width=1", "--evolution.budget=12", "--evolution.population=4"]
QUICK += ["--evolution.sample=2", "--limits.max-macs=1e6", "--run-dir=run"]


def own(folder: Path, text: str = OWN, name: str = "build") -> SpaceConfig:
    (folder / "my_space.py").write_text(text)
    return SpaceConfig(f"{folder / 'my_space.py'}:{name}", 32)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, launched: Callable[..., Any]) -> Path:
    """The folder of a finished search, of the space's file, and of its retraining."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_space.py").write_text(OWN)
    done = launched("search", "digits", "--space.name", "my_space.py:build", *QUICK, folder=folder)
    assert done.returncode == 0, done.stderr
    trained = launched("retrain", folder / "run", "--controls=0", "--epochs=1", folder=folder.parent)
    assert trained.returncode == 0, trained.stderr
    return folder


def test_a_space_of_one_s_own_is_searched_retrained_and_reported(searched: Path, launched: Callable[..., Any]) -> None:
    run = RunDir(searched / "run")
    assert read_json(run.config_json)["space"]["name"] == f"{searched / 'my_space.py'}:build"
    assert read_json(run.data_json)["space_sha256"] == file_digest(searched / "my_space.py")
    genotypes = [tuple(row["genotype"]) for row in read_jsonl(run.history_jsonl)]
    assert 1 < len(set(genotypes)) <= 2 * 7 and all(len(genotype) == 3 for genotype in genotypes)
    assert run.winner("1").weights().is_file()
    report = run.report_html.read_text()
    assert "The winner: " in report and "layer1" in report
    assert "finished" in launched("status", "run", folder=searched).stdout


def test_a_run_does_not_go_on_with_a_changed_file(searched: Path, launched: Callable[..., Any]) -> None:
    file = searched / "my_space.py"
    try:
        file.write_text(OWN + "# changed\n")
        for done in (
            launched("search", "digits", "--space.name", "my_space.py:build", *QUICK, "--resume", folder=searched),
            launched("retrain", "run", folder=searched),
        ):
            assert done.returncode == 2 and "data.space_sha256" in done.stderr, done.stderr
        with pytest.raises(ValueError, match=r"my_space\.py was changed since the run was begun; put it back"):
            write_report(RunDir(searched / "run"))
    finally:
        file.write_text(OWN)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("import Conv", "import Konv", r"my_space\.py, line 5: ImportError: cannot import name 'Konv'"),
        ("    size: int", "    size: int +", r"my_space\.py, line 10: invalid syntax"),
        ("scaled(16, width)", "16 / 0", r"my_space\.py, line 20: ZeroDivisionError: division by zero"),
        ("reduced_strides):", "strides, more):", r"build is called as build\(input_size, classes, width, reduced_stri"),
        ("def build", "def built", r"my_space\.py has no function 'build'; did you mean built\?"),
        ("return ChainSpace(", "return dict(space=", r"positional argument follows keyword argument"),
        (
            "layer(1, c, c, 1)",
            "layer(1, c + 1, c, 1)",
            r"line 19: the space of build: layer 'layer1': in_channels is 17, and",
        ),
        ("layer(0, 8, c, 2)", "layer(1, 8, c, 2)", r"two layers are called 'layer1'"),
        (
            'Op("head", (Conv(c, 32),))',
            'Op("head", (Conv(8, 32),))',
            r"head 'head': convolution 0 of main takes 8 channels",
        ),
        ("classes, input_size,", "classes + 1, input_size,", r"classes is 11; take the 10 that build is given"),
        (
            '"relu"',
            '"relu9"',
            r"activation is 'relu9'; did you mean relu6\?|activation is 'relu9'; did you mean relu\?",
        ),
        ("((1, 3),)", "((0, 3),)", r"interchangeable: the layers 0 to 2 are not all alike"),
        (
            "kernel.size, stride)",
            "kernel.size + 1, stride)",
            r"candidate 'k1': convolution 0 of main: .* the kernel odd",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert OWN.count(old) == 1
    with pytest.raises(ValueError, match=sentence) as error:
        build_space(own(tmp_path, OWN.replace(old, new)), 10)
    assert "\n" not in str(error.value) and str(tmp_path / "my_space.py") in str(error.value)


def test_a_missing_file_and_a_wrong_result_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the file none\.py of the space does not exist"):
        build_space(SpaceConfig("none.py:build"), 10)
    with pytest.raises(ValueError, match="is a int; it must be a subshot.supernet.chain.ChainSpace"):
        build_space(own(tmp_path, "def build(*given):\n    return 3\n"), 10)
    (tmp_path / "space.txt").write_text(OWN)
    with pytest.raises(ValueError, match="is no Python file"):
        build_space(SpaceConfig(f"{tmp_path}/space.txt:build"), 10)


def test_a_path_is_made_whole_and_a_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert placed(SpaceConfig("a.py:f")).name == f"{tmp_path}/a.py:f"
    assert placed(SpaceConfig("mobilenetv2")).name == "mobilenetv2"


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("width", "reduced"), [(1.0, 0), (0.25, 1)])
def test_the_spaces_that_there_are_fit_together(name: str, width: float, reduced: int) -> None:
    assert why_unsound(SPACES[name](64, 10, width, reduced)) is None
