"""Tasks, training, disturbances and measurements of `robustness.py`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax

import lejax


SIZE, BATCH, RATE = 32, 16, 1e-2
KINDS = {
    "tanh": lejax.cells.RNNCell,
    "GRU": lejax.cells.GRUCell,
    "LSTM": lejax.cells.LSTMCell,
}
NOISE = (0.1, 0.2, 0.4)  # standard deviations of the noise on the inputs of a test
LARGEST = {"int8": 127, "int4": 7, "int3": 3}  # the largest integer of a symmetric range
CONDITIONS = ("clean", *(f"noise {s}" for s in NOISE), "bfloat16", *LARGEST)
DRAWS = 4  # of the noise of a test
BACK = 10  # steps over which the growth of a perturbation is measured


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Sequences of inputs, and labels at some of their steps."""

    name: str
    input_size: int
    num_classes: int
    first: int  # the step of the first label
    stride: int
    draw: Callable  # from a key to a batch of sequences (B, T, i) and labels (B, m)
    validation: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]


def digits_task(images, labels) -> Task:
    """Streams of 8 digits that are read row by row and follow each other without a reset."""
    order = jr.permutation(jr.key(1797), len(labels))
    images = jnp.asarray(images, jnp.float32)[order].reshape(-1, 8, 8) / 16
    labels = jnp.asarray(labels)[order]

    def draw(key):
        drawn = jr.randint(key, (BATCH, 8), 0, 1200)
        return images[drawn].reshape(BATCH, 64, 8), labels[drawn]

    def held_out(first, last):
        return images[first:last].reshape(-1, 64, 8), labels[first:last].reshape(-1, 8)

    return Task("digits", 8, 10, 7, 8, draw, held_out(1200, 1496), held_out(1496, 1792))


def copy_task(delay: int = 10, length: int = 50) -> Task:
    """Random signs, of which each has to be named after some steps."""

    def draw(key, batch=BATCH):
        bits = jr.bernoulli(key, 0.5, (batch, length))
        return (2 * bits[..., None] - 1).astype(jnp.float32), bits[:, :-delay].astype(int)

    return Task("copy", 1, 2, delay, 1, draw, draw(jr.key(3), 50), draw(jr.key(4), 50))


class Network(eqx.Module):
    cell: eqx.Module
    readout: eqx.nn.Linear


@eqx.filter_jit
def make_networks(kind: str, task: Task, keys) -> Network:
    def one(key):
        key_cell, key_readout = jr.split(key)
        cell = KINDS[kind](task.input_size, SIZE, dtype=jnp.float32, key=key_cell)
        readout = eqx.nn.Linear(SIZE, task.num_classes, dtype=jnp.float32, key=key_readout)
        return Network(cell, readout)

    return eqx.filter_vmap(one)(keys)


def logits(network: Network, inputs, task: Task, noise=None):
    """The outputs (m, classes) of one sequence, with `noise` (T, d) on the state after each step."""
    cell = network.cell
    state = cell.initial_state()
    if noise is None:
        states = lejax.unroll(cell, state, inputs)
    else:
        _, unravel = jax.flatten_util.ravel_pytree(state)

        def noisy(pair, state):
            return jtu.tree_map(jnp.add, cell(pair[0], state), unravel(pair[1]))

        states = lejax.unroll(noisy, state, (inputs, noise))
    return jax.vmap(network.readout)(cell.output(states)[task.first :: task.stride])


class Setting(NamedTuple):
    """How a network is trained: a variant and how strong it is."""

    variant: str
    rate: float = RATE
    decay: float = 0.0  # of all weights, decoupled from the gradient as in AdamW
    inputs: float = 0.0  # standard deviations of the noise on the inputs and on the states
    states: float = 0.0
    bound: float = 0.0  # on the largest exponent, with the weight of the penalty
    weight: float = 0.0

    @property
    def parts(self) -> tuple[bool, bool, bool]:
        """What its update computes besides the loss: noise on inputs, on states, a penalty."""
        return self.inputs > 0, self.states > 0, self.weight > 0


@functools.cache
def trainer(task: Task, parts: tuple[bool, bool, bool]):
    """A compiled function that trains one network for each pair of a setting and a key."""
    on_inputs, on_states, penalized = parts
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

    def one(setting, network, key, updates):
        strength = Setting("", *setting)
        trained, rest = eqx.partition(network, eqx.is_inexact_array)
        state = network.cell.initial_state()
        dimension = sum(x.size for x in jtu.tree_leaves(state))

        def loss(trained, key):
            key_draw, key_inputs, key_states = jr.split(key, 3)
            network = eqx.combine(trained, rest)
            clean, labels = task.draw(key_draw)
            inputs, noise = clean, None
            if on_inputs:
                inputs = inputs + strength.inputs * jr.normal(
                    key_inputs, inputs.shape, inputs.dtype
                )
            if on_states:
                noise = strength.states * jr.normal(
                    key_states, (*inputs.shape[:2], dimension), inputs.dtype
                )
            out = jax.vmap(lambda x, n: logits(network, x, task, n))(inputs, noise)
            total = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(out, labels))
            if penalized:
                bounded = lejax.training.BandPenalty(
                    lejax.training.ExponentAt(0), upper=strength.bound
                )
                total += strength.weight * lejax.training.batch_penalty(
                    network.cell, None, clean, function=bounded, num_sequences=2, num_exponents=1, transient=5
                )  # fmt: skip
            return total

        def update(count, carry):
            trained, memory = carry
            gradient = jax.grad(loss)(trained, jr.fold_in(key, count))
            change, memory = optimizer.update(gradient, memory, trained)
            past = count / updates
            rate = strength.rate * jnp.minimum(1, 10 * past) * (1 + jnp.cos(jnp.pi * past)) / 2
            rate = rate.astype(jnp.float32)
            trained = jtu.tree_map(
                lambda x, c: x - rate * (c + strength.decay * x), trained, change
            )
            return trained, memory

        trained, _ = jax.lax.fori_loop(0, updates, update, (trained, optimizer.init(trained)))
        return eqx.combine(trained, rest)

    # Draws depend on the seed alone, so that all settings share them.
    over_seeds = eqx.filter_vmap(one, in_axes=(None, 0, 0, None))
    return eqx.filter_jit(eqx.filter_vmap(over_seeds, in_axes=(0, None, None, None)))


