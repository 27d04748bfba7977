r"""Blocks that a cell does not declare: the strongly connected components of what its step makes of what.

Number i of the new state depends on number j of the old, or no derivative ever leads from j to i: the first is an edge.
Numbers that depend on each other, through whatever detours, are one strongly connected component. There are no circles
among components, so that in some order of them every Jacobian is block triangular, with the components as blocks.

Duff & Reid, ACM Trans. Math. Softw. 4 (1978); Tarjan, SIAM J. Comput. 1 (1972).
"""

import abc
import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from scipy.sparse.csgraph import connected_components

from .._core.cell import Cell, TangentCell, ravel, size_of
from .blocks import (
    Block,
    BlockPush,
    BlockTriangularCell,
    DenseBlock,
    DiagonalBlock,
    ForgottenBlock,
    log_modulus,
    make_block_push,
)
from .dependencies import dependencies
from .frames import DenseFrame
from .push import CellPush


MOST_NUMBERS = 2048  # in a state of more, only whole arrays are told apart
MOST_BLOCKS = 8  # each compiles an orthonormalization of its own


class Blocks(eqx.Module):
    """Which diagonal blocks a Jacobian is taken apart into."""

    @abc.abstractmethod
    def push(self, cell: Cell, state: PyTree, input: PyTree, num_exponents: int) -> BlockPush:
        """The push of a cell that follows `num_exponents` directions of each block at most."""
        raise NotImplementedError

    @abc.abstractmethod
    def are_many(self, cell: Cell, state: PyTree, input: PyTree) -> bool:
        """Whether the directions of a whole spectrum lie in more blocks than one."""
        raise NotImplementedError


class DeclaredBlocks(Blocks):
    """The blocks of a `BlockTriangularCell`; any other cell is one dense block.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> method = lejax.SequentialQR(blocks=lejax.DeclaredBlocks())
        >>> cat = lejax.systems.Cat()
        >>> lejax.lyapunov_spectrum(cat, jnp.full(2, 0.3), num_steps=50, method=method).exponents.shape
        (2,)
    """

    def push(self, cell, state, input, num_exponents):
        return make_block_push(cell, state)

    def are_many(self, cell, state, input):
        return isinstance(cell, BlockTriangularCell)


class FoundBlocks(Blocks):
    r"""The blocks of a `BlockTriangularCell`; those of any other cell are found in the program of its step.

    The blocks are the strongly connected components of the graph in which number i of the new state depends on number
    j of the old, read from the jaxpr of the step's derivative when a run is compiled. Only structure counts: an entry of
    a Jacobian or a weight that happens to be zero does not cut anything. So a network of layers written as one module has the
    exponents of its layers, exactly, as a `Stack` has, where a frame of the whole state lets rounding carry
    directions from a layer into those below.

    Where nothing is found the program is that of `DeclaredBlocks`: where every number depends on every other, for a
    `TangentCell` with a tangent of its own, and for a few directions of a state of so many components that to follow them in each would
    cost more than four times as much. Components of one number need no frame. Of the others at most 8 are told apart, and
    neighbors join where there are more. In states of more than 2048 numbers components are made of whole arrays.

    `SequentialQR(blocks=DeclaredBlocks())` turns the search off.

    Cost: some tens of milliseconds a compilation. A step pushes as many columns as one dense block would, at most.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> def drive(input, state):  # the second number reads the first, which does not read it
        ...     x, y = state
        ...     return jnp.stack([4 * x * (1 - x), 0.5 * y + x])
        >>> spectrum = lejax.lyapunov_spectrum(drive, jnp.array([0.3, 0.0]), num_steps=100)
        >>> print(f"{spectrum.exponents[1] / jnp.log(0.5):.6f}")  # without any error
        1.000000
    """

    def push(self, cell, state, input, num_exponents):
        push = make_block_push(cell, state)
        components = _find(push.whole, state, input, num_exponents)
        return push if components is None else ComponentPush(push.whole, components)

    def are_many(self, cell, state, input):
        if isinstance(cell, BlockTriangularCell):
            return True
        size = size_of(state)
        return _find(make_block_push(cell, state).whole, state, input, size) is not None


