"""Test whether starts at chosen exponents, penalties on exponents or clipping help on long sequences of real data.

Networks of 32 units (tanh, GRU, LSTM, and a linear recurrent unit of 32 modes between two layers) classify the 8 x 8
digits of scikit-learn by their last output: read pixel by pixel (`pixels`, 64 steps of one number), in a fixed random
order (`permuted`), and row by row before 504 steps of noise of standard deviation 0.1 (`padded`, 512 steps), as Chang,
Chen, Haber & Chi pad images, ICLR (2019). Training: Adam, gradients clipped at 1, rates that fall to 0 along a cosine,
batches of 32 (16 if padded), 1200 digits to train on, 297 to validate, 300 to test.

Variants: plain; no clipping; orthogonal recurrent weights; `critical`, the recurrent weights times the gain at which
lambda_1 = 0 under the task's inputs; `gate`, the bias of the forget or update gate at which lambda_8 = -1/T, and `gate
of one`, at which lambda_1 = -1/T; `chrono`, such biases without a look at exponents (Tallec & Ollivier, ICLR (2018));
`ring`, the eigenvalues of Orvieto et al., ICML (2023); `decay`, the decay rates at which lambda_8 = -1/T; `flossed`, 80
updates on half of the exponents before training (Engelken, NeurIPS (2023)); `penalty`, every fourth update adds a
penalty that moves the 8 leading exponents of one sequence of 64 steps to 0; `penalty on one`, the same that holds
lambda_1 in [-1/T, 0].

Every variant gets the seconds of the plain one: its start and its penalty cost updates. Each network is trained at each
rate of a grid; the rate of a variant is the one with the best mean accuracy in validation. The table has the mean test
accuracy over networks, the paired difference to the plain variant with its 95 % interval (Student's t), the updates and
seconds until the mean validation accuracy is 80 %, and the share of networks that fail: those whose accuracy is below
20 %, or NaN. `--only TEXT` runs the cells whose task and name contain the text, and keeps other rows of the file given
by `--json`.
"""

import json
import time
from typing import NamedTuple

import _harness  # first: it sets what JAX and NumPy read when they start
import _long_sequences as sequences
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from _paired import paired_interval

import lejax
from lejax.training import BandPenalty, ExponentAt


datasets = _harness.import_peer("sklearn.datasets")
GROUP = 4  # updates, of which the first is penalized
ADAM = optax.scale_by_adam()


class Penalty(NamedTuple):
    """A function of the leading exponents, and its weight."""

    function: BandPenalty
    num_exponents: int
    weight: float


class Variant(NamedTuple):
    """How a network starts, and what its training adds."""

    start: object = sequences.default_start
    clip: float = 1.0
    penalty: Penalty | None = None


class Settings(NamedTuple):
    """Sizes of one task and cell."""

    seeds: int
    updates: int  # of the plain variant
    batch: int
    rates: tuple[float, ...]
    checks: int = 10  # validations in a training


FEWER = {
    "pixels": ("gate of one",),
    "permuted": ("no clipping", "gate of one", "chrono", "flossed", "penalty on one"),
    "padded": ("no clipping", "penalty on one"),
}  # what a task leaves out


def list_variants(kind: str, task: str, num_steps: int) -> dict[str, Variant]:
    is_linear, is_gated = kind == "LRU", kind in ("GRU", "LSTM")
    each = Penalty(BandPenalty(lower=0.0, upper=0.0), 8, 0.1)
    largest = Penalty(BandPenalty(ExponentAt(0), -1 / num_steps, 0.0), 1, 1.0)
    starts = {
        "orthogonal": None if is_linear else sequences.orthogonal_start,
        "critical": None if is_linear else sequences.critical_start,
        "gate": sequences.gate_start if is_gated else None,
        "gate of one": sequences.gate_of_one_start if kind == "LSTM" else None,
        "chrono": sequences.chrono_start if is_gated else None,
        "ring": sequences.ring_start if is_linear else None,
        "decay": sequences.decay_start if is_linear else None,
        "flossed": sequences.flossed_start,
    }
    variants = {
        "plain": Variant(),
        "no clipping": Variant(clip=np.inf),
        **{name: Variant(start) for name, start in starts.items() if start},
        "penalty": Variant(penalty=each),
        "penalty on one": Variant(penalty=largest),
    }
    return {name: variant for name, variant in variants.items() if name not in FEWER[task]}


