"""What every evaluator promises: one score a genotype, in order, whatever wraps it."""

import math
import threading

import pytest

from subshot.search.evaluator import (
    AdditiveEvaluator,
    Cached,
    FunctionEvaluator,
    Infeasible,
    Sharded,
    deal,
)
from subshot.supernet.space import Additive

SCORE = Additive(0.5, ((0.0, 1.0), (0.25, 0.5, 0.75), (0.0, 3.0)))
GENOTYPES = [(1, 2, 0), (0, 0, 1), (1, 2, 0), (0, 1, 1), (1, 0, 1), (0, 2, 0), (1, 1, 1)]


def function(genotype):
    return Infeasible("layer 0 is dead") if genotype == (0, 1, 1) else SCORE(genotype)


EVALUATORS = {
    "additive": lambda: AdditiveEvaluator(SCORE),
    "function": lambda: FunctionEvaluator(function),
    "cached": lambda: Cached(FunctionEvaluator(function)),
    "sharded": lambda: Sharded(FunctionEvaluator(function), 0, 1, lambda mine: [mine]),
    "cached over sharded": lambda: Cached(Sharded(AdditiveEvaluator(SCORE), 0, 1, lambda mine: [mine])),
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_one_score_a_genotype_in_order(name) -> None:
    evaluator = EVALUATORS[name]()
    scores = evaluator.evaluate(GENOTYPES)
    assert len(scores) == len(GENOTYPES)
    for genotype, score in zip(GENOTYPES, scores, strict=True):
        if isinstance(score, Infeasible):
            assert score == function(genotype) and score.reason
        else:
            assert isinstance(score, float) and score == SCORE(genotype)
    assert evaluator.evaluate(GENOTYPES) == scores
    assert evaluator.evaluate(GENOTYPES[::-1]) == scores[::-1]
    assert evaluator.evaluate([]) == []


def test_a_genotype_of_another_space_is_refused() -> None:
    with pytest.raises(ValueError, match="3 decisions"):
        AdditiveEvaluator(SCORE).evaluate([(0, 1)])


def test_nothing_is_scored_twice() -> None:
    seen = []
    cached = Cached(FunctionEvaluator(lambda g: seen.append(g) or function(g)), known={(0, 0, 1): 9.0})
    first = cached.evaluate(GENOTYPES)
    assert first[1] == 9.0 and first[0] == first[2]
    assert seen == [(1, 2, 0), (0, 1, 1), (1, 0, 1), (0, 2, 0), (1, 1, 1)]
    cached.evaluate([*GENOTYPES, (0, 0, 0)])
    assert seen[5:] == [(0, 0, 0)]


class Ranks:
    """An all-gather among threads: each waits until all have put their list."""

    def __init__(self, world: int) -> None:
        self.lists = [None] * world
        self.barrier = threading.Barrier(world)

    def gather(self, rank: int):
        def all_gather(mine):
            self.lists[rank] = mine
            self.barrier.wait(timeout=10)
            gathered = list(self.lists)
            self.barrier.wait(timeout=10)
            return gathered

        return all_gather

    def run(self, work):
        results = [None] * len(self.lists)

        def call(rank):
            try:
                results[rank] = work(rank, self.gather(rank))
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=call, args=(rank,)) for rank in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize("world", [1, 2, 3, 10])
@pytest.mark.parametrize("cost", [None, SCORE])
def test_every_rank_has_all_scores_and_did_its_share(world, cost) -> None:
    work = [[] for _ in range(world)]

    def score(rank, gather):
        inner = FunctionEvaluator(lambda g: work[rank].append(g) or function(g))
        return Sharded(inner, rank, world, gather, cost).evaluate(GENOTYPES)

    expected = FunctionEvaluator(function).evaluate(GENOTYPES)
    assert Ranks(world).run(score) == [expected] * world
    assert sorted(g for share in work for g in share) == sorted(GENOTYPES)


@pytest.mark.parametrize("world", [1, 3])
def test_ranks_that_take_turns_have_all_scores_and_score_each_once(world) -> None:
    work, places, lock = [[] for _ in range(world)], iter(range(len(GENOTYPES))), threading.Lock()

    def turns(count):
        while True:
            with lock:
                place = next(places, count)
            if place >= count:
                return
            yield place

    def score(rank, gather):
        inner = FunctionEvaluator(lambda g: work[rank].append(g) or function(g))
        return Sharded(inner, rank, world, gather, SCORE, turns=turns).evaluate(GENOTYPES)

    assert Ranks(world).run(score) == [FunctionEvaluator(function).evaluate(GENOTYPES)] * world
    assert sorted(g for taken in work for g in taken) == sorted(GENOTYPES)
    if world == 1:
        assert work[0] == sorted(GENOTYPES, key=SCORE, reverse=True), "the dearest first"


def test_a_rank_that_is_asked_to_stop_stops_all_with_the_same_exception() -> None:
    class Stop(Exception):
        pass

    def score(rank, gather):
        def one(genotype):
            if rank == 1:
                raise Stop("SIGTERM")
            return 1.0

        return Sharded(FunctionEvaluator(one), rank, 3, gather, stopped=Stop).evaluate(GENOTYPES)

    assert [(type(error), str(error)) for error in Ranks(3).run(score)] == [(Stop, "SIGTERM")] * 3


def test_one_rank_that_fails_stops_all_and_leaves_none_waiting() -> None:
    def fragile(genotype):
        if genotype == (0, 0, 1):
            raise ZeroDivisionError("no steps")
        return 1.0

    errors = Ranks(3).run(lambda rank, gather: Sharded(FunctionEvaluator(fragile), rank, 3, gather).evaluate(GENOTYPES))
    assert sorted(type(error).__name__ for error in errors) == ["RuntimeError", "RuntimeError", "ZeroDivisionError"]
    assert "failed on rank 1: ZeroDivisionError: no steps" in str(errors[0])


def test_shares_are_even_in_number_and_in_cost() -> None:
    genotypes = [(i,) for i in range(23)]
    for world in (1, 2, 4, 30):
        shares = deal(genotypes, world, lambda g: math.exp(g[0] / 10))
        assert sorted(i for share in shares for i in share) == list(range(23))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    two = [sum(math.exp(i / 10) for i in share) for share in deal(genotypes, 2, lambda g: math.exp(g[0] / 10))]
    assert max(two) / min(two) < 1.05


def test_an_evaluator_that_loses_scores_is_found_out() -> None:
    class Lossy:
        def evaluate(self, genotypes):
            return [1.0] * (len(genotypes) - 1)

    for wrapped in (Cached(Lossy()), Sharded(Lossy(), 0, 1, lambda mine: [mine])):
        with pytest.raises(ValueError, match="Lossy returned 1 scores for 2 genotypes"):
            wrapped.evaluate(GENOTYPES[:2])
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        Sharded(AdditiveEvaluator(SCORE), 2, 2, lambda mine: [mine])
