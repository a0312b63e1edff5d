"""The networks that NASRec publishes, in canonical form: the best one-shot searches on three data sets, two spaces.

Source: facebookresearch/NasRec @79bf6f9 (Apache-2.0), nasrec/configs/*/ea_*_best_1shot.json. Their published log loss
and AUC are of that project's splits and recipe, and are no claim about this one's.
"""

from __future__ import annotations

from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.space import Genotype, from_named_choices

PUBLISHED: dict[tuple[str, str], tuple[str, ...]] = {
    ("criteo", "nasrec-small"): (
        "fc 256 0 efc 48 0 on off",
        "dot_product 1024 1 efc 48 0+1 on on",
        "fc 128 0+2 efc 16 0 off off",
        "fc 16 2 efc 48 0+2 off on",
        "dot_product 128 0+2+3+4 efc 32 2+4 off off",
        "fc 16 0 efc 16 0 off off",
        "fc 1024 0+3+5 efc 64 0+1+2+5 off off",
    ),
    ("criteo", "nasrec-full"): (
        "gating 128 0 0 0 attention 64 0 on off",
        "dot_product 32 0 0 0 efc 64 0 off off",
        "dot_product 768 1+2 0 0 efc 32 0+1+2 off on",
        "fc 16 0 0 0 attention 16 0 off off",
        "fc 16 0 0 0 attention 16 0 off off",
        "fc 16 0 0 0 attention 16 0 off off",
        "fc 128 0+2+3 0 0 attention 48 1+3 off on",
    ),
    ("avazu", "nasrec-small"): (
        "dot_product 512 0 efc 64 0 on off",
        "fc 1024 0+1 efc 48 0 on off",
        "fc 512 0+2 efc 16 0 off on",
        "dot_product 768 3 efc 48 0+3 off on",
        "fc 128 0+2+3 efc 16 0+1 off on",
        "fc 128 1+3+4 efc 64 0+1+3 on off",
        "fc 512 5 efc 32 1+2+6 on on",
    ),
    ("avazu", "nasrec-full"): (
        "dot_product 32 0 0 0 attention 48 0 on off",
        "dot_product 768 0+1 0 0 efc 64 0+1 on off",
        "fc 512 0 0 0 efc 48 0 on off",
        "fc 16 0 0 0 attention 16 0 off off",
        "fc 16 0 0 0 attention 16 0 off off",
        "fc 16 0 0 0 attention 16 0 off off",
        "gating 768 0 0 2 attention 16 2+3 on off",
    ),
    ("kdd12", "nasrec-small"): (
        "fc 768 0 efc 48 0 on on",
        "dot_product 128 0+1 efc 64 0+1 on off",
        "dot_product 32 0+1+2 efc 48 0+1 on on",
        "fc 256 0+1+2+3 efc 64 0+2+3 off off",
        "fc 1024 3+4 efc 64 0+1+2+4 off off",
        "dot_product 768 1+2+5 efc 16 4+5 off off",
        "dot_product 1024 2+3+4+6 efc 48 0+1+2+4 on off",
    ),
    ("kdd12", "nasrec-full"): (
        "dot_product 128 0 0 0 attention 48 0 on off",
        "gating 768 0 0 0 attention 64 1 on off",
        "fc 16 0 0 0 efc 48 1+2 off off",
        "sum 64 0 2 2 attention 16 1 on off",
        "sum 64 0 0 2 efc 48 0+2 off off",
        "fc 16 0 0 0 attention 16 0 off off",
        "gating 768 0 5 5 efc 16 1+3+4+5 on off",
    ),
}
"""(data set, space): a block's choices, one line a block, in the order of the space's decisions."""


def published_winner(space: NasrecSpace, dataset: str) -> Genotype | None:
    """The published network of a data set (criteo, avazu, kdd12) in this space; None where there is none, as for spaces
    of other blocks or widths."""
    rows = PUBLISHED.get((dataset, space.name))
    words = [] if rows is None else " ".join(rows).split()
    if len(words) != len(space.decisions):
        return None
    chosen = {decision.name: word for decision, word in zip(space.decisions, words, strict=True)}
    if any(chosen[decision.name] not in decision.choices for decision in space.decisions):
        return None
    return from_named_choices(space, chosen)
