"""docs/proxies.md keeps up with PROXIES: entries, table, the plan that it shows, and where clicks have a score."""

import random
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from subshot.proxies import PROXIES, ProxyUndefined, measure, plan
from subshot.supernet.base import Bound
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_supernet import NasrecSupernet

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "proxies.md").read_text()
ENTRIES = {
    entry.splitlines()[0].split("`")[1]: " ".join(entry.split()) for entry in PAGE.split("\n\n") if entry[:3] == "**`"
}
COLUMNS = ["name", "better", "batches", "labels", "BatchNorm", "weights", "inputs", "CTR"]


def table() -> list[dict[str, str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    assert rows[0] == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[2:]]


def test_there_is_one_entry_for_each_proxy() -> None:
    assert sorted(re.findall(r"^\*\*`(\w+)`\*\*", PAGE, re.MULTILINE)) == sorted(PROXIES) == sorted(ENTRIES)


@pytest.mark.parametrize("name", PROXIES)
def test_an_entry_is_short_and_has_the_orientation(name: str) -> None:
    better = "Higher" if PROXIES[name].maximize else "Lower"
    assert ENTRIES[name].startswith(f"**`{name}`** {better} is better")
    (entry,) = (part for part in PAGE.split("\n\n") if part.startswith(f"**`{name}`**"))
    assert len(entry.splitlines()) <= 10


def test_the_table_has_the_declared_fields() -> None:
    declared = [
        {
            "name": f"`{name}`",
            "better": "higher" if proxy.maximize else "lower",
            "batches": str(proxy.num_batches),
            "labels": "yes" if proxy.needs_labels else "no",
            "BatchNorm": proxy.setting.batch_norm,
            "weights": proxy.setting.weights,
            "inputs": proxy.setting.inputs,
        }
        for name, proxy in PROXIES.items()
    ]
    assert [{key: row[key] for key in COLUMNS if key != "CTR"} for row in table()] == declared


def test_the_papers_of_the_declared_sources_are_named() -> None:
    papers = {paper for proxy in PROXIES.values() for paper in re.findall(r"\d{4}\.\d{5}", proxy.source)}
    assert not {paper for paper in papers if paper not in PAGE}


def test_the_plan_is_what_plan_prints() -> None:
    (names,) = re.findall(r"chosen = \[PROXIES\[name\] for name in \((.*)\)\]", PAGE)
    (shown,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert shown == plan([PROXIES[name] for name in re.findall(r"\w+", names)])


def test_clicks_have_the_scores_that_the_table_says() -> None:
    space = NasrecSpace("full", 3, 4, 4, dense_dims=(8, 16, 21, 40, 128), sparse_dims=(4, 6, 11))
    generator = torch.Generator().manual_seed(1)
    batches = [
        (
            (torch.randn(16, 3, generator=generator), torch.randn(16, 4, space.embedding_dim, generator=generator)),
            torch.randint(2, (16,), generator=generator).float(),
        )
        for _ in range(4)
    ]
    model = Bound(NasrecSupernet(space, torch.Generator().manual_seed(0)), space.draw(random.Random(0)))
    scores = measure(model, list(PROXIES.values()), batches, F.binary_cross_entropy_with_logits)
    found = {f"`{name}`": "no" if isinstance(score, ProxyUndefined) else "yes" for name, score in scores.items()}
    assert {row["name"]: row["CTR"] for row in table()} == found
