"""Ten stratified folds of a log's rows: a function of the labels and a seed, and of nothing that is installed.

The published splits of click logs come out of scikit-learn's StratifiedKFold(10, shuffle=True), whose folds for one
seed have changed over its versions. Both variants are written out here from what those versions do, on NumPy's
RandomState, whose streams NumPy has promised to keep.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FOLDS = 10

FoldRule = Literal["stratified", "stratified-0.19"]


def stratified_folds(labels: NDArray[np.uint8], seed: int, rule: FoldRule = "stratified") -> NDArray[np.int8]:
    """The fold, 0 to 9, of each row. labels: [N] of 0 and 1.

    stratified: as scikit-learn since 0.22. Every fold gets its share of the rows, whole rows left over going to the
    first folds; within a class the folds' names are shuffled; one stream for both classes, the class of the first row
    first. Memory: 1 byte a row beside the result.

    stratified-0.19: as scikit-learn 0.19.0 to 0.20.2; BARS asks for 0.19.1. Each class is cut into ten parts on its
    own, so both leave their left-over rows to the first folds; each class is shuffled from the same seed.
    Memory: 8 bytes for each row of the larger class.
    """
    if len(labels) and int(labels.max()) > 1:
        raise ValueError(f"labels must be 0 or 1, and there is a {int(labels.max())}")
    return _since_022(labels, seed) if rule == "stratified" else _of_019(labels, seed)


def _since_022(labels: NDArray[np.uint8], seed: int) -> NDArray[np.int8]:
    folds = np.empty(len(labels), np.int8)
    if not len(labels):
        return folds
    random = np.random.RandomState(seed)
    begin = 0
    for label in (labels[0], 1 - labels[0]):
        of_class = labels == label
        count = int(np.count_nonzero(of_class))
        # Rows sorted by class are dealt out in turn, so a class that begins at `begin` gives fold i the positions
        # from `begin` to `begin + count` that are i modulo 10.
        until = [(position + FOLDS - 1 - np.arange(FOLDS)) // FOLDS for position in (begin, begin + count)]
        names = np.repeat(np.arange(FOLDS, dtype=np.int8), until[1] - until[0])
        random.shuffle(names)
        folds[of_class] = names
        begin += count
    return folds


def _of_019(labels: NDArray[np.uint8], seed: int) -> NDArray[np.int8]:
    folds = np.empty(len(labels), np.int8)
    for label in (0, 1):
        of_class = labels == label
        count = int(np.count_nonzero(of_class))
        order = np.arange(max(count, FOLDS))  # a class of fewer than ten rows is dealt out as if it had ten
        np.random.RandomState(seed).shuffle(order)
        sizes = np.full(FOLDS, len(order) // FOLDS)
        sizes[: len(order) % FOLDS] += 1
        names = np.empty(len(order), np.int8)
        names[order] = np.repeat(np.arange(FOLDS, dtype=np.int8), sizes)
        folds[of_class] = names[:count]
    return folds
