"""Several runs on one page, from the command line: what differs, what is drawn together, and what is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from subshot.launch import report
from subshot.launch.config import to_json
from subshot.launch.presets import PRESETS
from subshot.launch.report import names_of, write_comparison, write_report
from subshot.train.run_dir import RunDir, read_json, write_json


def retrained(run: RunDir, folder: Path, name: str, accuracy: float) -> RunDir:
    copy = RunDir(shutil.copytree(run.root, folder / name))
    best = read_json(copy.summary_json)["best"][0]
    for label, role, value in (("1", "winner", accuracy), ("random-1", "control", accuracy - 0.05)):
        figures = {"test/accuracy": value, "test/n": 355, "test/interval_95": [value - 0.02, value + 0.02]}
        settings = {"genotype": best["genotype"]}
        metrics = {"name": label, "role": role, "epochs": 3, "settings": settings, **figures}
        write_json(copy.winner(label).metrics_json, metrics)
    return copy


@pytest.fixture(scope="module")
def pair(noisy_run: RunDir, exact_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    folder = tmp_path_factory.mktemp("pair")
    return retrained(exact_run, folder, "one", 0.91), retrained(noisy_run, folder, "two", 0.87)


def sections(html: str) -> dict[str, str]:
    return {part[: part.index('"')]: part for part in html.split('<section id="')[1:]}


def test_runs_of_one_measure_are_drawn_together(pair: tuple[RunDir, RunDir]) -> None:
    html = write_comparison(pair).read_text()
    found = sections(html)
    counts = {anchor: part.count("<svg ") for anchor, part in found.items()}
    assert counts == {
        "runs": 0,
        "settings": 0,
        "tested": 1,
        "search": 1,
        "ranking": 0,
        "front": 3,
        "winners": 2,
        "time": 1,
    }
    for words in (">one<", ">two<"):
        assert words in found["search"] and words in found["front"]
    assert ">one: winner 1<" in found["tested"] and ">two: random-1<" in found["tested"]
    assert ">91.0<" in found["tested"] and ">87.0<" in found["tested"]
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_only_settings_that_differ_are_listed(pair: tuple[RunDir, RunDir]) -> None:
    found = sections(write_comparison(pair).read_text())["settings"]
    assert re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)</td><td>([^<]+)</td></tr>", found) == [("seed", "0", "1")]
    assert "The data are the same (one, two)." in found


def test_a_latency_table_or_a_space_of_ones_own_makes_no_other_data(
    pair: tuple[RunDir, RunDir], tmp_path: Path
) -> None:
    for key, drawn in (("latency_table", 1), ("space_sha256", 2)):
        other = RunDir(shutil.copytree(pair[1].root, tmp_path / key))
        write_json(other.data_json, read_json(other.data_json) | {key: "0" * 64})
        found = sections(write_comparison([pair[0], other], out=tmp_path / "page.html").read_text())
        assert f"The data are the same (one, {key})." in found["settings"]
        assert found["tested"].count("<svg ") == 1
        assert found["search"].count("<svg ") == drawn, "scores of another space are no scores to compare"


def test_runs_with_other_data_or_another_space_are_not_drawn_together(
    pair: tuple[RunDir, RunDir], tmp_path: Path
) -> None:
    other = RunDir(shutil.copytree(pair[1].root, tmp_path / "other"))
    write_json(other.data_json, {"classes": 10, "images": {"val": 99}})
    found = sections(write_comparison([pair[0], other], out=tmp_path / "page.html").read_text())
    assert found["search"].count("<svg ") == 2 and found["tested"].count("<svg ") == 2
    assert "The data are not the same" in found["settings"]


def test_domains_stand_on_one_page_and_in_no_picture_together(pair: tuple[RunDir, RunDir], tmp_path: Path) -> None:
    clicks = RunDir(tmp_path / "clicks")
    write_json(clicks.config_json, to_json(PRESETS["clicks"]()))
    html = write_comparison([pair[0], clicks], out=tmp_path / "page.html").read_text()
    found = sections(html)
    assert "nasrec-small" in found["runs"] and "nasbench-macro" in found["runs"]
    assert found["settings"].count("is the only run of its kind") == 2
    assert "Nothing was tested yet in: clicks." in found["tested"]
    assert all(">clicks<" not in svg for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "The logs do not tell yet where time went: clicks." in found["time"]


def test_the_page_lies_beside_the_runs_or_where_it_is_wanted(
    pair: tuple[RunDir, RunDir], tmp_path: Path, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    roots = [run.root for run in pair]
    assert status_of(report, *roots) == 0
    default = roots[0].parent / "report-one-two.html"
    assert capsys.readouterr().out.strip() == str(default) and default.is_file()
    assert status_of(report, *roots, "--out", tmp_path / "new" / "page.html", "--price-per-hour", "2") == 0
    assert "money, at 2 for a device hour" in (tmp_path / "new" / "page.html").read_text()
    assert status_of(report, roots[0], "--out", tmp_path / "one.html") == 0
    assert "Architecture search in" in (tmp_path / "one.html").read_text()


def test_what_is_no_run_is_refused_by_name(
    pair: tuple[RunDir, RunDir], tmp_path: Path, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = pair[0].root
    for wrong, why in ((tmp_path / "gone", "no such folder"), (tmp_path, "no config.json"), (root, "named twice")):
        assert status_of(report, root, wrong, "--out", tmp_path / "page.html") == 2
        told = capsys.readouterr().err
        assert why in told and str(wrong) in told and len(told.splitlines()) == 1
    assert status_of(report, root, "--out", tmp_path) == 2
    assert status_of(report, root, "--price-per-hour=-1") == 2
    assert status_of(report) == 2
    assert not (tmp_path / "page.html").exists()


def test_rankings_stand_beside_one_another(
    pair: tuple[RunDir, RunDir], tmp_path: Path, ranking_of: Callable[..., dict[str, Any]]
) -> None:
    runs = [RunDir(shutil.copytree(run.root, tmp_path / run.root.name)) for run in pair]
    counts = {"params": (0.1, -0.4, 0.5), "macs": (-0.2, -0.5, 0.1)}
    write_json(runs[0].ranking_json, ranking_of((0.6, 0.3, 0.75), counts))
    found = sections(write_comparison(runs).read_text())["ranking"]
    row = ["one", "12", "+0.60", "+0.30 to +0.75", "+0.10", "−0.20", "7 of 12"]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", found) == row
    assert "Not measured, which launch/correlate.py RUN does: two." in found
    write_json(runs[1].ranking_json, ranking_of(None, {}, retrain=None))
    write_json(runs[0].ranking_json, {"schema_version": 1})
    found = sections(write_comparison(runs).read_text())["ranking"]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", found) == ["two", "12", *["–"] * 5]
    assert "ranking.json is of another version of subshot: one." in found


def test_reports_of_their_own_are_linked_where_they_are(pair: tuple[RunDir, RunDir], tmp_path: Path) -> None:
    runs = [RunDir(shutil.copytree(run.root, tmp_path / f"a {run.root.name}")) for run in pair]
    write_report(runs[0])
    page = write_comparison(runs, out=tmp_path / "pages" / "page.html")
    links = re.findall(r'<a href="([^#"][^"]*)">([^<]*)</a>', page.read_text())
    assert links == [("../a%20one/report.html", "a one")]
    assert (page.parent / unquote(links[0][0])).is_file()


def test_one_folder_that_is_no_run_is_refused_and_one_with_settings_alone_is_not(
    tmp_path: Path, status_of: Callable[..., int], mistake_of: Callable[..., str]
) -> None:
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    assert f"{run.root} is no run folder (it has no config.json); name one" in mistake_of(report, run.root)
    assert list(run.root.iterdir()) == []
    write_json(run.config_json, to_json(PRESETS["digits"]()))
    assert status_of(report, run.root) == 0 and run.report_html.is_file()


def test_names_tell_runs_apart() -> None:
    assert names_of([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert names_of([Path("/a/run"), Path("/b/run")]) == ["a/run", "b/run"]


def test_more_runs_than_colours_have_several_pictures(exact_run: RunDir, tmp_path: Path) -> None:
    runs = [RunDir(shutil.copytree(exact_run.root, tmp_path / f"run{n}")) for n in range(6)]
    found = sections(write_comparison(runs).read_text())
    assert found["search"].count("<svg ") == 2
    assert (tmp_path / "report-run0-run1-run2-run3-run4-run5.html").is_file()
