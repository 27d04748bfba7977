"""The loop behind a spectrum: push the frame, orthonormalize it now and then, sum the logarithms."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._adjoint import Adjoint
from ._batch import batch_all
from ._orthonormalize import Orthonormalizer, lost, orthonormalize
from ._statistics import add_compensated
from ._tangent import Push


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
    frame: Float[Array, "d k"]
    blocks: Tally  # (b, k)
    first_bad_step: Int[Array, ""]
    every: Int[Array, ""]
    overlap_bias: Float[Array, " k"]


class _Carry(NamedTuple):
    step: Int[Array, ""]
    block: Int[Array, ""]  # 0 is the transient
    place: Int[Array, ""]  # steps done in the block
    vector: Float[Array, " d"]
    frame: Float[Array, "d k"]
    tally: Tally  # of the present block
    compensation: Tally | None
    blocks: Tally  # the tally of the transient, then those of the blocks
    spent: Float[Array, " k"]  # the rounding error of all counted steps
    first_bad_step: Int[Array, ""]


def tolerable_error(dtype: jnp.dtype) -> float:
    """The error in nats per step that rounding may cost a run whose interval is longer than 1."""
    return {jnp.dtype("float32"): 1e-4, jnp.dtype("float64"): 1e-8}[jnp.dtype(dtype)]


def rounding_of(frame: Float[Array, "d k"]) -> float:
    """Rounding in a column is about this fraction of the largest |z_j|; what is left of it is R_ii."""
    return float(jnp.finfo(frame.dtype).eps)


class Loop(eqx.Module):
    """A run from a state and an orthonormal frame, with an orthonormalization after every `every` steps and at
    the end of each block.

    Values come from nested loops over intervals and their steps, which cost nothing per step but the push.
    Derivatives come from one loop over all steps, which has a length that reverse mode knows.
    """

    plan: Plan = eqx.field(static=True)
    orthonormalizer: Orthonormalizer
    adjoint: Adjoint
    restart: bool = eqx.field(static=True)
    """Whether a run that rounding spoils starts again with a shorter interval."""

    def __call__(
        self,
        push: Push,
        vector: Float[Array, " d"],
        frame: Float[Array, "d k"],
        inputs: PyTree,
        every: int | np.ndarray | Int[Array, ""],
    ) -> Growth:
        start = self._start(vector, frame)
        carry, used = _run((push, start, inputs, every), loop=self)
        blocks = jax.tree.map(lambda rows: rows[1:], carry.blocks)
        nothing = jnp.zeros_like(carry.spent)
        return Growth(
            carry.vector, carry.frame, blocks, carry.first_bad_step, used, overlap_bias=nothing
        )

    def _start(self, vector, frame) -> _Carry:
        # Built from the frame, so that under shard_map every part of the carry varies as it does.
        zeros = jnp.zeros_like(frame, shape=frame.shape[1])
        nothing = Tally(zeros, zeros, zeros)
        zero = jnp.zeros_like(frame, shape=(), dtype=jnp.int32)
        is_bad = ~(jnp.all(jnp.isfinite(vector)) & jnp.all(jnp.isfinite(frame)))
        return _Carry(
            step=zero,
            block=zero if self.plan.transient else zero + 1,
            place=zero,
            vector=vector,
            frame=frame,
            tally=nothing,
            # float64 has digits enough for the sum over a block
            compensation=nothing if frame.dtype == jnp.float32 else None,
            blocks=jax.tree.map(
                lambda x: jnp.broadcast_to(x, (self.plan.num_blocks + 1, *x.shape)), nothing
            ),
            spent=zeros,
            first_bad_step=jnp.where(is_bad, 0, -1).astype(jnp.int32),
        )

    def block_end(self, carry: _Carry) -> Int[Array, ""]:
        """The length of the present block, as in `block_lengths`."""
        base, longer = divmod(self.plan.num_steps, self.plan.num_blocks)
        return jnp.where(carry.block == 0, self.plan.transient, base + (carry.block <= longer))

    def push(self, push: Push, carry: _Carry, input: PyTree) -> _Carry:
        """One step of state and frame."""
        vector, frame = push(input, carry.vector, carry.frame)
        step = carry.step + 1
        bad = ~jnp.all(jnp.isfinite(vector)) & (carry.first_bad_step < 0)
        return carry._replace(
            step=step,
            place=carry.place + 1,
            vector=vector,
            frame=frame,
            first_bad_step=jnp.where(bad, step, carry.first_bad_step),
        )

    def divide_out(self, frame, every, last) -> tuple[Float[Array, "d k"], Tally]:
        """One orthonormalization and what it adds."""
        out = orthonormalize(self.orthonormalizer, frame, exact=last)
        # What one step maps to zero is zero exactly; over several steps it may have underflowed.
        is_zero = jnp.isneginf(out.log_growth) & (every == 1)
        error = jnp.where(is_zero, 0, jnp.minimum(rounding_of(frame) / out.share, 1.0))
        return out.columns, Tally(out.log_growth, error, lost(out).astype(error.dtype))

    def record(self, carry: _Carry, frame: Array, term: Tally, is_first, last) -> _Carry:
        """Add a term to the sums; the block is complete if it is the `last`."""
        tally, compensation = add_compensated(
            carry.tally, carry.compensation, term, restart=is_first
        )
        blocks = jax.tree.map(
            lambda rows, row: jax.lax.dynamic_update_index_in_dim(rows, row, carry.block, 0),
            carry.blocks,
            tally,
        )
        bad = ~jnp.all(term.log_growth < jnp.inf) & (carry.first_bad_step < 0)
        return carry._replace(
            block=carry.block + last,
            place=jnp.where(last, 0, carry.place),
            frame=frame,
            tally=tally,
            compensation=compensation,
            blocks=blocks,
            spent=carry.spent + jnp.where(carry.block == 0, 0, term.rounding_error),
            first_bad_step=jnp.where(bad, carry.step, carry.first_bad_step),
        )

    def affordable(self, carry: _Carry, every) -> Bool[Array, ""]:
        """Whether rounding has left enough of a whole batch so far. A diverged member has no say."""
        allowed = self.plan.num_steps * tolerable_error(carry.frame.dtype)
        fine = ~jnp.any(carry.spent > allowed) | (carry.first_bad_step >= 0)
        return batch_all(fine | (every == 1))


def _by_interval(loop: Loop, push: Push, start: _Carry, inputs: PyTree, every) -> _Carry:
    total = loop.plan.transient + loop.plan.num_steps

    def unfinished(carry):
        more = carry.step < total
        return more & loop.affordable(carry, every) if loop.restart else more

    def interval(carry):
        end = loop.block_end(carry)
        stop = jnp.minimum(carry.place + every, end)
        is_first = carry.place == 0

        def step(carry):
            input = jax.tree.map(
                lambda x: jax.lax.dynamic_index_in_dim(x, carry.step, keepdims=False), inputs
            )
            return loop.push(push, carry, input)

        carry = jax.lax.while_loop(lambda carry: carry.place < stop, step, carry)
        last = stop == end
        frame, term = loop.divide_out(carry.frame, every, last)
        return loop.record(carry, frame, term, is_first, last)

    return jax.lax.while_loop(unfinished, interval, start)


def _by_step(loop: Loop, push: Push, start: _Carry, inputs: PyTree, every) -> _Carry:
    def body(carry, input):
        is_first = carry.place == 0
        carry = loop.push(push, carry, input)
        last = carry.place == loop.block_end(carry)

        def divide_out(frame):
            return loop.divide_out(frame, every, last)

        def leave(frame):
            return frame, start.tally

        due = (carry.place % every == 0) | last
        always = isinstance(every, int) and every == 1
        frame, term = (
            divide_out(carry.frame) if always else jax.lax.cond(due, divide_out, leave, carry.frame)
        )
        return loop.record(carry, frame, term, is_first, last)

    def detach(carry):
        now = jax.lax.stop_gradient((carry.vector, carry.frame))
        return carry._replace(vector=now[0], frame=now[1])

    total = loop.plan.transient + loop.plan.num_steps
    return loop.adjoint.loop(body, start, inputs, total, detach)


@eqx.filter_custom_jvp
def _run(arguments, *, loop: Loop):
    arrays, rest = eqx.partition(arguments, eqx.is_array)

    def run(arrays):
        push, start, inputs, every = eqx.combine(arrays, rest)
        return _attempts(loop, push, start, inputs, every)

    frame = arguments[1].frame
    # On a CPU a batch of large frames leaves the cache: there they go one by one.
    if jax.default_backend() == "cpu" and frame.size >= 1024:
        run = _one_by_one(run)
    return run(arrays)


def _attempts(loop: Loop, push: Push, start: _Carry, inputs: PyTree, every):
    if not loop.restart:
        return _by_interval(loop, push, start, inputs, every), jnp.asarray(every, jnp.int32)

    def attempt(state):
        _, every, _ = state
        carry = _by_interval(loop, push, start, inputs, every)
        good = loop.affordable(carry, every)
        return carry, jnp.where(good, every, jnp.maximum(every // 4, 1)), ~good

    again = start.step >= 0
    carry, every, _ = jax.lax.while_loop(lambda state: state[2], attempt, (start, every, again))
    return carry, every


def _one_by_one(function):
    """The same function of a pytree of arrays, which a batch goes through one member after the other."""
    function = jax.custom_batching.custom_vmap(function)

    @function.def_vmap
    def map_over(_, is_batched, arrays):
        batched = jax.tree.map(lambda x, batched: x if batched else None, arrays, *is_batched)
        shared = jax.tree.map(lambda x, batched: None if batched else x, arrays, *is_batched)
        out = jax.lax.map(lambda member: function(eqx.combine(member, shared)), batched)
        return out, jax.tree.map(lambda _: True, out)

    return function


@_run.def_jvp
def _run_jvp(primals, tangents, *, loop: Loop):
    def run(arguments):
        push, start, inputs, every = arguments
        # What a pilot saves, a branch at each step costs again in reverse mode.
        every = 1 if loop.restart else every
        return _by_step(loop, push, start, inputs, every), jnp.asarray(every, jnp.int32)

    return eqx.filter_jvp(run, primals, tangents)
