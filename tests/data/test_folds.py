"""Folds are those of the scikit-learn versions that published splits were made with."""

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from subshot.data.folds import FOLDS, stratified_folds


def labels_of(zeros: int, ones: int, seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.array([0, 1], np.uint8), [zeros, ones])
    np.random.Generator(np.random.Philox(seed)).shuffle(labels)
    return labels


COUNTS = [(1000, 250), (1009, 251), (38, 10), (10, 10), (3, 47), (47, 3)]


@pytest.mark.parametrize(("zeros", "ones"), COUNTS)
@pytest.mark.parametrize("seed", [0, 2018])
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_the_installed_scikit_learn_deals_the_same_folds(zeros: int, ones: int, seed: int) -> None:
    for labels in (labels_of(zeros, ones), 1 - labels_of(ones, zeros, seed=5)):
        expected = np.empty(len(labels), np.int8)
        for fold, (_, rows) in enumerate(StratifiedKFold(10, shuffle=True, random_state=seed).split(labels, labels)):
            expected[rows] = fold
        np.testing.assert_array_equal(stratified_folds(labels, seed), expected)


@pytest.mark.parametrize(("zeros", "ones"), COUNTS)
def test_the_older_folds_are_a_kfold_of_each_class_from_one_seed(zeros: int, ones: int) -> None:
    labels = labels_of(zeros, ones)
    expected = np.empty(len(labels), np.int8)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        splits = KFold(10, shuffle=True, random_state=2018).split(np.zeros(max(len(rows), 10)))
        for fold, (_, chosen) in enumerate(splits):
            expected[rows[chosen[chosen < len(rows)]]] = fold
    np.testing.assert_array_equal(stratified_folds(labels, 2018, "stratified-0.19"), expected)


def test_left_over_rows_fall_as_in_the_published_row_counts_of_criteo() -> None:
    """34,095,179 rows without and 11,745,438 with a click; here with 34,095,000 and 11,745,000 fewer."""
    labels = labels_of(179, 438)
    fewer = (34_095_000 + 11_745_000) // FOLDS
    new = np.bincount(stratified_folds(labels, 2018)) + fewer
    assert (new[:8].sum(), new[8], new[9]) == (36_672_495, 4_584_061, 4_584_061)  # NASRec
    old = np.bincount(stratified_folds(labels, 2018, "stratified-0.19")) + fewer
    assert (old[2:].sum(), old[1], old[0]) == (36_672_493, 4_584_062, 4_584_062)  # BARS


def test_a_label_that_is_neither_0_nor_1_is_refused() -> None:
    with pytest.raises(ValueError, match="there is a 2"):
        stratified_folds(np.array([0, 1, 2], np.uint8), 0)
    assert len(stratified_folds(np.empty(0, np.uint8), 0)) == 0
