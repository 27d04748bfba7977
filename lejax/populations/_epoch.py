"""One epoch of training, and one evaluation, of all networks of a population."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from .._core.batching import map_members
from .._core.closures import compiled
from ._network import mean_loss


@compiled
def train_epoch(networks, optimizer_state, hyperparameters, keys, examples, optimizer, batch_size):
    """Networks and optimizer state after one epoch, and the mean loss (n,) of its updates."""
    num_examples = examples.inputs.shape[0]
    num_updates = num_examples // batch_size

    def train(network, optimizer_state, hyperparameters, key):
        weights, rest = eqx.partition(network, eqx.is_inexact_array)
        key_order, key_dropout = jr.split(key)
        order = jr.permutation(key_order, num_examples)[: num_updates * batch_size]

        def loss(weights, indices, key):
            return mean_loss(
                eqx.combine(weights, rest),
                examples[indices],
                dropout=hyperparameters.dropout,
                key=key,
            )

        def update(carry, batch):
            weights, optimizer_state = carry
            value, gradient = jax.value_and_grad(loss)(weights, *batch)
            step, optimizer_state = optimizer.update(gradient, optimizer_state, weights)
            rate = hyperparameters.learning_rate
            step = jax.tree.map(lambda x: (-rate * x).astype(x.dtype), step)
            return (optax.apply_updates(weights, step), optimizer_state), value

        batches = order.reshape(num_updates, batch_size), jr.split(key_dropout, num_updates)
        (weights, optimizer_state), losses = jax.lax.scan(
            update, (weights, optimizer_state), batches
        )
        return weights, optimizer_state, jnp.mean(losses)

    weights, optimizer_state, loss = map_members(
        train, networks, optimizer_state, hyperparameters, keys
    )
    return eqx.combine(weights, networks), optimizer_state, loss


@compiled
def evaluate(networks, examples):
    """The mean loss (n,) of each network."""
    return map_members(lambda network: mean_loss(network, examples), networks)
