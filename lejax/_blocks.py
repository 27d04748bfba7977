r"""Block triangular Jacobians: the exponents are those of the diagonal blocks, each block with frames of its own.

If every Jacobian along a trajectory is block triangular in the same order of blocks, so is their product, and its
Lyapunov exponents are the union of those of the products of the diagonal blocks. Here is what a cell says of its
blocks, how a step pushes them, and how they lie in the frame of a report. Most cells are one dense block.
"""

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._cell import Cell, ravel
from ._orthonormalize import Householder, orthonormalize
from ._tangent import CellPush, is_of_its_step, make_push, tangent_map


class DiagonalBlock(NamedTuple):
    """A diagonal block of a Jacobian, by its entries: their logarithms are summed, exactly, without a frame.

    Of a complex mode stored as a real pair give the modulus twice: a rotation stretches nothing.
    """

    entries: Float[Array, " n"]


class DenseBlock(NamedTuple):
    """A diagonal block of a Jacobian as the linear map `tangent(columns (n, k)) -> (n, k)`.

    `multiplicity` m: the block stands m times in the Jacobian, as in the Kronecker product of it with an identity.
    """

    tangent: Callable[[Float[Array, "n k"]], Float[Array, "n k"]]
    size: int
    multiplicity: int = 1


Block = DiagonalBlock | DenseBlock
# What moves along for a block: a frame of a dense one, the sums of logarithms (n,) of a diagonal one.
Frames = tuple[Float[Array, "n k"] | Float[Array, " n"], ...]


class BlockTriangularCell(eqx.Module):
    r"""A cell whose Jacobian is block triangular, always in the same order of blocks.

    `lyapunov_spectrum` then computes the exponents of the diagonal blocks, which are all of them: a stack of layers
    costs the sum of its layers, a diagonal recurrence no orthonormalization at all. Sizes times multiplicities must add
    up to the state's, and the state may be any coordinates: blocks of a basis in which the Jacobian is triangular do.

    !!! example

        >>> import equinox as eqx, jax.numpy as jnp, lejax
        >>> class Decay(lejax.BlockTriangularCell):
        ...     rate: jnp.ndarray
        ...
        ...     def __call__(self, input, state):
        ...         return self.rate * state
        ...
        ...     def blocks(self, input, state):
        ...         return self(input, state), (lejax.DiagonalBlock(self.rate),)
        >>> cell = Decay(jnp.array([0.5, 0.25]))
        >>> lejax.lyapunov_spectrum(cell, jnp.ones(2), num_steps=3).exponents / jnp.log(0.5)
        Array([1., 2.], dtype=...)

    Barreira & Pesin, Lyapunov Exponents and Smooth Ergodic Theory (2002), section 1.3.
    """

    @abc.abstractmethod
    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        raise NotImplementedError

    @abc.abstractmethod
    def blocks(self, input: PyTree, state: PyTree) -> tuple[PyTree, tuple[Block, ...]]:
        """The new state and the diagonal blocks of the Jacobian of this step."""
        raise NotImplementedError


def has_blocks(cell: Cell) -> TypeGuard[BlockTriangularCell]:
    """Whether a cell says anything of the blocks of its step."""
    return isinstance(cell, BlockTriangularCell) and is_of_its_step(type(cell), "blocks")


def tangent_blocks(cell: Cell, input: PyTree, state: PyTree) -> tuple[PyTree, tuple[Block, ...]]:
    """The new state and the diagonal blocks of any cell; one dense block if it says nothing of them."""
    if has_blocks(cell):
        return cell.blocks(input, state)
    vector, unravel = ravel(state)
    following, tangent = tangent_map(cell, input, vector, unravel)

    def of_columns(columns):  # those of a layer that is less precise than another are too
        return tangent(columns.astype(vector.dtype))

    return unravel(following), (DenseBlock(of_columns, vector.size),)


