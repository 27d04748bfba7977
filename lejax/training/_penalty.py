"""Penalties on the Lyapunov exponents of a run: terms of a training loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._core.cell import Cell
from .._core.check_annotations import checked
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import LyapunovSpectrum


@checked
def spectrum_penalty(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    function: Callable[[Float[Array, " k"]], Float[Array, " k"] | Float[Array, ""]],
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    adjoint: Adjoint = CheckpointedAdjoint(),
) -> Float[Array, ""]:
    r"""Any function of the Lyapunov exponents of a run, as a term of a training loss.

    $$P = \frac{1}{|K|} \sum_{i \in K} f_i(\lambda_1, \dots, \lambda_k)$$

    over the exponents K that floating point resolved.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `transient`: as for `lyapunov_spectrum`.
    - `function`: f, from the exponents (k,) to a term for each of them, (k,), or to one number, which is then P itself.
    - `adjoint`: `CheckpointedAdjoint()`; on runs of several Lyapunov times in chaos a `WindowedAdjoint`. Of a
        piecewise-linear cell in chaos the gradient lacks how weights move the time spent in each region: `lejax.WindowedAdjoint`
        shows a difference of long runs that has it.

    **Returns:** a scalar.

    **Numerics:** a direction that was lost has no gradient: mapped to zero its exponent is -inf, and below the
    resolution of floating point it is an upper bound made of rounding. From the first such exponent on, f receives
    the logarithm of the smallest number that the dtype resolves (-708 or -87 nats per step) as a constant, and its
    terms do not count. With no direction left P = 0. A run that leaves the floats gives NaN. Under `jit`, `vmap`,
    `grad` and forward mode as every verb; `num_steps` orthonormalizations.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(0, 8, key=jax.random.key(0))
        >>> target = -jnp.arange(1.0, 4.0)
        >>> def to_target(exponents):
        ...     return (exponents - target) ** 2
        >>> def bound(exponents):  # no chaos
        ...     return jax.nn.relu(exponents[0]) ** 2
        >>> penalty = lejax.training.spectrum_penalty
        >>> penalty(cell, jnp.ones(8), function=to_target, num_exponents=3, num_steps=20).shape
        ()
        >>> float(penalty(cell, jnp.ones(8), function=bound, num_exponents=1, num_steps=20))
        0.0
    """
    spectrum = lyapunov_spectrum(
        cell,
        state,
        inputs,
        num_exponents=num_exponents,
        num_steps=num_steps,
        transient=transient,
        adjoint=adjoint,
        num_blocks=2,  # of one the error would be NaN
        throw=False,
    )
    resolved = _resolved(spectrum)
    least = float(np.log(jnp.finfo(spectrum.exponents.dtype).tiny)) / spectrum.dt
    terms = jnp.asarray(function(jnp.where(resolved, spectrum.exponents, least)))
    # A factor, so that the gradients of a diverged run are NaN too and not zero.
    terms = terms * jnp.where(spectrum.diagnostics.first_bad_step < 0, 1.0, jnp.nan).astype(
        terms.dtype
    )
    if terms.shape == ():
        return terms
    if terms.shape != resolved.shape:
        raise ValueError(
            f"function must give a term for each of the {resolved.size} exponents or one number, "
            f"got shape {terms.shape}."
        )
    counted = resolved | (spectrum.diagnostics.first_bad_step >= 0)
    return jnp.sum(jnp.where(counted, terms, 0)) / jnp.maximum(jnp.sum(counted), 1).astype(
        terms.dtype
    )


@checked
def flossing_penalty(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    target: float | Float[Array, ""] | Float[Array, " k"] = 0.0,
    num_steps: int | None = None,
    transient: int = 0,
    adjoint: Adjoint = CheckpointedAdjoint(),
) -> Float[Array, ""]:
    r"""The mean squared distance of the leading Lyapunov exponents from a target: gradient flossing.

    $$P = \frac{1}{k} \sum_{i=1}^{k} (\lambda_i - \lambda^*_i)^2$$

    With a target of 0 the long Jacobian of the network neither shrinks nor stretches k directions, so that the
    gradients of a loss reach back as far as the run of the penalty is long.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `transient`: as for `lyapunov_spectrum`.
    - `target`: $\lambda^*$ in nats per step, or per unit time of a `TimedCell`; one number or k.
    - `adjoint`: as for `spectrum_penalty`.

    **Returns:** a scalar. Lost directions are left out of the mean, see `spectrum_penalty`.

    !!! example

        >>> import equinox as eqx, jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(1, 16, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 1))
        >>> def penalty(cell):
        ...     state = cell.initial_state()
        ...     return lejax.training.flossing_penalty(cell, state, inputs, num_exponents=8)
        >>> value, gradient = eqx.filter_value_and_grad(penalty)(cell)
        >>> gradient.weight_hh.shape
        (16, 16)

    Engelken, Advances in Neural Information Processing Systems 36 (2023).
    """

    def squared_distance(exponents):
        if jnp.shape(target) not in ((), exponents.shape):
            raise ValueError(
                f"target must be one number or one for each of the {exponents.size} exponents, "
                f"got shape {jnp.shape(target)}."
            )
        return (exponents - target) ** 2

    return spectrum_penalty(
        cell,
        state,
        inputs,
        function=squared_distance,
        num_exponents=num_exponents,
        num_steps=num_steps,
        transient=transient,
        adjoint=adjoint,
    )


def _resolved(spectrum: LyapunovSpectrum) -> Bool[Array, " k"]:
    """The exponents before the first lost direction."""
    lost = (spectrum.diagnostics.unresolved > 0) | jnp.isneginf(spectrum.exponents)
    return jax.lax.cummax(lost.astype(jnp.int32)) == 0
