"""Exponents of parts of a run."""

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs
from .._core.check_values import check_count
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._engine.method import Method, SequentialQR
from .lyapunov_spectrum import lyapunov_spectrum


@checked
def finite_time_exponents(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    window: int,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    dt: float | Float[Array, ""] | None = None,
    method: Method = SequentialQR(),
    adjoint: Adjoint = CheckpointedAdjoint(),
    frame: Float[Array, "d k"] | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> Float[Array, "w k"]:
    r"""Exponents of consecutive windows of one run: growth rates that vary along the trajectory.

    $$\lambda_i(n) = \frac{1}{W\,dt} \sum_{t = nW}^{(n+1)W - 1} \log (R_t)_{ii}$$

    **Arguments:** as `lyapunov_spectrum`, and `window`, the steps W in each window. `num_steps` (or the
    length of the inputs less `transient`) may not be shorter; steps beyond the last whole window are not run.

    **Returns:** (w, k) exponents in nats per step or per unit of `dt`, w = num_steps // window.
    Their mean over windows is the spectrum of the whole run.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> lejax.finite_time_exponents(henon, jnp.zeros(2), num_steps=1000, window=50).shape
        (20, 2)

    Abarbanel, Brown & Kennel, J. Nonlinear Sci. 1 (1991).
    """
    window = check_count("window", window, 1)
    inputs, num_steps = check_inputs(inputs, num_steps, transient)
    if window > num_steps:
        raise ValueError(f"window is {window} steps, but the run has only {num_steps}.")
    num_windows = num_steps // window
    return lyapunov_spectrum(
        cell,
        state,
        inputs,
        num_exponents=num_exponents,
        num_steps=num_windows * window,
        transient=transient,
        dt=dt,
        method=method,
        adjoint=adjoint,
        frame=frame,
        key=key,
        num_blocks=num_windows,
        throw=throw,
    ).block_exponents
