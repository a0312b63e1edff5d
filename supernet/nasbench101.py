"""The NAS-Bench-101 space (Ying et al. 2019, arXiv 1902.09635): a cell of at most 7 vertices and 9 edges.

Source of every rule: google-research/nasbench @b942470, nasbench/lib/{model_spec,model_builder}.py and nasbench/api.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations

from torch import nn

from subshot.supernet.cost import Conv, Cost, chain_cost, linear_cost, strided
from subshot.supernet.nasbench101_network import Cell, NasBench101Network, NasBench101Spec, cell_convs, vertex_channels
from subshot.supernet.space import Decision, Genotype, validated, why_not_of

VERTICES = 7
MAX_EDGES = 9
OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
INPUT, OUTPUT = "input", "output"
_EDGES = tuple(combinations(range(VERTICES), 2))
_PLACE = {edge: place for place, edge in enumerate(_EDGES)}
_OUTPUT = VERTICES - 1
_DECISIONS = (
    *(Decision(f"edge {source}>{target}", ("no", "yes")) for source, target in _EDGES),
    *(Decision(f"op {vertex}", OPS) for vertex in range(1, _OUTPUT)),
)


@dataclass(frozen=True)
class NasBench101Space:
    """A stem of `channels` channels and `stacks` stacks of `modules` cells; the defaults are the benchmark's.

    A genotype is the 21 edges between 7 vertices, then the 5 interior operations. Vertices on no path from input to
    output are pruned before anything is counted, as `ModelSpec` does; so 9 is the limit of the pruned cell's edges.

    Of uniform draws (`space.sample`) about 3 in 4 are valid, so draw and reject: `search/rejection.py`. That is not
    uniform over cells.

    Raises ValueError where a size is not allowed.
    """

    input_size: int = 32
    classes: int = 10
    channels: int = 128
    stacks: int = 3
    modules: int = 3
    name: str = "nasbench101"

    def __post_init__(self) -> None:
        if min(self.input_size, self.classes, self.stacks, self.modules) < 1 or self.channels < VERTICES - 2:
            raise ValueError(
                f"{self.name}: a network needs a positive size, classes, stacks and modules, and {VERTICES - 2} "
                f"or more channels, one for each vertex; it was given {self.input_size}, {self.classes}, "
                f"{self.stacks}, {self.modules} and {self.channels}"
            )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """`edge 0>1` to `edge 5>6` in lexicographic order, then `op 1` to `op 5`."""
        return _DECISIONS

    def why_invalid(self, genotype: Genotype) -> str | None:
        reason = why_not_of(self, genotype)
        if reason is not None:
            return reason
        cell = pruned(genotype)
        if cell is None:
            return f"{self.name}: no path of edges leads from the input (vertex 0) to the output (vertex {_OUTPUT})"
        if len(cell.edges) > MAX_EDGES:
            return f"{self.name}: a cell has at most {MAX_EDGES} edges after pruning; this one has {len(cell.edges)}"
        return None

    def canonical(self, genotype: Genotype) -> Genotype:
        """What is pruned reads 0, the vertices move together, and of all orders of the vertices that build the same
        network the least genotype is taken.

        A remainder of channels goes to the first vertices that feed the output (`vertex_channels`), so isomorphic cells
        may differ in channels: with three of them, 43 + 43 + 42 of 128. Those are different networks here, and the
        public table, which knows cells up to isomorphism, holds one of them for all. Where the channels agree too, the
        networks differ by the order of weights alone, and become one genotype.
        """
        cell = pruned(genotype)
        if cell is None:
            return (0,) * len(_DECISIONS)
        return min(encode(reordered(cell, order)) for order in self._orders(cell))

    def _orders(self, cell: Cell) -> Iterator[tuple[int, ...]]:
        """The orders of the interior vertices in which edges lead forward and every vertex keeps its channels.

        Only the vertices that feed the output need a look: the channels of the others follow from theirs.
        """
        inner = [(source, target) for source, target in cell.edges if source > 0 and target < cell.output]
        widths = [vertex_channels(cell, 0, self.channels << stack) for stack in range(self.stacks)]
        ends = cell.concatenated
        shares = {vertex: tuple(width[vertex] for width in widths) for vertex in ends}
        for order in permutations(range(1, cell.output)):
            place = {vertex: index for index, vertex in enumerate(order)}
            if any(place[source] > place[target] for source, target in inner):
                continue
            if all(shares[a] == shares[b] for a, b in zip(sorted(ends, key=place.__getitem__), ends, strict=True)):
                yield order

    def decode(self, genotype: Genotype) -> NasBench101Spec:
        """The network. Raises ValueError where input and output are not connected."""
        cell = pruned(genotype)
        if cell is None:
            raise ValueError(self.why_invalid(genotype))
        return NasBench101Spec(cell, self.channels, self.stacks, self.modules, self.classes)

    def from_matrix(self, matrix: Sequence[Sequence[int]], ops: Sequence[str]) -> Genotype:
        """The canonical genotype of a cell as the benchmark writes it.

        matrix: [V, V] of 0 and 1, upper triangular, 2 <= V <= 7. ops: V names, `input` first and `output` last.
        Raises ValueError with the reason where that is no cell of the space.
        """
        size = len(matrix)
        if not 2 <= size <= VERTICES or len(ops) != size or any(len(row) != size for row in matrix):
            raise ValueError(f"{self.name}: a cell is a square matrix of 2 to {VERTICES} vertices, and a name for each")
        if any(edge not in (0, 1) or (edge and j <= i) for i, row in enumerate(matrix) for j, edge in enumerate(row)):
            raise ValueError(f"{self.name}: the matrix must hold 0 and 1, and 1 above the diagonal only")
        if ops[0] != INPUT or ops[-1] != OUTPUT or not set(ops[1:-1]) <= set(OPS):
            raise ValueError(
                f"{self.name}: ops must be {INPUT}, any of {', '.join(OPS)}, {OUTPUT}; they are {list(ops)}"
            )
        cell = Cell(tuple(tuple(int(edge) for edge in row) for row in matrix), tuple(ops[1:-1]))
        return validated(self, encode(cell))

    def to_matrix(self, genotype: Genotype) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
        """The pruned matrix, [V, V], and the V names of its operations, `input` and `output` included."""
        cell = self.decode(genotype).cell
        return cell.matrix, (INPUT, *cell.ops, OUTPUT)

    @cached_property
    def _fixed_cost(self) -> Cost:
        """Stem and classifier."""
        stem = chain_cost((Conv(3, self.channels, 3),), self.input_size)
        return stem + linear_cost(self.channels << (self.stacks - 1), self.classes, bias=True)

    def cost(self, genotype: Genotype) -> Cost:
        """Exact MACs, parameters and activation elements of one network (conventions: supernet/cost.py)."""
        cell, total, size, in_channels = self.decode(genotype).cell, self._fixed_cost, self.input_size, self.channels
        for stack in range(self.stacks):
            size = strided(size, 1 if stack == 0 else 2)
            for _ in range(self.modules):
                for conv in cell_convs(cell, in_channels, self.channels << stack):
                    total += chain_cost((conv,), size)
                in_channels = self.channels << stack
        return total

    def build(self, genotype: Genotype) -> nn.Module:
        """The network, with torch's default initialisation (the benchmark's is TensorFlow's variance scaling)."""
        return NasBench101Network(self.decode(genotype))


