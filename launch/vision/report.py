"""The report of a vision run: the winner's chain of layers, its accuracy, indicators, dynamical isometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subshot.launch.reports import charts, findings, honesty, page
from subshot.launch.reports.dot_charts import Dot
from subshot.launch.reports.effects_section import effects_section
from subshot.launch.reports.front_chart import Costed, Kind
from subshot.launch.reports.front_section import front_section, results_against_cost
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import ENDINGS, Record
from subshot.launch.reports.sections import (
    DomainReport,
    Results,
    Sections,
    run_section,
    search_section,
    training_section,
)
from subshot.launch.reports.time_section import time_section
from subshot.supernet.chain import IDENTITY, Layer
from subshot.supernet.cost import activation_mib, strided

PHI_BAND = (0.95, 1.05)
TIMES = {"initial": "at initialisation", "trained": "after training (BatchNorm at white input)"}


def winner_section(record: Record) -> Html:
    winner, boxes = record.winner, _boxes(record)
    if winner is None or not boxes:
        return paragraph(findings.no_winner_yet(record))
    beside = Html(f"<div>{_in_words(boxes)}{tested(record)}</div>")
    return join([page.tiles(winner_facts(record, winner)), page.grid([winner_picture(record, "chain"), beside])])


def winner_picture(record: Record, name: str) -> Html:
    """The winner's chain of layers, or a sentence. name: of the picture, of which a page has one."""
    boxes = _boxes(record)
    if not boxes:
        return paragraph("There is no winner yet.")
    working = sum(box.op != IDENTITY for box in boxes)
    depth = f"{len(boxes)} layers" if working == len(boxes) else f"{working} of {len(boxes)} layers kept"
    title = f"{'The winner' if record.summary else 'The best so far'}: {depth}"
    return page.figure(charts.chain(boxes, name), title, _how_to_read(boxes))


def _boxes(record: Record) -> list[charts.Box]:
    winner, space = record.winner, record.space
    if winner is None or space is None:
        return []
    macs = winner["costs"]["macs"]
    return [_box(layer, choice, macs) for layer, choice in zip(space.layers, winner["genotype"], strict=True)]


def winner_facts(record: Record, winner: dict[str, Any]) -> list[tuple[str, str]]:
    """What the winner costs, scores and, where it was retrained, reaches; for the tiles."""
    costs = winner["costs"]
    facts = [
        (f"{charts.millions(costs['macs'])}", "MACs of one image"),
        (charts.count_text(costs["params"]), "parameters"),
        (f"{activation_mib(costs['activation_elements']):.3g} MiB", "activations of one image, float32"),
        (f"{winner['score']:.4g}", "score that the search saw"),
    ]
    tested = [row for row in findings.tested_networks(record) if row.is_winner]
    if tested:
        facts.insert(0, (f"{100 * tested[0].value:.1f} %", "accuracy on the untouched test images"))
        facts += findings.latency_facts(record, "image")
    return facts


def _box(layer: Layer, choice: int, total_macs: float) -> charts.Box:
    op = layer.ops[choice]
    stage = layer.name.split(".")[0].replace("stage", "stage ")
    share = op.cost(layer.size).macs / total_macs
    return charts.Box(stage, op.name, layer.out_channels, strided(layer.size, layer.stride), share)


def _how_to_read(boxes: Sequence[charts.Box]) -> str:
    """The legend of the chain, of what is in it."""
    ops = {box.op for box in boxes}
    said = ["From top to bottom, as an image passes. Width: channels. Stronger colour: larger kernel."]
    if any(charts.number_after("e", op) for op in ops):
        said.append("Taller: larger expansion.")
    if any(not charts.number_after("k", op) for op in ops - {IDENTITY}):
        said.append("Green: no kernel size in its name.")
    if IDENTITY in ops:
        said.append("A line: identity, the layer is left out.")
    said.append("Left: output channels × pixels². Right: share of all MACs; stem, head and classifier have the rest.")
    return " ".join(said)