def start_networks(kind, task, variant: Variant, seeds: int):
    """One network for each seed, the same for all variants before their own start, and seconds of that start."""
    keys = jr.split(jr.key(0), seeds)
    size = task.train[0].shape[2]
    drawn = eqx.filter_vmap(lambda key: sequences.make_network(kind, size, key))(keys)

    @eqx.filter_jit
    def prepare(networks, keys):
        one = lambda network, key: variant.start(network, kind, task, key)
        return eqx.filter_vmap(one)(networks, keys)

    if variant.start is sequences.default_start:
        return drawn, 0.0
    keys = jr.split(jr.key(1), seeds)
    jax.block_until_ready(prepare(drawn, keys))  # compiles
    since = time.perf_counter()
    networks = jax.block_until_ready(prepare(drawn, keys))
    return networks, time.perf_counter() - since


class State(eqx.Module):
    """What changes in the training of a network."""

    trained: sequences.Network
    memory: optax.OptState
    count: jax.Array


@eqx.filter_jit
def train(many, task, clip, penalty: Penalty | None, total, num_groups, batch):
    """`num_groups` times `GROUP` updates of every network, each at its own rate and on its own batches."""
    inputs, labels = task.train
    clip, total = (x.astype(sequences.FLOAT) for x in (clip, total))

    def loss(trained, rest, key, is_penalized: bool):
        network = eqx.combine(trained, rest)
        key_batch, key_noise = jr.split(key)
        chosen = jr.randint(key_batch, (batch,), 0, len(inputs))
        read = task.pad(inputs[chosen], key_noise)
        out = jax.vmap(network)(read)
        errors = optax.softmax_cross_entropy_with_integer_labels(out, labels[chosen])
        if not is_penalized:
            return jnp.mean(errors)
        punished = lejax.training.batch_penalty(
            network.cell,
            None,
            jax.vmap(network.encode)(read[:, :64]),
            function=penalty.function,
            num_sequences=1,
            num_exponents=penalty.num_exponents,
            transient=8,
            adjoint=lejax.DirectAdjoint(),
        )
        return jnp.mean(errors) + penalty.weight * punished

    def one(state, rest, key, rate):
        def update(state, key, is_penalized=False):
            gradient = jax.grad(loss)(state.trained, rest, key, is_penalized)
            norm = optax.tree.norm(gradient)
            factor = jnp.where(norm > clip, clip / norm, 1)
            gradient = jax.tree.map(lambda x: factor * x, gradient)
            change, memory = ADAM.update(gradient, state.memory)
            speed = rate * (1 + jnp.cos(jnp.pi * state.count / total)) / 2
            change = jax.tree.map(lambda x: (-speed * x).astype(x.dtype), change)
            trained = optax.apply_updates(state.trained, change)
            return State(trained, memory, state.count + 1), None

        def group(index, state):
            keys = jr.split(jr.fold_in(key, index), GROUP)
            if penalty is not None:
                state, _ = update(state, keys[0], is_penalized=True)
                keys = keys[1:]
            return jax.lax.scan(update, state, keys)[0]

        return jax.lax.fori_loop(0, num_groups, group, state)

    return eqx.filter_vmap(one)(*many)


@eqx.filter_jit
def accuracy(networks, task, part):
    """The share of right answers of every network."""
    inputs, labels = part
    inputs = task.pad(inputs, jr.key(9))
    one = lambda network: jnp.mean(jnp.argmax(jax.vmap(network)(inputs), 1) == labels)
    return eqx.filter_vmap(one)(networks)


@eqx.filter_jit
def leading_exponents(networks, task):
    """Medians over networks of the first and the eighth exponent."""

    def one(network):
        inputs = network.encode(task.stream(600))
        state = network.cell.initial_state()
        run = lejax.lyapunov_spectrum(
            network.cell, state, inputs, num_exponents=8, transient=88, throw=False
        )
        return run.exponents[jnp.array([0, 7])]

    return jnp.nanmedian(eqx.filter_vmap(one)(networks), axis=0)


