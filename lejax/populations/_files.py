"""Files of populations: the arrays of a pytree that grows from epoch to epoch, in a checkpoint."""

import os
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from .._core.checkpoint import (
    Identity,
    check_arrays,
    check_identity,
    damage_error,
    identify,
    prepare_path,
    read,
    save,
    to_path,
)
from ._network import Network
from ._population import Population


# The axis of each array of a population that has one entry for each epoch or spectrum.
_GROWING = {
    ".training_loss": 1,
    ".validation_loss": 1,
    ".exponents": 1,
    ".standard_error": 1,
    ".unresolved": 1,
    ".spectrum_epochs": 0,
}


@checked
def save_population(file: str | os.PathLike[str], population: Population) -> None:
    """Write all arrays of a population to an `.npz`, atomically: a write that fails leaves the old file.

    A function of the host: it cannot be traced.

    **Arguments:**

    - `file`: path that ends in `.npz`, in a folder that exists.
    - `population`: the `Population`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> population = lejax.populations.initialize_population(
        ...     lambda key: lejax.cells.RNNCell(1, 4, key=key),
        ...     lejax.populations.Hyperparameters(scale=jnp.ones(2)), 2, key=jax.random.key(0))
        >>> lejax.populations.save_population("population.npz", population)
        >>> lejax.populations.load_population("population.npz", population).epoch
        0
    """
    check_concrete("save_population", population)
    write(file, population)


@checked
def load_population(file: str | os.PathLike[str], like: Population) -> Population:
    """Read a population from a file. A function of the host: it cannot be traced.

    **Arguments:**

    - `file`: path that `save_population` or `train_population` has written.
    - `like`: a population with the same cells, hyperparameters and keys, for example the untrained one. All that is
      not an array (the class of the cell, its activation) comes from it.

    **Returns:** the `Population` in the file.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if the file is damaged or does not descend from `like`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> population = lejax.populations.initialize_population(
        ...     lambda key: lejax.cells.RNNCell(1, 4, key=key),
        ...     lejax.populations.Hyperparameters(scale=jnp.ones(2)), 2, key=jax.random.key(0))
        >>> lejax.populations.save_population("start.npz", population)
        >>> lejax.populations.load_population("start.npz", population).networks.cell.weight_hh.shape
        (2, 4, 4)
    """
    check_concrete("load_population", like)
    return load(file, like)


def write(
    file: str | os.PathLike[str], population: Population, settings: Identity | None = None
) -> None:
    """Write each array under its path in the pytree, keys as their data, and the settings of the run."""
    arrays = {
        jtu.keystr(path): np.asarray(jr.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in jtu.tree_leaves_with_path(population)
        if eqx.is_array(leaf)
    }
    save(prepare_path(file), _identity_of(population) | (settings or {}), arrays)


def load(
    file: str | os.PathLike[str], like: Population, settings: Identity | None = None
) -> Population:
    """Read the arrays of `like` from a file of the same identity, in the shapes they have there.

    Settings are compared only where the file has them: `save_population` writes none.
    """
    path, settings = to_path(file), settings or {}
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    identity = _identity_of(like)
    theirs, arrays = read(path)
    in_both = [name for name in settings if name in theirs]
    check_identity(path, theirs, identity | settings, [*identity, *in_both])

    def restore(where, leaf):
        if not eqx.is_array(leaf):
            return leaf
        new = jnp.asarray(arrays[jtu.keystr(where)])
        return jr.wrap_key_data(new, impl=jr.key_impl(leaf)) if _is_key(leaf) else new

    _check_shapes(path, arrays, like)
    _check_lengths(path, arrays)
    return jtu.tree_map_with_path(restore, like)


def _check_shapes(path: Path, arrays: dict[str, np.ndarray], like: Population) -> None:
    """The dtypes and shapes must be those of `like`, except on axes that grow."""
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


def _check_lengths(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The numbers of epochs, evaluations and spectra must agree."""
    lengths = {name: arrays[name].shape[axis] for name, axis in _GROWING.items()}
    epochs, evaluations = lengths[".training_loss"], lengths[".validation_loss"]
    spectra = arrays[".spectrum_epochs"]
    if evaluations not in (epochs, epochs + 1):
        raise damage_error(
            path, f"it holds losses of {epochs} epochs, but {evaluations} evaluations"
        )
    for name in (".exponents", ".standard_error", ".unresolved"):
        if lengths[name] != len(spectra):
            raise damage_error(
                path, f"its {name} are of {lengths[name]} spectra, not {len(spectra)}"
            )
    if np.any(np.diff(spectra) <= 0) or np.any((spectra < 0) | (spectra > epochs)):
        raise damage_error(path, f"its spectra are of the epochs {spectra.tolist()} of {epochs}")


def _identity_of(population: Population) -> Identity:
    """All that training does not change."""
    return {
        **_shapes("networks", population.networks),
        **_shapes("optimizer_state", population.optimizer_state),
        "kind of networks": _kind(population.networks),
        **identify("hyperparameters", population.hyperparameters),
        **identify("key", population.key),
        **identify("origin", population.origin),
    }


def _shapes(name: str, tree: PyTree) -> Identity:
    """The dtype and shape of each array of a pytree."""
    return {
        name + jtu.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf)
    }


def _kind(networks: Network) -> str:
    """Classes, shapes and functions as text, without the memory addresses of functions."""
    text = " ".join(eqx.tree_pformat(networks).split())
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
