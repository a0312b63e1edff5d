"""Whether the score that drove a search ranks networks of the user's own task: launch/correlate.py RUN [--sample N]
[--seeds K] [--proxies a,b] [--freeze | --index I]

Trains N networks of the run from scratch, chosen over the whole range of the score, and compares the order of the score
with theirs; beside it MACs, parameters, and proxies of freshly initialised networks. A stopped command goes on when it
is given again, under torchrun on any number of processes. --freeze writes the list of trainings, and --index I trains
one line of it: an element of a job array; when all are done, the command without --index adds up. A larger --sample
then trains what is missing of it. Writes RUN/ranking.json and RUN/report.html; the last line of standard output is the
path of the former.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from subshot.launch.correlation.ranking import Trained, judged
from subshot.launch.correlation.sample import DEFAULT, Scored, planned, scored_networks, stratified
from subshot.launch.correlation.scores import chosen_kinds, measured, terms_of
from subshot.launch.correlation.trainings import Trainings, value_of
from subshot.launch.domain import Domain
from subshot.launch.job import claimed_by_main, job
from subshot.launch.manifest import (
    CORRELATION,
    LEAST_SAMPLE,
    MOST_SAMPLE,
    Element,
    Manifest,
    element_of,
    freeze,
    is_finished,
    read_manifest,
)
from subshot.launch.options import at_least
from subshot.launch.report import write_report
from subshot.launch.reports.honesty import as_text
from subshot.launch.retrain import open_finished
from subshot.launch.run_log import RunLog
from subshot.launch.started import again
from subshot.supernet.space import Genotype
from subshot.train.dist import World, barrier, of_main
from subshot.train.run_dir import RunDir, read_json, write_json


@dataclass(frozen=True)
class CorrelateRunArguments:
    """Which networks are trained, and what is compared with them."""

    run: tyro.conf.Positional[Path]
    """The run folder of a finished search."""
    sample: int | None = None
    """Networks that are trained, 8 to 30; None: as frozen, or 12. Fewer than 20 give wide intervals."""
    seeds: int | None = None
    """Trainings of each; None: as frozen, or 1. From two on it shows how much of an order is noise of training."""
    proxies: str = ""
    """Proxies to judge as well, with commas between them, or all."""
    kinds: str = ""
    """Other kinds of score that the warm supernet can give, to judge as well: values of the search's --score.kind, with
    commas between them. Not for training-free runs."""
    index: int | None = None
    """Only this line of the frozen list, counted from 0: one element of a job array. --freeze comes first."""
    freeze: bool = False
    """Train nothing: write down, as correlation/manifest.json, what the elements of a job array will train."""
    epochs: int | None = None
    """Instead of the preset's; the schedule of the learning rate is rescaled to it."""
    data: Path | None = None
    """Instead of the folder that the search used; the same data elsewhere."""
    accept: tuple[str, ...] = ()
    """Properties of the data that may differ from those of the search, each by the name that the refusal gives it."""
    resamples: int = 1000
    """Of the bootstrap."""
    checkpoint_minutes: float = 10.0
    """A checkpoint is written at least so often; a kill without notice loses no more training than that."""
    timeout_minutes: float | None = None
    """How long a process waits for another one before it gives up; None: 30 for images, 1440 for CTR."""

    def __post_init__(self) -> None:
        if self.sample is not None and not LEAST_SAMPLE <= self.sample <= MOST_SAMPLE:
            raise ValueError(f"--sample is {self.sample}; it must be {LEAST_SAMPLE} to {MOST_SAMPLE}")
        at_least("--", self, seeds=1, resamples=1)


