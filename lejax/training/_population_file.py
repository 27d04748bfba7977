"""A pytree of arrays that grows, in a checkpoint that knows whose it is."""

import os
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..run._checkpoint import Identity, check_file, check_same, read, save


T = TypeVar("T", bound=PyTree)


def save_tree(file: str | os.PathLike[str], tree: PyTree, identity: Identity) -> None:
    """All arrays of a pytree, each under its path; keys as their data."""
    arrays = {
        jtu.keystr(where): np.asarray(jr.key_data(leaf) if _is_key(leaf) else leaf)
        for where, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf)
    }
    save(check_file(file), identity, arrays)


def load_tree(
    file: str | os.PathLike[str], like: T, identity: Identity, settings: Identity | None = None
) -> T:
    """The pytree `like` with its arrays from a file of the same identity, in their shapes there. Settings of the run
    that wrote it are compared where both know them."""
    path, settings = check_file(file), settings or {}
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    theirs, arrays = read(path)
    known = [name for name in settings if name in theirs]
    check_same(path, theirs, identity | settings, [*identity, *known])

    def restore(where, leaf):
        if not eqx.is_array(leaf):
            return leaf
        new = jnp.asarray(arrays[jtu.keystr(where)])
        return jr.wrap_key_data(new, impl=jr.key_impl(leaf)) if _is_key(leaf) else new

    return jtu.tree_map_with_path(restore, like)


def shapes(name: str, tree: PyTree) -> Identity:
    """The dtype and shape of each array of a pytree."""
    return {
        name + jtu.keystr(where): f"{leaf.dtype}{list(leaf.shape)}"
        for where, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf)
    }


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
