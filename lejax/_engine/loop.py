"""The loop behind a spectrum: push the frames, orthonormalize them at intervals, sum log R_ii.

`run_intervals` runs one of two loops: `_run_adaptive`, which rejects a product that rounding has spoiled and is never
differentiated, or `_run_fixed`, over intervals fixed before the run, which is.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.batching import batch_all, batch_like, batch_max, call_in_cache
from .._core.cell import without_gradient
from .._core.statistics import block_sums
from .adjoint import Adjoint
from .carry import Clock, Growth, Plan, Point, Sums
from .factorization import Orthonormalizer
from .frames import Frames, Increment
from .interval import AdaptiveInterval, FixedIntervals
from .orthonormalize import Exact, tolerable_orthogonality_loss


Push = Callable[[PyTree, Float[Array, " d"], Frames], tuple[Float[Array, " d"], Frames]]


def run_intervals(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    interval: int | AdaptiveInterval,
    *,
    plan: Plan,
    orthonormalizer: Orthonormalizer | None,
    adjoint: Adjoint,
) -> Growth:
    """Run from a state and frames, which need not be orthonormal, with an orthonormalization after each interval.

    An interval ends after as many steps as `interval` says, or with its block.

    Fixed intervals compile to loops of fixed length: reverse mode needs that, and a GPU does not wait for its host.
    Where the interval adapts, values are those of `_run_adaptive`, derivatives those of fixed intervals of one step.
    """
    arguments = push, vector, frames, inputs, interval
    return _run(arguments, plan=plan, orthonormalizer=orthonormalizer, adjoint=adjoint)


@eqx.filter_custom_jvp
def _run(arguments, *, plan, orthonormalizer, adjoint):
    def run(push, vector, frames, inputs, interval):
        start = push, vector, frames, inputs, interval, plan, orthonormalizer
        return _run_fixed(*start) if isinstance(interval, int) else _run_adaptive(*start)

    return batch_like(call_in_cache(run, arguments, jax.tree.leaves(arguments[2])), arguments)


@_run.def_jvp
def _run_jvp(primals, tangents, *, plan, orthonormalizer, adjoint):
    def run(arguments):
        push, vector, frames, inputs, interval = arguments
        # Derivatives that end inside an interval would lack what the frame has grown since it began.
        every = interval if isinstance(interval, int) and not adjoint.truncates else 1
        return _run_fixed(push, vector, frames, inputs, every, plan, orthonormalizer, adjoint)

    return batch_like(eqx.filter_jvp(run, primals, tangents), primals)


def _push(push: Push, point: Point, input: PyTree) -> Point:
    """One step of state and frames."""
    vector, frames = push(input, point.vector, point.frames)
    step = point.step + 1
    is_bad = ~jnp.all(jnp.isfinite(vector)) & (point.first_bad_step < 0)
    unresolved = point.unresolved_steps
    if unresolved is not None:
        unresolved = unresolved + _is_unresolved(push, point.vector, point.frames, input, frames)
    return Point(step, vector, frames, jnp.where(is_bad, step, point.first_bad_step), unresolved)


def _is_unresolved(
    push: Push, vector: Float[Array, " 1"], frames: Frames, input: PyTree, pushed: Frames
) -> Float[Array, ""]:
    """1 where the slope of a scalar map is rounding: 4 units in the last place of the state change it by its own size.

    For larger states the columns of a frame are compared with each other, at no cost.
    """
    push, vector, frames, input, pushed = without_gradient((push, vector, frames, input, pushed))
    nudged = vector * (1 + 4 * float(jnp.finfo(vector.dtype).eps))
    _, others = push(input, nudged, frames)
    slope, other = (after[0].stretch_since(frames[0]) for after in (pushed, others))
    return jnp.all(jnp.abs(other - slope) >= jnp.abs(slope)).astype(slope.dtype)


def _end_interval(
    point: Point, orthonormalized: list[tuple[Frames, Increment]]
) -> tuple[Point, Increment]:
    """The point with the orthonormalized frames of all diagonal blocks, and their increments as one."""
    frames, increments = zip(*orthonormalized, strict=True)
    increment = jax.tree.map(lambda *x: jnp.concatenate(x), *increments)
    if point.unresolved_steps is not None:
        # A slope of exactly zero is resolved.
        is_zero = jnp.isneginf(increment.log_growth)
        unresolved = jnp.where(is_zero, increment.unresolved, point.unresolved_steps)
        increment = increment._replace(unresolved=unresolved)
        point = point._replace(unresolved_steps=jnp.zeros_like(point.unresolved_steps))
    is_bad = ~jnp.all(increment.log_growth < jnp.inf) & (point.first_bad_step < 0)
    first_bad_step = jnp.where(is_bad, point.step, point.first_bad_step)
    return point._replace(frames=frames, first_bad_step=first_bad_step), increment


@jax.default_matmul_precision("highest")
def _run_adaptive(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    controller: AdaptiveInterval,
    plan: Plan,
    orthonormalizer: Orthonormalizer | None,
) -> Growth:
    """Intervals as long as rounding allows: after each product the controller accepts or rejects it."""
    ends = jnp.asarray(plan.lengths, jnp.int32)
    dtype = jax.tree.leaves(frames)[0].dtype

    def step(point):
        input = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, point.step, keepdims=False), inputs
        )
        return _push(push, point, input)

    def interval(carry):
        start, sums, clock = carry[0], carry[1], Clock.unpacked(carry[2])
        remaining = ends[clock.block] - clock.step_in_block
        pushed = jnp.minimum(clock.control[0], remaining)
        stop = start.step + pushed
        point = jax.lax.while_loop(lambda point: point.step < stop, step, start)

        least_share = controller.least_share(pushed, dtype)
        factors, used_by_block = _factorize(point, orthonormalizer, least_share)
        # One decision and one interval for the whole batch.
        used = batch_max(jnp.max(jnp.where(jnp.isnan(used_by_block), jnp.inf, used_by_block)))
        is_accepted = controller.accepts(pushed, used)

        def accept():
            are_good = used_by_block[:, 0] <= 1
            orthonormalized = [
                frame.apply_factors(orthonormalizer, *of_block, pushed <= 1)
                for frame, *of_block in zip(point.frames, factors, are_good, strict=True)
            ]
            after, increment = _end_interval(point, orthonormalized)
            # The controller keeps to the tolerance: no error is avoidable.
            avoidable_error = jnp.zeros_like(increment.rounding_error)
            is_first = clock.step_in_block == 0
            return after, sums.plus(increment, avoidable_error, clock.block, is_first)

        after, sums = jax.lax.cond(is_accepted, accept, lambda: (start, sums))
        # Where a block ends with a frame that is not quite orthonormal, one more interval of no steps follows.
        is_at_end = is_accepted & (pushed == remaining)
        loss = jax.lax.cond(
            is_at_end & (pushed > 0),
            lambda: jnp.max(jnp.stack([frame.orthogonality_loss() for frame in after.frames])),
            lambda: jnp.zeros_like(used_by_block, shape=()),
        )
        is_block_done = is_at_end & batch_all(~(loss > tolerable_orthogonality_loss(dtype)))
        control = controller.next_control(clock.control, pushed, used, is_accepted)
        clock = clock.after_interval(control, pushed, is_accepted, is_block_done)
        return after, sums, clock.packed()

    start, sums = Point.start(vector, frames), Sums.zeros(frames, plan)
    zero = start.step
    clock = Clock(controller.start(zero), zero, zero, zero, zero).packed()
    point, sums, clock = jax.lax.while_loop(
        lambda carry: Clock.unpacked(carry[2]).block <= plan.num_blocks,
        interval,
        (start, sums, clock),
    )
    clock = Clock.unpacked(clock)
    return sums.growth(point, clock.num_orthonormalizations, clock.longest_interval)


def _factorize(
    point: Point, orthonormalizer: Orthonormalizer | None, least_share: Float[Array, ""]
) -> tuple[list, Float[Array, "m 2"]]:
    """The factors of the frames of all m diagonal blocks, and their `BudgetUsed`.

    It is 0 after the run has diverged: a diverged member of a batch does not count.
    """
    factors = [frame.factorize(orthonormalizer) for frame in point.frames]
    used = [
        frame.budget_used(orthonormalizer, block_factors, least_share)
        for frame, block_factors in zip(point.frames, factors, strict=True)
    ]
    used = jnp.stack(jax.tree.leaves(used)).reshape(len(used), 2)
    return factors, jnp.where(point.first_bad_step >= 0, 0, used)


@jax.default_matmul_precision("highest")
def _run_fixed(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    every: int,
    plan: Plan,
    orthonormalizer: Orthonormalizer | None,
    adjoint: Adjoint | None = None,
) -> Growth:
    """Intervals of at most `every` steps. An adjoint scans and differentiates the loop, and keeps each increment."""
    intervals = FixedIntervals.divide(plan.lengths, every)
    interval = _fixed_interval(push, intervals, orthonormalizer)
    frames = tuple(frame.orthonormalize(Exact(), True, True)[0] for frame in frames)
    start, sums = Point.start(vector, frames), Sums.zeros(frames, plan)
    along = intervals.arrange(inputs), intervals.steps, intervals.is_last

    def avoidable(error, steps):
        return jnp.where(steps > 1, error, 0)

    if adjoint is None:

        def add_interval(carry, along):
            point, sums = carry
            of_interval, block, is_first = along
            point, increment = interval(point, of_interval)
            error = avoidable(increment.rounding_error, of_interval[1])
            return (point, sums.plus(increment, error, block, is_first)), None

        (point, sums), _ = jax.lax.scan(
            add_interval, (start, sums), (along, intervals.block, intervals.is_first)
        )
    else:
        point, increments = adjoint.scan(interval, start, along, len(intervals.steps))
        error = avoidable(increments.rounding_error, intervals.steps[:, None])
        errors = jnp.stack([increments.rounding_error, error, increments.unresolved])
        first = np.sum(intervals.block == 0)
        blocks = block_sums(increments.log_growth[first:], np.bincount(intervals.block)[1:])
        sums = sums.of_all(blocks, jnp.sum(errors[:, first:], axis=1))
    counted = intervals.steps[intervals.block > 0]
    return sums.growth(
        point, jnp.asarray(counted.size, jnp.int32), jnp.asarray(counted.max(), jnp.int32)
    )


def _fixed_interval(
    push: Push, intervals: FixedIntervals, orthonormalizer: Orthonormalizer | None
) -> Callable[[Point, PyTree], tuple[Point, Increment]]:
    """One interval as the body of a scan, without a branch; all have the length of the longest."""
    are_equal = bool(np.all(intervals.steps == intervals.longest))

    def interval(point, along):
        inputs, steps, is_last = along
        first = point.vector

        def step(point, numbered):
            index, input = numbered
            if are_equal:
                return _push(push, point, input), None
            # A shorter interval repeats its first step, where the cell is defined, and discards the result.
            is_inside = index < steps
            defined = point._replace(vector=jnp.where(is_inside, point.vector, first))
            after = _push(push, defined, input)
            return jax.tree.map(lambda x, y: jnp.where(is_inside, x, y), after, point), None

        if intervals.longest == 1:
            point = _push(push, point, inputs)
        else:
            numbered = np.arange(intervals.longest, dtype=np.int32), inputs
            point, _ = jax.lax.scan(step, point, numbered)
        is_one_step = True if intervals.longest == 1 else steps == 1
        return _end_interval(
            point,
            [frame.orthonormalize(orthonormalizer, is_last, is_one_step) for frame in point.frames],
        )

    return interval
