"""Standard errors of quantities derived from a spectrum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._check import check_vector
from ._spectrum import LyapunovSpectrum
from ._statistics import weighted_mean


def jackknife(
    spectrum: LyapunovSpectrum, function: Callable[[Float[Array, " k"]], PyTree[Array]]
) -> tuple[PyTree[Array], PyTree[Array]]:
    r"""A function of the exponents and its standard error, by leaving out one block at a time.

    $$\hat\theta = f(\bar\lambda), \qquad
      \mathrm{se}^2 = \frac{B-1}{B} \sum_b \left(f(\bar\lambda_{-b}) - \overline{f(\bar\lambda_{-\cdot})}\right)^2$$

    **Arguments:** `spectrum`, whose B blocks are taken as independent, and `function`, from exponents (k,) to an
    array or a pytree of arrays. Correlations between exponents are accounted for, since a block carries all of them.

    **Returns:** `(value, standard_error)`. The error is NaN with fewer than 2 blocks and where a value is infinite.
    Where `function` jumps (the Kaplan-Yorke dimension near a zero exponent) no error from blocks is representative.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=10_000)
        >>> value, error = lejax.jackknife(spectrum, lejax.kaplan_yorke_dimension)
        >>> print(f"{value:.2f} +- {error:.2f}")
        1.26 +- 0.00

    Efron & Stein, Ann. Statist. 9 (1981).
    """
    check_vector("spectrum.exponents", spectrum.exponents)
    blocks, weights = spectrum.block_exponents, spectrum.block_steps.astype(spectrum.dt.dtype)
    num_blocks = blocks.shape[0]
    value = jax.tree_util.tree_map(jnp.asarray, function(spectrum.exponents))
    if num_blocks < 2:
        return value, jax.tree_util.tree_map(lambda x: jnp.full_like(x, jnp.nan), value)

    def without(index):
        return function(
            weighted_mean(blocks, jnp.where(jnp.arange(num_blocks) == index, 0, weights))
        )

    left_out = jax.vmap(without)(jnp.arange(num_blocks))

    def error(values):
        spread = jnp.mean((values - jnp.mean(values, axis=0, keepdims=True)) ** 2, axis=0)
        positive = spread > 0
        root = jnp.sqrt((num_blocks - 1) * jnp.where(positive, spread, 1))
        return jnp.where(positive, root, jnp.where(jnp.isfinite(spread), 0, jnp.nan))

    return value, jax.tree_util.tree_map(error, left_out)
