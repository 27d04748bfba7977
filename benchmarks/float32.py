"""Measure what float32 costs: spectra of known systems in float32 beside float64, and where the error comes from.

Each problem is rounded to float32 once, weights, inputs and start, and run in both precisions. Driven networks that
forget their start follow the same trajectory in both, so that the difference is the error. Chaotic systems follow
different ones: there several starts are run, and the difference of the means is compared with their joint standard
error. In float32 an orbit of a map has few points to visit and soon repeats: its period is the number of steps after
which the last state returns, if it does within the steps that are searched.

The parts of the error come from runs of one plain loop with an orthonormalization at each step, in which one part after
the other is computed in float32: the trajectory, the products with Jacobians, the factorization, its logarithms, their
sum. A part is the largest change of an exponent when it joins those before it. The sum is compensated, as in lejax, or
plain.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

import lejax
from lejax._core.statistics import add_compensated
from lejax.cells import GRUCell, LRUCell, LSTMCell, RNNCell
from lejax.systems import Cat, Flow, Henon, Logistic, Lorenz63, Lorenz96, Lozi, Rossler, SkewTent


class Ikeda(eqx.Module):
    """z' = 1 + u z exp(i (0.4 - 6 / (1 + |z|^2))), as two real numbers."""

    u: float = 0.9

    def __call__(self, input, state):
        x, y = state
        angle = 0.4 - 6 / (1 + x**2 + y**2)
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        return jnp.stack([1 + self.u * (x * cosine - y * sine), self.u * (x * sine + y * cosine)])


class StandardMap(eqx.Module):
    """p' = p + k sin q, q' = q + p', both modulo 2 pi."""

    k: float = 10.0

    def __call__(self, input, state):
        q, p = state
        p = jnp.mod(p + self.k * jnp.sin(q), 2 * np.pi)
        return jnp.stack([jnp.mod(q + p, 2 * np.pi), p])


def in_precision(tree, dtype):
    """The numbers of a pytree, rounded to float32, in this precision."""

    def cast(x):
        is_real = isinstance(x, float) or (
            eqx.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
        )
        return jnp.asarray(x, jnp.float32).astype(dtype) if is_real else x

    return jax.tree.map(cast, tree)


def tanh_network(size, gain, input_scale=None, seed=0):
    """A random network; with inputs if they have a scale."""
    weight = gain * size**-0.5 * jr.normal(jr.key(seed), (size, size))
    if input_scale is None:
        return RNNCell.from_weights(weight_hh=weight)
    drive = input_scale * jr.normal(jr.key(1), (size, 3))
    return RNNCell.from_weights(weight_hh=weight, weight_ih=drive)


# name -> cell, start, steps
CHAOTIC = {
    "Hénon": (Henon(), jnp.full(2, 0.1), 300_000),
    "Lozi": (Lozi(), jnp.full(2, 0.1), 300_000),
    "Ikeda": (Ikeda(), jnp.full(2, 0.1), 300_000),
    "cat": (Cat(), jnp.array([0.1, 0.2]), 300_000),
    "standard map, k = 10": (StandardMap(), jnp.array([1.0, 2.0]), 300_000),
    "logistic, r = 4": (Logistic(jnp.array(4.0)), jnp.array(0.3), 300_000),
    "skew tent": (SkewTent(jnp.array(1.6), jnp.array(-1.9)), jnp.array(0.2), 300_000),
    "Lorenz-63, dt 0.01": (Flow(Lorenz63(), dt=0.01), jnp.ones(3), 200_000),
    "Rössler, dt 0.05": (Flow(Rossler(), dt=0.05), jnp.ones(3), 200_000),
    "Lorenz-96, 8, dt 0.02": (Flow(Lorenz96(), dt=0.02), jnp.arange(8.0), 30_000),
    "tanh 32, g = 3": (tanh_network(32, 3.0, seed=2), jr.normal(jr.key(9), (32,)), 5_000),
}
SETTLED = {
    "GRU 64": (GRUCell(3, 64, key=jr.key(0)), jnp.zeros(64), 2_000),
    "LSTM 32": (LSTMCell(3, 32, key=jr.key(0)), (jnp.zeros(32), jnp.zeros(32)), 2_000),
    "tanh 64, g = 0.9, inputs 0.1": (tanh_network(64, 0.9, 0.1), jnp.zeros(64), 2_000),
    "tanh 64, g = 1.5, inputs 0.5": (tanh_network(64, 1.5, 0.5), jnp.zeros(64), 2_000),
    "tanh 64, g = 1.5, inputs 2": (tanh_network(64, 1.5, 2.0), jnp.zeros(64), 2_000),
    "LRU 32": (
        LRUCell(3, 32, key=jr.key(0)),
        LRUCell(3, 32, key=jr.key(0)).initial_state(),
        20_000,
    ),
}
SEARCHED = 4_000_000


