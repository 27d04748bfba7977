"""Time per step of lejax's default against hand-jitted peers, against its own every-step run, and against the floor.

A row's peer is lyapax with its default, an orthonormalization at every step, or, where there are inputs, a scan of
jacfwd and QR. `error` is the largest difference of an exponent between the interval that lejax chose and an
orthonormalization at every step, both run by one executable. The floor is the time of the tangent map alone, linearized
once, plus that of the orthonormalizer alone divided by the interval, each in a loop of its own.
"""

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
from lejax._orthonormalize import default_orthonormalizer


lyapax = _harness.import_peer("lyapax")


def use_lejax(p: Problem, every=None):
    return lejax.lyapunov_spectrum(
        p.cell,
        p.state,
        p.inputs,
        num_exponents=p.num_exponents,
        num_steps=p.steps,
        frame=p.frame,
        method=lejax.SequentialQR(every=every),
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
def orthonormalize_alone(kind, frame, steps):
    def body(_, carry):
        columns, growth = carry
        factors = kind.factorize(frame + 1e-9 * columns)
        return factors.columns(), growth + jnp.log(jnp.diagonal(factors.triangle))

    return jax.lax.fori_loop(0, steps, body, (frame, jnp.zeros(frame.shape[1])))


def measure(p: Problem, rounds: int) -> dict:
    """One row of one network."""
    chosen = int(use_lejax(p).every)
    kind = default_orthonormalizer(p.num_exponents)
    input = None if p.inputs is None else p.inputs[0]
    frame = p.frame + 0.1 * jr.normal(jr.key(5), p.frame.shape)
    jitted = jax.jit(peer(p, 1))
    contenders = [
        Contender("lejax", lambda: use_lejax(p).exponents, p.steps),
        Contender("peer", lambda: jitted(p.parameters, p.vector), p.steps),
        Contender("lejax every=1", lambda: use_lejax(p, jnp.array(1)).exponents, p.steps),
        Contender(
            "tangent", lambda: tangents_alone(p.cell, p.state, input, p.frame, p.steps), p.steps
        ),
        Contender(
            "orthonormalizer", lambda: orthonormalize_alone(kind, frame, p.steps)[1], p.steps
        ),
    ]
    if p.dt == 0.01:
        jitted_ten = jax.jit(peer(p, 10))
        contenders += [
            Contender("lejax every=10", lambda: use_lejax(p, 10).exponents, p.steps),
            Contender("peer every=10", lambda: jitted_ten(p.parameters, p.vector), p.steps),
        ]
    timings = {t.contender.name: t for t in _harness.time_round_robin(contenders, rounds)}
    same = use_lejax(p, chosen if chosen > 1 else jnp.array(1)).exponents
    floor = timings["tangent"].seconds_per_step
    floor += timings["orthonormalizer"].seconds_per_step / chosen
    row = {
        "problem": p.name,
        "steps": p.steps,
        "every": chosen,
        "peer": "jacfwd + QR scan" if p.make_step is None else "lyapax",
        "peer_over_lejax": _harness.paired_ratio(timings["peer"], timings["lejax"]),
        "error": np.max(np.abs(same - timings["lejax every=1"].result)),
        "default_equals_same_executable": np.max(np.abs(same - timings["lejax"].result)),
        "time_over_floor": timings["lejax"].seconds_per_step / floor,
        "seconds_per_step": {name: t.seconds_per_step for name, t in timings.items()},
    }
    if "peer every=10" in timings:
        row["peer_over_lejax_both_every_10"] = _harness.paired_ratio(
            timings["peer every=10"], timings["lejax every=10"]
        )
    return row


def measure_batch(p: Problem, count: int, rounds: int) -> dict:
    """`count` copies of a problem with weights and states of their own, by vmap."""
    scales = 1 + 0.01 * jnp.arange(count) / count
    parameters = jax.tree.map(lambda x: scales.reshape(-1, *[1] * jnp.ndim(x)) * x, p.parameters)
    vectors = p.vector + 1e-3 * jr.normal(jr.key(7), (count, p.vector.size))

    class Map(eqx.Module):
        parameters: tuple

        def __call__(self, input, state):
            return p.make_step(*self.parameters)(state)

    @eqx.filter_jit
    def ours(parameters, vectors, every):
        def one(parameters, vector):
            return lejax.lyapunov_spectrum(
                Map(parameters),
                vector,
                dt=p.dt,
                num_exponents=p.num_exponents,
                num_steps=p.steps,
                frame=p.frame,
                method=lejax.SequentialQR(every=every),
            )

        return jax.vmap(one)(parameters, vectors)

    theirs = jax.jit(jax.vmap(peer(p, 1)))
    chosen = int(ours(parameters, vectors, None).every[0])
    contenders = [
        Contender("lejax", lambda: ours(parameters, vectors, None).exponents, p.steps),
        Contender("peer", lambda: theirs(parameters, vectors), p.steps),
        Contender(
            "lejax every=1", lambda: ours(parameters, vectors, jnp.array(1)).exponents, p.steps
        ),
    ]
    timings = {t.contender.name: t for t in _harness.time_round_robin(contenders, rounds)}
    same = ours(parameters, vectors, jnp.array(chosen)).exponents
    return {
        "problem": f"{count} x {p.name}",
        "steps": p.steps,
        "every": chosen,
        "peer": "lyapax under vmap",
        "peer_over_lejax": _harness.paired_ratio(timings["peer"], timings["lejax"]),
        "error": np.max(np.abs(same - timings["lejax every=1"].result)),
        "seconds_per_step": {name: t.seconds_per_step for name, t in timings.items()},
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    toy = arguments.toy
    rounds = 1 if toy else 9
    if toy:
        single = [_problems.lorenz(400, 1), _problems.leaky_network(8, 200), _problems.gru(8, 150)]
        batches = [(_problems.lorenz(200, 1), 4)]
    else:
        single = [
            _problems.lorenz(50_000, 1),
            _problems.tanh_network(64, 64, 2_000),
            _problems.tanh_network(64, 8, 4_000),
            _problems.tanh_network(256, 256, 200),
            _problems.tanh_network(256, 8, 2_000),
            _problems.leaky_network(256, 1_200),
            _problems.gru(64, 1_000),
            _problems.lstm(64, 600),
        ]
        batches = [(_problems.tanh_network(64, 64, 200), 64), (_problems.lorenz(5_000, 1), 256)]
    rows = []
    for problem in single:
        rows.append(measure(problem, rounds))
        print(f"done: {problem.name}", flush=True)
    rows += [measure_batch(problem, count, max(1, rounds // 2)) for problem, count in batches]
    header = ["problem", "every", "lejax [us]", "peer / lejax", "time / floor", "error"]
    cells = [
        [
            row["problem"],
            str(row["every"]),
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
    _harness.write_json(arguments.json, benchmark="speed", toy=toy, rounds=rounds, rows=rows)
    wrong = [row["problem"] for row in rows if not row["error"] <= 1e-8]
    if wrong:
        raise SystemExit(f"The chosen interval costs more than 1e-8: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
