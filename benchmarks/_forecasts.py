"""What studies of forecasting share: networks that learn the next point of a series, and how long their forecasts hold."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import lejax


WITHIN = 0.4
"""A forecast holds while its root mean square error over the components is below this, of standardized series."""


class Encoded(lejax.RecurrentCell):
    """Layers that read a point through an encoder."""

    encoder: eqx.nn.Linear
    layers: lejax.RecurrentCell

    def __call__(self, input, state):
        return self.layers(self.encoder(input), state)

    def initial_state(self):
        return self.layers.initial_state()

    def output(self, state):
        return self.layers.output(state)


def cast(tree, dtype):
    """The same in another floating-point type."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def hear(loop, points):
    """The states of a loop that reads points (T, n) and not itself; the t-th shows its forecast of the point after the t-th."""
    return lejax.unroll(loop.cell, loop.cell.initial_state(), points)


def run_on(model, state, num_steps):
    """Forecasts (num_steps, n) of a loop, or of another cell that runs alone, from the one that `state` shows."""
    later = lejax.unroll(model, state, num_steps=num_steps - 1)
    return jnp.concatenate([model.output(state)[None], jax.vmap(model.output)(later)])


def steps_that_hold(forecast, truth):
    """How many points of a forecast (T, n) come before its error reaches `WITHIN`. NaN does not hold."""
    wrong = ~(jnp.sqrt(jnp.mean((forecast - truth) ** 2, axis=1)) < WITHIN)
    return jnp.where(jnp.any(wrong), jnp.argmax(wrong), truth.shape[0])


@eqx.filter_jit
def train(make_loop, key, series, num_updates, batch, length):
    """A `ClosedLoop` whose cell has learned to forecast the next point from points with noise, and the losses.

    Adam on sequences of `length` points; those of the first ten steps do not count.
    """
    key_network, key_data = jr.split(key)
    arrays, rest = eqx.partition(make_loop(key_network), eqx.is_inexact_array)
    rate = optax.cosine_decay_schedule(5e-3, num_updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def loss(arrays, points, noise):
        loop = eqx.combine(arrays, rest)
        states = jax.vmap(lambda heard: hear(loop, heard))(points[:, :-1] + noise)
        predicted = jax.vmap(jax.vmap(loop.output))(states)
        return jnp.mean((predicted - points[:, 1:])[:, 10:] ** 2)

    def update(carry, key):
        arrays, optimizer_state = carry
        key_start, key_noise = jr.split(key)
        starts = jr.randint(key_start, (batch,), 0, len(series) - length)
        points = jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(series, start, length + 1))(
            starts
        )
        noise = 0.01 * jr.normal(key_noise, points[:, :-1].shape, points.dtype)
        value, gradient = jax.value_and_grad(loss)(arrays, points, noise)
        steps, optimizer_state = optimizer.update(gradient, optimizer_state)
        return (optax.apply_updates(arrays, steps), optimizer_state), value

    start = arrays, optimizer.init(arrays)
    (arrays, _), losses = jax.lax.scan(update, start, jr.split(key_data, num_updates))
    return eqx.combine(arrays, rest), losses
