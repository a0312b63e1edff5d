"""The plan that --dry-run prints, of one run of each domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from subshot.data.digits import write_digits
from subshot.launch import search
from subshot.launch.domain import Domain, open_domain
from subshot.launch.plan import Plan, duration, existing, lines_of, make_plan
from subshot.launch.plan_timing import SIZES
from subshot.launch.search import parse
from subshot.search.objectives import ImpossibleLimit
from subshot.train.dist import World
from subshot.train.run_dir import RunDir

ALONE = World(0, 1, torch.device("cpu"))
RUNS = {
    "vision": [
        "digits",
        "--data=digits",
        "--space.width=0.125",
        "--warmup.recipe.epochs=3",
        "--limits.max-macs=1.5e6",
        "--evolution.budget=100",
    ],
    "one_shot": [
        "digits",
        "--data=digits",
        "--space.width=0.125",
        "--warmup.recipe.epochs=0",
        "--score.kind=one_shot",
        "--score.calibration-images=64",
        "--limits.max-macs=1.5e6",
    ],
    "clicks": [
        "nasrec-full-criteo",
        "--data=prepared",
        "--space.blocks=3",
        "--space.max-dense-dim=64",
        "--space.max-sparse-dim=32",
        "--warmup.fraction=0.5",
        "--batches.batch-size=64",
        "--score.population=8",
    ],
    "clicks_one_shot": [
        "nasrec-small-criteo",
        "--data=prepared",
        "--space.blocks=3",
        "--space.max-dense-dim=64",
        "--space.max-sparse-dim=32",
        "--warmup.fraction=0",
        "--batches.batch-size=64",
        "--score.kind=one_shot",
        "--score.tune-steps=5",
        "--score.tune-batches=2",
    ],
    "training_free": [
        "nasbench201-cifar10",
        "--data=digits",
        "--space.input-size=8",
        "--limits.max-macs=8e6",
        "--score.population=8",
        "--score.batch-size=4",
    ],
}
TRAINED = ("vision", "clicks")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, prepared_clicks: Callable[..., Path]) -> Path:
    """A folder with digits/ and prepared/."""
    folder = tmp_path_factory.mktemp("plan")
    write_digits(folder / "digits")
    prepared_clicks(folder / "prepared")
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def opened(name: str, *more: str) -> tuple[Any, Domain]:
    config = parse([*RUNS[name], *more]).config
    return config, open_domain(config, ALONE)


@pytest.fixture(scope="module")
def plans(work: Path) -> dict[str, tuple[Any, Domain, Plan]]:
    """By name. The folder is looked at before and after: a plan writes nothing."""
    found = {}
    with inside(work):
        for name in RUNS:
            config, domain = opened(name)
            before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
            found[name] = config, domain, make_plan(config, domain, RunDir(work / "runs" / name), ALONE)
            assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_the_warm_ups_estimate_is_steps_times_ms(name: str, plans: dict[str, tuple[Any, Domain, Plan]]) -> None:
    config, _, plan = plans[name]
    warm = plan.measured.warm_up
    assert warm is not None and warm.steps == warm.epochs * warm.steps_per_epoch > 0
    assert tuple(timed.size for timed in warm.networks) == SIZES
    for timed in warm.networks:
        assert timed.count == 20 and 0.0 <= timed.loading_ms < timed.ms
    small, median, large = warm.networks
    assert small.macs < median.macs < large.macs
    full = warm.steps_on_largest
    assert warm.seconds() == pytest.approx(((warm.steps - full) * median.ms + full * large.ms) / 1e3)
    assert warm.batch_size == (config.images if name == "vision" else config.batches).batch_size


def test_the_largest_path_is_the_spaces_greatest_and_the_smallest_its_least(
    plans: dict[str, tuple[Any, Domain, Plan]],
) -> None:
    _, domain, plan = plans["vision"]
    space: Any = domain.space
    assert plan.measured.warm_up is not None
    macs = [timed.macs for timed in plan.measured.warm_up.networks]
    assert macs[0] == space.costs["macs"].minimum() and macs[2] == space.costs["macs"].maximum()


def test_a_fifth_of_falling_odds_is_a_tenth_of_full_paths(plans: dict[str, tuple[Any, Domain, Plan]]) -> None:
    warm = plans["clicks"][2].measured.warm_up
    assert warm is not None and warm.steps_on_largest == pytest.approx(0.1 * warm.steps, abs=1)


@pytest.mark.parametrize("name", ["one_shot", "clicks", "clicks_one_shot", "training_free"])
def test_scoring_is_timed_where_scores_are_measured(name: str, plans: dict[str, tuple[Any, Domain, Plan]]) -> None:
    config, domain, plan = plans[name]
    scoring = plan.measured.scoring
    assert scoring is not None and scoring.candidates == 2 * config.evolution.budget
    assert scoring.population == (8 if name in ("clicks", "training_free") else 0)
    small, median, large = (timed.macs for timed in scoring.timed.networks)
    assert small <= median <= large
    mixed = scoring.timed.mixed
    assert mixed.count == len(scoring.timed.scores) == 20
    assert scoring.seconds() == pytest.approx((scoring.population + scoring.candidates) * mixed.ms / 1e3)
    assert all(domain.sampler().is_legal(genotype) for genotype, _ in scoring.timed.scores)


def test_what_is_looked_up_or_not_trained_is_not_timed(plans: dict[str, tuple[Any, Domain, Plan]]) -> None:
    assert plans["vision"][2].measured.scoring is None
    for name in ("one_shot", "clicks_one_shot", "training_free"):
        assert plans[name][2].measured.warm_up is None


@pytest.mark.parametrize("name", list(RUNS))
def test_figures_are_positive_and_add_up(name: str, plans: dict[str, tuple[Any, Domain, Plan]]) -> None:
    config, domain, plan = plans[name]
    measured = plan.measured
    parts = [part for part in (measured.warm_up, measured.scoring) if part is not None]
    assert plan.seconds() == pytest.approx(sum(part.seconds() for part in parts)) and plan.seconds() > 0.0
    assert 0.0 < plan.legal_fraction <= 1.0
    assert (plan.legal_fraction < 1.0) == name.startswith(("vision", "one_shot", "training_free"))
    assert measured.memory_mib and all(mib > 0.0 for mib in measured.memory_mib.values())
    assert measured.peak_mib[0] > 100.0 and measured.peak_mib[1] == 0.0
    assert measured.disk["history.jsonl"] > 2 * config.evolution.budget * 100
    assert plan.disk_bytes == sum(measured.disk.values()) and min(measured.disk.values()) >= 0
    assert (measured.disk.get("supernet.safetensors", 0) > 0) == (name in ("vision", "one_shot"))
    text = "\n".join(lines_of(plan, config, domain, RunDir(Path("runs") / name), ALONE))
    assert duration(plan.seconds()) in text and "retraining not counted" in text
    assert ("median" in text) and ("warning" not in text)


def test_a_full_disk_is_warned_of(plans: dict[str, tuple[Any, Domain, Plan]]) -> None:
    config, domain, plan = plans["vision"]
    full = Plan(plan.measured, plan.legal_fraction, disk_free=1000)
    assert any(
        line.startswith("warning: the free disk") for line in lines_of(full, config, domain, RunDir(Path("x")), ALONE)
    )


def test_the_estimated_files_are_of_their_real_sizes(
    work: Path,
    plans: dict[str, tuple[Any, Domain, Plan]],
    status_of: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the run itself: supernet, history and paths."""
    monkeypatch.chdir(work)
    assert status_of(search, *RUNS["vision"], "--run-dir=real") == 0
    run, disk = RunDir(work / "real"), plans["vision"][2].measured.disk
    for path in (run.supernet, run.history_jsonl, run.paths_jsonl):
        assert disk[path.name] == pytest.approx(path.stat().st_size, rel=0.1)


