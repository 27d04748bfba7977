"""Checks of the types of arguments: array, key, flag, function, dtype, number, integer. Errors name the offender."""

import inspect
import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .cell import importer_of, is_traced


NUMBERS = frozenset("bcfiu")  # NumPy's letters for kinds of numbers, booleans among them


def check_array(name: str, value: Any, kinds: frozenset[str] = frozenset("fiu")) -> Any:
    """The array, which must be unmasked and of a dtype among `kinds` (NumPy's letters); in the machine's byte order.

    Numbers in a list become an array. A list of arrays stays a list, since it may be a pytree.
    """
    if isinstance(value, list | tuple) and any(map(eqx.is_array, jtu.tree_leaves(value))):
        return check_leaves(name, value)
    # JAX gives a Python number the dtype of the array that it is combined with: it is passed on as it is.
    is_weak = isinstance(value, bool | int | float | complex)
    given = value
    if not isinstance(value, Array):
        check_unmasked(name, value)
        try:
            value = np.asarray(value)
        except Exception as error:
            raise TypeError(f"{name} cannot be read as an array: {error}") from error
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    kind = kind_of(value.dtype)
    if kind == "c" and "f" in kinds and kind not in kinds:
        raise TypeError(f"{name} must be real, got {value.dtype}.")
    if kind not in kinds:
        names = {"c": "numbers", "f": "real numbers", "i": "integers", "b": "booleans"}
        expected = next(names[k] for k in names if k in kinds)
        is_object = value.dtype == object and value.ndim == 0
        got = text_of(value.item()) if is_object else value.dtype
        raise TypeError(f"{name} must be an array of {expected}, got {got}.")
    return given if is_weak else value


def kind_of(dtype: Any) -> str:
    """NumPy's letter of a dtype; `f` for JAX's bfloat16 too, `k` for keys."""
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "k"
    return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def check_unmasked(name: str, value: Any) -> None:
    """Refuse masked arrays: JAX ignores masks, so that masked values would count."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array: leave the masked values out, or replace them by .filled()."
        )


def check_leaves(name: str, tree: PyTree) -> PyTree:
    """The pytree, whose NumPy arrays must be unmasked numbers; in the machine's byte order."""
    if not any(isinstance(leaf, np.ndarray) for leaf in jtu.tree_leaves(tree)):
        return tree
    changed = False

    def check(path, leaf):
        nonlocal changed
        if not isinstance(leaf, np.ndarray):
            return leaf
        read = check_array(name + jtu.keystr(path), leaf, frozenset("bcfiu"))
        changed |= read is not leaf
        return read

    read = jtu.tree_map_with_path(check, tree)
    return read if changed else tree


def check_key(name: str, value: Any) -> Array:
    """The key of `jax.random`, which must not be a batch of keys or a seed."""
    is_key = isinstance(value, Array) and kind_of(value.dtype) == "k"
    is_legacy = isinstance(value, Array | np.ndarray) and value.dtype == np.uint32
    if not is_key and not is_legacy:
        seed = f"jax.random.key({value})" if type(value) is int else "jax.random.key(seed)"
        raise TypeError(f"{name} must be a key such as {seed}, got {text_of(value)}.")
    shape = value.shape if is_key else value.shape[:-1]
    if shape != () or (is_legacy and value.shape not in ((2,), (4,))):
        raise ValueError(
            f"{name} must be one key, got shape {value.shape}; use jax.vmap for a batch."
        )
    return jnp.asarray(value)


def text_of(value: Any) -> str:
    """The `repr` of a value, or its type if the `repr` is long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def check_flag(name: str, value: Any) -> bool:
    """The flag, which must be True or False: strings and numbers are refused."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {text_of(value)}.")
    return bool(value)


def check_callable(name: str, value: Any) -> Any:
    """The function or module, which must be callable and hold arrays that JAX can read."""
    if (
        inspect.isclass(value)
        and issubclass(value, eqx.Module)
        and name in ("cell", "net", "field")
    ):
        raise TypeError(
            f"{name} must be an instance, got the class {value.__name__}: call it first, {value.__name__}(...)."
        )
    if not callable(value):
        importer = importer_of(value)
        hint = "" if importer is None else f": make a cell of it, lejax.interop.{importer}"
        raise TypeError(
            f"{name} must be a function or an eqx.Module that can be called, got {text_of(value)}{hint}."
        )
    return check_leaves(name, value)


def check_dtype(name: str, value: Any) -> Any:
    """The dtype, which must be real floating point, or None for JAX's default."""
    try:
        is_real = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
        is_real &= not isinstance(value, Array | np.ndarray)
    except Exception:
        is_real = False
    if not is_real:
        raise TypeError(
            f"{name} must be a real floating-point dtype such as jnp.float32, got {text_of(value)}."
        )
    return value


def check_number(name: str, value: Any) -> Any:
    """The real number: a float stays static, an array stays traced."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, float | int | np.number | np.ndarray | Array
    ):
        raise TypeError(f"{name} must be a number, got {text_of(value)}.")
    if isinstance(value, np.ndarray | Array):
        check_array(name, value)
        if value.shape != ():
            raise ValueError(f"{name} must be one number, got shape {value.shape}.")
    elif isinstance(value, complex | np.complexfloating):
        raise TypeError(f"{name} must be real, got {value}.")
    return value


def check_integer(name: str, value: Any) -> int:
    """`value` as a Python int."""
    if is_traced(value):
        raise TypeError(f"{name} must be a Python integer, not a traced array: it decides shapes.")
    if isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {value}.")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {text_of(value)}.") from None
