"""Do Lyapunov spectra tell which networks will perform? Hundreds of networks, an autoencoder, plain baselines.

tanh, GRU and LSTM networks of 32 units read 8 x 8 digits row by row (scikit-learn, 1400 to train on, 397 to
validate), weights drawn from U(-p, p) with p between 0.1 and 2, 15 epochs of Adam. Written after
Vogt, Puelma Touzel, Shlizerman & Lajoie (2022) and Vogt, Zheng & Shlizerman (2024).

1. Rank correlation of the largest exponent with the final validation loss: three seed sets (weights and the split
   of the digits) of 30 networks, p log-spaced. The exponent comes from all 397 validation digits; the keys that end
   in `_440_steps` have that of the first 55.
2. A table: 200 networks with random p, learning rate and dropout; the final loss (its logarithm) predicted from the
   trained spectrum and from the one after 2 epochs, by the autoencoder and by baselines, in 2 times 5 folds.
   Scores are means over the repeats with 95 % bootstrap intervals over networks.
3. The time of 200 spectra of 440 steps, on one device and sharded over as many as there are cores, and in PyTorch
   with as many threads.
4. Other tasks, real ones: characters of Python's own manual, and an EEG that ships with matplotlib.
"""

from _cores import CORES  # first: it sets what JAX reads when it starts


import _harness  # isort: skip  # before JAX and NumPy, too
import functools as ft
import json
import re
import time

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
    """A cell from a key; one function object a kind, so that nothing compiles twice."""
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
    return populations.spearman(x, y).value


def seed_sets(kind, toy):
    """Rank correlations of the largest exponent with the final loss, one a seed set."""
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
                f"pearson_lambda1_initial{suffix}": populations.pearson(first, loss).value,
            }.items():
                found.setdefault(name, []).append(value)
    return found


def untrained_population(kind, toy):
    """Networks with random hyperparameters, and what to train and drive them with."""
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
    """The same after their training, with spectra before, early and at the end."""
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


def mean_over_repeats(statistic):
    """A statistic of the truth and R predictions: the mean of those of each repeat."""

    def mean(truth, *predictions, axis=-1):
        return np.mean([statistic(p, truth, axis=axis) for p in predictions], axis=0)

    return mean


def difference_over_repeats(truth, *predictions, axis=-1):
    """How much better the first half of the predictions ranks than the second."""
    half = len(predictions) // 2
    mean = mean_over_repeats(populations.spearman_statistic)
    return mean(truth, *predictions[:half], axis=axis) - mean(truth, *predictions[half:], axis=axis)


def agreement(prediction, truth, axis=-1):
    """The share of networks put on the right side of the median."""
    sides = [x < np.median(x, axis=axis, keepdims=True) for x in (prediction, truth)]
    return np.mean(sides[0] == sides[1], axis=axis)


def table(exponents, early_loss, hyperparameters, target, toy):
    """Method -> scores of its out-of-fold predictions, and what the embedding is better by."""
    chosen = populations.Autoencoder(num_updates=10 if toy else 150)
    spectra = exponents.astype(jnp.float32)  # enough for a fit, and faster
    early = jnp.log(early_loss)[:, None]
    logs = [jnp.log(hyperparameters.scale), jnp.log(hyperparameters.learning_rate)]
    plain = jnp.stack([*logs, hyperparameters.dropout], axis=1)
    plain = (plain - plain.mean(axis=0)) / plain.std(axis=0)
    squares = jnp.stack([plain[:, i] * plain[:, j] for i in range(3) for j in range(i + 1)], axis=1)
    largest = exponents[:, :1]
    methods = {
        "embedding": (chosen, spectra),
        "largest exponent": (populations.Ridge(), largest),
        "|largest exponent|": (populations.Ridge(), jnp.abs(largest)),
        "mean exponent": (populations.Ridge(), exponents.mean(axis=1, keepdims=True)),
        "ridge on the spectrum": (populations.Ridge(), exponents),
        "early validation loss": (populations.Ridge(), early),
        "hyperparameters": (populations.Ridge(), jnp.concatenate([plain, squares], axis=1)),
        "ridge on spectrum and early loss": (
            populations.Ridge(),
            jnp.concatenate([exponents, early], axis=1),
        ),
    }
    statistics = {
        "spearman": populations.spearman_statistic,
        "r_squared": populations.r_squared_statistic,
        "good_or_bad": agreement,
    }
    scores, predictions = {}, {}
    for name, (regressor, features) in methods.items():
        out = populations.cross_validate(
            regressor,
            features,
            target.astype(features.dtype),
            num_repeats=1 if toy else 2,
            key=jr.key(7),
        )
        predictions[name] = np.asarray(out, float)
        scores[name] = {
            score: populations.bootstrap(
                mean_over_repeats(statistic), target, *predictions[name]
            )._asdict()
            for score, statistic in statistics.items()
        }
    better_by = {
        name: populations.bootstrap(
            difference_over_repeats, target, *predictions["embedding"], *other
        )._asdict()
        for name, other in predictions.items()
        if name != "embedding"
    }
    return {
        "scores": scores,
        "embedding_better_by": better_by,
        "latent_classifier_accuracy": latent_classifier(chosen, spectra, target)._asdict(),
    }


