"""Blocks that a cell does not declare: found in the program of its step, and pushed by themselves."""

import abc
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

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
from .strong_components import Components, PushGroup, find_components


MOST_NUMBERS = 2048  # in larger states components are made of full arrays


class Blocks(eqx.Module):
    """The choice of the diagonal blocks of a Jacobian."""

    @abc.abstractmethod
    def push(self, cell: Cell, state: PyTree, input: PyTree, num_exponents: int) -> BlockPush:
        """The push of a cell that follows up to `num_exponents` directions of each block."""
        raise NotImplementedError

    @abc.abstractmethod
    def are_many(self, cell: Cell, state: PyTree, input: PyTree) -> bool:
        """Whether the directions of a full spectrum lie in more than one block."""
        raise NotImplementedError


class DeclaredBlocks(Blocks):
    """The blocks of a `BlockTriangularCell`; any other cell has one dense block.

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
    j of the old one. The graph is read from the jaxpr of the step's derivative when a run is compiled. Only structure
    counts: an entry of a Jacobian or a weight that happens to be zero removes no edge. So a network of layers written
    as one module has exactly the exponents of its layers, as a `Stack` has; in a frame of the full state rounding
    would carry directions from a layer into those below.

    The program is that of `DeclaredBlocks` where all numbers form one component, for a `TangentCell`, and for a few
    directions of a state with so many components that to follow them in each would cost more than four times as much.
    Components of one number need no frame. At most 8 of the others are told apart; where there are more, neighbors
    join. In states of more than 2048 numbers components are made of full arrays.

    `SequentialQR(blocks=DeclaredBlocks())` turns the search off.

    **Numerics:** some tens of milliseconds per compilation. A step pushes at most as many columns as one dense block
    would.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> def drive(input, state):  # the second number reads the first, which does not read it
        ...     x, y = state
        ...     return jnp.stack([4 * x * (1 - x), 0.5 * y + x])
        >>> spectrum = lejax.lyapunov_spectrum(drive, jnp.array([0.3, 0.0]), num_steps=100)
        >>> print(f"{spectrum.exponents[1] / jnp.log(0.5):.6f}")  # without any error
        1.000000

    Duff & Reid, ACM Trans. Math. Softw. 4 (1978).
    """

    def push(self, cell, state, input, num_exponents):
        push = make_block_push(cell, state)
        components = search_components(push.cell_push, state, input, num_exponents)
        return push if components is None else ComponentPush(push.cell_push, components)

    def are_many(self, cell, state, input):
        if isinstance(cell, BlockTriangularCell):
            return True
        push = make_block_push(cell, state).cell_push
        return search_components(push, state, input, size_of(state)) is not None


