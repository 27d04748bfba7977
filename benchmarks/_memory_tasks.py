"""Tasks that need a memory of given length, and networks that learn them side by side."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import lejax


SIZE = 32
COUNTED = 70  # steps of a training sequence that the loss averages over


class Network(eqx.Module):
    """A cell and a linear readout of one logit, as in Engelken, NeurIPS (2023)."""

    cell: eqx.Module
    weight: jax.Array
    offset: jax.Array


def make_network(kind: str, key, size: int = SIZE) -> Network:
    key_cell, key_input, key_bias, key_readout = jr.split(key, 4)
    if kind == "rate":  # x' = J tanh(x) + b + w s, g = 1
        cell = lejax.cells.LeakyRNNCell(1, size, use_bias=True, dt=1.0, key=key_cell)
        cell = eqx.tree_at(
            lambda cell: (cell.weight_ih, cell.bias),
            cell,
            (jr.normal(key_input, (size, 1)), 0.1 * jr.uniform(key_bias, (size,))),
        )
    else:
        cell = {"GRU": lejax.cells.GRUCell, "LSTM": lejax.cells.LSTMCell}[kind](
            1, size, key=key_cell
        )
    return Network(cell, jr.normal(key_readout, (size,)), jnp.zeros(()))


class Task(NamedTuple):
    """From fair bits s predict one bit: `xor`, s_{t-d} XOR s_{t-2d}, or `copy`, s_{t-d}."""

    name: str
    delay: int

    @property
    def first(self) -> int:
        """The first step at which the answer is defined."""
        return self.delay * (2 if self.name == "xor" else 1)

    def draw(self, key, batch: int):
        """Sequences (batch, first + COUNTED, 1) and the answers (batch, COUNTED) from step `first` on."""
        bits = jr.bernoulli(key, 0.5, (batch, self.first + COUNTED))
        answer = bits[:, self.first - self.delay : -self.delay]
        if self.name == "xor":
            answer = answer ^ bits[:, :COUNTED]
        return bits[..., None].astype(float), answer


def logits(network: Network, inputs, first: int):
    states = lejax.unroll(network.cell, network.cell.initial_state(), inputs)
    return network.cell.output(states)[first:] @ network.weight + network.offset


OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.03), optax.adam(1e-3))


@eqx.filter_jit
def train(networks, optimizer_states, keys, task: Task, epochs: int, batch: int):
    """Update every network `epochs` times, each on a fresh batch. Also returns the losses (networks, epochs)."""

    def one(network, optimizer_state, key):
        trained, rest = eqx.partition(network, eqx.is_inexact_array)

        def loss(trained, key):
            inputs, answers = task.draw(key, batch)
            out = jax.vmap(logits, (None, 0, None))(eqx.combine(trained, rest), inputs, task.first)
            return jnp.mean(optax.sigmoid_binary_cross_entropy(out, answers))

        def update(carry, key):
            trained, optimizer_state = carry
            value, gradient = jax.value_and_grad(loss)(trained, key)
            change, optimizer_state = OPTIMIZER.update(gradient, optimizer_state, trained)
            return (optax.apply_updates(trained, change), optimizer_state), value

        (trained, optimizer_state), losses = jax.lax.scan(
            update, (trained, optimizer_state), jr.split(key, epochs)
        )
        return eqx.combine(trained, rest), optimizer_state, losses

    return eqx.filter_vmap(one)(networks, optimizer_states, keys)


@eqx.filter_jit
def start_training(networks):
    return eqx.filter_vmap(
        lambda network: OPTIMIZER.init(eqx.filter(network, eqx.is_inexact_array))
    )(networks)


@eqx.filter_jit
def accuracy(networks, key, task: Task):
    """The share of correct answers (networks,) on 64 fresh sequences."""
    inputs, answers = task.draw(key, 64)

    def one(network):
        out = jax.vmap(logits, (None, 0, None))(network, inputs, task.first)
        return jnp.mean((out > 0) == answers)

    return eqx.filter_vmap(one)(networks)


class Flossing(NamedTuple):
    """When to floss, how many exponents, and over how many steps."""

    schedule: lejax.training.FlossingSchedule
    num_exponents: int
    counted: int = 39
    transient: int = 16


@eqx.filter_jit
def floss(networks, keys, flossing: Flossing, num_updates: int):
    """Floss each network on its own sequences. Also returns the penalties (networks, num_updates)."""
    steps = flossing.transient + flossing.counted

    def one(network, key):
        bits = jr.bernoulli(key, 0.5, (num_updates, steps, 1)).astype(float)
        cell, penalties = lejax.training.floss(
            network.cell,
            network.cell.initial_state(),
            bits,
            optimizer=FLOSSER,
            num_exponents=flossing.num_exponents,
            transient=flossing.transient,
            throw=False,
        )
        return eqx.tree_at(lambda network: network.cell, network, cell), penalties

    return eqx.filter_vmap(one)(networks, keys)


FLOSSER = optax.adam(1e-3)


@eqx.filter_jit
def long_jacobian(networks, key, steps: int):
    """Medians over the networks of two logarithms to base 10: the condition number of the Jacobian over `steps` steps,
    from the sums of log R_ii, and the norm of the gradient of the readout by the state `steps` steps before."""

    def one(network):
        cell = network.cell
        bits = jr.bernoulli(key, 0.5, (steps + 30, 1)).astype(float)
        run = lejax.lyapunov_spectrum(
            cell, cell.initial_state(), bits, transient=30, num_blocks=1, throw=False
        )
        condition = steps * (jnp.max(run.exponents) - jnp.min(run.exponents)) / jnp.log(10.0)
        state = jax.tree.map(lambda x: x[-1], lejax.unroll(cell, cell.initial_state(), bits[:30]))

        def readout(state):
            last = jax.tree.map(lambda x: x[-1], lejax.unroll(cell, state, bits[30:]))
            return cell.output(last) @ network.weight

        gradient = jax.flatten_util.ravel_pytree(jax.grad(readout)(state))[0]
        return condition, jnp.log10(jnp.linalg.norm(gradient))

    condition, gradient = eqx.filter_vmap(one)(networks)
    return jnp.median(condition), jnp.median(gradient)
