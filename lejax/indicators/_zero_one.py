"""The 0-1 test for chaos."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count


@checked
def zero_one_test(
    series: Float[Array, " T"],
    *,
    num_frequencies: int = 100,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    r"""The 0-1 test for chaos from one observable: about 1 for chaos, about 0 for regular dynamics.

    $$p_c(n) = \sum_{j \le n} \phi_j \cos jc, \quad q_c(n) = \sum_{j \le n} \phi_j \sin jc, \quad
      M_c(n) = \langle [p_c(j + n) - p_c(j)]^2 + [q_c(j + n) - q_c(j)]^2 \rangle_j$$

    for the series $\phi$ minus its mean. K is the median over c of the correlation between n, up to T / 10, and
    $M_c(n)$: chaos drives (p, q) like a random walk, and M grows in proportion to n.

    **Arguments:**

    - `series`: (T,), an observable along an orbit after its transient, T of at least 100.
    - `num_frequencies`: the number of frequencies c, drawn uniformly from $(\pi / 5, 4 \pi / 5)$, default 100.
    - `key`: for the frequencies; `jax.random.key(0)` if `None`.

    **Returns:** K, (), from -1 to 1; NaN if the series is not finite.

    **Raises:**

    - `ValueError`: if `series` is not (T,) with T of at least 100.

    **Numerics:** O(T^2 / 10) for each frequency. A series sampled finely from a flow appears regular: use every n-th
    value, about a quarter of an oscillation apart.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> def k(r):
        ...     return lejax.indicators.zero_one_test(
        ...         lejax.unroll(lejax.systems.Logistic(r), jnp.array(0.3), num_steps=1200)[200:])
        >>> print(k(3.55) < 0.1, k(3.97) > 0.9)
        True True

    Gottwald & Melbourne, SIAM J. Appl. Dyn. Syst. 8 (2009).
    """
    series = jnp.asarray(series)
    if series.ndim != 1 or series.size < 100:
        raise ValueError(f"series must have shape (T,) with T of at least 100, got {series.shape}.")
    count = check_count("num_frequencies", num_frequencies, 1)
    key = jr.key(0) if key is None else key
    frequencies = jr.uniform(key, (count,), series.dtype, jnp.pi / 5, 4 * jnp.pi / 5)
    return _test(series, frequencies)


@jax.jit
def _test(series, frequencies):
    num_lags = series.size // 10
    kept = series.size - num_lags
    index = jnp.arange(1, series.size + 1)
    lags = jnp.arange(1, num_lags + 1)
    series = series - jnp.mean(series)

    def correlation(c):
        angle = index.astype(c.dtype) * c
        walk = jnp.cumsum(jax.lax.complex(series * jnp.cos(angle), series * jnp.sin(angle)))

        def displacement(lag):
            moved = jax.lax.dynamic_slice_in_dim(walk, lag, kept) - walk[:kept]
            return jnp.mean(jnp.real(moved) ** 2 + jnp.imag(moved) ** 2)

        square = jax.lax.map(displacement, lags)
        centered, times = square - jnp.mean(square), lags.astype(square.dtype)
        time = times - jnp.mean(times)
        spread = jnp.sqrt(jnp.sum(centered**2) * jnp.sum(time**2))
        value = jnp.where(spread > 0, centered @ time / jnp.where(spread > 0, spread, 1), 0)
        return jnp.where(jnp.isfinite(spread), value, jnp.nan)  # NaN for a series that diverged

    return jnp.median(jax.lax.map(correlation, frequencies))
