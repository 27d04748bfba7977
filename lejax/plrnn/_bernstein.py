"""The first zero of several polynomials on [0, 1], certified by their Bernstein coefficients.

A polynomial lies in the convex hull of its Bernstein coefficients, and has as many zeros in the interval as they have
changes of sign, or an even number fewer: none where they have none, exactly one where they have one. No sampling can
overlook a pair of zeros; this count cannot either.
"""

from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def bernstein_coefficients(coefficients: Float[Array, "h n"]) -> Float[Array, "h n"]:
    """Of polynomials on [0, 1] given by their coefficients of 1, t, t^2, ..; weights in [0, 1], so that rounding stays
    below eps times the sum of the moduli."""
    degree = coefficients.shape[-1] - 1
    weights = [[comb(j, i) / comb(degree, i) for i in range(degree + 1)] for j in range(degree + 1)]
    return coefficients @ jnp.asarray(np.array(weights).T, coefficients.dtype)


def first_zero(
    coefficients: Float[Array, "h n"],
) -> tuple[Float[Array, ""], Bool[Array, " h"]]:
    r"""How far h polynomials, none negative at 0, are followed: to the first zero of any of them, or not as far.

    The interval [0, 1] is halved until each polynomial has at most one zero in what is left of it, by the signs of its
    Bernstein coefficients. Two zeros closer than sqrt(eps) are never told apart; between them a polynomial is at most
    eps times its second derivative below 0, and passes as not having crossed.

    **Returns:** where to stop, in (0, 1], and which polynomials turn negative there; none if that is only the end of
    what was certified.
    """
    dtype = coefficients.dtype
    most = jnp.finfo(dtype).nmant // 2
    order = jnp.arange(coefficients.shape[-1], dtype=dtype)

    def scaled(halvings):
        return coefficients * jnp.exp2(-halvings.astype(dtype) * order)[None]

    def is_undecided(halvings):
        negative = bernstein_coefficients(scaled(halvings)) < 0
        changes = jnp.sum(negative[:, 1:] != negative[:, :-1], axis=1)
        return jnp.any(changes > 1) & (halvings < most)

    none = jnp.zeros_like(coefficients, jnp.int32, shape=())
    halvings = jax.lax.while_loop(is_undecided, lambda n: n + 1, none)
    polynomials = scaled(halvings)
    crossed = jnp.sum(polynomials, axis=1) < 0
    zeros = jnp.where(crossed, _zero(polynomials, crossed), jnp.inf)
    first = jnp.min(zeros, initial=1.0)
    return first * jnp.exp2(-halvings.astype(dtype)), crossed & (zeros <= first)


def _zero(coefficients: Float[Array, "h n"], wanted: Bool[Array, " h"]) -> Float[Array, " h"]:
    """The zero of each wanted polynomial, not negative at 0 and negative at 1: Newton's method in a bracket."""
    # The step after one of this length is below rounding.
    tolerance = float(jnp.finfo(coefficients.dtype).eps) ** 0.6

    def step(carry):
        x, low, high, last, _ = carry
        value, slope = value_and_slope(coefficients, x)
        low, high = jnp.where(value < 0, low, x), jnp.where(value < 0, x, high)
        newton = x - value / jnp.where(slope == 0, 1, slope)
        is_good = (slope != 0) & (newton >= low) & (newton <= high)
        is_good &= jnp.abs(newton - x) <= last / 2  # else halve the bracket: one of both shrinks
        following = jnp.where(is_good, newton, (low + high) / 2)
        length = jnp.abs(following - x)
        return following, low, high, length, wanted & (length > tolerance)

    low = jnp.zeros_like(coefficients[:, 0])
    start = low + 0.5, low, low + 1, low + 1, wanted
    return jax.lax.while_loop(lambda carry: jnp.any(carry[-1]), step, start)[0]


def value_and_slope(
    coefficients: Float[Array, "h n"], x: Float[Array, " h"]
) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
    """Value and slope of h polynomials, each at its own point."""
    terms = powers(x, coefficients.shape[1])
    order = jnp.arange(1, coefficients.shape[1]).astype(x.dtype)
    slopes = jnp.sum(coefficients[:, 1:] * order[None] * terms[:, :-1], axis=1)
    return jnp.sum(coefficients * terms, axis=1), slopes


def powers(x: Float[Array, " h"], count: int) -> Float[Array, "h n"]:
    """1, x, x^2, .. of each, by doubling: products alone, so that all derivatives are right at 0 too."""
    terms, power = jnp.ones((len(x), 1), x.dtype), x[:, None]
    while terms.shape[1] < count:
        terms, power = jnp.concatenate([terms, terms * power], axis=1), power**2
    return terms[:, :count]
