"""Spectra of different sizes on a common axis."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cell import check_count, check_vector


def resample_spectrum(exponents: Float[Array, " k"], num_points: int) -> Float[Array, " m"]:
    r"""A spectrum of k exponents as one of m, interpolated on the axis i / k.

    $$\lambda(x), \quad \lambda(i / k) = \lambda_i, \quad x = 1/m, 2/m, .., 1,$$

    linear in between and constant before 1/k. Large random networks have a limit on this axis.

    **Arguments:** `exponents` (k,), all of one network's, in descending order; `num_points` m.

    **Returns:** (m,) in the same unit. With m = k it is the spectrum itself. With m < k the leading exponents are
    interpolated away: bring small spectra to the size of the largest.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.embedding.resample_spectrum(jnp.array([0.0, -2.0]), 4)
        Array([ 0.,  0., -1., -2.], dtype=...)

    Vogt, Puelma Touzel, Shlizerman & Lajoie, Front. Appl. Math. Stat. 8 (2022).
    """
    exponents = check_vector("exponents", exponents)
    count, num_points = exponents.size, check_count("num_points", num_points, 1)
    have = jnp.arange(1, count + 1, dtype=exponents.dtype) / count
    want = jnp.arange(1, num_points + 1, dtype=exponents.dtype) / num_points
    return jnp.interp(want, have, exponents)