class BlockPush(eqx.Module):
    """`push(input, vector, frames) -> (vector, frames)`: the step and the tangent maps of all blocks."""

    whole: CellPush

    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frames: Frames
    ) -> tuple[Float[Array, " d"], Frames]:
        if not has_blocks(self.whole.cell):
            following, frame = self.whole(input, vector, frames[0])
            return following, (frame,)
        following, blocks = self.blocks(input, vector)
        with jax.default_matmul_precision("highest"):
            return following, tuple(map(_push_block, blocks, frames))

    def step(self, input: PyTree, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.whole.step(input, vector)

    def blocks(
        self, input: PyTree, vector: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], tuple[Block, ...]]:
        """The new state and the blocks, in the tangent's precision."""
        cell, high_input, point, unravel = self.whole.raised(input, vector)
        with jax.default_matmul_precision("highest"):
            following, blocks = tangent_blocks(cell, high_input, unravel(point))
        following = ravel(following)[0]
        return following if point is vector else self.step(input, vector), blocks


def _push_block(block: Block, frame: Array) -> Array:
    if isinstance(block, DiagonalBlock):
        size = jnp.abs(block.entries)
        # The logarithm of 0 would make even the derivatives of the other exponents NaN.
        is_zero = size == 0
        return frame + jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, size)))
    return block.tangent(frame).astype(frame.dtype)


def make_block_push(cell: Cell, state: PyTree) -> BlockPush:
    return BlockPush(make_push(cell, state))


class Room(NamedTuple):
    """Where a block lies in the state, and how many of its directions are followed."""

    start: int
    size: int
    multiplicity: int
    is_diagonal: bool
    columns: int


def make_rooms(blocks: Sequence[Block], state_size: int, num_exponents: int) -> tuple[Room, ...]:
    """The rooms of the blocks of a step, one after the other."""
    rooms, start = [], 0
    for block in blocks:
        if isinstance(block, DiagonalBlock):
            room = Room(start, block.entries.size, 1, True, block.entries.size)
        else:
            columns = min(block.size, num_exponents)
            room = Room(start, block.size, block.multiplicity, False, columns)
        rooms.append(room)
        start += room.size * room.multiplicity
    if start != state_size:
        raise ValueError(
            f"the blocks hold {start} directions in all, but the state has {state_size} numbers."
        )
    return tuple(rooms)


def _is_whole(rooms: tuple[Room, ...]) -> bool:
    """Whether there is nothing but one dense block: its frame is that of the state."""
    return len(rooms) == 1 and not rooms[0].is_diagonal and rooms[0].multiplicity == 1


def open_frames(
    rooms: tuple[Room, ...], frame: Float[Array, "d k"] | None, random: Float[Array, "d k"]
) -> Frames:
    """Orthonormal frames of the blocks: those that make up `frame`, and `random` ones where it has none."""

    def one(index, room):
        if room.is_diagonal:
            return jnp.zeros_like(random, shape=room.size)
        rows = slice(room.start, room.start + room.size * room.multiplicity, room.multiplicity)
        columns = random[rows, : room.columns]
        if frame is not None:
            owners = _find_owners(rooms, frame)
            first = (owners.room == index) & (owners.place % room.multiplicity == 0)
            chosen = jnp.argsort(~first, stable=True)[: room.columns]
            columns = jnp.where(first[chosen], frame[rows][:, chosen], columns)
        return orthonormalize(Householder(), columns).columns

    if frame is not None and _is_whole(rooms):
        return (orthonormalize(Householder(), frame).columns,)
    return tuple(one(index, room) for index, room in enumerate(rooms))


class _Owners(NamedTuple):
    """Whose directions the columns of a frame are."""

    room: Int[Array, " k"]
    place: Int[Array, " k"]  # among the directions of the room
    are_known: Bool[Array, ""]  # whether each column lies in one room, as in the frame of a report


