"""Measure how long forecasts of chaotic systems hold: a GRU, an LRU, an almost-linear RNN and a reservoir.

Three flows of dysts are sampled 60 times per period and standardized: 20 000 points to train on, 2000 to choose weights
by, and 12 000 unseen points to forecast. Every model reads 200 points and then runs without inputs. A forecast holds
while its root mean square error over the components is below 0.4 standard deviations. Times are in Lyapunov times,
with the largest exponent of the shipped gallery. The table shows medians and quartiles over 50 starts for each of three
seeds, and the largest exponent of each network as it runs without inputs, beside that of the system.

- GRU (64 units) and LRU (64 complex modes between a linear encoder and a perceptron): Adam on the error of one step.
- AL-RNN (40 units, 20 of them rectified; with 2 rectified units its forecasts of Lorenz last half a Lyapunov time):
  `reconstruct` with sparse teacher forcing every 8 steps, and the weights whose forecasts of the validation points hold
  longest. The points it reads force it as in training. Sizes, rate and forcing were chosen by the validation points of
  Lorenz.
- Reservoir: 300 tanh units with biases in (-1, 1) and a fitted linear readout. Of 24 settings of spectral radius, input
  strength and ridge penalty, the one whose forecasts of the validation points hold longest.

python benchmarks/forecast_horizon.py [--toy] [--json FILE]
"""

import itertools
import time
from operator import itemgetter

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from _forecasts import Encoded, cast, count_valid_steps, free_run, read_points, train

import lejax
from lejax import reconstruction
from lejax.cells import ALRNN, ClosedLoop, EchoStateCell, GRUCell, LRUCell, fit_readout
from lejax.interop import from_dysts
from lejax.systems import Flow


SYSTEMS = ("Lorenz", "Rossler", "Halvorsen")
HEARD, FORCED_EVERY = 200, 8


def make_series(name, toy):
    """Standardized training, validation and test series, and the time of a step."""
    field = from_dysts(name)
    dt = field.period / 60
    sizes = (600, 400, 700) if toy else (20_000, 2_000, 12_000)
    states = lejax.unroll(
        Flow(field, dt, substeps=4), field.initial_state(), num_steps=2000 + sum(sizes)
    )[2000:]
    seen = states[: sizes[0] + sizes[1]]
    states = (states - seen.mean(axis=0)) / seen.std(axis=0)
    return *jnp.split(states, np.cumsum(sizes)[:2]), dt


