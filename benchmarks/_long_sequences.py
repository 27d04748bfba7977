"""Long sequences of real data, networks that read them, and ways to start these networks."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax


SIZE = 32
WIDTH = 16  # of the layer before and after a linear recurrent unit, whose input and output have one size
FLOAT = jnp.float32
KINDS = ("tanh", "GRU", "LSTM", "LRU")


class Task(NamedTuple):
    """Sequences (n, T, i), labels (n,), and noise that is added anew in every batch."""

    name: str
    train: tuple[jax.Array, jax.Array]
    validation: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]
    padding: int  # steps of noise after a sequence
    noise: float

    @property
    def num_steps(self) -> int:
        return self.train[0].shape[1] + self.padding

    def pad(self, inputs, key):
        """The sequences (n, T, i), each with its own noise at the end."""
        if not self.padding:
            return inputs
        shape = (len(inputs), self.padding, inputs.shape[2])
        noise = self.noise * jr.normal(key, shape, inputs.dtype)
        return jnp.concatenate([inputs, noise], axis=1)

    def stream(self, num_steps: int):
        """Sequences of the training data one after another, (num_steps, i)."""
        inputs = self.pad(self.train[0][:64], jr.key(5))
        return inputs.reshape(-1, inputs.shape[2])[:num_steps]


def make_task(name: str, datasets, padding: int = 504) -> Task:
    """`pixels`, `permuted` (64 steps of one pixel) or `padded` (8 rows, then `padding` steps of noise)."""
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(1797).permutation(len(labels))
    images, labels = jnp.asarray(images[order] / 8 - 1, FLOAT), jnp.asarray(labels[order])
    if name == "permuted":
        images = images[:, np.random.default_rng(64).permutation(64)]
    images = images.reshape(len(labels), *((8, 8) if name == "padded" else (64, 1)))
    parts = [(images[a:b], labels[a:b]) for a, b in ((0, 1200), (1200, 1497), (1497, 1797))]
    return Task(name, *parts, padding if name == "padded" else 0, 0.1)


class Network(eqx.Module):
    """A cell, and a readout of its last output; a linear cell stands between layers that are not linear."""

    encoder: eqx.nn.Linear | None
    cell: eqx.Module
    hidden: eqx.nn.Linear | None
    readout: eqx.nn.Linear

    def encode(self, inputs):
        """What the cell reads, (T, i)."""
        return inputs if self.encoder is None else jnp.tanh(jax.vmap(self.encoder)(inputs))

    def __call__(self, inputs):
        states = lejax.unroll(self.cell, self.cell.initial_state(), self.encode(inputs))
        last = self.cell.output(jax.tree.map(lambda x: x[-1], states))
        if self.hidden is not None:
            last = jax.nn.relu(self.hidden(last))
        return self.readout(last)


def make_network(kind: str, input_size: int, key, **radii) -> Network:
    keys = jr.split(key, 4)
    if kind == "LRU":
        return Network(
            eqx.nn.Linear(input_size, WIDTH, dtype=FLOAT, key=keys[1]),
            lejax.cells.LRUCell(WIDTH, SIZE, dtype=FLOAT, key=keys[0], **radii),
            eqx.nn.Linear(WIDTH, SIZE, dtype=FLOAT, key=keys[2]),
            eqx.nn.Linear(SIZE, 10, dtype=FLOAT, key=keys[3]),
        )
    cells = lejax.cells
    make = {"tanh": cells.RNNCell, "GRU": cells.GRUCell, "LSTM": cells.LSTMCell}[kind]
    cell = make(input_size, SIZE, dtype=FLOAT, key=keys[0])
    return Network(None, cell, None, eqx.nn.Linear(SIZE, 10, dtype=FLOAT, key=keys[3]))


def default_start(network: Network, kind: str, task: Task, key):
    """The weights that the cell draws."""
    return network


def orthogonal_start(network: Network, kind: str, task: Task, key):
    """Each square block of the recurrent weights is orthogonal."""
    count = network.cell.weight_hh.shape[0] // SIZE
    blocks = jax.vmap(lambda key: jr.orthogonal(key, SIZE, dtype=FLOAT))(jr.split(key, count))
    return with_cell(network, weight_hh=blocks.reshape(-1, SIZE))


def ring_start(network: Network, kind: str, task: Task, key):
    """Eigenvalues in a ring near the unit circle, with small phases: Orvieto et al., ICML (2023)."""
    ring = {"min_radius": 0.9, "max_radius": 0.999, "max_phase": np.pi / 10}
    cell = lejax.cells.LRUCell(WIDTH, SIZE, dtype=FLOAT, key=key, **ring)
    return eqx.tree_at(lambda network: network.cell, network, cell)


def chrono_start(network: Network, kind: str, task: Task, key):
    """Gates open for 1 to T steps: Tallec & Ollivier, ICLR (2018)."""
    span = jr.uniform(key, (SIZE,), FLOAT, minval=1, maxval=task.num_steps - 1)
    return with_cell(network, bias=set_gates(network.cell.bias, kind, jnp.log(span)))


def set_gates(bias, kind, value):
    """The biases with those of the gate that keeps the state, and with the opposite ones of an LSTM's input gate."""
    bias = bias.at[SIZE : 2 * SIZE].set(value)
    return bias.at[:SIZE].set(-value) if kind == "LSTM" else bias


