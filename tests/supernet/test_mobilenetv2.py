"""The MobileNetV2 tables against what was published."""

import gzip
import json

import pytest

from subshot.supernet.chain import IDENTITY
from subshot.supernet.cost import bnnas_macs
from subshot.supernet.mobilenetv2 import mbconv, mobilenetv2, mobilenetv2_mobile
from subshot.supernet.space import cardinality, describe

BNNAS = (3, -1, 0, 4, 0, -1, -1, 0, 4, -1, 4, 4, 1, 4, 2, 0, 0, 4, 0, 2, 2)
SPOS_RERUN = (0, -1, 0, 0, 4, -1, -1, 2, 0, -1, 4, 4, 3, 0, 2, 1, 0, 4, 2, 5, 2)


def from_codes(space, codes):
    """BNNAS's codes 0..5 and -1, by name, so that both depth variants read them."""
    names = [IDENTITY if code < 0 else f"k{(3, 5, 7)[code // 2]}e{(3, 6)[code % 2]}" for code in codes]
    return tuple(d.choices.index(name) for d, name in zip(space.decisions, names, strict=True))


@pytest.mark.parametrize("depth", ["searchable", "fixed"])
@pytest.mark.parametrize(
    "codes, macs, theirs, params",
    [(BNNAS, 471_822_240, 473_549_240, 5_228_536), (SPOS_RERUN, None, 468_807_608, 5_780_560)],
)
def test_published_winners(depth, codes, macs, theirs, params) -> None:
    """MACs as they are, in BNNAS's convention, and parameters; the README says 473.5 M, 468.8 M, 5.2 M, 5.8 M."""
    space = mobilenetv2(depth=depth)
    cost = space.cost(from_codes(space, codes))
    assert bnnas_macs(cost.macs, space.features, space.classes) == theirs
    assert macs is None or cost.macs == macs
    assert cost.params == params


def test_codes_are_choice_indices() -> None:
    assert mobilenetv2().decisions[1].choices == ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", IDENTITY)
    assert mobilenetv2().decisions[0].choices == ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")


def test_sizes_of_the_spaces() -> None:
    assert cardinality(mobilenetv2()) == 7**15 * 6**6
    assert cardinality(mobilenetv2(depth="fixed")) == 6**17
    assert cardinality(mobilenetv2_mobile()) == 6**19


def test_fixed_depth_range() -> None:
    """393.4 M to 849.6 M, computed from the released table, which counts the classifier its own way."""
    space = mobilenetv2(depth="fixed")
    macs = space.costs["macs"]
    low, high = (bnnas_macs(value, space.features, space.classes) / 1e6 for value in (macs.minimum(), macs.maximum()))
    assert low == pytest.approx(393.4, abs=0.05) and high == pytest.approx(849.6, abs=0.05)
    assert [i for i, d in enumerate(space.decisions) if d.choices == (IDENTITY,)] == [1, 5, 6, 9]


@pytest.mark.parametrize("build, table", [(mobilenetv2, "op_flops_gpu"), (mobilenetv2_mobile, "op_flops_cpu")])
def test_released_block_table_entry_by_entry(shared_data, build, table) -> None:
    """The released CPU table's entry for stem and first block is stale (33.7 M; their own code gives 20.9 M)."""
    path = shared_data / "published_results.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with gzip.open(path, "rt") as file:
        published = json.load(file)["bnnas"][table]
    space, seen = build(), 0
    for layer in space.layers:
        key = str([layer.in_channels, layer.out_channels, layer.size, layer.size, layer.stride])
        for op in layer.ops:
            if op.name != IDENTITY:
                family = f"mobilenet_{op.name[1]}x{op.name[1]}_ratio_{op.name[3]}"
                assert op.cost(layer.size).macs == published[family][key]
                seen += 1
    assert seen == 6 * len(space.layers)
    last = space.layers[-1]
    size = -(-last.size // last.stride)
    (ending,) = published["PostProcessing"].values()
    classifier = space.features * space.classes
    assert bnnas_macs(space.head.cost(size).macs + classifier, space.features, space.classes) == ending
    (beginning,) = published["PreProcessing"].values()
    stale = {"op_flops_gpu": 0, "op_flops_cpu": 33_718_272 - 20_873_216}[table]
    assert space.fixed_cost.macs - space.head.cost(size).macs - classifier == beginning - stale


def test_released_formula() -> None:
    """H W in m + Ho Wo m k^2 + Ho Wo m out, with m = expansion * in."""
    for kernel, expansion, stride in ((3, 3, 1), (5, 6, 2), (7, 3, 2)):
        middle = 8 * expansion
        out = 14 // stride
        macs = 14 * 14 * 8 * middle + out * out * middle * (kernel**2 + 12)
        assert mbconv(8, 12, kernel, expansion, stride).cost(14).macs == macs


def test_identities_move_to_the_end_of_their_stage() -> None:
    space = mobilenetv2()
    genotype = (0, 6, 1, 6, *(0,) * 4, 2, 6, 3, 6, *(0,) * 9)
    moved = (0, 1, 6, 6, *(0,) * 4, 2, 3, 6, 6, *(0,) * 9)
    assert space.canonical(genotype) == moved
    assert describe(space, moved).startswith("k3e3 k3e6 identity identity k3e3")


def test_residuals_only_where_the_shape_stays() -> None:
    for layer in mobilenetv2().layers:
        for op in layer.ops:
            if op.name != IDENTITY:
                assert (op.wiring == "residual") == layer.keeps_shape
        assert (IDENTITY in [op.name for op in layer.ops]) == layer.keeps_shape
