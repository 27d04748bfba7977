"""Test what pruning leaves of accuracy and of the exponents: by sensitivity of the exponents, by size, at random.

Networks of 32 units (tanh, GRU, LSTM) learn two tasks: scikit-learn's digits read row by row in streams without a reset
(8 digits of 8 rows in training), and the copy of a random bit after 10 steps. Then a share of the weights, or of the
units, is removed by each of several scores, of equal number: `lejax.training.prune_weights` and `prune_units` with the
8 leading exponents along a stream of inputs; the absolute value of a weight among all, or among those of its matrix
("by matrix"), or the norm of the weights that leave a unit; and random numbers. Accuracy, and the root mean square
change of the 8 exponents along another stream, are measured at once and after retraining with the removed weights held
at zero. The table has the mean over the networks, each from its own seed, and the smallest and largest value.
"""

from typing import NamedTuple

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax

import lejax
from lejax.training import prune_units, prune_weights, take_units


datasets = _harness.import_peer("sklearn.datasets")
SIZE, COUNT = 32, 8
METHODS = {
    "weights": ("exponents", "magnitude", "by matrix", "random"),
    "units": ("exponents", "magnitude", "random"),
}
KINDS = {
    "tanh": lejax.cells.RNNCell,
    "GRU": lejax.cells.GRUCell,
    "LSTM": lejax.cells.LSTMCell,
}


class Settings(NamedTuple):
    """Sizes of the whole benchmark."""

    seeds: int
    updates: int
    retraining: int
    rounds: int
    fractions: tuple[float, ...]
    units: tuple[int, ...]


class Task(NamedTuple):
    """Streams of inputs, and the labels at some of their steps."""

    name: str
    num_classes: int
    inputs: jax.Array  # (n, T, i) to train on
    labels: jax.Array  # (n, m)
    first: int  # the step of the first label
    stride: int
    held_out: tuple[jax.Array, jax.Array]
    streams: tuple[jax.Array, jax.Array]  # (T, i) to prune along, and to measure exponents along


def digits_task() -> Task:
    images, labels = datasets.load_digits(return_X_y=True)
    order = jr.permutation(jr.key(1797), len(labels))
    images, labels = jnp.asarray(images)[order].reshape(-1, 8, 8) / 16, jnp.asarray(labels)[order]

    def in_streams(first, last):
        return images[first:last].reshape(-1, 64, 8), labels[first:last].reshape(-1, 8)

    streams = images[1360:1400].reshape(-1, 8), images[1400:1720].reshape(-1, 8)[:640]
    return Task("digits", 10, *in_streams(0, 1360), 7, 8, in_streams(1400, 1792), streams)


def copy_task(delay: int = 10, length: int = 50) -> Task:
    bits = jr.bernoulli(jr.key(3), 0.5, (1100, length))
    inputs, labels = 2.0 * bits[..., None] - 1, bits[:, :-delay].astype(int)
    streams = jr.rademacher(jr.key(4), (2, 640, 1), float)
    return Task(
        "copy", 2, inputs[:1000], labels[:1000], delay, 1, (inputs[1000:], labels[1000:]),
        (streams[0, :320], streams[1]),
    )  # fmt: skip


class Network(eqx.Module):
    cell: eqx.Module
    readout: eqx.nn.Linear

    def __call__(self, inputs, first, stride):
        states = lejax.unroll(self.cell, self.cell.initial_state(), inputs)
        return jax.vmap(self.readout)(self.cell.output(states)[first::stride])


@eqx.filter_jit
def draw(kind, task: Task, keys):
    def one(key):
        key_cell, key_readout = jr.split(key)
        cell = KINDS[kind](task.inputs.shape[-1], SIZE, key=key_cell)
        return Network(cell, eqx.nn.Linear(SIZE, task.num_classes, key=key_readout))

    return eqx.filter_vmap(one)(keys)


