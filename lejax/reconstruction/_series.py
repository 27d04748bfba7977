"""Checks of the series that a measure compares."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import is_traced
from .._core.check_values import find_nonfinite


def check_series(name: str, series: Array) -> Float[Array, "t n"]:
    """A series as an array of real floating-point numbers."""
    try:
        series = jnp.asarray(series)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    if series.ndim != 2 or not series.size:
        raise ValueError(f"{name} must have shape (T, N), got {series.shape}.")
    if not jnp.issubdtype(series.dtype, jnp.floating):
        raise TypeError(f"{name} must be real floating point, got {series.dtype}.")
    return series


def check_pair(true: Array, generated: Array) -> tuple[Float[Array, "t n"], Float[Array, "s n"]]:
    """Two series of equal dimension and dtype. The true one must be finite; the generated one may have diverged."""
    true, generated = check_series("true", true), check_series("generated", generated)
    if true.shape[1] != generated.shape[1]:
        raise ValueError(
            f"true has {true.shape[1]} dimensions, but generated has {generated.shape[1]}."
        )
    if not is_traced(true):
        problem = find_nonfinite("true", true)
        if problem is not None:
            raise ValueError(f"{problem}.")
    dtype = jnp.result_type(true, generated)
    return true.astype(dtype), generated.astype(dtype)
