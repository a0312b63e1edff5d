"""The report of a training-free run: the winner in words, its accuracy, and what each proxy says."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from subshot.launch.config import BenchmarkSpaceConfig, from_json
from subshot.launch.reports import findings, honesty, page
from subshot.launch.reports.effects_section import effects_section
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import ENDINGS, Endings, Record
from subshot.launch.reports.sections import Sections, run_section, search_section, training_section
from subshot.launch.reports.time_section import time_section
from subshot.launch.training_free.space import make_benchmark_space, published_form
from subshot.launch.vision.report import REPORT as IMAGE_REPORT
from subshot.launch.vision.report import cost_section, tested, winner_facts
from subshot.proxies import PROXIES
from subshot.search.ranking import kendall
from subshot.supernet.network_space import NetworkSpace
from subshot.supernet.space import named_choices

TRAINING_FREE_ENDINGS: Endings = (
    (r"measuring \d+ random|pass \d+|no warm-up", "reading the batches"),
    (r"score: |caution: ", "measuring the reference networks"),
    (r"winner[:,] ", "random networks of the winner's cost"),
    *ENDINGS,
)
"""See `subshot.launch.reports.record.stage_seconds`."""


def space_of(record: Record) -> NetworkSpace | None:
    """Its decisions count here, not its classes, which config.json does not have."""
    if not record.config:
        return None
    return make_benchmark_space(from_json(BenchmarkSpaceConfig, record.config["space"], "config.json: space"), 10)


def winner_section(record: Record) -> Html:
    winner, space = record.winner, space_of(record)
    if winner is None or space is None:
        return paragraph(findings.no_winner_yet(record))
    genotype = tuple(winner["genotype"])
    title = "The winner" if record.summary else "The best so far"
    rows = list(named_choices(space, genotype).items())
    parts = [
        page.tiles(winner_facts(record, winner)),
        paragraph(f"{title}, as the space's authors write it:"),
        page.code(published_form(space, genotype)),
        page.folded("Every decision", page.table(("decision", "choice"), rows, numbers=False)),
        tested(record),
    ]
    return join(parts)


def belief_section(record: Record) -> Html:
    said = findings.what_to_believe(record)
    said.append(
        "Nothing was trained before the search was over: a score is of initial weights, of one draw for each network."
    )
    beyond = saturated(record)
    if beyond is not None:
        count, scored = beyond
        said.append(
            f"{count} of {scored} candidates are beyond the whole reference population in every proxy. They tie, and "
            "the search cannot tell them apart; a larger --score.population lets it."
        )
    return page.bullets(said)


def saturated(record: Record) -> tuple[int, int] | None:
    """(candidates that are better than all reference networks in every proxy, candidates); None without a population,
    or where there is at most one."""
    columns: dict[str, list[float | None]] = record.terms.get("columns", {})
    rows = [row["terms"] for rows in record.scored.values() for row in rows if "terms" in row]
    if not columns or not rows:
        return None
    best = {name: max(_turned(name, value) for value in column) for name, column in columns.items()}
    count = sum(all(_turned(name, terms[name]) > best[name] for name in columns) for terms in rows)
    return (count, len(rows)) if count > 1 else None


def _turned(name: str, value: float | None) -> float:
    """Higher is better; an undefined one is below all."""
    if value is None:
        return -math.inf
    return value if PROXIES[name].maximize else -value


def score_section(record: Record) -> Html:
    rows = [row for row in record.scored.get("random", []) if "terms" in row]
    if not rows:
        return paragraph("No random candidate has been scored yet.")
    chosen = _winner_terms(record)
    macs, scores = [row["costs"]["macs"] for row in rows], [row["score"] for row in rows]
    cells = []
    for name in rows[0]["terms"]:
        values = [row["terms"][name] for row in rows]
        turned = [_turned(name, value) for value in values]
        below, reached = "–", "–"
        if name in chosen:
            reached = f"{chosen[name]:.5g}"
            below = f"{100 * np.mean([value < _turned(name, chosen[name]) for value in turned]):.0f} %"
        cells.append(
            (name, f"{np.median(values):.5g}", f"{min(values):.5g} to {max(values):.5g}", reached, below)
            + (_tau(turned, macs), _tau(turned, scores))
        )
    heads = ("proxy", "median", "range", "winner", "it is better than", "tau with MACs", "tau with the score")
    said = (
        f"Over the {len(rows)} candidates of random search. Tau is Kendall's, of the proxy turned so that higher "
        "is better: near 1 with MACs, a proxy says little but size; near -1 with the score, it works against the rest."
    )
    return join([paragraph(said), page.table(heads, cells)])


def _winner_terms(record: Record) -> dict[str, float]:
    winner = record.winner or {}
    found: Any = next(
        (row["terms"] for rows in record.scored.values() for row in rows if row["genotype"] == winner.get("genotype")),
        {},
    )
    return dict(found)


def _tau(first: list[float], second: list[float]) -> str:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return "–"
    return f"{kendall(first, second):+.2f}".replace("-", "−")


SECTIONS: Sections = (
    ("winner", "The winner", winner_section),
    ("belief", "What to believe", belief_section),
    ("search", "The search", search_section),
    ("front", "Score and result against cost", cost_section),
    ("effects", "What each choice does", lambda record: effects_section(record, space_of(record))),
    ("score", "The score", score_section),
    ("ranking", "Does the score rank?", honesty.section),
    ("training", "Training", training_section),
    ("time", "Time and money", partial(time_section, endings=TRAINING_FREE_ENDINGS)),
    ("run", "The run", run_section),
)


def winner_picture(record: Record, name: str) -> Html:
    """In words: these spaces have no picture."""
    winner, space = record.winner, space_of(record)
    if winner is None or space is None:
        return paragraph("There is no winner yet.")
    return page.code(published_form(space, tuple(winner["genotype"])))


REPORT = replace(IMAGE_REPORT, sections=SECTIONS, picture=winner_picture, endings=TRAINING_FREE_ENDINGS)
