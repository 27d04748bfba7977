"""Populations: many networks of one size, each with hyperparameters of its own, trained side by side."""

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
from .._core.closures import compiled
from ._network import Network


class Hyperparameters(eqx.Module):
    """Hyperparameters in which the n networks of a population differ. A number is taken for all of them.

    **Arguments:**

    - `scale`: factor (n,) on the weight matrices of the cell as drawn, not on its biases and time constants; at least
      0, 1 by default.
    - `learning_rate`: (n,), finite and at least 0, 3e-3 by default.
    - `dropout`: rate (n,) at which components of the cell's output are dropped during training, from 0 to below 1,
      0 by default.

    **Raises:**

    - `ValueError`: if the lengths differ or are 0, or a value is out of range.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.populations.Hyperparameters(scale=jnp.array([0.5, 1.0, 2.0])).learning_rate
        Array([0.003, 0.003, 0.003], dtype=...)
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
        if (0,) in sizes:
            raise ValueError(
                f"hyperparameters must be those of at least one network, got {shapes}."
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
    """n networks, the state of their training, and their losses and spectra. The first axis of every array is n.

    `initialize_population` makes it, `train_population` trains it. It is an ordinary pytree:
    `jax.tree.map(lambda x: x[3], population.networks)` is the fourth network.

    **Fields:**

    - `networks`: `Network` whose arrays have n as first axis.
    - `optimizer_state`: what the optimizer remembers of each network (Adam: means of gradients and of their squares),
      a pytree whose arrays have n as first axis.
    - `hyperparameters`: the `Hyperparameters`.
    - `key`: one key for each network (n,), which decides the order of its examples and what dropout drops.
    - `training_loss`: mean over the updates of each of e epochs (n, e).
    - `validation_loss`: before training and after each epoch (n, e+1); no columns before the first call of
      `train_population`.
    - `exponents`: spectra at the s chosen epochs (n, s, d).
    - `standard_error`: standard errors of these exponents (n, s, d).
    - `unresolved`: number of orthonormalizations of these spectra at which a direction was lost (n, s, d).
    - `spectrum_epochs`: the epochs of these spectra (s,), the one array without the axis n.
    - `origin`: sum of squares of the initial weights of each network (n,), by which a file of other networks is
      recognized.
    """

    networks: Network
    optimizer_state: PyTree
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
        """The number of epochs trained so far."""
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
    """Draw untrained networks, one for each entry of the hyperparameters.

    **Arguments:**

    - `make_cell`: function from a key to a cell. The weight matrices of the cell are then multiplied by the `scale` of
      the network. Weight matrices are arrays of two and more axes, except logarithms, whose names begin with `log_`,
      and the fields that the class of a cell lists in `not_weights` (the frequencies of an `S4DCell`).
    - `hyperparameters`: `Hyperparameters` of length n.
    - `num_outputs`: outputs of the readout, `examples.num_outputs`.
    - `optimizer`: the optax transformation that `train_population` will get; this call makes its state.
    - `key`: determines, with n, every network and its training.

    **Returns:** a `Population` at epoch 0.

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
    networks, optimizer_state, keys, origin = _initialize(
        jr.split(key, size), hyperparameters.scale, make_cell, num_outputs, optimizer
    )
    state = eqx.filter_eval_shape(eqx.filter_vmap(initial_state), networks.cell)
    state_size = sum(x.size for x in jax.tree.leaves(state)) // size
    no_losses = jnp.zeros((size, 0), networks.readout.weight.dtype)
    no_spectra = jnp.zeros((size, 0, state_size))
    return Population(
        networks=networks,
        optimizer_state=optimizer_state,
        hyperparameters=hyperparameters,
        key=keys,
        training_loss=no_losses,
        validation_loss=no_losses,
        exponents=no_spectra,
        standard_error=no_spectra,
        unresolved=no_spectra.astype(jnp.int32),
        spectrum_epochs=jnp.zeros(0, jnp.int32),
        origin=origin,
    )


@compiled
def _initialize(keys, scales, make_cell, num_outputs, optimizer):
    def make(key, scale):
        key_cell, key_readout, key_training = jr.split(key, 3)
        cell = _scale_weights(make_cell(key_cell), scale)
        network = Network(cell, num_outputs, key=key_readout)
        weights = eqx.filter(network, eqx.is_inexact_array)
        origin = sum(jnp.sum(x.astype(float) ** 2) for x in jax.tree.leaves(weights))
        return network, optimizer.init(weights), key_training, origin

    return eqx.filter_vmap(make)(keys, scales)


def _scale_weights(cell, scale):
    """Multiply the weight matrices of a cell, and of the cells it contains."""
    excluded = getattr(type(cell), "not_weights", ())

    def multiply(path, leaf):
        if isinstance(leaf, eqx.Module):
            return _scale_weights(leaf, scale)
        name = getattr(path[0], "name", "") if path else ""
        is_weight = eqx.is_inexact_array(leaf) and leaf.ndim > 1
        if not is_weight or name in excluded or name.startswith("log_"):
            return leaf
        return (scale * leaf).astype(leaf.dtype)

    def is_part(node):
        return node is not cell and isinstance(node, eqx.Module)

    return jtu.tree_map_with_path(multiply, cell, is_leaf=is_part)
