"""Arrays of another framework as weights of a cell: their checks, their precision, and how they are named in errors."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from .._core.check_values import find_nonfinite


M = TypeVar("M", bound=eqx.Module)
_DTYPES = ("bfloat16", "float16", "float32", "float64")


def as_array(name: str, value: Any) -> Array:
    """A finite JAX array of a NumPy array, JAX array or torch tensor."""
    try:
        array = _as_numpy(value)
    except Exception as error:
        raise TypeError(
            f"{name!r} cannot be read as an array: {type(error).__name__}: {error}"
        ) from error
    if array.dtype.name not in _DTYPES:
        raise TypeError(
            f"{name!r} has dtype {array.dtype}, but weights must be one of {', '.join(_DTYPES)}."
        )
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which is reported
        # A copy, since PyTorch trains tensors in place.
        array = jnp.array(array.astype(array.dtype.newbyteorder("="), copy=False), copy=True)
    culprit = find_nonfinite(repr(name), array)
    if culprit:
        raise ValueError(f"{culprit} (as {array.dtype}).")
    return array


def _as_numpy(value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()  # a torch tensor, recognized by its methods
    if str(value.dtype) == "torch.bfloat16":  # NumPy has no bfloat16; the way over float32 is exact
        return value.float().numpy().astype(jnp.bfloat16)
    return value.numpy()


def cast(cell: M, dtype: DTypeLike) -> M:
    """The cell in another precision, in which its weights must still be finite."""
    dtype = jnp.dtype(dtype)
    cell = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, cell)
    culprit = find_nonfinite("the cell", cell)
    if culprit:
        raise ValueError(f"{culprit} (as {dtype}).")
    return cell


def list_names(names) -> str:
    """Up to eight names in quotes, and the number of the others."""
    names = [repr(name) for name in names]
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" * (len(names) > 8))) or "nothing"
