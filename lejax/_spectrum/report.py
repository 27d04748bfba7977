"""The report of a run: `LyapunovSpectrum` with its `Diagnostics`, and the error raised for a failed one."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.cell import Cell, is_traced
from .._core.status import RESULTS, raise_failure
from .picture import spectrum_html
from .table import spectrum_text


class Diagnostics(eqx.Module):
    """The rounding errors of a run, its QR intervals, and where it became non-finite; k exponents.

    Errors are in the units of the exponents.

    **Fields:**

    - `unresolved`: (k,), the number of orthonormalizations at which the direction was below floating-point
        resolution. From the first index i with `unresolved[i] > 0`, exponents are upper bounds (or -inf, where a
        direction was mapped exactly to zero). The size of a column is compared with that of the others. A state of one
        number has a single slope: it is compared with its own change over 4 units in the last place of the state
        (`SequentialQR` only), so that superstable cycles are found.
    - `rounding_error`: (k,), an estimate of the exponents' error from floating point, from the R factors: the mean
        over the run of eps max_j |z_j| / R_ii. It is not a bound. Where the directions of one hidden layer overlap
        those of another, neighboring exponents may exchange more, while their sum does not change. Badly conditioned
        steps cost more (up to thirty times the estimate was seen, and up to 240 times in float32 in the last exponents
        before many lost directions).
    - `avoidable_error`: (k,), the part of `rounding_error` caused by a prescribed interval of several steps: shorter
        intervals would avoid it; 0 where the interval adapts. Above 1e-8 nats per step (1e-4 in float32) the run ends
        with `RESULTS.interval_too_long`.
    - `overlap_bias`: (k,), the exponents' possible error from frames that disagree where chunks meet; 0 except with
        `ParallelQR`.
    - `num_orthonormalizations`: (), in the counted steps; `num_steps` over it is the mean interval.
    - `longest_interval`: (), the largest number of steps between two orthonormalizations.
    - `first_bad_step`: (), the first t, transient included, at which h_t or the tangent is not finite; 0 is the
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
    """The report of a run; d numbers in the state, k exponents, b blocks. `print` shows it as a table.

    Exponents are in nats per step, or per unit time where the run had a `dt`. They have the order of the frame's
    columns: descending up to their errors.

    **Fields:**

    - `exponents`: (k,), the mean growth rates.
    - `standard_error`: (k,), from the spread of the block means. Blocks are joined in pairs, down to 4, as long as
        that makes the error larger by more than its own uncertainty, so that autocorrelation counts. NaN with
        fewer than 2 blocks and for infinite exponents.
    - `error_grows`: (k,), whether the error still grew with the longest blocks, or neighboring blocks resemble each
        other: then `standard_error` is a lower bound, and the run too short for the memory of its dynamics. It is set
        by chance for 3 % of independent blocks, and never for fewer than 7 blocks.
    - `block_exponents`: (b, k), finite-time exponents of consecutive blocks.
    - `block_steps`: (b,), the number of steps in each block; blocks of one run differ by at most one step.
    - `state`: the state at the end of the run.
    - `frame`: (d, k), the orthonormal frame at the end of the run; pass it with `state` to continue the run. For a
        `BlockTriangularCell` it is in the coordinates of the blocks, one block after the other: it holds the k
        directions that grew fastest so far, and a continued run keeps to these.
    - `num_steps`: (), the counted steps.
    - `dt`: (), the duration of a step.
    - `diagnostics`: the `Diagnostics`: rounding errors, QR intervals, and the first non-finite step.
    - `result`: `RESULTS.successful`, `nonfinite`, `interval_too_long`, `overlap_too_short` or `exponents_ascend`.
        The last is never set for a run with a `frame` of its own, whose columns may have any order.
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

    def __str__(self) -> str:
        """The table, or Equinox's `repr` if the fields hold no values."""
        return self._described_by(spectrum_text) or repr(self)

    def _repr_html_(self) -> str | None:
        """The table and a picture; `None`, for which notebooks show `repr`, if the fields hold no values."""
        return self._described_by(spectrum_html)

    def _described_by(self, describe: Callable[["LyapunovSpectrum"], str]) -> str | None:
        if is_traced(self):
            return None
        try:
            return describe(self)
        except Exception:  # printing must not raise, whatever the fields hold
            return None


def are_resolved(spectrum: LyapunovSpectrum) -> Bool[Array, " k"]:
    """Which exponents precede the first lost direction."""
    lost = (spectrum.diagnostics.unresolved > 0) | jnp.isneginf(spectrum.exponents)
    return jax.lax.cummax(lost.astype(jnp.int32)) == 0


def raise_on_failure(spectrum: LyapunovSpectrum, cell: Cell, state: PyTree, inputs: PyTree) -> None:
    """Raise a `RuntimeError` that says where the run failed, if the result has a value and is a failure."""
    if is_traced(spectrum):
        return
    if bool(spectrum.result == RESULTS.successful):
        return
    diagnostics = spectrum.diagnostics
    if bool(spectrum.result == RESULTS.nonfinite):
        detail = f" It happened at step {int(diagnostics.first_bad_step)}."
    elif bool(spectrum.result == RESULTS.overlap_too_short):
        worst = float(jnp.max(diagnostics.overlap_bias))
        detail = f" Here the estimated bias is up to {worst:.1e}."
    elif bool(spectrum.result == RESULTS.exponents_ascend):
        exponents = np.asarray(spectrum.exponents)
        ahead = np.where(np.isfinite(exponents), exponents, -np.inf)
        last = int(
            np.argmax(ahead - np.minimum.accumulate(np.nan_to_num(exponents, neginf=np.inf)))
        )
        detail = f" Here exponent {last} is {exponents[last]:.3g}, above one before it."
    else:
        worst = float(jnp.max(diagnostics.rounding_error))
        steps = int(diagnostics.longest_interval)
        detail = f" Here up to {steps} steps are between two, and the estimated error is up to {worst:.1e}."
    raise_failure(spectrum.result, cell, state, inputs, detail)
