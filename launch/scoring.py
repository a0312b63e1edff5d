"""How candidates are scored by a function: the processes take them in turns, the dearest first, and write each score
down before the next is begun, so that a kill loses none but those in the making.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Cached, Evaluator, FunctionEvaluator, Infeasible, Score, Sharded, TermScore
from subshot.supernet.space import Genotype
from subshot.train.dist import World, gather_objects, of_main, stop_agreed, turn_taker, unless_stopped
from subshot.train.run_dir import RunDir, append_jsonl, whole_rows
from subshot.train.stopping import Preempted

JOB = "search"


class Journaled:
    """Scores genotypes one at a time with a function and appends each score to a file of this process alone."""

    def __init__(
        self, function: Callable[[Genotype], Score], path: Path, world: World, log: RunLog, given: int = 0
    ) -> None:
        """given: the scores of all earlier starts, so that the count in a heartbeat tells whether there was headway."""
        self.function, self.path, self.world, self.log = function, path, world, log
        self.given = given

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        """Raises Preempted, between two of them, once this process was asked to stop."""
        return unless_stopped(genotypes, self._scored, self.world)

    def _scored(self, genotype: Genotype) -> Score:
        score = self.function(genotype)
        append_jsonl(self.path, [score_row(genotype, score)], durable=False)
        self.given += 1
        self.log.beat("scoring", self.given, 0)
        return score


def shared_evaluator(
    function: Callable[[Genotype], Score], cost: Callable[[Genotype], float], world: World, run: RunDir, log: RunLog
) -> Evaluator:
    """An evaluator that every process holds alike. What an earlier start of the search scored is not scored again."""
    known = _known_scores(world, run, log)
    gather = partial(gather_objects, world=world)
    own = Journaled(function, run.scores_jsonl(JOB, world.rank), world, log, len(known))
    shared = Sharded(own, world.rank, world.size, gather, cost, stopped=Preempted, turns=turn_taker(world))
    return Cached(shared, known)


def alone(evaluator: Evaluator) -> Evaluator:
    """The scores of an evaluator from this process by itself, without the search's and without writing to its files."""
    while isinstance(evaluator, Cached | Sharded):
        evaluator = evaluator.evaluator
    return FunctionEvaluator(evaluator.function) if isinstance(evaluator, Journaled) else evaluator


def together_evaluator(function: Callable[[Genotype], Score], world: World, run: RunDir, log: RunLog) -> Evaluator:
    """Like `shared_evaluator`, for a function in which all processes work on one candidate: the main one writes."""

    known = _known_scores(world, run, log)
    count = itertools.count(len(known) + 1)

    def score(genotype: Genotype) -> Score:
        if signal := stop_agreed(world):
            raise Preempted(f"{signal}, between two candidates")
        found = function(genotype)
        if world.is_main:
            append_jsonl(run.scores_jsonl(JOB, 0), [score_row(genotype, found)], durable=False)
        log.beat("scoring", next(count), 0)
        return found

    return Cached(FunctionEvaluator(score), known)


def _known_scores(world: World, run: RunDir, log: RunLog) -> dict[Genotype, Score]:
    known: dict[Genotype, Score] = {}
    if world.is_main:
        known = dict(scored_row(row) for path in run.all_scores(JOB) for row in whole_rows(path, log.line))
    known = of_main(known, world)
    if known:
        log.line(f"{len(known)} scores were given before the stop and are kept")
    return known


def score_row(genotype: Genotype, score: Score) -> dict[str, Any]:
    """A score as a line of JSON; the numbers come back as the same bits."""
    if isinstance(score, Infeasible):
        return {"genotype": list(genotype), "score": None, "reason": score.reason}
    terms = {"terms": score.terms} if isinstance(score, TermScore) else {}
    return {"genotype": list(genotype), "score": float(score), "reason": None, **terms}


def scored_row(row: dict[str, Any]) -> tuple[Genotype, Score]:
    """The inverse of `score_row`."""
    genotype = tuple(row["genotype"])
    if row["score"] is None:
        return genotype, Infeasible(row["reason"])
    return genotype, TermScore(row["score"], row["terms"]) if "terms" in row else row["score"]
