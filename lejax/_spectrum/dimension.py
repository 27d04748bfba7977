"""Kaplan-Yorke dimension and Kolmogorov-Sinai entropy from the exponents."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_values import check_count, check_exponents, check_tolerances
from .._core.closures import compiled
from .._core.statistics import namespace_of


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

    - `exponents`: (k,), in any order, finite or -inf.
    - `state_size`: d, the size of the state; default: unknown. If no cumulative sum is negative, D = d for k = d. For
        k < d, and if `state_size` is not given, D is then only known to be at least k and the result is NaN, unless the
        sum of all k is 0: then D = k.
    - `tolerance`: () or (k,), default 0. Exponents smaller than it in absolute value count as zero, since D jumps from
        0 to 1 when lambda_1 changes sign. So does the sum of all exponents if it is smaller than the smallest
        tolerance. Twice the standard errors is a reasonable value.

    **Returns:** (), 0 if all exponents are negative.

    **Raises:**

    - `ValueError`: if `tolerance` has another shape than () or (k,), or there are more exponents than `state_size`.
    - `ValueError`: if an exponent is NaN or `exponents` is a batch.

    **Numerics:** a sum of all exponents below $\sqrt{\epsilon}$ times the sum of their absolute values counts as 0, as
    in a map or flow that preserves volumes. This changes D by at most twice as much; its derivatives are 0 there.

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
            f"tolerance must be one number or one per exponent, {exponents.shape}, got shape {jnp.shape(tolerance)}."
        )
    if state_size is not None:
        state_size = check_count("state_size", state_size, 1)
        if num_exponents > state_size:
            raise ValueError(
                f"there are {num_exponents} exponents, but state_size is {state_size}."
            )
    return _dimension_of(exponents, state_size, tolerance)


def dimension_of(
    exponents: Float[Array, "*n k"],
    state_size: int | None,
    tolerance: float | Float[Array, " k"] = 0.0,
) -> Float[Array, " *n"]:
    """`kaplan_yorke_dimension` of every row, of arrays of JAX or of NumPy."""
    xp, num_exponents = namespace_of(exponents), exponents.shape[-1]

    def pick(values, index):
        index = xp.clip(index, 0, num_exponents - 1)
        return xp.take_along_axis(values, index[..., None], axis=-1)[..., 0]

    exponents = xp.where(xp.abs(exponents) < tolerance, 0, exponents)
    exponents = -xp.sort(-exponents, axis=-1)
    sums = xp.cumsum(exponents, axis=-1)
    rounding = float(jnp.finfo(exponents.dtype).eps) ** 0.5 * xp.sum(xp.abs(exponents), axis=-1)
    total = xp.abs(sums[..., -1])
    is_small = (total <= rounding) | (total < xp.min(xp.asarray(tolerance)))
    sum_is_zero = xp.isfinite(total) & is_small
    index = xp.sum(xp.cumprod(sums >= 0, axis=-1), axis=-1)
    not_reached = index == num_exponents
    partial_sum = xp.where(index == 0, 0, pick(sums, index - 1))
    next_exponent = xp.where(not_reached, -1, pick(exponents, index))
    fraction = partial_sum / xp.abs(next_exponent)
    dimension = xp.where(index == 0, 0, index.astype(exponents.dtype) + fraction)
    is_complete = state_size == num_exponents
    dimension = xp.where(not_reached, float(num_exponents) if is_complete else xp.nan, dimension)
    # If all exponents sum to 0 and the last is negative, so is the next one, and D = k.
    dimension = xp.where(
        sum_is_zero & (is_complete | (exponents[..., -1] < 0)), num_exponents, dimension
    )
    return xp.where(xp.any(xp.isnan(exponents), axis=-1), xp.nan, dimension)


_dimension_of = compiled(dimension_of)


@checked
def kolmogorov_sinai_entropy(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    r"""The sum of the positive exponents, an upper bound of the Kolmogorov-Sinai entropy.

    $$H \le \sum_{\lambda_i > 0} \lambda_i$$

    This is Ruelle's inequality; by Pesin's theorem equality holds for Sinai-Ruelle-Bowen measures. For a driven network
    H is the entropy of the fibres, given the input.

    **Arguments:**

    - `exponents`: (k,), in any order, with all positive exponents among them.

    **Returns:** (), in nats per step, or per unit time if the exponents are.

    **Raises:**

    - `ValueError`: if an exponent is NaN or `exponents` is a batch.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.kolmogorov_sinai_entropy(jnp.array([0.5, 0.25, -1.0])))
        0.75

    Ruelle, Bol. Soc. Bras. Mat. 9 (1978); Pesin, Russ. Math. Surv. 32 (1977).
    """
    return entropy_of(jnp.asarray(check_exponents(exponents)))


def entropy_of(exponents: Float[Array, "*n k"]) -> Float[Array, " *n"]:
    """`kolmogorov_sinai_entropy` of every row, of arrays of JAX or of NumPy."""
    xp = namespace_of(exponents)
    return xp.sum(xp.maximum(exponents, 0), axis=-1)
