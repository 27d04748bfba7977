"""Standard errors of quantities derived from a spectrum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core.check_annotations import checked
from .._core.check_values import check_vector
from .._core.closures import compiled
from .._core.statistics import Level, joinings, largest_error, weighted_mean
from .report import LyapunovSpectrum


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
    value = jax.tree_util.tree_map(jnp.asarray, function(spectrum.exponents))
    num_blocks = spectrum.block_exponents.shape[0]
    if num_blocks < 2:
        return value, jax.tree_util.tree_map(lambda x: jnp.full_like(x, jnp.nan), value)
    left_out = jax.vmap(function)(_left_out(spectrum.block_exponents, spectrum.block_steps))
    return value, jax.tree_util.tree_map(lambda values: _error(values, num_blocks), left_out)


def _counts(num_blocks: int) -> dict[int, int]:
    """The numbers of blocks of each length that joining makes, by how often a length was doubled."""
    return {level: -(-num_blocks // 2**level) for level in joinings(num_blocks)}


@compiled
def _left_out(blocks: Float[Array, "b k"], block_steps: Int[Array, " b"]) -> Float[Array, "n k"]:
    """The exponents without each block of each length."""
    num_blocks, weights = blocks.shape[0], block_steps.astype(blocks.dtype)
    counts = _counts(num_blocks)
    doublings = np.repeat(list(counts), list(counts.values()))
    numbers = np.concatenate([np.arange(count) for count in counts.values()])
    is_out = np.arange(num_blocks) >> doublings[:, None] == numbers[:, None]
    return jax.vmap(lambda out: weighted_mean(blocks, jnp.where(out, 0, weights)))(is_out)


@compiled
def _error(values: Float[Array, "n ..."], num_blocks: int) -> Float[Array, "..."]:
    levels, ends = [], np.cumsum(list(_counts(num_blocks).values()))
    for rows in jnp.split(values, ends[:-1]):
        count = rows.shape[0]
        # Of equal values exactly zero, whatever the rounding of their mean.
        shifted = rows - rows[:1]
        deviations = shifted - jnp.mean(shifted, axis=0, keepdims=True)
        levels.append(Level((count - 1) / count**0.5 * deviations, count))
    return largest_error(levels).error