def train(kind: str, task: Task, settings: list[Setting], keys, updates: int) -> Network:
    """The trained networks (setting, seed) of settings that have the same parts."""
    strengths = tuple(jnp.asarray(x, jnp.float32) for x in list(zip(*settings, strict=True))[1:])
    networks = make_networks(kind, task, keys)
    return trainer(task, settings[0].parts)(strengths, networks, keys, jnp.asarray(updates))


def rounded(network: Network, largest: int | None) -> Network:
    """The network with every matrix in bfloat16, or in integers times one number for each matrix."""

    def rounded_matrix(x):
        if not eqx.is_inexact_array(x) or x.ndim < 2:
            return x
        if largest is None:
            return x.astype(jnp.bfloat16).astype(x.dtype)
        scale = jnp.max(jnp.abs(x)) / largest
        return jnp.round(x / scale) * scale

    return jtu.tree_map(rounded_matrix, network)


@functools.cache
def measurer(task: Task):
    """A compiled function that measures networks (setting, seed): see `measure`."""

    def accuracy(network, inputs, labels):
        out = jax.vmap(lambda x: logits(network, x, task))(inputs)
        return jnp.mean(jnp.argmax(out, -1) == labels, dtype=jnp.float32)

    def accuracies(network, split, key):
        inputs, labels = split
        noise = jr.normal(key, (DRAWS, *inputs.shape), inputs.dtype)
        noisy = inputs + jnp.asarray(NOISE, inputs.dtype)[:, None, None, None, None] * noise
        on_noise = jax.vmap(jax.vmap(lambda x: accuracy(network, x, labels)))(noisy)
        others = [network, *(rounded(network, largest) for largest in (None, *LARGEST.values()))]
        others = jtu.tree_map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *others)
        clean, *on_rounded = eqx.filter_vmap(lambda n: accuracy(n, inputs, labels))(others)
        return jnp.stack([clean, *jnp.mean(on_noise, axis=1), *on_rounded])

    def growth(network, inputs):
        """Root mean square factor by which BACK steps stretch a random small change of the state."""
        cell = network.cell
        states = lejax.unroll(cell, cell.initial_state(), inputs)
        starts = jnp.arange(20, len(inputs) - BACK, BACK)
        start, unravel = jax.flatten_util.ravel_pytree(cell.initial_state())
        changes = jr.normal(jr.key(5), (len(starts), start.size), start.dtype)
        changes /= jnp.linalg.norm(changes, axis=1, keepdims=True)

        def one(step, change):
            state = jtu.tree_map(lambda x: x[step - 1], states)
            part = jax.lax.dynamic_slice_in_dim(inputs, step, BACK)

            def end(state):
                last = jtu.tree_map(lambda x: x[-1], lejax.unroll(cell, state, part))
                return jax.flatten_util.ravel_pytree(last)[0]

            return jnp.sum(jax.jvp(end, (state,), (unravel(change),))[1] ** 2)

        return jnp.sqrt(jnp.mean(jax.vmap(one)(starts, changes)))

    def sensitivity(network, inputs):
        """Root mean square change of the logits for small noise on the inputs, over noise and logits' deviation."""
        noise = 1e-2 * jr.normal(jr.key(6), inputs.shape, inputs.dtype)
        out = jax.vmap(lambda x: logits(network, x, task))
        before, after = out(inputs), out(inputs + noise)
        return jnp.sqrt(jnp.mean((after - before) ** 2)) / 1e-2 / jnp.std(before)

    def one(network):
        inputs = task.test[0]
        stream = inputs.reshape(-1, task.input_size)
        spectrum = lejax.lyapunov_spectrum(
            network.cell, network.cell.initial_state(), stream,
            num_exponents=1, transient=64, throw=False,
        )  # fmt: skip
        matrices = [x for x in jtu.tree_leaves(network) if eqx.is_inexact_array(x) and x.ndim > 1]
        return {
            "validation": accuracies(network, task.validation, jr.key(1)),
            "test": accuracies(network, task.test, jr.key(2)),
            "exponent": spectrum.exponents[0],
            "error": spectrum.standard_error[0],
            "growth": growth(network, stream),
            "sensitivity": sensitivity(network, inputs),
            "largest_weight": jnp.mean(jnp.stack([jnp.max(jnp.abs(x)) for x in matrices])),
        }

    return eqx.filter_jit(eqx.filter_vmap(eqx.filter_vmap(one)))


def measure(networks: Network, task: Task) -> dict[str, np.ndarray]:
    """Accuracies under CONDITIONS, and what may predict them, of networks (setting, seed)."""
    return {name: np.asarray(x) for name, x in measurer(task)(networks).items()}
