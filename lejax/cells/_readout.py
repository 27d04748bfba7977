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
    r"""$y = W h + b$. **Arguments:** `weight` (O, H) and `bias` (O,). What `fit_readout` returns."""

    weight: Float[Array, "o h"]
    bias: Float[Array, " o"]

    def __call__(self, state: Float[Array, " h"]) -> Float[Array, " o"]:
        return self.weight @ state + self.bias


@checked
def fit_readout(
    states: Float[Array, "T h"], targets: Float[Array, "T o"], *, penalty: float | Array = 1e-8
) -> LinearReadout:
    r"""The linear readout that ridge regression finds for what a network went through.

    $$\min_{W, b} \; \frac{1}{T} \sum_t |y_t - W h_t - b|^2 + \alpha\, |W|^2$$

    **Arguments:** `states` (T, H), those of a run by `unroll` less its transient (of a cell with an output of its own
    `jax.vmap(cell.output)(states)`), `targets` (T, O), and `penalty`, $\alpha$,
    positive; the bias pays none.

    **Returns:** a `LinearReadout`; with it `ClosedLoop(cell, readout)` runs on its own forecasts if the target at each step
    is the next input.

    **Numerics:** by a QR factorization of the centered states and $\sqrt{\alpha T}$ times the identity, which does not
    square their condition: $O(T H^2)$. Differentiable, also in `penalty`.

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
            f"states must be one array (T, H), got {type(states).__name__}; of a cell whose state is a pytree take what it "
            "shows, jax.vmap(cell.output)(states)."
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
    high = tangent_dtype(dtype)  # LAPACK knows nothing smaller
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
