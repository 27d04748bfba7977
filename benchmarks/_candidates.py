"""Networks to choose among: what they did in training, from their start to their end, and early features of them."""

import time
from pathlib import Path

import _harness  # first: it sets what JAX and NumPy read when they start
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats

import lejax
from lejax import populations


KINDS = {"tanh": lejax.cells.RNNCell, "gru": lejax.cells.GRUCell, "lstm": lejax.cells.LSTMCell}
SIZES = (8, 16, 32)
EARLY = (1, 2, 4)
POINTS = 64  # exponents of the largest network
FLOOR = -10.0  # what shrinks faster than by exp(-10) in a step is forgotten in one step


def digits(count):
    datasets = _harness.import_peer("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].reshape(-1, 8, 8).astype(np.float32) / 16, labels[order]
    task = populations.row_task(images, labels, num_classes=10)
    return task[:count], task[1400:]


def drawn(make, **options):
    def draw(count):
        return tuple(
            make(jr.key(seed), number, dtype=jnp.float32, **options)
            for seed, number in ((1, count), (2, 300))
        )

    return draw


TASKS = {
    "digits": digits,
    "xor": drawn(populations.delayed_xor_task, num_steps=16, delay=2),
    "adding": drawn(populations.adding_task, num_steps=12),
}


def draw_hyperparameters(name, count):
    """Learning rates and scales of a group of networks."""
    rng = np.random.default_rng(list(name.encode()))
    scale, rate = (np.exp(rng.uniform(*np.log(ends), count)) for ends in ((0.2, 5), (3e-4, 5e-2)))
    return populations.Hyperparameters(jnp.asarray(scale), jnp.asarray(rate))


def resample(exponents):
    return populations.resample_spectrum(jnp.maximum(exponents, FLOOR), POINTS)


def train(name, task, kind, size, count, epochs, examples):
    """The record of `count` networks of one kind and size."""
    training, validation = TASKS[task](examples)
    inputs = training.inputs.shape[-1]
    stream = validation.inputs.reshape(-1, inputs)[:220]
    population = populations.initialize_population(
        lambda key: KINDS[kind](inputs, size, dtype=jnp.float32, key=key),
        draw_hyperparameters(name, count),
        training.num_outputs,
        key=jr.key(sum(name.encode())),
    )
    spectra = []
    for early in (0, *EARLY):
        population = populations.train_population(
            population, training, validation, num_epochs=early, batch_size=32
        )
        jax.block_until_ready(population)
        # The last of these calls is timed: by then the program is compiled.
        clock = time.process_time()  # other processes do not lengthen it
        found = populations.population_spectra(population, stream, transient=20).exponents
        spectra.append(jax.block_until_ready(found))
        seconds_spectra = time.process_time() - clock
    clock = time.process_time()
    population = populations.train_population(
        population, training, validation, num_epochs=epochs, batch_size=32
    )
    jax.block_until_ready(population)
    seconds_epoch = (time.process_time() - clock) / (epochs - EARLY[-1])
    return {
        "loss": np.asarray(population.validation_loss, float),
        "spectra": np.asarray(jax.vmap(jax.vmap(resample))(jnp.stack(spectra, axis=1)), float),
        "scale": np.asarray(population.hyperparameters.scale),
        "rate": np.asarray(population.hyperparameters.learning_rate),
        "spectrum_cost": np.full(count, seconds_spectra / seconds_epoch),
        "kind": np.full(count, list(KINDS).index(kind)),
        "size": np.full(count, size),
    }


def load_or_train(arguments, task, kind, size, count, epochs, examples):
    """The record of a group of networks, from its file if there is one; None if it is not to be trained now."""
    name = f"{task}.{kind}.{size}"
    path = arguments.records and Path(arguments.records) / f"{name}.npz"
    if path and path.exists():
        return dict(np.load(path))
    if arguments.only and arguments.only not in name:
        return None
    clock = time.perf_counter()
    record = train(name, task, kind, size, count, epochs, examples)
    seconds, cost = time.perf_counter() - clock, 32 * record["spectrum_cost"][0]
    print(f"{name}: {seconds:.0f} s, a spectrum costs {cost:.0f} updates", flush=True)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **record)
    return record


def standardize(values):
    """Columns with mean 0 and deviation 1; networks that have diverged do not count."""
    sound = np.where(np.isfinite(values), values, np.nan)
    return (values - np.nanmean(sound, axis=0)) / np.maximum(np.nanstd(sound, axis=0), 1e-9)


def features_of(record, early):
    """Groups of features (n, f) of all networks of a task after `early` epochs, standardized within the task."""
    logs = [np.log(record[name]) for name in ("scale", "rate", "size")]
    plain = np.stack(logs + [record["kind"] == kind for kind in range(len(KINDS) - 1)], axis=1)
    plain = standardize(plain.astype(float))
    products = [
        plain[:, i] * plain[:, j] for i in range(plain.shape[1]) for j in range(min(i, 2) + 1)
    ]
    loss = record["loss"][:, : early + 1]
    ranks = scipy.stats.rankdata(np.where(np.isfinite(loss), loss, np.inf), axis=0)
    return {
        "loss": standardize(np.concatenate([np.log(loss), ranks], axis=1)),
        "spectrum": standardize(record["spectra"][:, (0, *EARLY).index(early)]),
        "hyperparameters": np.concatenate([plain, standardize(np.stack(products, axis=1))], axis=1),
    }
