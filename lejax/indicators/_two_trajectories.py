"""The largest exponent from two trajectories, without a tangent map."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, first_input, is_traced, ravel, time_step, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, check_step
from .._core.check_values import check_count, check_positive
from .._core.closures import compiled
from .._core.statistics import block_lengths, block_sums, standard_error, weighted_mean
from .._engine.push import tangent_dtype
from .._spectrum.table import Estimate, describe_range


class LargestExponent(eqx.Module):
    """The largest Lyapunov exponent and its standard error.

    **Fields:**

    - `exponent`: (), in nats per step, or per unit of `dt`.
    - `standard_error`: (), from block means.
    """

    exponent: Float[Array, ""]
    standard_error: Float[Array, ""]

    def __str__(self) -> str:
        """The exponent and its error, or the range of a batch; Equinox's `repr` under a trace."""
        if is_traced(self):
            return repr(self)
        exponents = np.asarray(self.exponent)
        if exponents.ndim == 0:
            return f"largest exponent {Estimate(float(exponents), float(self.standard_error))}"
        found = describe_range(exponents, ".6g")
        return f"largest exponents {found}, batch shape {exponents.shape}"


@checked
def two_trajectory_exponent(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_steps: int | None = None,
    transient: int = 0,
    distance: float | None = None,
    dt: float | Float[Array, ""] | None = None,
    num_blocks: int = 20,
    key: PRNGKeyArray | None = None,
) -> LargestExponent:
    r"""The largest Lyapunov exponent from the distance of two trajectories, without derivatives: a check.

    $$\lambda_1 \approx \frac{1}{T\,dt} \sum_t \log \frac{|x'_t - x_t|}{\delta}$$

    After each step the second trajectory is moved back to the distance $\delta$ from the first one.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_steps`, `transient`, `dt`, `num_blocks`: as for `lyapunov_spectrum`.
    - `distance`: $\delta$ relative to 1 + the norm of the state. Default: 1e-8 in float64, 1e-3 in float32, and 10 eps
        in lower precision, where the estimate is rough.
    - `key`: for the first direction; `jax.random.key(0)` if `None`.

    **Returns:** a `LargestExponent`.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable, a `distance` below 10 eps for one.

    **Numerics:** two cell calls a step. Curvature causes errors of the order of $\delta$, rounding those of the order
    of eps / $\delta$. The exponent is -inf if the two trajectories coincide after a step.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> run = lejax.indicators.two_trajectory_exponent(henon, jnp.zeros(2), num_steps=20_000, transient=100)
        >>> bool(abs(run.exponent - 0.4192) < 4 * run.standard_error)
        True

    Benettin, Galgani & Strelcyn, Phys. Rev. A 14 (1976).
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, transient)
    num_blocks = min(check_count("num_blocks", num_blocks, 1), num_steps)
    # The perturbation must exceed the rounding of every leaf.
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(state))
    least = 10 * eps
    if distance is None:
        distance = 1e-8 if eps < 1e-12 else max(1e-3, least)
    if not is_traced(distance) and 0 < distance < least:
        raise ValueError(
            f"distance must be at least {least:.1e}, 10 times the rounding of the state, got {distance}."
        )
    duration = check_positive("dt", time_step(cell) if dt is None else dt)
    shape = (int(transient), num_steps, num_blocks)
    return _exponent(
        cell, state, inputs, check_positive("distance", distance), duration, shape, key
    )


@compiled
def _exponent(cell, state, inputs, distance, dt, shape, key):
    check_step(cell, first_input(inputs), state)
    transient, num_steps, num_blocks = shape
    vector, unravel = ravel(vary_with(state, (cell, inputs, key)))
    dtype = tangent_dtype(vector.dtype)  # of distances and sums
    key = jr.key(0) if key is None else key
    random = jr.normal(key, vector.shape, jnp.float32).astype(dtype)

    def perturb(point, direction):
        """The point at the distance `delta` in the direction, and its distance after rounding."""
        length = jnp.sqrt(jnp.sum(direction**2))
        delta = distance * (1 + jnp.sqrt(jnp.sum(point.astype(dtype) ** 2)))
        other = point.astype(dtype) + delta * direction / jnp.where(length > 0, length, 1)
        # Round each leaf to its own precision.
        other = ravel(unravel(other.astype(point.dtype)))[0]
        return other, jnp.sqrt(jnp.sum((other.astype(dtype) - point.astype(dtype)) ** 2))

    def step(carry, input):
        point, other, gap = carry
        with jax.default_matmul_precision("highest"):
            point, other = (ravel(cell(input, unravel(x)))[0] for x in (point, other))
        separation = other.astype(dtype) - point.astype(dtype)
        rate = jnp.log(jnp.sqrt(jnp.sum(separation**2)) / gap)
        # If both trajectories coincide (-inf), continue in a new direction.
        separation = jnp.where(jnp.all(separation == 0), random, separation)
        return (point, *perturb(point, separation)), rate

    start = (vector, *perturb(vector, random))
    _, rates = jax.lax.scan(step, start, inputs, length=transient + num_steps)
    lengths = block_lengths(num_steps, num_blocks)
    weights = jnp.asarray(lengths, rates.dtype)
    means = (block_sums(rates[transient:], lengths) / (weights * dt))[:, None].astype(rates.dtype)
    return LargestExponent(weighted_mean(means, weights)[0], standard_error(means, weights)[0])
