"""Dimension and entropy from the exponents."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_values import check_count, check_exponents, check_tolerances
from .._core.closures import compiled


@checked
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
        `state_size` is not given, only a lower bound is known then and the result is NaN, unless the sum of all k is 0: then
        D = k.
    - `tolerance`: exponents within it of zero count as zero, since D jumps from 0 to 1 when lambda_1
        changes sign, and so does the sum of all within the least of them. One number or one an exponent, e.g. twice the
        standard errors.

    A sum of all within rounding of 0, $\sqrt{\epsilon}$ of that of the absolute values, is 0: it is that of a map
    or flow that preserves volumes. D differs by no more than twice as much; its derivatives there are 0.

    **Returns:** a scalar, 0 if all exponents are negative.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.kaplan_yorke_dimension(jnp.array([0.9056, 0.0, -14.572])).round(4))
        2.0621

    Kaplan & Yorke (1979); Frederickson, Kaplan, Yorke & Yorke, J. Differ. Equ. 49 (1983).
    """
    exponents = check_exponents(exponents)
    tolerance = check_tolerances(tolerance)
    num_exponents = exponents.shape[-1]
    if jnp.shape(tolerance) not in ((), exponents.shape):
        raise ValueError(
            f"tolerance must be one number or one an exponent, {exponents.shape}, got shape {jnp.shape(tolerance)}."
        )
    if state_size is not None:
        state_size = check_count("state_size", state_size, 1)
        if num_exponents > state_size:
            raise ValueError(
                f"there are {num_exponents} exponents, but state_size is {state_size}."
            )
    return _kaplan_yorke_dimension(exponents, state_size, tolerance)


@compiled
def _kaplan_yorke_dimension(exponents, state_size, tolerance):
    num_exponents = exponents.shape[-1]
    exponents = jnp.where(jnp.abs(exponents) < tolerance, 0, exponents)
    exponents = -jnp.sort(-exponents)
    sums = jnp.cumsum(exponents)
    rounding = float(jnp.finfo(exponents.dtype).eps) ** 0.5 * jnp.sum(jnp.abs(exponents))
    total = jnp.abs(sums[-1])
    closes = jnp.isfinite(total) & ((total <= rounding) | (total < jnp.min(jnp.asarray(tolerance))))
    index = jnp.sum(jnp.cumprod(sums >= 0))
    beyond = index == num_exponents
    total = jnp.where(index == 0, 0, sums[jnp.maximum(index - 1, 0)])
    following = jnp.where(beyond, -1, exponents[jnp.minimum(index, num_exponents - 1)])
    dimension = jnp.where(index == 0, 0, index.astype(exponents.dtype) + total / jnp.abs(following))
    largest = jnp.nan if state_size != num_exponents else float(num_exponents)
    dimension = jnp.where(beyond, largest, dimension)
    # The next exponent is below 0 then, if there is one, unless all of these are 0.
    whole = state_size == num_exponents
    dimension = jnp.where(closes & (whole | (exponents[-1] < 0)), num_exponents, dimension)
    return jnp.where(jnp.any(jnp.isnan(exponents)), jnp.nan, dimension)


@checked
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
    return jnp.sum(jnp.maximum(check_exponents(exponents), 0))
