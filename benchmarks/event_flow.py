"""The event-exact flow of piecewise-linear networks against diffrax at rtol = atol = 1e-11.

The systems are random continuous-time AL-RNNs (those of a few thousand draws whose orbit stays bounded and keeps
switching), Chua's circuit, and a chaotic jerk equation, with 200 samples from a start on the attractor. Errors are the
largest over all samples and components, against a solution in extended precision (80 bits on x86) by a program that
shares no code with lejax. diffrax runs with Tsit5 and Dopri8, with interpolation or with steps clipped to the samples,
and the fastest counts. In a further run, for its error alone, it is given the times of the switches: without them it
steps over kinks of the field with an error that its tolerance does not bound. Contenders are timed in turn, after
compilation.
"""

import functools

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _harness import Contender

import lejax
from lejax.plrnn import ContinuousALRNN, PiecewiseLinearField, sample_flow


diffrax = _harness.import_peer("diffrax")
TOLERANCE = 1e-11
TOLD = "Dopri8, told the switches"


def random_field(size, num_relu, gain, seed):
    _, key_W, key_h = jr.split(jr.key(seed), 3)
    W = gain * jr.normal(key_W, (size, size)) / size**0.5
    return ContinuousALRNN.from_weights(
        a=-jnp.ones(size), W=W, h=jr.normal(key_h, (size,)), num_relu=num_relu
    )


def chua(alpha=9.0, beta=100 / 7, inner=-8 / 7, outer=-5 / 7):
    c = -alpha * (inner - outer)
    return PiecewiseLinearField(
        lejax.PiecewiseLinearMap(
            jnp.array([[-alpha * (1 + outer), alpha, 0.0], [1.0, -1.0, 1.0], [0.0, -beta, 0.0]]),
            jnp.array([[c, -c], [0.0, 0.0], [0.0, 0.0]]),
            jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
            jnp.array([-c, 0.0, 0.0]),
            jnp.array([1.0, -1.0]),
        )
    )


def jerk():
    return PiecewiseLinearField(
        lejax.PiecewiseLinearMap(
            jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, -1.0, -0.6]]),
            jnp.array([[0.0], [0.0], [2.0]]),
            jnp.array([[1.0, 0.0, 0.0]]),
            jnp.array([0.0, 0.0, -1.0]),
            jnp.zeros(1),
        )
    )


FIELDS = {
    **{f"M=3, P=3, seed {seed}": lambda s=seed: random_field(3, 3, 3.5, s) for seed in (65, 1133, 3898)},
    **{f"M=20, P=2, seed {seed}": lambda s=seed: random_field(20, 2, 1.3, s) for seed in (942, 1178)},
    **{f"M=20, P=2, seed {seed}": lambda s=seed: random_field(20, 2, 1.6, s) for seed in (1238, 1859, 2326)},
    "Chua's circuit": chua,
    "jerk": jerk,
}  # fmt: skip


def sample_diffrax(field, start, times, *, solver, clip, switches=None):
    controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
    if clip:
        controller = diffrax.ClipStepSizeController(controller, step_ts=times, jump_ts=switches)
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, z, field: field(None, z)),
        solver(),
        0.0,
        times[-1],
        None,
        start,
        field,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=controller,
        max_steps=1_000_000,
    ).ys


def sample_extended(network, start, times):
    """States and switch times in `numpy.longdouble`: short Taylor steps, signs of the units at 17 points of each step,
    and bisection."""
    A, W1, W2, h1, h2 = (
        np.asarray(x).astype(np.longdouble)
        for x in (network.A, network.W1, network.W2, network.h1, network.h2)
    )
    grid = np.arange(17, dtype=np.longdouble)[1:, None] / 16
    orders = np.arange(27)
    state = np.asarray(start).astype(np.longdouble)
    region = W2 @ state + h2 > 0
    now, states, switches = np.longdouble(0), [], []
    for time in np.asarray(times).astype(np.longdouble):
        while now < time:
            J, b = A + (W1 * region) @ W2, h1 + (W1 * region) @ h2
            step = min(time - now, 1 / np.abs(J).sum(axis=1).max())
            terms = [state, J @ state + b]
            for n in orders[2:]:
                terms.append(J @ terms[-1] / n)
            terms = np.array(terms)

            def wrong(t, unit=slice(None), terms=terms, region=region):
                values = (t**orders @ terms) @ W2[unit].T + h2[unit]
                return (values > 0) != region[unit]

            # Rounding may leave a unit that has just switched on its old side, but only at first.
            later = np.array([wrong(t) for t in step * grid])
            crossed = later.any(axis=0)
            first = step
            for unit in np.flatnonzero(crossed):
                row = np.argmax(later[:, unit])
                low, high = (
                    (step * grid[row - 1, 0] if row else np.longdouble(0)),
                    step * grid[row, 0],
                )
                for _ in range(70):
                    middle = (low + high) / 2
                    low, high = (low, middle) if wrong(middle, unit) else (middle, high)
                if high <= first:
                    first, switching = high, unit
            state = first**orders @ terms
            now = time if first == time - now else now + first
            if crossed.any():
                region = region.copy()
                region[switching] ^= True
                switches.append(float(now))
        states.append(state)
    return np.array(states), np.array(switches)