def search_components(
    cell_push: CellPush, state: PyTree, input: PyTree, num_exponents: int
) -> Components | None:
    """The components of a cell's step; `None` if there is only one, or if they would cost too much."""
    leaves, structure = jax.tree.flatten(state)
    sizes = [leaf.size for leaf in leaves]
    size = sum(sizes)
    cell = cell_push.cell
    if size == 1 or isinstance(cell, BlockTriangularCell | TangentCell):
        return None
    by_leaves = size > MOST_NUMBERS
    leaf_of = np.repeat(np.arange(len(leaves)), sizes)
    label = leaf_of if by_leaves else np.arange(size)
    parts = np.split(label, np.cumsum(sizes)[:-1])
    labels = structure.unflatten(
        [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )
    arrays, static = eqx.partition((cell_push, input), eqx.is_array)

    def step(arrays, state):
        cell_push, input = eqx.combine(arrays, static)
        cell, input, point, unravel = cell_push.promoted(input, ravel(state)[0])
        return cell(input, unravel(point))

    reads = dependencies(step, arrays, state, labels, int(label[-1]) + 1)
    if by_leaves:
        reads = np.stack([rows.any(axis=0) for rows in np.split(reads, np.cumsum(sizes)[:-1])])
    components = find_components(reads, label, leaf_of)
    if len(components.dense) == 1 and len(components.dense[0]) == size:
        return None
    cost = sum(
        sum(sizes[leaf] for leaf in group.leaves) * components.num_columns(group, num_exponents)
        for group in components.groups
    )
    return components if cost <= 4 * size * min(num_exponents, size) else None


class ComponentPush(BlockPush):
    """The push of the components of a cell's step, each along its own numbers of the state.

    A group of components is pushed by the derivative of the arrays that hold it by these same arrays; the other arrays
    are constants, so that nothing is computed for what the group does not read.

    **Fields:**

    - `cell_push`: as for `BlockPush`.
    - `components`: the components of the step.
    """

    components: Components = eqx.field(static=True)

    def layout(self, input, vector):
        components = self.components
        blocks: list[Block] = [
            DenseBlock(lambda columns: columns, len(indices)) for indices in components.dense
        ]
        if components.single:
            blocks.append(DiagonalBlock(jnp.zeros(len(components.single))))
        if components.forgotten:
            blocks.append(ForgottenBlock(len(components.forgotten)))
        return tuple(blocks)

    def to_blocks(self, frame):
        return frame[self.components.order()]

    def from_blocks(self, frame):
        return frame[np.argsort(self.components.order())]

    def __call__(self, input, vector, frames):
        cell, promoted_input, point, unravel = self.cell_push.promoted(input, vector)
        state, components, new_state = unravel(point), self.components, None
        leaves = jax.tree.leaves(state)
        pushed_frames = list(frames)
        columns = [frame.columns for frame in frames if isinstance(frame, DenseFrame)]
        entries = jnp.zeros_like(jax.tree.leaves(frames)[0], shape=len(components.single))
        with jax.default_matmul_precision("highest"):
            for group in components.groups:
                arrays = [leaves[leaf] for leaf in group.leaves]
                step = _group_step(cell, promoted_input, state, group.leaves)
                _, tangent, new_state = jax.linearize(step, arrays, has_aux=True)
                rows = _rows_in(group.leaves, [leaf.size for leaf in leaves])
                seeds = self._seed_columns(group, rows, columns, entries.dtype)
                pushed = _push_arrays(tangent, arrays, seeds)
                start = 0
                for color in group.dense:
                    for i in color:
                        own = _take_rows(pushed, rows[list(components.dense[i])])
                        own = own[:, start : start + columns[i].shape[1]]
                        pushed_frames[i] = frames[i].with_columns(own)
                    start += _width(color, columns)
                for color in group.single:
                    at = rows[[components.single[i] for i in color]]
                    entries = entries.at[np.array(color)].set(pushed[at, start])
                    start += 1
        if components.single:
            diagonal = len(components.dense)
            pushed_frames[diagonal] = frames[diagonal].plus(log_modulus(entries))
        if components.forgotten:
            pushed_frames[-1] = frames[-1].plus(-jnp.inf)
        if new_state is None or self.cell_push.unravel_promoted is not None:
            return self.step(input, vector), tuple(pushed_frames)
        return ravel(new_state)[0], tuple(pushed_frames)

    def _seed_columns(
        self,
        group: PushGroup,
        rows: Int[np.ndarray, " d"],
        columns: Sequence[Float[Array, "n k"]],
        dtype: jnp.dtype,
    ) -> Float[Array, "n c"]:
        """The columns that push a group: for each color the frames of its components, in their rows of one matrix."""
        size, parts = int(rows.max()) + 1, []
        for color in group.dense:
            width = _width(color, columns)
            own = [jnp.pad(columns[i], ((0, 0), (0, width - columns[i].shape[1]))) for i in color]
            at = np.concatenate([rows[list(self.components.dense[i])] for i in color])
            rest = np.setdiff1d(np.arange(size), at)
            own.append(jnp.zeros_like(own[0], shape=(len(rest), width)))
            parts.append(_take_rows(jnp.concatenate(own), np.argsort(np.append(at, rest))))
        for color in group.single:
            ones = np.zeros((size, 1))
            ones[rows[[self.components.single[i] for i in color]]] = 1
            parts.append(jnp.asarray(ones, dtype))
        return jnp.concatenate(parts, axis=1)


def _group_step(
    cell: Cell, input: PyTree, state: PyTree, group: Sequence[int]
) -> Callable[[list[Array]], tuple[list[Array], PyTree]]:
    """The step as a map of some leaves of the state, and beside them the new state."""
    leaves, structure = jax.tree.flatten(state)

    def step(arrays):
        moved = list(leaves)
        for leaf, array in zip(group, arrays, strict=True):
            moved[leaf] = array
        new_state = cell(input, structure.unflatten(moved))
        return [jax.tree.leaves(new_state)[leaf] for leaf in group], new_state

    return step


def _width(color: Sequence[int], columns: Sequence[Float[Array, "n k"]]) -> int:
    """The columns of the widest frame of a color."""
    return max(columns[i].shape[1] for i in color)


def _rows_in(leaves: Sequence[int], sizes: Sequence[int]) -> Int[np.ndarray, " d"]:
    """The row of each number of the state among the numbers of some of its arrays, or -1."""
    rows, total = [], 0
    for leaf, size in enumerate(sizes):
        count = size if leaf in leaves else 0
        rows.append(np.arange(total, total + count) if count else np.full(size, -1))
        total += count
    return np.concatenate(rows)


def _take_rows(matrix: Float[Array, "n k"], rows: Int[np.ndarray, " m"]) -> Float[Array, "m k"]:
    """Some rows of a matrix; a slice where they are consecutive."""
    first, count = int(rows[0]), len(rows)
    if np.array_equal(rows, np.arange(first, first + count)):
        return matrix[first : first + count]
    return matrix[rows]


def _push_arrays(
    tangent: Callable[[list[Array]], list[Array]], arrays: list[Array], columns: Float[Array, "n k"]
) -> Float[Array, "n k"]:
    """Columns pushed by a tangent map of several arrays, each in its own precision."""
    count = columns.shape[1]
    bounds = np.cumsum([array.size for array in arrays])[:-1]
    parts = [
        part.reshape(*array.shape, count).astype(array.dtype)
        for part, array in zip(jnp.split(columns, bounds), arrays, strict=True)
    ]
    out = jax.vmap(tangent, in_axes=-1, out_axes=-1)(parts)
    return jnp.concatenate([x.reshape(-1, count).astype(columns.dtype) for x in out])