@eqx.filter_jit
def judge_latent_codes(method, spectra, target):
    splits = populations.folds(jr.key(8), spectra.shape[0])

    def judge(split, key):
        model = method.fit(spectra, target, split, key=key)
        codes = jax.vmap(model.encode)(spectra)
        middle = jnp.nanmedian(jnp.where(split.training, target, jnp.nan))
        classifier = populations.fit_classifier(codes, target < middle, is_used=split.training)
        right = (jax.vmap(classifier)(codes) > 0.5) == (target < middle)
        return split.test & right

    return jnp.any(jax.vmap(judge)(splits, jr.split(jr.key(9), splits.test.shape[0])), axis=0)


def latent_classifier(method, spectra, target):
    """The share of unseen networks that a line in the latent space puts on the right side of the median."""
    right = judge_latent_codes(method, spectra, target.astype(spectra.dtype))
    return populations.bootstrap(np.mean, right)


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
    """Of the exponents that are finite in both."""
    finite = np.isfinite(a) & np.isfinite(b)
    return float(np.median(np.abs(a[finite] - b[finite])))


def characters(toy):
    """Python's own manual, letters and spaces: pieces to train on, to validate, and a stream."""
    from pydoc_data.topics import topics

    text = re.sub("[^a-z]+", " ", " ".join(topics.values()).lower())[: 4_000 if toy else 30_000]
    symbols, alphabet = populations.encode_text(text)
    task = populations.next_symbol_task(
        symbols, num_symbols=len(alphabet), num_steps=30, dtype=jnp.float32
    )
    cut = int(0.8 * len(task.inputs))
    stream = task.inputs[cut : cut + 15].reshape(-1, len(alphabet)).astype(float)
    return task[:cut], task[cut:], stream


def eeg(toy):
    """Four electrodes, 800 samples, one step ahead; pieces to train on, to validate, and a stream."""
    with matplotlib.cbook.get_sample_data("eeg.dat") as file:
        series = np.frombuffer(file.read(), float).reshape(800, 4)
    series = ((series - series.mean(axis=0)) / series.std(axis=0)).astype(np.float32)
    task = populations.forecasting_task(series[:600], num_steps=20)
    held_out = populations.forecasting_task(series[600:], num_steps=20)
    return task, held_out, jnp.asarray(series[360:], float)


def other_task(kind, draw, batch_size, num_epochs, toy):
    """Rank correlations on another task, with intervals over the networks."""
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
        "spearman_abs_lambda1_final": populations.spearman(jnp.abs(last), loss)._asdict(),
        "spearman_lambda1_initial": populations.spearman(first, loss)._asdict(),
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
    for kind in kinds:  # together, at the end: a quiet machine is short work then
        start, *_, stream = untrained_population(kind, toy)
        found = time_spectra(start, stream[:60] if toy else stream, 1 if toy else 5)
        print(kind, found)
        results |= {f"{kind}.{name}": value for name, value in found.items()}
        results |= {"machine_of_times": machine}
        _harness.write_json(arguments.json, **results)


def study(kinds, arguments):
    """All questions but that of time."""
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
    """What was found for one kind of cell."""
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
            [name, *(str(populations.Estimate(**scores[s])) for s in scores)]
            for name, scores in found[question]["scores"].items()
        ]
        print(f"\n{kind}: the final loss from the {question.replace('_', ' ')}")
        print(_harness.format_table(["method", "Spearman", "R2", "good or bad"], rows))
        accuracy = populations.Estimate(**found[question]["latent_classifier_accuracy"])
        print(f"a line in the latent space puts {accuracy} on the right side of the median")
        for name, value in found[question]["embedding_better_by"].items():
            print(f"  embedding better than {name} by {populations.Estimate(**value)} in Spearman")


if __name__ == "__main__":
    main()
