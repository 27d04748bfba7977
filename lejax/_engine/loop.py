"""The loop behind a spectrum: push the frames, orthonormalize them now and then, sum the logarithms."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.batching import batch_all, batch_like, call_in_cache
from .._core.cell import without_gradient
from .._core.statistics import add_compensated, block_lengths
from .adjoint import Adjoint
from .factorization import Householder, Orthonormalizer
from .frames import Frames, Term
from .interval import AdaptiveInterval, KnownIntervals
from .orthonormalize import tolerable_defect


Push = Callable[[PyTree, Float[Array, " d"], Frames], tuple[Float[Array, " d"], Frames]]


class Plan(NamedTuple):
    """The static shape of a run: what is skipped, what is counted, in how many blocks."""

    transient: int
    num_steps: int
    num_blocks: int
    num_chunks: int = 1  # equal parts of the counted steps, each with as many of the blocks

    @property
    def block_steps(self) -> Int[np.ndarray, " b"]:
        chunk = block_lengths(self.num_steps // self.num_chunks, self.num_blocks // self.num_chunks)
        return np.tile(chunk, self.num_chunks)

    @property
    def lengths(self) -> Int[np.ndarray, " b"]:
        """The steps of the transient and of each block."""
        return np.append(self.transient, self.block_steps)


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

    @classmethod
    def zero(cls, frames: Frames, plan: Plan) -> "_Sums":
        nothing = jnp.concatenate(
            [jnp.zeros_like(x, shape=x.shape[-1]) for x in jax.tree.leaves(frames)]
        )
        return cls(
            jnp.broadcast_to(nothing, (plan.num_blocks + 1, nothing.size)),
            # float64 has digits enough for the sum over a block
            nothing if nothing.dtype == jnp.float32 else None,
            jnp.broadcast_to(nothing, (3, nothing.size)),
        )

    def plus(
        self,
        term: Term,
        avoidable: Float[Array, " k"],
        block: Int[Array, ""],
        is_first: Bool[Array, ""],
    ) -> "_Sums":
        """With what an interval adds, which may be the first of its block."""
        total, compensation = add_compensated(
            jax.lax.dynamic_index_in_dim(self.blocks, block, keepdims=False),
            self.compensation,
            term.log_growth,
            restart=is_first,
        )
        errors = jnp.stack([term.rounding_error, avoidable, term.unresolved])
        return _Sums(
            jax.lax.dynamic_update_index_in_dim(self.blocks, total, block, 0),
            compensation,
            self.errors + jnp.where(block > 0, errors, 0),
        )


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


@jax.default_matmul_precision("highest")
def _by_interval(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    rule: AdaptiveInterval,
    plan: Plan,
    kind: Orthonormalizer | None,
) -> Growth:
    ends = jnp.asarray(plan.lengths, jnp.int32)
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
            # Nobody asked for what rounding costs here.
            none = jnp.zeros_like(term.rounding_error)
            return after, sums.plus(term, none, clock.block, clock.place == 0)

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

    start, sums = _start(vector, frames), _Sums.zero(frames, plan)
    zero = start.step
    clock = _Clock(rule.start(zero), zero, zero, zero, zero).packed()
    point, sums, clock = jax.lax.while_loop(
        lambda carry: _Clock.unpacked(carry[2]).block <= plan.num_blocks,
        interval,
        (start, sums, clock),
    )
    clock = _Clock.unpacked(clock)
    return _growth(point, sums, clock.number, clock.longest)


def _body_of(
    push: Push, known: KnownIntervals, kind: Orthonormalizer | None
) -> Callable[[_Point, PyTree], tuple[_Point, Term]]:
    """The body of a loop over known intervals: no branch and no length that is not known."""
    are_equal = bool(np.all(known.steps == known.longest))

    def interval(point, given):
        inputs, steps, is_last = given
        first = point.vector

        def step(point, given):
            place, input = given
            if are_equal:
                return _push(push, point, input), None
            # After a shorter interval the first step again, which is known to be defined, and nothing of it is kept.
            is_in = place < steps
            again = point._replace(vector=jnp.where(is_in, point.vector, first))
            after = _push(push, again, input)
            return jax.tree.map(lambda x, y: jnp.where(is_in, x, y), after, point), None

        if known.longest == 1:
            point = _push(push, point, inputs)
        else:
            point, _ = jax.lax.scan(step, point, (np.arange(known.longest, dtype=np.int32), inputs))
        is_one = True if known.longest == 1 else steps == 1
        return _count(
            point, [frame.orthonormalize(kind, is_last, is_one) for frame in point.frames]
        )

    return interval


@jax.default_matmul_precision("highest")
def _by_known_intervals(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    every: int,
    plan: Plan,
    kind: Orthonormalizer | None,
    adjoint: Adjoint | None = None,
) -> Growth:
    """Intervals of `every` steps; what is differentiated by an adjoint keeps the terms of each."""
    known = KnownIntervals.of(every, plan.lengths)
    interval = _body_of(push, known, kind)
    frames = tuple(frame.orthonormalize(Householder(), True, True)[0] for frame in frames)
    start, sums = _start(vector, frames), _Sums.zero(frames, plan)
    given = known.arranged(inputs), known.steps, known.is_last

    def avoidable(error, steps):
        return jnp.where(steps > 1, error, 0)

    if adjoint is None:

        def count(carry, given):
            point, sums = carry
            of_interval, block, is_first = given
            point, term = interval(point, of_interval)
            error = avoidable(term.rounding_error, of_interval[1])
            return (point, sums.plus(term, error, block, is_first)), None

        (point, sums), _ = jax.lax.scan(count, (start, sums), (given, known.block, known.is_first))
    else:
        point, terms = adjoint.scan(interval, start, given, len(known.steps))
        error = avoidable(terms.rounding_error, known.steps[:, None])
        errors = jnp.stack([terms.rounding_error, error, terms.unresolved])
        sums = _Sums(
            sums.blocks.at[known.block].add(terms.log_growth, indices_are_sorted=True),
            None,
            jnp.sum(errors[:, np.sum(known.block == 0) :], axis=1),
        )
    counted = known.steps[known.block > 0]
    return _growth(
        point, sums, jnp.asarray(counted.size, jnp.int32), jnp.asarray(counted.max(), jnp.int32)
    )


def _growth(point: _Point, sums: _Sums, number: Int[Array, ""], longest: Int[Array, ""]) -> Growth:
    """What the last point and the sums of a run leave, and how many intervals there were, the longest of so many steps."""
    return Growth(
        point.vector,
        point.frames,
        sums.blocks[1:],
        *sums.errors,
        num_orthonormalizations=number,
        longest_interval=longest,
        first_bad_step=point.first_bad_step,
        overlap_bias=jnp.zeros_like(sums.errors[0]),
    )


@eqx.filter_custom_jvp
def _run(arguments, *, plan, orthonormalizer, adjoint):
    def run(push, vector, frames, inputs, interval):
        if isinstance(interval, int):
            return _by_known_intervals(
                push, vector, frames, inputs, interval, plan, orthonormalizer
            )
        return _by_interval(push, vector, frames, inputs, interval, plan, orthonormalizer)

    return batch_like(call_in_cache(run, arguments, jax.tree.leaves(arguments[2])), arguments)


@_run.def_jvp
def _run_jvp(primals, tangents, *, plan, orthonormalizer, adjoint):
    def run(arguments):
        push, vector, frames, inputs, interval = arguments
        # Of a run that may be cut anywhere what a frame has grown must be divided out before.
        every = interval if isinstance(interval, int) and not adjoint.cuts else 1
        return _by_known_intervals(
            push, vector, frames, inputs, every, plan, orthonormalizer, adjoint
        )

    return batch_like(eqx.filter_jvp(run, primals, tangents), primals)


def follow(
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
    """A run from a state and frames of its blocks, which need not be orthonormal, with an orthonormalization at the end of
    each interval, of so many steps at most, and of each block.

    Intervals that are known before compile to loops of known length: reverse mode needs that, and a GPU does not wait
    for its host. Where the interval adapts, the values are those of a loop that looks at each product, and derivatives
    are those of intervals of one step.
    """
    arguments = push, vector, frames, inputs, interval
    return _run(arguments, plan=plan, orthonormalizer=orthonormalizer, adjoint=adjoint)
