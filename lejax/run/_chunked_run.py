"""A long run between its checks and its report: one chunk after the other, until it is done."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, first_input, ravel
from .._core.closures import compiled
from .._core.status import RESULTS
from .._engine.blocks import open_frames
from .._engine.components import Blocks
from .._engine.directions import descending_order, find_owners
from .._engine.method import SequentialQR
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from ._chunks import Chunk, Layout
from ._position import Position
from ._running_sums import (
    RunningSums,
    add_chunk,
    is_precise,
    merge_full_blocks,
    select_directions,
    zero_sums,
)


class ChunkedRun(NamedTuple):
    """What all chunks of a run have in common.

    **Fields:**

    - `cell`, `inputs`, `num_exponents`, `dt`, `method`, `key`: as for `lyapunov_spectrum`.
    - `tolerance`: the standard error at which the run stops, or `None`.
    - `follows_all`: whether the run follows all directions, because only its end shows which are the leading ones.
    - `layout`: the division into chunks.
    """

    cell: Cell
    inputs: PyTree
    num_exponents: int | None
    dt: float | Float[Array, ""]
    method: SequentialQR
    key: PRNGKeyArray | None
    tolerance: float | None
    follows_all: bool
    layout: Layout

    @property
    def num_followed(self) -> int | None:
        """The directions that chunks follow; `None` means all."""
        return None if self.follows_all else self.num_exponents

    def advance(self, position: Position, chunk: Chunk) -> Position:
        """The position after one more chunk."""
        stop = position.step + chunk.steps
        result = lyapunov_spectrum(
            self.cell,
            position.state,
            jax.tree.map(lambda x: x[position.step : stop], self.inputs),
            num_exponents=self.num_followed,
            num_steps=chunk.steps,
            dt=self.dt,
            method=self.method,
            frame=position.frame,
            key=self.key,
            num_blocks=chunk.blocks,
            throw=False,
        )
        sums = position.sums
        # The result of a transient chunk is discarded, unless the chunk fails.
        if chunk.counted or bool(result.result == RESULTS.nonfinite):
            sums = zero_sums(self.layout.block_ends(), result) if sums is None else sums
            sums = add_chunk(sums, result, position.step)
            sums = sums if self.tolerance is None else merge_full_blocks(sums)
        return Position(stop, result.state, result.frame, sums)

    def is_done(self, position: Position) -> bool:
        """Whether the run stops here: it is complete, has failed, or is precise enough."""
        if position.sums is None:
            return False
        if position.step == self.layout.transient + self.layout.num_steps:
            return True
        if position.sums.first_bad_step >= 0:
            return True
        return self.tolerance is not None and is_precise(self.reported(position)[0], self.tolerance)

    def reported(self, position: Position) -> tuple[RunningSums, Float[Array, "d k"]]:
        """The sums and the frame in the order and number of directions of the report."""
        sums, frame = position.sums, position.frame
        assert sums is not None
        assert frame is not None
        if not self.follows_all:
            return sums, frame
        growth = jnp.asarray(sums.growth.sum(axis=0))
        blocks, input = self.method.blocks, first_input(self.inputs)
        order = _order_directions(self.cell, position.state, input, blocks, frame, growth)
        order = np.asarray(order)[: self.num_exponents]
        return select_directions(sums, order), frame[:, order]


@compiled
def _order_directions(
    cell: Cell,
    state: PyTree,
    input: PyTree,
    blocks: Blocks,
    frame: Float[Array, "d d"],
    exponents: Float[Array, " d"],
) -> Int[Array, " d"]:
    """The order in which a run reports its directions, when it has followed all of them with this frame."""
    vector = ravel(state)[0]
    push = blocks.push(cell, state, input, vector.size)
    frame = push.to_blocks(frame)
    frames = open_frames(push.layout(input, vector), frame)
    owners = find_owners(frames, frame)
    column = jnp.argsort(owners.direction_indices(frames))
    return column[descending_order(frames, exponents[column])]
