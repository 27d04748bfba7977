"""Finite-time Lyapunov exponents over a field of starting states."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.cell import Cell, dtype_of, size_of, time_step, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions, check_positive
from .._core.closures import compiled
from .._engine.push import tangent_dtype
from .._engine.tangent_dynamics import open_dense


@checked
def finite_time_exponent_field(
    cell: Cell,
    states: PyTree,
    inputs: PyTree = None,
    *,
    num_steps: int | None = None,
    num_exponents: int = 1,
    dt: float | Float[Array, ""] | None = None,
    batch_size: int = 256,
) -> Float[Array, "n k"]:
    r"""Finite-time Lyapunov exponents from every starting state of a batch.

    $$\lambda_i(x) = \frac{1}{T\,dt} \log \sigma_i\!\left(J_{T-1} \cdots J_0\right)$$

    with the singular values $\sigma_i$ of the tangent map over T steps from x, without an average and a starting frame.
    Ridges of the field separate trajectories that diverge from each other.

    **Arguments:**

    - `cell`: as for `lyapunov_spectrum`.
    - `states`: a pytree with a leading axis n; ravel a grid.
    - `inputs`: (T, ...), the same for all states, or `None`.
    - `num_steps`: T; required when `inputs` is `None`, default: the length of the inputs.
    - `num_exponents`: k, the number of leading exponents, default 1.
    - `dt`: as for `lyapunov_spectrum`.
    - `batch_size`: the number of states computed at the same time, default 256.

    **Returns:** (n, k), in nats per step, or per unit of `dt`; NaN where the run is not finite.

    **Raises:**

    - `ValueError`: if the leaves of `states` differ in their leading axis, or an argument is out of range.

    **Numerics:** d tangent products a step and one singular value decomposition. Singular values smaller than
    floating-point resolution times the largest one are rounding noise: over long times only the first is accurate.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> states = jnp.array([[0.0, 0.0], [0.3, 0.1]])
        >>> lejax.indicators.finite_time_exponent_field(lejax.systems.Henon(), states, num_steps=8).shape
        (2, 1)

    Haller, Annu. Rev. Fluid Mech. 47 (2015).
    """
    states = check_state(states)
    if len({x.shape[:1] for x in jax.tree.leaves(states)} - {()}) != 1:
        raise ValueError("states must have one more axis in front, equally long in all leaves.")
    inputs, num_steps = check_inputs(inputs, num_steps, 0)
    state = jax.tree.map(lambda x: x[0], states)
    count = check_directions("num_exponents", num_exponents, state)
    batch_size = check_count("batch_size", batch_size, 1)
    duration = check_positive("dt", time_step(cell) if dt is None else dt)
    return _field(cell, states, inputs, num_steps, count, duration, batch_size)


@compiled
def _field(cell, states, inputs, num_steps, count, dt, batch_size):
    states = vary_with(states, (cell, inputs))

    def one(state):
        eye = jnp.eye(size_of(state), dtype=tangent_dtype(dtype_of(state)))
        push, vector, frame = open_dense(cell, state, inputs, eye)

        def step(carry, input):
            vector, frame, log_scale = carry
            vector, frame = push(input, vector, frame)
            scale = jnp.max(jnp.abs(frame))
            scale = jnp.where(scale > 0, scale, 1)
            return (vector, frame / scale, log_scale + jnp.log(scale)), None

        start = (vector, frame, jnp.zeros_like(frame, shape=()))
        (vector, frame, log_scale), _ = jax.lax.scan(step, start, inputs, length=num_steps)
        values = jnp.linalg.svd(frame, compute_uv=False)[:count]
        values = jnp.where(jnp.all(jnp.isfinite(vector)), values, jnp.nan)
        return (log_scale + jnp.log(values)) / (num_steps * dt)

    return jax.lax.map(one, states, batch_size=batch_size)
