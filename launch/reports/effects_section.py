"""What each choice does to the score, and what it costs: the section of a report, from the scored candidates alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subshot.launch.reports import page
from subshot.launch.reports.charts import signed, signed_count
from subshot.launch.reports.effect_factors import Factor, factors_of
from subshot.launch.reports.effects_chart import Told, panels
from subshot.launch.reports.findings import counted, spoken_method
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import Record
from subshot.search.marginal_effects import SPARE_NETWORKS, Effects, marginal_effects, unknowns
from subshot.supernet.chain import ChainSpace
from subshot.supernet.space import SearchSpace

IN_WORDS = 5
"""Effects that are said in a sentence."""
_RELIABILITY = re.compile(r"\(reliability ([\d.]+) of 1\)(.*)")


@dataclass(frozen=True)
class Sample:
    """The candidates that are fitted. is_random: random search's alone, which are a sample of what the limits allow."""

    factors: list[Factor]
    levels: NDArray[np.int64]
    scores: list[float]
    macs: list[float]
    is_random: bool


def effects_section(record: Record, space: SearchSpace | None) -> Html:
    """Effects of choices beside one choice of each decision, with intervals, in words, as a picture and as a table."""
    if space is None or not any(record.scored.values()):
        return paragraph("No effect of a choice can be told before candidates are scored.")
    sample = sample_of(record, space)
    try:
        fit = marginal_effects(sample.levels, sample.scores, [factor.reference for factor in sample.factors])
    except ValueError as error:
        return paragraph(f"What each choice does cannot be told yet: {error}.")
    costs = macs_of(sample, fit)
    told = [
        Told(sample.factors[c.factor], sample.factors[c.factor].levels[c.level], c, costs.get((c.factor, c.level)))
        for c in fit.contrasts
    ]
    if not told:
        return paragraph("No choice occurs in enough candidates beside another one for its effect to be told.")
    parts = [
        paragraph(_of_the_fit(fit, sample, spoken_method(record.main_method)) + reliability_of(record)),
        page.bullets([*_in_words(told, fit), *_cautions(told, fit, space)]),
    ]
    title = _title(told, fit)
    parts.append(page.figure(panels(told), title, _caption(told, fit), wide=True))
    parts.append(page.folded(f"Every effect ({len(told)})", _table(told, fit)))
    return join(parts)


def sample_of(record: Record, space: SearchSpace) -> Sample:
    """Random search's candidates where they are enough for the number of unknowns twice over, else all, each once."""
    random = _sample(record.scored.get("random", []), space, True)
    if random is not None:
        count = unknowns(random.levels)
        if len(random.scores) >= max(2 * count, count + SPARE_NETWORKS):
            return random
    every = {tuple(row["genotype"]): row for rows in record.scored.values() for row in rows}
    found = _sample(list(every.values()), space, False)
    assert found is not None, "some candidate is scored"
    return found


def _sample(rows: Sequence[dict[str, Any]], space: SearchSpace, is_random: bool) -> Sample | None:
    if not rows:
        return None
    factors = factors_of(space, [tuple(row["genotype"]) for row in rows])
    levels = np.stack([factor.taken for factor in factors], axis=1)
    macs = [float(row["costs"]["macs"]) for row in rows]
    return Sample(factors, levels, [float(row["score"]) for row in rows], macs, is_random)


def macs_of(sample: Sample, fit: Effects) -> dict[tuple[int, int], float]:
    """MACs of a level minus those of its factor's reference: exact where the factors have them, else as fitted."""
    if all(factor.macs is not None for factor in sample.factors):
        found = {}
        for contrast in fit.contrasts:
            factor = sample.factors[contrast.factor]
            assert factor.macs is not None
            found[contrast.factor, contrast.level] = factor.macs[contrast.level] - factor.macs[factor.reference]
        return found
    references = [factor.reference for factor in sample.factors]
    return {(c.factor, c.level): c.value for c in marginal_effects(sample.levels, sample.macs, references).contrasts}


