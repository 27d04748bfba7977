"""The way into the tangent dynamics of a cell: every verb that follows tangent vectors opens it here."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, first_input, ravel, size_of, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_state, check_step
from .._core.check_values import check_directions
from .blocks import BlockPush, open_frames
from .components import Blocks, FoundBlocks
from .factorization import Orthonormalizer
from .frames import Frames, close_frames, sources_of
from .push import CellPush, check_frame, make_push, tangent_dtype


class Tangents(NamedTuple):
    """A state and the tangent frames on it."""

    vector: Float[Array, " d"]
    frames: Frames


class TangentDynamics(eqx.Module):
    r"""The tangent dynamics of a cell, stepped by hand: open, advance, orthonormalize, close.

    What `lyapunov_spectrum` does with intervals, blocks and errors of its own, for those who want another loop:

    $$h_{t+1} = F(u_t, h_t), \qquad Z_{t+1} = J_t Q_t, \qquad Z_{t+1} = Q_{t+1} R_{t+1}$$

    **Arguments:** `cell`; `state` and `input`, those of a first step, for their shapes; `num_exponents` k, all d by default; and
    `blocks`, as for `SequentialQR`. Where a Jacobian has several blocks, k directions of each are followed, one block after the
    other: sort the rates to get those of the whole, of which the k largest are right.

    **Numerics:** a step costs O(d^2 k), an orthonormalization O(d k^2). Between two of them the columns turn towards each
    other and lose digits, as `SequentialQR` says. Works under `vmap`, `grad` and in any loop of JAX; in a loop of Python put
    the step under `eqx.filter_jit`, or it compiles each time.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> henon, start = lejax.systems.Henon(), jnp.zeros(2)
        >>> dynamics = lejax.TangentDynamics(henon, start)
        >>> def step(tangents, _):
        ...     return dynamics.orthonormalize(dynamics.advance(None, tangents))
        >>> tangents, _ = dynamics.orthonormalize(dynamics.open(start))
        >>> tangents, log_growth = jax.lax.scan(step, tangents, length=1000)
        >>> print(f"{log_growth.mean(axis=0).sum():.4f}")  # log 0.3: the map contracts areas evenly
        -1.2040
        >>> state, frame = dynamics.close(tangents)

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980).
    """

    push: BlockPush
    unravel: Callable
    num_exponents: int = eqx.field(static=True)
    size: int = eqx.field(static=True)

    @checked
    def __init__(
        self,
        cell: Cell,
        state: PyTree,
        input: PyTree = None,
        *,
        num_exponents: int | None = None,
        blocks: Blocks = FoundBlocks(),
    ):
        state = check_state(state)
        check_step(cell, input, state)
        if num_exponents is None:
            num_exponents = size_of(state)
        self.num_exponents = check_directions("num_exponents", num_exponents, state)
        self.size = size_of(state)
        self.push = blocks.push(cell, state, input, self.num_exponents)
        self.unravel = ravel(state)[1]

    @checked
    def open(
        self,
        state: PyTree,
        input: PyTree = None,
        *,
        frame: Float[Array, "d k"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Tangents:
        """A state with tangent frames, which need not be orthonormal yet: `frame` (d, k), as `close` gives it back, or a random
        one drawn from `key`. `input` is that of the first step."""
        vector, _ = ravel(vary_with(check_state(state), (self.push, input, frame, key)))
        if vector.size != self.size:
            raise ValueError(
                f"the state has {vector.size} numbers, but the dynamics were made for {self.size}."
            )
        dtype = tangent_dtype(vector.dtype)
        random = vary_with(random_frame(key, vector.size, self.num_exponents, dtype), vector)
        if frame is not None:
            frame = self.push.to_blocks(vary_with(check_frame(frame, state), vector))
        return Tangents(vector, open_frames(self.push.outline(input, vector), random, frame))

    def advance(self, input: PyTree, tangents: Tangents) -> Tangents:
        """One step of the state and of its frames."""
        return Tangents(*self.push(input, *tangents))

    @checked
    def orthonormalize(
        self, tangents: Tangents, orthonormalizer: Orthonormalizer | None = None
    ) -> tuple[Tangents, Float[Array, " c"]]:
        """The same with orthonormal frames, and log R_ii of each column of `close`."""
        parts = [frame.orthonormalize(orthonormalizer, True, True) for frame in tangents.frames]
        frames, terms = zip(*parts, strict=True)
        log_growth = jnp.concatenate([term.log_growth for term in terms])
        return Tangents(tangents.vector, frames), log_growth[sources_of(frames)]

    def close(self, tangents: Tangents) -> tuple[PyTree, Float[Array, "d c"]]:
        """The state, and the directions of all blocks as one frame: k columns, or at most k for each of several blocks."""
        frame = close_frames(tangents.frames, slice(None))
        return self.unravel(tangents.vector), self.push.from_blocks(frame)


def open_whole(
    cell: Cell, state: PyTree, inputs: PyTree, frame: Float[Array, "d k"]
) -> tuple[CellPush, Float[Array, " d"], Float[Array, "d k"]]:
    """The push of the whole state, the raveled state and a frame of it, for verbs that need columns of all numbers."""
    check_step(cell, first_input(inputs), state)
    vector, _ = ravel(vary_with(state, (cell, inputs, frame)))
    return make_push(cell, state), vector, vary_with(frame, vector)


def random_frame(
    key: PRNGKeyArray | None, size: int, columns: int, dtype: jnp.dtype
) -> Float[Array, "d k"]:
    """Drawn in 32 bits whatever the dtype, so that precisions can be compared; without a key one that is always the same."""
    shape = size, columns
    if key is not None:
        return jax.random.uniform(key, shape, jnp.float32, -1, 1).astype(dtype)
    # A hash of the places (the end of MurmurHash3): a tenth of the program that a key needs.
    bits = jax.lax.iota(jnp.uint32, size * columns) + np.uint32(1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    bits = (bits ^ (bits >> 16)) >> 8
    return (bits.reshape(shape).astype(jnp.float32) * np.float32(2**-23) - 1).astype(dtype)
