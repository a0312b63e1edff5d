"""How candidates are scored by a function: the processes take them in turns, the dearest first, and write each score
down before the next is begun, so that a kill loses none but those in the making.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Cached, Evaluator, FunctionEvaluator, Infeasible, Score, Sharded, TermScore
from subshot.supernet.space import Genotype
from subshot.train.dist import World, gather_objects, heed_stop, of_main, turn_taker, unless_stopped
from subshot.train.run_dir import RunDir, append_jsonl, whole_rows
from subshot.train.stopping import Preempted

JOB = "search"


class Journaled:
    """Scores genotypes one at a time with a function and appends each score to a file of one process alone.

    together: all processes call this alike and work on one candidate; the main one writes. given: the scores of all
    earlier starts, so that the count in a heartbeat tells whether there was headway.
    """

    def __init__(
        self,
        function: Callable[[Genotype], Score],
        world: World,
        run: RunDir,
        log: RunLog,
        given: int = 0,
        together: bool = False,
    ) -> None:
        self.function, self.world, self.log = function, world, log
        self.path = run.scores_jsonl(JOB, world.rank)
        self.given, self.together = given, together

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        """Raises Preempted, between two of them, once this process was asked to stop; together, once any was."""
        if self.together:
            return [self._scored(genotype) for genotype in genotypes]
        return unless_stopped(genotypes, self._scored, self.world)

    def _scored(self, genotype: Genotype) -> Score:
        if self.together:
            heed_stop(self.world, "between two candidates")
        score = self.function(genotype)
        if self.world.is_main or not self.together:
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
    own = Journaled(function, world, run, log, len(known))
    shared = Sharded(own, world.rank, world.size, gather, cost, stopped=Preempted, turns=turn_taker(world))
    return Cached(shared, known)


def alone(evaluator: Evaluator) -> Evaluator:
    """The scores of an evaluator from this process by itself, without the search's and without writing to its files."""
    while isinstance(evaluator, Cached | Sharded):
        evaluator = evaluator.evaluator
    return FunctionEvaluator(evaluator.function) if isinstance(evaluator, Journaled) else evaluator


def together_evaluator(function: Callable[[Genotype], Score], world: World, run: RunDir, log: RunLog) -> Evaluator:
    """Like `shared_evaluator`, for a function in which all processes work on one candidate."""
    known = _known_scores(world, run, log)
    return Cached(Journaled(function, world, run, log, len(known), together=True), known)


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