def seconds_per_update(kind, task, variants, settings) -> dict[str, float]:
    """Of all networks side by side, without compilation: plain and penalized updates, timed in turn."""
    networks, _ = start_networks(kind, task, Variant(), settings.seeds)
    many = side_by_side(networks, settings)

    def contender(name, variant):
        numbers = map(jnp.asarray, (1000.0, 1))
        arguments = (many, task, *parts_of(variant), *numbers, settings.batch)
        return _harness.Contender(name, lambda: train(*arguments).count, GROUP)

    timings = _harness.time_round_robin(
        [contender(*item) for item in variants.items() if item[0] == "plain" or item[1].penalty], 5
    )
    plain = timings[0]
    ratios = {t.contender.name: _harness.paired_ratio(t, plain)["median"] for t in timings}
    # A penalty costs no less than none: a smaller ratio is noise.
    return {name: plain.seconds_per_step * max(1.0, ratio) for name, ratio in ratios.items()}


def parts_of(variant: Variant):
    """What `train` is told of a variant: an array, so that those without penalty share one compiled program."""
    return jnp.asarray(variant.clip, sequences.FLOAT), variant.penalty


def side_by_side(networks, settings):
    """Each network at each rate, (rates * seeds): states, what is not trained, keys and rates."""
    count = len(settings.rates)
    many = jax.tree.map(lambda x: jnp.tile(x, (count,) + (1,) * (x.ndim - 1)), networks)
    trained, rest = eqx.partition(many, eqx.is_inexact_array)
    memory = eqx.filter_vmap(ADAM.init)(trained)
    states = State(trained, memory, jnp.zeros(count * settings.seeds, sequences.FLOAT))
    keys = jnp.tile(jr.split(jr.key(2), settings.seeds), count)
    rates = jnp.repeat(jnp.asarray(settings.rates, sequences.FLOAT), settings.seeds)
    return states, rest, keys, rates


def run(kind: str, task, name: str, variant: Variant, settings, costs) -> dict:
    """Train one variant for as many seconds as the plain one takes."""
    networks, start_seconds = start_networks(kind, task, variant, settings.seeds)
    plain = costs["plain"]
    cost = costs[name] if variant.penalty else plain
    # All rates of a network share its start.
    seconds = settings.updates * plain - start_seconds * len(settings.rates)
    num_groups = max(1, round(seconds / cost / GROUP / settings.checks))
    total = num_groups * GROUP * settings.checks
    before = leading_exponents(networks, task)
    states, rest, keys, rates = side_by_side(networks, settings)
    curve = []
    for check in range(settings.checks):
        now = jax.vmap(lambda key, check=check: jr.fold_in(key, check))(keys)
        numbers = jnp.asarray(total, sequences.FLOAT), jnp.asarray(num_groups)
        arguments = states, rest, now, rates
        states = train(arguments, task, *parts_of(variant), *numbers, settings.batch)
        curve.append(accuracy(eqx.combine(states.trained, rest), task, task.validation))
    trained = eqx.combine(states.trained, rest)
    shape = (len(settings.rates), settings.seeds)
    curve = np.stack(curve, axis=-1).reshape(*shape, -1)
    test = np.asarray(accuracy(trained, task, task.test)).reshape(shape)
    finite = [np.isfinite(x).reshape(*shape, -1).all(-1) for x in jax.tree.leaves(states.trained)]
    best = int(np.argmax(curve[:, :, -1].mean(axis=1)))
    chosen = jax.tree.map(lambda x: x[best * settings.seeds : (best + 1) * settings.seeds], trained)
    return {
        "task": task.name,
        "cell": kind,
        "variant": name,
        "updates": total,
        "seconds_per_update": cost / (len(settings.rates) * settings.seeds),  # of one network
        "start_seconds": start_seconds / settings.seeds,
        "rates": settings.rates,
        "chosen": best,
        "validation": curve,
        "test": test,
        "finite": np.all(finite, axis=0),
        "exponents_before": before,
        "exponents_after": leading_exponents(chosen, task),
    }


