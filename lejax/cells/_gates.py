"""The tangent map of a layer of gates."""

import functools as ft

import jax.numpy as jnp
from jaxtyping import Array, Float


def weigh(
    coefficients: tuple[Float[Array, " h"], ...],
    weight: Float[Array, "gates*h h"],
    tangent: Float[Array, "h k"],
) -> Float[Array, "h k"]:
    r"""$\sum_a \mathrm{diag}(c_a)\, W_a\, Z$ over the gates a.

    Many columns need one product only, with the sum of the weighted matrices.
    """
    weights = jnp.split(weight, len(coefficients))
    pairs = zip(coefficients, weights, strict=True)
    if tangent.shape[1] < 16:
        return ft.reduce(jnp.add, (c[:, None] * (w @ tangent) for c, w in pairs))
    return ft.reduce(jnp.add, (c[:, None] * w for c, w in pairs)) @ tangent
