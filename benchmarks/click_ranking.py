"""How well scores of a warm CTR supernet rank its subnets, trained from scratch.

    [torchrun --nproc-per-node N] benchmarks/click_ranking.py RUN [--networks 30] [--seeds 2] [--learning-rate 0.1]

RUN is a run folder of launch/search.py with a warm supernet. The same random networks, drawn as the search's first
population is, are scored by everything that launch/click_scoring.py has and trained `seeds` times on the training
rows, each training in one process. Printed for each score: Kendall's tau and Spearman's rho with the negated
validation log loss (mean over seeds), and bootstrap intervals over networks; and how well one seed's log loss ranks
another's, which no score can be expected to beat. Trainings are kept in RUN/trials, figures go to RUN/ranking.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subshot.launch.click_config import ClickConfig
from subshot.launch.click_contenders import Contender, Trial
from subshot.launch.click_domain import ClickDomain
from subshot.launch.click_retrain import run_trials
from subshot.launch.click_trials import val_log_loss
from subshot.launch.domain import read_config
from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Infeasible, TermScore
from subshot.search.ranking import bootstrap, kendall, spearman
from subshot.supernet.space import Genotype
from subshot.train.dist import World, joined_world
from subshot.train.run_dir import RunDir, write_json

KINDS = ("sigeo", "zico", "sigeo_reference", "one_shot")


def scores_of(domain: ClickDomain, genotypes: list[Genotype], run: RunDir, log: RunLog) -> dict[str, list[float]]:
    """Every score and every trivial baseline, higher is better; a network without a score is worst."""
    warm = domain.warm(run, log)
    found: dict[str, list[float]] = {}
    for kind in KINDS:
        domain.config = replace(domain.config, score=replace(domain.config.score, kind=kind))
        began = time.perf_counter()
        scores = domain.scorer(warm, run, log).evaluator.evaluate(genotypes)
        log.line(f"{kind}: {len(genotypes) / (time.perf_counter() - began):.2f} networks a second, set-up included")
        worst = min(float(score) for score in scores if not isinstance(score, Infeasible))
        found[kind] = [worst - 1.0 if isinstance(score, Infeasible) else float(score) for score in scores]
        if kind == "sigeo":
            assert all(isinstance(score, TermScore) for score in scores), "every network has its terms"
            terms = [score.terms for score in scores if isinstance(score, TermScore)]
            found["fisher_rao term"] = [term["fisher_rao"] for term in terms]
            found["loss term, negated"] = [-term["loss"] for term in terms]
    costs = [domain.costs(genotype) for genotype in genotypes]
    found["parameters"] = [float(cost["params"]) for cost in costs]
    found["MACs"] = [float(cost["macs"]) for cost in costs]
    found["modules"] = [float(cost["num_modules"]) for cost in costs]
    return found


def correlation(truth: list[float], scores: list[float], seed: int) -> dict[str, float]:
    tau = bootstrap(kendall, truth, scores, np.random.default_rng(seed), resamples=1000)
    rho = bootstrap(spearman, truth, scores, np.random.default_rng(seed), resamples=1000)
    return {
        "kendall": tau.value,
        "kendall_low": tau.low,
        "kendall_high": tau.high,
        "spearman": rho.value,
        "spearman_low": rho.low,
        "spearman_high": rho.high,
    }


def rank(arguments: argparse.Namespace, world: World) -> None:
    run = RunDir(arguments.run)
    config: Any = read_config(run)
    assert isinstance(config, ClickConfig), "the run is one of clicks"
    torch.set_num_threads(1)
    domain = ClickDomain(config, world)
    genotypes = domain.sampler().draw(np.random.default_rng(arguments.seed), 2 * arguments.networks)
    genotypes = list(dict.fromkeys(genotypes))[: arguments.networks]
    contenders = [Contender(f"ranked-{number}", "control", genotype) for number, genotype in enumerate(genotypes)]
    with RunLog(run, world.is_main) as log:
        scores = scores_of(domain, genotypes, run, log)
        rate = arguments.learning_rate
        trials = [[Trial(contender, rate, seed) for seed in range(arguments.seeds)] for contender in contenders]
        every = [trial for row in trials for trial in row]
        records = run_trials(every, config, domain.space, domain.data, world, run, log)
    if not world.is_main:
        return
    losses = np.array([[val_log_loss(records[trial.name]) for trial in row] for row in trials])
    diverged = int(np.isinf(losses).sum())
    losses[np.isinf(losses)] = losses[np.isfinite(losses)].max() + 1.0
    truth = (-losses.mean(axis=1)).tolist()
    table = {name: correlation(truth, values, arguments.seed) for name, values in scores.items()}
    ceiling = kendall(-losses[:, 0], -losses[:, 1]) if arguments.seeds > 1 else None
    spread = {"over networks": float(losses.mean(axis=1).std()), "over seeds": float(losses.std(axis=1).mean())}
    write_json(
        run.ranking_json,
        {
            "networks": len(genotypes),
            "seeds": arguments.seeds,
            "diverged": diverged,
            "ceiling_kendall": ceiling,
            "scores": table,
        },
    )
    print(
        f"{len(genotypes)} networks, {arguments.seeds} seeds each; median validation log loss {np.median(losses):.4f}; "
        f"{diverged} trainings diverged and count as worst"
    )
    print("standard deviations of log loss: " + ", ".join(f"{name} {value:.4f}" for name, value in spread.items()))
    if ceiling is not None:
        print(f"one seed's ranking against another's: Kendall {ceiling:+.2f}")
    print(f"{'score':22}{'Kendall (95 %)':>26}{'Spearman (95 %)':>26}")
    for name, found in table.items():
        tau = f"{found['kendall']:+.2f} ({found['kendall_low']:+.2f} to {found['kendall_high']:+.2f})"
        rho = f"{found['spearman']:+.2f} ({found['spearman_low']:+.2f} to {found['spearman_high']:+.2f})"
        print(f"{name:22}{tau:>26}{rho:>26}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with joined_world() as world:
        rank(arguments, world)


if __name__ == "__main__":
    main()
