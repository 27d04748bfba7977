"""Arrays of another framework as weights of a cell: their checks, their precision, and how they are named in errors."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from .._core.check_values import find_nonfinite
from ..cells import GRUCell, LSTMCell, RNNCell, Stack


M = TypeVar("M", bound=eqx.Module)
_DTYPES = ("bfloat16", "float16", "float32", "float64")


class Refused(ValueError):
    """A file is damaged or asks for what lejax does not read; the message is a clause without the file's name."""


def as_array(
    name: str, value: Any, dtype: DTypeLike | None = None, order: Sequence[int] = (0,)
) -> Array:
    """A finite JAX array of a NumPy array, JAX array or torch tensor, in its own dtype or in another.

    `order` says where the equal parts of the first axis, such as gates, come from; there is one copy of all.
    Weights are cast before they are added to others, so that sums are rounded in the precision that was asked for.
    """
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
        array = jax.device_put(_copy(array, order))  # a copy, since PyTorch trains tensors in place
    if dtype is not None:
        array = array.astype(dtype)
    culprit = find_nonfinite(repr(name), array)
    if culprit:
        raise ValueError(f"{culprit} (as {array.dtype}).")
    return array


def _copy(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A copy in the machine's byte order, at a multiple of 64 bytes, where JAX shares memory and copies no more."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    dtype = array.dtype.newbyteorder("=")
    copy = memory[start : start + array.nbytes].view(dtype).reshape(array.shape)
    if len(order) == 1:
        copy[...] = array
        return copy
    parts = np.split(array, len(order))
    for target, source in zip(np.split(copy, len(order)), order, strict=True):
        target[...] = parts[source]
    return copy


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


def hint_on_nested(arrays: Mapping[Any, Any]) -> str:
    """Advice for a checkpoint, whose weights are in a dictionary inside of it."""
    for name in arrays if isinstance(arrays, dict) else ():
        if isinstance(arrays[name], Mapping):
            return f"; {name!r} is a dictionary: pass arrays[{name!r}]"
    return ""


def choose_prefix(what: str, found: Sequence[str], prefix: str | None) -> str:
    """The prefix of the only network of a model, or the one that was asked for."""
    if prefix is None:
        if len(found) > 1:
            raise ValueError(
                f"there are several {what}s, choose one by prefix=: {list_names(found)}."
            )
        return found[0]
    if prefix not in found:
        raise ValueError(f"no {what} has the prefix {prefix!r}, only {list_names(found)}.")
    return prefix


def stack(names: Sequence[str], cells: Sequence[RNNCell | GRUCell | LSTMCell]):
    """The only cell, or a `Stack` of cells whose sizes fit each other."""
    for (lower_name, lower), (name, cell) in itertools.pairwise(zip(names, cells, strict=True)):
        width, size = cell.weight_ih.shape[1], lower.weight_hh.shape[1]
        if width != size:
            raise Refused(
                f"{name!r} takes {width} inputs, but {lower_name!r} below has {size} units"
            )
    return cells[0] if len(cells) == 1 else Stack(cells)
