"""The record of a search: who was proposed, by which parents, and what came out.

A candidate is one line of JSON, and the digest of a history is the chain

    digest[0] = 64 zeros,    digest[i + 1] = sha256(digest[i] + line[i])

so that it grows by one line at a time, and one string tells whether two histories are the same, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from deap import base

from subshot.search.evaluator import Infeasible, Score
from subshot.supernet.space import Genotype

EMPTY_DIGEST = "0" * 64


class ScoreFitness(base.Fitness):
    """(score, index): the higher score is better, of equal scores the earlier candidate; so no two are ever equal."""

    weights = (1.0, -1.0)


@dataclass(frozen=True)
class Proposal:
    """A genotype to score, and the indices of the candidates it came from: none for a fresh draw."""

    genotype: Genotype
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A scored proposal; the individual that DEAP selects from.

    `score` is None where the evaluator found the genotype infeasible or its score was no finite number; `reason` says
    so. Age is the present generation minus `generation`.
    """

    index: int
    generation: int
    genotype: Genotype
    parents: tuple[int, ...]
    score: float | None
    reason: str | None = None

    @cached_property
    def fitness(self) -> ScoreFitness:
        assert self.score is not None, "an infeasible candidate has no fitness"
        return ScoreFitness((self.score, self.index))

    def __deepcopy__(self, memo: dict[int, Any]) -> Candidate:
        return self  # immutable; deap's hall of fame copies what it keeps

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "index": self.index,
            "generation": self.generation,
            "genotype": list(self.genotype),
            "parents": list(self.parents),
            "score": self.score,
        }
        return record if self.reason is None else record | {"infeasible": self.reason}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Candidate:
        """The inverse of `to_json`; further keys, such as the costs of a run's history, are not read."""
        return cls(
            record["index"],
            record["generation"],
            tuple(record["genotype"]),
            tuple(record["parents"]),
            record["score"],
            record.get("infeasible"),
        )


def scored(proposal: Proposal, index: int, generation: int, score: Score) -> Candidate:
    """The candidate of a proposal. A score that is no finite number becomes infeasible, with that as the reason."""
    reason = None
    if isinstance(score, Infeasible):
        value, reason = None, score.reason
    else:
        value = float(score)
        if not math.isfinite(value):
            value, reason = None, f"the score is {value}"
    return Candidate(index, generation, proposal.genotype, proposal.parents, value, reason)


def chained(digest: str, candidates: Iterable[Candidate]) -> str:
    """The digest after these candidates (module docstring)."""
    for candidate in candidates:
        line = json.dumps(candidate.to_json(), separators=(",", ":"))
        digest = hashlib.sha256((digest + line).encode()).hexdigest()
    return digest


class History(Sequence[Candidate]):
    """All candidates in order of evaluation; immutable to the outside, and quick to extend and to ask.

    `extended` returns a new history. The newest one shares its storage with those it grew from, each of which sees
    only its own length; a second branch from an older one copies. So a generation costs its own size and not that of
    the past.
    """

    __slots__ = ("_first_seen", "_length", "_log")

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._log: list[Candidate] = []
        self._first_seen: dict[Genotype, int] = {}
        self._append(candidates)
        self._length = len(self._log)

    def _append(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            self._first_seen.setdefault(candidate.genotype, len(self._log))
            self._log.append(candidate)

    def extended(self, candidates: Iterable[Candidate]) -> History:
        longer = self if len(self._log) == self._length else History(self)
        longer._append(candidates)
        view = History.__new__(History)
        view._log, view._first_seen, view._length = longer._log, longer._first_seen, len(longer._log)
        return view

    def has(self, genotype: Genotype) -> bool:
        """Whether a candidate with this genotype is in the history."""
        return self._first_seen.get(genotype, self._length) < self._length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._log[i] for i in range(*index.indices(self._length))]
        return self._log[range(self._length)[index]]

    def __iter__(self) -> Iterator[Candidate]:
        return (self._log[i] for i in range(self._length))

    def best_so_far(self) -> list[float | None]:
        """The best score among the first i + 1 candidates, for every i; None before the first score."""
        best: float | None = None
        curve = []
        for candidate in self:
            if candidate.score is not None and (best is None or candidate.score > best):
                best = candidate.score
            curve.append(best)
        return curve
