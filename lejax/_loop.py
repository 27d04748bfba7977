"""The loop behind a spectrum: push the frame, orthonormalize it now and then, sum the logarithms."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._adjoint import Adjoint
from ._batch import alike, batch_all, call_in_cache
from ._blocks import Frames
from ._cell import without_gradient
from ._orthonormalize import Orthonormalizer, default_orthonormalizer, lost, orthonormalize
from ._statistics import add_compensated


Push = Callable[[PyTree, Float[Array, " d"], Frames], tuple[Float[Array, " d"], Frames]]


PATIENCE = 64


class Plan(NamedTuple):
    """The static shape of a run: what is skipped, what is counted, in how many blocks."""

    transient: int
    num_steps: int
    num_blocks: int


class Tally(NamedTuple):
    """What orthonormalizations add up to, for each direction."""

    log_growth: Float[Array, "*b k"]
    rounding_error: Float[Array, "*b k"]
    unresolved: Float[Array, "*b k"]


class Growth(NamedTuple):
    """What a run leaves behind."""

    vector: Float[Array, " d"]
    frames: Frames
    blocks: Tally  # (b, k)
    first_bad_step: Int[Array, ""]
    every: Int[Array, ""]
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


class _Carry(NamedTuple):
    point: _Point
    block: Int[Array, ""]  # 0 is the transient
    place: Int[Array, ""]  # steps done in the block
    tally: Tally  # of the present block
    compensation: Tally | None
    blocks: Tally  # the tally of the transient, then those of the blocks
    spent: Float[Array, " k"]  # the rounding error of all counted steps
    overspent: Int[Array, ""]  # the step from which on that is too much, or -1


def tolerable_error(dtype: jnp.dtype) -> float:
    """The error in nats per step that rounding may cost a run whose interval is longer than 1."""
    return {jnp.dtype("float32"): 1e-4, jnp.dtype("float64"): 1e-8}[jnp.dtype(dtype)]


def rounding_of(frame: Float[Array, "d k"]) -> float:
    """Rounding in a column is about this fraction of the largest |z_j|; what is left of it is R_ii."""
    return float(jnp.finfo(frame.dtype).eps)


def orthonormalizer_of(
    orthonormalizer: Orthonormalizer | None, frame: Float[Array, "d k"]
) -> Orthonormalizer:
    return orthonormalizer or default_orthonormalizer(frame.shape[1])


def is_hidden(
    push: Push, vector: Float[Array, " 1"], frames: Frames, input: PyTree, pushed: Frames
) -> Float[Array, ""]:
    """1 where the slope of a scalar map is rounding: 4 units in the last place of the state change it by as much as it
    is. In a state of more numbers the columns of a step are compared with each other, at no cost."""
    push, vector, frames, input, pushed = without_gradient((push, vector, frames, input, pushed))
    nudged = vector * (1 + 4 * float(jnp.finfo(vector.dtype).eps))
    _, others = push(input, nudged, frames)
    (slope,), (other,) = pushed, others
    if slope.ndim == 1:  # the logarithms of a diagonal block
        slope, other = (jnp.exp(new - old) for new, old in ((slope, frames[0]), (other, frames[0])))
    return jnp.all(jnp.abs(other - slope) >= jnp.abs(slope)).astype(slope.dtype)


class Loop(eqx.Module):
    """A run from a state and orthonormal frames of its blocks, with an orthonormalization after every `every` steps and at
    the end of each block.

    Values come from nested loops over intervals and their steps, which cost nothing per step but the push.
    Derivatives come from one loop over all steps, which has a length that reverse mode knows.
    """

    plan: Plan = eqx.field(static=True)
    orthonormalizer: Orthonormalizer | None
    adjoint: Adjoint
    restart: bool = eqx.field(static=True)
    """Whether a run that rounding spoils starts again with a shorter interval."""

    def __call__(
        self,
        push: Push,
        vector: Float[Array, " d"],
        frames: Frames,
        inputs: PyTree,
        every: int | np.ndarray | Int[Array, ""],
    ) -> Growth:
        start = self._start(vector, frames)
        carry, used = _run((push, start, inputs, every), loop=self)
        blocks = jax.tree.map(lambda rows: rows[1:], carry.blocks)
        nothing = jnp.zeros_like(carry.spent)
        _, vector, frames, bad, _ = carry.point
        return Growth(vector, frames, blocks, bad, used, overlap_bias=nothing)

    def _start(self, vector, frames) -> _Carry:
        # Built from the frames, so that under shard_map every part of the carry varies as they do.
        zeros = jnp.concatenate([jnp.zeros_like(f, shape=f.shape[-1]) for f in frames])
        nothing = Tally(zeros, zeros, zeros)
        zero = jnp.zeros_like(zeros, shape=(), dtype=jnp.int32)
        is_good = [jnp.all(jnp.isfinite(x)) for x in (vector, *frames)]
        bad = jnp.where(jnp.all(jnp.stack(is_good)), -1, 0).astype(jnp.int32)
        return _Carry(
            point=_Point(zero, vector, frames, bad, zeros[0] if vector.size == 1 else None),
            block=zero if self.plan.transient else zero + 1,
            place=zero,
            tally=nothing,
            # float64 has digits enough for the sum over a block
            compensation=nothing if zeros.dtype == jnp.float32 else None,
            blocks=jax.tree.map(
                lambda x: jnp.broadcast_to(x, (self.plan.num_blocks + 1, *x.shape)), nothing
            ),
            spent=zeros,
            overspent=zero - 1,
        )

    def block_end(self, carry: _Carry) -> Int[Array, ""]:
        """The length of the present block, as in `block_lengths`."""
        base, longer = divmod(self.plan.num_steps, self.plan.num_blocks)
        is_longer = (carry.block <= longer).astype(jnp.int32)
        return jnp.where(carry.block == 0, self.plan.transient, base + is_longer)

    def push(self, push: Push, point: _Point, input: PyTree) -> _Point:
        """One step of state and frames."""
        vector, frames = push(input, point.vector, point.frames)
        step = point.step + 1
        bad = ~jnp.all(jnp.isfinite(vector)) & (point.first_bad_step < 0)
        hidden = point.hidden
        if hidden is not None:
            hidden = hidden + is_hidden(push, point.vector, point.frames, input, frames)
        return _Point(step, vector, frames, jnp.where(bad, step, point.first_bad_step), hidden)

    def divide_out(self, frames: Frames, every, last) -> tuple[Frames, Tally]:
        """One orthonormalization of every block and what it adds."""

        def one(frame):
            if frame.ndim == 1:  # a diagonal block: logarithms, exact
                nothing = jnp.zeros_like(frame)
                return nothing, Tally(frame, nothing, nothing)
            out = orthonormalize(orthonormalizer_of(self.orthonormalizer, frame), frame, exact=last)
            # What one step maps to zero is zero exactly; over several steps it may have underflowed.
            is_zero = jnp.isneginf(out.log_growth) & (every == 1)
            error = jnp.where(is_zero, 0, jnp.minimum(rounding_of(frame) / out.share, 1.0))
            return out.columns, Tally(out.log_growth, error, lost(out).astype(error.dtype))

        columns, tallies = zip(*map(one, frames), strict=True)
        return columns, jax.tree.map(lambda *parts: jnp.concatenate(parts), *tallies)

    def record(self, carry: _Carry, point: _Point, place: Array, term: Tally, last) -> _Carry:
        """Add what was divided out at a point to the sums; the block is complete if it is the `last`."""
        if point.hidden is not None:
            # What is exactly zero is not hidden.
            counted = jnp.where(jnp.isneginf(term.log_growth), term.unresolved, point.hidden)
            term = term._replace(unresolved=counted)
            point = point._replace(hidden=jnp.zeros_like(point.hidden))
        tally, compensation = add_compensated(
            carry.tally, carry.compensation, term, restart=carry.place == 0
        )
        blocks = jax.tree.map(
            lambda rows, row: jax.lax.dynamic_update_index_in_dim(rows, row, carry.block, 0),
            carry.blocks,
            tally,
        )
        bad = ~jnp.all(term.log_growth < jnp.inf) & (point.first_bad_step < 0)
        spent = carry.spent + jnp.where(carry.block == 0, 0, term.rounding_error)
        too_much = jnp.any(spent > self.plan.num_steps * tolerable_error(spent.dtype))
        return _Carry(
            point._replace(first_bad_step=jnp.where(bad, point.step, point.first_bad_step)),
            block=carry.block + last.astype(jnp.int32),
            place=jnp.where(last, 0, place),
            tally=tally,
            compensation=compensation,
            blocks=blocks,
            spent=spent,
            overspent=jnp.where(too_much & (carry.overspent < 0), point.step, carry.overspent),
        )

    def affordable(self, carry: _Carry, every, patience: int) -> Bool[Array, ""]:
        """Whether rounding left enough of a whole batch until `patience` steps ago. A diverged member has no say, and
        one that overspends because it is about to diverge does so before the patience ends."""
        late = (carry.overspent >= 0) & (carry.point.step >= carry.overspent + patience)
        return batch_all(~late | (carry.point.first_bad_step >= 0) | (every == 1))


def _by_interval(loop: Loop, push: Push, start: _Carry, inputs: PyTree, every) -> _Carry:
    total = loop.plan.transient + loop.plan.num_steps

    def unfinished(carry):
        more = carry.point.step < total
        return more & loop.affordable(carry, every, PATIENCE) if loop.restart else more

    def step(point):
        input = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, point.step, keepdims=False), inputs
        )
        return loop.push(push, point, input)

    def interval(carry):
        end = loop.block_end(carry)
        place = jnp.minimum(carry.place + every, end)
        stop = carry.point.step + place - carry.place
        point = jax.lax.while_loop(lambda point: point.step < stop, step, carry.point)
        last = place == end
        frames, term = loop.divide_out(point.frames, every, last)
        return loop.record(carry, point._replace(frames=frames), place, term, last)

    return jax.lax.while_loop(unfinished, interval, start)


def _by_step(loop: Loop, push: Push, start: _Carry, inputs: PyTree, every) -> _Carry:
    def body(carry, input):
        point, place = loop.push(push, carry.point, input), carry.place + 1
        last = place == loop.block_end(carry)

        def divide_out(frames):
            return loop.divide_out(frames, every, last)

        def leave(frames):
            return frames, start.tally

        due = (place % every == 0) | last
        always = isinstance(every, int) and every == 1
        frames, term = (
            divide_out(point.frames)
            if always
            else jax.lax.cond(due, divide_out, leave, point.frames)
        )
        return loop.record(carry, point._replace(frames=frames), place, term, last)

    def detach(carry):
        return carry._replace(point=jax.lax.stop_gradient(carry.point))

    total = loop.plan.transient + loop.plan.num_steps
    return loop.adjoint.loop(body, start, inputs, total, detach)


@eqx.filter_custom_jvp
def _run(arguments, *, loop: Loop):
    frames = arguments[1].point.frames
    out = call_in_cache(lambda *args: _attempts(loop, *args), arguments, frames)
    return alike(out, arguments)


def _attempts(loop: Loop, push: Push, start: _Carry, inputs: PyTree, every):
    if not loop.restart:
        return _by_interval(loop, push, start, inputs, every), jnp.asarray(every, jnp.int32)

    def attempt(state):
        _, every, _ = state
        carry = _by_interval(loop, push, start, inputs, every)
        good = loop.affordable(carry, every, 0)
        # The error grows exponentially with the interval: a far too long one is noticed soon, and a little
        # too long one needs only a little less.
        return carry, jnp.where(good, every, jnp.maximum(3 * every // 4, 1)), ~good

    again = start.point.step >= 0
    carry, every, _ = jax.lax.while_loop(lambda state: state[2], attempt, (start, every, again))
    return carry, every


@_run.def_jvp
def _run_jvp(primals, tangents, *, loop: Loop):
    def run(arguments):
        push, start, inputs, every = arguments
        # What a pilot saves, a branch at each step costs again in reverse mode.
        every = 1 if loop.restart or loop.adjoint.cuts else every
        return _by_step(loop, push, start, inputs, every), jnp.asarray(every, jnp.int32)

    return alike(eqx.filter_jvp(run, primals, tangents), primals)
