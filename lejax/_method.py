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
from ._statistics import add_compensated, locate_block
from ._tangent import Push


class Plan(NamedTuple):
    """The static shape of a run: what is skipped, what is counted, in how many blocks."""

    transient: int
    num_steps: int
    num_blocks: int


class Growth(NamedTuple):
    """What a run leaves behind."""

    vector: Float[Array, " d"]
    frame: Float[Array, "d k"]
    log_growth: Float[Array, "b k"]  # summed over each block
    unresolved: Int[Array, " k"]
    rounding_error: Float[Array, " k"]  # summed over the counted steps
    first_bad_step: Int[Array, ""]


class _Carry(NamedTuple):
    step: Int[Array, ""]
    vector: Float[Array, " d"]
    frame: Float[Array, "d k"]
    total: Float[Array, " k"]
    compensation: Float[Array, " k"]
    blocks: Float[Array, "b+1 k"]
    unresolved: Int[Array, " k"]
    rounding_error: Float[Array, " k"]
    first_bad_step: Int[Array, ""]


def _interval(every) -> Int[Array, ""] | np.ndarray:
    # NumPy on the host, so that a default argument does not start a JAX backend at import.
    if eqx.is_array(every):
        if every.shape != () or not jnp.issubdtype(every.dtype, jnp.integer):
            raise TypeError(f"every must be one integer, got {every.dtype}{list(every.shape)}.")
        if not is_traced(every):
            check_count("every", every, 1)
        return every
    return np.asarray(check_count("every", every, 1), np.int32)


class SequentialQR(eqx.Module):
    """Step by step, with an orthonormalization after every `every` steps and at the end of each block.

    **Arguments:**

    - `every`: the interval in steps. It is traced: changing it compiles nothing. A long interval is exact
        as long as the growth rates it spreads apart stay within the digits of the dtype; beyond that the
        lower exponents are rounding noise, and the run ends with `RESULTS.interval_too_long`.
    - `orthonormalizer`: `Householder()`, `Cholesky()` or `GramSchmidt()`; chosen from k if `None`.

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980); Geist, Parlitz & Lauterborn,
    Prog. Theor. Phys. 83 (1990).
    """

    every: Int[Array, ""] | np.ndarray = eqx.field(converter=_interval, default=1)
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
        num_exponents = frame.shape[1]
        # Built from the frame, so that under shard_map every part of the carry varies as it does.
        nothing = jnp.zeros_like(frame[0])

        # Rounding in a column is about this fraction of the largest |z_j|; what is left of it is R_ii.
        rounding = float(jnp.finfo(frame.dtype).eps) * frame.shape[0] ** 0.5

        def divide_out(frame, last):
            out = orthonormalize(orthonormalizer, frame, exact=last)
            is_zero = jnp.isneginf(out.log_growth)  # exactly, so without error
            error = jnp.where(is_zero, 0, jnp.minimum(rounding / out.share, 1.0))
            return out.columns, out.log_growth, lost(out), jax.lax.stop_gradient(error)

        def leave(frame, last):
            return frame, nothing, nothing != 0, nothing

        def body(carry: _Carry, input: PyTree) -> _Carry:
            counted = carry.step >= plan.transient
            block, place, last = locate_block(
                carry.step - plan.transient, plan.num_steps, plan.num_blocks
            )
            block = jnp.where(counted, block, plan.num_blocks)
            place = jnp.where(counted, place, carry.step)
            last = jnp.where(counted, last, carry.step == plan.transient - 1)
            due = ((place + 1) % self.every == 0) | last

            vector, frame = push(input, carry.vector, carry.frame)
            frame, log_growth, is_lost, error = jax.lax.cond(due, divide_out, leave, frame, last)
            fresh = place == 0
            total, compensation = add_compensated(
                jnp.where(fresh, 0, carry.total),
                jnp.where(fresh, 0, carry.compensation),
                log_growth,
            )
            step = carry.step + 1
            bad = ~jnp.all(jnp.isfinite(vector)) | jnp.any(
                jnp.isnan(log_growth) | jnp.isposinf(log_growth)
            )
            return _Carry(
                step,
                vector,
                frame,
                total,
                compensation,
                carry.blocks.at[block].set(total),
                carry.unresolved + (is_lost & counted),
                carry.rounding_error + jnp.where(counted, error, 0),
                jnp.where(bad & (carry.first_bad_step < 0), step, carry.first_bad_step),
            )

        start_is_bad = ~(jnp.all(jnp.isfinite(vector)) & jnp.all(jnp.isfinite(frame)))
        carry = _Carry(
            step=jnp.asarray(0, jnp.int32),
            vector=vector,
            frame=frame,
            total=nothing,
            compensation=nothing,
            blocks=jnp.broadcast_to(nothing, (plan.num_blocks + 1, num_exponents)),
            unresolved=jnp.zeros_like(nothing, jnp.int32),
            rounding_error=nothing,
            first_bad_step=jnp.where(start_is_bad, 0, -1).astype(jnp.int32),
        )
        carry = adjoint.loop(body, carry, inputs, plan.transient + plan.num_steps)
        return Growth(
            carry.vector,
            carry.frame,
            carry.blocks[:-1],
            carry.unresolved,
            carry.rounding_error,
            carry.first_bad_step,
        )
