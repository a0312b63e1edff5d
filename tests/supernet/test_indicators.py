"""Indicators read off scales that were set by hand."""

import pytest
import torch

from subshot.supernet import SPACES
from subshot.supernet.indicators import RULES, STATISTICS, indicator_score, read_indicators
from subshot.supernet.network import ChainSupernet


@pytest.fixture
def supernet() -> ChainSupernet:
    supernet = ChainSupernet(SPACES["nasbench-macro"](8, 5, 0.125, 2), branch="identity")
    generator = torch.Generator().manual_seed(0)
    for module in supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
    return supernet


def by_hand(values, statistic):
    n = len(values)
    mean = sum(values) / n
    return {
        "mean_abs": sum(abs(v) for v in values) / n,
        "mean": mean,
        "root_mean_square": (sum(v * v for v in values) / n) ** 0.5,
        "std": (sum((v - mean) ** 2 for v in values) / n) ** 0.5,
    }[statistic]


@pytest.mark.parametrize("statistic", ["mean_abs", "mean", "root_mean_square", "std"])
def test_block_and_layer_indicators(supernet, statistic) -> None:
    assert statistic in STATISTICS
    indicators = read_indicators(supernet, statistic)
    for number, layer in enumerate(supernet.space.layers):
        for choice, op in enumerate(layer.ops):
            if op.main:
                scales = supernet.layers[number][choice].main[len(op.main) - 1].bn.weight.tolist()
                assert indicators.block[number][choice] == pytest.approx(by_hand(scales, statistic), abs=1e-6)
            else:
                assert indicators.block[number][choice] == 0.0
            assert indicators.has_bn[number][choice] == bool(op.main)
        expected = 0.0
        if layer.keeps_shape:
            expected = by_hand(supernet.branches[str(number)].bn.weight.tolist(), statistic)
        assert indicators.layer[number] == pytest.approx(expected, abs=1e-6)


def test_both_last_scales_of_a_strided_shuffle_block_count() -> None:
    supernet = ChainSupernet(SPACES["shufflenetv2"](16, 5, 0.25, 1))
    block = supernet.block(0, 1)
    main, projection = block.main[-1].bn.weight.data, block.projection[-1].bn.weight.data
    main.fill_(-2.0)
    projection.fill_(1.0)
    expected = (2 * len(main) + len(projection)) / (len(main) + len(projection))
    assert read_indicators(supernet).block[0][1] == pytest.approx(expected)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_a_sum_over_layers(supernet, rule) -> None:
    score = indicator_score(read_indicators(supernet), rule)
    assert [len(row) for row in score.table] == [len(layer.ops) for layer in supernet.space.layers]
    genotype = (0, 1, 2, 0, 1, 2, 0, 1)
    assert score(genotype) == pytest.approx(score.base + sum(r[c] for r, c in zip(score.table, genotype, strict=True)))
    assert all(value == value and abs(value) < float("inf") for row in score.table for value in row)


def test_the_papers_rules_by_hand(supernet) -> None:
    indicators = read_indicators(supernet)
    genotype = (1, 2, 0, 1, 2, 0, 1, 2)
    chosen = [row[choice] for row, choice in zip(indicators.block, genotype, strict=True)]
    layers = [layer if has else 1.0 for layer, has in zip(indicators.layer, indicators.has_branch, strict=True)]
    assert indicator_score(indicators, "block_sum")(genotype) == pytest.approx(sum(chosen))
    product = sum(block * layer for block, layer in zip(chosen, layers, strict=True))
    assert indicator_score(indicators, "block_times_layer")(genotype) == pytest.approx(product)


def test_unknown_names_are_refused(supernet) -> None:
    with pytest.raises(ValueError, match="unknown indicator rule 'sum'; known: .*block_sum"):
        indicator_score(read_indicators(supernet), "sum")
