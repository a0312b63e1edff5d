"""Every reference value is met, in float64, for one small residual network.

Not targets, because they document defects of public programs: the ids that start with "quirk." (parts of a batch
summed, a kernel that is not reset, gradients that alias, running variances that leak) and those whose note says so
(sigeo.reference.naslib_as_shipped, sigeo.reference.nasrec_lr0.*: optimiser steps inside the proxy, one coordinate a
layer). proxies/sigeo_reference.py gives the latter all the same; see test_sigeo_reference.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subshot.proxies import PROXIES, Proxy, Setting, az_nas, gradsign, ntk, vkdnw, zico
from subshot.proxies import fisher_rao as fr
from subshot.proxies.base import Batch, Probe
from subshot.proxies.batch_pass import LossValue
from subshot.proxies.linear_regions import linear_regions
from subshot.proxies.sigeo import SigeoOptions, raw_sigeo, sigeo_terms
from subshot.proxies.zen import watched_pass, zen_of


@dataclass(frozen=True)
class Given:
    """The stored network, its four batches, the same 128 samples as one batch, and AZ-NAS's signs."""

    model: nn.Module
    batches: list[Batch]
    signs: list[Tensor]

    @property
    def all128(self) -> list[Batch]:
        return [(torch.cat([x for x, _ in self.batches]), torch.cat([y for _, y in self.batches]))]


Way = Callable[[Given], float]
NORM = {"train": "single", "eval": "eval"}
"""What the ids call "train" is a batch of one where gradients are of single samples."""
SCOPE = {"convlinear": "weights", "allparams": "all"}


def of(proxy: Proxy, batches: str = "batch0", **setting: Any) -> Way:
    """setting: departures from the stored weights and inputs with BatchNorm in train mode."""

    def way(given: Given) -> float:
        chosen = given.all128 if batches == "all128" else given.batches[int(batches.removeprefix("batch")) :]
        return replace(proxy, setting=Setting(**setting))(given.model, chosen)

    return way


def in_own_setting(name: str) -> Way:
    return lambda given: PROXIES[name](given.model, given.batches)


def loss_of(batch: int) -> Proxy:
    return Proxy("loss", (LossValue(batch),), float, False, "-")


def terms(given: Given, mode: str = "train", **options: Any) -> Any:
    return sigeo_terms(given.model, Probe(tuple(given.batches)), SigeoOptions(train_mode=mode == "train", **options))


def score(given: Given, scope: str, l1: float, l2: float, l3: float) -> float:
    modules = {"convlinear": "weights", "allparams": "tensors"}[scope]
    norm = {"convlinear": "scored", "allparams": "all"}[scope]
    return raw_sigeo(terms(given, modules=modules, fisher_rao_parameters=norm), l1, l2, l3)


def small_crops(given: Given) -> list[Batch]:
    return [(images[:, :, :4, :4] * 2**-8, labels) for images, labels in given.batches]


def regions_of_crops(given: Given, mode: Any) -> float:
    proxy = replace(linear_regions(num_batches=4), setting=Setting(batch_norm=mode))
    return proxy(given.model, small_crops(given))


def zen(given: Given, version: Any, mode: str = "train", momentum: float = 0.1) -> float:
    """The reference keeps the weights; images and noise are the first two batches."""
    images, noise = given.batches[0][0], given.batches[1][0]
    given.model.train(mode == "train")
    with torch.no_grad(), watched_pass(given.model, with_variances=True) as clean:
        given.model(images)
    return zen_of(given.model, clean, images, noise, version, momentum)


AZ_NAS_FEATURES = ("relu1", "relu2", "res_relu2", "dw_relu", "pw_relu")


def az_nas_of(given: Given, score: Callable[[list[Tensor], list[Tensor]], float]) -> float:
    maps: list[Tensor] = []
    for name in AZ_NAS_FEATURES:
        given.model.get_submodule(name).register_forward_hook(lambda module, args, output: maps.append(output))
    given.model.train()(given.batches[0][0])
    return score(maps, given.signs)


def entropies(maps: list[Tensor]) -> list[float]:
    return az_nas.entropies([feature.detach() for feature in maps])


