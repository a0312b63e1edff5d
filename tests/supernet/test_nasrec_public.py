"""The published JSON form of NASRec networks."""

import copy
import gzip
import json
import random

import pytest

from subshot.supernet.nasrec import autoctr_in_nasrec, nasrec_full, nasrec_small
from subshot.supernet.nasrec_public import from_public_config, to_public_config
from subshot.supernet.space import named_choices

SPACES = (nasrec_small(13, 26), nasrec_full(13, 26), autoctr_in_nasrec(13, 26))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_round_trip(space) -> None:
    rng = random.Random(0)
    for _ in range(50):
        genotype = tuple(rng.randrange(len(decision.choices)) for decision in space.decisions)
        config = to_public_config(space, genotype)
        assert from_public_config(space, json.loads(json.dumps(config))) == genotype


def test_a_published_winner_comes_back_but_for_the_order_of_inputs(shared_data) -> None:
    path = shared_data / "published_results.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with gzip.open(path, "rt") as file:
        model = json.load(file)["nasrec"]["models"][1]
    space, config = SPACES[1], model["config"]
    genotype = from_public_config(space, config)
    names = named_choices(space, genotype)
    assert [names[f"b1.{key}"] for key in ("dense_op", "sparse_op", "dense_dim", "sparse_dim")] == [
        "gating", "attention", "128", "64",
    ]  # fmt: skip
    assert names["b5.dense_in"] == "0+2+3+4" and names["b7.left"] == "6" and names["b7.fm"] == "on"
    back = to_public_config(space, genotype)
    assert back["micro"] == config["micro"] and back["config"] == config["config"]
    assert back["macro"] == [{key: sorted(value) for key, value in block.items()} for block in config["macro"]]


def changed(path, value):
    """A public config of NASRec-Small with one entry replaced."""
    config = copy.deepcopy(to_public_config(SPACES[0], SPACES[0].draw(random.Random(0))))
    place = config
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return config


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("config",), "xlarge", "nasrec-small is called 'autoctr' in public configs; this one is of 'xlarge'"),
        (("micro",), None, "'micro' of a public config must be a list of 7 blocks"),
        (("macro",), [], "'macro' of a public config must be a list of 7 blocks"),
        (("macro", 2, "sparse_idx"), None, "block 3 of 'macro' lacks sparse_idx"),
        (
            ("micro", 1, "active_nodes"),
            [0, 3],
            r"a dense operator, 0 to 1, and a sparse one, up to 2; they are \[0, 3\]",
        ),
        (("micro", 1, "active_nodes"), [0, 1], "active_nodes of block 2"),
        (("micro", 4, "dense_in_dims"), 48, "decision b5.dense_dim cannot be '48'; allowed: 16, 32"),
        (("macro", 6, "dense_idx"), [0, 1, 2, 3, 4], r"b7.dense_in cannot be '0\+1\+2\+3\+4'"),
        (("macro", 1, "dense_idx"), [2], "b2.dense_in cannot be '2'; allowed: 0, 1, 0"),
        (("macro", 1, "dense_idx"), [], "b2.dense_in cannot be ''"),
    ],
)
def test_configs_that_are_not_of_the_space(path, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        from_public_config(SPACES[0], changed(path, value))
