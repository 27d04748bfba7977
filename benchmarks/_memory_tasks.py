"""Tasks that need a memory of given length, and networks that learn them in parallel."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import lejax


SIZE = 32
COUNTED = 70  # steps of a training sequence on which the loss is counted


class Network(eqx.Module):
    """A cell and a linear readout of one logit, as in the paper."""

    cell: eqx.Module
    weight: jax.Array
    offset: jax.Array


def make_network(kind: str, key) -> Network:
    key_cell, key_input, key_bias, key_readout = jr.split(key, 4)
    if kind == "rate":  # x' = J tanh(x) + b + w s, g = 1
        cell = lejax.cells.LeakyRNNCell(1, SIZE, use_bias=True, dt=1.0, key=key_cell)
        cell = eqx.tree_at(
            lambda cell: (cell.weight_ih, cell.bias),
            cell,
            (jr.normal(key_input, (SIZE, 1)), 0.1 * jr.uniform(key_bias, (SIZE,))),
        )
    else:
        cell = {"GRU": lejax.cells.GRUCell, "LSTM": lejax.cells.LSTMCell}[kind](
            1, SIZE, key=key_cell
        )
    return Network(cell, jr.normal(key_readout, (SIZE,)), jnp.zeros(()))


class Task(NamedTuple):
    """Fair bits in, one bit out: `xor`, s_{t-d} XOR s_{t-2d}, or `copy`, the bit s_{t-d} of d steps ago."""

    name: str
    delay: int

    @property
    def first(self) -> int:
        """The step from which on the answer is defined."""
        return self.delay * (2 if self.name == "xor" else 1)

    def draw(self, key, batch: int):
        """Sequences (batch, T, 1) and the answers (batch, T) from step `first` on."""
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
def train(networks, memories, keys, task: Task, epochs: int, batch: int):
    """`epochs` updates of every network, each on a fresh batch; returns the losses (networks, epochs) too."""

    def one(network, memory, key):
        trained, rest = eqx.partition(network, eqx.is_inexact_array)

        def loss(trained, key):
            inputs, answers = task.draw(key, batch)
            out = jax.vmap(logits, (None, 0, None))(eqx.combine(trained, rest), inputs, task.first)
            return jnp.mean(optax.sigmoid_binary_cross_entropy(out, answers))

        def update(carry, key):
            trained, memory = carry
            value, gradient = jax.value_and_grad(loss)(trained, key)
            change, memory = OPTIMIZER.update(gradient, memory, trained)
            return (optax.apply_updates(trained, change), memory), value

        (trained, memory), losses = jax.lax.scan(update, (trained, memory), jr.split(key, epochs))
        return eqx.combine(trained, rest), memory, losses

    return eqx.filter_vmap(one)(networks, memories, keys)


@eqx.filter_jit
def start_training(networks):
    return eqx.filter_vmap(
        lambda network: OPTIMIZER.init(eqx.filter(network, eqx.is_inexact_array))
    )(networks)


@eqx.filter_jit
def accuracy(networks, key, task: Task):
    """On 64 fresh sequences, (networks,)."""
    inputs, answers = task.draw(key, 64)

    def one(network):
        out = jax.vmap(logits, (None, 0, None))(network, inputs, task.first)
        return jnp.mean((out > 0) == answers)

    return eqx.filter_vmap(one)(networks)


class Flossing(NamedTuple):
    """What is flossed, and when."""

    schedule: lejax.training.FlossingSchedule
    num_exponents: int
    counted: int = 39
    transient: int = 16


@eqx.filter_jit
def floss(networks, keys, flossing: Flossing, num_updates: int):
    """All networks, each on sequences of its own; returns the penalties (networks, num_updates) too."""
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
    """log10 of the condition number of the Jacobian over `steps` steps, from the sums of the logarithms of its R
    factors, and log10 of the norm of the readout's gradient by the state that many steps before: medians."""

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