@eqx.filter_jit
def train(networks, masks, keys, task: Task, updates: int, rate: float):
    """Every network after `updates` updates; a weight whose mask is False stays as it is."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_onecycle_schedule(max(updates, 2), rate)),
    )

    def one(network, mask, key):
        trained, rest = eqx.partition(network, eqx.is_inexact_array)

        def loss(trained, batch):
            network = eqx.combine(trained, rest)
            out = jax.vmap(lambda inputs: network(inputs, task.first, task.stride))(
                task.inputs[batch]
            )
            return jnp.mean(
                optax.softmax_cross_entropy_with_integer_labels(out, task.labels[batch])
            )

        def update(carry, key):
            trained, memory = carry
            batch = jr.randint(key, (32,), 0, len(task.inputs))
            change, memory = optimizer.update(jax.grad(loss)(trained, batch), memory, trained)
            change = jtu.tree_map(lambda x, keep: x * keep, change, mask)
            return (optax.apply_updates(trained, change), memory), None

        carry = trained, optimizer.init(trained)
        (trained, _), _ = jax.lax.scan(update, carry, jr.split(key, updates))
        return eqx.combine(trained, rest)

    return eqx.filter_vmap(one)(networks, masks, keys)


@eqx.filter_jit
def measure(networks, task: Task):
    """Accuracy, and the exponents along the second stream with their standard errors."""
    inputs, labels = task.held_out

    def one(network):
        out = jax.vmap(lambda inputs: network(inputs, task.first, task.stride))(inputs)
        run = lejax.lyapunov_spectrum(
            network.cell, network.cell.initial_state(), task.streams[1],
            num_exponents=COUNT, transient=40, throw=False,
        )  # fmt: skip
        return jnp.mean(jnp.argmax(out, -1) == labels), run.exponents, run.standard_error

    return eqx.filter_vmap(one)(networks)


def largest(scores, fraction):
    """Factors for the weights of an array, 0 for the share of them with the smallest scores."""
    rank = jnp.argsort(jnp.argsort(-scores.ravel())).reshape(scores.shape)
    return (rank < jnp.round(scores.size * (1 - fraction))).astype(scores.dtype)


def keep_largest(cell, scores, fraction, by_matrix=False):
    """The cell without the share of its matrices' weights, or of each matrix, with the smallest scores; and factors."""
    is_matrix = jtu.tree_map(lambda x: eqx.is_inexact_array(x) and x.ndim > 1, cell)
    matrices, rest = eqx.partition(cell, is_matrix)
    scores = eqx.filter(scores, is_matrix)
    if by_matrix:
        factors = jtu.tree_map(lambda x: largest(x, fraction), scores)
    else:
        numbers, unravel = jax.flatten_util.ravel_pytree(scores)
        factors = unravel(largest(numbers, fraction))
    return eqx.combine(jtu.tree_map(jnp.multiply, matrices, factors), rest), factors


def run_options(task: Task, settings: Settings):
    return {"num_rounds": settings.rounds, "num_exponents": COUNT, "transient": 40}


@eqx.filter_jit
def remove_weights(networks, keys, task: Task, settings: Settings):
    """The networks (seed, method, fraction), and which weights remain."""
    options = run_options(task, settings)

    def one(network, key):
        cell = network.cell

        def by_exponents(fraction):
            pruning = prune_weights(
                cell, cell.initial_state(), task.streams[0], fraction=fraction, **options
            )
            kept = jtu.tree_map(lambda x: x.astype(float) if x.ndim > 1 else None, pruning.kept)
            return pruning.cell, kept

        noise = jtu.tree_map(lambda x: jr.uniform(jr.fold_in(key, x.size), x.shape), cell)
        size = jtu.tree_map(jnp.abs, cell)
        fractions = jnp.asarray(settings.fractions)
        cells = [
            jax.vmap(by_exponents)(fractions),
            jax.vmap(lambda f: keep_largest(cell, size, f))(fractions),
            jax.vmap(lambda f: keep_largest(cell, size, f, by_matrix=True))(fractions),
            jax.vmap(lambda f: keep_largest(cell, noise, f))(fractions),
        ]
        return jtu.tree_map(lambda *x: jnp.stack(x), *cells)

    cells, kept = eqx.filter_vmap(one)(networks, keys)

    def complete(network, cell, kept):
        """The network with another cell, and factors for all of its weights."""
        ones = jtu.tree_map(jnp.ones_like, network)
        factors = jtu.tree_map(
            lambda mask, one: one if mask is None else mask,
            kept, ones.cell, is_leaf=lambda x: x is None,
        )  # fmt: skip
        new = Network(cell, network.readout)
        return new, eqx.tree_at(lambda n: n.cell, ones, factors)

    over_all = eqx.filter_vmap(
        eqx.filter_vmap(complete, in_axes=(None, 0, 0)), in_axes=(None, 0, 0)
    )
    return eqx.filter_vmap(over_all)(networks, cells, kept)


@eqx.filter_jit
def remove_units(networks, keys, task: Task, settings: Settings, count: int):
    """The networks (seed, method, 1) of `count` units."""

    def one(network, key):
        cell, readout = network.cell, network.readout
        chosen = prune_units(
            cell, cell.initial_state(), task.streams[0], num_units=count, **run_options(task, settings)
        )  # fmt: skip
        leaving = jnp.sum(cell.weight_hh**2, axis=0) + jnp.sum(readout.weight**2, axis=0)
        units = jnp.stack(
            [
                chosen.units,
                jnp.sort(jnp.argsort(-leaving)[:count]),
                jnp.sort(jr.permutation(key, SIZE)[:count]),
            ]
        )

        def take(units):
            smaller = eqx.tree_at(lambda r: r.weight, readout, readout.weight[:, units])
            return Network(take_units(cell, units), smaller)

        return jax.vmap(jax.vmap(take))(units[:, None])

    return eqx.filter_vmap(one)(networks, keys)


