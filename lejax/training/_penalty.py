"""Penalties on the Lyapunov exponents of a run, for a training loss."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.cell import Cell
from .._core.check_annotations import checked
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import are_resolved


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
    r"""Evaluate a function of the Lyapunov exponents of a run, for a training loss.

    $$P = \frac{1}{|K|} \sum_{i \in K} f_i(\lambda_1, \dots, \lambda_k)$$

    over the exponents K that floating point resolves.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `transient`: as for `lyapunov_spectrum`.
    - `function`: f, from the exponents (k,) to a value for each of them, (k,), or to one number, which is then P.
    - `adjoint`: how gradients are computed, `CheckpointedAdjoint()` by default; use a `WindowedAdjoint` for chaotic
        runs of several Lyapunov times. For a chaotic piecewise-linear cell the gradient lacks the effect of the
        weights on the time spent in each region; the documentation of `lejax.WindowedAdjoint` shows a finite
        difference of long runs that includes it.

    **Returns:** a scalar; NaN for a run with non-finite numbers, and 0 if no exponent is resolved.

    **Raises:**

    - `ValueError`: if `function` returns neither one number nor a value for each exponent.

    **Numerics:** a lost direction has no gradient: its exponent is -inf if the direction is mapped to zero, and a
    bound that consists of rounding errors if it is below the resolution of floating point. In place of the first such
    exponent and all after it, f receives the logarithm of the smallest normal number of the dtype (-708 or -87 nats
    per step) as a constant, and these values do not count. Works under `jit`, `vmap`, `grad` and forward mode, with
    `num_steps` orthonormalizations.

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
        num_blocks=2,  # with one block the standard error would be NaN
        throw=False,
    )
    resolved = are_resolved(spectrum)
    smallest = float(np.log(jnp.finfo(spectrum.exponents.dtype).tiny)) / spectrum.dt
    terms = jnp.asarray(function(jnp.where(resolved, spectrum.exponents, smallest)))
    # As a factor, NaN also reaches the gradients of a diverged run.
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
    r"""Compute the mean squared distance between the leading Lyapunov exponents and a target: gradient flossing.

    $$P = \frac{1}{k} \sum_{i=1}^{k} (\lambda_i - \lambda^*_i)^2$$

    At a target of 0 the Jacobian of the complete run neither contracts nor stretches the k leading directions, so
    that gradients of a loss reach back over as many steps as the run has.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `transient`: as for `lyapunov_spectrum`.
    - `target`: $\lambda^*$, one number or k numbers, in nats per step, or per unit of time for a `TimedCell`; 0 by
        default.
    - `adjoint`: as for `spectrum_penalty`.

    **Returns:** a scalar. The mean does not include lost directions, see `spectrum_penalty`.

    **Raises:**

    - `ValueError`: if `target` is neither one number nor one for each exponent.

    **Numerics:** as for `spectrum_penalty`.

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
