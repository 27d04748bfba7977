"""Reducers of covariant vectors: means of growth, angles and participation, and histograms of angles."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core.check_values import check_count
from .._core.statistics import add_compensated
from .angles import participation_ratio, principal_angles
from .covariant import CovariantReducer


class CovariantStatistics(eqx.Module):
    """The report of `VectorStatistics` for k vectors.

    **Fields:**

    - `mean_log_growth`: (k,), the exponents in nats per step, or per unit of `dt`.
    - `variance_log_growth`: (k,), the variance over steps of the rates along the vectors, in the square of the same
        unit.
    - `mean_squared_cosine`: (k, k), the mean squared cosine of the angle between two vectors: 1 for parallel ones, 1/d
        for unrelated ones.
    - `smallest_angle`: (k, k), the smallest angle over the run between the lines along two vectors, in radians;
        accurate down to about 1e-8 in float64.
    - `participation`: (k,), the mean of `participation_ratio`.
    """

    mean_log_growth: Float[Array, " k"]
    variance_log_growth: Float[Array, " k"]
    mean_squared_cosine: Float[Array, "k k"]
    smallest_angle: Float[Array, "k k"]
    participation: Float[Array, " k"]


class VectorStatistics(CovariantReducer):
    """The reducer for means of growth, angles and participation; its result is a `CovariantStatistics`.

    **Numerics:** O(d k^2) a step.
    """

    def start(self, step):
        k = step.growth
        zeros, square = jnp.zeros_like(k), jnp.zeros_like(k, shape=(k.size, k.size))
        sums = zeros, zeros, square, zeros
        # float64 has enough digits for any run.
        compensation = sums if k.dtype == jnp.float32 else None
        return sums, compensation, square, zeros + jnp.inf

    def add(self, total, step):
        sums, compensation, largest, first = total
        with jax.default_matmul_precision("highest"):
            cosine = jnp.abs(step.vectors.T @ step.vectors)
        rate = jnp.log(step.growth) / step.dt
        # The first rate is subtracted: squares of deviations from it keep the digits of a small variance.
        is_first, known = jnp.isinf(first), jnp.where(jnp.isfinite(rate), rate, 0)
        first = jnp.where(is_first, jax.lax.stop_gradient(known), first)
        terms = rate - first, (rate - first) ** 2, cosine**2, participation_ratio(step.vectors)
        sums, compensation = add_compensated(sums, compensation, terms)
        return sums, compensation, jnp.maximum(largest, cosine), first

    def finish(self, total, num_steps):
        sums, _, largest, first = total
        deviation, second, square, participation = (x / num_steps for x in sums)
        angle = jnp.arccos(jnp.minimum(largest, 1))
        return CovariantStatistics(
            mean_log_growth=first + deviation,
            variance_log_growth=jnp.maximum(second - deviation**2, 0),
            mean_squared_cosine=square,
            smallest_angle=jnp.where(jnp.eye(first.size, dtype=bool), 0, angle),
            participation=participation,
        )


class AngleHistogram(CovariantReducer):
    """The reducer for a histogram of the smallest principal angle between the first `split` vectors and the others.

    Its result are the counts (num_bins,), whose sum is below the number of steps if the run is not finite. An angle
    that stays away from 0 indicates a hyperbolic splitting, one that comes close to 0 indicates tangencies.

    **Arguments:**

    - `split`: the number of vectors in the first group, at least 1 and below k.
    - `num_bins`: the number of equal bins from 0 to pi / 2, default 50.

    **Numerics:** O(d k^2) a step, with two orthonormalizations and two singular value decompositions: slow for many
    vectors.
    """

    split: int = eqx.field(static=True, converter=lambda n: check_count("split", n, 1))
    num_bins: int = eqx.field(
        static=True, converter=lambda n: check_count("num_bins", n, 1), default=50
    )

    def start(self, step) -> Int[Array, " b"]:
        if self.split >= step.growth.size:
            raise ValueError(
                f"split is {self.split}, but there are {step.growth.size} vectors to divide."
            )
        return jnp.zeros(self.num_bins, jnp.int32)

    def add(self, total, step):
        first, second = jnp.split(step.vectors, [self.split], axis=1)
        angle = principal_angles(first, second)[0]
        index = jnp.floor(angle / (jnp.pi / 2) * self.num_bins).astype(jnp.int32)
        index = jnp.clip(index, 0, self.num_bins - 1)
        # Drop angles that are NaN.
        return total.at[jnp.where(jnp.isnan(angle), self.num_bins, index)].add(1, mode="drop")

    def finish(self, total, num_steps):
        return total
