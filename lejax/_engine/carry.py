"""What a run of the loop is given, carries from interval to interval, and leaves behind."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._core.statistics import add_compensated, block_lengths
from .frames import Frames, Increment


class Plan(NamedTuple):
    """The static shape of a run: how many steps are skipped, how many counted, in how many blocks.

    **Fields:**

    - `transient`: steps before the counted ones.
    - `num_steps`: counted steps.
    - `num_blocks`: b, blocks of the counted steps; their lengths differ by at most one step.
    - `num_chunks`: equal parts of the counted steps, each with as many of the blocks; 1 by default.
    """

    transient: int
    num_steps: int
    num_blocks: int
    num_chunks: int = 1

    @property
    def block_steps(self) -> Int[np.ndarray, " b"]:
        """The steps of each block."""
        chunk = block_lengths(self.num_steps // self.num_chunks, self.num_blocks // self.num_chunks)
        return np.tile(chunk, self.num_chunks)

    @property
    def lengths(self) -> Int[np.ndarray, " b+1"]:
        """The steps of the transient and of each block."""
        return np.append(self.transient, self.block_steps)


class Growth(NamedTuple):
    """What a run leaves behind, for d numbers of the state, b blocks of steps and k followed directions.

    The directions are those of all diagonal blocks of the Jacobian, one diagonal block after the other. Errors are sums
    over all counted steps, in nats, unless stated otherwise.

    **Fields:**

    - `vector` (d,): the raveled state after the last step.
    - `frames`: a tuple with the orthonormal frame of each diagonal block after the last step.
    - `log_growth` (b, k): the sums of log R_ii over each block of steps, without the transient.
    - `rounding_error` (k,): an estimate of the error from floating point.
    - `avoidable_error` (k,): the part of it that fixed intervals above 1 cost.
    - `unresolved` (k,): how many orthonormalizations found the direction below floating-point resolution.
    - `num_orthonormalizations`: int32, in counted steps.
    - `longest_interval`: int32, the most counted steps between two orthonormalizations.
    - `first_bad_step`: int32, the first step, transient included, after which state or frames are not finite; 0 if they
        were not at the start, -1 if they always are.
    - `overlap_bias` (k,): a bias in nats per step from frames that do not agree where chunks meet; 0 without chunks.
    """

    vector: Float[Array, " d"]
    frames: Frames
    log_growth: Float[Array, "b k"]
    rounding_error: Float[Array, " k"]
    avoidable_error: Float[Array, " k"]
    unresolved: Float[Array, " k"]
    num_orthonormalizations: Int[Array, ""]
    longest_interval: Int[Array, ""]
    first_bad_step: Int[Array, ""]
    overlap_bias: Float[Array, " k"]


class Point(NamedTuple):
    """What one step changes, and all that the innermost loop carries: XLA makes one kernel of a small carry.

    **Fields:**

    - `step`: the steps since the start, transient included.
    - `vector` (d,): the raveled state.
    - `frames`: the frame of each diagonal block, not orthonormal inside an interval.
    - `first_bad_step`: as in `Growth`.
    - `unresolved_steps`: the steps since the last orthonormalization whose slope is rounding, for a state of one
        number; `None` for larger states.
    """

    step: Int[Array, ""]
    vector: Float[Array, " d"]
    frames: Frames
    first_bad_step: Int[Array, ""]
    unresolved_steps: Float[Array, ""] | None

    @classmethod
    def start(cls, vector: Float[Array, " d"], frames: Frames) -> "Point":
        # Zeros like the frames: under shard_map every part of a carry must vary as the frames do.
        like = jax.tree.leaves(frames)[0]
        zero = jnp.zeros_like(like, shape=(), dtype=jnp.int32)
        are_finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((vector, frames))]
        first_bad_step = jnp.where(jnp.all(jnp.stack(are_finite)), zero - 1, zero)
        unresolved = jnp.zeros_like(like, shape=()) if vector.size == 1 else None
        return cls(zero, vector, frames, first_bad_step, unresolved)


class Clock(NamedTuple):
    """How far an adaptive run has come: one for a whole batch.

    The carry holds it as one array of 7 integers: XLA compiles a kernel for each array that it computes.

    **Fields:**

    - `control` (3,): what `AdaptiveInterval` remembers.
    - `block`: the current block; 0 is the transient.
    - `step_in_block`: the steps taken in that block.
    - `num_orthonormalizations`, `longest_interval`: as in `Growth`.
    """

    control: Int[Array, " 3"]
    block: Int[Array, ""]
    step_in_block: Int[Array, ""]
    num_orthonormalizations: Int[Array, ""]
    longest_interval: Int[Array, ""]

    def packed(self) -> Int[Array, " 7"]:
        return jnp.concatenate([self.control, jnp.stack(self[1:])])

    @classmethod
    def unpacked(cls, numbers: Int[Array, " 7"]) -> "Clock":
        return cls(numbers[:3], *numbers[3:])

    def after_interval(
        self,
        control: Int[Array, " 3"],
        pushed: Int[Array, ""],
        is_accepted: Bool[Array, ""],
        is_block_done: Bool[Array, ""],
    ) -> "Clock":
        """The clock after a product of `pushed` steps."""
        step_in_block = jnp.where(is_accepted, self.step_in_block + pushed, self.step_in_block)
        is_counted = is_accepted & (self.block > 0)
        longest = jnp.maximum(self.longest_interval, pushed)
        return Clock(
            control,
            self.block + is_block_done.astype(jnp.int32),
            jnp.where(is_block_done, 0, step_in_block),
            self.num_orthonormalizations + is_counted.astype(jnp.int32),
            jnp.where(is_counted, longest, self.longest_interval),
        )


class Sums(NamedTuple):
    """The sums of the increments of all intervals.

    **Fields:**

    - `log_growth` (b + 1, k): the sums of log R_ii over the transient and over each block.
    - `errors` (3, k): `rounding_error`, `avoidable_error` and `unresolved` of `Growth`.
    - `lost`: in float32 what rounding took from the current block's sum (k,) and from `errors` (3, k), which would no
        longer grow after 2^24 intervals; `None` for both in float64, which has enough digits.
    """

    log_growth: Float[Array, "b+1 k"]
    errors: Float[Array, "3 k"]
    lost: tuple[Float[Array, " k"] | None, Float[Array, "3 k"] | None]

    @classmethod
    def zeros(cls, frames: Frames, plan: Plan) -> "Sums":
        zeros = jnp.concatenate(
            [
                jnp.zeros_like(jax.tree.leaves(frame)[0], shape=frame.num_followed)
                for frame in frames
            ]
        )
        errors = jnp.broadcast_to(zeros, (3, zeros.size))
        return cls(
            jnp.broadcast_to(zeros, (plan.num_blocks + 1, zeros.size)),
            errors,
            (zeros, errors) if zeros.dtype == jnp.float32 else (None, None),
        )

    def plus(
        self,
        increment: Increment,
        avoidable_error: Float[Array, " k"],
        block: Int[Array, ""],
        is_first: Bool[Array, ""],
    ) -> "Sums":
        """The sums with the increment of an interval, which may be the first one of its block."""
        total, lost_growth = add_compensated(
            jax.lax.dynamic_index_in_dim(self.log_growth, block, keepdims=False),
            self.lost[0],
            increment.log_growth,
            restart=is_first,
        )
        errors = jnp.stack([increment.rounding_error, avoidable_error, increment.unresolved])
        errors = jnp.where(block > 0, errors, 0)
        errors, lost_errors = add_compensated(self.errors, self.lost[1], errors)
        return Sums(
            jax.lax.dynamic_update_index_in_dim(self.log_growth, total, block, 0),
            errors,
            (lost_growth, lost_errors),
        )

    def of_all(self, blocks: Float[Array, "b k"], errors: Float[Array, "3 k"]) -> "Sums":
        """The sums of a run whose increments were summed at its end."""
        return self._replace(
            log_growth=jnp.concatenate([self.log_growth[:1], blocks]), errors=errors
        )

    def growth(
        self,
        point: Point,
        num_orthonormalizations: Int[Array, ""],
        longest_interval: Int[Array, ""],
    ) -> Growth:
        """What a run leaves that ends at this point."""
        return Growth(
            point.vector,
            point.frames,
            self.log_growth[1:],
            *self.errors,
            num_orthonormalizations=num_orthonormalizations,
            longest_interval=longest_interval,
            first_bad_step=point.first_bad_step,
            overlap_bias=jnp.zeros_like(self.errors[0]),
        )
