"""Measure whether Lyapunov spectra tell which networks will perform: an autoencoder of spectra against plain baselines.

tanh, GRU and LSTM networks of 32 units read 8 x 8 digits row by row (scikit-learn, 1400 to train on, 397 to
validate). Their weights are drawn from U(-p, p) with p between 0.1 and 2 and trained for 15 epochs of Adam, after
Vogt, Puelma Touzel, Shlizerman & Lajoie (2022) and Vogt, Zheng & Shlizerman (2024).

1. Rank correlation of the largest exponent with the final validation loss, for three seed sets (weights and the split
   of the digits) of 30 networks with log-spaced p. The exponent comes from all 397 validation digits; the keys that
   end in `_440_steps` have that of the first 55.
2. A table for 200 networks with random p, learning rate and dropout: the final loss (its logarithm) is predicted from
   the trained spectrum and from the spectrum after 2 epochs, by the autoencoder and by baselines, in 2 times 5 folds.
   Scores are means over the repeats with 95 % bootstrap intervals over networks.
3. The time of 200 spectra of 440 steps, on one device, sharded over as many devices as there are cores, and in PyTorch
   with as many threads.
4. The same correlations for two other tasks with real data: characters of Python's own manual, and an EEG that ships
   with matplotlib.
"""

from _cores import CORES  # first: it sets what JAX reads when it starts


import _harness  # isort: skip  # before JAX and NumPy, too
import functools as ft
import json
import re
import time

import _prediction
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.cbook
import numpy as np
from _torch_spectra import make_run
from jax.sharding import AxisType, PartitionSpec

import lejax
from lejax import populations


SIZE = 32
KINDS = {
    "tanh": lejax.cells.RNNCell,
    "gru": lejax.cells.GRUCell,
    "lstm": lejax.cells.LSTMCell,
}
EARLY = 2


@ft.cache
def maker(kind, input_size):
    """Function from a key to a cell; cached, so that no kind compiles twice."""
    return lambda key: KINDS[kind](input_size, SIZE, use_bias=False, dtype=jnp.float32, key=key)


def digits(seed, toy):
    """Training and validation examples, and the validation rows as a stream."""
    data = _harness.import_peer("sklearn.datasets")
    if data is None:
        raise SystemExit(1)
    images, labels = data.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order].reshape(-1, 8, 8).astype(np.float32) / 16, labels[order]
    cut = 1400
    parts = [
        populations.row_task(images[part], labels[part], num_classes=10)
        for part in (slice(0, 128 if toy else cut), slice(cut, None))
    ]
    return *parts, jnp.asarray(images[cut:].reshape(-1, 8), float)


def uniform_scale(limit):
    """The factor that makes U(-limit, limit) of how the cells draw, U(+-1/sqrt(H))."""
    return limit * SIZE**0.5


def rank(x, y):
    return float(_prediction.spearman(np.asarray(x), np.asarray(y)))


def seed_sets(kind, toy):
    """Rank correlations of the largest exponent with the final loss, one for each seed set."""
    limits = jnp.geomspace(0.1, 2.0, 15 if toy else 30)
    hyperparameters = populations.Hyperparameters(scale=uniform_scale(limits))
    found = {}
    for seed in range(1 if toy else 3):
        examples, validation, stream = digits(seed, toy)
        start = populations.initialize_population(
            maker(kind, 8), hyperparameters, 10, key=jr.key(seed)
        )
        end = populations.train_population(start, examples, validation, num_epochs=2 if toy else 15)
        loss = end.validation_loss[:, -1]
        for suffix, rows in (("_440_steps", stream[:440]), ("", stream)):
            first, last = (
                populations.population_spectra(
                    population, rows, num_exponents=1, transient=40
                ).exponents[:, 0]
                for population in (start, end)
            )
            for name, value in {
                f"spearman_abs_lambda1_final{suffix}": rank(jnp.abs(last), loss),
                f"spearman_lambda1_final{suffix}": rank(last, loss),
                f"spearman_lambda1_initial{suffix}": rank(first, loss),
                f"spearman_abs_lambda1_initial{suffix}": rank(jnp.abs(first), loss),
                f"pearson_lambda1_initial{suffix}": float(
                    _prediction.pearson(np.asarray(first), np.asarray(loss))
                ),
            }.items():
                found.setdefault(name, []).append(value)
    return found


