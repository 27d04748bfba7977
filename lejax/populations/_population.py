"""Populations: many networks of one size trained side by side, each with hyperparameters of its own."""

import os
import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import initial_state, is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from .._core.checkpoint import Identity, identify
from .._core.closures import compiled
from ._network import Network
from ._population_file import load_tree, save_tree, shapes


class Hyperparameters(eqx.Module):
    """What differs between the n networks of a population; a number is taken for all of them.

    **Arguments:** `scale`, by which the cell's weight matrices as drawn are multiplied (not its biases, nor its times);
    `learning_rate`; `dropout`, the rate at which what the cell shows to the readout is dropped in training, at least 0 and below 1.
    """

    scale: Float[Array, " n"]
    learning_rate: Float[Array, " n"]
    dropout: Float[Array, " n"]

    @checked
    def __init__(
        self,
        scale: float | Float[Array, " n"] = 1.0,
        learning_rate: float | Float[Array, " n"] = 3e-3,
        dropout: float | Float[Array, " n"] = 0.0,
    ):
        values = {"scale": scale, "learning_rate": learning_rate, "dropout": dropout}
        shapes = {name: jnp.shape(value) for name, value in values.items()}
        sizes = {shape for shape in shapes.values() if shape}
        if len(sizes) > 1 or any(len(shape) > 1 for shape in sizes):
            raise ValueError(
                f"hyperparameters must be numbers or vectors of one length, got {shapes}."
            )
        if not is_traced(dropout) and not np.all(
            (np.asarray(dropout) >= 0) & (np.asarray(dropout) < 1)
        ):
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}.")
        rates = np.zeros(1) if is_traced(learning_rate) else np.asarray(learning_rate)
        if not np.all((rates >= 0) & np.isfinite(rates)):
            raise ValueError(
                f"learning_rate must not be negative and must be finite, got {learning_rate}."
            )
        if not is_traced(scale) and not np.all(np.asarray(scale) >= 0):
            raise ValueError(f"scale must be numbers of at least 0, got {scale}.")
        size = sizes.pop() if sizes else (1,)
        for name, value in values.items():
            setattr(self, name, jnp.broadcast_to(jnp.asarray(value, float), size))


class Population(eqx.Module):
    """n networks, what training remembers of them, and how they did; every array has n as first axis.

    A population is an ordinary pytree: `jax.tree.map(lambda x: x[3], population.networks)` is the fourth network.

    **Fields:**

    - `memory`: The state of the optimizer.
    - `key`: One key a network: it decides the order of its examples and what is dropped.
    - `training_loss` (n, e): Mean over the updates of each epoch.
    - `validation_loss` (n, e+1): Before training and after each epoch; no columns before the first call of
        `train_population`.
    - `exponents` (n, s, d): Spectra at the chosen epochs.
    - `unresolved` (n, s, d): In how many steps of these spectra a direction was lost.
    - `spectrum_epochs` (s,): The epochs of these spectra. The one array without the axis n.
    - `origin` (n,): The sum of squares of each network's weights as drawn: a file of other networks is known by
        it.
    """

    networks: Network
    memory: PyTree
    hyperparameters: Hyperparameters
    key: PRNGKeyArray
    training_loss: Float[Array, "n e"]
    validation_loss: Float[Array, "n e+1"]
    exponents: Float[Array, "n s d"]
    standard_error: Float[Array, "n s d"]
    unresolved: Int[Array, "n s d"]
    spectrum_epochs: Int[Array, " s"]
    origin: Float[Array, " n"]

    @property
    def epoch(self) -> int:
        """How many epochs were trained."""
        return self.training_loss.shape[1]


OPTIMIZER = optax.chain(optax.clip_by_global_norm(5.0), optax.scale_by_adam())


