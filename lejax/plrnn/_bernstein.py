"""Find the first zero of several polynomials on [0, 1], certified by their Bernstein coefficients.

A polynomial lies in the convex hull of its Bernstein coefficients. Its number of zeros in the interval is the number of
their sign changes, or smaller by an even number: none if there is no sign change, exactly one if there is one. Unlike
sampling, this count cannot overlook a pair of zeros.
"""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def bernstein_coefficients(coefficients: Float[Array, "h n"]) -> Float[Array, "h n"]:
    """The Bernstein coefficients on [0, 1] of h polynomials given by their n coefficients of 1, t, t^2, ...

    The weights of the sum lie in [0, 1], so that rounding errors stay below eps times the sum of the moduli.
    """
    degree = coefficients.shape[-1] - 1
    weights = [[comb(j, i) / comb(degree, i) for i in range(degree + 1)] for j in range(degree + 1)]
    return coefficients @ jnp.asarray(np.array(weights).T, coefficients.dtype)


def first_zero(
    coefficients: Float[Array, "h n"],
) -> tuple[Float[Array, ""], Bool[Array, " h"]]:
    r"""The first zero in (0, 1] of h polynomials that are not negative at 0, or a point up to which they have none.

    The interval [0, 1] is halved until the signs of the Bernstein coefficients prove that each polynomial has at most
    one zero in the rest of it. Two zeros closer than sqrt(eps) are not resolved: between them a polynomial is at most
    eps times its second derivative below 0, and counts as not crossing.

    **Returns:** the point in (0, 1], and which polynomials become negative there. These are none if the point is only
    the end of the certified interval.
    """
    dtype = coefficients.dtype
    max_halvings = jnp.finfo(dtype).nmant // 2
    order = jnp.arange(coefficients.shape[-1], dtype=dtype)

    def scaled(halvings):
        return coefficients * jnp.exp2(-halvings.astype(dtype) * order)[None]

    def is_undecided(halvings):
        negative = bernstein_coefficients(scaled(halvings)) < 0
        changes = jnp.sum(negative[:, 1:] != negative[:, :-1], axis=1)
        return jnp.any(changes > 1) & (halvings < max_halvings)

    zero = jnp.zeros_like(coefficients, jnp.int32, shape=())
    halvings = jax.lax.while_loop(is_undecided, lambda n: n + 1, zero)
    polynomials = scaled(halvings)
    crossed = jnp.sum(polynomials, axis=1) < 0
    zeros = jnp.where(crossed, _zero(polynomials, crossed), jnp.inf)
    first = jnp.min(zeros, initial=1.0)
    return first * jnp.exp2(-halvings.astype(dtype)), crossed & (zeros <= first)


def _zero(coefficients: Float[Array, "h n"], wanted: Bool[Array, " h"]) -> Float[Array, " h"]:
    """The zero of each wanted polynomial, not negative at 0 but negative at 1, by Newton's method in a bracket."""
    # Convergence is quadratic: after a step of this length the next one is below rounding.
    tolerance = float(jnp.finfo(coefficients.dtype).eps) ** 0.6

    def step(carry):
        x, low, high, last, _ = carry
        value, slope = value_and_slope(coefficients, x)
        low, high = jnp.where(value < 0, low, x), jnp.where(value < 0, x, high)
        newton = x - value / jnp.where(slope == 0, 1, slope)
        is_good = (slope != 0) & (newton >= low) & (newton <= high)
        # Bisect otherwise: either the step or the bracket is halved.
        is_good &= jnp.abs(newton - x) <= last / 2
        new_x = jnp.where(is_good, newton, (low + high) / 2)
        length = jnp.abs(new_x - x)
        return new_x, low, high, length, wanted & (length > tolerance)

    low = jnp.zeros_like(coefficients[:, 0])
    start = low + 0.5, low, low + 1, low + 1, wanted
    return jax.lax.while_loop(lambda carry: jnp.any(carry[-1]), step, start)[0]


def value_and_slope(
    coefficients: Float[Array, "h n"], x: Float[Array, " h"]
) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
    """The values and slopes of h polynomials, each at its own point."""
    terms = powers(x, coefficients.shape[1])
    order = jnp.arange(1, coefficients.shape[1]).astype(x.dtype)
    slopes = jnp.sum(coefficients[:, 1:] * order[None] * terms[:, :-1], axis=1)
    return jnp.sum(coefficients * terms, axis=1), slopes


def powers(x: Float[Array, " h"], count: int) -> Float[Array, "h n"]:
    """The powers 1, x, x^2, .. of each number, by products alone, so that all derivatives are right at 0 too."""
    terms, power = jnp.ones((len(x), 1), x.dtype), x[:, None]
    while terms.shape[1] < count:
        terms, power = jnp.concatenate([terms, terms * power], axis=1), power**2
    return terms[:, :count]
