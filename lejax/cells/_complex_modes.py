"""Complex modes of linear recurrences, stored as pairs of real numbers."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from .._engine.blocks import DiagonalBlock
from .._engine.push import tangent_dtype


def as_complex(pairs: Float[Array, "... 2"]) -> Complex[Array, "..."]:
    """Real pairs as complex numbers, of at least float32."""
    pairs = pairs.astype(tangent_dtype(pairs.dtype))
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def as_pairs(values: Complex[Array, "..."], dtype: jnp.dtype) -> Float[Array, "... 2"]:
    """Complex numbers as real pairs."""
    return jnp.stack([values.real, values.imag], axis=-1).astype(dtype)


def block_of_modes(log_moduli: Float[Array, "..."]) -> tuple[DiagonalBlock]:
    """The block of complex modes stored as real pairs: each modulus counts twice."""
    return (DiagonalBlock(jnp.repeat(log_moduli.ravel(), 2)),)


def log_uniform_steps(key: PRNGKeyArray, size: int, dtype: jnp.dtype) -> Float[Array, " size"]:
    """The logarithms of steps between 0.001 and 0.1, as S4 and Mamba draw them."""
    return jr.uniform(key, (size,), dtype, minval=jnp.log(1e-3), maxval=jnp.log(1e-1))