def untrained_population(kind, toy):
    """Networks with random hyperparameters, their training and validation examples, and their stream."""
    count = 15 if toy else 200
    keys = jr.split(jr.key(100), 3)
    limits = jnp.exp(jr.uniform(keys[0], (count,), minval=jnp.log(0.1), maxval=jnp.log(2.0)))
    rates = jnp.exp(jr.uniform(keys[1], (count,), minval=jnp.log(1e-3), maxval=jnp.log(1e-2)))
    dropout = jr.uniform(keys[2], (count,), minval=0.0, maxval=0.4)
    hyperparameters = populations.Hyperparameters(uniform_scale(limits), rates, dropout)
    examples, validation, stream = digits(100, toy)
    start = populations.initialize_population(maker(kind, 8), hyperparameters, 10, key=jr.key(101))
    return start, examples, validation, stream[:440]


def study_population(kind, toy):
    """The same networks trained, with spectra early and at the end."""
    start, examples, validation, stream = untrained_population(kind, toy)
    last = 3 if toy else 15
    return populations.train_population(
        start,
        examples,
        validation,
        num_epochs=last,
        spectrum_epochs=(EARLY, last),
        stream=stream,
        transient=40,
    )


@eqx.filter_jit
def embed(method, spectra, target, splits, keys):
    """Predictions (folds, n) and latent codes (folds, n, l) of an autoencoder fitted to each fold."""

    def one(split, key):
        model = method.fit(spectra, target, split.validation, is_training=split.training, key=key)
        return jax.vmap(model)(spectra), jax.vmap(model.encode)(spectra)

    return jax.vmap(one)(splits, keys)


def table(exponents, early_loss, hyperparameters, target, toy):
    """Scores of the out-of-fold predictions of each method, and by how much the autoencoder is better."""
    method = populations.Autoencoder(num_updates=10 if toy else 150)
    early = jnp.log(early_loss)[:, None]
    logs = [jnp.log(hyperparameters.scale), jnp.log(hyperparameters.learning_rate)]
    plain = jnp.stack([*logs, hyperparameters.dropout], axis=1)
    plain = (plain - plain.mean(axis=0)) / plain.std(axis=0)
    squares = jnp.stack([plain[:, i] * plain[:, j] for i in range(3) for j in range(i + 1)], axis=1)
    baselines = {
        "largest exponent": exponents[:, :1],
        "|largest exponent|": jnp.abs(exponents[:, :1]),
        "mean exponent": exponents.mean(axis=1, keepdims=True),
        "ridge on the spectrum": exponents,
        "early validation loss": early,
        "hyperparameters": jnp.concatenate([plain, squares], axis=1),
        "ridge on spectrum and early loss": jnp.concatenate([exponents, early], axis=1),
    }
    inputs = method, exponents.astype(jnp.float32), target.astype(jnp.float32)  # enough, and faster
    methods = {"embedding": lambda splits, keys: embed(*inputs, splits, keys)[0]}
    methods |= {name: _prediction.ridge(features, target) for name, features in baselines.items()}
    statistics = {
        "spearman": _prediction.spearman,
        "r_squared": _prediction.r_squared,
        "good_or_bad": _prediction.agreement,
    }
    scores, predictions = {}, {}
    for name, fit_and_predict in methods.items():
        predictions[name] = _prediction.cross_validate(
            fit_and_predict, len(target), num_repeats=1 if toy else 2, key=jr.key(7)
        )
        scores[name] = {
            score: _prediction.estimate(
                _prediction.mean_over_repeats(statistic), target, *predictions[name]
            )
            for score, statistic in statistics.items()
        }
    better_by = {
        name: _prediction.estimate(
            _prediction.difference_over_repeats, target, *predictions["embedding"], *other
        )
        for name, other in predictions.items()
        if name != "embedding"
    }
    return {
        "scores": scores,
        "embedding_better_by": better_by,
        "latent_classifier_accuracy": latent_classifier(*inputs),
    }


def latent_classifier(method, spectra, target):
    """The share of unseen networks that a hyperplane in the latent space puts on the right side of the median."""
    splits = _prediction.draw_folds(jr.key(8), len(target))
    keys = jr.split(jr.key(9), len(splits.test))
    codes = embed(method, spectra, target, splits, keys)[1]
    target = np.asarray(target)
    right = np.zeros(len(target), bool)
    for i, (is_training, _, is_test) in enumerate(zip(*map(np.asarray, splits), strict=True)):
        is_good = target < np.median(target[is_training])
        said = _prediction.classify(codes[i], is_good, is_training)
        right[is_test] = (said == is_good)[is_test]
    return _prediction.estimate(np.mean, right)


