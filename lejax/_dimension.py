"""Dimension and entropy from the exponents."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._check import check_count, check_vector


def kaplan_yorke_dimension(
    exponents: Float[Array, " k"],
    state_size: int | None = None,
    tolerance: float | Float[Array, " k"] = 0.0,
) -> Float[Array, ""]:
    r"""The Kaplan-Yorke (Lyapunov) dimension.

    $$D = j + \frac{\sum_{i \le j} \lambda_i}{|\lambda_{j+1}|}$$

    with the exponents in descending order and j the largest index whose cumulative sum is not negative.

    **Arguments:**

    - `exponents`: (k,), any order; finite or -inf.
    - `state_size`: d, the size of the state. With k = d a sum that stays >= 0 means D = d; with k < d, or if
        `state_size` is not given, only a lower bound is known then and the result is NaN.
    - `tolerance`: exponents within it of zero count as zero, since D jumps from 0 to 1 when lambda_1
        changes sign. One number or one an exponent, e.g. twice the standard errors.

    **Returns:** a scalar, 0 if all exponents are negative.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.kaplan_yorke_dimension(jnp.array([0.9056, 0.0, -14.572])).round(4))
        2.0621

    Kaplan & Yorke (1979); Frederickson, Kaplan, Yorke & Yorke, J. Differ. Equ. 49 (1983).
    """
    exponents = check_vector("exponents", exponents)
    num_exponents = exponents.shape[-1]
    if state_size is not None:
        state_size = check_count("state_size", state_size, 1)
        if num_exponents > state_size:
            raise ValueError(
                f"there are {num_exponents} exponents, but state_size is {state_size}."
            )
    exponents = jnp.where(jnp.abs(exponents) < tolerance, 0, exponents)
    exponents = -jnp.sort(-exponents)
    sums = jnp.cumsum(exponents)
    index = jnp.sum(jnp.cumprod(sums >= 0))
    beyond = index == num_exponents
    total = jnp.where(index == 0, 0, sums[jnp.maximum(index - 1, 0)])
    following = jnp.where(beyond, -1, exponents[jnp.minimum(index, num_exponents - 1)])
    dimension = jnp.where(index == 0, 0, index.astype(exponents.dtype) + total / jnp.abs(following))
    largest = jnp.nan if state_size != num_exponents else float(num_exponents)
    dimension = jnp.where(beyond, largest, dimension)
    return jnp.where(jnp.any(jnp.isnan(exponents)), jnp.nan, dimension)


def kolmogorov_sinai_entropy(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    r"""The sum of the positive exponents, an upper bound of the Kolmogorov-Sinai entropy.

    $$H \le \sum_{\lambda_i > 0} \lambda_i$$

    (Ruelle's inequality; equality by Pesin's theorem for Sinai-Ruelle-Bowen measures). For a driven network it
    is the entropy of the fibres, given the input.

    **Arguments:** `exponents` (k,); all positive ones must be among them.
    **Returns:** a scalar in nats per step, or per unit time if the exponents are.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.kolmogorov_sinai_entropy(jnp.array([0.5, 0.25, -1.0])))
        0.75

    Ruelle, Bol. Soc. Bras. Mat. 9 (1978); Pesin, Russ. Math. Surv. 32 (1977).
    """
    return jnp.sum(jnp.maximum(check_vector("exponents", exponents), 0))
