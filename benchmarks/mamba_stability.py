"""Stability of a Mamba network: exponents in closed form, rounding errors, and a closed loop that should be chaotic.

1. The exponents of the memory of one block in closed form, against the general engine, for runs of growing length.
2. A network in bfloat16 against the same one (weights already rounded) in float32, on the same input: two Mamba blocks,
   whose exponents are all negative, and a chaotic tanh network. The result is the distance between the outputs,
   relative to their size.
3. A Mamba block trained to forecast Lorenz-63 one step of 0.05 ahead from noisy points; then the loop is closed. The
   Lorenz system has lambda_1 = 0.906 per unit of time: is that of the loop positive? Beside it stands how long its
   forecasts stay within 0.4 standard deviations of the truth, in Lyapunov times.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _forecasts import Encoded, cast, count_valid_steps, free_run, read_points, train
from _plain_cells import MemoryOnly

import lejax
from lejax.cells import ClosedLoop, LeakyRNNCell, MambaCell, Stack
from lejax.systems import Flow, Lorenz63


TIMES = (1, 3, 10, 30, 100, 300, 1000, 3000)
DT, LARGEST = 0.05, 0.906


def compare_with_qr(lengths):
    cell = lejax.cells.S6Cell(4, 4, key=jr.key(0))
    # Step sizes of order 1: those of a new network are 0.001 to 0.1.
    cell = eqx.tree_at(lambda c: c.bias_step, cell, jnp.linspace(0.1, 0.9, 4))
    state = cell.initial_state()
    differences = {}
    for length in lengths:
        inputs = jr.normal(jr.key(1), (length, 4))
        exact = lejax.lyapunov_spectrum(cell, state, inputs, num_exponents=16).exponents
        found = lejax.lyapunov_spectrum(MemoryOnly(cell), state[0], inputs).exponents
        differences[length] = float(np.abs(np.sort(found) - np.sort(exact)).max())
    return {
        "largest_difference": differences,
        "exponents": exact,
        "difference_times_length": {n: n * x for n, x in differences.items()},
    }


def deviation(cell, output, inputs):
    """|y_low - y| / rms(y) at TIMES, root mean square over the outputs and eight series of inputs."""
    low = cast(cell, jnp.bfloat16)
    outputs = []
    for dtype in (jnp.bfloat16, jnp.float32):
        network = cast(low, dtype)

        def of_series(series, network=network, dtype=dtype):
            series = cast(cast(series, jnp.bfloat16), dtype)
            return output(lejax.unroll(network, network.initial_state(), series))

        outputs.append(cast(jax.vmap(of_series)(inputs), jnp.float32))
    size = jnp.sqrt(jnp.mean(outputs[1] ** 2))
    apart = jnp.sqrt(jnp.mean((outputs[0] - outputs[1]) ** 2, axis=(0, 2))) / size
    return {t: float(apart[t - 1]) for t in TIMES if t <= len(apart)}


def round_off(length):
    keys = jr.split(jr.key(2), 4)
    inputs = jr.normal(keys[0], (8, length, 8), jnp.float32)
    blocks = Stack([MambaCell(8, 8, dtype=jnp.float32, key=key) for key in keys[1:3]])
    tanh = LeakyRNNCell(8, 128, dt=0.2, gain=3.0, dtype=jnp.float32, key=keys[3])
    rows = {}
    for name, cell, output in (
        ("two Mamba blocks", blocks, lambda states: states[-1][2]),
        ("tanh network", tanh, lambda states: states),
    ):
        spectrum = lejax.lyapunov_spectrum(
            cell, cell.initial_state(), inputs[0], num_exponents=1, dt=1.0, throw=False
        )
        rows[name] = {
            "largest_exponent": spectrum.exponents[0],
            "standard_error": spectrum.standard_error[0],
            "deviation": deviation(cell, output, inputs),
        }
    return rows


def make_loop(key, size, num_layers):
    keys = jr.split(key, num_layers + 2)
    layers = Stack([MambaCell(size, 8, key=k) for k in keys[2:]])
    encoder = eqx.nn.Linear(3, size, key=keys[0])
    return ClosedLoop(Encoded(encoder, layers), eqx.nn.Linear(size, 3, key=keys[1]))


@eqx.filter_jit
def examine(loop, series, warm, num_steps, num_forecasts):
    states = read_points(loop, series[:-1])
    predicted = jax.vmap(loop.output)(states)
    error = jnp.sqrt(jnp.mean((predicted[warm:] - series[1 + warm :]) ** 2))
    starts = jnp.linspace(warm, len(series) - 202, num_forecasts).astype(int)

    def horizon(start):
        forecast = free_run(loop, jax.tree.map(lambda x: x[start], states), 200)
        return count_valid_steps(forecast, jax.lax.dynamic_slice_in_dim(series, start + 1, 200))

    spectrum = lejax.lyapunov_spectrum(
        loop,
        jax.tree.map(lambda x: x[warm], states),
        num_steps=num_steps,
        transient=num_steps // 10,
        num_exponents=3,
        dt=DT,
        throw=False,
    )
    free = jax.vmap(loop.output)(
        lejax.unroll(loop, jax.tree.map(lambda x: x[warm], states), num_steps=2000)
    )
    return {
        "one_step_error": error,
        "horizon_in_lyapunov_times": jnp.mean(jax.vmap(horizon)(starts)) * DT * LARGEST,
        "exponents": spectrum.exponents,
        "standard_error": spectrum.standard_error,
        "result_is_successful": spectrum.result == lejax.RESULTS.successful,
        "standard_deviation_of_free_run": jnp.std(free, axis=0),
    }


def forecast(toy):
    num_points = 1000 if toy else 20_000
    flow = Flow(Lorenz63(), dt=DT, substeps=5)
    series = lejax.unroll(flow, jnp.array([1.0, 2.0, 20.0]), num_steps=num_points + 200)[200:]
    series = (series - jnp.mean(series, axis=0)) / jnp.std(series, axis=0)
    keys = jr.split(jr.key(3), 1 if toy else 3)
    size, layers, updates, batch, length = (3, 1, 5, 2, 20) if toy else (8, 1, 5000, 16, 60)
    split = len(series) * 3 // 4
    loops, losses = eqx.filter_vmap(
        lambda key: train(
            lambda key: make_loop(key, size, layers), key, series[:split], updates, batch, length
        )
    )(keys)
    print("done: training", np.sqrt(np.mean(losses[:, -50:], axis=1)), flush=True)
    steps, forecasts = (200, 3) if toy else (20_000, 50)
    found = eqx.filter_vmap(lambda loop: examine(loop, series[split:], 60, steps, forecasts))(loops)
    return _harness.to_json(found)


def main():
    arguments = _harness.parse_arguments(__doc__)
    exact = compare_with_qr((250, 500) if arguments.toy else (250, 1000, 4000, 16_000))
    for length, difference in exact["largest_difference"].items():
        print(f"closed form against QR, {length} steps: {difference:.1e}")
    rounding = round_off(100 if arguments.toy else 3000)
    header = ["bfloat16 against float32", "exponent per step", *(f"t={t}" for t in TIMES)]
    table = [
        [name, f"{row['largest_exponent']:.4f} +- {row['standard_error']:.4f}"]
        + [f"{row['deviation'][t]:.1e}" if t in row["deviation"] else "" for t in TIMES]
        for name, row in rounding.items()
    ]
    print(_harness.format_table(header, table), flush=True)
    loops = forecast(arguments.toy)
    for index, (exponents, errors) in enumerate(
        zip(loops["exponents"], loops["standard_error"], strict=True)
    ):
        print(
            f"closed loop, seed {index}: lambda_1 = {exponents[0]} +- {errors[0]}, one step "
            f"{loops['one_step_error'][index]:.4f}, horizon {loops['horizon_in_lyapunov_times'][index]:.2f}"
        )
    _harness.write_json(
        arguments.json,
        benchmark="mamba_stability",
        toy=arguments.toy,
        closed_form=exact,
        rounding=rounding,
        closed_loop=loops,
    )


if __name__ == "__main__":
    main()
