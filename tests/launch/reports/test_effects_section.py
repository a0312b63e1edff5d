"""What each choice does, from scored candidates: on real searches whose effects are known, of images and of clicks."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest

from subshot.launch.reports.effect_factors import factors_of
from subshot.launch.reports.effects_section import effects_section, macs_of, sample_of
from subshot.launch.reports.page import Html
from subshot.launch.reports.record import Record, read_record
from subshot.search.marginal_effects import OFF, marginal_effects
from subshot.supernet import BENCHMARK_SPACES
from subshot.supernet.nasrec import NasrecSpace, nasrec_full
from subshot.train.run_dir import RunDir


def words_of(html: Html) -> str:
    """Text alone, without the pictures."""
    plain = re.sub(r"<svg.*?</svg>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", plain))


def row(words: str, start: str) -> float:
    """The score's change in the row of the table, or the sentence, that begins so."""
    found = re.search(re.escape(start) + r",? ([+−][\d.e]+)", words)
    assert found is not None, start
    return float(found.group(1).replace("−", "-"))


def test_a_score_that_is_a_sum_is_read_exactly(exact_run: RunDir) -> None:
    record = read_record(exact_run)
    assert record.space is not None
    words = words_of(effects_section(record, record.space))
    assert "every effect is exact for the score." in words and "would by chance" not in words
    assert "95 % interval" not in words and "reliability" not in words
    rng = random.Random(7)  # the score's own numbers, as conftest.py draws them
    table = [[rng.random() for _ in decision.choices] for decision in record.space.decisions]
    for stage, layer, place in ((1, 1, 0), (2, 1, 2), (2, 2, 3)):
        first = record.space.decisions[place].choices[0]
        said = row(words, f"stage {stage}, layer {layer} k5e6 {first}")
        assert said == pytest.approx(table[place][2] - table[place][0], rel=6e-3)
    macs = record.space.costs["macs"].table[0]
    assert f"{macs[2] - macs[0]:,.0f}".split(",")[0] in words


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("", "The score itself was estimated with reliability 0.20"),
        (
            ", weighted by that reliability, plus its activations, both standardised",
            "The path losses in it were estimated with reliability 0.20",
        ),
    ],
)
def test_the_reliability_of_path_losses_is_told(exact_run: RunDir, rest: str, told: str) -> None:
    record = read_record(exact_run)
    name = f"the expected warm-up loss of its path, negated (reliability 0.20 of 1){rest}"
    of_summary = replace(record, summary=record.summary | {"score": name})
    half_way = replace(record, summary={}, log=[*record.log, f"[   62.0 s] score: {name}; 60 candidates each"])
    for found in (of_summary, half_way):
        assert told in words_of(effects_section(found, found.space))