def flat(tree):
    """The axes of seed, method and fraction as one."""
    return jtu.tree_map(lambda x: x.reshape(-1, *x.shape[3:]) if eqx.is_array(x) else x, tree)


def compare(task, kind, what, shares, networks, masks, before, settings) -> list[dict]:
    """One row for each method and share."""
    shape = (settings.seeds, len(METHODS[what]), len(shares))
    networks, masks = flat(networks), flat(masks)
    keys = jr.split(jr.key(7), len(jtu.tree_leaves(networks)[0]))
    retrained = train(networks, masks, keys, task, settings.retraining, 1e-3)
    measured = [measure(n, task) for n in (networks, retrained)]
    rows = []
    for j, method in enumerate(METHODS[what]):
        for k, share in enumerate(shares):
            row = {
                "task": task.name,
                "kind": kind,
                "removed": what,
                "share": share,
                "method": method,
            }
            for when, (accuracy, exponents, error) in zip(
                ("", "retrained_"), measured, strict=True
            ):
                accuracy, exponents, error = (
                    np.asarray(x).reshape(*shape, *x.shape[1:])[:, j, k]
                    for x in (accuracy, exponents, error)
                )
                change = exponents - before[1]
                # A direction that is lost has no exponent: it counts as changed.
                same = np.abs(change) < 2 * np.sqrt(error**2 + before[2] ** 2)
                row[f"{when}accuracy"] = accuracy
                row[f"{when}change"] = np.sqrt(np.mean(change**2, axis=1))
                row[f"{when}same"] = np.mean(same, axis=1)
            rows.append(row)
    return rows


def run(task: Task, kind: str, settings: Settings) -> tuple[dict, list[dict]]:
    keys = jr.split(jr.key(0), settings.seeds)
    networks = draw(kind, task, keys)
    ones = jtu.tree_map(lambda x: jnp.ones_like(x) if eqx.is_array(x) else x, networks)
    networks = train(networks, ones, keys, task, settings.updates, 1e-2)
    before = [np.asarray(x) for x in measure(networks, task)]
    whole = {"task": task.name, "kind": kind, "accuracy": before[0], "exponents": before[1]}
    pruned, masks = remove_weights(networks, keys, task, settings)
    rows = compare(task, kind, "weights", settings.fractions, pruned, masks, before, settings)
    for count in settings.units:
        pruned = remove_units(networks, keys, task, settings, count)
        ones = jtu.tree_map(lambda x: jnp.ones_like(x) if eqx.is_array(x) else x, pruned)
        rows += compare(task, kind, "units", (1 - count / SIZE,), pruned, ones, before, settings)
    return whole, rows


def spread(values, digits=3) -> str:
    values = np.asarray(values)
    low, high = np.min(values), np.max(values)
    return f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main():
    arguments = _harness.parse_arguments(__doc__, _harness.ONLY)
    if datasets is None:
        raise SystemExit(1)
    settings = Settings(5, 1500, 200, 10, (0.5, 0.7, 0.85), (24, 16))
    plans = [(task, kind) for task in (digits_task, copy_task) for kind in KINDS]
    if arguments.toy:
        settings, plans = Settings(1, 1, 1, 1, (0.5,), (16,)), [(copy_task, "tanh")]
    wholes, rows = [], []
    for make_task, kind in plans:
        task = make_task()
        if arguments.only in f"{task.name} {kind}":
            whole, more = run(task, kind, settings)
            wholes.append(whole)
            rows += more
            print(f"done: {task.name} {kind}, accuracy {spread(whole['accuracy'])}", flush=True)
    header = ["task", "cell", "removed", "by", "accuracy", "change of exponents", "within errors"]
    header += ["retrained accuracy", "retrained change"]
    table = [
        [
            row["task"], row["kind"], f"{row['share']:.0%} of {row['removed']}", row["method"],
            spread(row["accuracy"]), spread(row["change"]), f"{np.mean(row['same']):.0%}",
            spread(row["retrained_accuracy"]), spread(row["retrained_change"]),
        ]
        for row in rows
    ]  # fmt: skip
    print(_harness.format_table(header, table))
    _harness.write_json(
        arguments.json, benchmark="pruning", toy=arguments.toy, settings=settings._asdict(),
        wholes=wholes, rows=rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