def end_of_hearing(model, points):
    """The state after reading points, whose output is the forecast of the next."""
    if isinstance(model, ClosedLoop):
        return jax.tree.map(lambda x: x[-1], read_points(model, points))
    # Force at intervals, as in training: units that are not observed have not learned to be forced at every step.
    points = points[-1 - (len(points) - 1) // FORCED_EVERY * FORCED_EVERY :]
    estimates = jax.vmap(model.observation.estimate)(points[1:])
    forcing = reconstruction.SparseTeacherForcing(FORCED_EVERY)
    strengths = forcing.strengths(jnp.ones((), points.dtype), len(estimates))
    states = reconstruction.forced_states(model, model.start(points[0]), estimates, strengths)
    last = jnp.where(model.observation.determined(), estimates[-1], states[-1])
    return model(None, last)


@eqx.filter_jit
def horizons(model, series, num_steps, num_starts):
    """Number of steps (num_starts,), at most `num_steps`, for which forecasts hold."""
    starts = jnp.linspace(0, len(series) - HEARD - num_steps, num_starts).astype(int)

    def of_start(start):
        window = jax.lax.dynamic_slice_in_dim(series, start, HEARD + num_steps)
        state = end_of_hearing(model, window[:HEARD])
        return count_valid_steps(free_run(model, state, num_steps), window[HEARD:])

    return jax.vmap(of_start)(starts)


class HorizonScore(eqx.Module):
    """Minus the mean number of steps for which forecasts of the validation points hold."""

    num_steps: int = eqx.field(static=True)

    def __call__(self, model, series, inputs=None):
        held = horizons(model, series, self.num_steps, 30)
        return -jnp.mean(held.astype(series.dtype))


def fit_gru(series, valid, keys, toy, longest):
    def make_loop(key, size=8 if toy else 64, points=series.shape[1]):
        keys = jr.split(key, 3)
        cell = GRUCell(size, size, dtype=jnp.float32, key=keys[1])
        encoder = eqx.nn.Linear(points, size, dtype=jnp.float32, key=keys[0])
        readout = eqx.nn.Linear(size, points, dtype=jnp.float32, key=keys[2])
        return ClosedLoop(Encoded(encoder, cell), readout)

    return train_loops(make_loop, series, keys, toy)


def fit_lru(series, valid, keys, toy, longest):
    def make_loop(key, size=8 if toy else 64, points=series.shape[1]):
        keys = jr.split(key, 3)
        cell = LRUCell(size, size, dtype=jnp.float32, key=keys[1])
        encoder = eqx.nn.Linear(points, size, dtype=jnp.float32, key=keys[0])
        readout = eqx.nn.MLP(size, points, size, 2, jax.nn.gelu, dtype=jnp.float32, key=keys[2])
        return ClosedLoop(Encoded(encoder, cell), readout)

    return train_loops(make_loop, series, keys, toy)


def train_loops(make_loop, series, keys, toy):
    updates, batch, length = (5, 4, 20) if toy else (4000, 16, 100)
    series = series.astype(jnp.float32)
    loops, _ = eqx.filter_vmap(lambda key: train(make_loop, key, series, updates, batch, length))(
        keys
    )
    arrays, rest = eqx.partition(loops, eqx.is_array)
    return [eqx.combine(jax.tree.map(itemgetter(i), arrays), rest) for i in range(len(keys))]


def fit_almost_linear(series, valid, keys, toy, longest):
    size, epochs, updates, length = (6, 2, 2, 20) if toy else (40, 1000, 50, 60)

    def draw(key):
        cell = ALRNN(size, size // 2, dtype=jnp.float32, key=key)
        observation = reconstruction.IdentityObservation(series.shape[1], size, dtype=jnp.float32)
        return reconstruction.ObservedCell(cell, observation)

    run = reconstruction.reconstruct(
        eqx.filter_vmap(draw)(keys),
        series,
        valid,
        keys=keys,
        forcing=reconstruction.SparseTeacherForcing(FORCED_EVERY),
        num_epochs=epochs,
        training=reconstruction.TrainingSettings(
            updates_per_epoch=updates,
            num_steps=length,
            noise=0.01,
            optimizer=optax.radam(optax.exponential_decay(3e-3, epochs * updates, 1e-2)),
        ),
        selection=reconstruction.ModelSelection(HorizonScore(min(longest, len(valid) - HEARD))),
    )
    return [run.model(i) for i in range(len(keys))]


@eqx.filter_jit
def fit_readout_of(key, series, size, radius, strength, penalty):
    cell = EchoStateCell(
        series.shape[1],
        size,
        spectral_radius=radius,
        input_scale=strength,
        bias_scale=1.0,
        key=key,
    )
    states = lejax.unroll(cell, cell.initial_state(), series[:-1])
    return ClosedLoop(cell, fit_readout(states[HEARD:], series[1 + HEARD :], penalty=penalty))


def fit_reservoir(series, valid, keys, toy, longest):
    size = 20 if toy else 300
    settings = itertools.product((0.6, 1.0), (0.03, 0.1, 0.3, 1.0), (1e-10, 1e-8, 1e-6))
    settings = [jnp.array(setting) for setting in settings][: 2 if toy else None]
    score = HorizonScore(min(longest, len(valid) - HEARD))

    def fit(key):
        loops = [fit_readout_of(key, series, size, *setting) for setting in settings]
        return min(loops, key=lambda loop: score(loop, valid))

    return [fit(key) for key in keys]


FITS = {
    "GRU": fit_gru,
    "LRU": fit_lru,
    "AL-RNN": fit_almost_linear,
    "reservoir": fit_reservoir,
}


def study(name, toy):
    series, valid, test, dt = make_series(name, toy)
    system = lejax.systems.gallery()[name]
    largest = system.exponents[0]
    num_steps = 50 if toy else int(np.ceil(12 / (largest * dt)))
    results = {"largest_exponent": largest, "standard_error": system.standard_error[0]}
    results["longest"] = num_steps * dt * largest
    for kind, fit in FITS.items():
        begin, used = time.perf_counter(), time.process_time()
        models = fit(series, valid, jr.split(jr.key(0), 1 if toy else 3), toy, num_steps)
        models = [cast(model, jnp.float64) for model in models]
        row = {
            "seconds": time.perf_counter() - begin,
            "processor_seconds": time.process_time() - used,
        }
        held = [horizons(model, test, num_steps, 5 if toy else 50) for model in models]
        times = np.array(held) * dt * largest
        row["quartiles"] = np.quantile(times, [0.25, 0.5, 0.75], axis=1).T
        spectra = [
            lejax.lyapunov_spectrum(
                model,
                end_of_hearing(model, test[:HEARD]),
                num_steps=300 if toy else 20_000,
                transient=100 if toy else 2000,
                num_exponents=1,
                dt=dt,
                throw=False,
            )
            for model in models
        ]
        row["exponents"] = [spectrum.exponents[0] for spectrum in spectra]
        row["exponent_errors"] = [spectrum.standard_error[0] for spectrum in spectra]
        results[kind] = row
        print(f"done: {name}, {kind}: {row['quartiles'][:, 1].round(2)}", flush=True)
    return results


def show(rows):
    table = []
    for name, row in rows.items():
        for kind in FITS:
            of_kind = row[kind]
            exponents = " ".join(f"{x:.3f}" for x in of_kind["exponents"])
            held = [f"{m:.2f} ({low:.2f} to {high:.2f})" for low, m, high in of_kind["quartiles"]]
            table.append([f"{name}, {kind}", " ".join(held), exponents])
        table[-len(FITS)].append(f"{row['largest_exponent']:.3f}")
        for line in table[1 - len(FITS) :]:
            line.append("")
    header = ["system, model", "Lyapunov times of each seed: median (quartiles)", "lambda_1"]
    print(_harness.format_table([*header, "of the system"], table))


def main():
    arguments = _harness.parse_arguments(__doc__)
    if _harness.import_peer("dysts") is None:
        return
    rows = {name: study(name, arguments.toy) for name in SYSTEMS[: 1 if arguments.toy else None]}
    show(rows)
    _harness.write_json(arguments.json, benchmark="forecast_horizon", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
