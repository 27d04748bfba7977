"""The compiled parts of a reconstruction: the updates of one epoch, and the choice of the best weights."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._core.cell import without_gradient
from .._core.closures import compiled
from ._teacher_forcing import forced_states


# Folded into the keys of a training, because the same keys may have drawn the weights.
_TRAINING = 2**31 - 1


class TrainingState(NamedTuple):
    """What an update changes, for s models.

    **Fields:**

    - `arrays`: the arrays of the models, each (s, ...).
    - `memory`: the state of the optimizer of each model.
    - `alpha` (s,): the strength of teacher forcing.
    """

    arrays: PyTree
    memory: PyTree
    alpha: Float[Array, " s"]


class Best(NamedTuple):
    """The weights with the lowest score so far.

    **Fields:**

    - `arrays`: the arrays of the models, each (s, ...).
    - `score` (s,): their scores, inf where there was none.
    - `epoch` (s,): the epochs after which they were taken, -1 where there was no score.
    """

    arrays: PyTree
    score: Float[Array, " s"]
    epoch: Int[Array, " s"]


@compiled
def train_epoch(state: TrainingState, keys, epoch, data, functions, forcing, training):
    """The state after the updates of an epoch, and the mean prediction loss of each model, (s,)."""
    series, inputs = data
    num_steps, num_updates = training.num_steps, training.updates_per_epoch
    weights, rest = eqx.partition(eqx.combine(state.arrays, functions), eqx.is_inexact_array)

    def draw(key):
        """The points of a batch of sequences, the same points with noise, and the inputs."""
        key_start, key_noise = jr.split(key)
        starts = jr.randint(key_start, (training.batch_size, 1), 0, series.shape[0] - num_steps)
        observed = series[starts + jnp.arange(num_steps + 1)]
        noisy = observed + training.noise * jr.normal(key_noise, observed.shape, observed.dtype)
        return observed, noisy, jax.tree.map(lambda x: x[starts + jnp.arange(num_steps)], inputs)

    def loss(weights, alpha, batch):
        model = eqx.combine(weights, rest)
        return batch_loss(model, batch, forcing.strengths(alpha, num_steps), training.penalty)

    def update(carry, number, key):
        weights, memory, alpha = carry
        batch = draw(key)
        _, noisy, batch_inputs = batch
        model = eqx.combine(weights, rest)
        # The inputs of a batch drive the steps from these points.
        estimates = jax.vmap(jax.vmap(model.observation.estimate))(noisy[:, :-1])
        alpha = forcing.adapt(alpha, number, model, estimates, batch_inputs)
        gradient, error = jax.grad(loss, has_aux=True)(weights, alpha, batch)
        change, memory = training.optimizer.update(gradient, memory, weights)
        return (optax.apply_updates(weights, change), memory, alpha), error

    def step(carry, number):
        update_keys = jax.vmap(lambda key: jr.fold_in(jr.fold_in(key, _TRAINING), number))(keys)
        # `number` is not batched, so that a `cond` on it stays a branch.
        return jax.vmap(update, in_axes=(0, None, 0))(carry, number, update_keys)

    numbers = epoch * num_updates + jnp.arange(num_updates)
    carry = (weights, state.memory, state.alpha)
    (weights, memory, alpha), errors = jax.lax.scan(step, carry, numbers)
    arrays = eqx.filter(eqx.combine(weights, rest), eqx.is_array)
    return TrainingState(arrays, memory, alpha), jnp.mean(errors, axis=0)


def batch_loss(model, batch, strengths, penalty):
    """The loss of a batch, and its part that is the prediction error."""
    observed, noisy, inputs = batch
    # Estimates are data: no gradient flows into the units that they overwrite.
    estimates = without_gradient(jax.vmap(jax.vmap(model.observation.estimate))(noisy[:, 1:]))
    starts = jax.vmap(model.start)(noisy[:, 0])
    states = jax.vmap(
        lambda start, estimates, inputs: forced_states(model, start, estimates, strengths, inputs)
    )(starts, estimates, inputs)
    error = jnp.mean((jax.vmap(jax.vmap(model.output))(states) - observed[:, 1:]) ** 2)
    return error if penalty is None else error + penalty(model, starts, inputs), error


@compiled
def choose_better(best: Best, arrays, functions, epoch, validation, score):
    """The score of each model, (s,), and the better of these models and the best so far."""
    models = eqx.combine(arrays, functions)
    value = eqx.filter_vmap(lambda model: score(model, *validation))(models)
    better = value < best.score  # False for NaN

    def choose(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return value, Best(
        arrays=jax.tree.map(choose, arrays, best.arrays),
        score=jnp.where(better, value, best.score).astype(best.score.dtype),
        epoch=jnp.where(better, epoch, best.epoch),
    )