def _of_the_fit(fit: Effects, sample: Sample, main: str) -> str:
    of = "that random search scored" if sample.is_random else "that were scored"
    said = f"Fitted to the {counted(fit.networks, 'candidate')} {of}: the score as a sum of one effect a decision. "
    if fit.is_exact:
        said += "It is exactly such a sum, so every effect is exact for the score."
    else:
        share = f"{100 * max(0.0, fit.explained):.0f} %"
        said += (
            f"The sum explains {share} of the variance of the score; the rest is how choices work together, and noise."
        )
    if not sample.is_random:
        said += (
            f" Random search alone has scored too few for that, so the candidates of {main} are in it too, which are "
            f"no sample of the space: the effects are those around what {main} liked."
        )
    return said


def reliability_of(record: Record) -> str:
    """A sentence on how well the path losses told choices apart, by the score's own description in the summary or the
    log; empty where the score is of another kind."""
    said = [line for line in record.log if "] score: " in line]
    found = _RELIABILITY.search(record.summary.get("score") or (said[-1] if said else ""))
    if found is None:
        return ""
    what = "The path losses in it were" if "plus its activations" in found.group(2) else "The score itself was"
    return f" {what} estimated with reliability {found.group(1)} (1: without noise)."


def _in_words(told: Sequence[Told], fit: Effects) -> list[str]:
    """The largest effects that are told, and the one that buys most for its MACs."""
    sure = sorted((t for t in told if t.contrast.is_told), key=lambda t: -abs(t.contrast.value))
    if not sure:
        return [f"None of the {len(told)} effects is told: every interval holds zero."]
    said = [_sentence(t, fit) for t in sure[:IN_WORDS]]
    buys = [t for t in sure if t.contrast.value > 0 and t.macs is not None and t.macs > 0]
    if buys:
        best = max(buys, key=lambda t: t.contrast.value / (t.macs or 1.0))
        rate = best.contrast.value / (best.macs or 1.0) * 1e6
        said.append(f"Most score for its MACs: {best.said[0].lower()}{best.said[1:]}, {rate:.3g} for a million MACs.")
    return said


def _sentence(told: Told, fit: Effects) -> str:
    c = told.contrast
    span = "" if fit.is_exact else f" ({signed(c.low)} to {signed(c.high)})"
    about = "" if told.factor.macs is not None else "about "
    macs = "" if told.macs is None else f", {about}{signed_count(told.macs)} MACs"
    return f"{told.said}, {signed(c.value)} score{span}{macs}."


def _cautions(told: Sequence[Told], fit: Effects, space: SearchSpace) -> list[str]:
    said = []
    if not fit.is_exact:
        by_chance = 0.05 * len(told)
        sure = sum(t.contrast.is_told for t in told)
        said.append(
            f"{sure} of {len(told)} intervals leave out zero; about {by_chance:.2g} would by chance, without effects."
        )
    if isinstance(space, ChainSpace) and space.interchangeable:
        said.append(
            "Layers of one stage and shape may change places with an identity, so of such a stage layer 2 is the "
            "second one that is kept, not a place."
        )
    return said


def _title(told: Sequence[Told], fit: Effects) -> str:
    most = max(told, key=lambda t: abs(t.contrast.value) if t.contrast.is_told else -1.0)
    if not most.contrast.is_told:
        return "What each choice does to the score: nothing is told"
    exact = "" if fit.is_exact else ", the largest that is told"
    return f"{most.said}, {signed(most.contrast.value)} score{exact}"


def _caption(told: Sequence[Told], fit: Effects) -> str:
    exact = told[0].factor.macs is not None
    beside = "the one with the fewest MACs" if exact else "the first one"
    said = f"Each choice beside {beside} that could stand in its place, the rest of the network held. "
    said += "" if fit.is_exact else "Lines: 95 % intervals, over the choice of candidates. Grey: it holds zero. "
    said += "Blue raises the score, orange lowers it. It is the score, not the accuracy or the log loss."
    return said


def _table(told: Sequence[Told], fit: Effects) -> Html:
    rows = []
    for t in told:
        c = t.contrast
        macs = "–" if t.macs is None else signed_count(t.macs)
        interval = () if fit.is_exact else (f"{signed(c.low)} to {signed(c.high)}",)
        rows.append((t.factor.place, t.level, t.reference, signed(c.value), *interval, macs, c.networks))
    exact = told[0].factor.macs is not None
    spans = () if fit.is_exact else ("95 % interval",)
    heads = ("decision", "choice", "instead of", "score", *spans, "MACs", "candidates")
    words = "MACs are exact." if exact else "MACs: the mean difference, as fitted to the same candidates."
    return join([page.table(heads, rows), paragraph(words, "muted")])
