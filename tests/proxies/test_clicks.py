"""Which proxies exist for networks of click-through rates: layers of their own, layer norm, attention, one logit."""

import math
import random

import pytest
import torch
from torch.nn import functional as F

from subshot.proxies import PROXIES, ProxyUndefined, measure
from subshot.proxies.base import Batch
from subshot.supernet.base import Bound, extract
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_supernet import NasrecSupernet

DEFINED = {
    *("params", "macs", "num_layers", "l2_norm"),
    *("grad_norm", "grad_norm_global", "snip", "plain", "grasp", "jacob_cov", "epe_nas"),
    *("zico", "sigeo", "sigeo_zico", "sigeo_fr", "sigeo_loss"),
    *("gradsign", "gradalign1"),
    *("synflow_bn", "synflow_zennas"),
}
"""For every network."""

SOMETIMES = {
    "gradalign2": "the Gram matrix of a class is singular",
    "grad_angle": "the gradient of a sample is zero",
    "synflow": "the sum over paths is",
    "log_synflow": "the sum over paths is",
    "synflow_freerea": "the sum over paths is",
}
"""By the reason why not for the others. Layer norm stays on, so a sum over paths has terms of both signs."""

LAYERS_OF_THEIR_OWN = "is defined for convolutions and linear layers"
NEVER = {
    "bn_indicator": "nothing of what this counts",
    "bn_block_indicator": "nothing of what this counts",
    "fisher": "depends on no convolution and no linear layer",
    "fisher_channel_sum": "depends on no convolution and no linear layer",
    "naswot": "runs no ReLU module",
    "meco": "no images",
    **dict.fromkeys(("vkdnw", "vkdnw_single", "vkdnw_code", "vkdnw_single_code"), LAYERS_OF_THEIR_OWN),
    **dict.fromkeys(("ntk_condition", "ntk_condition_eval", "linear_regions", "swap"), LAYERS_OF_THEIR_OWN),
    **dict.fromkeys(("zen", "zen_zennas"), LAYERS_OF_THEIR_OWN),
    **dict.fromkeys((name for name in PROXIES if name.startswith("az_")), LAYERS_OF_THEIR_OWN),
}
"""By the reason."""

SIZES = {"dense_dims": (8, 16, 24), "sparse_dims": (4, 6)}
SPACES = {
    "small": NasrecSpace("small", 3, 4, 2, ("fc", "dot_product"), ("efc",), **SIZES),
    "full": NasrecSpace("full", 3, 4, 2, **SIZES),
}


def batches_of(space: NasrecSpace) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    return [
        (
            (torch.randn(12, 3, generator=generator), torch.randn(12, 4, space.embedding_dim, generator=generator)),
            (torch.arange(12) % 2).float(),
        )
        for _ in range(4)
    ]


def test_the_table_names_every_proxy_once() -> None:
    assert sorted([*DEFINED, *SOMETIMES, *NEVER]) == sorted(PROXIES)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("seed", range(4))
def test_every_proxy_has_a_value_or_its_reason(space: NasrecSpace, seed: int) -> None:
    supernet = NasrecSupernet(space, torch.Generator().manual_seed(6))
    genotype, batches = space.draw(random.Random(seed)), batches_of(space)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    found = measure(Bound(supernet, genotype), list(PROXIES.values()), batches, F.binary_cross_entropy_with_logits)
    for name, score in found.items():
        if isinstance(score, ProxyUndefined):
            assert name not in DEFINED and {**SOMETIMES, **NEVER}[name] in str(score), name
        else:
            assert name not in NEVER and math.isfinite(score), name
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_bound_and_extracted_score_alike(space: NasrecSpace) -> None:
    """A path's weights are views of other strides than a copy's, so the last digits may differ."""
    supernet = NasrecSupernet(space, torch.Generator().manual_seed(6)).double()
    genotype = space.draw(random.Random(1))
    batches = [((dense.double(), tokens.double()), labels.double()) for (dense, tokens), labels in batches_of(space)]
    chosen = [PROXIES[name] for name in sorted(DEFINED)]
    bound = measure(Bound(supernet, genotype), chosen, batches, F.binary_cross_entropy_with_logits)
    own = measure(extract(supernet, genotype), chosen, batches, F.binary_cross_entropy_with_logits)
    assert bound == pytest.approx(own, rel=1e-6)


def test_structure_agrees_with_the_space() -> None:
    for space in SPACES.values():
        supernet = NasrecSupernet(space, torch.Generator().manual_seed(6))
        for seed in range(4):
            genotype = space.draw(random.Random(seed))
            bound, cost = Bound(supernet, genotype), space.cost(genotype, layer_norm=True)
            assert PROXIES["params"](bound, batches_of(space)) == cost.params
            assert PROXIES["macs"](bound, batches_of(space)) == cost.macs
