"""The state-space divergence: the difference between the distributions of the points of two series."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative, check_positive
from ._series import check_pair


_MOST_BINNED_DIMENSIONS = 5
_MOST_BINS = 200_000_000


@checked
def state_space_divergence(
    true: Float[Array, "t n"],
    generated: Float[Array, "s n"],
    *,
    num_bins: int = 30,
    margin: float = 0.1,
    pseudocount: float = 1e-5,
    num_samples: int = 1000,
    variance: float = 1.0,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    r"""The Kullback-Leibler divergence $D_{stsp}$ of the points of a generated series from those of the true series.

    $$D = \sum_k p_k \log \frac{p_k}{q_k}, \qquad p_k = \frac{c_k + \epsilon}{T + \epsilon K}$$

    up to 5 dimensions, where c counts the points of the true series in K bins, and q is p of the generated series. In
    more dimensions it is the divergence between mixtures with a Gaussian at every point,

    $$D \approx \frac{1}{n} \sum_{i \le n} \log \frac{p(x_i)}{q(x_i)}, \qquad
      p(x) = \frac{1}{T} \sum_t \mathcal{N}(x; x_t, \sigma^2 1), \quad x_i \sim p.$$

    **Arguments:**

    - `true` (T, N), `generated` (S, N): the two series, in the same units, best with the true one standardized.
    - `num_bins`: bins in each dimension, 30 by default. They cover the range of the true series and a margin on both
        sides. Generated points outside, including NaN, fall in no bin but count in S.
    - `margin`: the margin of the bins, in standard deviations of the true series, 0.1 by default.
    - `pseudocount`: $\epsilon$, 1e-5 by default.
    - `num_samples`: n, the samples from the mixture, 1000 by default. Only for more than 5 dimensions.
    - `variance`: $\sigma^2$, the variance of each Gaussian, 1 by default. Only for more than 5 dimensions.
    - `key`: the random key of the samples, required for more than 5 dimensions and unused otherwise.

    **Returns:** a scalar in nats; 0 for equal series. For mixtures it is NaN if a generated point is NaN, and an
    infinite point counts like one far away.

    **Raises:**

    - `ValueError`: if the series differ in dimension, the true one is not finite, an argument is out of range, the
        bins or samples exceed memory, or `key` is missing for more than 5 dimensions.

    **Numerics:** `num_bins`^N bins, or n (T + S) N products. The length of the series limits the precision: two
    consecutive stretches of Lorenz-63 itself, sampled at dt = 0.01, differ by 0.49 (0.17 to 1.5) with 10^4 points
    each and by 0.09 (0.06 to 0.13) with 5 10^4, medians and ranges of ten pairs (`benchmarks/reconstruction.py`).

    !!! example

        >>> import numpy as np, lejax
        >>> random = np.random.default_rng(0)
        >>> true, wider = random.normal(size=(50_000, 2)), 2 * random.normal(size=(50_000, 2))
        >>> divergence = lejax.reconstruction.state_space_divergence(true, wider)
        >>> print(f"{divergence:.1f}")  # 0.64 between the normal densities
        0.6

    Koppe, Toutounji, Kirsch, Lis & Durstewitz, PLoS Comput. Biol. 15 (2019); mixtures: Brenner et al., ICML (2022).
    """
    true, generated = check_pair(true, generated)
    num_bins = check_count("num_bins", num_bins, 2)
    num_samples = check_count("num_samples", num_samples, 1)
    check_positive("pseudocount", pseudocount)
    check_positive("variance", variance)
    check_not_negative("margin", margin)
    if true.shape[1] <= _MOST_BINNED_DIMENSIONS and num_bins ** true.shape[1] > _MOST_BINS:
        raise ValueError(
            f"num_bins is {num_bins}, which makes {num_bins}^{true.shape[1]} bins, but there is memory for "
            f"{_MOST_BINS:,}: take fewer bins or dimensions."
        )
    if true.shape[1] > _MOST_BINNED_DIMENSIONS and num_samples * true.shape[1] > _MOST_BINS:
        raise ValueError(
            f"num_samples is {num_samples}, which makes {num_samples} x {true.shape[1]} numbers, but there is memory "
            f"for {_MOST_BINS:,}: a thousand samples are usual."
        )
    if true.shape[1] <= _MOST_BINNED_DIMENSIONS:
        return _binned(true, generated, num_bins, margin, pseudocount)
    if key is None:
        raise ValueError(
            f"key is required for {true.shape[1]} dimensions: with more than {_MOST_BINNED_DIMENSIONS} the "
            "divergence is sampled."
        )
    return _mixtures(key, true, generated, num_samples, variance)


def _binned(true, generated, num_bins, margin, pseudocount):
    spread = margin * jnp.std(true, axis=0)
    low, high = jnp.min(true, axis=0) - spread, jnp.max(true, axis=0) + spread
    # A constant dimension still needs bins, of any width.
    width = jnp.where(high > low, (high - low) / num_bins, 1)
    total = num_bins ** true.shape[1]
    strides = num_bins ** np.arange(true.shape[1], dtype=np.int32)

    def probabilities(series):
        index = jnp.floor((series - low[None]) / width[None])
        inside = jnp.all((index >= 0) & (index < num_bins), axis=1)  # False for NaN
        index = jnp.where(inside[:, None], index, 0).astype(jnp.int32) @ strides
        counts = jnp.zeros(total, series.dtype).at[index].add(inside.astype(series.dtype))
        return (counts + pseudocount) / (series.shape[0] + pseudocount * total)

    p, q = probabilities(true), probabilities(generated)
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)))


def _mixtures(key, true, generated, num_samples, variance):
    key_center, key_noise = jr.split(key)
    chosen = jr.randint(key_center, (num_samples,), 0, true.shape[0])
    noise = jr.normal(key_noise, (num_samples, true.shape[1]), true.dtype)
    samples = true[chosen] + jnp.sqrt(jnp.asarray(variance, true.dtype)) * noise

    def log_density(sample, centers):
        squares = jnp.sum((centers - sample[None]) ** 2, axis=1)
        exponents = -squares / (2 * variance)
        return jax.scipy.special.logsumexp(exponents) - jnp.log(centers.shape[0])

    def log_ratio(sample):
        return log_density(sample, true) - log_density(sample, generated)

    return jnp.mean(jax.lax.map(log_ratio, samples))
