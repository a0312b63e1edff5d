"""Does the score rank? What a run's ranking.json says of it, in sentences, a table and a picture; launch/correlate.py
measures it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from subshot.launch.correlation.ranking import COUNTS, DROVE, SCHEMA_VERSION
from subshot.launch.correlation.sample import DEFAULT
from subshot.launch.manifest import MOST_SAMPLE
from subshot.launch.reports import dot_charts, findings, page
from subshot.launch.reports.dot_charts import Dot
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import Record

WIDE = 0.5
"""An interval of tau that is wider says little of the value inside it."""
NAMES = {DROVE: "the search's score", **COUNTS}
COLOURS: dict[str, Literal["winner", "control", "baseline"]] = {
    "score": "winner",
    "term": "winner",
    "kind": "control",
    "proxy": "control",
    "count": "baseline",
}
RIVALS = ("proxy", "kind")
AXES = {"test/accuracy": "test accuracy", "val/log_loss": "validation log loss"}
METRICS = {"test/accuracy": "accuracy on the untouched images", "val/log_loss": "log loss on the validation split"}


def section(record: Record) -> Html:
    """Of the report."""
    ranking = record.ranking
    if not ranking:
        return paragraph(
            "It was not measured whether a higher score means a better network of this task. This does it, by training "
            f"{DEFAULT} networks from scratch: launch/correlate.py RUN --sample {DEFAULT}"
        )
    if ranking.get("schema_version") != SCHEMA_VERSION:
        return paragraph(
            "ranking.json is of another version of subshot; launch/correlate.py RUN measures the ranking anew."
        )
    scores = ranking["scores"]
    known = sorted((n for n in scores if scores[n]["kendall"]), key=lambda n: -scores[n]["kendall"]["value"])
    figures = [page.figure(_scatter(ranking), _agreement(ranking), "A dot is a training; none where it diverged.")]
    if known:
        dots = [Dot(_label(n), **scores[n]["kendall"], kind=COLOURS[scores[n]["kind"]]) for n in known]
        picture = dot_charts.dots("ranking", dots, "Kendall's tau", 2, (0.0, "no relation"))
        caption = f"Of each order with that by {METRICS[ranking['metric']]}; 95 % bootstrap intervals over networks. "
        caption += "Blue: what drove the search. Grey: mere counts."
        if any(row["kind"] in RIVALS for row in scores.values()):
            caption += " Orange: other scores."
        title = f"Highest: {_label(known[0])}, tau {signed(scores[known[0]]['kendall']['value'])}"
        figures.insert(0, page.figure(picture, title, caption))
    table = page.table(_heads(ranking), _rows(ranking))
    return join([page.bullets(sentences(ranking)), page.grid(figures), table])


def _scatter(ranking: Mapping[str, Any]) -> str:
    points = []
    for network in ranking["sample"]:
        points += [(network["score"], value) for value in network[ranking["metric"]] if value is not None]
    return dot_charts.term_against("ranking sample", points, "score", AXES[ranking["metric"]])


def _agreement(ranking: Mapping[str, Any]) -> str:
    tau = ranking["scores"][DROVE]["kendall"]
    return f"The score and what {ranking['networks']} networks reach" + (f": tau {signed(tau['value'])}" if tau else "")


def _heads(ranking: Mapping[str, Any]) -> list[str]:
    regret = "regret, points" if ranking["metric"] == "test/accuracy" else "regret, log loss"
    each = ["Kendall's tau", "Spearman's rho", "nDCG", f"recall, best {ranking['recall_of']}", regret]
    return ["score (95 % below)", *each]


def _rows(ranking: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, row in ranking["scores"].items():
        cells = [_label(name) + (f" (undefined for {row['undefined']})" if row["undefined"] else "")]
        for statistic in ("kendall", "spearman", "ndcg", "top_k_recall", "regret"):
            cells.append("\n".join(_cells(row[statistic], statistic, ranking)))
        rows.append(cells)
    return rows


def _cells(found: Mapping[str, float] | None, statistic: str, ranking: Mapping[str, Any]) -> list[str]:
    if found is None:
        return ["–", "–"]
    shown = [_number(found[side], statistic, ranking) for side in ("value", "low", "high")]
    return [shown[0], f"{shown[1]} to {shown[2]}"]


def _number(value: float, statistic: str, ranking: Mapping[str, Any]) -> str:
    if statistic in ("kendall", "spearman"):
        return signed(value)
    if statistic == "regret":
        return _lost(value, ranking)
    return f"{value:.2f}"


def _lost(value: float, ranking: Mapping[str, Any]) -> str:
    """A difference of the metric, without its unit."""
    return f"{100 * value:.2f}" if ranking["metric"] == "test/accuracy" else f"{value:.4f}"


def _label(name: str) -> str:
    """As the table calls it: a term is one of the score's, a kind is another score of the same supernet, and any other
    name that is no count is a proxy of networks at their initialisation."""
    if name in NAMES:
        return NAMES[name]
    what, _, rest = name.partition(" ")
    named = {"term": f"{spoken(rest)}, its term", "kind": f"{spoken(rest)}, same supernet"}
    return named.get(what, f"{name}, untrained")


def spoken(name: str) -> str:
    return name.replace("_", " ")


def upper_first(words: str) -> str:
    return words[0].upper() + words[1:]


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _interval(found: Mapping[str, float]) -> str:
    return f"{signed(found['low'])} to {signed(found['high'])}"


def sentences(ranking: Mapping[str, Any]) -> list[str]:
    """What was measured, whether the score ranks, whether a mere count does too, and what follows for retraining."""
    n, seeds = ranking["networks"], ranking["seeds"]
    each = {1: "once each", 2: "twice each"}.get(seeds, f"{seeds} times each")
    said = [
        f"{n} networks over the whole range of the score were trained from scratch, {each}. {ranking['looked_at']}",
        "Networks that retraining had trained already were taken first, so some may be of the winner's cost.",
        *verdict(ranking),
        *against_counts(ranking),
        *against_others(ranking),
        *for_retraining(ranking),
    ]
    if ranking["diverged"]:
        some = findings.counted(ranking["diverged"], "training")
        said.append(f"Diverged, and counted as worst: {some}.")
    return said


def verdict(ranking: Mapping[str, Any]) -> list[str]:
    """Whether the score that drove the search ranks, how sure that is, and how noisy the order is."""
    tau = ranking["scores"][DROVE]["kendall"]
    if tau is None:
        return [
            "There is no order to compare: all networks reached the same, or all have the same score. So this run does "
            "not show that the score ranks at all."
        ]
    words = f"Kendall's tau of the score is {signed(tau['value'])} ({_interval(tau)}, 95 % interval)"
    if tau["low"] <= 0.0 <= tau["high"]:
        said = [f"{words}: the interval contains zero, so this run does not show that the score ranks at all."]
    elif tau["high"] < 0.0:
        said = [f"{words}: upside down. Better networks have lower scores here."]
    else:
        said = [f"{words}: a higher score means a better network more often than not."]
    if tau["high"] - tau["low"] > WIDE:
        more = f"; --sample {MOST_SAMPLE} narrows it" if ranking["networks"] < MOST_SAMPLE else ""
        said.append(
            f"{ranking['networks']} networks give a wide interval: tau may be anything from {signed(tau['low'])} to "
            f"{signed(tau['high'])}{more}."
        )
    between_seeds = ranking["seed_kendall"]
    if between_seeds is not None:
        said.append(
            f"Another training orders the networks as this one does to tau {signed(between_seeds)}; what is missing to "
            "1 is noise of training."
        )
    return said


def against_counts(ranking: Mapping[str, Any]) -> list[str]:
    """Whether the score is better than a mere count, by the interval of the difference on the same resamples."""
    scores, said = ranking["scores"], []
    for key, difference in ranking["beside_counts"].items():
        name, mine, theirs = upper_first(COUNTS[key]), scores[DROVE]["kendall"], scores[key]["kendall"]
        if mine is None or theirs is None:
            continue
        taus = f"tau {signed(theirs['value'])} against {signed(mine['value'])}"
        if theirs["value"] >= mine["value"]:
            said.append(f"{name} rank as well ({taus}): this run does not show that the score says more than they do.")
        elif difference["low"] <= 0.0:
            said.append(
                f"{name} rank less well here ({taus}), but the interval of the difference contains zero "
                f"({_interval(difference)}): they may rank as well."
            )
        else:
            said.append(f"{name} rank less well ({taus}; difference {_interval(difference)}).")
    return said


def against_others(ranking: Mapping[str, Any]) -> list[str]:
    """The best of the other scores beside the one that drove the search."""
    scores = ranking["scores"]
    known = {name: row["kendall"]["value"] for name, row in scores.items() if row["kind"] in RIVALS and row["kendall"]}
    mine = scores[DROVE]["kendall"]
    if not known or mine is None:
        return []
    best = max(known, key=lambda name: known[name])
    tau = scores[best]["kendall"]
    said = f"Of the other scores the best is {_label(best)}: tau {signed(tau['value'])} ({_interval(tau)})"
    side = "above" if tau["value"] > mine["value"] else "not above"
    flattered = "" if len(known) == 1 else "; as the best of several it is flattered"
    return [f"{said}, {side} the search's{flattered}."]


def for_retraining(ranking: Mapping[str, Any]) -> list[str]:
    """How many of the best by score to retrain, and what the first alone would lose."""
    found, lost = ranking["confidence"], ranking["regret_of_first"]
    level, said = f"{100 * found['level']:.0f} % confidence", []
    if found["retrain"] is not None and found["retrain"] < found["of"]:
        said.append(
            f"Of {found['of']} networks of this sample the best {found['retrain']} by score must be retrained to have "
            f"the best of them with {level}; among the search's own favourites, which lie closer together, the order "
            "may be worse."
        )
    elif found["retrain"] is not None:
        said.append(
            f"To have the best of {found['of']} networks like these with {level}, retrain all of them: the score saves "
            "no training."
        )
    said.append(f"The best network of this sample is number {found['place_of_best']} by score.")
    if lost is not None:
        unit = "points of accuracy" if ranking["metric"] == "test/accuracy" else "log loss"
        said.append(
            f"Who takes the first by score alone loses {_lost(lost['value'], ranking)} {unit} against the best of the "
            f"sample; {_lost(lost['expected'], ranking)} in the mean over resamples ({_lost(lost['low'], ranking)} to "
            f"{_lost(lost['high'], ranking)}). Part of that is the luck of the best training."
        )
    return said


def as_text(ranking: Mapping[str, Any]) -> list[str]:
    """The table for a terminal, and the sentences."""
    lines = [f"{'score':34}{'Kendall (95 %)':>26}{'Spearman (95 %)':>26}{'nDCG':>8}{'recall':>8}{'regret':>9}"]
    for name, row in ranking["scores"].items():
        tau, rho = (_with_interval(row[statistic]) for statistic in ("kendall", "spearman"))
        rest = [_cells(row[statistic], statistic, ranking)[0] for statistic in ("ndcg", "top_k_recall", "regret")]
        lines.append(f"{_label(name):34}{tau:>26}{rho:>26}{rest[0]:>8}{rest[1]:>8}{rest[2]:>9}")
    return [*lines, *sentences(ranking)]


def _with_interval(found: Mapping[str, float] | None) -> str:
    return "undefined" if found is None else f"{signed(found['value'])} ({_interval(found)})"
