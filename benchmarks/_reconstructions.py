"""Shared parts of the benchmarks of reconstruction: the series, the measures of trained models, and their table."""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import lejax
from lejax import reconstruction


DT = 0.01


class Clock:
    """Wall and processor seconds since construction."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return {
            "seconds": time.perf_counter() - self.wall,
            "cpu_seconds": time.process_time() - self.cpu,
        }


def lorenz(toy):
    """Standardized training, validation and test series."""
    train, valid, test = (2000, 500, 2000) if toy else (90_000, 10_000, 100_000)
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=DT)
    steps = 2000 + train + valid + test
    states = lejax.unroll(flow, jnp.array([1.0, 1.0, 20.0]), num_steps=steps)[2000:]
    seen = states[: train + valid]
    states = (states - seen.mean(axis=0)) / seen.std(axis=0)
    return states[:train], states[train : train + valid], states[train + valid :]


def generate(model, start, num_steps, transient):
    states = lejax.unroll(model, model.start(start), num_steps=transient + num_steps)
    return jax.vmap(model.output)(states)[transient:]


def evaluate(
    run, test, *, dt, smoothing=20.0, ahead=20, num_exponents=None, transient=1000, steps=None
):
    """All measures of every trained model, in float64; the spectrum takes `steps`, by default as many as `test` has."""
    rows = []
    test = jnp.asarray(test, jnp.float64)
    num_steps = len(test)
    for i in range(run.keys.shape[0]):
        model = jax.tree.map(
            lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, run.model(i)
        )
        free = generate(model, test[0], num_steps, transient)
        spectrum = lejax.lyapunov_spectrum(
            model,
            model.start(test[0]),
            num_exponents=num_exponents,
            num_steps=steps or num_steps,
            transient=transient,
            dt=dt,
            throw=False,
        )
        dimension = lejax.kaplan_yorke_dimension(
            spectrum.exponents, tolerance=2 * jnp.nan_to_num(spectrum.standard_error)
        )
        rows.append(
            {
                "training_loss": float(jnp.mean(run.training_loss[i, -20:])),
                "best_epoch": int(run.best_epoch[i]),
                "score": float(run.best_score[i]),
                "alpha": float(run.alpha[i, -1]),
                "exponents": spectrum.exponents,
                "standard_error": spectrum.standard_error,
                "kaplan_yorke_dimension": float(dimension),
                "amplitude": float(jnp.min(jnp.std(free, axis=0) / jnp.std(test, axis=0))),
                "state_space_divergence": float(
                    reconstruction.state_space_divergence(test, free, key=jr.key(0))
                ),
                "power_spectrum_distance": float(
                    reconstruction.power_spectrum_distance(test, free, smoothing=smoothing)
                ),
                "prediction_error": float(reconstruction.prediction_error(model, test, ahead)),
            }
        )
    return rows


def table(name, rows):
    header = [name, "loss", "lambda_1", "lambda_2", "lambda_3", "D_KY", "D_stsp", "D_H", "PE"]
    lines = []
    for i, row in enumerate(rows):
        leading = [f"{x:.3f}" for x in np.asarray(row["exponents"][:3])]
        keys = ("kaplan_yorke_dimension", "state_space_divergence", "power_spectrum_distance")
        last = [f"{row[key]:.3f}" for key in keys]
        loss, error = f"{row['training_loss']:.4f}", f"{row['prediction_error']:.2e}"
        lines.append([str(i), loss, *leading, *last, error])
    print(_harness.format_table(header, lines), "\n", flush=True)
