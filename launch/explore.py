"""The search stage of a run: evolution or NSGA-II, the random control, and where the score is additive the
exact optimum.

Every process runs this alike; only the evaluator shares work. After each generation the history and the state are on
disk, so a stopped search goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from subshot.launch.config import RunConfig
from subshot.launch.domain import Networks, Scorer
from subshot.launch.front import Found, front_summary
from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Infeasible, Score, TermScore
from subshot.search.evolution import State, init, random_search, why_finished
from subshot.search.history import Candidate, Proposal
from subshot.search.knapsack import optimum
from subshot.search.methods import Method, described, method_name, method_of
from subshot.search.objectives import Constraint, Limit
from subshot.search.sampling import LegalSampler
from subshot.supernet.chain import ChainSpace
from subshot.supernet.space import Additive, Genotype, describe, network_hash
from subshot.train.dist import World, barrier, heed_stop
from subshot.train.run_dir import RunDir, append_jsonl, json_line, read_json, replacing, whole_rows, write_json

SAME_COST = 0.05


def explore(config: RunConfig, networks: Networks, scorer: Scorer, world: World, run: RunDir, log: RunLog) -> None:
    """Runs or resumes both searches, and writes history.jsonl, state.json and summary.json."""
    wanted = f"{config.evolution.budget} candidates each for {described(config.evolution)} and the random control"
    log.line(f"score: {scorer.name}; {wanted}")
    sampler = networks.sampler()
    rows = whole_rows(run.history_jsonl, log.line)
    main = _filed_under(config, rows)
    searches = {
        name: method_of(settings, sampler, networks.costs)
        for name, settings in ((main, config.evolution), ("random", random_search(config.evolution)))
    }
    states = _saved_states(searches, config.seed, rows, run, log)
    barrier(world)
    if world.is_main:
        known = [row for method in states for row in rows if _is_known(row, method, states[method])]
        with replacing(run.history_jsonl) as temporary:
            temporary.write_text("".join(json_line(row) + "\n" for row in known), encoding="utf-8")
    barrier(world)
    for name, method in searches.items():
        states[name] = _run(name, method, networks, scorer, states, world, run, log)
    if world.is_main:
        write_json(run.summary_json, _summary(config, networks, searches[main], scorer, states, log))


def _filed_under(config: RunConfig, rows: list[dict[str, Any]]) -> str:
    """What the search beside the random control is called in the run's files. A name that the history has stays:
    earlier versions filed every method as evolution."""
    return next((row["method"] for row in rows if row["method"] != "random"), method_name(config.evolution))


def _is_known(row: dict[str, Any], method: str, state: State) -> bool:
    """Whether the saved state has seen this candidate; later ones were written before a stop: they are asked again."""
    return bool(row["method"] == method and row["index"] < state.evaluated)


def _saved_states(
    searches: dict[str, Method],
    seed: int,
    rows: list[dict[str, Any]],
    run: RunDir,
    log: RunLog,
) -> dict[str, State]:
    """Where each search stood when the run was last saved; at its beginning where it was not. Their seeds differ.

    Where state.json is damaged, or knows of more than the history holds, the search is replayed from the history.
    """
    try:
        saved = read_json(run.state_json) if run.state_json.is_file() else {}
    except ValueError as error:
        log.line(f"{error}; it is made anew from {run.history_jsonl}")
        saved = dict.fromkeys(searches)
    states = {}
    for offset, (name, method) in enumerate(searches.items()):
        state = init(seed + offset)
        theirs = [Candidate.from_json(row) for row in rows if row["method"] == name]
        if name in saved:
            try:
                state = State.from_json(saved[name], theirs)
            except (ValueError, TypeError, KeyError) as error:
                state = replayed(method, state, theirs)
                log.line(
                    f"{run.state_json} does not fit the history ({error}); {name} goes on after the "
                    f"{state.evaluated} candidates that do"
                )
        states[name] = state
    return states


def replayed(method: Method, state: State, known: Sequence[Candidate]) -> State:
    """The state after the whole generations of `known` that this search would have proposed itself, in order."""
    while proposals := method.ask(state):
        theirs = known[state.evaluated : state.evaluated + len(proposals)]
        if [c.genotype for c in theirs] != [p.genotype for p in proposals]:
            break
        scores = [Infeasible(c.reason or "") if c.score is None else c.score for c in theirs]
        state = method.tell(state, proposals, scores)
    return state


def _run(
    name: str,
    method: Method,
    networks: Networks,
    scorer: Scorer,
    states: dict[str, State],
    world: World,
    run: RunDir,
    log: RunLog,
) -> State:
    state = states[name]
    begun, seconds = state.evaluated, 0.0

    def generations() -> Iterator[Proposal]:
        nonlocal state, seconds
        while proposals := method.ask(state):
            began = time.perf_counter()
            scores = scorer.evaluator.evaluate([proposal.genotype for proposal in proposals])
            seconds += time.perf_counter() - began
            before = state.evaluated
            state = method.tell(state, proposals, scores)
            states[name] = state
            if world.is_main:
                append_jsonl(run.history_jsonl, _rows(name, state.history[before:], scores, networks))
                write_json(run.state_json, {name: known.to_json() for name, known in states.items()})
            yield from proposals
            heed_stop(world, f"after {state.evaluated} candidates of {name}")

    for _ in log.progress(generations(), method.config.budget, name, state.evaluated):
        pass
    best = best_score(state)
    if best is None:
        raise ValueError(f"{name}: not one of {state.evaluated} candidates could be scored; see {run.history_jsonl}")
    rate = f"; {(state.evaluated - begun) / seconds:.3g} candidates scored a second" if seconds else ""
    log.line(f"{name}: best score {best:.6g}; {why_finished(method.config, method.sampler, state)}{rate}")
    return state


def best_score(state: State) -> float | None:
    """Of all candidates; None before the first score."""
    return max((c.score for c in state.history if c.score is not None), default=None)


def _rows(
    method: str, candidates: Sequence[Candidate], scores: Sequence[Score], networks: Networks
) -> list[dict[str, Any]]:
    rows = []
    for candidate, score in zip(candidates, scores, strict=True):
        row = {"method": method, **candidate.to_json(), "costs": networks.costs(candidate.genotype)}
        rows.append(row | {"terms": score.terms} if isinstance(score, TermScore) else row)
    return rows


def _summary(
    config: RunConfig, networks: Networks, method: Method, scorer: Scorer, states: dict[str, State], log: RunLog
) -> dict[str, Any]:
    """What the run found, and what is to be retrained: the best by whatever method (of equal ones the random
    control's last), after it, where NSGA-II searched, networks that are spread over the front; and random networks of
    the winner's cost."""
    sampler = method.sampler
    found: dict[str, Any] = {
        "score": scorer.name,
        "caution": scorer.caution,
        "digests": {name: state.digest for name, state in states.items()},
        "evaluated": {name: state.evaluated for name, state in states.items()},
        "legal_fraction": sampler.legal_fraction(np.random.default_rng(config.seed)),
    }
    seen = [
        Found(name, c.genotype, c.score) for name, state in states.items() for c in state.best if c.score is not None
    ]
    exact: list[Found] = []
    if scorer.additive is not None:
        assert isinstance(sampler, LegalSampler) and isinstance(sampler.space, ChainSpace), "sums are over chains"
        genotype, _ = exact_optimum(sampler.space, scorer.additive, sampler.constraints)
        score = scorer.additive(genotype)  # added up as the searches' scores were, so that equals compare equal
        exact = [Found("optimum", genotype, score)]
        found["optimum"] = _network(networks, genotype, score, "optimum")
        for name, state in states.items():
            reached = best_score(state)
            assert reached is not None
            regret = (score - reached) / max(abs(score), 1e-12)
            log.line(f"{name}: {abs(100 * regret):.3f} % below the exact optimum {score:.6g}")
            found[f"{name}_regret"] = regret
    best: dict[Genotype, Found] = {}
    for network in sorted((*seen, *exact), key=lambda one: -one.score):
        best.setdefault(network.genotype, network)
    chosen = {"best": list(best.values())}
    chosen |= {name: [one for one in seen if one.method == name] for name in states}
    if config.evolution.method == "nsga2":
        front = front_summary(config.evolution.costs, states, exact, networks.costs)
        log.line(front.line)
        chosen = front.chosen
        found["front"] = [_network(networks, one.genotype, one.score, one.method) for one in front.networks]
        found["front_costs"] = list(config.evolution.costs)
        found["front_shares"] = front.shares
    listed = {
        name: [_network(networks, one.genotype, one.score, one.method) for one in ones[: config.evolution.best]]
        for name, ones in chosen.items()
    }
    found["best"] = listed.pop("best")
    found["best_of"] = listed
    winner = tuple(found["best"][0]["genotype"])
    controls = same_cost_networks(networks, winner, config.seed, config.evolution.controls)
    found["controls"] = [_network(networks, genotype, None, "control") for genotype in controls]
    costs = found["best"][0]["costs"]
    words = describe(networks.space, winner)
    log.line(f"winner, by {found['best'][0]['method']}: {words}  ({costs['macs'] / 1e6:.2f} M MACs)")
    return found


def _network(networks: Networks, genotype: Genotype, score: float | None, method: str) -> dict[str, Any]:
    return {
        "method": method,
        "genotype": list(genotype),
        "choices": describe(networks.space, genotype),
        "hash": network_hash(networks.space, genotype),
        "score": score,
        "costs": networks.costs(genotype),
    }


def exact_optimum(space: ChainSpace, score: Additive, constraints: tuple[Constraint, ...]) -> tuple[Genotype, float]:
    """The best legal canonical genotype and its score. Runs of interchangeable layers count as one decision each, so
    that a network stands in the problem once, in the form that the search scores."""
    grouped = grouped_additive(space, score)
    best = optimum(grouped, [Constraint(grouped_additive(space, c.cost), c.limit) for c in constraints])
    genotype = tuple(g for group, choice in zip(space.groups, best.genotype, strict=True) for g in group[choice])
    return genotype, best.score


def grouped_additive(space: ChainSpace, additive: Additive) -> Additive:
    """The same quantity over the space's groups of layers: one entry for each canonical setting of a group."""
    table, first = [], 0
    for group in space.groups:
        width = len(group[0])
        rows = additive.table[first : first + width]
        table.append(tuple(sum(row[c] for row, c in zip(rows, setting, strict=True)) for setting in group))
        first += width
    return Additive(additive.base, tuple(table))


def same_cost_networks(networks: Networks, winner: Genotype, seed: int, count: int) -> list[Genotype]:
    """Random networks whose MACs are within 5 % of the winner's: what the winner has to beat. Fewer where there are
    no more."""
    macs = networks.costs(winner)["macs"]
    for width in (SAME_COST, 2 * SAME_COST, 4 * SAME_COST):
        sampler = networks.sampler(Limit("macs", maximum=macs * (1 + width), minimum=macs * (1 - width)))
        drawn = [networks.space.canonical(g) for g in sampler.draw(np.random.default_rng(seed), max(50, 2 * count))]
        others = [g for g in dict.fromkeys(drawn) if g != winner]
        if len(others) >= count:
            break
    return others[:count]
