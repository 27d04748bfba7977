"""Gradients of long chaotic runs: bias and variance of `WindowedAdjoint` against its window.

The networks are h' = tanh(J h) with random J of gain g and 64 units, ten for each of three gains. The gradients are
those of the largest exponent, and of the sum of the 8 leading ones, by g. The truth is the slope of a quadratic fit to
long runs at gains within 10 % of g, with its standard error. Bias is the mean over runs of the windowed gradient minus
the truth, and spread is its standard deviation over runs, both over the root mean square of the truth over networks.
Windows are also given in Lyapunov times of the networks, 1 / lambda_1. The contribution of chance to the squared bias,
by the number of runs and by the error of the truth, is subtracted from its mean over networks.
"""

from functools import partial

import _harness  # first: it sets what JAX and NumPy read when they start
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np

import lejax


matplotlib.use("Agg")
from matplotlib import pyplot as plt


SIZE, COUNT, TRANSIENT = 64, 8, 200
WINDOWS = (1, 3, 5, 10, 20, 40)


def exponents(gain, key, state, num_steps, adjoint):
    """The largest exponent and the sum of the leading ones."""
    size = state.shape[0]
    weight = gain * size**-0.5 * jr.normal(key, (size, size))
    cell = lejax.cells.RNNCell.from_weights(weight_hh=weight)
    spectrum = lejax.lyapunov_spectrum(
        cell,
        state,
        num_steps=num_steps,
        transient=TRANSIENT,
        num_exponents=COUNT,
        adjoint=adjoint,
        throw=False,
    )
    return jnp.stack([jnp.max(spectrum.exponents), jnp.sum(spectrum.exponents)])


@partial(jax.jit, static_argnums=(2, 3, 4))
def windowed(gain, keys, size, num_steps, window, runs):
    """Values and gradients (networks, runs, 2)."""

    def one(key, run):
        state = jr.normal(jr.fold_in(key, run), (size,))
        adjoint = lejax.WindowedAdjoint(window)
        value, pull = jax.vjp(lambda gain: exponents(gain, key, state, num_steps, adjoint), gain)
        return value, jax.vmap(pull)(jnp.eye(2))[0]

    return jax.lax.map(lambda key: jax.lax.map(lambda run: one(key, run), runs), keys)


@partial(jax.jit, static_argnums=(2, 3))
def around(gain, keys, size, num_steps, runs):
    """Exponents (networks, gains, runs, 2) at nine gains within 10 % of the gain, and the gains."""
    gains = gain * (1 + jnp.linspace(-0.1, 0.1, 9))

    def one(key, gain, run):
        state = jr.normal(jr.fold_in(key, 1000 + run), (size,))
        return exponents(gain, key, state, num_steps, lejax.DirectAdjoint())

    def of_network(key):
        return jax.lax.map(lambda gain: jax.lax.map(lambda run: one(key, gain, run), runs), gains)

    return jax.lax.map(of_network, keys), gains


def slopes(values, gains, gain):
    """Slope at `gain` of a quadratic fit, with its standard error, (networks, 2) each."""
    x = np.asarray(gains) - float(gain)
    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    means = np.asarray(values).mean(axis=2)
    fit = np.linalg.pinv(design)
    coefficients = np.einsum("cg,ngv->ncv", fit, means)
    rest = means - np.einsum("gc,ncv->ngv", design, coefficients)
    variance = np.sum(rest**2, axis=1) / (len(x) - 3)
    errors = np.sqrt(variance * np.sum(fit[1] ** 2))
    return coefficients[:, 1], errors


def rms_bias(gradient, truth, error):
    """Bias and spread over networks, without the contribution of chance to the bias."""
    runs = gradient.shape[1]
    apart = (gradient.mean(axis=1) - truth) ** 2
    chance = gradient.var(axis=1, ddof=1) / runs + error**2
    return np.sqrt(np.maximum(np.mean(apart - chance, axis=0), 0))


def draw(rows, file):
    """Bias and spread against the window in Lyapunov times, for both quantities."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = ("the largest exponent", f"the sum of the first {COUNT}")
    for index, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        for color, gain in enumerate(sorted({row["gain"] for row in rows})):
            chosen = [row for row in rows if row["gain"] == gain]
            times = [float(np.mean(row["lyapunov_times"])) for row in chosen]
            for name, style in (("rms_bias", "o-"), ("rms_spread", "s--")):
                values = [float(row[name][index]) for row in chosen]
                label = f"{name[4:]}, g = {gain:g}"
                ax.plot(times, values, style, color=f"C{color}", markersize=4, label=label)
        ax.axvline(1.5, color="0.7", zorder=0)
        ax.set(xscale="log", yscale="log", ylim=(0.01, 10), title=f"gradient of {title}")
        ax.set_xlabel("window / Lyapunov time")
    axes[0].set_ylabel("relative to the truth")
    axes[1].legend(fontsize=7)
    fig.savefig(file, dpi=100)


def main():
    arguments = _harness.parse_arguments(__doc__)
    size, networks, num_steps, truth_steps, runs = (
        (16, 2, 60, 200, 2) if arguments.toy else (SIZE, 10, 500, 3000, 4)
    )
    rows = []
    for gain in (2.0, 3.0, 5.0)[: 1 if arguments.toy else 3]:
        keys = jr.split(jr.key(5), networks)
        values, gains = around(gain, keys, size, truth_steps, jnp.arange(runs))
        truth, error = slopes(values, gains, gain)
        scale = np.sqrt(np.mean(truth**2, axis=0))
        for window in WINDOWS[:2] if arguments.toy else WINDOWS:
            value, gradient = windowed(gain, keys, size, num_steps, window, jnp.arange(runs))
            value, gradient = np.asarray(value), np.asarray(gradient)
            largest = value[..., 0].mean(axis=1)
            rows.append(
                {
                    "gain": gain,
                    "window": window,
                    "lyapunov_times": window * largest,
                    "largest_exponent": largest,
                    "truth": truth,
                    "truth_error": error,
                    "gradient": gradient.mean(axis=1),
                    "spread": gradient.std(axis=1, ddof=1),
                    "mean_bias": (gradient.mean(axis=1) - truth).mean(axis=0) / scale,
                    "rms_bias": rms_bias(gradient, truth, error) / scale,
                    "rms_spread": np.sqrt(np.mean(gradient.var(axis=1, ddof=1), axis=0)) / scale,
                    "rms_truth_error": np.sqrt(np.mean(error**2, axis=0)) / scale,
                }
            )
            print(f"done: g={gain}, window {window}", flush=True)
            _harness.write_json(
                arguments.json,
                benchmark="windows",
                toy=arguments.toy,
                num_steps=num_steps,
                rows=rows,
            )
    table = [
        [f"{row['gain']}", str(row["window"]), f"{np.mean(row['lyapunov_times']):.2f}"]
        + [
            f"{row[name][i]:+.2f}" if name == "mean_bias" else f"{row[name][i]:.2f}"
            for i in (0, 1)
            for name in ("mean_bias", "rms_spread", "rms_truth_error")
        ]
        for row in rows
    ]
    header = ["gain", "window", "Lyapunov times"]
    header += [f"{what}: {of}" for what in ("first", "sum") for of in ("bias", "spread", "truth")]
    print(_harness.format_table(header, table))
    if arguments.json is not None:
        draw(rows, arguments.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