def time_spectra(population, stream, rounds):
    """Seconds for the spectra of a population: lejax and PyTorch, on one core and on all."""
    cells = jax.tree.map(
        lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, population.networks.cell
    )
    arrays, static = eqx.partition(cells, eqx.is_array)

    def spectra(arrays):
        return jax.vmap(
            lambda a: (
                lejax.lyapunov_spectrum(
                    eqx.combine(a, static),
                    eqx.combine(a, static).initial_state(),
                    stream,
                    transient=40,
                ).exponents
            )
        )(arrays)

    count = population.training_loss.shape[0]
    shards = CORES if count % CORES == 0 else 1
    mesh = jax.make_mesh((shards,), ("network",), axis_types=(AxisType.Auto,))
    along = PartitionSpec("network")
    sharded = jax.jit(jax.shard_map(spectra, mesh=mesh, in_specs=along, out_specs=along))
    single = jax.jit(spectra)
    steps = len(stream)
    contenders = [
        _harness.Contender("lejax, one device", lambda: single(arrays), steps),
        _harness.Contender(f"lejax, {shards} devices", lambda: sharded(arrays), steps),
    ]
    torch = _harness.import_peer("torch", "pip install torch")
    if torch is not None:
        contenders += [
            _harness.Contender(
                f"torch, {threads} threads", make_run(torch, cells, stream, 40, threads), steps
            )
            for threads in sorted({1, CORES})
        ]
    timings = _harness.time_round_robin(contenders, rounds)
    found = {
        "seconds_spectra": float(np.median(timings[1].times)),
        "seconds_spectra_of": {t.contender.name: float(np.median(t.times)) for t in timings},
        "seconds_spectra_first_call": {t.contender.name: t.first_call for t in timings},
    }
    if torch is not None:
        found |= {
            "torch_over_lejax": _harness.paired_ratio(timings[-1], timings[1]),
            "torch_over_lejax_one_core": _harness.paired_ratio(timings[2], timings[0]),
            # Chaotic networks differ by their statistical error, the others by rounding and alignment.
            "median_difference_from_torch": median_difference(
                timings[-1].result, timings[0].result
            ),
        }
    return found


def median_difference(a, b):
    """The median over the exponents that are finite in both."""
    finite = np.isfinite(a) & np.isfinite(b)
    return float(np.median(np.abs(a[finite] - b[finite])))


def characters(toy):
    """Training and validation pieces, and a stream, of Python's own manual in letters and spaces."""
    from pydoc_data.topics import topics

    text = re.sub("[^a-z]+", " ", " ".join(topics.values()).lower())[: 4_000 if toy else 30_000]
    alphabet, symbols = np.unique(list(text), return_inverse=True)
    task = populations.next_symbol_task(
        symbols, num_symbols=len(alphabet), num_steps=30, dtype=jnp.float32
    )
    cut = int(0.8 * len(task.inputs))
    stream = task.inputs[cut : cut + 15].reshape(-1, len(alphabet)).astype(float)
    return task[:cut], task[cut:], stream


def eeg(toy):
    """Training and validation pieces, and a stream, of an EEG: four electrodes, 800 samples, one step ahead."""
    with matplotlib.cbook.get_sample_data("eeg.dat") as file:
        series = np.frombuffer(file.read(), float).reshape(800, 4)
    series = ((series - series.mean(axis=0)) / series.std(axis=0)).astype(np.float32)
    task = populations.forecasting_task(series[:600], num_steps=20)
    held_out = populations.forecasting_task(series[600:], num_steps=20)
    return task, held_out, jnp.asarray(series[360:], float)


