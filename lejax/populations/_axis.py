"""Spectra as features: finite, and those of different sizes on a common axis."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_values import check_count, check_vector


@checked
def resample_spectrum(exponents: Float[Array, " k"], num_points: int) -> Float[Array, " m"]:
    r"""A spectrum of k exponents as one of m, interpolated on the axis i / k.

    $$\lambda(x), \quad \lambda(i / k) = \lambda_i, \quad x = 1/m, 2/m, .., 1,$$

    linear in between and constant before 1/k. Large random networks have a limit on this axis.

    **Arguments:** `exponents` (k,), all of one network's, in descending order; `num_points` m.

    **Returns:** (m,) in the same unit; -inf between a finite exponent and one of -inf. With m = k it is the spectrum itself. With m < k the leading exponents are
    interpolated away: bring small spectra to the size of the largest.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.populations.resample_spectrum(jnp.array([0.0, -2.0]), 4)
        Array([ 0.,  0., -1., -2.], dtype=...)

    Vogt, Puelma Touzel, Shlizerman & Lajoie, Front. Appl. Math. Stat. 8 (2022).
    """
    exponents = check_vector("exponents", exponents)
    count, num_points = exponents.size, check_count("num_points", num_points, 1)
    have = jnp.arange(1, count + 1, dtype=exponents.dtype) / count
    want = jnp.arange(1, num_points + 1, dtype=exponents.dtype) / num_points
    lost = jnp.isneginf(exponents)
    is_lost = jnp.interp(want, have, lost.astype(exponents.dtype)) > 0
    return jnp.where(is_lost, -jnp.inf, jnp.interp(want, have, jnp.where(lost, 0, exponents)))


@checked
def bound_lost(exponents: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""A spectrum whose exponents of $-\infty$ are replaced by its least finite one, an upper bound of them.

    A unit that saturates so far that the derivative of its activation is zero in floating point loses a direction:
    $\lambda_i = -\infty$. No regression takes that. NaN, the mark of a diverged network, stays.

    **Arguments:** `exponents` (k,) of one network.

    **Returns:** (k,); all $-\infty$ if none is finite.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.populations.bound_lost(jnp.array([0.0, -2.0, -jnp.inf]))
        Array([ 0., -2., -2.], dtype=...)
    """
    exponents = check_vector("exponents", exponents)
    least = jnp.min(jnp.where(jnp.isfinite(exponents), exponents, jnp.inf))
    least = jnp.where(jnp.isfinite(least), least, -jnp.inf)
    return jnp.where(jnp.isneginf(exponents), least, exponents)
