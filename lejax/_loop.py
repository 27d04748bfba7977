"""The loop behind a spectrum: push the frames, orthonormalize them now and then, sum the logarithms."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ._adjoint import Adjoint
from ._batch import alike, batch_all, call_in_cache
from ._cell import without_gradient
from ._frames import Frames, Term
from ._interval import Interval
from ._orthonormalize import Householder, Orthonormalizer, tolerable_defect
from ._statistics import add_compensated, block_lengths


Push = Callable[[PyTree, Float[Array, " d"], Frames], tuple[Float[Array, " d"], Frames]]


class Plan(NamedTuple):
    """The static shape of a run: what is skipped, what is counted, in how many blocks."""

    transient: int
    num_steps: int
    num_blocks: int


class Growth(NamedTuple):
    """What a run leaves behind; errors and numbers are those of all counted steps together."""

    vector: Float[Array, " d"]
    frames: Frames
    log_growth: Float[Array, "b k"]  # of each block
    rounding_error: Float[Array, " k"]
    avoidable_error: Float[Array, " k"]  # the part of it that shorter intervals would have spared
    unresolved: Float[Array, " k"]
    num_orthonormalizations: Int[Array, ""]
    longest_interval: Int[Array, ""]
    first_bad_step: Int[Array, ""]
    overlap_bias: Float[Array, " k"]


class _Point(NamedTuple):
    """What a step moves. Nothing else goes through the innermost loop: XLA compiles it into one kernel if it is
    small."""

    step: Int[Array, ""]
    vector: Float[Array, " d"]
    frames: Frames
    first_bad_step: Int[Array, ""]
    hidden: (
        Float[Array, ""] | None
    )  # steps since the last orthonormalization whose slope is rounding, of a scalar state


class _Clock(NamedTuple):
    """Where a run is. The whole batch has one, as one array: XLA compiles a program for each that it computes."""

    control: Int[Array, " 3"]
    block: Int[Array, ""]  # 0 is the transient
    place: Int[Array, ""]  # steps done in the block
    number: Int[Array, ""]  # of orthonormalizations of counted steps
    longest: Int[Array, ""]  # of their intervals

    def packed(self) -> Int[Array, " 7"]:
        return jnp.concatenate([self.control, jnp.stack(self[1:])])

    @classmethod
    def unpacked(cls, numbers: Int[Array, " 7"]) -> "_Clock":
        return cls(numbers[:3], *numbers[3:])


class _Sums(NamedTuple):
    blocks: Float[Array, "b+1 k"]  # the logarithms of the transient, then those of the blocks
    compensation: Float[Array, " k"] | None
    errors: Float[Array, "3 k"]  # rounding, the part of it that is avoidable, unresolved


def _start(vector: Float[Array, " d"], frames: Frames) -> _Point:
    # Built from the frames, so that under shard_map every part of the carry varies as they do.
    one = jax.tree.leaves(frames)[0]
    zero = jnp.zeros_like(one, shape=(), dtype=jnp.int32)
    is_good = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((vector, frames))]
    bad = jnp.where(jnp.all(jnp.stack(is_good)), zero - 1, zero)
    return _Point(
        zero, vector, frames, bad, jnp.zeros_like(one, shape=()) if vector.size == 1 else None
    )


def _push(push: Push, point: _Point, input: PyTree) -> _Point:
    """One step of state and frames."""
    vector, frames = push(input, point.vector, point.frames)
    step = point.step + 1
    bad = ~jnp.all(jnp.isfinite(vector)) & (point.first_bad_step < 0)
    hidden = point.hidden
    if hidden is not None:
        hidden = hidden + _is_hidden(push, point.vector, point.frames, input, frames)
    return _Point(step, vector, frames, jnp.where(bad, step, point.first_bad_step), hidden)


def _is_hidden(
    push: Push, vector: Float[Array, " 1"], frames: Frames, input: PyTree, pushed: Frames
) -> Float[Array, ""]:
    """1 where the slope of a scalar map is rounding: 4 units in the last place of the state change it by as much as it
    is. In a state of more numbers the columns of a step are compared with each other, at no cost."""
    push, vector, frames, input, pushed = without_gradient((push, vector, frames, input, pushed))
    nudged = vector * (1 + 4 * float(jnp.finfo(vector.dtype).eps))
    _, others = push(input, nudged, frames)
    slope, other = (after[0].change_from(frames[0]) for after in (pushed, others))
    return jnp.all(jnp.abs(other - slope) >= jnp.abs(slope)).astype(slope.dtype)


def _count(point: _Point, parts: list) -> tuple[_Point, Term]:
    """A point whose frames were divided out, and what that adds in all."""
    frames, terms = zip(*parts, strict=True)
    term = jax.tree.map(lambda *x: jnp.concatenate(x), *terms)
    if point.hidden is not None:
        # What is exactly zero is not hidden.
        counted = jnp.where(jnp.isneginf(term.log_growth), term.unresolved, point.hidden)
        term = term._replace(unresolved=counted)
        point = point._replace(hidden=jnp.zeros_like(point.hidden))
    bad = ~jnp.all(term.log_growth < jnp.inf) & (point.first_bad_step < 0)
    first_bad_step = jnp.where(bad, point.step, point.first_bad_step)
    return point._replace(frames=frames, first_bad_step=first_bad_step), term


def _by_interval(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    rule: Interval,
    plan: Plan,
    kind: Orthonormalizer | None,
) -> Growth:
    lengths = block_lengths(plan.num_steps, plan.num_blocks)
    ends = jnp.asarray(np.append(plan.transient, lengths), jnp.int32)
    dtype = jax.tree.leaves(frames)[0].dtype

    def step(point):
        input = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, point.step, keepdims=False), inputs
        )
        return _push(push, point, input)

    def interval(carry):
        kept, sums, clock = carry[0], carry[1], _Clock.unpacked(carry[2])
        end = ends[clock.block]
        place = jnp.minimum(clock.place + clock.control[0], end)
        pushed, is_counted = place - clock.place, clock.block > 0
        stop = kept.step + pushed
        point = jax.lax.while_loop(lambda point: point.step < stop, step, kept)
        factors = [frame.factorize(kind) for frame in point.frames]
        least_share = rule.least_share(pushed, dtype)
        strains = [
            frame.strain(kind, own, least_share)
            for frame, own in zip(point.frames, factors, strict=True)
        ]
        # A diverged member has no say in a batch.
        strains = jnp.where(point.first_bad_step >= 0, 0, jnp.stack(jax.tree.leaves(strains)))
        strain = jnp.max(jnp.where(jnp.isnan(strains), jnp.inf, strains))
        accepted = rule.accepts(pushed, strain)

        def commit():
            parts = [
                frame.complete(kind, own, used <= 1, pushed <= 1)
                for frame, own, used in zip(point.frames, factors, strains[::2], strict=True)
            ]
            after, term = _count(point, parts)
            total, compensation = add_compensated(
                jax.lax.dynamic_index_in_dim(sums.blocks, clock.block, keepdims=False),
                sums.compensation,
                term.log_growth,
                restart=clock.place == 0,
            )
            error = term.rounding_error
            errors = jnp.stack([error, rule.avoidable(pushed, error), term.unresolved])
            blocks = jax.lax.dynamic_update_index_in_dim(sums.blocks, total, clock.block, 0)
            errors = sums.errors + jnp.where(is_counted, errors, 0)
            return after, _Sums(blocks, compensation, errors)

        def defect():
            return jnp.max(jnp.stack([frame.defect() for frame in after.frames]))

        after, sums = jax.lax.cond(accepted, commit, lambda: (kept, sums))
        # A block that ends with a frame that is not quite orthonormal has one more interval, of no step.
        at_end = accepted & (place == end)
        is_open = at_end & (pushed > 0)
        excess = jax.lax.cond(is_open, defect, lambda: jnp.zeros_like(strain))
        is_done = at_end & batch_all(~(excess > tolerable_defect(dtype)))
        is_counted = accepted & is_counted
        clock = _Clock(
            rule.following(clock.control, pushed, strain, accepted),
            clock.block + is_done.astype(jnp.int32),
            jnp.where(is_done, 0, jnp.where(accepted, place, clock.place)),
            clock.number + is_counted.astype(jnp.int32),
            jnp.where(is_counted, jnp.maximum(clock.longest, pushed), clock.longest),
        )
        return after, sums, clock.packed()

    start = _start(vector, frames)
    nothing = jnp.concatenate(
        [jnp.zeros_like(x, shape=x.shape[-1]) for x in jax.tree.leaves(frames)]
    )
    zero = start.step
    sums = _Sums(
        jnp.broadcast_to(nothing, (plan.num_blocks + 1, nothing.size)),
        # float64 has digits enough for the sum over a block
        nothing if dtype == jnp.float32 else None,
        jnp.broadcast_to(nothing, (3, nothing.size)),
    )
    clock = _Clock(rule.start(zero), zero, zero, zero, zero).packed()
    with jax.default_matmul_precision("highest"):
        point, sums, clock = jax.lax.while_loop(
            lambda carry: _Clock.unpacked(carry[2]).block <= plan.num_blocks,
            interval,
            (start, sums, clock),
        )
    clock = _Clock.unpacked(clock)
    return Growth(
        point.vector,
        point.frames,
        sums.blocks[1:],
        *sums.errors,
        num_orthonormalizations=clock.number,
        longest_interval=clock.longest,
        first_bad_step=point.first_bad_step,
        overlap_bias=jnp.zeros_like(nothing),
    )


def _by_step(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    every: int | Int[Array, ""],
    plan: Plan,
    kind: Orthonormalizer | None,
    adjoint: Adjoint,
) -> Growth:
    counted = block_lengths(plan.num_steps, plan.num_blocks)
    lengths = np.append(plan.transient, counted) if plan.transient else counted
    is_last = np.concatenate([np.arange(1, length + 1) == length for length in lengths])
    place = np.concatenate([np.arange(1, length + 1, dtype=np.int32) for length in lengths])
    always = isinstance(every, int) and every == 1
    is_due = np.ones_like(is_last) if always else (place % every == 0) | is_last

    def divide_out(point, exact):
        return _count(
            point, [frame.orthonormalize(kind, exact, every == 1) for frame in point.frames]
        )

    def body(point, given):
        input, is_last, is_due = given
        point = _push(push, point, input)
        if always:
            return divide_out(point, is_last)

        def leave(point, _):
            return point, jax.tree.map(
                jnp.zeros_like, jax.eval_shape(divide_out, point, is_last)[1]
            )

        return jax.lax.cond(is_due, divide_out, leave, point, is_last)

    frames = tuple(frame.orthonormalize(Householder(), True, True)[0] for frame in frames)
    point, terms = adjoint.scan(body, _start(vector, frames), (inputs, is_last, is_due), len(place))
    terms = jax.tree.map(lambda x: x[plan.transient :], terms)
    block = np.repeat(np.arange(plan.num_blocks), counted)
    sums = jnp.zeros_like(terms.log_growth, shape=(plan.num_blocks, terms.log_growth.shape[1]))
    error = jnp.sum(terms.rounding_error, axis=0)
    return Growth(
        point.vector,
        point.frames,
        sums.at[block].add(terms.log_growth, indices_are_sorted=True),
        error,
        jnp.where(every == 1, 0, error),
        jnp.sum(terms.unresolved, axis=0),
        num_orthonormalizations=jnp.sum(is_due[plan.transient :], dtype=jnp.int32),
        longest_interval=jnp.minimum(jnp.asarray(every, jnp.int32), np.int32(lengths.max())),
        first_bad_step=point.first_bad_step,
        overlap_bias=jnp.zeros_like(error),
    )


@eqx.filter_custom_jvp
def _run(arguments, *, plan, orthonormalizer, adjoint):
    def run(push, vector, frames, inputs, rule):
        return _by_interval(push, vector, frames, inputs, rule, plan, orthonormalizer)

    return alike(call_in_cache(run, arguments, jax.tree.leaves(arguments[2])), arguments)


@_run.def_jvp
def _run_jvp(primals, tangents, *, plan, orthonormalizer, adjoint):
    def run(arguments):
        push, vector, frames, inputs, rule = arguments
        # Of a run that may be cut anywhere what a frame has grown must be divided out before.
        every = 1 if adjoint.cuts else rule.differentiated()
        return _by_step(push, vector, frames, inputs, every, plan, orthonormalizer, adjoint)

    return alike(eqx.filter_jvp(run, primals, tangents), primals)


def follow(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    interval: Interval,
    *,
    plan: Plan,
    orthonormalizer: Orthonormalizer | None,
    adjoint: Adjoint,
) -> Growth:
    """A run from a state and frames of its blocks, which need not be orthonormal, with an orthonormalization at the end of
    each interval and of each block.

    Values come from nested loops over intervals and their steps, which cost nothing per step but the push. Derivatives
    come from one loop over all steps, which has a length that reverse mode knows.
    """
    arguments = push, vector, frames, inputs, interval
    return _run(arguments, plan=plan, orthonormalizer=orthonormalizer, adjoint=adjoint)
