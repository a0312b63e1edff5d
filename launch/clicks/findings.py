"""What a CTR run found, in sentences and in numbers: each is worked out from the record alone, and says its limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from subshot.launch.reports import findings
from subshot.launch.reports.dot_charts import Dot
from subshot.launch.reports.record import Record
from subshot.launch.reports.sections import data_line
from subshot.search.ranking import kendall
from subshot.train.click_metrics import entropy

Metric = Literal["log_loss", "auc"]
COUNTS = {"params": "parameters", "macs": "MACs", "num_modules": "modules"}
"""Trivial rivals of a score, as the history keeps them, and in words."""
TERMS = {"zico": "ZiCo", "fisher_rao": "Fisher-Rao", "loss": "loss"}


def is_synthetic(record: Record) -> bool:
    data = data_line(record)
    return bool(record.comparison.get("synthetic")) or (data is not None and "SYNTHETIC" in data[1])


def spoken(name: str) -> str:
    return name.replace("_", " ")


def network_label(row: dict[str, Any]) -> str:
    """`winner (rank 3 by score)`, `random 2`, `logistic regression`."""
    name = spoken(row["name"]).replace("-", " ")
    return f"winner ({name} by score)" if row["role"] == "winner" else name


def dots_of(record: Record, metric: Metric) -> list[Dot]:
    """The tested networks as comparison.json has them."""
    found = []
    for row in record.comparison.get("networks", []):
        estimate = row[f"test/{metric}"]
        name = "winner" if row["role"] == "winner" else network_label(row)
        found.append(Dot(name, estimate["mean"], estimate["low"], estimate["high"], row["role"]))
    return found


def means(record: Record, metric: Metric) -> str:
    """The title of a chart: the winner's mean over its trainings, and the control's where there is one."""
    shown = {dot.kind: dot.value for dot in reversed(dots_of(record, metric))}
    words = "Log loss" if metric == "log_loss" else "AUC"
    said = f"{words} on the test split: winner {shown['winner']:.4f}"
    return f"{said}, a random network of its cost {shown['control']:.4f}" if "control" in shown else said


def interval_of_what(row: dict[str, Any]) -> str:
    """What the interval of a network's test metrics is for."""
    count = row["test/log_loss"]["n"]
    return f"the mean of {count} trainings" if count > 1 else "one training, over test rows"


def verdict(beside: dict[str, float]) -> Literal["better", "worse", "not told apart"]:
    """The winner's, from the other network's log loss minus the winner's."""
    return "better" if beside["low"] > 0 else "worse" if beside["high"] < 0 else "not told apart"


def paired(record: Record) -> list[str]:
    """The winner beside each other tested network, on the same test rows."""
    said = []
    for row in record.comparison.get("networks", []):
        if "beside_winner" not in row:
            continue
        beside = row["beside_winner"]
        difference, ends = beside["log_loss"], sorted((abs(beside["low"]), abs(beside["high"])))
        name, judged = network_label(row), verdict(beside)
        if judged == "not told apart":
            span = f"{_signed(beside['low'])} to {_signed(beside['high'])}"
            said.append(f"Beside {name}: not told apart; its log loss minus the winner's is {span}.")
            continue
        side = "below" if judged == "better" else "above"
        said.append(
            f"Beside {name}: {judged}; the winner's log loss is {abs(difference):.4f} {side} its ({ends[0]:.4f} to "
            f"{ends[1]:.4f})."
        )
    return said


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def headline(record: Record) -> str | None:
    """The winner beside the random network of its cost, which is what the search has to beat."""
    control = next((row for row in record.comparison.get("networks", []) if row["role"] == "control"), None)
    if control is None or "beside_winner" not in control:
        return None
    beside = control["beside_winner"]
    judged = verdict(beside)
    if judged == "not told apart":
        return "The winner and a random network of its cost are not told apart on the test rows"
    side = "below" if judged == "better" else "above"
    return f"The winner's log loss is {abs(beside['log_loss']):.4f} {side} that of a random network of its cost"


def from_bayes(record: Record) -> str | None:
    """How far the winner is from the least log loss there can be."""
    comparison = record.comparison
    if comparison.get("bayes_log_loss") is None:
        return None
    bayes, loss = comparison["bayes_log_loss"], comparison["networks"][0]["test/log_loss"]["mean"]
    blind = entropy(comparison["base_rate"])
    said = (
        f"The least log loss that any model can reach on these test rows (Bayes) is {bayes:.4f}; the winner is "
        f"{loss - bayes:.4f} above it."
    )
    if blind <= bayes:
        return said
    share = (blind - loss) / (blind - bayes)
    return (
        f"{said} Always predicting the base rate gives {blind:.4f}; of the way from there to Bayes the winner has gone "
        f"{100 * share:.1f} %."
    )


def searched(record: Record) -> dict[str, list[dict[str, Any]]]:
    """Trainings of the search's networks, of its controls, and of baselines; those of a ranking benchmark are none."""
    found: dict[str, list[dict[str, Any]]] = {"winner": [], "random_search": [], "control": [], "baseline": []}
    for trial in record.trials:
        if not trial["contender"].startswith("ranked-"):
            found[trial["role"]].append(trial)
    return found


def trained_networks(record: Record) -> int:
    """Different networks, of whatever role, with a finished training from scratch."""
    return len({trial["contender"] for trials in searched(record).values() for trial in trials})


