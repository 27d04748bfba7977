"""The directions of all blocks: how they lie in the frame of a report, and in which order.

A followed direction is a column of a `DenseFrame` or a coordinate of a `DiagonalFrame`. It stands for m directions
where its block stands m times in the Jacobian. A frame of a report has a column for each of k directions, which is
zero outside the rows of its block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .frames import DenseFrame, Frames


def _is_single_dense(frames: Frames) -> bool:
    """Whether one dense block is all there is: its frame is that of the state."""
    return len(frames) == 1 and isinstance(frames[0], DenseFrame) and frames[0].multiplicity == 1


def followed_indices(frames: Frames) -> Int[np.ndarray, " c"]:
    """The index among all followed directions for each of all c directions."""
    starts = np.cumsum([0, *(part.num_followed for part in frames)])
    return np.concatenate(
        [a + part.followed_indices for part, a in zip(frames, starts, strict=False)]
    )


def assemble_frame(
    frames: Frames, order: Int[Array, " k"] | slice = slice(None)
) -> Float[Array, "d k"]:
    """The frames of all blocks as one frame of a report, with its columns in this order."""
    if _is_single_dense(frames):
        return frames[0].matrix()
    return jax.scipy.linalg.block_diag(*(part.matrix() for part in frames))[:, order]


def split_frame(frames: Frames, frame: Float[Array, "d k"]) -> Frames:
    """The frames of all blocks with the columns of a frame of a report; directions that it lacks stay as they are."""
    if _is_single_dense(frames):
        return (frames[0].with_columns(frame),)
    owners = find_owners(frames, frame)
    return tuple(
        part.with_directions(frame[part.rows], owners.block == block, owners.direction)
        for block, part in enumerate(frames)
    )


class Owners(NamedTuple):
    """The blocks and directions that the k columns of a frame are.

    **Fields:**

    - `block` (k,): the index of the block.
    - `direction` (k,): the index among the block's directions.
    - `are_distinct`: whether the columns are different directions and each lies in one block, as in a report.
    """

    block: Int[Array, " k"]
    direction: Int[Array, " k"]
    are_distinct: Bool[Array, ""]

    def direction_indices(self, frames: Frames) -> Int[Array, " k"]:
        """The indices among the directions of all blocks."""
        starts = np.cumsum([0, *(len(frame.followed_indices) for frame in frames)])
        return jnp.asarray(starts)[self.block] + self.direction


def find_owners(frames: Frames, frame: Float[Array, "d k"]) -> Owners:
    """The block and the direction that each column of a frame overlaps most."""
    squares = [frame[part.rows] ** 2 for part in frames]
    overlaps = jnp.stack(
        [part.overlaps(squared) for part, squared in zip(frames, squares, strict=True)]
    )
    owner = jnp.argmax(overlaps, axis=0)
    direction = jnp.zeros_like(owner)
    for block, (part, squared) in enumerate(zip(frames, squares, strict=True)):
        is_own = owner == block
        own = part.direction_indices(squared, is_own)
        direction = jnp.where(is_own, own, direction)
    total = jnp.sum(frame**2, axis=0)
    outside = total - jnp.max(overlaps, axis=0)
    is_inside = outside <= float(jnp.finfo(frame.dtype).eps) ** 0.5 * total
    counts = jnp.asarray([len(part.followed_indices) for part in frames])
    same = (owner == owner[:, None]) & (direction == direction[:, None])
    is_unique = jnp.sum(same, axis=0) == 1
    are_distinct = jnp.all(is_inside & is_unique & (direction < counts[owner]))
    return Owners(owner, direction, are_distinct)


def choose_directions(
    frames: Frames,
    frame: Float[Array, "d k"] | None,
    exponents: Float[Array, " c"],
    num_exponents: int,
) -> tuple[Int[Array, " k"] | slice, Int[Array, " k"] | slice]:
    """The k directions that are reported, in their order.

    The order is that of the frame that the run started from, if its columns are directions of blocks, else descending.
    Returns indices among all directions, and among all followed ones. `exponents` are those of the followed ones.
    """
    if _is_single_dense(frames):
        return slice(None), slice(None)
    followed = followed_indices(frames)
    order = descending_order(frames, exponents[followed])[:num_exponents]
    if frame is not None:
        owners = find_owners(frames, frame)
        order = jnp.where(owners.are_distinct, owners.direction_indices(frames), order)
    return order, jnp.asarray(followed)[order]


def descending_order(frames: Frames, exponents: Float[Array, " c"]) -> Int[Array, " c"]:
    """The indices of all directions, the largest exponents first.

    Columns of one frame keep their order: another order would be another frame.
    """
    parts, start = [], 0
    for part in frames:
        own = exponents[start : start + len(part.followed_indices)]
        parts.append(jax.lax.cummin(own) if part.is_ordered else own)
        start += own.size
    return jnp.argsort(-jax.lax.stop_gradient(jnp.concatenate(parts)), stable=True)


def share_a_frame(frames: Frames, followed: Int[Array, " k"] | slice) -> Bool[Array, "k k"]:
    """Which reported directions are columns of one frame, from their indices among the followed ones."""
    owner, start = [], 0
    for part in frames:
        indices = start + np.arange(part.num_followed)
        owner.append(np.full_like(indices, start) if part.is_ordered else indices)
        start += part.num_followed
    owner = jnp.asarray(np.concatenate(owner))[followed]
    return owner[None] == owner[:, None]