def summarize(row: dict, plain: dict) -> dict:
    """What the table says of a variant."""
    test, base = (np.asarray(r["test"])[r["chosen"]] for r in (row, plain))
    difference = test - base
    interval = paired_interval(difference)
    curve = np.asarray(row["validation"])[row["chosen"]].mean(axis=0)
    reached = np.flatnonzero(curve >= 0.8)
    updates = (reached[0] + 1) * row["updates"] / len(curve) if len(reached) else None
    finite = np.asarray(row["finite"])[row["chosen"]]
    return {
        "rate": row["rates"][row["chosen"]],
        "accuracy": test.mean(),
        "least": test.min(),
        "largest": test.max(),
        "difference": interval["value"],
        "half_interval": interval["high"] - interval["value"],
        "updates_to_80": updates,
        "seconds_to_80": None
        if updates is None
        else updates * row["seconds_per_update"] + row["start_seconds"],
        "failures": np.mean((test < 0.2) | ~finite),
        "failures_at_any_rate": np.mean(
            (np.asarray(row["test"]) < 0.2) | ~np.asarray(row["finite"])
        ),
    }


def read_rows(path) -> list[dict]:
    """Rows of an earlier run with another `--only`."""
    return json.loads(path.read_text())["rows"] if path is not None and path.exists() else []


def print_rows(rows):
    table = []
    for row in rows:
        found = row["summary"]
        reached = found["updates_to_80"]
        table.append(
            [
                f"{row['task']} {row['cell']}",
                row["variant"],
                f"{found['accuracy']:.3f} [{found['least']:.3f}, {found['largest']:.3f}]",
                f"{found['difference']:+.3f} +- {found['half_interval'] or 0:.3f}",
                f"{found['rate']:g}",
                f"{row['updates']}",
                "never" if reached is None else f"{reached:.0f} ({found['seconds_to_80']:.1f} s)",
                f"{found['failures']:.0%}",
                *(
                    " ".join(
                        f"{x if x is not None else np.nan:.2f}" for x in row[f"exponents_{when}"]
                    )
                    for when in ("before", "after")
                ),
            ]
        )
    header = ["task", "variant", "accuracy", "over plain", "rate", "updates", "to 80 %", "failures"]
    print(_harness.format_table([*header, "exponents 1, 8 before", "after"], table))


def plan(toy: bool):
    """(task, cell, settings) of every part."""
    if toy:
        yield sequences.make_task("padded", datasets, 24), "tanh", Settings(2, 4, 4, (1e-3,), 1)
        return
    for name in ("pixels", "permuted", "padded"):
        task = sequences.make_task(name, datasets)
        for kind in sequences.KINDS:
            rates = (1e-3, 3e-3, 1e-2) if kind == "tanh" else (3e-3, 1e-2)
            if name == "padded":
                yield task, kind, Settings(3, 640 if kind == "tanh" else 320, 16, rates, 8)
            else:
                yield task, kind, Settings(5, 1200 if kind == "tanh" else 600, 32, rates)


def main():
    arguments = _harness.parse_arguments(__doc__, _harness.ONLY)
    if datasets is None:
        raise SystemExit(1)
    for task, kind, settings in plan(arguments.toy):
        if arguments.only not in f"{task.name} {kind}":
            continue
        variants = list_variants(kind, task.name, task.num_steps)
        if arguments.toy:
            variants = {n: variants[n] for n in ("plain", "critical", "penalty")}
        costs = seconds_per_update(kind, task, variants, settings)
        rows = []
        for name, variant in variants.items():
            since = time.perf_counter()
            row = run(kind, task, name, variant, settings, costs)
            row = _harness.to_json(row)
            rows.append({**row, "summary": summarize(row, rows[0] if rows else row)})
            print(
                f"done: {task.name} {kind} {name}, {time.perf_counter() - since:.0f} s", flush=True
            )
            others = [
                other
                for other in read_rows(arguments.json)
                if (other["task"], other["cell"]) != (task.name, kind)
            ]
            _harness.write_json(
                arguments.json, benchmark="long_sequences", toy=arguments.toy, rows=others + rows
            )
        print_rows(_harness.to_json(rows))


if __name__ == "__main__":
    main()