def of_the_selection(record: Record) -> list[str]:
    """How winner, control and learning rates were chosen: what makes the comparison fair, and what it cannot show."""
    if not record.comparison:
        return []
    networks, trials = record.comparison["networks"], searched(record)
    drawn = [len({trial["contender"] for trial in trials[role]}) for role in ("winner", "random_search", "control")]
    grid = sorted({trial["settings"]["learning_rate"] for trial in trials["winner"]})
    rates, main = ", ".join(f"{rate:g}" for rate in grid), findings.spoken_method(record.main_method)
    how = "spread over its front" if "front" in record.summary else "by score"
    said = [
        f"The validation split chose the winner among {drawn[0]} of {main}, another among {drawn[1]} of random "
        f"search at the same budget, both {how}, and the control among {drawn[2]} random networks of its cost. "
        f"These, and every baseline, were tuned over the same learning rates ({rates}). No choice was made on the test "
        "split."
    ]
    first = networks[0]["name"]
    if drawn[0] > 1 and how == "by score" and first.startswith("rank-") and first != "rank-1":
        said.append(
            f"The winner is number {first.removeprefix('rank-')} of these by score: the validation split and the score "
            "do not agree on the best."
        )
    return said


def of_the_seeds(record: Record) -> list[str]:
    """What another training could change."""
    networks = record.comparison.get("networks", [])
    control = next((row for row in networks if row["role"] == "control"), None)
    if control is None:
        return []
    said = "The interval of a paired difference is for other test rows and, from two trainings on, other seeds"
    mine, theirs = networks[0]["test/log_loss"], control["test/log_loss"]
    if min(mine["n"], theirs["n"]) < 2:
        return [f"{said}: with one training each, what another seed would give is not known."]
    overlap = mine["low"] <= theirs["high"] and theirs["low"] <= mine["high"]
    end = "overlap, so another training may turn the order round" if overlap else "lie apart"
    return [
        f"{said}. Over {mine['n']} and {theirs['n']} trainings the intervals of winner ({mine['low']:.4f} to "
        f"{mine['high']:.4f}) and control ({theirs['low']:.4f} to {theirs['high']:.4f}) {end}."
    ]


def what_to_believe(record: Record) -> list[str]:
    """What the numbers of a CTR run do and do not say."""
    said = []
    if is_synthetic(record):
        said.append("The clicks are SYNTHETIC: drawn from a known model. No figure here says anything of real clicks.")
    said += findings.of_the_search(record, "row", "log losses")
    beside = headline(record)
    said += [f"{beside}."] if beside is not None else []
    said += [*of_the_seeds(record), *of_the_selection(record)]
    from_space = [trial for role in ("winner", "random_search", "control") for trial in searched(record)[role]]
    said.append(findings.whether_it_ranks(record, len({trial["contender"] for trial in from_space})))
    return [*said, *findings.of_the_limits(record)]


@dataclass(frozen=True)
class Quantity:
    """The score or one of its terms, of the random candidates. values: higher is better. mean, sd: over the population
    that the term is standardised by (of Fisher-Rao those of its logarithm)."""

    name: str
    values: tuple[float, ...]
    mean: float | None = None
    sd: float | None = None


def random_candidates(record: Record) -> list[dict[str, Any]]:
    """Those that random search scored: the other search's are no sample of the space."""
    return record.scored.get("random", [])


def quantities(record: Record) -> list[Quantity]:
    """The terms that the history has of every random candidate, and the score last. The loss is negated."""
    rows, found = random_candidates(record), []
    for term, name in TERMS.items():
        if rows and all(term in row.get("terms", {}) for row in rows):
            sign = -1.0 if term == "loss" else 1.0
            values = tuple(sign * row["terms"][term] for row in rows)
            kept = record.terms.get("log_fisher_rao" if term == "fisher_rao" else term, {})
            found.append(Quantity(f"{name}, negated" if sign < 0 else name, values, kept.get("mean"), kept.get("sd")))
    return [*found, Quantity("score", tuple(row["score"] for row in rows))]


def tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's; nan where it is undefined."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    return kendall(second, first)


def tau_text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def closest_count(record: Record, values: Sequence[float]) -> tuple[str, float] | None:
    """(the key in COUNTS that ranks the random candidates most like `values`, or most against it; tau)."""
    rows = random_candidates(record)
    found = {key: tau(values, [row["costs"][key] for row in rows]) for key in COUNTS}
    known = {key: value for key, value in found.items() if not math.isnan(value)}
    if not known:
        return None
    key = max(known, key=lambda key: abs(known[key]))
    return key, known[key]


def of_the_terms(record: Record) -> list[str]:
    """What the table of the terms says."""
    *terms, score = quantities(record)
    said = []
    trivial = closest_count(record, score.values)
    if trivial is not None:
        said.append(
            f"Of the trivial counts, {COUNTS[trivial[0]]} rank the random candidates most like the score, or most "
            f"against it: tau {tau_text(trivial[1])}. Near 1 or −1 a score says little more than that count."
        )
    known = {term.name: tau(term.values, score.values) for term in terms}
    known = {name: value for name, value in known.items() if not math.isnan(value)}
    if known:
        most = max(known, key=lambda name: known[name])
        said.append(f"The score goes most with one of its terms, {most}: tau {tau_text(known[most])}.")
        against = [f"{name} ({tau_text(value)})" for name, value in known.items() if value < 0]
        if against:
            said.append(f"It goes against {', '.join(against)}: what pulls the other way and loses.")
    return said
