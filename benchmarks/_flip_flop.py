"""A GRU trained on the flip-flop task: remember the sign of the last pulse of each of a few channels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import lejax


def flip_flops(key, batch, num_steps, bits, rate=0.08):
    """Pulses of +-1 and the values to remember, (batch, T, bits)."""
    key_when, key_sign, key_first = jr.split(key, 3)
    shape = (batch, num_steps, bits)
    signs = jnp.where(jr.bernoulli(key_sign, shape=shape), 1.0, -1.0)
    pulses = jnp.where(jr.bernoulli(key_when, rate, shape), signs, 0.0)
    first = jnp.where(jr.bernoulli(key_first, shape=(batch, bits)), 1.0, -1.0)
    pulses = pulses.at[:, 0].set(first)

    def remember(memory, pulse):
        memory = jnp.where(pulse != 0, pulse, memory)
        return memory, memory

    start = jnp.zeros((batch, bits))
    _, targets = jax.lax.scan(remember, start, pulses.swapaxes(0, 1))
    return pulses, targets.swapaxes(0, 1)


def train(key, bits, size, iterations, num_steps=60, batch=32, learning_rate=1e-2):
    """Train a GRU. Returns cell and readout in float64, states it visits (n, size), and the last loss."""
    key_cell, key_readout, key_data, key_test = jr.split(key, 4)
    cell = lejax.cells.GRUCell(bits, size, dtype=jnp.float32, key=key_cell)
    readout = eqx.nn.Linear(size, bits, key=key_readout, dtype=jnp.float32)
    weights, rest = eqx.partition((cell, readout), eqx.is_array)
    schedule = optax.cosine_decay_schedule(learning_rate, iterations)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss(weights, pulses, targets):
        cell, readout = eqx.combine(weights, rest)

        def one(pulses):
            states = lejax.unroll(cell, cell.initial_state(), pulses)
            return jax.vmap(readout)(states)

        return jnp.mean((jax.vmap(one)(pulses) - targets) ** 2)

    def iterate(carry, key):
        weights, state = carry
        data = jax.tree.map(
            lambda x: x.astype(jnp.float32), flip_flops(key, batch, num_steps, bits)
        )
        value, gradient = jax.value_and_grad(loss)(weights, *data)
        updates, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), value

    @jax.jit
    def run(weights):
        keys = jr.split(key_data, iterations)
        return jax.lax.scan(iterate, (weights, optimizer.init(weights)), keys)

    (weights, _), losses = run(weights)
    weights = jax.tree.map(lambda x: x.astype(jnp.float64), weights)
    cell, readout = eqx.combine(weights, rest)
    pulses, _ = flip_flops(key_test, 8, 250, bits)
    states = jax.vmap(lambda u: lejax.unroll(cell, cell.initial_state(), u))(pulses)
    return cell, readout, states.reshape(-1, size), float(losses[-1])


def mixtures(key, states, count):
    """Points (count, size) on the segments between random pairs of states, as initial guesses."""
    key_first, key_second, key_share = jr.split(key, 3)
    first, second = (jr.choice(k, states, (count,)) for k in (key_first, key_second))
    return first + jr.uniform(key_share, (count, 1)) * (second - first)
