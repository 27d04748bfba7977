"""The report of a run: what sums over its steps say of exponents, errors and digits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from scipy.special import stdtr, stdtrit

from .._core.cell import Cell, is_traced
from .._core.closures import compiled
from .._core.divergence import advice_on_divergence
from .._core.statistics import estimate_error, weighted_mean
from .._core.status import RESULTS
from .._engine.interval import tolerable_error


class Diagnostics(eqx.Module):
    """What floating point and the method did to a run; errors in the units of its exponents.

    **Fields:**

    - `unresolved` (k,): Orthonormalizations at which the direction was below floating-point resolution. From the
        first one where it is not 0 the exponents are upper bounds (or -inf, where a direction was mapped exactly
        to zero). Columns are compared with each other; the slope of a state of one number, which has none to
        compare with, with its change over 4 units in the last place of the state (not by `ParallelQR`): so
        superstable cycles are found.
    - `rounding_error` (k,): An estimate of the exponents' error from floating point, by the R factors: the mean
        over the run of eps max_j |z_j| / R_ii. It is no bound: where the directions of one hidden layer overlap
        those of another, neighbors may exchange more, their sum does not, and badly conditioned steps cost more
        (up to thirty times the estimate was seen).
    - `avoidable_error` (k,): The part of it that comes from intervals of several steps that were asked for:
        shorter ones would have spared it.
    - `overlap_bias` (k,): The exponents' possible error from frames that do not agree where chunks meet; 0 but
        for `ParallelQR`.
    - `num_orthonormalizations`: In counted steps; `num_steps` over it is the mean interval.
    - `longest_interval`: The most steps between two of them.
    - `first_bad_step`: The first t, transient included, at which h_t or the tangent is not finite; 0 is the
        start, -1 is never.
    """

    unresolved: Int[Array, " k"]
    rounding_error: Float[Array, " k"]
    avoidable_error: Float[Array, " k"]
    overlap_bias: Float[Array, " k"]
    num_orthonormalizations: Int[Array, ""]
    longest_interval: Int[Array, ""]
    first_bad_step: Int[Array, ""]


class LyapunovSpectrum(eqx.Module):
    """The report of a run; d numbers in the state, k exponents, b blocks.

    Exponents are in nats per step, or per unit time where the run had a `dt`. They stand in the order of
    the frame's columns: descending up to their errors.

    **Fields:**

    - `exponents` (k,): The mean growth rates.
    - `standard_error` (k,): From the spread of the block means. Blocks are joined in pairs, down to 4, as long as
        that makes the error larger by more than its own uncertainty, so that autocorrelation counts. NaN with
        fewer than 2 blocks and for infinite exponents.
    - `error_grows` (k,): Whether the error had not stopped growing with the longest blocks, or neighboring blocks
        still resemble each other: then `standard_error` is a lower bound, and the run too short for the memory of
        its dynamics. Of independent blocks 3 % say so by chance; never said of fewer than 7.
    - `block_exponents` (b, k): Finite-time exponents of consecutive blocks.
    - `block_steps` (b,): The number of steps in each block; blocks differ by at most one step until runs are
        combined.
    - `state`: The state where the run stopped.
    - `frame` (d, k): The orthonormal frame where the run stopped; hand it back in with `state` to continue. For a
        `BlockTriangularCell` in the coordinates of its blocks, one block after the other: it holds the k
        directions that grew fastest so far, and a run that continues follows these.
    - `num_steps`: Counted steps.
    - `dt`: The duration of a step.
    - `diagnostics`: Digits lost, intervals taken, where it left the floats.
    - `result`: `RESULTS.successful`, `nonfinite`, `interval_too_long`, `overlap_too_short` or `exponents_ascend`;
        the last not of a run with a `frame` of its own, whose columns may stand in any order.
    """

    exponents: Float[Array, " k"]
    standard_error: Float[Array, " k"]
    error_grows: Bool[Array, " k"]
    block_exponents: Float[Array, "b k"]
    block_steps: Int[Array, " b"]
    state: PyTree
    frame: Float[Array, "d k"]
    num_steps: Int[Array, ""]
    dt: Float[Array, ""]
    diagnostics: Diagnostics
    result: RESULTS


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
    """The report of blocks; `are_together` says which directions belong to one frame, so that they must not ascend."""
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
        result=judge(diagnostics, dt, errors, ascend),
    )


def judge(
    diagnostics: Diagnostics,
    dt: Float[Array, ""],
    errors: Float[Array, " k"],
    ascend: Bool[Array, ""] | bool,
) -> RESULTS:
    """The status of a run."""
    # Of all exponents together: those of a dense spectrum exchange their places whatever the overlap.
    known = jnp.isfinite(errors)
    bias, error = (jnp.sum(jnp.where(known, x, 0) ** 2) for x in (diagnostics.overlap_bias, errors))
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
    is_one: Bool[Array, "k k"] | Bool[Array, ""],
) -> Bool[Array, ""]:
    """Whether exponents of directions that belong to one frame ascend by more than chance explains, from the sums of logarithms over
    the whole run and their standard errors.

    Four standard errors, or as rare an excess where few blocks make the errors uncertain. What a random frame that turns
    into its place leaves in the sums does not grow with the run: about a hundred eps^-1 of it are allowed for, in logarithms.
    """
    # The quantile of Student's distribution that is four for 20 blocks.
    quantile = float(stdtrit(max(num_blocks - 1, 1), stdtr(19, 4.0)))
    allowed = float(np.log(100 * growth.size / jnp.finfo(growth.dtype).eps))
    ahead = growth[None] - growth[:, None]  # of i by j
    joint = jnp.sqrt(errors[None] ** 2 + errors[:, None] ** 2)
    counts = jnp.triu(is_one & jnp.isfinite(ahead), 1)
    return jnp.any(counts & (ahead > quantile * joint + allowed))


def share_rows(frame: Float[Array, "d k"]) -> Bool[Array, "k k"]:
    """Which columns of a report's frame are no zeros at the same place, so that they lie in one block."""
    support = (frame != 0).astype(jnp.float32)
    with jax.default_matmul_precision("highest"):
        return support.T @ support > 0


def raise_on_failure(spectrum: LyapunovSpectrum, cell: Cell, state: PyTree, inputs: PyTree) -> None:
    """Raise a `RuntimeError` that says what went wrong and where, if the result is known and failed."""
    if is_traced(spectrum):
        return
    if bool(spectrum.result == RESULTS.successful):
        return
    message = RESULTS[spectrum.result]
    if bool(spectrum.result == RESULTS.nonfinite):
        message += f" It happened at step {int(spectrum.diagnostics.first_bad_step)}."
        message += advice_on_divergence(cell, state, inputs)
    elif bool(spectrum.result == RESULTS.overlap_too_short):
        worst = float(jnp.max(spectrum.diagnostics.overlap_bias))
        message += f" Here the estimated bias is up to {worst:.1e}."
    elif bool(spectrum.result == RESULTS.exponents_ascend):
        exponents = np.asarray(spectrum.exponents)
        ahead = np.where(np.isfinite(exponents), exponents, -np.inf)
        last = int(
            np.argmax(ahead - np.minimum.accumulate(np.nan_to_num(exponents, neginf=np.inf)))
        )
        message += f" Here exponent {last} is {exponents[last]:.3g}, above one before it."
    else:
        worst = float(jnp.max(spectrum.diagnostics.rounding_error))
        steps = int(spectrum.diagnostics.longest_interval)
        message += (
            f" Here up to {steps} lie between two, and the estimated error is up to {worst:.1e}."
        )
    raise RuntimeError(f"{message} Pass throw=False to receive the result all the same.")
