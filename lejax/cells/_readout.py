"""A linear readout, trained by ridge regression."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_positive, find_nonfinite
from .._engine.push import tangent_dtype


class LinearReadout(eqx.Module):
    r"""A linear readout $y = W h + b$, which `fit_readout` returns.

    **Arguments:**

    - `weight`: W (O, H).
    - `bias`: b (O,).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.cells.LinearReadout(jnp.ones((1, 2)), jnp.ones(1))(jnp.array([1.0, 2.0]))
        Array([4.], dtype=...)
    """

    weight: Float[Array, "o h"]
    bias: Float[Array, " o"]

    def __call__(self, state: Float[Array, " h"]) -> Float[Array, " o"]:
        return self.weight @ state + self.bias


@checked
def fit_readout(
    states: Float[Array, "T h"], targets: Float[Array, "T o"], *, penalty: float | Array = 1e-8
) -> LinearReadout:
    r"""The linear readout of the states of a run, by ridge regression.

    $$\min_{W, b} \; \frac{1}{T} \sum_t |y_t - W h_t - b|^2 + \alpha\, |W|^2$$

    **Arguments:**

    - `states`: outputs of the cell (T, H): the states of a run by `unroll` without its transient, or
        `jax.vmap(cell.output)(states)` for a cell whose output is not its state.
    - `targets`: (T, O). If the target at each step is the next input, `ClosedLoop(cell, readout)` runs on its own
        forecasts.
    - `penalty`: $\alpha$, positive, by default 1e-8. The bias is not penalized.

    **Returns:** a `LinearReadout`, differentiable in all arguments.

    **Raises:**

    - `ValueError`: if there are no states, the numbers of steps differ, or a value is not finite.
    - `TypeError`: if `states` is not one real floating-point array, or `targets` is not real.

    **Numerics:** by a QR factorization of the centered states, stacked on $\sqrt{\alpha T}$ times the identity, in
    $O(T H^2)$. It does not square the condition number.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> series = jnp.sin(0.3 * jnp.arange(600.0))[:, None]
        >>> cell = lejax.cells.EchoStateCell(1, 40, input_scale=0.5, key=jax.random.key(0))
        >>> states = lejax.unroll(cell, cell.initial_state(), series[:-1])
        >>> readout = lejax.cells.fit_readout(states[100:], series[101:], penalty=1e-6)
        >>> loop = lejax.cells.ClosedLoop(cell, readout)
        >>> forecast = jax.vmap(loop.output)(lejax.unroll(loop, states[-1], num_steps=20))
        >>> bool(jnp.abs(forecast[:, 0] - jnp.sin(0.3 * jnp.arange(600.0, 620.0))).max() < 0.1)
        True

    Hoerl & Kennard, Technometrics 12 (1970); Jaeger & Haas, Science 304 (2004).
    """
    if not eqx.is_array_like(states):
        raise TypeError(
            f"states must be one array (T, H), got {type(states).__name__}; for a cell whose state is a pytree take "
            "its outputs, jax.vmap(cell.output)(states)."
        )
    states, targets = jnp.asarray(states), jnp.asarray(targets)
    if states.ndim != 2 or targets.ndim != 2 or states.shape[0] != targets.shape[0]:
        raise ValueError(
            f"states and targets must have shapes (T, H) and (T, O) with the same T, got {states.shape} and "
            f"{targets.shape}."
        )
    if not jnp.issubdtype(states.dtype, jnp.floating):
        raise TypeError(f"states must be real floating point, got {states.dtype}.")
    if states.shape[0] < 1:
        raise ValueError("a readout needs at least one state, got none.")
    if jnp.iscomplexobj(targets):
        raise TypeError(f"targets must be real, got {targets.dtype}.")
    for name, values in (("states", states), ("targets", targets)):
        bad = None if is_traced(values) else find_nonfinite(name, values)
        if bad:
            raise ValueError(f"{bad}.")
    return cast(LinearReadout, _fit(states, targets, check_positive("penalty", penalty)))


@jax.jit
def _fit(states, targets, penalty):
    dtype = states.dtype
    high = tangent_dtype(dtype)  # LAPACK supports no smaller dtype
    states, targets = states.astype(high), targets.astype(high)
    num_steps, size = states.shape
    mean, offset = jnp.mean(states, axis=0), jnp.mean(targets, axis=0)
    root = jnp.sqrt(jnp.asarray(penalty * num_steps, states.dtype))
    rows = jnp.concatenate([states - mean[None], root * jnp.eye(size, dtype=states.dtype)])
    with jax.default_matmul_precision("highest"):
        q, r = jnp.linalg.qr(rows)
        moment = q[:num_steps].T @ (targets - offset[None])
        weight = jax.scipy.linalg.solve_triangular(r, moment).T
        return LinearReadout(weight.astype(dtype), (offset - weight @ mean).astype(dtype))
