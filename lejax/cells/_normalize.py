"""Vectors scaled to length one, to mean zero and variance one, and to root mean square one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def unit_vectors(vectors: Float[Array, "*m n"]) -> Float[Array, "*m n"]:
    """Vectors of length one along the last axis; one of zeros stays zero, and its derivative is zero."""
    # Scale vectors first, because squares may leave the range of small floats.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=-1, keepdims=True))
    vectors = vectors / jnp.where(size > 0, size, 1)
    squares = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.where(squares > 0, squares, jnp.inf))


def standardize(vectors: Float[Array, "*m n"], epsilon: float) -> Float[Array, "*m n"]:
    """Vectors minus their mean, over the root of their variance plus epsilon, along the last axis."""
    centered = vectors - jnp.mean(vectors, axis=-1, keepdims=True)
    variance = jnp.mean(centered**2, axis=-1, keepdims=True)
    return centered / jnp.sqrt(variance + epsilon)


def divide_by_rms(vectors: Float[Array, "*m n"], epsilon: float) -> Float[Array, "*m n"]:
    """Vectors over the root of their mean square plus epsilon, along the last axis."""
    return vectors / jnp.sqrt(jnp.mean(vectors**2, axis=-1, keepdims=True) + epsilon)
