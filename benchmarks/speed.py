"""Time per step of lejax's default against hand-jitted peers, against its own run at every step, and against the floor.

A row's peer is lyapax with its default, an orthonormalization at every step, or, where there are inputs, a scan of
`jacfwd` and QR. `error` is the largest difference of an exponent between the intervals that lejax chose and an
orthonormalization at every step. The floor is the time of the tangent map alone, linearized once, plus that of one
orthonormalization, written by hand, divided by the mean interval, each in a separate loop. Short runs are complete
calls of the public function, so that Python's time for each call counts.
"""

import functools as ft
from collections.abc import Callable
from typing import NamedTuple

import _harness  # first: it sets what JAX and NumPy read when they start
import _problems
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _harness import Contender
from _problems import Problem

import lejax


lyapax = _harness.import_peer("lyapax")


EVERY_STEP = lejax.SequentialQR(every=1)


def intervals(spectrum: lejax.LyapunovSpectrum) -> tuple[int, int]:
    """The longest interval of a run and the number of intervals; the largest of each over a batch."""
    found = spectrum.diagnostics
    return int(np.max(found.longest_interval)), int(np.max(found.num_orthonormalizations))


def use_lejax(p: Problem, method: lejax.SequentialQR):
    return lejax.lyapunov_spectrum(
        p.cell,
        p.state,
        p.inputs,
        num_exponents=p.num_exponents,
        num_steps=p.steps,
        frame=p.frame,
        method=method,
    )


def peer(p: Problem, every: int):
    """The hand-jitted peer as a function of weights and state."""
    if p.make_step is None:
        return lambda parameters, vector: _problems.scan_jacobians(
            p.steps, p.cell, p.state, p.inputs, p.frame
        )

    def spectrum(parameters, vector):
        options = {"dt": p.dt, "n_steps": p.steps, "k": p.num_exponents, "renorm_every": every}
        return lyapax.lyapunov_spectrum(p.make_step(*parameters), vector, **options).exponents

    return spectrum


@eqx.filter_jit
def tangents_alone(cell, state, input, frame, steps):
    vector, unravel = jax.flatten_util.ravel_pytree(state)
    step = lambda x: jax.flatten_util.ravel_pytree(cell(input, unravel(x)))[0]
    tangent = jax.vmap(jax.linearize(step, vector)[1], in_axes=1, out_axes=1)
    return jax.lax.fori_loop(0, steps, lambda _, frame: 0.5 * tangent(frame), frame)


@eqx.filter_jit
def orthonormalize_alone(frame, steps):
    """The cheapest orthonormalization of so many columns: Gram-Schmidt or one Cholesky pass."""

    def gram_schmidt(frame):
        columns, growth = [], []
        for column in frame.T:
            for q in columns:
                column = column - (q @ column) * q
            growth.append(jnp.linalg.norm(column))
            columns.append(column / growth[-1])
        return jnp.stack(columns, axis=1), jnp.stack(growth)

    def cholesky(frame):
        triangle = jnp.linalg.cholesky(frame.T @ frame)
        solve = jax.scipy.linalg.solve_triangular
        return solve(triangle, frame.T, lower=True).T, jnp.diagonal(triangle)

    factorize = gram_schmidt if frame.shape[1] <= 4 else cholesky

    def body(_, carry):
        columns, total = carry
        columns, growth = factorize(frame + 1e-9 * columns)
        return columns, total + jnp.log(growth)

    return jax.lax.fori_loop(0, steps, body, (frame, jnp.zeros(frame.shape[1])))


def seconds_over_floor(p: Problem, interval: float, ours: float, rounds: int) -> float:
    input = None if p.inputs is None else p.inputs[0]
    frame = p.frame + 0.1 * jr.normal(jr.key(5), p.frame.shape)
    tangent, orthonormalizer = _harness.time_round_robin(
        [
            Contender(
                "tangent", lambda: tangents_alone(p.cell, p.state, input, p.frame, p.steps), p.steps
            ),
            Contender("orthonormalizer", lambda: orthonormalize_alone(frame, p.steps)[1], p.steps),
        ],
        rounds,
    )
    return ours / (tangent.seconds_per_step + orthonormalizer.seconds_per_step / interval)


