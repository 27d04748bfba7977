"""Recipes of training for tasks with long delays: how networks start, are flossed, and learn the delayed XOR."""

from typing import NamedTuple

import _memory_tasks as tasks
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from _memory_tasks import Flossing, Network

import lejax
from lejax.training import FlossingSchedule


COUNTED = tasks.COUNTED
PLAIN = Flossing(FlossingSchedule(before=0, every=None), 1)
CHUNK = 100  # updates between two measurements


class Recipe(NamedTuple):
    """Everything that is chosen before a network learns. The defaults are those of `flossing.py`.

    `start` is "usual", "open" (the gates of a GRU and an LSTM stand so that they pass the new state on, as in a tanh
    network), "orthogonal" (the same, and the recurrent matrix is orthogonal), "chrono" (biases of the gates for times
    up to twice the delay, Tallec & Ollivier 2018) or "slow" (one bias of the gates such that the largest exponent is -1
    over twice the delay).
    """

    kind: str = "rate"
    size: int = 32
    start: str = "usual"
    input_scale: float = 1.0  # factor of the input weights
    readout_scale: float = 1.0  # factor of the readout
    rate: float = 1e-3
    clip: float = 0.03
    curriculum: bool = False  # delays grow from 2, by 1 whenever a network answers 95 % of a batch
    flossing: Flossing = PLAIN
    state_scale: float = 0.0  # flossing starts from normal states of this size


def with_bias(cell, **gates):
    """The cell with the biases of some gates replaced; `r`, `z`, `n` of a GRU, `i`, `f`, `g`, `o` of an LSTM."""
    size = cell.weight_hh.shape[1]
    names = "rzn" if isinstance(cell, lejax.cells.GRUCell) else "ifgo"
    bias = cell.bias
    for name, value in gates.items():
        first = names.index(name) * size
        bias = bias.at[first : first + size].set(value)
    return eqx.tree_at(lambda cell: cell.bias, cell, bias)


def pass_on(cell, matrix):
    """The cell that passes the new state on through a matrix: its gates forget the old state."""
    size = len(matrix)
    if isinstance(cell, lejax.cells.LeakyRNNCell):
        return eqx.tree_at(lambda cell: cell.weight_hh, cell, matrix)
    if isinstance(cell, lejax.cells.GRUCell):
        cell, first = with_bias(cell, r=4.0, z=-4.0), 2 * size
    else:
        cell, first = with_bias(cell, i=4.0, f=-4.0, o=4.0), 2 * size
    rows = cell.weight_hh.at[first : first + size].set(matrix)
    return eqx.tree_at(lambda cell: cell.weight_hh, cell, rows)


def draw(recipe: Recipe, delay, key) -> Network:
    """One network at the start of training."""
    network = tasks.make_network(recipe.kind, key, recipe.size)
    cell, state = network.cell, network.cell.initial_state()
    cell = eqx.tree_at(lambda cell: cell.weight_ih, cell, recipe.input_scale * cell.weight_ih)
    key_matrix, key_bits, key_times = jr.split(jr.fold_in(key, 1), 3)
    bits = jr.bernoulli(key_bits, 0.5, (400, 1)).astype(float)
    gate = {"GRU": "z", "LSTM": "f"}.get(recipe.kind, "")
    if recipe.start == "orthogonal":
        cell = pass_on(cell, jr.orthogonal(key_matrix, recipe.size))
    elif recipe.start == "open":
        cell = pass_on(cell, cell.weight_hh[2 * recipe.size : 3 * recipe.size])
    elif recipe.start == "slow":
        tuned = lejax.training.tune_parameter(
            lambda bias: with_bias(cell, **{gate: bias}), state, bits,
            bracket=(-2.0, 8.0), target=-0.5 / delay, transient=50, throw=False,
        )  # fmt: skip
        cell = with_bias(cell, **{gate: tuned.parameter})
    elif recipe.start == "chrono":
        times = jnp.log(jr.uniform(key_times, (recipe.size,), minval=1.0, maxval=2.0 * delay - 1))
        cell = with_bias(cell, **({"z": times} if gate == "z" else {"f": times, "i": -times}))
    return Network(cell, recipe.readout_scale * network.weight, network.offset)


