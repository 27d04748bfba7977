"""The event-exact flow of piecewise-linear networks against diffrax at rtol = atol = 1e-11.

Random continuous-time AL-RNNs (those of a few thousand draws whose orbit stays bounded and keeps switching), Chua's
circuit, and a chaotic jerk equation; 200 samples from a start on the attractor. Differences are the largest over all
samples and components, absolute and relative to the largest component. diffrax runs with Tsit5 and Dopri8 and steps
clipped to the samples, so that it does not interpolate; the faster of both counts, and without the clipping, too.
SciPy's DOP853 at rtol = atol = 1e-13 is a third opinion. Times are those after compilation, in turn.
"""

import functools

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _harness import Contender
from scipy.integrate import solve_ivp

import lejax
from lejax.plrnn import ContinuousALRNN, PiecewiseLinearField, sample_flow


diffrax = _harness.import_peer("diffrax")
TOLERANCE = 1e-11


def random_field(size, num_relu, gain, seed):
    _, key_W, key_h = jr.split(jr.key(seed), 3)
    W = gain * jr.normal(key_W, (size, size)) / size**0.5
    return ContinuousALRNN(-jnp.ones(size), W, jr.normal(key_h, (size,)), num_relu)


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
    **{f"M=20, P=2, seed {seed}": lambda s=seed: random_field(20, 2, 1.3, s) for seed in (942, 1178, 1560)},
    **{f"M=20, P=2, seed {seed}": lambda s=seed: random_field(20, 2, 1.6, s) for seed in (1238, 2326)},
    "Chua's circuit": chua,
    "jerk": jerk,
}  # fmt: skip


def sample_diffrax(field, start, times, *, solver, clip):
    controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
    if clip:
        controller = diffrax.ClipStepSizeController(controller, step_ts=times)
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


def sample_scipy(field, start, times):
    step = jax.jit(lambda z: field(None, z))
    return solve_ivp(
        lambda t, z: np.asarray(step(z)),
        (0, float(times[-1])),
        np.asarray(start),
        "DOP853",
        np.asarray(times),
        rtol=1e-13,
        atol=1e-13,
    ).y.T


def contenders(field, start, times):
    runs = {"lejax": sample_flow}
    if diffrax is not None:
        for solver in (diffrax.Tsit5, diffrax.Dopri8):
            for clip in (True, False):
                name = f"{solver.__name__}{'' if clip else ', interpolated'}"
                runs[name] = functools.partial(sample_diffrax, solver=solver, clip=clip)
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
    timings = _harness.time_round_robin(contenders(field, start, times), 2 if toy else 15)
    ours, *theirs = timings
    fine = sample_flow(field, start, np.linspace(0, float(times[-1]), 20 * len(times)))
    switches = np.sum(np.diff(np.asarray(jax.vmap(network.region)(fine)), axis=0))
    known = sample_scipy(field, start, times)
    scale = float(np.abs(ours.result).max())
    row = {
        "largest_component": scale,
        "switches": int(switches),
        "largest_exponent": float(run.exponents[0]),
        "largest_exponent_error": float(run.standard_error[0]),
        "lejax_seconds": ours.seconds_per_step * len(times),
        "lejax_compile_seconds": ours.compile_time,
        "lejax_from_DOP853": float(np.abs(ours.result - known).max()),
        "diffrax": {
            other.contender.name: {
                "seconds": other.seconds_per_step * len(times),
                "from_lejax": float(np.abs(ours.result - other.result).max()),
                "from_DOP853": float(np.abs(known - other.result).max()),
                "time_over_lejax": _harness.paired_ratio(other, ours),
            }
            for other in theirs
        },
    }
    print(f"done: {name}", flush=True)
    return row


def main():
    arguments = _harness.parse_arguments(__doc__)
    names = ["M=3, P=3, seed 65", "M=20, P=2, seed 942"] if arguments.toy else list(FIELDS)
    rows = {name: compare(name, arguments.toy) for name in names}
    header = ["", "switches", "exponent", "lejax ms", "from DOP853"]
    peers = list(next(iter(rows.values()))["diffrax"])
    header += [f"{what} {peer}" for peer in peers for what in ("from", "time of")]
    table = []
    for name, row in rows.items():
        cells = [name, f"{row['switches']}", f"{row['largest_exponent']:.3f}"]
        cells += [f"{1e3 * row['lejax_seconds']:.2f}", f"{row['lejax_from_DOP853']:.0e}"]
        for peer in row["diffrax"].values():
            cells += [f"{peer['from_lejax']:.0e}", f"{peer['time_over_lejax']['median']:.1f}"]
        table.append(cells)
    print(_harness.format_table(header, table))
    print("from: largest difference from lejax. time of: in units of lejax's, paired medians.")
    _harness.write_json(
        arguments.json, benchmark="event_flow", toy=arguments.toy, tolerance=TOLERANCE, rows=rows
    )


if __name__ == "__main__":
    main()
