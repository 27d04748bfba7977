"""Two consecutive runs as one."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ._cell import is_traced
from ._check import check_vector
from ._results import RESULTS
from ._signature import checked
from ._spectrum import LyapunovSpectrum, do_ascend, judge, share_rows
from ._statistics import estimate_error, weighted_mean


@checked
def combine(first: LyapunovSpectrum, second: LyapunovSpectrum) -> LyapunovSpectrum:
    """Two consecutive runs as one: blocks side by side, exponents and errors of all of them.

    **Arguments:** `first`, and `second`, which was started from `first.state` and `first.frame` without
    a transient. Both need the same number of exponents and the same `dt`.

    **Returns:** the `LyapunovSpectrum` of both, with the state and frame of `second`. Equal to one long run
    up to rounding. Its blocks are those of both runs, its result is judged anew from both, and a
    `first_bad_step` of `second` is counted from the start of its own run plus the counted steps of `first`.

    **Numerics:** counts are 64-bit integers with `jax_enable_x64`. Without it they end at 2**31 - 1, where a trace keeps
    that number; exponents and errors are right all the same.

    **Raises:** `ValueError` for runs that do not belong together, and outside a trace for counts beyond 2**31 - 1 without
    `jax_enable_x64`.

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
    block_exponents = jnp.concatenate([first.block_exponents, second.block_exponents])
    block_steps = jnp.concatenate([first.block_steps, second.block_steps])
    weights = block_steps.astype(block_exponents.dtype)
    num_steps = _add("num_steps", first.num_steps, second.num_steps)
    steps = [x.num_steps.astype(first.dt.dtype) for x in (first, second)]
    share = steps[0] / (steps[0] + steps[1])
    bad = jnp.maximum(second.first_bad_step, 0)
    late = jnp.where(second.first_bad_step < 0, -1, _add("first_bad_step", first.num_steps, bad))
    first_bad_step = jnp.where(
        first.first_bad_step < 0, late, first.first_bad_step.astype(late.dtype)
    )
    parts = share * first.rounding_error, (1 - share) * second.rounding_error
    # What rounding costs a run with an interval of 1 no shorter one would spare.
    avoidable = jnp.where(first.every > 1, parts[0], 0) + jnp.where(second.every > 1, parts[1], 0)
    every = jnp.maximum(first.every, second.every)
    overlap_bias = share * first.overlap_bias + (1 - share) * second.overlap_bias
    exponents = weighted_mean(block_exponents, weights)
    errors, grows = estimate_error(block_exponents, weights)
    duration = (steps[0] + steps[1]) * first.dt
    # Columns at right angles by their zeros may be of different blocks, which stand in any order, unless it is known better.
    is_known = [run.result == RESULTS.exponents_ascend for run in (first, second)]
    is_one = share_rows(second.frame) | is_known[0] | is_known[1]
    ascend = do_ascend(exponents * duration, errors * duration, len(block_steps), is_one)
    return LyapunovSpectrum(
        exponents=exponents,
        standard_error=errors,
        error_grows=grows,
        block_exponents=block_exponents,
        block_steps=block_steps,
        unresolved=_add("unresolved", first.unresolved, second.unresolved),
        rounding_error=parts[0] + parts[1],
        state=second.state,
        frame=second.frame,
        num_steps=num_steps,
        every=every,
        overlap_bias=overlap_bias,
        dt=first.dt,
        first_bad_step=first_bad_step,
        result=judge(first_bad_step, every, avoidable * first.dt, overlap_bias, errors, ascend),
    )


def _add(name: str, first: Int[Array, "..."], second: Int[Array, "..."]) -> Int[Array, "..."]:
    """The sum of two counts, 64 bits wide where JAX has them."""
    widest = jnp.result_type(int)
    first, second = first.astype(widest), second.astype(widest)
    most = jnp.iinfo(widest).max
    fits = first <= most - second
    if not is_traced(fits) and not np.all(fits):
        raise ValueError(
            f"the sum of {name} of both runs, {first} + {second}, is beyond 2**31 - 1: turn on jax_enable_x64."
        )
    return jnp.where(fits, first + second, most)