def compare(p: Problem, method: lejax.SequentialQR, rounds: int, seconds: float = 0.0) -> dict:
    """lejax with one of its methods, lejax with its default method at every step, and the peer."""
    jitted = jax.jit(peer(p, 1))
    contenders = [
        Contender("lejax", lambda: use_lejax(p, method).exponents, p.steps),
        Contender("peer", lambda: jitted(p.parameters, p.vector), p.steps),
        Contender("lejax every=1", lambda: use_lejax(p, EVERY_STEP).exponents, p.steps),
    ]
    if p.dt == 0.01:
        every_ten, jitted_ten = lejax.SequentialQR(every=10), jax.jit(peer(p, 10))
        contenders += [
            Contender("lejax every=10", lambda: use_lejax(p, every_ten).exponents, p.steps),
            Contender("peer every=10", lambda: jitted_ten(p.parameters, p.vector), p.steps),
        ]
    timings = {t.contender.name: t for t in _harness.time_round_robin(contenders, rounds, seconds)}
    longest, number = intervals(use_lejax(p, method))
    row = {
        "steps": p.steps,
        "longest_interval": longest,
        "mean_interval": p.steps / number,
        "peer": "jacfwd + QR scan" if p.make_step is None else "lyapax",
        "peer_over_lejax": _harness.paired_ratio(timings["peer"], timings["lejax"]),
        "error": np.max(np.abs(timings["lejax"].result - timings["lejax every=1"].result)),
        "seconds_per_step": {name: t.seconds_per_step for name, t in timings.items()},
        "rounds": len(timings["lejax"].times),
    }
    if "peer every=10" in timings:
        row["peer_over_lejax_both_every_10"] = _harness.paired_ratio(
            timings["peer every=10"], timings["lejax every=10"]
        )
    return row


def measure(p: Problem, toy: bool) -> dict:
    """One run of one network, long enough that Python's time does not matter."""
    rounds = 1 if toy else 9
    row = compare(p, lejax.SequentialQR(), rounds)
    ours = row["seconds_per_step"]["lejax"]
    return row | {"time_over_floor": seconds_over_floor(p, row["mean_interval"], ours, rounds)}


def measure_short(p: Problem, toy: bool) -> dict:
    """One short run, many times."""
    return compare(p, lejax.SequentialQR(), *((1, 0.0) if toy else (15, 5.0)))


def measure_householder(p: Problem, toy: bool) -> dict:
    """The method of the peer: Householder at every step."""
    method = lejax.SequentialQR(every=1, orthonormalizer=lejax.Householder())
    return compare(p, method, *((1, 0.0) if toy else (9, 5.0)))


def measure_batch(p: Problem, toy: bool, *, count: int) -> dict:
    """`count` copies of a problem with different weights and states, by `vmap`."""
    scales = 1 + 0.01 * jnp.arange(count) / count
    parameters = jax.tree.map(lambda x: scales.reshape(-1, *[1] * jnp.ndim(x)) * x, p.parameters)
    vectors = p.vector + 1e-3 * jr.normal(jr.key(7), (count, p.vector.size))

    class Map(eqx.Module):
        parameters: tuple

        def __call__(self, input, state):
            return p.make_step(*self.parameters)(state)

    @eqx.filter_jit
    def ours(parameters, vectors, method):
        def one(parameters, vector):
            return lejax.lyapunov_spectrum(
                Map(parameters),
                vector,
                dt=p.dt,
                num_exponents=p.num_exponents,
                num_steps=p.steps,
                frame=p.frame,
                method=method,
            )

        return jax.vmap(one)(parameters, vectors)

    theirs = jax.jit(jax.vmap(peer(p, 1)))
    default = lejax.SequentialQR()
    contenders = [
        Contender("lejax", lambda: ours(parameters, vectors, default).exponents, p.steps),
        Contender("peer", lambda: theirs(parameters, vectors), p.steps),
        Contender(
            "lejax every=1", lambda: ours(parameters, vectors, EVERY_STEP).exponents, p.steps
        ),
    ]
    rounds = 1 if toy else 4
    timings = {t.contender.name: t for t in _harness.time_round_robin(contenders, rounds)}
    longest, number = intervals(ours(parameters, vectors, default))
    return {
        "steps": p.steps,
        "longest_interval": longest,
        "mean_interval": p.steps / number,
        "peer": "lyapax under vmap",
        "peer_over_lejax": _harness.paired_ratio(timings["peer"], timings["lejax"]),
        "error": np.max(np.abs(timings["lejax"].result - timings["lejax every=1"].result)),
        "seconds_per_step": {name: t.seconds_per_step for name, t in timings.items()},
        "rounds": rounds,
    }


