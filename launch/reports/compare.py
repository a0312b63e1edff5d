"""Several runs on one page: what differs between them, and what came of it.

What is drawn in one picture is of one measure: scores of runs with equal space, score and data, tested results of runs
with equal data. Runs that share none of these stand beside each other in the tables alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from subshot.launch.reports import dot_charts, findings, page
from subshot.launch.reports.bar_chart import bar_chart
from subshot.launch.reports.charts import RUN_COLOURS, count_text, thinned
from subshot.launch.reports.compare_ranking import ranking_section
from subshot.launch.reports.front_chart import Curve, fronts
from subshot.launch.reports.fronts import COST_AXES, axes_of, floor_of, front, points_of
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.progress_chart import Line, progress_of
from subshot.launch.reports.record import Record
from subshot.launch.reports.sections import DomainReport, data_line, flat
from subshot.launch.reports.time_section import duration, rate_text, rates, small_text, stretches

NOT_DATA = ("latency_table", "space_sha256")
"""What data.json says of other files than the data."""


@dataclass(frozen=True)
class Run:
    """One of the runs: name tells it from the others on the page. link: from the page to the run's own report, where
    there is one."""

    name: str
    record: Record
    report: DomainReport
    link: str | None = None

    @cached_property
    def score_measure(self) -> str:
        """Equal for runs whose scores may be drawn in one picture."""
        config = self.record.config
        space = [config.get("space"), self.record.data.get("space_sha256")]
        parts = [self.report.data, space, config.get("score"), self.data_measure]
        return json.dumps(parts, sort_keys=True)

    @cached_property
    def data_measure(self) -> str:
        """Equal for runs whose tested results may be drawn in one picture."""
        data = {key: value for key, value in self.record.data.items() if key not in NOT_DATA}
        data = data or {"path": str(self.record.config.get("data"))}
        return json.dumps([self.report.data, data], sort_keys=True)


def sections_of(runs: Sequence[Run]) -> list[tuple[str, str, Html]]:
    return [
        ("runs", "The runs", runs_section(runs)),
        ("settings", "What differs", settings_section(runs)),
        ("tested", "What testing gave", tested_section(runs)),
        ("search", "The searches", search_section(runs)),
        ("ranking", "Does the score rank?", ranking_section({run.name: run.record for run in runs})),
        ("front", "Score against cost", fronts_section(runs)),
        ("winners", "The winners", winners_section(runs)),
        ("time", "Where the hours went", hours_section(runs)),
    ]


def grouped(runs: Sequence[Run], key: Callable[[Run], str]) -> list[list[Run]]:
    """Runs of equal key, in order, as many at a time as there are colours."""
    found: list[list[Run]] = []
    for value in dict.fromkeys(map(key, runs)):
        mine = [run for run in runs if key(run) == value]
        found += [mine[first : first + len(RUN_COLOURS)] for first in range(0, len(mine), len(RUN_COLOURS))]
    return found


def runs_section(runs: Sequence[Run]) -> Html:
    rows = []
    for run in runs:
        record = run.record
        data = data_line(record)
        state = "over" if record.summary else "not over"
        scored = sum(map(len, record.history.values()))
        rows.append(
            (run.name, record.config.get("preset", "–"), record.config.get("space", {}).get("name", "–"), state, scored)
            + (run.report.trained(record), data[1] if data else "–")
        )
    heads = ("run", "preset", "space", "search", "candidates", "networks retrained", "data")
    parts = [page.table(heads, rows, numbers=False)]
    cautions = [
        f"{run.name}: {run.report.caution(run.record).strip()}" for run in runs if run.report.caution(run.record)
    ]
    cautions += [
        f"{run.name}: caution: {run.record.summary['caution']}." for run in runs if run.record.summary.get("caution")
    ]
    linked = [f'<a href="{page.text(run.link)}">{page.text(run.name)}</a>' for run in runs if run.link is not None]
    if linked:
        parts.append(Html(f'<p class="muted">Reports of their own: {", ".join(linked)}.</p>'))
    return join([*parts, *([page.bullets(cautions)] if cautions else [])])


def settings_section(runs: Sequence[Run]) -> Html:
    """A table for each domain with more than one run: the settings in which these differ."""
    parts = []
    for report in dict.fromkeys(run.report for run in runs):
        mine = [run for run in runs if run.report == report]
        if len(mine) < 2:
            parts.append(
                paragraph(f"{mine[0].name} is the only run of its kind here: its settings are in its own report.")
            )
            continue
        settings = [dict(flat(run.record.config)) for run in mine]
        names = list(dict.fromkeys(name for found in settings for name in found))
        rows = [(name, *(found.get(name, "–") for found in settings)) for name in names]
        rows = [row for row in rows if len(set(row[1:])) > 1]
        names_of = ", ".join(run.name for run in mine)
        if rows:
            parts.append(page.table(("setting", *(run.name for run in mine)), rows, numbers=False))
        else:
            parts.append(paragraph(f"{names_of}: every setting is the same."))
        same = len({run.data_measure for run in mine}) == 1
        parts.append(paragraph(f"The data are {'the same' if same else 'not the same'} ({names_of}).", "muted"))
    return join(parts)


def search_section(runs: Sequence[Run]) -> Html:
    figures, rows = [], []
    for number, mine in enumerate(grouped([run for run in runs if any(run.record.scored.values())], _measure)):
        lines = []
        for run, colour in zip(mine, RUN_COLOURS, strict=False):
            for method, found in run.record.history.items():
                if run.record.scored[method]:
                    lines.append(Line(run.name, method, colour, findings.best_so_far(found)))
        alone = findings.beside_random(mine[0].record) if len(mine) == 1 else None
        title = f"{mine[0].name}: {alone[0].lower()}{alone[1:]}" if alone else f"Best score so far: {_names(mine)}"
        caption = "Solid: the search; dashed: random search."
        if len(mine) > 1:
            caption = f"One space, one kind of score, the same data. {caption}"
        if len(mine) > 1 and "warmup" in mine[0].record.config:
            caption += " A score is of the run's own warm-up, so compare heights of different runs with care."
        figures.append(page.figure(progress_of(f"progress {number}", lines), title, caption))
    for run in runs:
        speeds = rates(run.record)
        for method, found in run.record.history.items():
            best = findings.best_so_far(found)[-1]
            regret = run.record.summary.get(f"{method}_regret")
            rows.append(
                (run.name, findings.spoken_method(method), len(found), "–" if best is None else _number(best))
                + ("–" if regret is None else f"{100 * max(0.0, regret):.3g} %",)
                + (rate_text(speeds[method]) if method in speeds else "–",)
            )
    if not rows:
        return paragraph("No run has scored a candidate yet.")
    heads = ("run", "search", "candidates", "best score", "below the exact optimum", "candidates a second")
    return join([page.grid(figures), page.table(heads, rows)])


def _measure(run: Run) -> str:
    return run.score_measure


def fronts_section(runs: Sequence[Run]) -> Html:
    """The front of all candidates of each run, runs of one measure together."""
    figures = []
    for number, mine in enumerate(grouped([run for run in runs if any(run.record.scored.values())], _measure)):
        rows_of = {run.name: [row for found in run.record.scored.values() for row in found] for run in mine}
        shared = axes_of([row for rows in rows_of.values() for row in rows])
        for axis in shared:
            curves: list[Curve] = []
            stars: dict[str, tuple[float, float]] = {}
            for run, colour in zip(mine, RUN_COLOURS, strict=False):
                points = points_of(rows_of[run.name], axis)
                cloud = thinned([(point.cost, point.worth) for point in points], 200)
                curves.append(Curve(run.name, colour, "-", cloud, [(p.cost, p.worth) for p in front(points)]))
                winner = run.record.winner
                if winner is not None and axis.key in winner["costs"]:
                    label = "winners" if not stars else f"_{run.name}"
                    stars[label] = (axis.value(winner["costs"]), float(winner["score"]))
            named = axis.name.format(sample="image" if mine[0].report.data == "images" else "row")
            floor = floor_of([point for rows in rows_of.values() for point in points_of(rows, axis)])
            picture = fronts(f"front {number} {axis.key}", curves, named, axis.unit, stars=stars, floor=floor)
            short = axis.name.split(" of ")[0]
            caption = f"{_names(mine)}: the front of all candidates of a run, whichever search scored them."
            caption += "" if floor is None else f" Scores below {floor:.3g} are not shown."
            figures.append(page.figure(picture, f"Score against {short}", caption))
    return page.grid(figures) if figures else paragraph("No run has scored a candidate yet.")


def tested_section(runs: Sequence[Run]) -> Html:
    """Winners, random networks and baselines of runs with the same data in one picture."""
    figures = []
    for number, mine in enumerate(grouped(runs, lambda run: run.data_measure)):
        by_quantity: dict[str, tuple[int, list[dot_charts.Dot]]] = {}
        for run in mine:
            for result in run.report.results(run.record):
                rows = by_quantity.setdefault(result.quantity, (result.digits, []))[1]
                rows += [
                    replace(row, name=f"{run.name}: {row.name}" if len(mine) > 1 else row.name) for row in result.rows
                ]
        for quantity, (digits, rows) in by_quantity.items():
            picture = dot_charts.dots(f"tested {number} {quantity}", rows, quantity, digits)
            first, _, _ = quantity.partition(",")
            title = f"{first[0].upper()}{first[1:]}: {_names(mine)}"
            figures.append(page.figure(picture, title, "95 % intervals; each report says of what. Blue: winners."))
    waiting = [run.name for run in runs if not run.report.results(run.record)]
    parts = [page.grid(figures)] if figures else []
    if waiting:
        parts.append(paragraph(f"Nothing was tested yet in: {', '.join(waiting)}."))
    return join(parts)


def winners_section(runs: Sequence[Run]) -> Html:
    rows = []
    for run in runs:
        winner = run.record.winner
        if winner is None:
            rows.append((run.name, *["–"] * (len(COST_AXES) + 1)))
            continue
        costs = [
            "–" if axis.key not in winner["costs"] else _cost(axis.value(winner["costs"]), axis.unit)
            for axis in COST_AXES
        ]
        rows.append((run.name, _number(winner["score"]), *costs))
    heads = ("run", "score", *(axis.name.split(" of ")[0] for axis in COST_AXES))
    shown = [number for number in range(len(heads)) if number < 2 or any(row[number] != "–" for row in rows)]
    table = page.table([heads[n] for n in shown], [[row[n] for n in shown] for row in rows])
    pictures = []
    for number, run in enumerate(runs):
        drawn = run.report.picture(run.record, f"winner {number}")
        pictures.append(Html(f'<div><p class="eyebrow">{page.text(run.name)}</p>{drawn}</div>'))
    return join([table, page.grid(pictures)])


def hours_section(runs: Sequence[Run]) -> Html:
    """Device hours of each run by stage; what is of one domain has one set of stages."""
    parts = []
    for kind in dict.fromkeys(run.report.endings for run in runs):
        mine = [run for run in runs if run.report.endings is kind or run.report.endings == kind]
        found = {run.name: stretches(run.record, kind) for run in mine}
        stages = list(dict.fromkeys(stretch.stage for stretches_ in found.values() for stretch in stretches_))
        if not stages:
            parts.append(paragraph(f"The logs do not tell yet where time went: {_names(mine)}."))
            continue
        rows = []
        for stage in stages:
            spent = [sum(s.device_seconds for s in found[run.name] if s.stage == stage) for run in mine]
            rows.append((stage, *(duration(seconds) if seconds else "–" for seconds in spent)))
        totals = [sum(s.device_seconds for s in found[run.name]) for run in mine]
        rows.append(("all, device time", *map(duration, totals)))
        rows.append(("all, on the clock", *(duration(sum(s.seconds for s in found[run.name])) for run in mine)))
        priced = [run.record.price_per_hour for run in mine]
        if priced[0] is not None:
            money = [small_text(priced[0] * total / 3600) for total in totals]
            rows.append((f"money, at {priced[0]:g} for a device hour", *money))
        table = page.table(("stage", *(run.name for run in mine)), rows)
        if len(mine) > 1:
            bars = bar_chart(f"hours {len(parts)}", [run.name for run in mine], totals)
            parts.append(page.grid([page.figure(bars, "Device time of each run")]))
        parts.append(table)
    words = "Device time: time on the clock times processes, by the logs; the start of each program is not counted."
    return join([*parts, paragraph(words, "muted")])


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _cost(value: Any, unit: str) -> str:
    return f"{value:.3g} {unit}" if unit else count_text(value)