def draw_task(key, batch: int, delay, longest: int):
    """Sequences for a delay, an array, of at most `longest` steps, and the answers at their last COUNTED steps."""
    bits = jr.bernoulli(key, 0.5, (batch, 2 * longest + COUNTED))
    near, far = (
        jax.lax.dynamic_slice_in_dim(bits, 2 * longest - n * delay, COUNTED, axis=1) for n in (1, 2)
    )
    return bits[..., None].astype(float), near ^ far


def batch_loss(network, key, batch: int, delay, longest: int):
    inputs, answers = draw_task(key, batch, delay, longest)
    out = jax.vmap(tasks.logits, (None, 0, None))(network, inputs, 2 * longest)
    loss = jnp.mean(optax.sigmoid_binary_cross_entropy(out, answers))
    return loss, jnp.mean((out > 0) == answers)


def make_optimizer(rate, clip):
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(rate))


class Progress(NamedTuple):
    """One network in training."""

    trained: Network
    memory: tuple
    delay: jax.Array
    answered: jax.Array  # running mean of the share of right answers


@eqx.filter_jit
def begin(networks, delay):
    def one(network):
        trained = eqx.filter(network, eqx.is_inexact_array)
        memory = make_optimizer(1.0, 1.0).init(trained)
        return Progress(trained, memory, delay, jnp.asarray(0.5))

    return eqx.filter_vmap(one)(networks)


def train(networks, progress, keys, recipe: Recipe, longest: int, batch: int) -> Progress:
    """Update every network, once for each of its keys (networks, updates)."""
    rate, clip = jnp.asarray(recipe.rate), jnp.asarray(recipe.clip)
    return _train(networks, progress, keys, rate, clip, longest, batch)


@eqx.filter_jit
def _train(networks, progress, keys, rate, clip, longest, batch):
    optimizer = make_optimizer(rate, clip)
    rest = eqx.filter(networks, eqx.is_inexact_array, inverse=True)

    def one(progress, keys):
        def update(progress, key):
            gradient, right = jax.grad(
                lambda trained: batch_loss(
                    eqx.combine(trained, rest), key, batch, progress.delay, longest
                ),
                has_aux=True,
            )(progress.trained)
            change, memory = optimizer.update(gradient, progress.memory)
            answered = 0.8 * progress.answered + 0.2 * right
            advances = (answered > 0.95) & (progress.delay < longest)
            return Progress(
                optax.apply_updates(progress.trained, change),
                memory,
                progress.delay + advances,
                jnp.where(advances, 0.5, answered),
            ), None

        return jax.lax.scan(update, progress, keys)[0]

    return jax.vmap(one)(progress, keys)


@eqx.filter_jit
def accuracy(networks, key, longest: int):
    return eqx.filter_vmap(lambda n: batch_loss(n, key, 64, jnp.asarray(longest), longest)[1])(
        networks
    )


def floss(networks, keys, recipe: Recipe, num_updates: int):
    """As `tasks.floss`, from normal states of a given size."""
    flossing = recipe.flossing._replace(schedule=FlossingSchedule())  # compile once for all
    return _floss(networks, keys, flossing, jnp.asarray(recipe.state_scale), num_updates)


@eqx.filter_jit
def _floss(networks, keys, flossing, state_scale, num_updates):
    steps = flossing.transient + flossing.counted

    def one(network, key):
        bits = jr.bernoulli(key, 0.5, (num_updates, steps, 1)).astype(float)
        state, unravel = jax.flatten_util.ravel_pytree(network.cell.initial_state())
        cell, _ = lejax.training.floss(
            network.cell,
            unravel(state_scale * jr.normal(jr.fold_in(key, 1), state.shape)),
            bits,
            optimizer=tasks.FLOSSER,
            num_exponents=flossing.num_exponents,
            transient=flossing.transient,
            throw=False,
        )
        return eqx.tree_at(lambda network: network.cell, network, cell)

    return eqx.filter_vmap(one)(networks, keys)


def start(recipe: Recipe, delay: int, keys):
    scales = jnp.asarray(recipe.input_scale), jnp.asarray(recipe.readout_scale)
    return _start(recipe.kind, recipe.size, recipe.start, scales, jnp.asarray(delay), keys)


@eqx.filter_jit
def _start(kind, size, start, scales, delay, keys):
    recipe = Recipe(kind, size, start, *scales)
    return eqx.filter_vmap(lambda key: draw(recipe, delay, key))(keys)


def wilson(solved: int, count: int) -> list[float]:
    """The 95 % interval of a share after Wilson (1927)."""
    z, share = 1.959964, solved / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return [max(0.0, middle - half), min(1.0, middle + half)]
