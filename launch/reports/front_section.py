"""Score and tested result against every cost: the fronts, as sections of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subshot.launch.reports import findings, page
from subshot.launch.reports.charts import MOST_POINTS, count_text, thinned
from subshot.launch.reports.front_chart import Costed, curve_of, fronts, results_by_cost
from subshot.launch.reports.fronts import COST_AXES, CostAxis, Point, axes_of, floor_of, front, points_of
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import Record


def front_section(record: Record, sample: str = "image") -> Html:
    """Of every cost that the history has. sample: what a cost is of."""
    rows = [row for found in record.scored.values() for row in found]
    if not rows:
        return paragraph("No candidate has been scored yet.")
    axes = axes_of(rows)
    if not axes:
        return paragraph("All candidates cost the same, so there is no front.")
    figures = [_figure(record, axis, sample) for axis in axes]
    words = (
        "A line is a front: the networks of one search that no other one of it beats in both score and cost. Faint: "
        "the rest of its candidates."
    )
    if record.config.get("evolution", {}).get("method") == "nsga2":
        words += " The search beside random search is NSGA-II, which looks for a front and not for one network."
    if max(map(len, record.scored.values())) > MOST_POINTS:
        words += f" Of each search at most {MOST_POINTS} are drawn, evenly over its course; the fronts are of all."
    parts = [paragraph(words), *latencies_from(record, rows), page.grid(figures), *_tables(record, axes)]
    return join(parts)


def latencies_from(record: Record, rows: Sequence[dict[str, Any]]) -> list[Html]:
    """Where latency_ms comes from, by the provenance of the table; nothing where no candidate has it."""
    if not any("latency_ms" in row["costs"] for row in rows):
        return []
    found = record.latency_table.get("provenance", {})
    if "device_name" not in found or "runtime" not in found:
        return [paragraph("Latencies are sums over a table that does not say on what it was measured.")]
    said = f"Latencies are sums over a table that was measured with {found['runtime']} "
    said += f"{found.get('runtime_version', '(unknown version)')} on {found['device_name']}, batch "
    said += f"{found.get('batch_size', 1)}"
    if found.get("device") != "cuda":
        said += f", {findings.counted(int(found.get('threads', 1)), 'thread')}"
    error = found.get("errors", {}).get("calibrated_percent" if found.get("is_calibrated") else "sum_percent")
    if error is not None:
        said += f". On whole networks that nothing was fitted on they are off by {error:.1f} % in the mean"
    return [paragraph(f"{said}.")]


def _figure(record: Record, axis: CostAxis, sample: str) -> Html:
    curves, every = [], [point for rows in record.scored.values() for point in points_of(rows, axis)]
    floor = floor_of(every)
    for method, rows in record.scored.items():
        points = points_of(rows, axis)
        if points:
            cloud = thinned([(point.cost, point.worth) for point in points])
            curves.append(curve_of(method, cloud, [(point.cost, point.worth) for point in front(points)]))
    winner, limits = record.winner, record.config.get("limits", {})
    stars = {}
    if winner is not None and axis.key in winner["costs"]:
        stars["winner" if record.summary else "best so far"] = (axis.value(winner["costs"]), float(winner["score"]))
    controls = []
    if axis.key == "macs":
        controls = [axis.value(network["costs"]) for network in record.summary.get("controls", [])]
    lines = [float(limits[name]) for name in axis.limits if limits.get(name)]
    caption = _widest(record, axis)
    if controls:
        caption += " Triangles: MACs of the random networks for retraining beside the winner; they have no score."
    if floor is not None:
        beneath = sum(point.worth < floor for point in every)
        caption += f" {findings.counted(beneath, 'candidate')} with a score below {floor:.3g} not shown."
    named = axis.name.format(sample=sample)
    name = f"front {axis.key}"
    picture = fronts(name, curves, named, axis.unit, stars=stars, controls=controls, limits=lines, floor=floor)
    return page.figure(picture, findings.counts_cost(record, axis), caption.strip())


def _widest(record: Record, axis: CostAxis) -> str:
    """What the front of the longest search says of the cost, in words."""
    fronts_of = {method: front(points_of(rows, axis)) for method, rows in record.scored.items() if rows}
    method, most = max(fronts_of.items(), key=lambda item: len(item[1]))
    if len(most) < 2:
        return f"The cheapest network that {findings.spoken_method(method)} scored is also the best."
    first, last = most[0], most[-1]
    return (
        f"On the front of {findings.spoken_method(method)} {len(most)} networks, from {cost_text(first.cost, axis)} "
        f"(score {first.worth:.3g}) to {cost_text(last.cost, axis)} (score {last.worth:.3g})."
    ).replace("score -", "score −")


def cost_text(value: float, axis: CostAxis) -> str:
    """`3.2 M MACs`, `0.62 MiB`."""
    return f"{value:.3g} {axis.unit}" if axis.unit else f"{count_text(value)} {axis.name.split(' of ')[0]}"


def _tables(record: Record, axes: Sequence[CostAxis]) -> list[Html]:
    """The front that a search for one left, as it found it; else that of all candidates by MACs."""
    found: list[dict[str, Any]] = record.summary.get("front", [])
    if found:
        title = f"The front that the search was for ({findings.counted(len(found), 'network')}, whoever found them)"
        rows = sorted(found, key=lambda network: -network["score"])
        words = [f"{network['choices']} (by {findings.spoken_method(network['method'])})" for network in rows]
        return [page.folded(title, _table(rows, axes, words))]
    axis = axes[0]
    points: list[Point] = [point for rows in record.scored.values() for point in points_of(rows, axis)]
    best = [point.row for point in reversed(front(points))]
    title = f"The front of all candidates by {axis.name.split(' of ')[0]} ({findings.counted(len(best), 'network')})"
    return [page.folded(title, _table(best, axes, [f"genotype {' '.join(map(str, row['genotype']))}" for row in best]))]


def _table(rows: Sequence[dict[str, Any]], axes: Sequence[CostAxis], choices: Sequence[str]) -> Html:
    heads = ("score", *(axis.name.split(" of ")[0] for axis in axes), "network")
    cells = []
    for row, words in zip(rows, choices, strict=True):
        costs = [cost_text(axis.value(row["costs"]), axis).removesuffix(" parameters") for axis in axes]
        cells.append((f"{row['score']:.4g}".replace("-", "−"), *(c.removesuffix(" MACs") for c in costs), words))
    return page.table(heads, cells, wraps_last=True)


def results_against_cost(
    rows: Sequence[tuple[dict[str, Any], Costed]], quantity: str, higher: bool, sample: str
) -> list[Html]:
    """A picture for each cost that two tested networks have. rows: (costs, the network, whose cost is not yet set)."""
    figures = []
    for axis in COST_AXES:
        known = [(costs, row) for costs, row in rows if costs.get(axis.key) is not None]
        placed = [Costed(row.name, row.kind, axis.value(c), row.value, row.low, row.high) for c, row in known]
        if len({row.cost for row in placed}) < 2:
            continue
        missing = [row.name for costs, row in rows if costs.get(axis.key) is None]
        caption = "Green line: networks that no other one beats in both, by the dots alone; intervals may overlap."
        if missing:
            caption += f" Not counted, so not here: {', '.join(missing)}."
        named = axis.name.format(sample=sample)
        picture = results_by_cost(f"tested {axis.key} {quantity}", placed, named, axis.unit, quantity, higher)
        short = axis.name.split(" of ")[0]
        title = f"{quantity[0].upper()}{quantity[1:].split(',')[0]} against {short}"
        figures.append(page.figure(picture, title, caption))
    return figures