def other_task(kind, draw, batch_size, num_epochs, toy):
    """Rank correlations for another task, with intervals over the networks."""
    examples, validation, stream = draw(toy)
    limits = jnp.geomspace(0.1, 2.0, 6 if toy else 30)
    start = populations.initialize_population(
        maker(kind, examples.inputs.shape[-1]),
        populations.Hyperparameters(scale=uniform_scale(limits)),
        examples.num_outputs,
        key=jr.key(0),
    )
    end = populations.train_population(
        start, examples, validation, num_epochs=1 if toy else num_epochs, batch_size=batch_size
    )
    loss = end.validation_loss[:, -1]
    first, last = (
        populations.population_spectra(p, stream, num_exponents=1, transient=40).exponents[:, 0]
        for p in (start, end)
    )
    return {
        "spearman_abs_lambda1_final": _prediction.estimate(
            _prediction.spearman, jnp.abs(last), loss
        ),
        "spearman_lambda1_initial": _prediction.estimate(_prediction.spearman, first, loss),
        "least_loss": float(loss.min()),
        "largest_loss": float(loss.max()),
    }


def main():
    arguments = _harness.parse_arguments(
        __doc__, times="measure only the times of the spectra, and put them into FILE"
    )
    toy = arguments.toy
    kinds = ("tanh",) if toy else KINDS
    if arguments.times:
        results = {} if arguments.json is None else json.loads(arguments.json.read_text())
    else:
        results = study(kinds, arguments)
    machine = _harness.describe_machine()
    for kind in kinds:  # together at the end, since timings need a quiet machine
        start, *_, stream = untrained_population(kind, toy)
        found = time_spectra(start, stream[:60] if toy else stream, 1 if toy else 5)
        print(kind, found)
        results |= {f"{kind}.{name}": value for name, value in found.items()}
        results |= {"machine_of_times": machine}
        _harness.write_json(arguments.json, **results)


def study(kinds, arguments):
    """All measurements except those of time."""
    toy = arguments.toy
    results = {"benchmark": "population", "toy": toy}
    for kind in kinds:
        clock = time.perf_counter()
        found = seed_sets(kind, toy)
        print(f"{kind}: seed sets, {time.perf_counter() - clock:.0f} s", flush=True)
        trained = study_population(kind, toy)
        print(f"{kind}: population, {time.perf_counter() - clock:.0f} s", flush=True)
        loss = np.asarray(trained.validation_loss)
        exponents = jax.vmap(jax.vmap(populations.bound_lost))(trained.exponents)
        sound = np.isfinite(loss[:, -1]) & np.all(np.isfinite(exponents), axis=(1, 2))
        found["networks"] = len(sound)
        lost = np.any(np.isneginf(trained.exponents), axis=(1, 2))
        found["networks_with_lost_directions"] = int(np.sum(lost))
        found["networks_left_out"] = int(np.sum(~sound))
        target = jnp.log(loss[sound, -1])
        for column, question in enumerate(("early_spectrum", "trained_spectrum")):
            hyperparameters = jax.tree.map(lambda x: x[sound], trained.hyperparameters)  # noqa: B023
            found[question] = table(
                exponents[sound, column], loss[sound, EARLY], hyperparameters, target, toy
            )
        print(f"{kind}: tables, {time.perf_counter() - clock:.0f} s", flush=True)
        if not toy:
            found["characters"] = other_task(kind, characters, 64, 6, toy)
            found["eeg"] = other_task(kind, eeg, 8, 30, toy)
        found["seconds"] = time.perf_counter() - clock
        results |= {f"{kind}.{name}": value for name, value in found.items()}
        show(kind, found)
        _harness.write_json(arguments.json, **results)
    return results


def show(kind, found):
    """Print the results of one kind of cell."""
    print(f"\n{kind}: {found['seconds']:.0f} s")
    for name, value in found.items():
        if isinstance(value, list):
            print(f"  {name}: " + ", ".join(f"{x:.2f}" for x in value))
        elif name.startswith("networks"):
            print(f"  {name}: {value}")
    for task in ("characters", "eeg"):
        if task in found:
            print(f"  {task}: {found[task]}")
    for question in ("trained_spectrum", "early_spectrum"):
        rows = [
            [name, *(_prediction.format_estimate(scores[s]) for s in scores)]
            for name, scores in found[question]["scores"].items()
        ]
        print(f"\n{kind}: the final loss from the {question.replace('_', ' ')}")
        print(_harness.format_table(["method", "Spearman", "R2", "good or bad"], rows))
        accuracy = _prediction.format_estimate(found[question]["latent_classifier_accuracy"])
        print(f"a line in the latent space puts {accuracy} on the right side of the median")
        for name, value in found[question]["embedding_better_by"].items():
            better_by = _prediction.format_estimate(value)
            print(f"  embedding better than {name} by {better_by} in Spearman")


if __name__ == "__main__":
    main()