class Row(NamedTuple):
    name: str
    problem: Callable[..., Problem]
    sizes: tuple[int, ...]
    measure: Callable[[Problem, bool], dict]


def rows_to_measure(toy: bool) -> list[Row]:
    lorenz, tanh, leaky = _problems.lorenz, _problems.tanh_network, _problems.leaky_network
    of = lambda count: ft.partial(measure_batch, count=count)
    if toy:
        return [
            Row("Lorenz-63", lorenz, (400, 1), measure),
            Row("leaky 8", leaky, (8, 200), measure),
            Row("GRU 8, driven", _problems.gru, (8, 150), measure),
            Row("4 x Lorenz-63", lorenz, (200, 1), of(4)),
            Row("short: tanh 4, k=4, T=10", tanh, (4, 4, 10), measure_short),
            Row("Householder: tanh 4, k=4", tanh, (4, 4, 50), measure_householder),
        ]
    return [
        Row("Lorenz-63", lorenz, (50_000, 1), measure),
        Row("tanh 64, k=64", tanh, (64, 64, 2_000), measure),
        Row("tanh 64, k=8", tanh, (64, 8, 4_000), measure),
        Row("tanh 256, k=256", tanh, (256, 256, 200), measure),
        Row("tanh 256, k=8", tanh, (256, 8, 2_000), measure),
        Row("leaky 256, dt=.1, k=256", leaky, (256, 1_200), measure),
        Row("GRU 64, driven, k=64", _problems.gru, (64, 1_000), measure),
        Row("LSTM 64, driven, k=128", _problems.lstm, (64, 600), measure),
        Row("64 x tanh 64, k=64", tanh, (64, 64, 200), of(64)),
        Row("256 x Lorenz-63", lorenz, (5_000, 1), of(256)),
        Row("short: tanh 64, k=64, T=50", tanh, (64, 64, 50), measure_short),
        Row("short: tanh 64, k=8, T=50", tanh, (64, 8, 50), measure_short),
        Row("short: tanh 16, k=16, T=100", tanh, (16, 16, 100), measure_short),
        Row("short: tanh 256, k=256, T=60", tanh, (256, 256, 60), measure_short),
        Row("short: tanh 256, k=256, T=100", tanh, (256, 256, 100), measure_short),
        Row("short: tanh 256, k=256, T=127", tanh, (256, 256, 127), measure_short),
        Row("Householder: tanh 64, k=64", tanh, (64, 64, 1_000), measure_householder),
    ]


def main():
    arguments = _harness.parse_arguments(__doc__, options=_harness.ONLY)
    toy = arguments.toy
    rows = []
    for name, problem, sizes, function in rows_to_measure(toy):
        if arguments.only in name:
            rows.append({"problem": name, **function(problem(*sizes), toy)})
            print(f"done: {name}", flush=True)
    header = ["problem", "interval (mean)", "lejax [us]", "peer / lejax", "time / floor", "error"]
    cells = [
        [
            row["problem"],
            f"{row['longest_interval']} ({row['mean_interval']:.1f})",
            f"{1e6 * row['seconds_per_step']['lejax']:.2f}",
            "{median:.2f} [{quartile_1:.2f}, {quartile_3:.2f}]".format(**row["peer_over_lejax"]),
            f"{row['time_over_floor']:.2f}" if "time_over_floor" in row else "-",
            f"{row['error']:.0e}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, cells))
    for row in rows:
        if "peer_over_lejax_both_every_10" in row:
            ratio = row["peer_over_lejax_both_every_10"]["median"]
            print(f"{row['problem']}, both with every=10: {ratio:.2f}")
    _harness.write_json(arguments.json, benchmark="speed", toy=toy, rows=rows)
    slower = [row["problem"] for row in rows if row["peer_over_lejax"]["median"] < 1]
    if slower:
        print(f"Slower than the peer: {'; '.join(slower)}.")
    wrong = [row["problem"] for row in rows if not row["error"] <= 1e-8]
    if wrong:
        raise SystemExit(f"The chosen interval loses more than 1e-8: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