def correlate_run(arguments: CorrelateRunArguments, names: Sequence[str], world: World) -> None:
    """names: of the proxies."""
    run = RunDir(arguments.run)
    config, domain = open_finished(run, arguments.epochs, arguments.data, arguments.accept, world)
    kinds = chosen_kinds(arguments.kinds, config)
    trainings = domain.trainings()
    manifest = of_main(manifest_of(arguments, run, domain, trainings, config.seed, world), world)
    if arguments.freeze:
        if world.is_main:
            freeze(run, manifest, CORRELATION)
            print(len(manifest.elements))
        return
    name, index = "correlate", arguments.index
    if index is not None:
        name = f"correlate-{index}"
    elements = manifest.elements if index is None else (element_of(run, manifest, index, CORRELATION),)
    part = None if index is None else name
    claim = claimed_by_main(run.claim_json(name), f"launch/correlate.py as {name} in {run.root}", world)
    with claim:
        with job(run, name, again(), world) as pulse, RunLog(run.correlation, world.is_main, pulse, part) as log:
            if index is None and world.is_main:
                freeze(run, manifest, CORRELATION)
            barrier(world)
            trainings.train(elements, run, log)
            if index is None:
                genotypes = list(dict.fromkeys(genotype_of(element) for element in elements))
                settings = (manifest.config_hash, config, trainings, world, run, log)
                columns = terms_of(genotypes, trainings, run) | measured(names, kinds, genotypes, *settings)
                if world.is_main:
                    sample = trained_networks(elements, domain, trainings, run)
                    ranking = judged(sample, columns, trainings, config.seed, arguments.resamples)
                    write_json(run.ranking_json, ranking)
                    for line in as_text(ranking):
                        log.line(line)
        if index is not None:
            if world.is_main:
                print(run.root / elements[0].result)
            return
        if world.is_main:  # after the job, which the report would else say to be running
            write_report(run)
            log.line(f"report: {run.report_html}")
            print(run.ranking_json)
        barrier(world)


def manifest_of(
    arguments: CorrelateRunArguments, run: RunDir, domain: Domain, trainings: Trainings, seed: int, world: World
) -> Manifest:
    """The frozen list, or what would be frozen: the first one, or after a finished one the larger one that the
    arguments ask for. Raises ValueError where they ask for another one else, or for an element of none: what was
    trained meanwhile could change the sample."""
    count, seeds, trained = arguments.sample or DEFAULT, arguments.seeds or 1, trainings.trained_before(run)
    if arguments.index is not None or of_main(CORRELATION.manifest_json(run).is_file(), world):
        frozen = read_manifest(run, CORRELATION)
        if frozen.config_hash != trainings.depends_on():
            raise ValueError(
                f"{CORRELATION.manifest_json(run)} was frozen with other settings or data (hash {frozen.config_hash}, "
                f"now {trainings.depends_on()}); give the same --epochs and data"
            )
        networks_there = len({element.network for element in frozen.elements})
        seeds_there = len(frozen.elements) // max(1, networks_there)
        if arguments.sample in (None, networks_there) and arguments.seeds in (None, seeds_there):
            return frozen
        count, seeds = arguments.sample or networks_there, arguments.seeds or seeds_there
        grows = arguments.index is None and count >= networks_there and seeds >= seeds_there
        if not grows or not of_main(is_finished(frozen, run), world):
            raise ValueError(
                f"{CORRELATION.manifest_json(run)} was frozen with {networks_there} networks and {seeds_there} seeds; "
                "give the same --sample and --seeds, larger ones when all of it is trained, or delete it when no "
                "element of it runs (finished trainings are kept)"
            )
        if count == networks_there:
            return planned(trainings, scored_in(frozen), seeds, domain.space.name, run)
        trained = trained | {network.genotype for network in scored_in(frozen)}
    networks = stratified(*scored_networks(run), count, seed, trained)
    return planned(trainings, networks, seeds, domain.space.name, run)


def scored_in(manifest: Manifest) -> list[Scored]:
    """The networks of a sample, each once, highest score first."""
    found = {genotype_of(element): element.score for element in manifest.elements}
    return [Scored(genotype, score) for genotype, score in found.items() if score is not None]


def genotype_of(element: Element) -> Genotype:
    assert element.genotype is not None, "a sample has no baselines"
    return element.genotype


def trained_networks(elements: Sequence[Element], domain: Domain, trainings: Trainings, run: RunDir) -> list[Trained]:
    """The networks of the sample with what all their trainings reached."""
    by_network: dict[str, list[Element]] = {}
    for element in elements:
        by_network.setdefault(element.network, []).append(element)
    found = []
    for network, trials in by_network.items():
        genotype, score = genotype_of(trials[0]), trials[0].score
        assert score is not None, "a sample is of scored networks"
        reached = tuple(value_of(read_json(run.root / trial.result), trainings.metric) for trial in trials)
        found.append(Trained(network, genotype, score, reached, domain.costs(genotype)))
    return found
