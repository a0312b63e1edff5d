"""Fronts of score and of what testing gave against costs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from subshot.launch.reports.front_chart import Costed
from subshot.launch.reports.front_section import front_section, results_against_cost
from subshot.launch.reports.fronts import COST_AXES, Point, axes_of, floor_of, front, points_of
from subshot.launch.reports.record import read_record
from subshot.train.run_dir import RunDir


def test_the_front_is_what_no_other_one_beats_in_both() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 50):
        numbers = rng.integers(12, size=(size, 2)).astype(float)  # many of them equal
        points = [Point(cost, worth, {"place": place}) for place, (cost, worth) in enumerate(numbers)]
        found = front(points)

        def beaten(point: Point, points: list[Point] = points) -> bool:
            return any(
                (p.cost <= point.cost and p.worth > point.worth) or (p.cost < point.cost and p.worth >= point.worth)
                for p in points
            )

        assert {(p.cost, p.worth) for p in found} == {(p.cost, p.worth) for p in points if not beaten(p)}
        assert len({(p.cost, p.worth) for p in found}) == len(found)
        assert [p.cost for p in found] == sorted(p.cost for p in found)


def test_costs_are_those_that_every_candidate_has_and_in_which_they_differ(noisy_run: RunDir) -> None:
    rows = [dict(row, costs=dict(row["costs"])) for row in read_record(noisy_run).history["random"]]
    assert [axis.key for axis in axes_of(rows)] == ["macs", "params", "activation_elements"]
    for number, row in enumerate(rows):
        row["costs"] |= {"latency_ms": 1.0 + number, "params": 7}
    assert [axis.key for axis in axes_of(rows)] == ["macs", "activation_elements", "latency_ms"]
    del rows[0]["costs"]["latency_ms"]
    assert [axis.key for axis in axes_of(rows)] == ["macs", "activation_elements"]
    memory = axes_of(rows)[1]
    assert memory.value({"activation_elements": 2**18}) == 1.0 and memory.unit == "MiB"


def test_where_latencies_come_from_is_told(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    assert "Latencies are" not in front_section(record)
    rows = [row | {"costs": row["costs"] | {"latency_ms": 1.0}} for row in record.history["random"]]
    of = {"runtime": "onnxruntime", "runtime_version": "1.2", "device_name": "Some CPU", "batch_size": 1, "threads": 2}
    of |= {"device": "cpu", "is_calibrated": True, "errors": {"calibrated_percent": 4.26, "sum_percent": 30.0}}
    timed = replace(record, history={"random": rows})
    assert "table that does not say on what it was measured" in front_section(timed)
    told = front_section(replace(timed, latency_table={"provenance": of}))
    assert "measured with onnxruntime 1.2 on Some CPU, batch 1, 2 threads. On whole networks that nothing was" in told
    assert "they are off by 4.3 % in the mean." in told
    told = front_section(replace(timed, latency_table={"provenance": of | {"is_calibrated": False}}))
    assert "off by 30.0 %" in told


def test_a_picture_for_each_cost_with_its_limit_and_what_is_on_the_front(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    html = front_section(record)
    assert html.count("<svg ") == 3
    assert html.count(">limit<") == 1 and html.count(">controls<") == 1  # of MACs alone
    method, most = max(
        ((m, front(points_of(rows, COST_AXES[0]))) for m, rows in record.scored.items()), key=lambda item: len(item[1])
    )
    said = {"evolution": "evolution", "random": "random search"}[method]
    assert f"On the front of {said} {len(most)} networks" in html
    every = front([p for rows in record.scored.values() for p in points_of(rows, COST_AXES[0])])
    assert f"The front of all candidates by MACs ({len(every)} networks)" in html


def test_a_search_for_a_front_has_its_line_and_its_table(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    keys = ("genotype", "score", "costs")
    found: list[dict[str, Any]] = [
        {key: row[key] for key in keys} | {"choices": f"network {n}", "hash": "h", "method": "nsga2"}
        for n, row in enumerate(record.history["evolution"][:3])
    ]
    found[2]["method"] = "random"
    record = replace(record, history={"nsga2": record.history["evolution"], "random": record.history["random"]})
    record = replace(record, summary=record.summary | {"front": found})
    html = front_section(record)
    assert ">NSGA-II<" in html and "The front that the search was for (3 networks, whoever found them)" in html
    said = {n: f"network {n} (by {'random search' if n == 2 else 'NSGA-II'})" for n in range(3)}
    places = [html.index(said[n]) for n, _ in sorted(enumerate(found), key=lambda item: -item[1]["score"])]
    assert places == sorted(places)
    assert record.winner is not None
    assert "search is NSGA-II, which looks for a front" not in html
    settings = record.config | {"evolution": record.config["evolution"] | {"method": "nsga2"}}
    assert "search is NSGA-II, which looks for a front" in front_section(replace(record, config=settings))


def test_candidates_that_cost_the_same_have_no_front(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    rows = [row | {"costs": {"macs": 5}} for row in record.history["random"]]
    assert "there is no front" in front_section(replace(record, history={"random": rows}))
    assert "No candidate has been scored" in front_section(replace(record, history={}))


def test_tested_networks_stand_by_what_they_cost() -> None:
    def row(name: str, kind: Any, value: float, **costs: float | None) -> tuple[dict[str, Any], Costed]:
        return costs, Costed(name, kind, 0.0, value, value - 0.01, value + 0.01)

    rows = [
        row("winner", "winner", 0.33, macs=5e4, params=4e4),
        row("random 1", "control", 0.34, macs=6e4, params=4.1e4),
        row("dlrm", "baseline", 0.35, macs=None, params=9e6),
    ]
    by_macs, by_params = results_against_cost(rows, "test log loss, nats", False, "row")
    assert "Not counted, so not here: dlrm." in by_macs and ">dlrm<" not in by_macs
    assert ">dlrm<" in by_params and "Test log loss against parameters" in by_params
    assert len(re.findall("<svg ", by_macs)) == 1
    assert results_against_cost([], "accuracy, %", True, "image") == []
    assert results_against_cost(rows[:1], "accuracy, %", True, "image") == []


def test_a_few_far_beneath_all_others_do_not_flatten_the_picture(noisy_run: RunDir) -> None:
    points = [Point(1.0, float(worth), {}) for worth in range(100)]
    assert floor_of(points) is None and floor_of([]) is None
    assert floor_of([*points, Point(1.0, -1000.0, {})]) == pytest.approx(4 - 0.3 * (99 - 4))
    record = read_record(noisy_run)
    rows = [*record.history["random"], record.history["random"][0] | {"score": -500.0}]
    html = front_section(replace(record, history=record.history | {"random": rows}))
    assert "1 candidate with a score below" in html and "not shown" in html
    assert "not shown" not in front_section(record)