def pruned(genotype: Genotype) -> Cell | None:
    """The cell of the vertices on paths from input to output; None where there is no such path."""
    edges = [edge for edge, chosen in zip(_EDGES, genotype, strict=False) if chosen]
    reached, leading = {0}, {_OUTPUT}
    for source, target in edges:  # sorted by source, so a vertex is settled before its own edges are read
        if source in reached:
            reached.add(target)
    for source, target in reversed(edges):
        if target in leading:
            leading.add(source)
    if 0 not in leading:
        return None
    kept = sorted(reached & leading)
    matrix = tuple(tuple(int((source, target) in edges) for target in kept) for source in kept)
    ops = tuple(OPS[genotype[len(_EDGES) + vertex - 1]] for vertex in kept[1:-1])
    return Cell(matrix, ops)


def reordered(cell: Cell, order: Sequence[int]) -> Cell:
    """The cell whose interior vertices are those of `cell` in another order."""
    places = (0, *order, cell.output)
    matrix = tuple(tuple(cell.matrix[source][target] for target in places) for source in places)
    return Cell(matrix, tuple(cell.ops[vertex - 1] for vertex in order))


def encode(cell: Cell) -> Genotype:
    """The genotype whose first vertices are the cell's, and whose others have no edges."""
    genes = [0] * len(_DECISIONS)
    for source, target in cell.edges:
        genes[_PLACE[source, _OUTPUT if target == cell.output else target]] = 1
    for vertex, op in enumerate(cell.ops):
        genes[len(_EDGES) + vertex] = OPS.index(op)
    return tuple(genes)
