"""What a run found, in sentences: each is worked out from the record alone, and says its own limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subshot.launch.reports.charts import METHOD_NAMES, Measured
from subshot.launch.reports.fronts import CostAxis
from subshot.launch.reports.record import Record
from subshot.search.ranking import kendall


def best_so_far(rows: Sequence[dict[str, Any]]) -> list[float | None]:
    """The best score among the first i + 1 candidates; None before the first score."""
    best: float | None = None
    curve = []
    for row in rows:
        if row["score"] is not None and (best is None or row["score"] > best):
            best = row["score"]
        curve.append(best)
    return curve


def spoken_method(method: str) -> str:
    return METHOD_NAMES.get(method, method)


def network_name(folder: str) -> str:
    """A folder below winners/ as a legend says it: those of winners begin with their rank."""
    return f"winner {folder}" if folder[:1].isdigit() else folder


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def no_winner_yet(record: Record) -> str:
    return f"There is no winner yet: no candidate of {spoken_method(record.main_method)} has been scored."


def beside_random(record: Record) -> str | None:
    """Evolution, or what stands in its place, and random search after equally many candidates; None while one of them
    has no score."""
    both = [record.history.get(method, []) for method in (record.main_method, "random")]
    count = min(map(len, both))
    first, second = (best_so_far(rows[:count])[-1] if count else None for rows in both)
    if first is None or second is None:
        return None
    after, name = f"After {counted(count, 'candidate')} each, ", spoken_method(record.main_method)
    if first == second:
        return f"{after}{name} and random search have found the same score"
    side = "above" if first > second else "below"
    return f"{after}{name} is {abs(first - second):.3g} {side} random search"


def methods(record: Record) -> list[str]:
    """How far each search came, and how far that is from the exact optimum."""
    said = []
    for method, rows in record.history.items():
        last = best_so_far(rows)[-1]
        reached = "none of them scored" if last is None else f"best score {last:.6g}"
        name = spoken_method(method)
        sentence = f"{name[0].upper()}{name[1:]}: {counted(len(rows), 'candidate')}, {reached}"
        regret = record.summary.get(f"{method}_regret")
        if regret is not None:
            sentence += ", the exact optimum" if regret < 1e-9 else f", {100 * regret:.3g} % below the exact optimum"
        said.append(sentence + ".")
    unscored = sum(len(rows) - len(record.scored[method]) for method, rows in record.history.items())
    if unscored:
        said.append(f"{counted(unscored, 'candidate')} could not be scored; history.jsonl has the reasons.")
    if not record.summary:
        said.append("The search is not over, so these numbers will change.")
    elif "optimum" in record.summary:
        said.append(f"The exact optimum under the limits scores {record.summary['optimum']['score']:.6g}.")
    else:
        said.append("The exact optimum is not known: this score is not a sum over layers.")
    return said


def counts_cost(record: Record, axis: CostAxis) -> str:
    """Whether a higher score only means a higher cost, told from the candidates that were drawn at random."""
    short = axis.name.split(" of ")[0]
    rows = [row for row in record.scored.get("random", []) if axis.key in row["costs"]]
    costs, scores = [row["costs"][axis.key] for row in rows], [row["score"] for row in rows]
    if len(set(costs)) < 2 or len(set(scores)) < 2 or len(rows) < 10:
        return f"Score against {short}"
    tau = f"{kendall(scores, costs):+.2f}".replace("-", "−")
    return f"Score and {short} rank {len(rows)} random candidates alike to Kendall's tau {tau}"


def costs_by_genotype(record: Record) -> dict[tuple[int, ...], dict[str, Any]]:
    """Of every network that the summary or the history names."""
    named = [*record.summary.get("best", []), *record.summary.get("controls", [])]
    rows = [*(row for found in record.history.values() for row in found), *named]
    return {tuple(row["genotype"]): row["costs"] for row in rows}


def tested_networks(record: Record) -> list[Measured]:
    """Accuracy of every retrained network on the untouched images, in the order of record.winners."""
    rows = []
    for metrics in record.winners:
        low, high = metrics["test/interval_95"]
        is_winner = metrics["role"] == "winner"
        rows.append(Measured(network_name(metrics["name"]), metrics["test/accuracy"], low, high, is_winner))
    return rows


def latency_facts(record: Record, sample: str) -> list[tuple[str, str]]:
    """How long the first winner takes for one `sample` in onnxruntime, for the tiles; empty where it is not known."""
    for row in record.winners[0]["latency"] if record.winners else []:
        if row["runtime"] == "onnxruntime" and row["batch"] == 1:
            words = f"one {sample} in onnxruntime, one CPU thread (p95 {row['p95_ms']:.3g} ms)"
            return [(f"{row['p50_ms']:.3g} ms", words)]
    return []


def winner_beside_controls(rows: Sequence[Measured]) -> str | None:
    """The first winner's accuracy beside that of random networks of its cost; None where one side is missing."""
    winners, controls = [r for r in rows if r.is_winner], [r for r in rows if not r.is_winner]
    if not winners or not controls:
        return None
    winner, mean = winners[0], float(np.mean([r.value for r in controls]))
    points = 100 * (winner.value - mean)
    side = "above" if points >= 0 else "below"
    others = "a random network" if len(controls) == 1 else f"the mean of {len(controls)} random networks"
    apart = sum(r.high < winner.low or r.low > winner.high for r in controls)
    verdict = f"{apart} of {len(controls)} intervals lie apart from the winner's"
    if apart == 0:
        verdict = "the intervals overlap, so this test does not tell them apart"
    return f"The winner is {abs(points):.1f} points {side} {others} of its cost; {verdict}"