def run_pair(cell, state, inputs, transient, num_starts, **options):
    """Spectra and microseconds a step in both precisions; several starts lie next to each other."""
    found = {}
    for dtype in (jnp.float64, jnp.float32):

        @eqx.filter_jit
        def run(cell, starts, inputs):
            return eqx.filter_vmap(
                lambda start: lejax.lyapunov_spectrum(
                    cell, start, inputs, transient=transient, throw=False, **options
                )
            )(starts)

        starts = jax.tree.map(
            lambda x: x[None] + 1e-3 * jnp.arange(num_starts).reshape(-1, *(1 for _ in x.shape)),
            state,
        )
        arguments = in_precision((cell, starts, inputs), dtype)
        contender = _harness.Contender(
            "", lambda run=run, a=arguments: run(*a).exponents, num_starts
        )
        timing = _harness.time_round_robin([contender], 1)[0]
        found[dtype] = run(*arguments), timing.seconds_per_step
    return found


def summarize(found, steps):
    """Exponents, errors and differences of a pair of runs; means over the starts."""
    (double, time64), (single, time32) = found[jnp.float64], found[jnp.float32]

    def mean_and_error(spectra):
        exponents = np.asarray(spectra.exponents, float)
        errors = np.asarray(spectra.standard_error, float)
        return exponents.mean(axis=0), np.sqrt(np.mean(errors**2, axis=0) / len(errors))

    (value64, error64), (value32, error32) = mean_and_error(double), mean_and_error(single)
    are_resolved = np.asarray(single.diagnostics.unresolved).max(axis=0) == 0
    return {
        "steps": steps,
        "exponents": {"float64": value64, "float32": value32},
        "standard_error": {"float64": error64, "float32": error32},
        "difference": np.where(np.isfinite(value64), value32 - np.nan_to_num(value64), 0),
        "rounding_error": np.asarray(single.diagnostics.rounding_error, float).mean(axis=0),
        "rounding_error_float64": np.asarray(double.diagnostics.rounding_error).mean(axis=0),
        "resolved": are_resolved,
        "longest_interval": {
            "float64": int(double.diagnostics.longest_interval.max()),
            "float32": int(single.diagnostics.longest_interval.max()),
        },
        "microseconds_a_step": {"float64": 1e6 * time64 / steps, "float32": 1e6 * time32 / steps},
    }


def measure_chaotic(name, toy):
    cell, state, steps = CHAOTIC[name]
    steps = 1000 if toy else steps
    num_starts = 2 if toy else 4
    found = run_pair(cell, state, None, 1000, num_starts, num_steps=steps)
    row = {"problem": name, **summarize(found, steps)}
    if "dt" not in name and "tanh" not in name:
        last = found[jnp.float32][0].state
        periods = [
            find_period(in_precision(cell, jnp.float32), x, 1000 if toy else SEARCHED) for x in last
        ]
        row["periods"] = [int(period) for period in periods]
    return row


@eqx.filter_jit
def find_period(cell, state, searched):
    """The steps after which a state returns, 0 if not within those searched."""

    def step(carry):
        x, count = carry
        return cell(None, x), count + 1

    def goes_on(carry):
        x, count = carry
        return (count < searched) & ((count == 0) | jnp.any(x != state))

    x, count = jax.lax.while_loop(goes_on, step, (state, jnp.int32(0)))
    return jnp.where(jnp.all(x == state), count, 0)


def measure_settled(name, toy):
    cell, state, steps = SETTLED[name]
    steps, transient = (100 if toy else steps), 200
    inputs = jr.normal(jr.key(2), (transient + steps, 3))
    rows = {}
    for method in ("adaptive", "every step"):
        every = None if method == "adaptive" else 1
        options = {"method": lejax.SequentialQR(every=every)}
        found = run_pair(cell, state, inputs, transient, 1, **options)
        rows[method] = summarize(found, steps)
    return {"problem": name, **rows}


PARTS = ("trajectory", "products", "factorization", "logarithms", "compensated sum", "plain sum")


