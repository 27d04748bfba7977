"""The entry to the tangent dynamics of a cell: every verb that follows tangent vectors opens it here."""

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
from .directions import assemble_frame, followed_indices
from .factorization import Orthonormalizer
from .frames import Frames
from .push import CellPush, check_frame, make_push, tangent_dtype


class Tangents(NamedTuple):
    """A state and the tangent frames on it.

    **Fields:**

    - `vector` (d,): the raveled state.
    - `frames`: the frame of each diagonal block of the Jacobian.
    """

    vector: Float[Array, " d"]
    frames: Frames


class TangentDynamics(eqx.Module):
    r"""The tangent dynamics of a cell, stepped by hand: open, advance, orthonormalize, close.

    For loops of your own; `lyapunov_spectrum` has one with intervals, blocks and errors.

    $$h_{t+1} = F(u_t, h_t), \qquad Z_{t+1} = J_t Q_t, \qquad Z_{t+1} = Q_{t+1} R_{t+1}$$

    **Arguments:**

    - `cell`: `cell(input, state) -> state`.
    - `state`: a state, a pytree of real floating-point arrays, d numbers in all; its shapes and dtypes count.
    - `input`: the input of one step, for its shapes and dtypes; `None`, the default, for an autonomous cell.
    - `num_exponents`: k, directions to follow; all d by default. Where the Jacobian has several diagonal blocks, up
        to k directions of each are followed, one block after the other: sort their rates, of which the k largest are
        right.
    - `blocks`: `FoundBlocks()`, the default, or `DeclaredBlocks()`, as for `SequentialQR`.

    **Fields:**

    - `push`: `push(input, vector, frames) -> (vector, frames)`, one step of the raveled state and of the frames.
    - `unravel`: `unravel(vector) -> state`.
    - `size`: d.

    **Methods:**

    - `open(state, input=None, *, frame=None, key=None) -> tangents`: a state with tangent frames, which are not
        orthonormal yet: `frame` (d, k), as `close` returns it, or a random one drawn from `key`.
    - `advance(input, tangents) -> tangents`: one step.
    - `orthonormalize(tangents, orthonormalizer=None) -> (tangents, log_growth)`: orthonormal frames, and log R_ii for
        each column of `close`.
    - `close(tangents) -> (state, frame)`: the state, and all directions as one frame (d, c): c = k columns, or up to
        k for each of several blocks.

    **Raises:**

    - `ValueError`: if `num_exponents` is below 1 or above d, or `open` receives a state of another size.
    - `TypeError`: if the cell does not accept the state and the input, or changes its state's structure, shapes or
        dtypes.

    **Numerics:** a step costs O(d^2 k), an orthonormalization O(d k^2). Between two of them the columns turn towards
    each other and lose digits, as `SequentialQR` says. All methods work under `vmap`, `grad` and in any loop of JAX;
    in a loop of Python put the step under `eqx.filter_jit`, or it compiles each time.

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
        """A state with tangent frames, which are not orthonormal yet.

        They hold the columns of `frame` (d, k), as `close` returns it, or random ones drawn from `key`. `input` is
        that of the first step.
        """
        vector, _ = ravel(vary_with(check_state(state), (self.push, input, frame, key)))
        if vector.size != self.size:
            raise ValueError(
                f"the state has {vector.size} numbers, but the dynamics were made for {self.size}."
            )
        dtype = tangent_dtype(vector.dtype)
        random = vary_with(random_frame(key, vector.size, self.num_exponents, dtype), vector)
        if frame is not None:
            frame = self.push.to_blocks(vary_with(check_frame(frame, state), vector))
        return Tangents(vector, open_frames(self.push.layout(input, vector), random, frame))

    def advance(self, input: PyTree, tangents: Tangents) -> Tangents:
        """One step of the state and of its frames."""
        return Tangents(*self.push(input, *tangents))

    @checked
    def orthonormalize(
        self, tangents: Tangents, orthonormalizer: Orthonormalizer | None = None
    ) -> tuple[Tangents, Float[Array, " c"]]:
        """The state with orthonormal frames, and log R_ii for each column of `close`."""
        parts = [frame.orthonormalize(orthonormalizer, True, True) for frame in tangents.frames]
        frames, increments = zip(*parts, strict=True)
        log_growth = jnp.concatenate([increment.log_growth for increment in increments])
        return Tangents(tangents.vector, frames), log_growth[followed_indices(frames)]

    def close(self, tangents: Tangents) -> tuple[PyTree, Float[Array, "d c"]]:
        """The state, and the directions of all blocks as one frame."""
        frame = assemble_frame(tangents.frames)
        return self.unravel(tangents.vector), self.push.from_blocks(frame)


def open_dense(
    cell: Cell, state: PyTree, inputs: PyTree, frame: Float[Array, "d k"]
) -> tuple[CellPush, Float[Array, " d"], Float[Array, "d k"]]:
    """The push of all d numbers as one block, the raveled state and a frame, for verbs that need columns (d,)."""
    check_step(cell, first_input(inputs), state)
    vector, _ = ravel(vary_with(state, (cell, inputs, frame)))
    return make_push(cell, state), vector, vary_with(frame, vector)


def random_frame(
    key: PRNGKeyArray | None, size: int, columns: int, dtype: jnp.dtype
) -> Float[Array, "d k"]:
    """Uniform random numbers in [-1, 1): always the same ones without a key.

    They are drawn in 32 bits for every dtype, so that precisions can be compared.
    """
    shape = size, columns
    if key is not None:
        return jax.random.uniform(key, shape, jnp.float32, -1, 1).astype(dtype)
    # A hash of the indices (the end of MurmurHash3): a tenth of the program that a key needs.
    bits = jax.lax.iota(jnp.uint32, size * columns) + np.uint32(1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    bits = (bits ^ (bits >> 16)) >> 8
    return (bits.reshape(shape).astype(jnp.float32) * np.float32(2**-23) - 1).astype(dtype)
