"""What every measure asks of the two series it compares."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import is_traced
from .._core.check_values import find_nonfinite


def check_series(name: str, series: Array) -> Float[Array, "t n"]:
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
    """Two series of as many dimensions, of which the true one is finite; the generated one may have diverged."""
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