def test_the_sentences_are_those_of_the_largest_effects(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    words = words_of(effects_section(record, record.space))
    sentences = re.findall(r"Stage \d, layer \d: \S+ instead of \S+, ([+−][\d.]+) score \((\S+) to (\S+)\)", words)
    values = [abs(float(value.replace("−", "-"))) for value, _, _ in sentences]
    assert 0 < len(values) <= 5 and values == sorted(values, reverse=True)
    for _, low, high in sentences:
        assert low[0] == high[0], "an effect that is said in words has an interval without zero"
    assert re.search(r"explains \d+ % of the variance", words)
    assert re.search(r"\d+ of 16 intervals leave out zero; about 0.8 would by chance", words)
    assert "layer 2 is the second one that is kept" in words


def test_random_candidates_are_fitted_where_they_suffice_and_all_where_not(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    assert record.space is not None
    assert sample_of(record, record.space).is_random
    few = {"evolution": record.history["evolution"], "random": record.history["random"][:20]}
    sample = sample_of(replace(record, history=few), record.space)
    every = {tuple(row["genotype"]) for rows in few.values() for row in rows}
    assert not sample.is_random and len(sample.scores) == len(every)
    assert "no sample of the space" in words_of(effects_section(replace(record, history=few), record.space))


def test_too_few_candidates_say_so(noisy_run: RunDir) -> None:
    record = read_record(noisy_run)
    few = replace(record, history={"evolution": record.history["evolution"][:12]})
    assert "cannot be told yet: 12 networks cannot tell" in words_of(effects_section(few, record.space))
    assert "before candidates are scored" in words_of(effects_section(replace(record, history={}), record.space))
    assert "before candidates are scored" in words_of(effects_section(record, None))


@pytest.fixture(scope="module")
def clicks() -> tuple[NasrecSpace, list[tuple[int, ...]]]:
    space, rng = nasrec_full(5, 4, 3), random.Random(0)
    return space, [space.draw(rng) for _ in range(400)]


def test_choices_of_clicks_have_levels_and_what_is_not_computed_has_none(
    clicks: tuple[NasrecSpace, list[tuple[int, ...]]],
) -> None:
    space, genotypes = clicks
    factors = {factor.place: factor for factor in factors_of(space, genotypes)}
    for number, genotype in enumerate(genotypes):
        block = space.decode(genotype).blocks[2]
        level = factors["block 3, dense operator"].taken[number]
        assert (level == OFF) == (not block.dense_ops)
        if block.dense_ops:
            assert space.dense_ops[level] == block.dense_ops[0]
        reads = factors["block 3, sparse inputs read block 1"].taken[number]
        assert reads == (int(1 in block.sparse_in) if block.sparse_in else OFF)
        assert factors["block 3, FM"].taken[number] in (int(block.fm), OFF)
    assert any((factor.taken == OFF).any() for factor in factors.values())


def test_effects_of_clicks_are_found(clicks: tuple[NasrecSpace, list[tuple[int, ...]]]) -> None:
    """FM in block 3 adds 2, and an attention there takes 1; the rest is noise."""
    space, genotypes = clicks
    rng = np.random.default_rng(0)
    rows = []
    for genotype in genotypes:
        block = space.decode(genotype).blocks[2]
        score = 2.0 * block.fm - 1.0 * ("attention" in block.sparse_ops) + 0.1 * rng.normal()
        costs = {"macs": space.cost(genotype).macs}
        rows.append({"method": "random", "genotype": list(genotype), "score": float(score), "costs": costs})
    record = record_of(rows)
    words = words_of(effects_section(record, space))
    assert row(words, "Block 3, FM: on instead of off") == pytest.approx(2.0, abs=0.1)
    reference = "EFC" if space.sparse_ops[0] == "efc" else "attention"
    other, sign = ("attention", -1.0) if reference == "EFC" else ("EFC", 1.0)
    said = row(words, f"Block 3, sparse operator: {other} instead of {reference}")
    assert said == pytest.approx(sign, abs=0.1)
    sample = sample_of(record, space)
    fit = marginal_effects(sample.levels, sample.scores, [factor.reference for factor in sample.factors])
    widths = [c for c in fit.contrasts if sample.factors[c.factor].place == "block 3, dense width"]
    macs = macs_of(sample, fit)
    assert macs[widths[-1].factor, widths[-1].level] > 0, "a wider output costs more"


def record_of(rows: list[dict[str, object]]) -> Record:
    empty: dict[str, object] = dict.fromkeys(
        ("config", "environment", "summary", "indicators", "spectrum", "terms", "comparison", "ranking", "data"), {}
    )
    lists: dict[str, object] = dict.fromkeys(("metrics", "winners", "trials", "jobs", "heartbeats", "log"), [])
    return Record(name="made", history={"random": rows}, part_logs={}, **empty, **lists)  # type: ignore[arg-type]


def test_many_numbers_become_a_few_ranges() -> None:
    space = BENCHMARK_SPACES["zennas-cifar"](32, 10)
    rng = random.Random(0)
    genotypes = [tuple(rng.randrange(len(d.choices)) for d in space.decisions) for _ in range(20)]
    factors = {factor.place: factor for factor in factors_of(space, genotypes)}
    channels = factors["stage1.a.channels"]
    assert channels.levels == ("8 to 64", "72 to 128", "136 to 192", "200 to 256")
    column = [d.name for d in space.decisions].index("stage1.a.channels")
    assert [int(level) for level in channels.taken] == [genotype[column] // 8 for genotype in genotypes]
    assert factors["stage1.a.kind"].levels == space.decisions[1].choices
