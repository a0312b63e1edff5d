"""The JSON form in which NASRec publishes its networks, as our genotypes and back.

Source: facebookresearch/NasRec @79bf6f9, nasrec/configs/*/ea_*_best_1shot.json. `micro` and `macro` have one entry a
block; `active_nodes` are places in the list of the space's dense operators followed by its sparse ones.
"""

from __future__ import annotations

from typing import Any

from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.space import Genotype

PUBLIC_NAMES = {"nasrec-small": "autoctr", "nasrec-full": "xlarge", "nasrec-zeros": "xlarge-zeros"}
_MICRO = ("active_nodes", "dense_in_dims", "sparse_in_dims", "dense_sparse_interact", "deep_fm")
_MACRO = ("dense_idx", "sparse_idx", "dense_left_idx", "dense_right_idx")
_OFF_ON = ("off", "on")


def from_public_config(space: NasrecSpace, config: dict[str, Any]) -> Genotype:
    """The genotype of a published network as it is written, inert genes included (`space.canonical` drops them).

    The order of inputs is lost, as in the public code, which takes them in rising order. `use_layernorm` and
    `test_loss` are not part of a genotype: the public code itself trains final networks without layer normalisation.
    Raises ValueError where the config is of another space, lacks a key, or has a value that the space does not have.
    """
    wanted = PUBLIC_NAMES.get(space.name, space.name)
    if config.get("config", wanted) != wanted:
        raise ValueError(f"{space.name} is called {wanted!r} in public configs; this one is of {config['config']!r}")
    for part, keys in (("micro", _MICRO), ("macro", _MACRO)):
        blocks = config.get(part)
        if not isinstance(blocks, list) or len(blocks) != space.num_blocks:
            raise ValueError(f"{space.name}: {part!r} of a public config must be a list of {space.num_blocks} blocks")
        for number, block in enumerate(blocks, start=1):
            missing = [key for key in keys if key not in block]
            if missing:
                raise ValueError(f"{space.name}: block {number} of {part!r} lacks {', '.join(missing)}")
    ops = (*space.dense_ops, *space.sparse_ops)
    choices: dict[str, str] = {}
    for number, (micro, macro) in enumerate(zip(config["micro"], config["macro"], strict=True), start=1):
        nodes = sorted(micro["active_nodes"])
        if len(nodes) != 2 or not 0 <= nodes[0] < len(space.dense_ops) <= nodes[1] < len(ops):
            raise ValueError(
                f"{space.name}: active_nodes of block {number} must be a dense operator, 0 to "
                f"{len(space.dense_ops) - 1}, and a sparse one, up to {len(ops) - 1}; they are {micro['active_nodes']}"
            )
        block = {
            "dense_op": ops[nodes[0]],
            "dense_dim": str(micro["dense_in_dims"]),
            "dense_in": _joined(macro["dense_idx"]),
            "sparse_op": ops[nodes[1]],
            "sparse_dim": str(micro["sparse_in_dims"]),
            "sparse_in": _joined(macro["sparse_idx"]),
            "dense_to_sparse": _OFF_ON[bool(micro["dense_sparse_interact"])],
            "fm": _OFF_ON[bool(micro["deep_fm"])],
        }
        if space.binary:
            block |= {"left": _joined(macro["dense_left_idx"]), "right": _joined(macro["dense_right_idx"])}
        choices |= {f"b{number}.{name}": choice for name, choice in block.items()}
    return tuple(_place(space, name, choices[name]) for name in space.places)


def to_public_config(space: NasrecSpace, genotype: Genotype) -> dict[str, Any]:
    """The inverse, without the keys that are not part of a genotype. A space without left and right writes 0 for
    them."""
    choices = {d.name: d.choices[gene] for d, gene in zip(space.decisions, genotype, strict=True)}
    ops = (*space.dense_ops, *space.sparse_ops)
    micro, macro = [], []
    for number in range(1, space.num_blocks + 1):
        block = {name: choices.get(f"b{number}.{name}", "0") for name in ("left", "right")}
        block |= {name.split(".")[1]: choice for name, choice in choices.items() if name.startswith(f"b{number}.")}
        sparse_op = len(space.dense_ops) + space.sparse_ops.index(block["sparse_op"])
        micro.append(
            {
                "active_nodes": [ops.index(block["dense_op"]), sparse_op],
                "dense_in_dims": int(block["dense_dim"]),
                "sparse_in_dims": int(block["sparse_dim"]),
                "dense_sparse_interact": _OFF_ON.index(block["dense_to_sparse"]),
                "deep_fm": _OFF_ON.index(block["fm"]),
            }
        )
        inputs = (block[name] for name in ("dense_in", "sparse_in", "left", "right"))
        indices = ([int(index) for index in text.split("+")] for text in inputs)
        macro.append(dict(zip(_MACRO, indices, strict=True)))
    name = PUBLIC_NAMES.get(space.name, space.name)
    return {"micro": micro, "macro": macro, "num_blocks": space.num_blocks, "config": name}


def _joined(indices: list[int]) -> str:
    return "+".join(str(index) for index in sorted(indices))


def _place(space: NasrecSpace, name: str, choice: str) -> int:
    allowed = space.decisions[space.places[name]].choices
    if choice not in allowed:
        raise ValueError(f"{space.name}: decision {name} cannot be {choice!r}; allowed: {', '.join(allowed)}")
    return allowed.index(choice)