@eqx.filter_jit
def plain_run(cell, state, inputs, transient, in_float32):
    """Exponents of a plain loop in which these parts are computed in float32, all others in float64."""

    def dtype_of(part):
        return jnp.float32 if part in in_float32 else jnp.float64

    def flat(state):
        return ravel_pytree(state)

    def step(carry, input):
        state, frame, total, lost, count = carry
        input = in_precision(input, dtype_of("trajectory"))
        new_state = in_precision(cell, dtype_of("trajectory"))(input, state)
        products = dtype_of("products")
        point, unravel = flat(jax.tree.map(lambda x: x.astype(products), state))
        tangent_cell, tangent_input = in_precision((cell, input), products)
        _, push = jax.linearize(lambda x: flat(tangent_cell(tangent_input, unravel(x)))[0], point)
        pushed = jax.vmap(push, 1, 1)(frame.astype(products))
        q, r = jnp.linalg.qr(pushed.astype(dtype_of("factorization")))
        lengths = jnp.abs(jnp.diagonal(r))
        growth = jnp.log(lengths.astype(dtype_of("logarithms"))).astype(total.dtype)
        growth = jnp.where(count >= transient, growth, 0)
        total, lost = add_compensated(total, lost, growth)
        return (new_state, q.astype(jnp.float64), total, lost, count + 1), None

    state = jax.tree.map(lambda x: x.astype(dtype_of("trajectory")), state)
    size = flat(state)[0].size
    is_single = {"compensated sum", "plain sum"} & set(in_float32)
    zeros = jnp.zeros(size, jnp.float32 if is_single else jnp.float64)
    lost = None if "plain sum" in in_float32 else zeros
    frame = jnp.linalg.qr(jr.normal(jr.key(0), (size, size)))[0]
    carry = state, frame, zeros, lost, jnp.int32(0)
    return jax.lax.scan(step, carry, inputs)[0][2].astype(float) / (len(inputs) - transient)


def measure_parts(name, steps):
    cell, state, _ = SETTLED[name]
    transient = steps // 10
    inputs = jr.normal(jr.key(2), (transient + steps, 3))
    cell, state, inputs = in_precision((cell, state, inputs), jnp.float64)

    def run(*parts):
        return np.asarray(plain_run(cell, state, inputs, transient, parts))

    exact = before = run()
    rows = {}
    for index, part in enumerate(PARTS):
        # The plain sum replaces the compensated one.
        parts = PARTS[: index + 1] if part != "plain sum" else (*PARTS[:4], part)
        before = run(*PARTS[:4]) if part == "plain sum" else before
        found = run(*parts)
        change = np.abs(found - before)
        rows[part] = {"largest": change.max(), "median": np.median(change)}
        before = found
    total = np.abs(run(*PARTS[:5]) - exact)
    return {
        "problem": name,
        "steps": steps,
        "parts": rows,
        "all": {"largest": total.max(), "median": np.median(total)},
    }


def main():
    arguments = _harness.parse_arguments(__doc__, _harness.ONLY)
    chosen = [name for name in CHAOTIC if arguments.only in name]
    settled = [name for name in SETTLED if arguments.only in name]
    if arguments.toy:
        chosen, settled = chosen[:2], settled[-1:]
    chaotic_rows, settled_rows, part_rows = [], [], []
    for name in chosen:
        row = measure_chaotic(name, arguments.toy)
        chaotic_rows.append(row)
        joint = np.hypot(*(row["standard_error"][d] for d in ("float64", "float32")))
        shown = [f"{row['exponents'][d][0]:.6f}" for d in ("float64", "float32")]
        print(
            name, *shown, f"{np.max(np.abs(row['difference'])):.1e}", f"{joint[0]:.1e}",
            f"{row['rounding_error'].max():.1e}", row["longest_interval"],
            row["microseconds_a_step"], row.get("periods"), flush=True,
        )  # fmt: skip
    for name in settled:
        row = measure_settled(name, arguments.toy)
        settled_rows.append(row)
        for method in ("adaptive", "every step"):
            of = row[method]
            resolved = of["resolved"]
            errors = np.abs(of["difference"])[resolved]
            ratio = errors / (of["rounding_error"][resolved] + 1e-9)
            print(
                name, method, resolved.sum(), f"largest {errors.max():.1e}",
                f"median {np.median(errors):.1e}", f"over reported {ratio.max():.2f}",
                f"reported {of['rounding_error'][resolved].max():.1e}", of["longest_interval"],
                of["microseconds_a_step"], flush=True,
            )  # fmt: skip
    for name in [] if arguments.toy else ["GRU 64", "LSTM 32", "tanh 64, g = 0.9, inputs 0.1"]:
        if name in settled:
            row = measure_parts(name, 2000)
            part_rows.append(row)
            print(
                name, {k: f"{v['largest']:.1e} {v['median']:.1e}" for k, v in row["parts"].items()}
            )
    _harness.write_json(
        arguments.json,
        benchmark="float32",
        toy=arguments.toy,
        searched=SEARCHED,
        chaotic=chaotic_rows,
        settled=settled_rows,
        parts=part_rows,
    )


if __name__ == "__main__":
    main()