def plain_ways() -> Iterator[tuple[str, Way]]:
    """Proxies of the table, in their own setting or in the id's."""
    for name, golden_id in (
        ("params", "params"),
        ("macs", "macs"),
        ("num_layers", "vkdnw.dim"),
        ("l2_norm", "l2_norm"),
        ("bn_indicator", "bn_indicator.mean_abs_gamma"),
        ("grad_norm_global", "gradnorm_zennas"),
        ("epe_nas", "epe_nas"),
        ("synflow", "synflow"),
        ("synflow_bn", "synflow_bn"),
        ("synflow_zennas", "synflow_zennas"),
    ):
        yield golden_id, in_own_setting(name)
    yield "jacob_cov_eval.batch0", of(PROXIES["jacob_cov"], batch_norm="eval")
    for batch in ("batch0", "batch1"):
        for name in ("grad_norm", "snip", "plain", "grasp", "fisher", "fisher_channel_sum", "jacob_cov"):
            yield f"{name}.{batch}", of(PROXIES[name], batch)
        for mode in ("train", "eval"):
            yield f"naswot.{mode}.{batch}", of(PROXIES["naswot"], batch, batch_norm=mode)
            yield f"loss.{mode}.{batch}", of(loss_of(0), batch, batch_norm=mode)
    for mode in ("train", "eval"):
        yield f"linear_regions.{mode}.batch0", of(linear_regions(), batch_norm=mode)
        yield f"linear_regions.{mode}.crop4", partial(regions_of_crops, mode=mode)
        for count in (1, 2):
            yield f"ntk_cond.{mode}.{count}batch", of(ntk.ntk_over(count, mode), batch_norm=mode)
    yield "zen.paper", partial(zen, version="paper")
    yield "zen.reference.train", partial(zen, version="zennas")
    yield "zen.reference.eval", partial(zen, version="zennas", mode="eval", momentum=0.0)
    yield "zen.reference.bn_momentum1", partial(zen, version="zennas", momentum=1.0)
    yield "aznas.expressivity", partial(az_nas_of, score=lambda maps, signs: sum(entropies(maps)))
    yield "aznas.progressivity", partial(az_nas_of, score=lambda maps, _: az_nas.progressivity_of(entropies(maps)))
    yield "aznas.trainability", partial(az_nas_of, score=az_nas.trainability_of)
    for name, version in (("code", "code"), ("paper", "paper"), ("paper_smoothed", "smoothed")):
        for scalars in (1, 4):
            for tensors in (128, 8):
                proxy = vkdnw.vkdnw(version, tensors, scalars)
                yield f"vkdnw.entropy.{name}.p{scalars}.len{tensors}", of(proxy, batch_norm="eval")


def sample_ways() -> Iterator[tuple[str, Way]]:
    """Signs of single samples' gradients."""
    for mode, norm in NORM.items():
        yield f"gradsign.mean.{mode}.batch0", of(gradsign.gradsign(normalisation="mean"), batch_norm=norm)
        yield f"gradsign.sum.{mode}.batch1", of(gradsign.gradsign(), "batch1", batch_norm=norm)
        for batch in ("batch0", "batch1"):
            yield f"grad_angle.{mode}.{batch}", of(gradsign.GRAD_ANGLE, batch, batch_norm=norm)
        for batches in ("batch0", "all128"):
            yield f"gradsign.sum.{mode}.{batches}", of(gradsign.gradsign(), batches, batch_norm=norm)
            yield (
                f"gradsign.sum_all_params.{mode}.{batches}",
                of(gradsign.gradsign(scope="all"), batches, batch_norm=norm),
            )
            for name, scope in SCOPE.items():
                one, two = gradsign.gradalign1(scope=scope), gradsign.gradalign2(scope=scope)
                yield f"gradalign1.{name}.{mode}.{batches}", of(one, batches, batch_norm=norm)
                yield f"gradalign2.{name}.{mode}.{batches}", of(two, batches, batch_norm=norm)


VERSIONS = {
    "A_mean_sq_dot": "mean_square",
    "B_elementwise": "elementwise",
    "C_code_nasrec_intended": "nasrec_code",
    "D_code_naslib": "naslib_code",
    "E_blockdiag": "block_diagonal",
}


