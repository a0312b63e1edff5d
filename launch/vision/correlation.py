"""Trainings that judge the score of a run on images.

They are retraining's own: on all training images, by its recipe, tested on `val`, the untouched images. That keeps what
is measured the thing that the user wants, and lets retrained winners count. It is no selection as long as nothing is
chosen by it: the figures judge the score, after the search. Whoever picks a network by these accuracies has spent the
test, and the report says so. (Images held out of `train` would keep the test unseen, but one-shot scores have looked
at them, and networks would be trained on fewer images than those that are handed over.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from subshot.launch.correlation.trainings import (
    Measure,
    finished_records,
    read_record,
    same_settings,
    same_training,
)
from subshot.launch.job import claimed_by_main
from subshot.launch.manifest import Element
from subshot.launch.run_log import RunLog
from subshot.launch.vision.build import proxy_batches
from subshot.launch.vision.retrain import Retraining, checkpoint_name, trained, trainings_hash
from subshot.proxies import PROXIES, Proxy, ProxyUndefined, measure
from subshot.supernet.space import Genotype
from subshot.train.checkpoint import remove_checkpoints
from subshot.train.dist import World, barrier, of_main
from subshot.train.run_dir import RunDir, read_json, write_json


@dataclass(frozen=True)
class ImageTrainings:
    """See subshot.launch.correlation.trainings.Trainings.

    fresh: a network as proxies see it. batch_size: training images that a proxy reads at a time. data: the images'
    fingerprint.
    """

    retraining: Retraining
    fresh: Callable[[Genotype], nn.Module]
    batch_size: int
    data: Mapping[str, Any]

    metric = "test/accuracy"
    maximize = True
    learning_rate = None
    looked_at = (
        "Networks were tested on the untouched images (val). That judges the score and chooses nothing: a network that "
        "is picked by these accuracies is no longer tested by them."
    )

    @property
    def terms(self) -> Mapping[str, bool]:
        """Only training-free runs have any, the proxies that their score joins."""
        return {name: proxy.maximize for name, proxy in PROXIES.items() if name not in ("params", "macs")}

    @property
    def guess(self) -> float:
        return 1.0 / self.retraining.space.classes

    @property
    def world(self) -> World:
        return self.retraining.world

    def depends_on(self) -> str:
        return trainings_hash(self.retraining.config, dict(self.data))

    def name(self, network: str, seed: int) -> str:
        return f"{network}-seed{seed}"

    def in_per_cent(self, value: float) -> float:
        return 100.0 * value

    def trained_before(self, run: RunDir) -> set[Genotype]:
        settings = self.retraining.settings_of((), 0)
        return same_settings((*finished_winners(run), *finished_records(run.correlation)), settings)

    def train(self, elements: Sequence[Element], run: RunDir, log: RunLog) -> None:
        """All processes work on each training, in order."""
        for element in log.beating(elements, "trainings"):
            claim = run.correlation.claim_json(f"training-{element.name}")
            with claimed_by_main(claim, f"the training of {element.name}", self.world):
                self._train_one(element, run, log)

    def _train_one(self, element: Element, run: RunDir, log: RunLog) -> None:
        assert element.genotype is not None, "a sample has no baselines"
        folder, settings = run.correlation, self.retraining.settings_of(element.genotype, element.seed)
        path = folder.trial_json(element.name)
        if of_main(read_record(path, self.metric, settings) is not None, self.world):
            log.line(f"{element.name}: trained already")
            self._forget_checkpoints(element, run)
            return
        record = of_main(same_training(finished_winners(run), settings), self.world)
        if record is None:
            try:
                _, metrics = trained(element, self.retraining, folder, log)
                record = metrics | {"diverged": None}
            except FloatingPointError as error:  # on all processes alike
                record = {"name": element.name, "settings": settings, "diverged": str(error)}
                log.line(f"{element.name}: diverged ({error}); it counts as guessing")
        else:
            log.line(f"{element.name}: retraining did this training already")
        if self.world.is_main:
            write_json(path, record)
        self._forget_checkpoints(element, run)

    def _forget_checkpoints(self, element: Element, run: RunDir) -> None:
        if self.world.is_main:
            remove_checkpoints(run.correlation.checkpoints, checkpoint_name(element))
        barrier(self.world)

    def measure(self, proxies: Sequence[Proxy]) -> Measure:
        count = max(proxy.num_batches for proxy in proxies)
        config, (train, _) = self.retraining.config, self.retraining.images
        batches = proxy_batches(config, train, self.batch_size, count, self.world)

        def measured(genotype: Genotype) -> Mapping[str, float | ProxyUndefined]:
            network = self.fresh(genotype).to(self.world.device)
            return measure(network, proxies, batches, seed=config.seed)

        return measured


def finished_winners(run: RunDir) -> Iterable[dict[str, Any]]:
    """What retraining has tested already."""
    for name in run.winner_names():
        yield read_json(run.winner(name).metrics_json)
