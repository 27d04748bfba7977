"""How long forecasts of chaotic systems last, in Lyapunov times: a GRU, an almost-linear RNN and an echo-state reservoir.

Series of dysts' systems, sampled 60 times a period and standardized: 20 000 points to train on, 2 000 to choose weights by, and 12 000
more, never seen, to forecast. Every model hears 200 points and then runs on its own; the horizon is the time until its error
exceeds .4 of the standard deviation (root mean square over the components), in Lyapunov times of the shipped gallery; medians
and quartiles over 50 starts, three seeds each. The GRU (64 units) learns to predict the next increment, teacher-forced, from
noisy inputs; the AL-RNN (20 units, 2 of them rectified) is trained by `reconstruct` with sparse teacher forcing; of the
reservoir (300 tanh units of spectral radius .9) only a linear readout of its states and their squares is fitted, by ridge
regression. None of them is tuned to a system, so that the table says what each does out of the box. `--toy` numbers mean nothing.
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax
from lejax import training
from lejax.interop import from_dysts
from lejax.systems import Flow


dysts = _harness.import_peer("dysts")
SYSTEMS = ("Lorenz", "Halvorsen")
HEARD = 200
THRESHOLD = 0.4
EVERY = 16
FORCING = training.SparseTeacherForcing(EVERY)


def make_series(name, toy):
    """Standardized series to train on, to choose by and to forecast, and the time of a step."""
    field = from_dysts(name)
    dt = field.period / 60
    sizes = (1000, 300, 1500) if toy else (20_000, 2_000, 12_000)
    flow = Flow(field, dt, substeps=4)
    states = lejax.unroll(flow, field.initial_state(), num_steps=2000 + sum(sizes))[2000:]
    seen = states[: sizes[0] + sizes[1]]
    states = (states - seen.mean(axis=0)) / seen.std(axis=0)
    return *jnp.split(states, np.cumsum(sizes)[:2]), dt


class Forecaster(eqx.Module):
    """A driven cell that predicts the next increment of its input. Its state is that of the cell and the last point."""

    cell: eqx.Module
    readout: eqx.Module

    def __call__(self, input, state):
        hidden, point = state
        hidden = self.cell(point if input is None else input, hidden)
        heard = point if input is None else input
        return hidden, heard + self.readout(hidden)

    def hear(self, points):
        """The state after these points, which predicts the one that follows."""
        start = jnp.zeros(self.cell.hidden_size), points[0]
        return jax.lax.scan(lambda state, point: (self(point, state), None), start, points)[0]

    def output(self, state):
        return state[1]


class Reservoir(eqx.Module):
    r"""$h' = \tanh(W h + W_{in} x + b)$: an echo-state network."""

    weight: jax.Array
    weight_in: jax.Array
    bias: jax.Array
    hidden_size: int = eqx.field(static=True)

    @classmethod
    def draw(cls, input_size, hidden_size, *, key):
        key, key_in, key_bias = jr.split(key, 3)
        weight = jr.normal(key, (hidden_size, hidden_size))
        radius = np.abs(np.linalg.eigvals(np.asarray(weight))).max()
        weight_in = jr.uniform(key_in, (hidden_size, input_size), minval=-0.5, maxval=0.5)
        bias = jr.uniform(key_bias, (hidden_size,), minval=-0.5, maxval=0.5)
        return cls(0.9 * weight / radius, weight_in, bias, hidden_size)

    def __call__(self, input, state):
        return jnp.tanh(self.weight @ state + self.weight_in @ input + self.bias)


class Squares(eqx.Module):
    """A linear readout of states and their squares."""

    matrix: jax.Array

    def __call__(self, state):
        return self.matrix @ features(state)


def features(state):
    return jnp.concatenate([state, state**2, jnp.ones(1)])