def contenders(field, start, times, switches):
    runs = {"lejax": sample_flow}
    if diffrax is not None:
        for solver in (diffrax.Tsit5, diffrax.Dopri8):
            for clip in (False, True):
                name = f"{solver.__name__}{', clipped' * clip}"
                runs[name] = functools.partial(sample_diffrax, solver=solver, clip=clip)
        runs[TOLD] = functools.partial(
            sample_diffrax,
            solver=diffrax.Dopri8,
            clip=True,
            switches=switches if len(switches) else None,
        )
    return [
        Contender(name, functools.partial(eqx.filter_jit(run), field, start, times), len(times))
        for name, run in runs.items()
    ]


def compare(name, toy):
    field = FIELDS[name]()
    network = lejax.piecewise_linear(field)
    size = network.h1.size
    start = 0.1 * jr.normal(jr.key(9), (size,))
    settle = np.linspace(5.0, 100.0 if toy else 400.0, 20 if toy else 80)
    start = sample_flow(field, start, settle)[-1]
    times = jnp.linspace(0.1, 1.0 if toy else 20.0, 10 if toy else 200)
    run = lejax.lyapunov_spectrum(
        lejax.plrnn.EventExactFlow(field, 0.1),
        start,
        num_steps=100 if toy else 10_000,
        num_exponents=1,
    )
    exact, switches = sample_extended(network, start, times)
    ours, *theirs = _harness.time_round_robin(
        contenders(field, start, times, jnp.asarray(switches)), 2 if toy else 15
    )
    row = {
        "largest_component": float(np.abs(exact).max()),
        "switches": len(switches),
        "largest_exponent": float(run.exponents[0]),
        "largest_exponent_error": float(run.standard_error[0]),
        "seconds": ours.seconds_per_step * len(times),
        "compile_seconds": ours.compile_time,
        "error": float(np.abs(ours.result - exact).max()),
        "diffrax": {
            other.contender.name: {
                "seconds": other.seconds_per_step * len(times),
                "error": float(np.abs(other.result - exact).max()),
                "from_lejax": float(np.abs(ours.result - other.result).max()),
                "time_over_lejax": _harness.paired_ratio(other, ours),
            }
            for other in theirs
        },
    }
    print(f"done: {name}", flush=True)
    return row


def main():
    arguments = _harness.parse_arguments(__doc__)
    names = ["M=3, P=3, seed 65"] if arguments.toy else list(FIELDS)
    rows = {name: compare(name, arguments.toy) for name in names}
    header = ["", "size", "switches", "exponent", "lejax ms", "error"]
    if diffrax is not None:
        header += ["diffrax, best error", "told switches: from lejax", "fastest / lejax"]
    table = []
    for name, row in rows.items():
        cells = [name, f"{row['largest_component']:.1f}", f"{row['switches']}"]
        cells += [
            f"{row['largest_exponent']:.3f}",
            f"{1e3 * row['seconds']:.2f}",
            f"{row['error']:.0e}",
        ]
        if peers := dict(row["diffrax"]):
            told = peers.pop(TOLD)
            cells += [f"{min(p['error'] for p in peers.values()):.0e}", f"{told['from_lejax']:.0e}"]
            cells += [f"{min(p['time_over_lejax']['median'] for p in peers.values()):.1f}"]
        table.append(cells)
    print(_harness.format_table(header, table))
    _harness.write_json(
        arguments.json, benchmark="event_flow", toy=arguments.toy, tolerance=TOLERANCE, rows=rows
    )


if __name__ == "__main__":
    main()