def critical_start(network: Network, kind: str, task: Task, key):
    """The factor of the recurrent weights at which the largest exponent is 0 under the task's inputs."""
    weights = network.cell.weight_hh

    def family(gain):
        return with_cell(network, weight_hh=gain * weights).cell

    return tuned(network, family, task, key, (0.5, 12.0), 0.0, 1.0)


def gate_start(network: Network, kind: str, task: Task, key, index: int = 7):
    """The bias of the gate that keeps the state at which the eighth exponent is -1/T under the task's inputs."""
    bias = network.cell.bias

    def family(shift):
        shifted = bias.at[SIZE : 2 * SIZE].add(shift)
        if kind == "LSTM":  # as chrono does, so that the memory stays bounded
            shifted = shifted.at[:SIZE].add(-shift)
        return with_cell(network, bias=shifted).cell

    return tuned(network, family, task, key, (-1.0, 15.0), -1 / task.num_steps, 0.0, index)


def gate_of_one_start(network: Network, kind: str, task: Task, key):
    """That at which the largest exponent is -1/T."""
    return gate_start(network, kind, task, key, 0)


def decay_start(network: Network, kind: str, task: Task, key):
    """The factor of all decay rates at which the eighth exponent is -1/T."""

    def family(shift):
        log_decay = network.cell.log_decay + shift
        log_gamma = jnp.log(-jnp.expm1(-2 * jnp.exp(log_decay))) / 2
        return with_cell(network, log_decay=log_decay, log_gamma=log_gamma).cell

    return tuned(network, family, task, key, (-9.0, 3.0), -1 / task.num_steps, 0.0, 7)


def tuned(network, family, task, key, bracket, target, otherwise, index=0):
    """The network with the cell of the family that the search finds, or the one at `otherwise` if the search fails."""
    found = lejax.training.tune_parameter(
        lambda parameter: family(parameter.astype(FLOAT)),
        network.cell.initial_state(),
        network.encode(task.stream(600)),
        bracket=bracket,
        target=target,
        index=index,
        transient=88,
        key=key,
        throw=False,
    )
    parameter = jnp.where(jnp.isfinite(found.parameter), found.parameter, otherwise)
    cell = family(parameter.astype(FLOAT))
    return eqx.tree_at(lambda network: network.cell, network, cell)


def with_cell(network, **fields):
    names = tuple(fields)
    return eqx.tree_at(
        lambda network: [getattr(network.cell, name) for name in names],
        network,
        [fields[name].astype(FLOAT) for name in names],
    )


FLOSSING = 80  # updates of flossing before training, each on one sequence


def flossed_start(network: Network, kind: str, task: Task, key):
    """Flossing of half of the exponents before training."""
    inputs = task.pad(task.train[0][:FLOSSING], key)[:, :64]
    cell, _ = lejax.training.floss(
        network.cell,
        network.cell.initial_state(),
        jax.vmap(network.encode)(inputs),
        optimizer=optax.adam(3e-3),
        num_exponents=SIZE // 2,
        transient=8,
        throw=False,
    )
    return eqx.tree_at(lambda network: network.cell, network, cell)