class Listener(eqx.Module):
    """An `ObservedCell` whose measured units are overwritten at times as long as it hears."""

    model: training.ObservedCell

    def __call__(self, input, state):
        return self.model(input, state)

    def hear(self, points):
        # Now and then, as in training: the hidden units have not learned to be led at every step.
        points = points[-1 - len(points) // EVERY * EVERY :]
        estimates = jax.vmap(self.model.observation.estimate)(points[1:])
        strengths = FORCING.strengths(jnp.ones(()), len(estimates))
        states = training.forced_states(
            self.model, self.model.start(points[0]), estimates, strengths
        )
        last = jnp.where(self.model.observation.determined(), estimates[-1], states[-1])
        return self.model(None, last)  # predicts the point that follows

    def output(self, state):
        return self.model.output(state)


def fit_reservoirs(train, valid, keys, toy):
    def fit(key):
        cell = Reservoir.draw(train.shape[1], 20 if toy else 300, key=key)

        def step(state, point):
            state = cell(point, state)
            return state, features(state)

        seen = jax.lax.scan(step, jnp.zeros(cell.hidden_size), train[:-1])[1][HEARD:]
        increments = (train[1:] - train[:-1])[HEARD:]
        ridge = 1e-6 * len(seen) * jnp.eye(seen.shape[1])
        return Forecaster(
            cell, Squares(jnp.linalg.solve(seen.T @ seen + ridge, seen.T @ increments).T)
        )

    return [fit(key) for key in keys]


def fit_grus(train, valid, keys, toy):
    updates, batch, length, hidden = (5, 4, 20, 8) if toy else (2000, 32, 100, 64)
    train = train.astype(jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, updates, 1e-2))

    def draw(key):
        keys = jr.split(key)
        size = train.shape[1]
        return Forecaster(
            eqx.nn.GRUCell(size, hidden, dtype=jnp.float32, key=keys[0]),
            eqx.nn.Linear(hidden, size, dtype=jnp.float32, key=keys[1]),
        )

    def loss(model, points, noise):
        def step(hidden, now):
            point, following, noise = now
            hidden = model.cell(point + noise, hidden)
            return hidden, jnp.mean((point + noise + model.readout(hidden) - following) ** 2)

        def one(points, noise):
            start = jnp.zeros(hidden, jnp.float32)
            return jnp.mean(jax.lax.scan(step, start, (points[:-1], points[1:], noise))[1][20:])

        return jnp.mean(jax.vmap(one)(points, noise))

    @eqx.filter_jit
    def fit(key):
        model = draw(key)
        weights, rest = eqx.partition(model, eqx.is_inexact_array)

        def update(carry, key):
            weights, memory = carry
            key_start, key_noise = jr.split(key)
            starts = jr.randint(key_start, (batch, 1), 0, len(train) - length - 21)
            points = train[starts + jnp.arange(length + 21)]
            noise = 0.01 * jr.normal(key_noise, (batch, length + 20, train.shape[1]), jnp.float32)
            gradient = jax.grad(lambda weights: loss(eqx.combine(weights, rest), points, noise))(
                weights
            )
            change, memory = optimizer.update(gradient, memory, weights)
            return (optax.apply_updates(weights, change), memory), None

        start = weights, optimizer.init(weights)
        keys = jr.split(jr.fold_in(key, 1), updates)
        return eqx.combine(jax.lax.scan(update, start, keys)[0][0], rest)

    return [in_float64(fit(key)) for key in keys]


def fit_almost_linear(train, valid, keys, toy):
    size = 6 if toy else 20

    def draw(key):
        cell = lejax.cells.ALRNN.draw(size, 2, dtype=jnp.float32, key=key)
        observation = training.IdentityObservation(train.shape[1], size, dtype=jnp.float32)
        return training.ObservedCell(cell, observation)

    run = training.reconstruct(
        eqx.filter_vmap(draw)(keys),
        train,
        valid,
        keys=keys,
        forcing=FORCING,
        num_epochs=1 if toy else 300,
        updates_per_epoch=2 if toy else 50,
        num_steps=20 if toy else 100,
        score=training.PredictionScore(10 if toy else 60),
    )
    return [Listener(in_float64(run.model(i))) for i in range(len(keys))]


def in_float64(model):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, model)


@eqx.filter_jit
def horizons(model, windows):
    """Steps until the error exceeds the threshold, of windows (w, HEARD + n, d)."""
    steps = windows.shape[1] - HEARD

    def one(window):
        state = model.hear(window[:HEARD])
        later = lejax.unroll(model, state, num_steps=steps - 1)
        first, rest = model.output(state), jax.vmap(model.output)(later)
        error = jnp.concatenate([first[None], rest]) - window[HEARD:]
        wrong = ~(jnp.mean(error**2, axis=1) <= THRESHOLD**2)  # NaN is wrong too
        return jnp.where(jnp.any(wrong), jnp.argmax(wrong), steps)

    return jax.vmap(one)(windows)


FITS = {"GRU": fit_grus, "AL-RNN": fit_almost_linear, "reservoir": fit_reservoirs}


def study(name, toy):
    train, valid, test, dt = make_series(name, toy)
    exponent = lejax.systems.gallery()[name].exponents[0]
    steps = 50 if toy else int(np.ceil(12 / (exponent * dt)))
    starts = np.linspace(0, len(test) - HEARD - steps, 5 if toy else 50).astype(int)
    windows = test[starts[:, None] + np.arange(HEARD + steps)]
    rows = {}
    for kind, fit in FITS.items():
        begin, used = time.perf_counter(), time.process_time()
        models = fit(train, valid, jr.split(jr.key(0), 3), toy)
        seconds = {
            "seconds": time.perf_counter() - begin,
            "processor_seconds": time.process_time() - used,
        }
        times = np.array([horizons(model, windows) for model in models]) * dt * exponent
        quartiles = np.quantile(times, [0.25, 0.5, 0.75], axis=1).T
        rows[kind] = {"lyapunov_times": quartiles, "longest": steps * dt * exponent, **seconds}
        print(f"done: {name}, {kind}: medians {quartiles[:, 1].round(2)}", flush=True)
    return rows


def main():
    arguments = _harness.parse_arguments(__doc__)
    names = () if dysts is None else SYSTEMS[:1] if arguments.toy else SYSTEMS
    rows = {name: study(name, arguments.toy) for name in names}
    table = []
    for name, kinds in rows.items():
        for kind, row in kinds.items():
            cells = [f"{m:.2f} ({low:.2f} to {high:.2f})" for low, m, high in row["lyapunov_times"]]
            table.append([f"{name}, {kind}", *cells, f"{row['processor_seconds']:.0f}"])
    header = ["median (quartiles), Lyapunov times", "seed 0", "seed 1", "seed 2", "processor s"]
    print(_harness.format_table(header, table))
    _harness.write_json(
        arguments.json,
        benchmark="forecast_horizon",
        toy=arguments.toy,
        threshold=THRESHOLD,
        rows=rows,
    )


if __name__ == "__main__":
    main()
