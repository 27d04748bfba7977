"""The largest interval between orthonormalizations that keeps a requested accuracy."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._cell import Cell, ravel
from ._check import check_concrete, check_count, check_inputs, check_state
from ._closures import keep
from ._loop import tolerable_error
from ._method import SequentialQR
from ._results import RESULTS
from ._signature import checked
from ._spectrum import lyapunov_spectrum, raise_on_failure
from ._tangent import tangent_dtype


@checked
def suggest_qr_interval(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int = 256,
    transient: int = 0,
    tolerance: float | None = None,
    max_interval: int = 64,
    frame: Float[Array, "d k"] | None = None,
    key: PRNGKeyArray | None = None,
) -> int:
    r"""The largest interval between orthonormalizations whose estimated rounding error is tolerable.

    Between two orthonormalizations the columns z of the frame all turn towards the fastest growing direction. What
    column i keeps of its own is $R_{ii}$, and rounding costs $\epsilon \max_j |z_j| / R_{ii}$ of it.
    `SequentialQR()` finds an interval by itself; this function is for those who want the longest, or another
    tolerance. Short trial runs with growing intervals measure the mean of that per step.

    **Arguments:** `cell`, `state`, `inputs`, `num_exponents`, `transient`, `frame` and `key` as for `lyapunov_spectrum`, and

    - `num_steps`: length of the trial runs, at most what the inputs hold.
    - `tolerance`: largest tolerable `rounding_error` in nats per step. Default: a tenth of where a run reports
        `interval_too_long`, which is 1e-8 in float64, 1e-4 in float32.
    - `max_interval`: the largest interval to try.

    **Returns:** an `int` for `SequentialQR(every=...)`, at least 1. It is measured on a short stretch; the run itself
    checks again. The estimate may be wrong by a small factor, which differs between processors; tests hold it to ten.
    A function of the host: it cannot be traced.

    Cost: about 2 log2(max_interval) runs of `num_steps` steps, compiled once.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lorenz = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
        >>> lejax.suggest_qr_interval(lorenz, jnp.ones(3), transient=100) > 10
        True
    """
    check_concrete("suggest_qr_interval", cell, state, inputs, frame, key, tolerance)
    state = check_state(state)
    max_interval = check_count("max_interval", max_interval, 1)
    if inputs is not None:
        available = check_inputs(inputs, None, transient)[1]
        num_steps = min(num_steps, available)
    max_interval = min(max_interval, num_steps)
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}.")
    dtype = tangent_dtype(ravel(state)[0].dtype)
    allowed = 0.1 * tolerable_error(dtype) if tolerance is None else tolerance

    def good(every: int) -> bool:
        spectrum = lyapunov_spectrum(
            kept,
            state,
            inputs,
            num_exponents=num_exponents,
            num_steps=num_steps,
            transient=transient,
            dt=1.0,
            method=SequentialQR(every=every),
            frame=frame,
            key=key,
            num_blocks=1,
            throw=False,
        )
        if bool(spectrum.result == RESULTS.nonfinite):
            # Either the network itself diverges, or the product over the interval leaves the floats.
            if every == 1:
                raise_on_failure(spectrum, cell, state, inputs)
            return False
        return bool(jnp.max(spectrum.rounding_error) <= allowed)

    with keep(cell) as kept:
        good(1)  # the network itself must not diverge
        low, high = 1, 1
        while high < max_interval:
            high = min(2 * high, max_interval)
            if not good(high):
                break
            low = high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if good(middle) else (low, middle)
    return low
