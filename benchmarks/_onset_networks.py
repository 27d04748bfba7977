"""Networks that learn a Lorenz system online while its parameters change, for onset_of_chaos.py."""

import functools
import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax


DT, WINDOW, BLOCK = 0.02, 16, 50
OLD = {"sigma": 20.0, "beta": 8 / 3, "rho": 28.0}
NEW = {"sigma": 10.0, "beta": 4 / 3, "rho": 28.0}
CENTER, SCALE = np.array([0.0, 0.0, 25.0]), 10.0


class Setting(NamedTuple):
    """What is fixed when the training is compiled."""

    raw: bool = True  # the network sees x, y, z as they are, or moved to 0 and divided by SCALE
    activation: str = "tanh"
    generated: bool = False  # the loss is that of the generated orbit, not of one step
    penalized: bool = False
    dropped: bool = False
    repeats: int = 1  # updates for each new sample
    steps: int = 1500  # samples of each regime


class Strengths(NamedTuple):
    """Learning rate and weights of every regularizer, arrays of one shape."""

    rate: jax.Array
    lyapunov: jax.Array
    l2: jax.Array
    l1: jax.Array
    dropout: jax.Array


class Network(eqx.Module):
    """The map from one state to the next: four hidden layers of 50 units, and a linear readout."""

    weights: list[jax.Array]
    biases: list[jax.Array]
    activation: str = eqx.field(static=True)

    def __call__(self, state, key=None, dropout=0.0):
        if key is not None:
            kept = jr.bernoulli(key, 1 - dropout, (4, 50)) / (1 - dropout)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            state = weight @ state + bias
            if i < 4:
                state = getattr(jax.nn, self.activation)(state)
                state = state if key is None else state * kept[i]
        return state


def draw_networks(generator: np.random.Generator, count: int, activation: str) -> Network:
    """Networks with weights and biases from U(-1, 1) / sqrt(fan-in)."""
    sizes = [3, 50, 50, 50, 50, 3]

    def uniform(*shape, fan_in):
        values = generator.uniform(-1, 1, (count, *shape)) / fan_in**0.5
        return jnp.asarray(values, jnp.float32)

    pairs = list(itertools.pairwise(sizes))
    return Network(
        [uniform(fan_out, fan_in, fan_in=fan_in) for fan_in, fan_out in pairs],
        [uniform(fan_out, fan_in=fan_in) for fan_in, fan_out in pairs],
        activation,
    )


def as_cell(network):
    return lambda _, state: network(state)


@functools.partial(jax.jit, static_argnames="num_steps")
def solve(parameters, starts, num_steps):
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(**parameters), dt=DT, substeps=4)
    return jax.vmap(lambda start: lejax.unroll(flow, start, num_steps=num_steps))(starts)


def draw_data(generator: np.random.Generator, count: int, setting: Setting):
    """Streams that change in their middle, and pairs of successive states of both regimes that are not in them."""
    starts = 1 + 0.3 * generator.standard_normal((17 * count, 3))
    old = np.asarray(solve(OLD, starts[: 9 * count], setting.steps))
    later = np.concatenate([old[:count, -1], starts[9 * count :]])
    new = np.asarray(solve(NEW, later, setting.steps))

    def pairs(orbits):
        orbits = orbits.reshape(count, 8, -1, 3)
        step = max(1, orbits.shape[2] // 32)
        first, second = orbits[:, :, :-1:step], orbits[:, :, 1::step]
        return first.reshape(count, -1, 3), second.reshape(count, -1, 3)

    stream = np.concatenate([old[:count], new[:count]], axis=1)
    data = stream, pairs(old[count:]), pairs(new[count:, setting.steps // 3 :])
    scale = (lambda x: x) if setting.raw else (lambda x: (x - CENTER) / SCALE)
    return jax.tree.map(lambda x: jnp.asarray(scale(x), jnp.float32), data)


def error(network, pairs):
    return jnp.mean((jax.vmap(network)(pairs[0]) - pairs[1]) ** 2)


def loss(network, samples, key, strengths: Strengths, setting: Setting):
    """The loss on a window of samples (window + 1, 3), with every regularizer."""
    before, after = samples[:-1], samples[1:]
    if setting.generated:
        outputs = lejax.unroll(as_cell(network), before[0], num_steps=len(before))
    elif setting.dropped:
        keys = jr.split(key, len(before))
        outputs = jax.vmap(lambda x, key: network(x, key, strengths.dropout))(before, keys)
    else:
        outputs = jax.vmap(network)(before)
    value = jnp.mean((outputs - after) ** 2)
    if setting.penalized:
        value += strengths.lyapunov * lejax.training.spectrum_penalty(
            as_cell(network),
            before[0],
            function=lambda exponents: jnp.abs(exponents[0]),
            num_exponents=1,
            num_steps=len(before),
            adjoint=lejax.DirectAdjoint(),
        )
    value += strengths.l2 * sum(jnp.sum(weight**2) for weight in network.weights)
    return value + strengths.l1 * sum(jnp.sum(jnp.abs(weight)) for weight in network.weights)


def make_update(stream, key, strengths: Strengths, setting: Setting):
    """The update of (network, memory of Adam) at one sample, which also returns the loss on it before the update."""
    optimizer = optax.scale_by_adam()

    def update(carry, index):
        network, memory = carry
        first = jnp.maximum(index - WINDOW, 0)
        samples = jax.lax.dynamic_slice(stream, (first, 0), (WINDOW + 1, 3))
        online = jnp.mean((network(samples[-2]) - samples[-1]) ** 2)
        for _ in range(setting.repeats):
            noise = jr.fold_in(key, index) if setting.dropped else key
            gradient = jax.grad(loss)(network, samples, noise, strengths, setting)
            change, memory = optimizer.update(gradient, memory)
            network = jax.tree.map(lambda p, c: p - strengths.rate * c, network, change)
        return (network, memory), online

    return update, optimizer.init


def learn(network, data, key, strengths: Strengths, setting: Setting):
    """Train one network online.

    Returns the loss on every new sample, the errors on pairs of the old and the new regime after every block, and the
    network before the change and at the end.
    """
    stream, old, new = data
    update, begin = make_update(stream, key, strengths, setting)

    def block(carry, start):
        carry, before_change = carry
        carry, online = jax.lax.scan(update, carry, start + jnp.arange(BLOCK))
        before_change = jax.tree.map(
            lambda kept, now: jnp.where(start < setting.steps, now, kept), before_change, carry[0]
        )
        return (carry, before_change), (online, error(carry[0], old), error(carry[0], new))

    starts = jnp.arange(0, 2 * setting.steps - BLOCK, BLOCK)
    start = (network, begin(network)), network
    ((network, _), before_change), (online, past, future) = jax.lax.scan(block, start, starts)
    return online.ravel(), past, future, (before_change, network)


def largest_exponent(network, state):
    """lambda_1 per step of the orbit that a network generates, over 500 steps."""
    spectrum = lejax.lyapunov_spectrum(
        as_cell(network), state, num_steps=500, num_exponents=1, throw=False
    )
    return spectrum.exponents[0]