def sigeo_ways() -> Iterator[tuple[str, Way]]:
    """ZiCo and SiGeo's terms over four batches."""
    for count in (2, 4):
        yield f"zico.{count}batches", of(zico.zico_over(count))
    yield "zico.eval.4batches", of(zico.zico_over(4), batch_norm="eval")
    magnitudes = replace(zico.zico_over(4), formula=partial(zico.zico, std_of_magnitudes=True))
    yield "zico.paper_std_of_abs.4batches", of(magnitudes)
    for mode in ("train", "eval"):
        yield f"sigeo.loss.{mode}", lambda given, mode=mode: terms(given, mode).loss
        for name, modules in (("convlinear", "weights"), ("alltensors", "tensors"), ("modules", "modules")):
            for correction, kind in ((0, "zico"), (1, "zico_unbiased")):
                options = {"modules": modules, "correction": correction, "mode": mode}
                yield f"sigeo.{kind}.{name}.{mode}", lambda given, options=options: terms(given, **options).zico
        for name, scope in SCOPE.items():
            for letter, version in VERSIONS.items():
                yield f"sigeo.fr.{letter}.{name}.{mode}", of(fr.fisher_rao(version, scope), batch_norm=mode)
            samples = fr.fisher_rao_of_samples(scope, num_batches=4)
            yield f"sigeo.fr.F_per_sample.{name}.{mode}", of(samples, batch_norm=NORM[mode])
    for scope in SCOPE:
        for weights in ((1, 1, 0), (1, 1, 1), (1, 50, 1)):
            name = "l{}_{}_{}".format(*weights)
            yield f"sigeo.score.{scope}.{name}", lambda g, scope=scope, weights=weights: score(g, scope, *weights)
    logged = replace(
        fr.fisher_rao("naslib_code", "weights"),
        formula=lambda *read: fr.naslib_code_log(fr.fisher_rao("naslib_code", "weights").formula(*read)),
    )
    yield "sigeo.reference.naslib_fixed_weights.two_log_fr", of(logged)
    yield "sigeo.reference.naslib_fixed_weights.zico", of(zico.zico_over(4))


WAYS: dict[str, Way] = dict([*plain_ways(), *sample_ways(), *sigeo_ways()])


def is_target(value_id: str, entry: dict[str, Any]) -> bool:
    return not value_id.startswith("quirk.") and "do NOT reproduce" not in entry.get("note", "")


@pytest.fixture
def given(golden_model: nn.Module, golden_batches: list[Batch], golden_signs: list[Tensor]) -> Given:
    return Given(golden_model, golden_batches, golden_signs)


def test_every_target_is_tested(golden_values: dict[str, Any]) -> None:
    assert set(WAYS) == {value_id for value_id, entry in golden_values.items() if is_target(value_id, entry)}


@pytest.mark.parametrize("value_id", WAYS)
def test_the_reference_value(value_id: str, given: Given, golden_values: dict[str, Any]) -> None:
    want = golden_values[value_id]
    found = WAYS[value_id](given)
    assert found == pytest.approx(want["value"], rel=want["rtol"], abs=want["atol"])


def test_what_comes_with_the_values(given: Given, golden_values: dict[str, Any]) -> None:
    """Other forms of a score that stand beside it."""

    def close(found: float, value_id: str, key: str) -> bool:
        return found == pytest.approx(golden_values[value_id][key], rel=golden_values[value_id]["rtol"])

    assert close(in_own_setting("log_synflow")(given), "synflow", "log")
    for scope, name in (("weights", "convlinear"), ("all", "allparams")):
        for mode, norm in NORM.items():
            value_id = f"gradalign{{}}.{name}.{mode}.all128"
            one = gradsign.gradalign1(scope=scope, normalisation="mean")
            two = gradsign.gradalign2(scope=scope, normalisation="mean", jitter=0.0)  # the reference has none
            assert close(of(one, "all128", batch_norm=norm)(given), value_id.format(1), "divided_by_d")
            assert close(of(two, "all128", batch_norm=norm)(given), value_id.format(2), "gram_divided_by_d")
    code = WAYS["sigeo.fr.C_code_nasrec_intended.allparams.train"](given)
    assert close(fr.nasrec_code_log(code), "sigeo.fr.C_code_nasrec_intended.allparams.train", "log")
    code = WAYS["sigeo.fr.D_code_naslib.allparams.eval"](given)
    assert close(fr.naslib_code_log(code), "sigeo.fr.D_code_naslib.allparams.eval", "two_log")


def test_the_norms_of_single_layers(given: Given, golden_values: dict[str, Any]) -> None:
    want = golden_values["grad_norm.batch0"]["per_layer"].values()
    for number, norm in enumerate(want):
        one = replace(PROXIES["grad_norm"], formula=lambda found, number=number: found.gradient_norms[number])
        assert of(one)(given) == pytest.approx(norm, rel=1e-9)
