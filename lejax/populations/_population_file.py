"""A pytree of arrays that grows, in a checkpoint that knows whose it is."""

import os
from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._core.checkpoint import (
    Identity,
    check_arrays,
    check_file,
    check_same,
    damaged,
    read,
    save,
    to_path,
)


# The axes of a population that have one entry for each epoch or spectrum.
_GROWING = {
    ".training_loss": 1,
    ".validation_loss": 1,
    ".exponents": 1,
    ".standard_error": 1,
    ".unresolved": 1,
    ".spectrum_epochs": 0,
}

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
    path, settings = to_path(file), settings or {}
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

    _check_arrays(path, arrays, like)
    return jtu.tree_map_with_path(restore, like)


def _check_arrays(path: Path, arrays: dict[str, np.ndarray], like: PyTree) -> None:
    """The dtypes and shapes of `like`, but for what grows with the epochs and the spectra."""
    expected = {}
    for where, leaf in jtu.tree_leaves_with_path(like):
        if eqx.is_array(leaf):
            data = jax.eval_shape(jr.key_data, leaf) if _is_key(leaf) else leaf
            name = jtu.keystr(where)
            shape, axis = list(data.shape), _GROWING.get(name)
            if axis is not None and name in arrays and arrays[name].ndim == len(shape):
                shape[axis] = arrays[name].shape[axis]
            expected[name] = (data.dtype, tuple(shape))
    check_arrays(path, arrays, expected)
    lengths = {n: arrays[n].shape[axis] for n, axis in _GROWING.items() if n in arrays}
    if not lengths:
        return
    epochs, spectra = arrays[".training_loss"].shape[1], arrays[".spectrum_epochs"]
    evaluated = arrays[".validation_loss"].shape[1]
    if evaluated not in (epochs, epochs + 1):
        raise damaged(path, f"it holds losses of {epochs} epochs, but {evaluated} evaluations")
    for name in (".exponents", ".standard_error", ".unresolved"):
        if lengths[name] != len(spectra):
            raise damaged(path, f"its {name} are of {lengths[name]} spectra, not {len(spectra)}")
    if np.any(np.diff(spectra) <= 0) or np.any((spectra < 0) | (spectra > epochs)):
        raise damaged(path, f"its spectra are of the epochs {spectra.tolist()} of {epochs}")


def shapes(name: str, tree: PyTree) -> Identity:
    """The dtype and shape of each array of a pytree."""
    return {
        name + jtu.keystr(where): f"{leaf.dtype}{list(leaf.shape)}"
        for where, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf)
    }


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