def _find_owners(rooms: tuple[Room, ...], frame: Float[Array, "d k"]) -> _Owners:
    squares = [frame[r.start : r.start + r.size * r.multiplicity] ** 2 for r in rooms]
    # In a diagonal block a direction is a single coordinate.
    shares = jnp.stack(
        [
            jnp.max(part, axis=0) if room.is_diagonal else jnp.sum(part, axis=0)
            for room, part in zip(rooms, squares, strict=True)
        ]
    )
    owner = jnp.argmax(shares, axis=0)
    place = jnp.zeros_like(owner)
    for index, (room, part) in enumerate(zip(rooms, squares, strict=True)):
        mine = owner == index
        counted = jnp.argmax(part, axis=0) if room.is_diagonal else jnp.cumsum(mine) - 1
        place = jnp.where(mine, counted, place)
    whole = jnp.sum(frame**2, axis=0)
    is_pure = whole - jnp.max(shares, axis=0) <= float(jnp.finfo(frame.dtype).eps) ** 0.5 * whole
    counts = jnp.asarray([room.columns * room.multiplicity for room in rooms])
    same = (owner == owner[:, None]) & (place == place[:, None])
    is_single = jnp.sum(same, axis=0) == 1
    return _Owners(owner, place, jnp.all(is_pure & is_single & (place < counts[owner])))


def choose_directions(
    rooms: tuple[Room, ...],
    frame: Float[Array, "d k"] | None,
    exponents: Float[Array, " c"],
    num_exponents: int,
) -> tuple[Int[Array, " k"] | slice, Int[Array, " k"] | slice]:
    """Which directions of all rooms are reported, and in which order: that of the frame the run was given if it is
    made of directions of rooms, else the largest exponents first. As places among the directions with their
    multiplicities, and among those followed."""
    if _is_whole(rooms):
        return slice(None), slice(None)
    counts = [room.columns * room.multiplicity for room in rooms]
    starts = np.cumsum([0, *counts])
    followed = np.cumsum([0, *(room.columns for room in rooms)])
    source = np.concatenate(
        [
            np.repeat(first + np.arange(room.columns), room.multiplicity)
            for room, first in zip(rooms, followed, strict=False)
        ]
    )
    order = _descending(rooms, exponents[source])[:num_exponents]
    if frame is not None:
        owners = _find_owners(rooms, frame)
        own = jnp.asarray(starts)[owners.room] + owners.place
        order = jnp.where(owners.are_known, own, order)
    return order, jnp.asarray(source)[order]


def _descending(rooms: tuple[Room, ...], exponents: Float[Array, " c"]) -> Int[Array, " c"]:
    """The directions of all rooms, the largest exponents first. Within a frame the order of the columns stands: another
    one would be another frame."""
    parts, start = [], 0
    for room in rooms:
        part = exponents[start : start + room.columns * room.multiplicity]
        parts.append(part if room.is_diagonal else jax.lax.cummin(part))
        start += part.size
    return jnp.argsort(-jax.lax.stop_gradient(jnp.concatenate(parts)), stable=True)


@eqx.filter_jit
def order_directions(
    cell: Cell,
    state: PyTree,
    input: PyTree,
    frame: Float[Array, "d d"],
    exponents: Float[Array, " d"],
) -> Int[Array, " d"]:
    """In which order a run reports directions it followed with this frame of a report, all of them."""
    vector = ravel(state)[0]
    blocks = make_block_push(cell, state).blocks(input, vector)[1]
    rooms = make_rooms(blocks, vector.size, vector.size)
    owners = _find_owners(rooms, frame)
    starts = np.cumsum([0, *(room.columns * room.multiplicity for room in rooms)])
    column = jnp.argsort(jnp.asarray(starts)[owners.room] + owners.place)
    return column[_descending(rooms, exponents[column])]


def close_frames(
    rooms: tuple[Room, ...], frames: Frames, order: Int[Array, " k"] | slice
) -> Float[Array, "d k"]:
    """The frames of all blocks as the frame of a report."""
    if _is_whole(rooms):
        return frames[0]
    parts = [
        jnp.eye(room.size, dtype=frame.dtype)
        if room.is_diagonal
        else jnp.kron(frame, jnp.eye(room.multiplicity, dtype=frame.dtype))
        for room, frame in zip(rooms, frames, strict=True)
    ]
    return jax.scipy.linalg.block_diag(*parts)[:, order]


def random_frame(
    key: PRNGKeyArray, size: int, columns: int, dtype: jnp.dtype
) -> Float[Array, "d k"]:
    """Drawn in float32 whatever the dtype, so that precisions can be compared."""
    return jax.random.normal(key, (size, columns), jnp.float32).astype(dtype)
