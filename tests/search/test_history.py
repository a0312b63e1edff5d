"""The record of a search: lines, digests and the shared log."""

import copy
import hashlib
import json
import math

from subshot.search.evaluator import Infeasible
from subshot.search.history import EMPTY_DIGEST, Candidate, History, Proposal, chained, scored


def candidates(n: int, offset: int = 0) -> list[Candidate]:
    return [scored(Proposal((i, offset)), i, 0, 0.1 * i) for i in range(n)]


def test_a_candidate_survives_json() -> None:
    for score in (1 / 3, Infeasible("dead")):
        candidate = scored(Proposal((1, 0), (4, 2)), 7, 3, score)
        line = json.loads(json.dumps(candidate.to_json() | {"costs": {"macs": 4.7e8}, "method": "evolution"}))
        assert Candidate.from_json(line) == candidate
    assert scored(Proposal((1, 0), (4, 2)), 7, 3, 0.5).to_json() == {
        "index": 7, "generation": 3, "genotype": [1, 0], "parents": [4, 2], "score": 0.5,
    }  # fmt: skip


def test_only_finite_scores_become_scores() -> None:
    for score in (math.nan, math.inf, -math.inf):
        candidate = scored(Proposal((0,)), 0, 0, score)
        assert candidate.score is None and candidate.reason == f"the score is {score}"
    assert scored(Proposal((0,)), 0, 0, Infeasible("dead")).reason == "dead"


def test_the_digest_is_a_chain_over_the_lines() -> None:
    log = candidates(3)
    digest = EMPTY_DIGEST
    for candidate in log:
        line = json.dumps(candidate.to_json(), separators=(",", ":"))
        digest = hashlib.sha256(f"{digest}{line}".encode()).hexdigest()
    assert chained(EMPTY_DIGEST, log) == digest == chained(chained(EMPTY_DIGEST, log[:1]), log[1:])
    assert chained(EMPTY_DIGEST, log[::-1]) != digest


def test_branches_of_a_history_do_not_see_each_other() -> None:
    root = History(candidates(3))
    left = root.extended([scored(Proposal((8, 8)), 3, 1, 0.0)])
    right = root.extended([scored(Proposal((9, 9)), 3, 1, 0.0)])
    assert (len(root), len(left), len(right)) == (3, 4, 4)
    assert left.has((8, 8)) and not left.has((9, 9))
    assert right.has((9, 9)) and not right.has((8, 8))
    assert not root.has((8, 8)) and not root.has((9, 9)) and root.has((2, 0))
    assert list(root) == candidates(3) == root[:] and root[-1] == candidates(3)[2]
    further = left.extended([scored(Proposal((9, 9)), 4, 1, 0.0)])
    assert further.has((9, 9)) and not left.has((9, 9))


def test_the_best_so_far_skips_what_has_no_score() -> None:
    scores = [Infeasible("dead"), 1.0, 0.5, math.nan, 2.0]
    log = History(scored(Proposal((i,)), i, 0, score) for i, score in enumerate(scores))
    assert log.best_so_far() == [None, 1.0, 1.0, 1.0, 2.0]


def test_fitness_orders_by_score_and_then_by_age() -> None:
    first, second, better = (scored(Proposal((i,)), i, 0, s) for i, s in enumerate([1.0, 1.0, 2.0]))
    assert better.fitness > first.fitness > second.fitness
    assert copy.deepcopy(first) is first
