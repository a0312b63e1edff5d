"""Retraining of a CTR run: validation chooses among the best of the search, every finalist is tuned over the same grid
of learning rates, and the test split is looked at once for each finalist and seed.

    1. the `top` best by score of the search, as many of random search, and `controls` random networks of the winner's
       cost, once each at the recipe's rate (at the lowest of the grid where that diverges); the validation split
       chooses one of each
    2. those and every baseline over the grid of learning rates; the validation split chooses each one's rate
    3. each at its rate, `seeds` times on training and validation rows together, tested

Trainings are dealt out among the processes; each runs in one of them. Finished ones are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from subshot.data.clicks import ClickEvalLoader
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.contenders import Contender, Role, Trial, baselines, searched
from subshot.launch.clicks.data import ClickData
from subshot.launch.clicks.trials import finished, keep, train, trial_settings, val_log_loss
from subshot.launch.clicks.winner import click_handover
from subshot.launch.config import to_json
from subshot.launch.domain import RetrainPlan
from subshot.launch.manifest import Element, Manifest, hash_of, numbered
from subshot.launch.run_log import RunLog
from subshot.launch.winners.handover import write_winner
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.space import Genotype
from subshot.train.claim import claimed
from subshot.train.click_metrics import over_seeds, paired_over_seeds
from subshot.train.dist import World, barrier, of_main, together, unless_stopped
from subshot.train.run_dir import RunDir, read_json, write_json

GOLDEN_ROWS = 16
COMPARED = ("log_loss", "auc", "normalised_entropy", "ece")


def first_trials(
    plan: RetrainPlan, config: ClickConfig, space: NasrecSpace, data: ClickData, run: RunDir
) -> tuple[list[list[Contender]], list[Contender], list[Trial], list[Trial]]:
    """(Groups of the search's networks, baselines, a trial of each of the former, the baselines' over the grid): all
    that
    does not depend on another training."""
    settings = config.retrain
    top = settings.top if plan.top is None else plan.top
    controls = settings.controls if plan.controls is None else plan.controls
    groups = searched(read_json(run.summary_json), top, controls)
    others = baselines(settings.baselines, space, data.prepared.dataset)
    rate = settings.recipe.learning_rate
    first = [Trial(contender, rate, 0) for group in groups for contender in group]
    tuned = [Trial(contender, value, 0) for contender in others for value in grid_of(config)]
    return groups, others, first, tuned


def grid_of(config: ClickConfig) -> list[float]:
    """Learning rates that finalists are tuned over, rising."""
    return sorted({*config.retrain.learning_rates, config.retrain.recipe.learning_rate})


def planned(plan: RetrainPlan, config: ClickConfig, space: NasrecSpace, data: ClickData, run: RunDir) -> Manifest:
    _, _, first, tuned = first_trials(plan, config, space, data, run)
    lines = [
        {
            "name": trial.name,
            "network": f"{trial.contender.name}-lr{trial.learning_rate:g}",
            "role": trial.contender.role,
            "genotype": trial.contender.genotype,
            "genotype_hash": hash_of([space.name, trial.contender.name, to_json(trial.contender.genotype)]),
            "seed": trial.seed,
            "learning_rate": trial.learning_rate,
            "score": trial.contender.score,
            "result": str(run.trial_json(trial.name).relative_to(run.root)),
        }
        for trial in (*first, *tuned)
    ]
    return Manifest(trainings_hash(config, data), "val/log_loss", numbered(lines))


def trainings_hash(config: ClickConfig, data: ClickData) -> str:
    """Of all that a training from scratch depends on, beside its network, rate and seed."""
    settings = [to_json(part) for part in (config.retrain, config.space, config.tables)]
    return hash_of([settings, config.seed, data.fingerprint()])


def retrain_element(
    element: Element, config: ClickConfig, space: NasrecSpace, data: ClickData, world: World, run: RunDir, log: RunLog
) -> Path:
    """One trial of the manifest; returns its record's path."""
    assert element.learning_rate is not None, "trials have a rate"
    name = element.name.rsplit("-lr", 1)[0]
    contender = Contender(name, cast(Role, element.role), element.genotype, element.score)
    trial = Trial(contender, element.learning_rate, element.seed)
    run_trials([trial], config, space, data, world, run, log)
    return run.trial_json(trial.name)


