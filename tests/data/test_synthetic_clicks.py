"""The generated log: Criteo's format, the same bytes for a seed, and a probability that nothing learnable beats."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from subshot.data import synthetic_clicks
from subshot.data.synthetic_clicks import BLOCK_ROWS, write_synthetic_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_log(tmp_path_factory.mktemp("synthetic") / "log.tsv", rows=20_000, seed=3)


def _fields(log: Path) -> list[list[str]]:
    return [line.split("\t") for line in log.read_text(encoding="ascii").splitlines()]


def _probability(log: Path) -> np.ndarray:
    loaded = np.load(log.with_name(log.name + ".bayes.npy"), allow_pickle=False)
    assert loaded.dtype == np.float32
    return loaded.astype(np.float64)


def _log_loss(probability: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.where(labels == 1, probability, 1.0 - probability)).mean())


def test_lines_have_the_format_of_criteo(log: Path) -> None:
    rows = _fields(log)
    assert len(rows) == 20_000 and {len(row) for row in rows} == {40}
    assert {row[0] for row in rows} == {"0", "1"}
    columns = list(zip(*rows, strict=True))
    for column in columns[1:14]:
        values = [int(value) for value in column if value]
        assert len(set(values)) > 5
        assert min(values) >= 0 or column is columns[2]
    assert min(int(value) for value in columns[2]) == -2  # I2 has negative values and is never missing, as in Criteo
    for column in columns[14:]:
        assert all(len(value) == 8 and int(value, 16) >= 0 for value in column if value)
    blank = [np.mean([value == "" for value in column]) for column in columns[1:]]
    assert blank[0] == pytest.approx(0.45, abs=0.02) and blank[11] == pytest.approx(0.77, abs=0.02)
    assert blank[13 + 22] == pytest.approx(0.76, abs=0.02) and blank[13] == 0.0


def test_categories_follow_zipfs_law(log: Path) -> None:
    column = [row[14 + 2] for row in _fields(log)]  # C3: 30 values, 3 % missing
    counts = np.array(sorted((column.count(value) for value in set(column) - {""}), reverse=True))
    slope = np.polyfit(np.log(np.arange(1, len(counts) + 1)), np.log(counts), 1)[0]
    assert slope == pytest.approx(-0.9, abs=0.05)


def test_the_side_file_says_synthetic_and_what_was_drawn(log: Path) -> None:
    record = json.loads(log.with_name("log.tsv.synthetic.json").read_text())
    labels = np.array([int(row[0]) for row in _fields(log)])
    assert record["synthetic"] is True
    assert (record["seed"], record["rows"], record["bayes_probability_npy"]) == (3, 20_000, "log.tsv.bayes.npy")
    assert record["base_rate"] == labels.mean() == pytest.approx(0.25, abs=0.015)
    assert record["bayes_log_loss"] == pytest.approx(_log_loss(_probability(log), labels), abs=1e-12)


def test_the_probability_is_that_of_the_labels(log: Path) -> None:
    """Calibrated in each of ten bins, within five standard errors."""
    p, labels = _probability(log), np.array([int(row[0]) for row in _fields(log)])
    assert p.min() > 0.0 and p.max() < 1.0
    for bin_rows in np.array_split(np.argsort(p), 10):
        error = np.sqrt((p[bin_rows] * (1 - p[bin_rows])).sum()) / len(bin_rows)
        assert abs(labels[bin_rows].mean() - p[bin_rows].mean()) < 5 * error


def test_the_probability_is_a_function_of_the_features_under_nasrecs_hashing() -> None:
    """All categories of a field have a table row of their own, and a logit of features read back is the one drawn."""
    truth = synthetic_clicks._truth(3)
    for values, table_rows in zip(truth.values, synthetic_clicks._TABLE_ROWS, strict=True):
        rows = {int(value, 16) % (table_rows - 1) + 1 for value in values[:-1]}
        assert len(rows) == len(values) - 1 and values[-1] == ""


def test_a_slow_reading_of_the_lines_gives_the_same_probability(log: Path) -> None:
    truth = synthetic_clicks._truth(3)
    location = [pair[0] for pair in synthetic_clicks._DENSE_LOG]
    scale = [pair[1] for pair in synthetic_clicks._DENSE_LOG]
    for row, expected in list(zip(_fields(log), _probability(log), strict=True))[::997]:
        x = [np.log1p(max(int(value or 0), 0)) - mean for value, mean in zip(row[1:14], location, strict=True)]
        ids = [values.index(value) for values, value in zip(truth.values, row[14:], strict=True)]
        logit = truth.constant
        logit += sum(weights[ids[field]] for field, weights in truth.weights.items())
        logit += sum(weight * x[j] for j, weight in truth.dense_weights.items())
        logit += sum(float(u[ids[a]] @ v[ids[b]]) for (a, b), (u, v) in truth.latent.items())
        logit += sum(slope[ids[field]] * x[j] / scale[j] for (j, field), slope in truth.slopes.items())
        assert expected == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_first_order_models_fall_short_of_second_order_ones(log: Path) -> None:
    """A logistic regression beats the base rate; given the products of the planted pairs it comes far nearer to p."""
    rows, p = _fields(log), _probability(log)
    labels = np.array([int(row[0]) for row in rows])
    train, held = slice(0, 16_000), slice(16_000, None)
    dense = np.array([[np.log1p(max(int(value or 0), 0)) for value in row[1:14]] for row in rows])
    dense = (dense - dense.mean(axis=0)) / dense.std(axis=0)
    single = [csr_matrix(dense), *(_one_hot([row[14 + field] for row in rows]) for field in range(26))]
    pairs = [_one_hot([row[14 + a] + row[14 + b] for row in rows]) for a, b in synthetic_clicks._PAIRS]
    pairs += [
        _one_hot([row[14 + field] for row in rows]).multiply(dense[:, [j]]).tocsr()
        for j, field in synthetic_clicks._DENSE_PAIRS
    ]

    def held_out_loss(features: csr_matrix) -> float:
        model = LogisticRegression(C=0.1, max_iter=100).fit(features[train], labels[train])
        return _log_loss(model.predict_proba(features[held])[:, 1], labels[held])

    base = _log_loss(np.full(4_000, labels[train].mean()), labels[held])
    first = held_out_loss(hstack(single).tocsr())
    second = held_out_loss(hstack(single + pairs).tocsr())
    bayes = _log_loss(p[held], labels[held])
    assert base - first > 0.05
    assert first - second > 0.05
    assert 0.0 < second - bayes < 0.5 * (first - bayes)


def _one_hot(column: list[str]) -> csr_matrix:
    _, places = np.unique(column, return_inverse=True)
    return csr_matrix((np.ones(len(places)), (np.arange(len(places)), places)))


def test_a_seed_gives_the_same_bytes_and_a_longer_log_begins_with_them(log: Path, tmp_path: Path) -> None:
    short = write_synthetic_log(tmp_path / "short.tsv", rows=BLOCK_ROWS + 7, seed=3)
    whole = log.read_bytes()
    assert short.read_bytes() == b"".join(whole.splitlines(keepends=True)[: BLOCK_ROWS + 7])
    np.testing.assert_array_equal(_probability(short), _probability(log)[: BLOCK_ROWS + 7])
    other = write_synthetic_log(tmp_path / "other.tsv", rows=BLOCK_ROWS + 7, seed=4)
    assert other.read_bytes() != short.read_bytes()


def test_a_break_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="no space left"):
        write_synthetic_log(tmp_path / "log.tsv", rows=10, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        write_synthetic_log(tmp_path / "log.tsv", rows=0, seed=0)
    with pytest.raises(ValueError, match="seed must not be negative"):
        write_synthetic_log(tmp_path / "log.tsv", rows=1, seed=-1)