@checked
def initialize_population(
    make_cell: Callable[[PRNGKeyArray], Callable],
    hyperparameters: Hyperparameters,
    num_outputs: int,
    *,
    optimizer: optax.GradientTransformation = OPTIMIZER,
    key: PRNGKeyArray,
) -> Population:
    """Untrained networks, one for each entry of the hyperparameters.

    **Arguments:**

    - `make_cell`: a cell from a key. Its weight matrices are then multiplied by the network's `scale`: arrays of two and more
        axes, but for logarithms, whose names begin with `log_`, and what a cell's class lists in `not_weights` (the
        frequencies of an `S4DCell`).
    - `hyperparameters`: vectors of length n.
    - `num_outputs`: of the readout; `examples.num_outputs`.
    - `optimizer`: as in `train_population`.
    - `key`: a function of it and n is every network, and later its training.

    **Returns:** a `Population` that has seen nothing yet.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> population = lejax.populations.initialize_population(
        ...     lambda key: lejax.cells.RNNCell(8, 16, key=key),
        ...     lejax.populations.Hyperparameters(scale=jnp.geomspace(0.5, 5, 30)),
        ...     num_outputs=10, key=jax.random.key(0))
        >>> population.networks.cell.weight_hh.shape
        (30, 16, 16)
    """
    size = hyperparameters.scale.shape[0]
    networks, memory, keys, origin = _initialize(
        jr.split(key, size), hyperparameters.scale, make_cell, num_outputs, optimizer
    )
    state = eqx.filter_eval_shape(eqx.filter_vmap(initial_state), networks.cell)
    state_size = sum(x.size for x in jax.tree.leaves(state)) // size
    dtype = networks.readout.weight.dtype
    none = jnp.zeros((size, 0), dtype)
    spectra = jnp.zeros((size, 0, state_size))
    return Population(
        networks=networks,
        memory=memory,
        hyperparameters=hyperparameters,
        key=keys,
        training_loss=none,
        validation_loss=none,
        exponents=spectra,
        standard_error=spectra,
        unresolved=spectra.astype(jnp.int32),
        spectrum_epochs=jnp.zeros(0, jnp.int32),
        origin=origin,
    )


@checked
def save_population(file: str | os.PathLike[str], population: Population) -> None:
    """Write all arrays of a population to an `.npz`, in one piece or not at all. A function of the host: it cannot be traced.

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
    save_tree(file, population, identity_of(population))


@checked
def load_population(file: str | os.PathLike[str], like: Population) -> Population:
    """The population in a file, which must descend from `like`: same cells, hyperparameters and keys.

    A function of the host: it cannot be traced.

    **Arguments:** `file`, written by `save_population`; `like`, for instance the untrained population: what is not an
    array (the kind of cell, its activation) comes from it.

    **Raises:** `FileNotFoundError`; `ValueError` for a damaged file or another population.

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
    return load_tree(file, like, identity_of(like))


def identity_of(population: Population) -> Identity:
    """What training does not change."""
    return {
        **shapes("networks", population.networks),
        **shapes("memory", population.memory),
        "kind of networks": _kind(population.networks),
        **identify("hyperparameters", population.hyperparameters),
        **identify("key", population.key),
        **identify("origin", population.origin),
    }


def _kind(networks: Network) -> str:
    """Classes, shapes and functions; where these lie in memory says nothing."""
    text = " ".join(eqx.tree_pformat(networks).split())
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _scaled(cell, scale):
    """The cell with its weight matrices multiplied."""
    kept = getattr(type(cell), "not_weights", ())

    def multiply(path, leaf):
        if isinstance(leaf, eqx.Module):
            return _scaled(leaf, scale)
        name = getattr(path[0], "name", "") if path else ""
        is_weight = eqx.is_inexact_array(leaf) and leaf.ndim > 1
        if not is_weight or name in kept or name.startswith("log_"):
            return leaf
        return (scale * leaf).astype(leaf.dtype)

    def is_part(node):
        return node is not cell and isinstance(node, eqx.Module)

    return jtu.tree_map_with_path(multiply, cell, is_leaf=is_part)


@compiled
def _initialize(keys, scales, make_cell, num_outputs, optimizer):
    def make(key, scale):
        key_cell, key_readout, key_training = jr.split(key, 3)
        cell = _scaled(make_cell(key_cell), scale)
        network = Network(cell, num_outputs, key=key_readout)
        weights = eqx.filter(network, eqx.is_inexact_array)
        origin = sum(jnp.sum(x.astype(float) ** 2) for x in jax.tree.leaves(weights))
        return network, optimizer.init(weights), key_training, origin

    return eqx.filter_vmap(make)(keys, scales)
