"""The NASRec spaces (Zhang et al. 2023, arXiv 2207.07187): any-connection blocks of dense and sparse operators.

Source of every number: facebookresearch/NasRec @79bf6f9, nasrec/supernet/supernet.py, where Small is called `autoctr`,
Full `xlarge`, and Full with operators that put out nothing `xlarge-zeros`. Where the public code differs: its genotypes
keep inert genes, so that equal networks are searched more than once; here they read 0.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

from subshot.supernet.cost import Cost
from subshot.supernet.nasrec_cost import network_cost, network_layers
from subshot.supernet.nasrec_spec import (
    BINARY_OPS,
    DENSE_OPS,
    NONE,
    SPARSE_OPS,
    BlockSpec,
    NasrecSpec,
    pruned,
)
from subshot.supernet.space import Decision, Genotype, why_not_of

Connections = Literal["binomial", "uniform"]
MAX_INPUTS = 4
DENSE_DIMS = (16, 32, 64, 128, 256, 512, 768, 1024)
SPARSE_DIMS = (16, 32, 48, 64)
_MACRO = (("dense_in",), ("sparse_in",), ("left",), ("right",))
_MICRO = (("dense_op", "sparse_op"), ("dense_dim",), ("sparse_dim",), ("dense_to_sparse",), ("fm",))
_TRIES = 1000


@dataclass(frozen=True)
class NasrecSpace:
    """`num_blocks` blocks over `dense_features` numbers and `sparse_fields` embedded categories.

    Operators are named as in `nasrec_spec`; `none` among them puts out nothing. `dense_features` may be 0. Dimensions
    are in rising order. Raises ValueError where a size or a name is not allowed.
    """

    name: str
    dense_features: int
    sparse_fields: int
    num_blocks: int = 7
    dense_ops: tuple[str, ...] = DENSE_OPS
    sparse_ops: tuple[str, ...] = SPARSE_OPS
    dense_dims: tuple[int, ...] = DENSE_DIMS
    sparse_dims: tuple[int, ...] = SPARSE_DIMS
    embedding_dim: int = 16

    def __post_init__(self) -> None:
        if self.dense_features < 0 or min(self.sparse_fields, self.num_blocks) < 1:
            raise ValueError(
                f"{self.name}: a space needs 0 or more dense features, a sparse field and a block; it was given "
                f"{self.dense_features}, {self.sparse_fields} and {self.num_blocks}"
            )
        for kind, ops, known in (("dense", self.dense_ops, DENSE_OPS), ("sparse", self.sparse_ops, SPARSE_OPS)):
            if not set(ops) & set(known) or not set(ops) <= {*known, NONE} or len(set(ops)) < len(ops):
                raise ValueError(
                    f"{self.name}: {kind}_ops must be different names of {', '.join(known)} and {NONE}, and not "
                    f"{NONE} alone; they are {', '.join(ops) or 'empty'}"
                )
        for kind, dims in (("dense", self.dense_dims), ("sparse", self.sparse_dims)):
            if not dims or dims[0] < 1 or list(dims) != sorted(set(dims)):
                raise ValueError(f"{self.name}: {kind}_dims must be positive and in rising order; they are {dims}")
        if self.embedding_dim < 1 or ("attention" in self.sparse_ops and self.embedding_dim % 8):
            raise ValueError(
                f"{self.name}: embedding_dim must be positive, and a multiple of 8 where attention (8 heads) is among "
                f"the operators; it is {self.embedding_dim}"
            )

    @property
    def binary(self) -> bool:
        """Whether a dense operator reads left and right."""
        return any(op in BINARY_OPS for op in self.dense_ops)

    def inputs(self, block: int) -> tuple[tuple[int, ...], ...]:
        """What `dense_in` and `sparse_in` of a block (from 1) may be: 1 to 4 of the outputs 0..block-1."""
        sizes = range(1, min(block, MAX_INPUTS) + 1)
        return tuple(subset for size in sizes for subset in combinations(range(block), size))

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """`b3.dense_op` and so on, the blocks one after the other; the inputs are named as in `0+2`."""
        found = []
        for block in range(1, self.num_blocks + 1):
            inputs = tuple("+".join(map(str, subset)) for subset in self.inputs(block))
            single = tuple(map(str, range(block)))
            choices = {
                "dense_op": self.dense_ops,
                "dense_dim": tuple(map(str, self.dense_dims)),
                "dense_in": inputs,
                **({"left": single, "right": single} if self.binary else {}),
                "sparse_op": self.sparse_ops,
                "sparse_dim": tuple(map(str, self.sparse_dims)),
                "sparse_in": inputs,
                "dense_to_sparse": ("off", "on"),
                "fm": ("off", "on"),
            }
            found += [Decision(f"b{block}.{name}", names) for name, names in choices.items()]
        return tuple(found)

    @cached_property
    def places(self) -> dict[str, int]:
        """Decision name to place in the genotype."""
        return {decision.name: place for place, decision in enumerate(self.decisions)}

    @cached_property
    def _subsets(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        return tuple(self.inputs(block) for block in range(1, self.num_blocks + 1))

    @cached_property
    def _places_of_subset(self) -> tuple[dict[tuple[int, ...], int], ...]:
        return tuple({subset: place for place, subset in enumerate(subsets)} for subsets in self._subsets)

    def decode(self, genotype: Genotype) -> NasrecSpec:
        """The network, without what its classifier never reads."""
        return pruned(self.written(genotype))

    def written(self, genotype: Genotype) -> NasrecSpec:
        """The network with what its classifier never reads: published parameter counts are of these."""
        genes = len(self.decisions) // self.num_blocks
        blocks = tuple(self._block(k, genotype[k * genes : (k + 1) * genes]) for k in range(self.num_blocks))
        return NasrecSpec(self.dense_features, self.sparse_fields, self.embedding_dim, blocks)

    def _block(self, index: int, genes: Genotype) -> BlockSpec:
        dense_op, dense_dim, dense_in = self.dense_ops[genes[0]], self.dense_dims[genes[1]], genes[2]
        left, right = (genes[3], genes[4]) if self.binary else (0, 0)
        if dense_op == "sum":  # the two sides of a sum may be exchanged
            left, right = min(left, right), max(left, right)
        sparse_op, sparse_dim, sparse_in, dense_to_sparse, fm = genes[-5:]
        subsets = self._subsets[index]
        return BlockSpec(
            dense_ops=() if dense_op == NONE else (dense_op,),
            dense_dim=dense_dim,
            dense_in=subsets[dense_in],
            left=(left,),
            right=(right,),
            sparse_ops=() if self.sparse_ops[sparse_op] == NONE else (self.sparse_ops[sparse_op],),
            sparse_dim=self.sparse_dims[sparse_dim],
            sparse_in=subsets[sparse_in],
            dense_to_sparse=bool(dense_to_sparse),
            fm=bool(fm),
        )

    def encode(self, spec: NasrecSpec) -> Genotype:
        """The canonical genotype of a decoded network: what is not computed reads 0."""
        genes: list[int] = []
        for index, block in enumerate(spec.blocks):
            last, places = index == self.num_blocks - 1, self._places_of_subset[index]
            genes += [
                self._operator(self.dense_ops, block.dense_ops, read=block.fm or last),
                self.dense_dims.index(block.dense_dim) if block.dense_dim else 0,
                places[block.dense_in] if block.dense_in else 0,
                *((sum(block.left), sum(block.right)) if self.binary else ()),
                self._operator(self.sparse_ops, block.sparse_ops, read=block.dense_to_sparse or last),
                self.sparse_dims.index(block.sparse_dim) if block.sparse_dim else 0,
                places[block.sparse_in] if block.sparse_in else 0,
                int(block.dense_to_sparse),
                int(block.fm),
            ]
        return tuple(genes)

    @staticmethod
    def _operator(choices: tuple[str, ...], chosen: tuple[str, ...], read: bool) -> int:
        """An operator that puts out nothing into an output that is read is `none`.

        A space without `none` has such operators only where there are no dense features, and there the first dense
        operator with input 0 puts out nothing as well, or is out of reach.
        """
        if chosen:
            return choices.index(chosen[0])
        return choices.index(NONE) if read and NONE in choices else 0

    def canonical(self, genotype: Genotype) -> Genotype:
        """Inert genes read 0: blocks, operators, mergers and inputs that the classifier does not depend on."""
        return self.encode(self.decode(genotype))

    def why_invalid(self, genotype: Genotype) -> str | None:
        reason = why_not_of(self, genotype)
        if reason is None:
            last = self.decode(genotype).blocks[-1]
            if not last.dense_width and not last.tokens:
                return f"{self.name}: block {self.num_blocks} puts out nothing, so the classifier has nothing to read"
        return reason

    def full_spec(self) -> NasrecSpec:
        """The full path of the warm-up: all inputs (no limit of four), all operators, largest sizes, both mergers."""
        blocks = tuple(
            BlockSpec(
                dense_ops=tuple(op for op in self.dense_ops if op != NONE),
                dense_dim=self.dense_dims[-1],
                dense_in=tuple(range(block)),
                left=tuple(range(block)) if self.binary else (),
                right=tuple(range(block)) if self.binary else (),
                sparse_ops=tuple(op for op in self.sparse_ops if op != NONE),
                sparse_dim=self.sparse_dims[-1],
                sparse_in=tuple(range(block)),
                dense_to_sparse=True,
                fm=True,
            )
            for block in range(1, self.num_blocks + 1)
        )
        return pruned(NasrecSpec(self.dense_features, self.sparse_fields, self.embedding_dim, blocks))

    def cost(self, genotype: Genotype, layer_norm: bool = False) -> Cost:
        """Costs of one sample, exact, embedding tables not counted; final models have no layer normalisation."""
        return network_cost(self.decode(genotype), layer_norm)

    def num_modules(self, genotype: Genotype, layer_norm: bool = True) -> int:
        """Modules with weights, a trivial baseline for rankings."""
        return sum(layer.params > 0 for layer in network_layers(self.decode(genotype), layer_norm))

    def draw(self, rng: random.Random, connections: Connections = "binomial") -> Genotype:
        """A valid canonical genotype. The number of a block's inputs is 1 + Binomial(min(n - 1, 3), 1/2) of its n
        (training), or uniform in 1..min(n, 4) (first population); everything else is uniform."""
        for _ in range(_TRIES):
            genes = tuple(self._drawn(decision.name, rng, connections) for decision in self.decisions)
            if self.why_invalid(genes) is None:
                return self.canonical(genes)
        raise AssertionError(f"{self.name}: {_TRIES} draws and none is valid")

    def _drawn(self, name: str, rng: random.Random, connections: Connections) -> int:
        place = self.places[name]
        if not name.endswith(("dense_in", "sparse_in")):
            return rng.randrange(len(self.decisions[place].choices))
        block = int(name[1 : name.index(".")])
        most = min(block, MAX_INPUTS)
        if connections == "binomial":
            size = 1 + sum(rng.random() < 0.5 for _ in range(most - 1))
        else:
            size = 1 + rng.randrange(most)
        return self._places_of_subset[block - 1][tuple(sorted(rng.sample(range(block), size)))]

    def mutate(self, genotype: Genotype, rng: random.Random, count: int) -> Genotype:
        """NASRec's mutation, `count` times: a block, then with equal odds one of its inputs (dense_in, sparse_in, left,
        right) or one of its settings (the pair of operators, a dimension, a merger), drawn anew.

        Valid and canonical. Drawn again until the child is another network than the parent; equal to it only if 1,000
        tries found no other. (The public code takes a child that equals its parent.)
        """
        parent = self.canonical(genotype)
        for _ in range(_TRIES):
            child = list(genotype)
            for _ in range(count):
                block = 1 + rng.randrange(self.num_blocks)
                keys = [key for key in rng.choice((_MACRO, _MICRO)) if f"b{block}.{key[0]}" in self.places]
                for part in rng.choice(keys):
                    name = f"b{block}.{part}"
                    child[self.places[name]] = self._drawn(name, rng, "uniform")
            found = self.canonical(tuple(child))
            if found != parent and self.why_invalid(found) is None:
                return found
        return parent


def nasrec_small(dense_features: int, sparse_fields: int, num_blocks: int = 7) -> NasrecSpace:
    """NASRec-Small (`autoctr`): 1.9e32 genotypes at 7 blocks."""
    return NasrecSpace("nasrec-small", dense_features, sparse_fields, num_blocks, ("fc", "dot_product"), ("efc",))


def nasrec_full(dense_features: int, sparse_fields: int, num_blocks: int = 7) -> NasrecSpace:
    """NASRec-Full (`xlarge`): 8.1e43 genotypes at 7 blocks."""
    return NasrecSpace("nasrec-full", dense_features, sparse_fields, num_blocks)


def autoctr_in_nasrec(dense_features: int, sparse_fields: int, num_blocks: int = 7) -> NasrecSpace:
    """NASRec-Full with operators that put out nothing (`xlarge-zeros`), by which AutoCTR's space is expressed."""
    sparse_ops = ("attention", NONE, "efc")
    return NasrecSpace("nasrec-zeros", dense_features, sparse_fields, num_blocks, (*DENSE_OPS, NONE), sparse_ops)
