"""`combine`: two consecutive runs as one."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_vector
from .._core.closures import compiled
from .._core.status import RESULTS
from .report import Diagnostics, LyapunovSpectrum
from .sums import share_rows, summarize


@checked
def combine(first: LyapunovSpectrum, second: LyapunovSpectrum) -> LyapunovSpectrum:
    r"""Two consecutive runs as one, with the blocks of both.

    $$\lambda_i = \frac{T_1 \lambda_i^{(1)} + T_2 \lambda_i^{(2)}}{T_1 + T_2}$$

    for runs of $T_1$ and $T_2$ counted steps, with standard errors from all blocks.

    **Arguments:**

    - `first`: the report of the first run.
    - `second`: the report of the second run, which was started from `first.state` and `first.frame` without a
        transient. It needs the same number of exponents and the same `dt`.

    **Returns:** a `LyapunovSpectrum` with the state and frame of `second`, equal to that of one long run up to
    rounding. Its blocks are those of both runs, its `result` is computed from both, and a `first_bad_step` of `second`
    is increased by the counted steps of `first`.

    **Raises:**

    - `ValueError`: if the runs differ in the number of exponents or in `dt`, or are batches.
    - `ValueError`: outside a trace, if a count exceeds 2**31 - 1 without `jax_enable_x64`.

    **Numerics:** counts are 64-bit integers with `jax_enable_x64`. Without it they are limited to 2**31 - 1, and a
    trace keeps that number for larger ones; exponents and errors stay correct.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> cat = lejax.systems.Cat()
        >>> a = lejax.lyapunov_spectrum(cat, jnp.array([0.1, 0.2]), num_steps=100)
        >>> b = lejax.lyapunov_spectrum(cat, a.state, num_steps=50, frame=a.frame)
        >>> int(lejax.combine(a, b).num_steps)
        150
    """
    for spectrum in (first, second):
        check_vector("spectrum.exponents", spectrum.exponents)
    if first.exponents.shape != second.exponents.shape:
        raise ValueError(
            "the runs have different numbers of exponents: "
            f"{first.exponents.shape[-1]} and {second.exponents.shape[-1]}."
        )
    if not is_traced((first.dt, second.dt)) and np.any(
        np.asarray(first.dt) != np.asarray(second.dt)
    ):
        raise ValueError(f"the runs have different dt: {first.dt} and {second.dt}.")
    for name, count, other in _counts(first, second):
        _check_sum(name, count, other)
    return _combine(first, second)


def _counts(first: LyapunovSpectrum, second: LyapunovSpectrum):
    """The counts that are added: name, count of the first run, count of the second run."""
    yield "num_steps", first.num_steps, second.num_steps
    for name in ("unresolved", "num_orthonormalizations"):
        yield name, getattr(first.diagnostics, name), getattr(second.diagnostics, name)
    yield "first_bad_step", first.num_steps, second.diagnostics.first_bad_step


@compiled
def _combine(first, second):
    ours, theirs = first.diagnostics, second.diagnostics
    steps = [x.num_steps.astype(first.dt.dtype) for x in (first, second)]
    share = steps[0] / (steps[0] + steps[1])

    def mean(name):
        return share * getattr(ours, name) + (1 - share) * getattr(theirs, name)

    sums = {name: _add(*pair) for name, *pair in _counts(first, second)}
    late = jnp.where(theirs.first_bad_step < 0, -1, sums["first_bad_step"])
    # Columns without a common non-zero row may belong to different blocks, whose exponents may ascend. If the
    # exponents of one run ascend, its columns belonged together.
    do_ascend = [run.result == RESULTS.exponents_ascend for run in (first, second)]
    return summarize(
        jnp.concatenate([first.block_exponents, second.block_exponents]),
        jnp.concatenate([first.block_steps, second.block_steps]),
        Diagnostics(
            unresolved=sums["unresolved"],
            rounding_error=mean("rounding_error"),
            avoidable_error=mean("avoidable_error"),
            overlap_bias=mean("overlap_bias"),
            num_orthonormalizations=sums["num_orthonormalizations"],
            longest_interval=jnp.maximum(ours.longest_interval, theirs.longest_interval),
            first_bad_step=jnp.where(
                ours.first_bad_step < 0, late, ours.first_bad_step.astype(late.dtype)
            ),
        ),
        state=second.state,
        frame=second.frame,
        num_steps=sums["num_steps"],
        dt=first.dt,
        are_together=share_rows(second.frame) | do_ascend[0] | do_ascend[1],
    )


def _add(first: Int[Array, "..."], second: Int[Array, "..."]) -> Int[Array, "..."]:
    """The sum of two counts, in 64 bits where JAX has them, at most the largest integer of the dtype."""
    widest = jnp.result_type(int)
    first, second = first.astype(widest), second.astype(widest)
    largest = jnp.iinfo(widest).max
    return jnp.where(first <= largest - jnp.maximum(second, 0), first + second, largest)


def _check_sum(name: str, first: Int[Array, "..."], second: Int[Array, "..."]) -> None:
    if is_traced((first, second)):
        return
    largest = jnp.iinfo(jnp.result_type(int)).max
    if np.any(np.asarray(first, np.int64) > largest - np.maximum(np.asarray(second, np.int64), 0)):
        raise ValueError(
            f"the sum of {name} of both runs, {first} + {second}, is beyond 2**31 - 1: turn on jax_enable_x64."
        )
