"""A pytree of arrays in an `.npz`: written whole or not at all, read without a pickle."""

import os
import tempfile
from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._array_files import load_arrays


T = TypeVar("T", bound=PyTree)


def save_arrays_of(file: str | os.PathLike[str], tree: PyTree) -> None:
    """All arrays of a pytree, each under its path; keys as their data."""
    path = _npz(file)
    arrays = {
        jtu.keystr(where): np.asarray(jr.key_data(leaf) if _is_key(leaf) else leaf)
        for where, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf)
    }
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot write {str(path)!r}: its folder does not exist.")
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_arrays_into(file: str | os.PathLike[str], like: T) -> T:
    """The pytree `like` with its arrays from a file: the same names, dtypes, and shapes but for axis 1 of an array
    that is empty in `like` or grew since."""
    path = _npz(file)
    arrays = load_arrays(path)
    wanted = {
        jtu.keystr(where) for where, leaf in jtu.tree_leaves_with_path(like) if eqx.is_array(leaf)
    }
    if wanted != arrays.keys():
        different = sorted(wanted ^ arrays.keys())[0]
        raise ValueError(
            f"{str(path)!r} does not hold such a population: {different} is in only one of them."
        )

    def read(where, leaf):
        if not eqx.is_array(leaf):
            return leaf
        name = jtu.keystr(where)
        new = arrays[name]
        old = jr.key_data(leaf) if _is_key(leaf) else leaf
        fixed = name.startswith((".networks", ".memory", ".hyperparameters", ".key"))
        if new.dtype != old.dtype or (fixed and new.shape != old.shape):
            raise ValueError(
                f"{str(path)!r} does not hold such a population: {name} is {new.dtype}{list(new.shape)}, "
                f"expected {old.dtype}{list(old.shape)}."
            )
        return jr.wrap_key_data(new, impl=jr.key_impl(leaf)) if _is_key(leaf) else jnp.asarray(new)

    return jtu.tree_map_with_path(read, like)


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _npz(file: str | os.PathLike[str]) -> Path:
    path = Path(file)
    if path.suffix != ".npz":
        raise ValueError(f"{str(path)!r} must end in .npz.")
    return path