class Pushed(NamedTuple):
    """Components pushed together: those of one color share columns, since none of them reads another."""

    leaves: tuple[int, ...]  # of the state, that hold them
    dense: tuple[tuple[int, ...], ...]  # the components of each color
    single: tuple[tuple[int, ...], ...]


class Components(NamedTuple):
    """The components of a step, by their places in the raveled state."""

    dense: tuple[tuple[int, ...], ...]
    single: tuple[int, ...]
    forgotten: tuple[int, ...]
    pushed: tuple[Pushed, ...]

    def order(self) -> Int[np.ndarray, " d"]:
        """The places in the state, one block after the other."""
        return np.array(
            [*(i for block in self.dense for i in block), *self.single, *self.forgotten]
        )


def _find(whole: CellPush, state: PyTree, input: PyTree, num_exponents: int) -> Components | None:
    """The components of a cell's step, if there are several and they are worth the while."""
    leaves, structure = jax.tree.flatten(state)
    sizes = [leaf.size for leaf in leaves]
    size = sum(sizes)
    cell = whole.cell
    if size == 1 or isinstance(cell, BlockTriangularCell | TangentCell):
        return None
    by_leaves = size > MOST_NUMBERS
    owner = np.repeat(np.arange(len(leaves)), sizes)
    label = owner if by_leaves else np.arange(size)
    parts = np.split(label, np.cumsum(sizes)[:-1])
    labels = structure.unflatten(
        [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )
    arrays, static = eqx.partition((whole, input), eqx.is_array)

    def step(arrays, state):
        whole, input = eqx.combine(arrays, static)
        cell, input, point, unravel = whole.raised(input, ravel(state)[0])
        return cell(input, unravel(point))

    reads = dependencies(step, arrays, state, labels, int(label[-1]) + 1)
    if by_leaves:
        reads = np.stack([rows.any(axis=0) for rows in np.split(reads, np.cumsum(sizes)[:-1])])
    components = _arrange(reads, label, owner)
    if len(components.dense) == 1 and len(components.dense[0]) == size:
        return None
    cost = sum(
        sum(sizes[leaf] for leaf in part.leaves) * _count_columns(components, part, num_exponents)
        for part in components.pushed
    )
    return components if cost <= 4 * size * min(num_exponents, size) else None


def _count_columns(components: Components, part: "Pushed", num_exponents: int) -> int:
    largest = [max(len(components.dense[i]) for i in color) for color in part.dense]
    return sum(min(size, num_exponents) for size in largest) + len(part.single)


def _arrange(
    reads: Bool[np.ndarray, "n n"], label: Int[np.ndarray, " d"], owner: Int[np.ndarray, " d"]
) -> Components:
    """The components of a graph of labels, where each label stands for numbers of the state."""
    groups = _merge_small(_strongly_connected(reads), np.bincount(label))
    places = [np.flatnonzero(np.isin(label, group)) for group in groups]
    is_read = [bool(reads[np.ix_(group, group)].any()) for group in groups]
    dense = [i for i, place in enumerate(places) if is_read[i] and len(place) > 1]
    single = [i for i, place in enumerate(places) if is_read[i] and len(place) == 1]
    forgotten = [j for i, place in enumerate(places) if not is_read[i] for j in place]
    pushed: dict[tuple[int, ...], Pushed] = {}
    for kind, chosen in {"dense": dense, "single": single}.items():
        reading = _condense(reads, [groups[i] for i in chosen])
        for color in _color(reading | reading.T):
            held = np.concatenate([owner[places[chosen[i]]] for i in color])
            leaves = tuple(map(int, np.unique(held)))
            part = pushed.get(leaves, Pushed(leaves, (), ()))
            pushed[leaves] = part._replace(**{kind: (*getattr(part, kind), color)})
    return Components(
        dense=tuple(tuple(map(int, places[i])) for i in dense),
        single=tuple(int(places[i][0]) for i in single),
        forgotten=tuple(map(int, forgotten)),
        pushed=tuple(pushed.values()),
    )


def _condense(
    reads: Bool[np.ndarray, "n n"], groups: Sequence[Int[np.ndarray, " m"]]
) -> Bool[np.ndarray, "g g"]:
    """Which group reads which other one."""
    owner = np.full(len(reads), -1)
    for i, group in enumerate(groups):
        owner[group] = i
    rows, columns = (owner[places] for places in np.nonzero(reads))
    known = (rows >= 0) & (columns >= 0) & (rows != columns)
    edges = np.zeros((len(groups), len(groups)), bool)
    edges[rows[known], columns[known]] = True
    return edges


def _strongly_connected(reads: Bool[np.ndarray, "n n"]) -> list[Int[np.ndarray, " m"]]:
    """The strongly connected components, each after all those that it reads, else in the order of the state."""
    count, label = connected_components(reads, directed=True, connection="strong")
    groups = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    if count == 1:
        return groups
    edges = _condense(reads, groups)
    unread = edges.sum(axis=1)
    ready = [(int(groups[i][0]), int(i)) for i in np.flatnonzero(unread == 0)]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, i = heapq.heappop(ready)
        ordered.append(groups[i])
        readers = np.flatnonzero(edges[:, i])
        unread[readers] -= 1
        for j in readers[unread[readers] == 0]:
            heapq.heappush(ready, (int(groups[j][0]), int(j)))
    return ordered


def _merge_small(
    groups: list[Int[np.ndarray, " m"]], sizes: Int[np.ndarray, " n"]
) -> list[Int[np.ndarray, " m"]]:
    """At most so many groups of several numbers as may be blocks: where there are more, neighbors in the order of the
    components join, among which there are no circles either."""
    weights = np.array([sizes[group].sum() for group in groups])
    if np.sum(weights > 1) <= MOST_BLOCKS:
        return groups
    middle = np.cumsum(weights) - weights / 2
    part = (MOST_BLOCKS * middle / weights.sum()).astype(int)
    merged = []
    for i in np.unique(part):
        own = [group for group, j in zip(groups, part, strict=True) if i == j]
        is_dense = any(sizes[group].sum() > 1 for group in own)
        merged.extend([np.sort(np.concatenate(own))] if is_dense else own)
    return merged


def _color(conflicts: Bool[np.ndarray, "g g"]) -> list[tuple[int, ...]]:
    """Greedily, those without a conflict under one color (Curtis, Powell & Reid, J. Inst. Math. Appl. 13, 1974)."""
    colors: list[list[int]] = []
    taken = np.zeros((len(conflicts), len(conflicts) + 1), bool)  # the colors each may not have
    for member, conflicting in enumerate(conflicts):
        color = int(np.argmin(taken[member]))
        if color == len(colors):
            colors.append([])
        colors[color].append(member)
        taken[conflicting, color] = True
    return list(map(tuple, colors))


class ComponentPush(BlockPush):
    """The push of the components of a cell's step, each along its own numbers of the state.

    Those that are pushed together are a map of the arrays that hold them; the others are constants to it, so that
    nothing is computed of what they do not read.
    """

    components: Components = eqx.field(static=True)

    def outline(self, input, vector):
        found = self.components
        blocks: list[Block] = [DenseBlock(lambda columns: columns, len(x)) for x in found.dense]
        if found.single:
            blocks.append(DiagonalBlock(jnp.zeros(len(found.single))))
        if found.forgotten:
            blocks.append(ForgottenBlock(len(found.forgotten)))
        return tuple(blocks)

    def to_blocks(self, frame):
        return frame[self.components.order()]

    def from_blocks(self, frame):
        return frame[np.argsort(self.components.order())]

    def __call__(self, input, vector, frames):
        cell, high_input, point, unravel = self.whole.raised(input, vector)
        leaves, structure = jax.tree.flatten(unravel(point))
        found, moved = self.components, None
        following = list(frames)
        columns = [frame.columns for frame in frames if isinstance(frame, DenseFrame)]
        entries = jnp.zeros_like(jax.tree.leaves(frames)[0], shape=len(found.single))
        with jax.default_matmul_precision("highest"):
            for part in found.pushed:

                def step(arrays, part=part):
                    own = list(leaves)
                    for leaf, array in zip(part.leaves, arrays, strict=True):
                        own[leaf] = array
                    new = cell(high_input, structure.unflatten(own))
                    return [jax.tree.leaves(new)[leaf] for leaf in part.leaves], new

                arrays = [leaves[leaf] for leaf in part.leaves]
                _, tangent, moved = jax.linearize(step, arrays, has_aux=True)
                rows = _rows(part.leaves, [leaf.size for leaf in leaves])
                seeds = self._lay_out(part, rows, columns, entries.dtype)
                pushed = _push_arrays(tangent, arrays, seeds)
                start = 0
                for color in part.dense:
                    for i in color:
                        own = _rearrange(pushed, rows[list(found.dense[i])])
                        own = own[:, start : start + columns[i].shape[1]]
                        following[i] = frames[i].with_columns(own)
                    start += _width(color, columns)
                for color in part.single:
                    at = rows[[found.single[i] for i in color]]
                    entries = entries.at[np.array(color)].set(pushed[at, start])
                    start += 1
        if found.single:
            following[len(found.dense)] = frames[len(found.dense)].plus(log_modulus(entries))
        if found.forgotten:
            following[-1] = frames[-1].plus(-jnp.inf)
        if moved is None or self.whole.unravel_high is not None:
            return self.step(input, vector), tuple(following)
        return ravel(moved)[0], tuple(following)

    def _lay_out(
        self,
        part: Pushed,
        rows: Int[np.ndarray, " d"],
        columns: Sequence[Float[Array, "n k"]],
        dtype: jnp.dtype,
    ) -> Float[Array, "n c"]:
        """What is pushed: for each color the frames of its components, one below the other at their rows."""
        size, parts = int(rows.max()) + 1, []
        for color in part.dense:
            width = _width(color, columns)
            own = [jnp.pad(columns[i], ((0, 0), (0, width - columns[i].shape[1]))) for i in color]
            at = np.concatenate([rows[list(self.components.dense[i])] for i in color])
            rest = np.setdiff1d(np.arange(size), at)
            own.append(jnp.zeros_like(own[0], shape=(len(rest), width)))
            parts.append(_rearrange(jnp.concatenate(own), np.argsort(np.append(at, rest))))
        for color in part.single:
            one = np.zeros((size, 1))
            one[rows[[self.components.single[i] for i in color]]] = 1
            parts.append(jnp.asarray(one, dtype))
        return jnp.concatenate(parts, axis=1)


def _width(color: Sequence[int], columns: Sequence[Float[Array, "n k"]]) -> int:
    return max(columns[i].shape[1] for i in color)


def _rows(leaves: Sequence[int], sizes: Sequence[int]) -> Int[np.ndarray, " d"]:
    """Where each number of the state lies among those of some of its arrays, or -1."""
    rows, total = [], 0
    for leaf, size in enumerate(sizes):
        count = size if leaf in leaves else 0
        rows.append(np.arange(total, total + count) if count else np.full(size, -1))
        total += count
    return np.concatenate(rows)


def _rearrange(matrix: Float[Array, "n k"], rows: Int[np.ndarray, " m"]) -> Float[Array, "m k"]:
    """Some rows of a matrix, without a copy where they are neighbors in their order."""
    first, count = int(rows[0]), len(rows)
    if np.array_equal(rows, np.arange(first, first + count)):
        return matrix[first : first + count]
    return matrix[rows]


def _push_arrays(
    tangent: Callable[[list[Array]], list[Array]], arrays: list[Array], columns: Float[Array, "n k"]
) -> Float[Array, "n k"]:
    """A tangent map of several arrays, each in its own precision, as one of columns."""
    count = columns.shape[1]
    bounds = np.cumsum([array.size for array in arrays])[:-1]
    parts = [
        part.reshape(*array.shape, count).astype(array.dtype)
        for part, array in zip(jnp.split(columns, bounds), arrays, strict=True)
    ]
    out = jax.vmap(tangent, in_axes=-1, out_axes=-1)(parts)
    return jnp.concatenate([x.reshape(-1, count).astype(columns.dtype) for x in out])
