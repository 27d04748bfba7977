"""The report of a run from the sums of its blocks: exponents, standard errors and status."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from scipy.special import stdtr, stdtrit

from .._core.closures import compiled
from .._core.statistics import estimate_error, weighted_mean
from .._core.status import RESULTS
from .._engine.interval import tolerable_error
from .report import Diagnostics, LyapunovSpectrum


@compiled
def summarize(
    block_exponents: Float[Array, "b k"],
    block_steps: Int[Array, " b"],
    diagnostics: Diagnostics,
    *,
    state: PyTree,
    frame: Float[Array, "d k"],
    num_steps: Int[Array, ""],
    dt: Float[Array, ""],
    are_together: Bool[Array, "k k"] | Bool[Array, ""],
) -> LyapunovSpectrum:
    """The report of the blocks; `are_together` marks pairs of directions in one frame, whose exponents must descend."""
    weights = block_steps.astype(block_exponents.dtype)
    exponents = weighted_mean(block_exponents, weights)
    errors, grows = estimate_error(block_exponents, weights)
    duration = num_steps.astype(dt.dtype) * dt
    ascend = _do_ascend(exponents * duration, errors * duration, len(block_steps), are_together)
    return LyapunovSpectrum(
        exponents=exponents,
        standard_error=errors,
        error_grows=grows,
        block_exponents=block_exponents,
        block_steps=block_steps,
        state=state,
        frame=frame,
        num_steps=num_steps,
        dt=dt,
        diagnostics=diagnostics,
        result=status_of(diagnostics, dt, errors, ascend),
    )


def status_of(
    diagnostics: Diagnostics,
    dt: Float[Array, ""],
    errors: Float[Array, " k"],
    ascend: Bool[Array, ""] | bool,
) -> RESULTS:
    """The status of a run; a later test overrides the earlier ones."""
    # Compare bias and error of all exponents together: single exponents of a dense spectrum change their order at any
    # overlap.
    is_finite = jnp.isfinite(errors)
    bias, error = (
        jnp.sum(jnp.where(is_finite, x, 0) ** 2) for x in (diagnostics.overlap_bias, errors)
    )
    per_step = diagnostics.avoidable_error * dt
    result = RESULTS.where(ascend, RESULTS.exponents_ascend, RESULTS.successful)
    result = RESULTS.where(bias > 4 * error, RESULTS.overlap_too_short, result)
    too_long = jnp.any(per_step > tolerable_error(per_step.dtype))
    result = RESULTS.where(too_long, RESULTS.interval_too_long, result)
    return RESULTS.where(diagnostics.first_bad_step >= 0, RESULTS.nonfinite, result)


def _do_ascend(
    growth: Float[Array, " k"],
    errors: Float[Array, " k"],
    num_blocks: int,
    are_together: Bool[Array, "k k"] | Bool[Array, ""],
) -> Bool[Array, ""]:
    """Whether exponents of directions in one frame ascend by more than chance explains.

    `growth` and `errors` are the sums of log R_ii over the run and their standard errors. Chance explains four standard
    errors, or an equally rare excess where few blocks make the errors uncertain. While a random frame aligns it adds to
    the sums a contribution that does not grow with the run: log(100 k / eps) is allowed for it.
    """
    # The quantile of Student's t distribution that is 4 for 20 blocks.
    quantile = float(stdtrit(max(num_blocks - 1, 1), stdtr(19, 4.0)))
    allowed = float(np.log(100 * growth.size / jnp.finfo(growth.dtype).eps))
    lead = growth[None] - growth[:, None]  # of direction j over direction i
    errors = jnp.sqrt(errors[None] ** 2 + errors[:, None] ** 2)
    counts = jnp.triu(are_together & jnp.isfinite(lead), 1)
    return jnp.any(counts & (lead > quantile * errors + allowed))


def share_rows(frame: Float[Array, "d k"]) -> Bool[Array, "k k"]:
    """Which pairs of columns are both non-zero in some row, so that they lie in one block."""
    support = (frame != 0).astype(jnp.float32)
    with jax.default_matmul_precision("highest"):
        return support.T @ support > 0