def what_to_believe(record: Record) -> list[str]:
    """What the numbers of a vision run do and do not say."""
    said = of_the_search(record, "image", "accuracies")
    test = winner_beside_controls(tested_networks(record))
    if test is not None:
        said.append(f"{test}. The intervals are for the choice of test images, not for another training seed.")
    return [*said, whether_it_ranks(record, len(record.winners)), *of_the_limits(record)]


def of_the_search(record: Record, sample: str, measured: str) -> list[str]:
    """What the score and the two searches do and do not say. measured: what a one-shot score is the best of."""
    said = []
    if "score" in record.summary:
        said.append(
            f"A score is {record.summary['score']}; higher is better. The search maximised it, and saw no test "
            f"{sample}."
        )
    if record.summary.get("caution"):
        said.append(f"Caution: {record.summary['caution']}.")
    if record.config.get("score", {}).get("kind") == "one_shot":
        said.append(f"The best of many measured {measured} was picked for being high, so part of it is luck.")
    search = beside_random(record)
    if search is not None:
        said.append(f"{search}. That is one seed of each; with another seed a small difference may turn round.")
        main = spoken_method(record.main_method)
        finder = record.winner["method"] if record.winner is not None else record.main_method
        if finder == "random":
            said.append(f"Random search found the winner: {main} was of no use for that.")
        if finder == "optimum":
            said.append(f"The winner is the exact optimum of the score; {main} came close and did not reach it.")
    return said


def whether_it_ranks(record: Record, count: int) -> str:
    """Where that was not measured: of `count` networks of the space that were trained from scratch."""
    if record.ranking:
        measured = counted(record.ranking["networks"], "network")
        return f"How well the score ranks {measured} trained from scratch was measured: see Does the score rank?"
    trained = f"only {counted(count, 'network')} of it" if count else "no network of it"
    trained += " was trained from scratch" if count < 2 else " were trained from scratch"
    return f"Whether a higher score means a better network is not known from this run: {trained}."


def of_the_limits(record: Record) -> list[str]:
    legal = record.summary.get("legal_fraction", 1.0)
    return [f"{100 * legal:.3g} % of the genotypes of this space meet the limits."] if legal < 1.0 else []