def _in_words(boxes: Sequence[charts.Box]) -> Html:
    stages = list(dict.fromkeys(box.stage for box in boxes))
    rows = [(stage, "  ".join(box.op for box in boxes if box.stage == stage)) for stage in stages]
    return page.table(("stage", "operations, first layer first"), rows, numbers=False)


def tested(record: Record) -> Html:
    """Accuracy on the untouched images, the winner beside random networks of its cost."""
    rows = findings.tested_networks(record)
    if not rows:
        return paragraph("It has not been retrained, so its accuracy is not known; launch/retrain.py does that.")
    cells = [
        (
            row.name,
            f"{100 * row.value:.2f}",
            f"{100 * row.low:.1f} to {100 * row.high:.1f}",
            m["test/n"],
            m["epochs"],
        )
        for row, m in zip(rows, record.winners, strict=True)
    ]
    table = page.table(
        ("network", "accuracy, %", "95 % interval", "test images", "epochs"), cells, first=rows[0].is_winner
    )
    title = findings.winner_beside_controls(rows) or "Accuracy on the untouched test images"
    caption = "random-1 and so on: random networks of the winner's MACs, trained in the same way."
    return join([page.figure(charts.intervals(rows), title, caption), table])


def tested_fronts(record: Record) -> list[Html]:
    """Accuracy against each cost of the networks that were retrained."""
    costs = findings.costs_by_genotype(record)
    rows = []
    for measured, metrics in zip(findings.tested_networks(record), record.winners, strict=True):
        genotype = tuple(metrics.get("settings", {}).get("genotype", ()))
        kind: Kind = "winner" if measured.is_winner else "control"
        shares = (100 * measured.value, 100 * measured.low, 100 * measured.high)
        rows.append((costs.get(genotype, {}), Costed(measured.name, kind, 0.0, *shares)))
    return results_against_cost(rows, "accuracy on the test images, %", True, "image")


def cost_section(record: Record) -> Html:
    """Scores, and what testing gave, against each cost."""
    found = tested_fronts(record)
    return join([front_section(record), *([page.grid(found)] if found else [])])


def belief_section(record: Record) -> Html:
    return page.bullets(findings.what_to_believe(record))


def indicators_section(record: Record) -> Html:
    if not record.indicators:
        return paragraph("The indicators are read off the supernet when its training is over; it is not.")
    decisions: dict[str, list[str]] = record.indicators["decisions"]
    layers, block = list(decisions), record.indicators["block"]
    names = list(dict.fromkeys(choice for choices in decisions.values() for choice in choices))
    values: list[list[float | None]] = [[None] * len(layers) for _ in names]
    for x, (choices, row) in enumerate(zip(decisions.values(), block, strict=True)):
        for choice, value in zip(choices, row, strict=True):
            values[names.index(choice)][x] = float("nan") if choice == IDENTITY and value == 0.0 else value
    chosen: list[str] = []
    title = "Indicator of every candidate"
    if record.winner is not None:
        genotype = record.winner["genotype"]
        chosen = [choices[gene] for choices, gene in zip(decisions.values(), genotype, strict=True)]
        undecided = [x for x, row in enumerate(block) if len(row) > 1]
        top = sum(block[x][genotype[x]] == max(block[x]) for x in undecided)
        title = f"The winner takes the candidate with the highest indicator in {top} of {len(undecided)} layers"
    caption = (
        f"{record.indicators['statistic']} of the scales of a candidate's last BatchNorm; stronger colour is higher. "
    )
    caption += "Framed: the winner's choice." if chosen else ""
    if any(value is not None and np.isnan(value) for row in values for value in row):
        caption += " Dash: identity, which has no BatchNorm."
    if any(value is None for row in values for value in row):
        caption += " Empty: the layer has no such candidate."
    if any(record.indicators["layer"]):
        names.append("layer")
        values.append(list(record.indicators["layer"]))
        caption += " Last row: the layer indicator, of the connection parallel to the layer."
    drove = record.config.get("score", {}).get("kind") == "indicator"
    rule = f"the rule {record.config['score']['rule']}" if drove else ""
    said = (
        f"They drove this search, by {rule}." if drove else "They did not drive this search; its score was another one."
    )
    picture = charts.heat_map(layers, names, values, chosen)
    return join([paragraph(said), page.figure(picture, title, caption, wide=True)])