def retrain(
    plan: RetrainPlan, config: ClickConfig, space: NasrecSpace, data: ClickData, world: World, run: RunDir, log: RunLog
) -> Path:
    """Returns the winner's folder."""
    settings = config.retrain
    seeds = settings.seeds if plan.seeds is None else plan.seeds
    groups, others, first, tuned = first_trials(plan, config, space, data, run)
    log.line(f"beside the search's networks: {', '.join(other.name for other in others) or 'no baseline'}")
    rate, grid = settings.recipe.learning_rate, grid_of(config)
    records = run_trials([*first, *tuned], config, space, data, world, run, log)
    again = [replace(trial, learning_rate=grid[0]) for trial in first if records[trial.name]["diverged"] is not None]
    records |= run_trials(again, config, space, data, world, run, log)
    chosen = [chosen_one(group, records, (rate, grid[0])) for group in groups if group]
    more = [Trial(contender, value, 0) for contender in chosen for value in grid]
    records |= run_trials(more, config, space, data, world, run, log)
    finals: list[Trial] = []
    for contender in (*chosen, *others):
        value = best_rate(contender, grid, records)
        if value is not None:
            finals += [Trial(contender, value, seed, tested=True) for seed in range(seeds)]
            if len(grid) > 2 and value in (grid[0], grid[-1]):
                log.line(f"{contender.name}: its rate {value:g} is at the edge of the grid, so another may be better")
        elif contender == chosen[0]:
            raise ValueError(
                "every training of the search's networks diverged; search again with --retrain.layer-norm, or with "
                "lower --retrain.learning-rates"
            )
        else:
            log.line(f"{contender.name}: diverged at every learning rate of the grid, so it is left out")
    tested = run_trials(finals, config, space, data, world, run, log, finals[0])
    if world.is_main:
        comparison = compare(finals, records, tested, space, settings.layer_norm, run, data)
        write_json(run.comparison_json, comparison)
        for line in lines_of(comparison):
            log.line(line)
        assert chosen[0].genotype is not None
        log.line(f"{chosen[0].name}, block by block: {in_words(space, chosen[0].genotype)}")
    barrier(world)
    if tested[finals[0].name]["diverged"] is not None:
        raise ValueError(
            f"{finals[0].name} diverged on training and validation rows together, so there is nothing to hand over; "
            "search again with --retrain.layer-norm, or with lower --retrain.learning-rates"
        )
    return run.winner("1").root


def in_words(space: NasrecSpace, genotype: Genotype) -> str:
    """What each block that the classifier depends on holds: operators with their widths, inputs in brackets."""
    words = []
    for number, block in enumerate(space.decode(genotype).blocks, start=1):
        parts = []
        if block.dense_ops:
            read = "+".join(map(str, block.dense_in or (*block.left, *block.right)))
            parts.append(f"{block.dense_ops[0]} {block.dense_dim} [{read}]")
        if block.sparse_ops:
            parts.append(f"{block.sparse_ops[0]} {block.sparse_dim} [{'+'.join(map(str, block.sparse_in))}]")
        parts += [name for name, on in (("fm", block.fm), ("dense_to_sparse", block.dense_to_sparse)) if on]
        if parts:
            words.append(f"{number}: {', '.join(parts)}")
    return "; ".join(words)


def best_rate(contender: Contender, grid: Sequence[float], records: dict[str, dict[str, Any]]) -> float | None:
    """The learning rate with the lowest validation log loss; None where all diverged."""
    rate = min(grid, key=lambda value: val_log_loss(records[Trial(contender, value, 0).name]))
    return None if records[Trial(contender, rate, 0).name]["diverged"] is not None else rate


def chosen_one(group: Sequence[Contender], records: dict[str, dict[str, Any]], rates: tuple[float, float]) -> Contender:
    """The one with the lowest validation log loss at the recipe's rate, or, where that diverged, at the lowest."""

    def lowest(contender: Contender) -> float:
        tried = [records.get(Trial(contender, rate, 0).name) for rate in rates]
        return min(val_log_loss(record) for record in tried if record is not None)

    return min(group, key=lowest)


