"""The loop behind a spectrum: push the frame, orthonormalize it now and then, sum the logarithms."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ._adjoint import Adjoint
from ._cell import check_count, is_traced
from ._orthonormalize import Orthonormalizer, default_orthonormalizer, lost, orthonormalize
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


class _Carry(NamedTuple):
    step: Int[Array, ""]
    block: Int[Array, ""]  # 0 is the transient
    place: Int[Array, ""]  # steps done in the block
    vector: Float[Array, " d"]
    frame: Float[Array, "d k"]
    tally: Tally  # of the present block
    compensation: Tally | None
    blocks: Tally  # the tally of the transient, then those of the blocks
    first_bad_step: Int[Array, ""]


def _interval(every) -> int | Int[Array, ""] | np.ndarray:
    # An array is traced, the number 1 is static: it needs no branch at every step. NumPy's arrays do
    # not start a JAX backend when they are made at import.
    if eqx.is_array(every):
        if every.shape != () or not jnp.issubdtype(every.dtype, jnp.integer):
            raise TypeError(f"every must be one integer, got {every.dtype}{list(every.shape)}.")
        if not is_traced(every):
            check_count("every", every, 1)
        return every
    every = check_count("every", every, 1)
    return every if every == 1 else np.asarray(every, np.int32)


class SequentialQR(eqx.Module):
    """Step by step, with an orthonormalization after every `every` steps and at the end of each block.

    **Arguments:**

    - `every`: the interval in steps. It is traced: changing it compiles nothing, except from 1 to more, since
        `every=1` is a faster program of its own (`every=jnp.array(1)` is not). A long interval is exact
        as long as the growth rates it spreads apart stay within the digits of the dtype; beyond that the
        lower exponents are rounding noise, and the run ends with `RESULTS.interval_too_long`.
    - `orthonormalizer`: `Householder()`, `Cholesky()`, `GramSchmidt()` or `Panels()`; chosen from k if `None`.

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980); Geist, Parlitz & Lauterborn,
    Prog. Theor. Phys. 83 (1990).
    """

    every: int | Int[Array, ""] | np.ndarray = eqx.field(converter=_interval, default=1)
    orthonormalizer: Orthonormalizer | None = None

    def run(
        self,
        push: Push,
        vector: Float[Array, " d"],
        frame: Float[Array, "d k"],
        inputs: PyTree,
        plan: Plan,
        adjoint: Adjoint,
    ) -> Growth:
        """The whole run from an orthonormal frame. Cost per step: one push, O(d^2 k), and 1/every
        orthonormalizations, O(d k^2)."""
        orthonormalizer = self.orthonormalizer or default_orthonormalizer(frame.shape[1])
        # Rounding in a column is about this fraction of the largest |z_j|; what is left of it is R_ii.
        rounding = float(jnp.finfo(frame.dtype).eps) * frame.shape[0] ** 0.5
        base, longer = divmod(plan.num_steps, plan.num_blocks)  # as in `block_lengths`
        # Built from the frame, so that under shard_map every part of the carry varies as it does.
        zeros = jnp.zeros_like(frame, shape=frame.shape[1])
        nothing = Tally(zeros, zeros, zeros)

        def divide_out(frame, last):
            out = orthonormalize(orthonormalizer, frame, exact=last)
            # What one step maps to zero is zero exactly; over several steps it may have underflowed.
            is_zero = jnp.isneginf(out.log_growth) & (self.every == 1)
            error = jnp.where(is_zero, 0, jnp.minimum(rounding / out.share, 1.0))
            return out.columns, Tally(out.log_growth, error, lost(out).astype(error.dtype))

        def leave(frame, last):
            return frame, nothing

        def body(carry: _Carry, input: PyTree) -> _Carry:
            length = jnp.where(carry.block == 0, plan.transient, base + (carry.block <= longer))
            place = carry.place + 1
            last = place == length
            vector, frame = push(input, carry.vector, carry.frame)
            if isinstance(self.every, int):
                frame, term = divide_out(frame, last)
            else:
                due = (place % self.every == 0) | last
                frame, term = jax.lax.cond(due, divide_out, leave, frame, last)
            tally, compensation = add_compensated(
                carry.tally, carry.compensation, term, restart=place == 1
            )
            step = carry.step + 1
            growth = term.log_growth
            bad = ~jnp.all(jnp.isfinite(vector)) | ~jnp.all(growth < jnp.inf)
            blocks = jax.tree.map(
                lambda rows, row: jax.lax.dynamic_update_index_in_dim(rows, row, carry.block, 0),
                carry.blocks,
                tally,
            )
            return _Carry(
                step,
                carry.block + last,
                jnp.where(last, 0, place),
                vector,
                frame,
                tally,
                compensation,
                blocks,
                jnp.where(bad & (carry.first_bad_step < 0), step, carry.first_bad_step),
            )

        start_is_bad = ~(jnp.all(jnp.isfinite(vector)) & jnp.all(jnp.isfinite(frame)))
        carry = _Carry(
            step=jnp.asarray(0, jnp.int32),
            block=jnp.asarray(0 if plan.transient else 1, jnp.int32),
            place=jnp.asarray(0, jnp.int32),
            vector=vector,
            frame=frame,
            tally=nothing,
            # float64 has digits enough for the sum over a block
            compensation=nothing if frame.dtype == jnp.float32 else None,
            blocks=jax.tree.map(
                lambda x: jnp.broadcast_to(x, (plan.num_blocks + 1, *x.shape)), nothing
            ),
            first_bad_step=jnp.where(start_is_bad, 0, -1).astype(jnp.int32),
        )
        carry = adjoint.loop(body, carry, inputs, plan.transient + plan.num_steps)
        blocks = jax.tree.map(lambda rows: rows[1:], carry.blocks)
        return Growth(carry.vector, carry.frame, blocks, carry.first_bad_step)
