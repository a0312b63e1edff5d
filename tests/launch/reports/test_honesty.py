"""What the report says of a ranking: a sentence for every verdict, on rankings with the figures that lead to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from subshot.launch.reports.honesty import as_text, section, sentences
from subshot.launch.reports.record import Record

RankingOf = Callable[..., dict[str, Any]]
RANKS, UNSURE = (0.6, 0.3, 0.75), (0.2, -0.3, 0.6)


def record_of(ranking: dict[str, Any]) -> Record:
    empty: dict[str, Any] = {}
    return Record(
        "run", empty, empty, empty, empty, [], empty, empty, [], empty, [], empty, ranking, empty, [], [], [], {}
    )


def words_of(ranking: dict[str, Any]) -> str:
    return " ".join(unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", section(record_of(ranking)), flags=re.S)).split())


def test_nothing_measured_names_the_command() -> None:
    assert "It was not measured" in words_of({}) and "launch/correlate.py RUN --sample 12" in words_of({})


@pytest.mark.parametrize(
    ("tau", "sentence"),
    [
        (
            RANKS,
            "Kendall's tau of the score is +0.60 (+0.30 to +0.75, 95 % interval): a higher score means a better "
            "network more often than not.",
        ),
        (UNSURE, "the interval contains zero, so this run does not show that the score ranks at all."),
        ((-0.5, -0.7, -0.2), "upside down. Better networks have lower scores here."),
        (None, "There is no order to compare: all networks reached the same, or all have the same score."),
    ],
)
def test_whether_the_score_ranks(ranking_of: RankingOf, tau: Any, sentence: str) -> None:
    said = " ".join(sentences(ranking_of(tau, {"params": (0.1, -0.4, 0.5)})))
    assert sentence in said
    verdicts = ("more often than not", "does not show that the score ranks at all", "upside down")
    assert sum(verdict in said for verdict in verdicts) == 1


def test_a_wide_interval_is_told_and_how_to_narrow_it(ranking_of: RankingOf) -> None:
    told = "12 networks give a wide interval: tau may be anything from −0.30 to +0.60; --sample 30 narrows it."
    assert told in sentences(ranking_of(UNSURE, {}))
    told = "30 networks give a wide interval: tau may be anything from −0.30 to +0.60."
    assert told in sentences(ranking_of(UNSURE, {}, networks=30))
    assert "wide interval" not in " ".join(sentences(ranking_of(RANKS, {})))


@pytest.mark.parametrize(
    ("params", "difference", "sentence"),
    [
        ((0.65, 0.3, 0.8), (-0.3, 0.2), "Parameters rank as well (tau +0.65 against +0.60): this run does not show"),
        ((0.4, 0.1, 0.7), (-0.1, 0.5), "the interval of the difference contains zero (−0.10 to +0.50): they may rank"),
        (
            (0.1, -0.2, 0.4),
            (0.2, 0.7),
            "Parameters rank less well (tau +0.10 against +0.60; difference +0.20 to +0.70).",
        ),
    ],
)
def test_whether_a_count_does_as_well(ranking_of: RankingOf, params: Any, difference: Any, sentence: str) -> None:
    said = " ".join(sentences(ranking_of(RANKS, {"params": params}, differences={"params": difference})))
    assert sentence in said


def test_the_best_of_several_others_is_flattered(ranking_of: RankingOf) -> None:
    said = " ".join(sentences(ranking_of(RANKS, {}, {"naswot": (0.7, 0.4, 0.8), "zico": (0.2, -0.1, 0.5)})))
    told = (
        "Of the other scores the best is naswot, untrained: tau +0.70 (+0.40 to +0.80), above the search's; as the best"
    )
    assert told in said
    assert "flattered" not in " ".join(sentences(ranking_of(RANKS, {}, {"zico": (0.2, -0.1, 0.5)})))


@pytest.mark.parametrize(
    ("retrain", "sentence"),
    [
        (
            7,
            "Of 12 networks of this sample the best 7 by score must be retrained to have the best of them with 90 % "
            "confidence; among the search's own favourites, which lie closer together, the order may be worse.",
        ),
        (12, "retrain all of them: the score saves no training."),
    ],
)
def test_how_many_to_retrain(ranking_of: RankingOf, retrain: int, sentence: str) -> None:
    assert sentence in " ".join(sentences(ranking_of(RANKS, {}, retrain=retrain)))


def test_which_networks_are_taken_first_is_told(ranking_of: RankingOf) -> None:
    assert "that retraining had trained already were taken first, so some may be of the winner's cost" in words_of(
        ranking_of(RANKS, {})
    )


def test_what_the_first_alone_loses_is_in_the_unit_of_the_task(ranking_of: RankingOf) -> None:
    said = " ".join(sentences(ranking_of(RANKS, {})))
    assert "loses 2.10 points of accuracy against the best of the sample; 3.40 in the mean over resamples" in said
    said = " ".join(sentences(ranking_of(RANKS, {}, metric="val/log_loss")))
    assert "loses 0.0210 log loss against the best of the sample; 0.0340 in the mean" in said


def test_noise_of_training_and_divergence_are_told(ranking_of: RankingOf) -> None:
    said = " ".join(sentences(ranking_of(RANKS, {}, diverged=2)))
    told = "Another training orders the networks as this one does to tau +0.66; what is missing to 1 is noise of"
    assert told in said and "do better" not in said and "Diverged, and counted as worst: 2 trainings." in said
    said = " ".join(sentences(ranking_of(RANKS, {}, seed_kendall=None)))
    assert "Another training" not in said and "Diverged" not in said


def test_the_page_has_pictures_table_and_sentences(ranking_of: RankingOf) -> None:
    ranking = ranking_of(RANKS, {"params": (0.65, 0.3, 0.8), "macs": None}, {"naswot": (0.1, -0.2, 0.4)})
    html = section(record_of(ranking))
    assert html.count("<svg") == 2
    words = words_of(ranking)
    assert "Highest: parameters, tau +0.65" in words
    assert "The score and what 12 networks reach: tau +0.60" in words
    assert "MACs – –" in words and "recall, best 3" in words
    for sentence in sentences(ranking):
        assert sentence in words
    assert "parameters +0.65 +0.30 to +0.80 +0.34 +0.13 to +0.43 0.70" in words
    lines = as_text(ranking)
    assert "undefined" in "\n".join(lines)
    assert lines[1].split()[:11] == "the search's score +0.60 (+0.30 to +0.75) +0.31 (+0.13 to +0.41)".split()


def test_a_page_without_any_correlation_is_whole(ranking_of: RankingOf) -> None:
    assert section(record_of(ranking_of(None, {}, retrain=None))).count("<svg") == 1