@pytest.mark.parametrize(("name", "max_macs"), [("vision", 10), ("training_free", 1000)])
def test_an_impossible_limit_is_refused(name: str, max_macs: int, work: Path) -> None:
    with inside(work), pytest.raises(ImpossibleLimit):
        config, domain = opened(name, f"--limits.max-macs={max_macs}")
        make_plan(config, domain, RunDir(work / "never"), ALONE)


def test_limits_that_exclude_one_another_are_refused(work: Path) -> None:
    """Each of them can be met, so that opening the domain finds nothing wrong."""
    with inside(work):
        config, domain = opened("vision", "--limits.max-params=8000", "--limits.min-macs=1.4e6")
        with pytest.raises(ImpossibleLimit, match="meet every limit"):
            make_plan(config, domain, RunDir(work / "never"), ALONE)


def test_two_processes_make_one_plan(work: Path, launched: Callable[..., Any]) -> None:
    """Every rank takes part; the main one prints."""
    program = work / "plan_in_two.py"
    program.write_text(
        "import sys\nfrom subshot.launch.domain import open_domain\nfrom subshot.launch.plan import write_plan\n"
        "from subshot.launch.search import parse\nfrom subshot.train.dist import joined_world\n"
        "arguments = parse(sys.argv[1:])\n"
        "with joined_world() as world:\n"
        "    domain = open_domain(arguments.config, world)\n"
        "    plan = write_plan(arguments.config, domain, arguments.run(), world)\n"
        "    if world.is_main:\n        print(plan)\n"
    )
    words = [*RUNS["clicks"], "--batches.num-shards=2", "--run-dir=none"]
    done = launched(program, *words, folder=work, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plan of nasrec-full-criteo: 2 process(es) on cpu")
    assert "20 random ones, by 2 process(es)" in done.stdout
    assert not (work / "none").exists()


def test_a_duration_is_given_in_a_unit_that_fits() -> None:
    assert [duration(s) for s in (1.25, 119, 121, 7300, 200_000)] == [
        "1.2 s",
        "119.0 s",
        "2.0 min",
        "2.0 h",
        "2.3 days",
    ]


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path and existing(tmp_path) == tmp_path


def test_the_command_prints_the_plan_and_makes_no_run(
    work: Path,
    status_of: Callable[..., int],
    mistake_of: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(work)
    words = [*RUNS["training_free"], "--dry-run", "--run-dir=unmade"]
    assert status_of(search, *words) == 0
    assert capsys.readouterr().out.startswith("plan of nasbench201-cifar10: 1 process(es) on cpu")
    assert "no network was found that meets every limit" in mistake_of(search, *words, "--limits.max-macs=1000")
    assert not (work / "unmade").exists()
