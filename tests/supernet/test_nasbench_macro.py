"""The NAS-Bench-Macro space against its table of 6,561 trained networks."""

import csv
import gzip

import pytest

from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.space import cardinality, enumerate_genotypes

SPACE = nasbench_macro()


def test_6561_genotypes_of_3969_networks() -> None:
    assert cardinality(SPACE) == 6561
    canonical = {SPACE.canonical(genotype) for genotype in enumerate_genotypes(SPACE)}
    assert len(canonical) == 3969 == 9 * 21 * 21
    product = [()]
    for group in SPACE.groups:
        product = [head + tail for head in product for tail in group]
    assert sorted(product) == sorted(canonical)


def test_all_params_and_flops_of_the_table(shared_data) -> None:
    """Equal canonical forms also have equal entries, accuracies included."""
    path = shared_data / "nasbench_macro_cifar10.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6561
    entries: dict[tuple[int, ...], set[tuple[str, ...]]] = {}
    for row in rows:
        genotype = tuple(int(digit) for digit in row["arch"])
        cost = SPACE.cost(genotype)
        assert (cost.params, cost.macs) == (int(row["params"]), int(row["flops"])), row["arch"]
        assert SPACE.costs["macs"](genotype) == cost.macs
        entry = tuple(value for key, value in row.items() if key != "arch")
        entries.setdefault(SPACE.canonical(genotype), set()).add(entry)
    assert len(entries) == 3969 and all(len(same) == 1 for same in entries.values())
