"""Networks that learn the next point of a series, and how long their forecasts hold."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import lejax


WITHIN = 0.4
"""A forecast holds while its root mean square error over the standardized components is below this."""


class Encoded(lejax.RecurrentCell):
    """Layers that read points through a linear encoder."""

    encoder: eqx.nn.Linear
    layers: lejax.RecurrentCell

    def __call__(self, input, state):
        return self.layers(self.encoder(input), state)

    def initial_state(self):
        return self.layers.initial_state()

    def output(self, state):
        return self.layers.output(state)


def cast(tree, dtype):
    """Cast all floating-point arrays of a pytree to a dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


def read_points(loop, points):
    """States of a loop that reads points (T, n) in place of its own output. The output at t forecasts point t + 1."""
    return lejax.unroll(loop.cell, loop.cell.initial_state(), points)


def free_run(model, state, num_steps):
    """Forecasts (num_steps, n) of a cell without inputs. The first is the output at `state`."""
    later = lejax.unroll(model, state, num_steps=num_steps - 1)
    return jnp.concatenate([model.output(state)[None], jax.vmap(model.output)(later)])


def count_valid_steps(forecast, truth):
    """Number of points of a forecast (T, n) before its error reaches `WITHIN` or is NaN."""
    wrong = ~(jnp.sqrt(jnp.mean((forecast - truth) ** 2, axis=1)) < WITHIN)
    return jnp.where(jnp.any(wrong), jnp.argmax(wrong), truth.shape[0])


@eqx.filter_jit
def train(make_loop, key, series, num_updates, batch, length):
    """Train a `ClosedLoop` to forecast the next point from noisy points. Returns it and the losses (num_updates,).

    Adam on sequences of `length` points, without the losses of the first ten steps.
    """
    key_network, key_data = jr.split(key)
    arrays, rest = eqx.partition(make_loop(key_network), eqx.is_inexact_array)
    rate = optax.cosine_decay_schedule(5e-3, num_updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def loss(arrays, points, noise):
        loop = eqx.combine(arrays, rest)
        states = jax.vmap(lambda points: read_points(loop, points))(points[:, :-1] + noise)
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
