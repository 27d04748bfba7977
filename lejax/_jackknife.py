"""Standard errors of quantities derived from a spectrum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._check import check_vector
from ._signature import checked
from ._statistics import Level, joinings, largest_error, weighted_mean
from ._summary import LyapunovSpectrum


@checked
def jackknife(
    spectrum: LyapunovSpectrum, function: Callable[[Float[Array, " k"]], PyTree[Array]]
) -> tuple[PyTree[Array], PyTree[Array]]:
    r"""A function of the exponents and its standard error, by leaving out one block at a time.

    $$\hat\theta = f(\bar\lambda), \qquad
      \mathrm{se}^2 = \frac{B-1}{B} \sum_b \left(f(\bar\lambda_{-b}) - \overline{f(\bar\lambda_{-\cdot})}\right)^2$$

    where neighboring blocks are joined as for the errors of the spectrum itself, if that makes the error larger.

    **Arguments:** `spectrum`, of B blocks, whose `error_grows` says whether they are long enough; and `function`, from exponents (k,) to an
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

    # The blocks of each length that joining makes: the number of a block, and how often its length was doubled.
    counts = {level: -(-num_blocks // 2**level) for level in joinings(num_blocks)}
    doublings = jnp.concatenate([jnp.full(count, level) for level, count in counts.items()])
    numbers = jnp.concatenate([jnp.arange(count) for count in counts.values()])

    def without(number, doubling):
        is_out = jnp.arange(num_blocks) >> doubling == number
        return function(weighted_mean(blocks, jnp.where(is_out, 0, weights)))

    left_out = jax.vmap(without)(numbers, doublings)

    def error(values):
        levels, ends = [], np.cumsum(list(counts.values()))
        for rows in jnp.split(values, ends[:-1]):
            count = rows.shape[0]
            deviations = rows - jnp.mean(rows, axis=0, keepdims=True)
            levels.append(Level((count - 1) / count**0.5 * deviations, count))
        return largest_error(levels).error

    return value, jax.tree_util.tree_map(error, left_out)
