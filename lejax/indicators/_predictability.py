"""How long forecasts last."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_vector


@checked
def lyapunov_time(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    r"""The Lyapunov time $1 / \lambda_1$, in which errors grow by e; infinite without a positive exponent.

    **Arguments:** `exponents` (k,), any order. **Returns:** a scalar, in steps, or in units of time if the exponents are
    per unit of time.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.indicators.lyapunov_time(jnp.array([0.9056, 0.0, -14.57])).round(4))
        1.1042
    """
    largest = jnp.max(jnp.asarray(check_vector("exponents", exponents), float))
    positive = largest > 0
    time = jnp.where(positive, 1 / jnp.where(positive, largest, 1), jnp.inf)
    return jnp.where(jnp.isnan(largest), jnp.nan, time)


@checked
def predictability_horizon(
    exponents: Float[Array, " k"],
    initial_error: float | Float[Array, "*n"],
    tolerance: float | Float[Array, "*n"],
) -> Float[Array, "..."]:
    r"""The time after which an error has grown to what is tolerable.

    $$t = \frac{1}{\lambda_1} \log \frac{\text{tolerance}}{\text{initial error}}$$

    **Arguments:** `exponents` (k,); `initial_error` and `tolerance`, sizes of errors in the same unit, both positive,
    numbers or arrays of one shape. The tolerance must be small enough for errors to grow exponentially up to it.

    **Returns:** the horizon, at least 0 and infinite without a positive exponent, in the unit of `lyapunov_time`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.indicators.predictability_horizon(jnp.array([0.9056]), 1e-6, 1.0).round(3))
        15.256
    """
    for name, size in (("initial_error", initial_error), ("tolerance", tolerance)):
        if not is_traced(size) and not np.all(np.asarray(size) > 0):
            raise ValueError(f"{name} must be positive, got {size}.")
    if () not in (jnp.shape(initial_error), jnp.shape(tolerance)) and jnp.shape(
        initial_error
    ) != jnp.shape(tolerance):
        raise ValueError(
            f"initial_error and tolerance must be numbers or of one shape, got {jnp.shape(initial_error)} and {jnp.shape(tolerance)}."
        )
    growth = jnp.log(jnp.asarray(tolerance, float) / jnp.asarray(initial_error, float))
    time = lyapunov_time(exponents)
    horizon = jnp.where(growth > 0, growth, 1) * time
    return jnp.where(growth > 0, horizon, jnp.where(jnp.isnan(growth), jnp.nan, 0))
