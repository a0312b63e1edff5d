"""Proxies, and how several of them are measured together: a plan of passes, each taken once.

score = PROXIES["snip"](model, batches)
scores = measure(model, [PROXIES["snip"], PROXIES["naswot"]], batches, loss=F.cross_entropy, seed=0)
print(plan([PROXIES["snip"], PROXIES["naswot"]]))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional as F

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, Setting
from subshot.proxies.conditions import prepare_batch, prepared

Scores = dict[str, float | ProxyUndefined]


@dataclass(frozen=True)
class Proxy:
    """A named measurement.

    readings: what it reads, all under `setting`; `replace(proxy, setting=...)` measures it under another one.
    formula: the readings' values, in order, to the score; raises ProxyUndefined where there is none.
    maximize: higher scores are better.
    layers: what counts as a layer or weight. normalisation: what the score is divided by, if anything.
    source: paper and equation, the public code, and where this departs from it.
    """

    name: str
    readings: tuple[Reading, ...]
    formula: Callable[..., float]
    maximize: bool
    source: str
    setting: Setting = Setting()
    layers: str = "all weights of two or more dimensions"
    normalisation: str = "none"

    @property
    def num_batches(self) -> int:
        """How many batches it reads."""
        return 1 + max(reading.batch for reading in self.readings)

    @property
    def needs_labels(self) -> bool:
        """It reads the targets."""
        return any(reading.needs_labels for reading in self.readings)

    def __call__(
        self, model: nn.Module, batches: Sequence[Batch], loss: Loss = F.cross_entropy, seed: int = 0
    ) -> float:
        """The score; the model and the global random states are untouched, also where this raises.

        Works under `no_grad` and `inference_mode`. Raises ProxyUndefined where the network has no such score, and
        ValueError where there are too few batches.
        """
        score = measure(model, [self], batches, loss, seed)[self.name]
        if isinstance(score, ProxyUndefined):
            raise score
        return score


@dataclass(frozen=True)
class Pass:
    """Readings that one walk over the network gives."""

    setting: Setting
    batch: int
    runner: Runner
    readings: tuple[Reading, ...]


def passes(proxies: Iterable[Proxy]) -> list[Pass]:
    """Every reading of the proxies once, in as few passes as share setting, batch and runner."""
    groups: dict[tuple[Setting, int, Runner], dict[Reading, None]] = {}
    for proxy in proxies:
        for reading in proxy.readings:
            groups.setdefault((proxy.setting, reading.batch, reading.runner), {})[reading] = None
    return [Pass(*key, tuple(readings)) for key, readings in groups.items()]


def plan(proxies: Sequence[Proxy]) -> str:
    """The passes in words: a line each, with the steps that it takes and which proxies read it."""
    lines = []
    for number, one in enumerate(passes(proxies), start=1):
        users = [p.name for p in proxies if p.setting == one.setting and set(p.readings) & set(one.readings)]
        costs = dict.fromkeys(part for reading in one.readings for part in reading.cost.split("; "))
        if len(costs) > 1:
            costs.pop("nothing", None)
        setting = one.setting
        where = f"weights {setting.weights}, BatchNorm {setting.batch_norm}, inputs {setting.inputs}, batch {one.batch}"
        lines.append(f"{number}. {where}: {'; '.join(costs)}. For {', '.join(users)}.")
    return "\n".join(lines)


def measure(
    model: nn.Module, proxies: Sequence[Proxy], batches: Sequence[Batch], loss: Loss = F.cross_entropy, seed: int = 0
) -> Scores:
    """The score of each proxy by its name, or the ProxyUndefined that says why there is none; passes are shared.

    Each score is what the proxy alone would give. The model and the global random states are untouched, also where this
    raises. Raises ValueError where there are too few batches, or two proxies have one name.
    """
    if len({proxy.name for proxy in proxies}) < len(proxies):
        raise ValueError(f"proxies must have different names: {', '.join(proxy.name for proxy in proxies)}")
    for proxy in proxies:
        if proxy.num_batches > len(batches):
            some = "1 batch" if proxy.num_batches == 1 else f"{proxy.num_batches} batches"
            raise ValueError(f"{proxy.name} reads {some}; there are {len(batches)}")
    found: dict[tuple[Setting, Reading], Any] = {}
    for one in passes(proxies):
        found.update(
            {(one.setting, reading): value for reading, value in _run(one, model, batches, loss, seed).items()}
        )
    return {
        proxy.name: _score(proxy, [found[proxy.setting, reading] for reading in proxy.readings]) for proxy in proxies
    }


def _run(one: Pass, model: nn.Module, batches: Sequence[Batch], loss: Loss, seed: int) -> dict[Reading, Any]:
    """A pass that is undefined as a whole is undefined for each of its readings.

    A network that takes views of its feature maps, as in x.view(len(x), -1), cannot be given them channels last.
    """

    def taken(channels_last: bool) -> dict[Reading, Any]:
        with prepared(model, one.setting, seed):
            like = next(model.parameters(), None)
            batch = prepare_batch(batches[one.batch], one.setting.inputs, one.batch, seed, like, channels_last)
            return dict(one.runner(model, batch, loss, one.readings, seed))

    try:
        try:
            return taken(channels_last=True)
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
        return taken(channels_last=False)
    except ProxyUndefined as undefined:
        return dict.fromkeys(one.readings, undefined)


def _score(proxy: Proxy, values: Sequence[Any]) -> float | ProxyUndefined:
    for value in values:
        if isinstance(value, ProxyUndefined):
            return value
    try:
        score = float(proxy.formula(*values))
    except ProxyUndefined as undefined:
        return undefined
    return score if math.isfinite(score) else ProxyUndefined(f"{proxy.name} is {score}")
