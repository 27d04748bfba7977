"""Echo states and forecasts of a reservoir against spectral radius and input strength, on Lorenz-63.

Echo state networks of 300 units are driven by the standardized Lorenz-63 system, sampled every 0.02 and multiplied by
the strength. They have biases in (-1, 1): without these they would be odd in their input, and the system is not. For
each radius, strength and seed the results are the echo index of 8 starts after 1000 steps; the exponent of the driven
network, the largest of the 8; and, with a readout fitted to 5000 steps (ridge penalty 1e-8), the forecast of the closed
loop from 20 states of later data: the median of the times, in Lyapunov times of the system, for which its root mean
square error stays below 0.4 standard deviations. The largest exponent of the closed loop is that of the learned system;
that of the Lorenz system is 0.906 per unit of time.

python benchmarks/reservoir.py [--toy] [--json FILE]
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _forecasts import count_valid_steps, free_run, read_points

import lejax
from lejax.cells import ClosedLoop, EchoStateCell, fit_readout


DT, LARGEST_EXPONENT = 0.02, 0.9056
WARM_UP = 200


def lorenz(num_steps):
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=DT, substeps=2)
    series = lejax.unroll(flow, jnp.ones(3), num_steps=num_steps + 2000)[2000:]
    return (series - series.mean(axis=0)) / series.std(axis=0)


@eqx.filter_jit
def study(key, radius, strength, series, sizes):
    """Echo index, exponents and valid time of one reservoir."""
    units, echo_steps, training, horizon, num_forecasts = sizes
    cell_key, start_key = jr.split(key)
    cell = EchoStateCell(
        3, units, spectral_radius=radius, input_scale=strength, bias_scale=1.0, key=cell_key
    )
    starts = jr.uniform(start_key, (8, units), minval=-1.0)
    echo = lejax.indicators.echo_state_index(
        cell, starts, series[: 2 * echo_steps], transient=echo_steps
    )
    states = lejax.unroll(cell, cell.initial_state(), series[: training + WARM_UP])[WARM_UP:]
    targets = series[WARM_UP + 1 : training + WARM_UP + 1]
    readout = fit_readout(states, targets, penalty=1e-8)
    loop = ClosedLoop(cell, readout)
    fit_error = jnp.sqrt(jnp.mean((jax.vmap(readout)(states) - targets) ** 2))

    def forecast(start):
        past = jax.lax.dynamic_slice_in_dim(series, start, WARM_UP)
        future = jax.lax.dynamic_slice_in_dim(series, start + WARM_UP, horizon)
        state = jax.tree.map(lambda x: x[-1], read_points(loop, past))
        return count_valid_steps(free_run(loop, state, horizon), future)

    first, last = training + WARM_UP + 1, series.shape[0] - WARM_UP - horizon - 1
    valid = jax.vmap(forecast)(jnp.linspace(first, last, num_forecasts).astype(int))
    closed = lejax.lyapunov_spectrum(
        loop, states[-1], num_steps=training, transient=WARM_UP, num_exponents=1, dt=DT, throw=False
    )
    best = jnp.argmax(echo.exponents)
    return {
        "echo_index": echo.num_responses,
        "driven_exponent": echo.exponents[best],
        "driven_exponent_error": echo.standard_error[best],
        "fit_error": fit_error,
        "valid_lyapunov_times": jnp.median(valid) * DT * LARGEST_EXPONENT,
        "closed_exponent": closed.exponents[0],
        "closed_exponent_error": closed.standard_error[0],
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    if arguments.toy:
        radii, strengths, sizes = [0.5, 1.5], [0.1, 1.0], (20, 60, 200, 50, 3)
    else:
        radii = [0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 2.0, 2.5]
        strengths = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
        sizes = (300, 1000, 5000, 700, 20)
    series = lorenz(900 if arguments.toy else 12_000)
    keys = jr.split(jr.key(0), 3)
    clock = time.perf_counter()
    rows = []
    for radius in radii:
        for strength in strengths:
            runs = [study(k, jnp.array(radius), jnp.array(strength), series, sizes) for k in keys]
            seeds = {name: np.array([run[name] for run in runs]) for name in runs[0]}
            rows.append({"spectral_radius": radius, "input_strength": strength, **seeds})
    header = ["radius", *(f"u x {s:g}" for s in strengths)]

    def heat_map(name, mean, form):
        cells = iter(format(mean(row[name]), form) for row in rows)
        print(f"\n{name}")
        table = [[f"{radius:g}", *(next(cells) for _ in strengths)] for radius in radii]
        print(_harness.format_table(header, table))

    heat_map("echo_index", np.max, "d")
    heat_map("driven_exponent", np.mean, ".3f")
    heat_map("valid_lyapunov_times", np.mean, ".2f")
    heat_map("closed_exponent", np.mean, ".2f")
    _harness.write_json(
        arguments.json,
        benchmark="reservoir",
        toy=arguments.toy,
        seconds=time.perf_counter() - clock,
        rows=rows,
    )


if __name__ == "__main__":
    main()