def run_trials(
    trials: Sequence[Trial],
    config: ClickConfig,
    space: NasrecSpace,
    data: ClickData,
    world: World,
    run: RunDir,
    log: RunLog,
    deliverable: Trial | None = None,
) -> dict[str, dict[str, Any]]:
    """The record of every trial by name. Trials are dealt to the processes; those that are finished are only read.

    deliverable: the trial whose network is handed over; its folder is written before its record.
    """
    found = {trial.name: finished(trial, config, data, run) for trial in trials}
    missing = [
        trial
        for trial in trials
        if found[trial.name] is None or (trial == deliverable and not handed_over(trial, config, data, run))
    ]
    # One process looks: another may see the first results already, or, on a shared file system, not see old ones yet.
    found, missing = of_main((found, missing), world)

    def run_one(trial: Trial) -> dict[str, Any]:
        with claimed(run.claim_json(f"training-{trial.name}"), f"the training of {trial.name}"):
            if trial == deliverable or finished(trial, config, data, run) is None:  # no element of an array was faster
                trained = train(trial, config, space, data, run, world, log)
                if trial == deliverable and trained.record["diverged"] is None:
                    hand_over(trial, trained.network, trained.tables, trained.record, config, space, data, run)
                keep(trial, trained, run)
        record = finished(trial, config, data, run)
        assert record is not None, "it was kept just now"
        log.line(f"{trial.name}: {shown_loss(record)}")
        return record

    mine = missing[world.rank :: world.size]
    gathered = together(lambda: unless_stopped(mine, run_one, world), world)
    for place, trial in enumerate(missing):
        found[trial.name] = gathered[place % world.size][place // world.size]
    records = {name: record for name, record in found.items() if record is not None}
    assert len(records) == len(found), "every trial has run on some process"
    for trial in missing:
        if trial not in mine:
            log.line(f"{trial.name}: {shown_loss(records[trial.name])}")
    return records


def shown_loss(record: dict[str, Any]) -> str:
    if record["diverged"] is not None:
        return f"diverged ({record['diverged']})"
    split = "test" if "test/log_loss" in record else "val"
    return f"{split} log loss {record[f'{split}/log_loss']['value']:.4f}, AUC {record[f'{split}/auc']['value']:.4f}"


def handed_over(trial: Trial, config: ClickConfig, data: ClickData, run: RunDir) -> bool:
    """Whether the winner's folder holds this trial's network, and not one of an earlier retraining. A trial that
    diverged has no folder."""
    record = finished(trial, config, data, run)
    if record is not None and record["diverged"] is not None:
        return True
    folder = run.winner("1")
    if not folder.checksums.is_file():
        return False
    metrics = read_json(folder.metrics_json)
    return bool(
        metrics.get("contender") == trial.contender.name
        and metrics.get("settings") == trial_settings(trial, config, data)
    )


def hand_over(
    trial: Trial,
    network: torch.nn.Module,
    tables: Any,
    record: dict[str, Any],
    config: ClickConfig,
    space: NasrecSpace,
    data: ClickData,
    run: RunDir,
) -> None:
    assert trial.contender.genotype is not None
    cap = config.retrain.max_rows
    rows = ClickEvalLoader(data.split("test"), batch_size=GOLDEN_ROWS, max_rows_per_table=cap)
    (sample,) = islice(rows, 1)
    genotype = space.canonical(trial.contender.genotype)
    metrics = record | {"name": "1", "search/score": trial.contender.score}
    before = finished(replace(trial, tested=False, seed=0), config, data, run)  # by which its rate was chosen
    metrics |= {name: value for name, value in (before or {}).items() if name.startswith("val/")}
    layer_norm = config.retrain.layer_norm
    handed = click_handover(network, tables, space, genotype, data, cap, layer_norm, sample, metrics, run)
    write_winner(run.winner("1"), handed)


def compare(
    finals: Sequence[Trial],
    records: dict[str, dict[str, Any]],
    tested: dict[str, dict[str, Any]],
    space: NasrecSpace,
    layer_norm: bool,
    run: RunDir,
    data: ClickData,
) -> dict[str, Any]:
    """Test metrics of each finalist over its seeds, and the winner's paired differences from the others on the test
    rows."""
    rows: list[dict[str, Any]] = []
    diverged: dict[str, str] = {}
    first = finals[0].contender
    for contender in dict.fromkeys(trial.contender for trial in finals):
        trials = [trial for trial in finals if trial.contender == contender]
        found = [tested[trial.name] for trial in trials if tested[trial.name]["diverged"] is None]
        if len(found) < len(trials):
            diverged[contender.name] = f"{len(trials) - len(found)} of {len(trials)} tested trainings diverged"
        if not found:
            continue
        row: dict[str, Any] = {
            "name": contender.name,
            "role": contender.role,
            "learning_rate": trials[0].learning_rate,
            "trainings": len(found),
            "params": found[0]["params"],
            "macs": space.cost(contender.genotype, layer_norm).macs if contender.genotype is not None else None,
            "val/log_loss": val_log_loss(records[replace(trials[0], seed=0, tested=False).name]),
        }
        for metric in COMPARED:
            row[f"test/{metric}"] = over_trainings([record[f"test/{metric}"] for record in found])
        if contender != first and rows and rows[0]["name"] == first.name:
            row["beside_winner"] = beside(trials, [t for t in finals if t.contender == first], tested, run)
        rows.append(row)
    split = data.split("test")
    return {
        "test_rows": len(split),
        "base_rate": split.base_rate,
        "bayes_log_loss": split.bayes_log_loss,
        "synthetic": data.prepared.synthetic,
        "networks": rows,
        "diverged": diverged,
    }


def over_trainings(estimates: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and spread over seeds; of one training its own interval, over rows."""
    if len(estimates) > 1:
        return asdict(over_seeds([estimate["value"] for estimate in estimates]))
    return {"n": len(estimates), "mean": estimates[0]["value"], "sd": None} | {
        side: estimates[0][side] for side in ("low", "high")
    }


def beside(theirs: Sequence[Trial], ours: Sequence[Trial], tested: dict[str, Any], run: RunDir) -> dict[str, float]:
    """The other network's mean log loss minus the winner's on the same rows (above 0: the winner is better); the
    interval is for other rows and other seeds."""

    def logits(trials: Sequence[Trial]) -> tuple[list[torch.Tensor], torch.Tensor]:
        kept = [np.load(run.trial_logits(t.name)) for t in trials if tested[t.name]["diverged"] is None]
        return [torch.from_numpy(part["logits"]) for part in kept], torch.from_numpy(kept[0]["labels"])

    (other, labels), (winner, _) = logits(theirs), logits(ours)
    found = paired_over_seeds(other, winner, labels)
    return {"log_loss": found.value, "low": found.low, "high": found.high}


def lines_of(comparison: dict[str, Any]) -> list[str]:
    """The table that ends a retraining, and in a sentence who is better than whom."""
    heads = f"{'lr':>6}{'test log loss (mean, 95 % interval)':>44}{'AUC':>9}{'M MACs':>8}{'M params':>9}"
    lines = [f"{'network':20}{heads}"]
    for row in comparison["networks"]:
        loss, auc = row["test/log_loss"], row["test/auc"]
        interval = f"{loss['mean']:.4f} ({loss['low']:.4f} to {loss['high']:.4f}, {loss['n']} trainings)"
        macs = f"{row['macs'] / 1e6:8.2f}" if row["macs"] is not None else f"{'':8}"
        lines.append(
            f"{row['name']:20}{row['learning_rate']:6g}{interval:>44}{auc['mean']:9.4f}{macs}{row['params'] / 1e6:9.2f}"
        )
    lines += [f"{name}: {words}" for name, words in comparison["diverged"].items()]
    if comparison["bayes_log_loss"] is not None:
        lines.append(f"the least that any model can reach on these rows (Bayes): {comparison['bayes_log_loss']:.4f}")
    winner = comparison["networks"][0]["name"]
    for row in comparison["networks"][1:]:
        if "beside_winner" in row:
            found = row["beside_winner"]
            verdict = "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "not told apart"
            lines.append(
                f"{winner} beside {row['name']}: {found['log_loss']:+.4f} log loss ({found['low']:+.4f} to "
                f"{found['high']:+.4f}): {verdict}"
            )
    return lines
