"""How the frames of diagonal blocks lie in the frame of a report, and which of their directions it shows."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._blocks import Block, DiagonalBlock, ForgottenBlock, Frames, make_block_push
from ._cell import Cell, name_of, ravel
from ._closures import compiled
from ._components import Blocks
from ._orthonormalize import Householder, orthonormalize


class Room(NamedTuple):
    """Where a block lies in the state, and how many of its directions are followed."""

    start: int
    size: int
    multiplicity: int
    is_diagonal: bool
    columns: int
    is_forgotten: bool = False


def make_rooms(blocks: Sequence[Block], state_size: int, num_exponents: int) -> tuple[Room, ...]:
    """The rooms of the blocks of a step, one after the other."""
    rooms, start = [], 0
    for block in blocks:
        if not isinstance(block, Block):
            raise TypeError(
                "blocks(input, state) must return the new state and a tuple of DiagonalBlock, DenseBlock or ForgottenBlock, "
                f"got a block {type(block).__name__}."
            )
        if isinstance(block, DiagonalBlock):
            room = Room(start, block.log_moduli.size, 1, True, block.log_moduli.size)
        elif isinstance(block, ForgottenBlock):
            room = Room(start, block.size, 1, True, block.size, True)
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


def remembered(
    cell: Cell, state: PyTree, input: PyTree, one_of_each: bool
) -> Int[np.ndarray, " r"]:
    """The places in the state of all numbers but those that the next step does not read; if `one_of_each`, of
    blocks that stand several times only the first."""
    vector = ravel(state)[0]
    rooms = make_rooms(make_block_push(cell, state).blocks(input, vector)[1], vector.size, 1)
    places = []
    for room in rooms:
        step = room.multiplicity if one_of_each else 1
        size = 0 if room.is_forgotten else room.size * room.multiplicity
        places.append(np.arange(room.start, room.start + size, step))
    if not sum(map(len, places)):
        raise ValueError(
            f"the step of {name_of(cell)} reads none of the {vector.size} numbers of its state."
        )
    return np.concatenate(places)


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


def are_together(rooms: tuple[Room, ...], followed: Int[Array, " k"] | slice) -> Bool[Array, "k k"]:
    """Which of the reported directions belong to the frame of one dense block, by their places among those followed."""
    owner = [
        place if room.is_diagonal else np.full(room.columns, place[0])
        for room, place in zip(
            rooms,
            np.split(
                np.arange(sum(r.columns for r in rooms)), np.cumsum([r.columns for r in rooms])[:-1]
            ),
            strict=True,
        )
    ]
    owner = jnp.asarray(np.concatenate(owner))[followed]
    return owner[None] == owner[:, None]


def _descending(rooms: tuple[Room, ...], exponents: Float[Array, " c"]) -> Int[Array, " c"]:
    """The directions of all rooms, the largest exponents first. Within a frame the order of the columns stands: another
    one would be another frame."""
    parts, start = [], 0
    for room in rooms:
        part = exponents[start : start + room.columns * room.multiplicity]
        parts.append(part if room.is_diagonal else jax.lax.cummin(part))
        start += part.size
    return jnp.argsort(-jax.lax.stop_gradient(jnp.concatenate(parts)), stable=True)


@compiled
def order_directions(
    cell: Cell,
    state: PyTree,
    input: PyTree,
    blocks: Blocks,
    frame: Float[Array, "d d"],
    exponents: Float[Array, " d"],
) -> Int[Array, " d"]:
    """In which order a run reports directions it followed with this frame of a report, all of them."""
    vector = ravel(state)[0]
    push = blocks.push(cell, state, input, vector.size)
    rooms = make_rooms(push.outline(input, vector), vector.size, vector.size)
    owners = _find_owners(rooms, push.to_blocks(frame))
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
