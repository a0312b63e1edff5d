"""Trainings that judge the score of a CTR run.

They are those that retraining begins with: on the training rows, at the recipe's learning rate, measured on the
validation split. That split chose among the search's networks before (and drove a one-shot score), so it is spent
already, and nothing here looks at the test split. Networks and learning rates may be chosen by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.nn import functional as F

from subshot.data.clicks import first_batches
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.contenders import Contender, Trial, build
from subshot.launch.clicks.data import ClickData
from subshot.launch.clicks.retrain import run_trials, trainings_hash
from subshot.launch.clicks.scoring import embedded
from subshot.launch.clicks.trials import trial_settings
from subshot.launch.correlation.trainings import (
    Measure,
    finished_records,
    read_record,
    same_settings,
    same_training,
)
from subshot.launch.manifest import Element
from subshot.launch.run_log import RunLog
from subshot.proxies import Proxy, ProxyUndefined, measure
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.space import Genotype
from subshot.train.click_metrics import entropy
from subshot.train.dist import World, barrier
from subshot.train.run_dir import RunDir, write_json
from subshot.train.tables import TablesConfig, build_tables


@dataclass(frozen=True)
class ClickTrainings:
    """See subshot.launch.correlation.trainings.Trainings. A training that diverges is told so in its record."""

    config: ClickConfig
    space: NasrecSpace
    data: ClickData
    world: World

    metric = "val/log_loss"
    maximize = False
    looked_at = (
        "Networks were measured on the validation split, which chooses among the search's networks too. The test split "
        "was not looked at."
    )

    @property
    def terms(self) -> Mapping[str, bool]:
        return {"zico": True, "fisher_rao": True, "loss": False}

    @property
    def learning_rate(self) -> float:
        return self.config.retrain.recipe.learning_rate

    @property
    def guess(self) -> float:
        return entropy(self.data.split("val").base_rate)

    def depends_on(self) -> str:
        return trainings_hash(self.config, self.data)

    def name(self, network: str, seed: int) -> str:
        return self._trial(network, None, seed).name

    def in_per_cent(self, value: float) -> float:
        """How much less the log loss is than that of always predicting the base rate, of the latter."""
        return max(0.0, 100.0 * (1.0 - value / self.guess))

    def _trial(self, network: str, genotype: Genotype | None, seed: int) -> Trial:
        return Trial(Contender(network, "control", genotype), self.learning_rate, seed)

    def trained_before(self, run: RunDir) -> set[Genotype]:
        settings = trial_settings(self._trial("any", (), 0), self.config, self.data)
        records = (record for folder in (run, run.correlation) for record in finished_records(folder))
        return same_settings(records, settings)

    def train(self, elements: Sequence[Element], run: RunDir, log: RunLog) -> None:
        """The processes share the trainings."""
        folder = run.correlation
        trials = [self._trial(element.network, element.genotype, element.seed) for element in elements]
        missing = []
        for trial in trials:
            settings = trial_settings(trial, self.config, self.data)
            if read_record(folder.trial_json(trial.name), self.metric, settings) is None:
                missing.append((trial, settings))
        barrier(self.world)  # all have looked before one writes
        if self.world.is_main:
            for trial, settings in missing:
                record = same_training(finished_records(run), settings)
                if record is not None:
                    write_json(folder.trial_json(trial.name), record)
                    log.line(f"{trial.name}: retraining did this training already")
        barrier(self.world)
        run_trials(trials, self.config, self.space, self.data, self.world, folder, log)

    def measure(self, proxies: Sequence[Proxy]) -> Measure:
        """On training rows behind freshly initialised tables, capped as in the search."""
        config, device = self.config, self.world.device
        drawn = first_batches(
            self.data.split("train"),
            count=max(proxy.num_batches for proxy in proxies),
            batch_size=config.batches.batch_size,
            seed=config.seed,
            max_rows_per_table=config.tables.max_rows,
        )
        settings = TablesConfig(optimizer=config.tables.optimizer, max_rows=config.tables.max_rows)
        tables = build_tables(self.data.fields, settings, config.seed, World(0, 1, device))
        batches = [embedded(batch, tables, device) for batch in drawn]

        def measured(genotype: Genotype) -> Mapping[str, float | ProxyUndefined]:
            contender = Contender("sampled", "control", genotype)
            network, _, _ = build(contender, self.space, config.seed, config.retrain.layer_norm)
            loss = F.binary_cross_entropy_with_logits
            return measure(network.to(device), proxies, batches, loss, config.seed)

        return measured