def isometry_section(record: Record) -> Html:
    by_time = {time: rows for time, rows in record.spectrum.items() if rows}
    if not by_time:
        return paragraph("No spectrum has been measured yet.")
    layers = list(dict.fromkeys(row["layer"] for rows in by_time.values() for row in rows))

    def values(quantity: str) -> dict[str, list[list[float]]]:
        return {
            TIMES.get(time, time): [[row[quantity] for row in rows if row["layer"] == layer] for layer in layers]
            for time, rows in by_time.items()
        }

    phi, scale = values("phi"), values("output_mean_square")
    figures = []
    for time, dots in phi.items():
        every = [value for layer in dots for value in layer]
        inside = sum(PHI_BAND[0] <= value <= PHI_BAND[1] for value in every)
        title = f"{time[0].upper()}{time[1:]}, {inside} of {len(every)} candidates have phi within 1 ± 0.05"
        caption = "phi: mean eigenvalue of J Jᵀ, J the Jacobian of a candidate. A dot is a candidate."
        figures.append(
            page.figure(charts.by_layer(f"phi {time}", layers, {time: dots}, "phi", PHI_BAND), title, caption)
        )
    caption = "varphi: 0 where a candidate keeps the length of every direction."
    variance = charts.by_layer("varphi", layers, values("varphi"), "varphi")
    figures.append(page.figure(variance, "varphi: the variance of the eigenvalues of J Jᵀ", caption))
    spreads = {time: [[_spread(values)] for values in dots] for time, dots in scale.items()}
    caption = (
        "Largest mean square of the output over the smallest, for unit-variance input; at 1 all candidates are alike."
    )
    fairness = charts.by_layer("fairness", layers, spreads, "largest / smallest")
    figures.append(page.figure(fairness, _fairness_title(scale), caption))
    columns = [(f"{what}, {time}", dots) for what, by in (("phi", phi), ("output", scale)) for time, dots in by.items()]
    rows = [(layer, *(f"{_spread(dots[n]):.3f}" for _, dots in columns)) for n, layer in enumerate(layers)]
    table = page.table(("layer", *(head for head, _ in columns)), rows)
    return join([page.grid(figures), page.folded("Largest over smallest among the candidates of each layer", table)])


def _spread(values: Sequence[float]) -> float:
    """Largest over smallest; nan where that says nothing."""
    return max(values) / min(values) if values and min(values) > 0 else float("nan")


def _fairness_title(scale: dict[str, list[list[float]]]) -> str:
    middle = [f"{float(np.nanmedian([_spread(v) for v in dots])):.2f} {time}" for time, dots in scale.items()]
    return f"Output scale differs within a layer by a factor of {', '.join(middle)} (median layer)"


SECTIONS: Sections = (
    ("winner", "The winner", winner_section),
    ("belief", "What to believe", belief_section),
    ("search", "The search", search_section),
    ("ranking", "Does the score rank?", honesty.section),
    ("front", "Score and result against cost", cost_section),
    ("effects", "What each choice does", lambda record: effects_section(record, record.space)),
    ("indicators", "Indicators", indicators_section),
    ("isometry", "Dynamical isometry", isometry_section),
    ("training", "Training", training_section),
    ("time", "Time and money", time_section),
    ("run", "The run", run_section),
)


def results(record: Record) -> list[Results]:
    """Accuracy of every retrained network, with intervals over the choice of test images."""
    rows = []
    for measured in findings.tested_networks(record):
        shares = (100 * measured.value, 100 * measured.low, 100 * measured.high)
        rows.append(Dot(measured.name, *shares, kind="winner" if measured.is_winner else "control"))
    return [Results("accuracy on the test images, %", 1, rows)] if rows else []


REPORT = DomainReport(
    SECTIONS,
    trained=lambda record: len(record.winners),
    caution=lambda record: "",
    data="images",
    picture=winner_picture,
    results=results,
    endings=ENDINGS,
)
