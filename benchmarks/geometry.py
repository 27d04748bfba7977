"""Fixed points of a trained network against Adam on the speed, and covariant vectors against the spectrum.

Flip-flop: a GRU that remembers the signs of 3 channels should have 8 stable points, and an index-1 saddle for each of
the 12 pairs of neighbors (memories that differ in one bit). `find_fixed_points` starts from mixtures of visited
states. Adam minimizes the mean speed of all these guesses at once, jitted, until as many of the stable points and
saddles have been reached to a residual of 1e-8, and, as is usual practice, until all guesses have arrived. The best of
three learning rates counts. What has not arrived after the last iteration is reported as a lower bound.

Known values: fixed points and multipliers of the Henon map, the logistic map's 2- and 4-cycles, Lorenz-63, and the van
der Pol cycle, against closed forms or (its multiplier) Liouville's formula along an independent integration.

Covariant vectors: the time of `covariant_statistics` (growth, angles, participation) of a random tanh network over the
time of its spectrum, both of the same counted steps. The spectrum orthonormalizes at each step with the same
orthonormalizer, or is the default one; the vectors orthonormalize at each step, or at each second one.
"""

import time

import _flip_flop
import _harness  # first: it sets what JAX and NumPy read when they start
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from scipy.integrate import solve_ivp

import lejax


RESIDUAL = 1e-8


def saddles_between_neighbors(cell, readout, found, input):
    """The numbers of stable points and index-1 saddles, and the pairs of stable points that differ in one bit and are
    joined by a saddle along its unstable direction."""
    stability, points = found.stability, np.asarray(found.points)
    fixed = ~np.asarray(found.is_slow)
    stable = points[fixed & (stability.num_unstable == 0)]
    saddles = np.flatnonzero(fixed & (stability.num_unstable == 1))
    if not len(saddles) or not len(stable):
        return len(stable), len(saddles), set()
    direction = np.real(stability.directions[saddles, :, 0])
    sides = np.stack([points[saddles] + s * 1e-3 * direction for s in (1, -1)], axis=1)

    def settle(state):
        return jax.lax.fori_loop(0, 50_000, lambda _, x: cell(input, x), state)

    ends = np.asarray(jax.jit(jax.vmap(jax.vmap(settle)))(jnp.asarray(sides)))
    gaps = np.linalg.norm(ends[:, :, None] - stable, axis=-1)
    reached = np.argmin(gaps, axis=2)
    # The slowest modes last for tens of thousands of steps, longer than this run, so that a state is near a stable
    # point if it is much nearer to it than to any other.
    least = np.sort(gaps, axis=2)
    near = least[:, :, 0] < 0.1 * least[:, :, 1]
    # The signs of the readout identify memories: neighbors differ in one sign.
    signs = np.asarray(jax.vmap(readout)(jnp.asarray(stable))) > 0
    is_neighbor = np.sum(signs[reached[:, 0]] != signs[reached[:, 1]], axis=1) == 1
    good = np.all(near, axis=1) & is_neighbor
    return len(stable), len(saddles), {tuple(sorted(pair)) for pair in reached[good].tolist()}


def adam_on_the_speed(cell, input, guesses, targets, learning_rate, iterations, chunk):
    """Seconds until every target point is reached, and until all guesses have a residual of `RESIDUAL`."""
    optimizer = optax.adam(learning_rate)

    def residual(x):
        return jnp.linalg.norm(cell(input, x) - x)

    def total(xs):
        return jnp.sum(jax.vmap(residual)(xs) ** 2) / 2

    def iterate(carry, _):
        xs, state = carry
        updates, state = optimizer.update(jax.grad(total)(xs), state)
        return (optax.apply_updates(xs, updates), state), None

    @jax.jit
    def run(carry):
        carry, _ = jax.lax.scan(iterate, carry, length=chunk)
        return carry, jax.vmap(residual)(carry[0])

    start = (guesses, optimizer.init(guesses))
    jax.block_until_ready(run(start))  # compiles
    carry, spent, targets_at, all_at = start, 0.0, None, None
    for _ in range(iterations // chunk):
        begin = time.perf_counter()
        carry, residuals = jax.block_until_ready(run(carry))
        spent += time.perf_counter() - begin
        arrived = np.asarray(residuals) < RESIDUAL
        near = np.asarray(carry[0])[arrived]
        gaps = [np.min(np.abs(near - t).max(axis=1), initial=np.inf) for t in targets]
        if targets_at is None and np.max(gaps) < 1e-3:
            targets_at = spent
        if arrived.all():
            all_at = spent
        if targets_at is not None:
            break
    reached = sum(gap < 1e-3 for gap in gaps)
    return {
        "learning_rate": learning_rate,
        "seconds": spent,
        "seconds_to_all_targets": targets_at,
        "seconds_to_all_guesses": all_at,
        "targets_reached": int(reached),
        "guesses_arrived": float(arrived.mean()),
        "median_residual": float(np.median(residuals)),
    }


def flip_flop(toy):
    bits, size, count = (1, 8, 50) if toy else (3, 64, 1000)
    cell, readout, states, loss = _flip_flop.train(jr.key(0), bits, size, 150 if toy else 600)
    input, guesses = jnp.zeros(bits), _flip_flop.mixtures(jr.key(1), states, count)

    def search():
        begin = time.perf_counter()
        found = lejax.orbits.find_fixed_points(cell, guesses, input)
        jax.block_until_ready(found.points)
        return found, time.perf_counter() - begin

    found, first = search()
    times = [search()[1] for _ in range(1 if toy else 5)]
    seconds = float(np.median(times))
    stable, saddles, pairs = saddles_between_neighbors(cell, readout, found, input)
    num_unstable = found.stability.num_unstable
    targets = np.asarray(found.points)[num_unstable <= 1]
    with_slow = None
    if not toy:
        begin = time.perf_counter()
        fallback = lejax.orbits.SpeedMinimization()
        lejax.orbits.find_fixed_points(cell, guesses, input, fallback=fallback)
        middle = time.perf_counter()
        slow = lejax.orbits.find_fixed_points(cell, guesses, input, fallback=fallback)
        with_slow = {
            "first_call": middle - begin,
            "seconds": time.perf_counter() - middle,
            "fixed": int(np.sum(~np.asarray(slow.is_slow))),
            "slow": int(np.sum(slow.is_slow)),
        }
    print(f"done: {bits}-bit flip-flop, {seconds:.2f} s", flush=True)
    iterations, chunk = (200, 100) if toy else (10_000, 200)
    adam = []
    for rate in (1e-1, 1e-2, 1e-3):
        adam.append(adam_on_the_speed(cell, input, guesses, targets, rate, iterations, chunk))
        print(f"done: Adam at {rate}", flush=True)
    bounds = [row["seconds_to_all_targets"] or row["seconds"] for row in adam]
    best = int(np.argmin(bounds))
    return {
        "bits": bits,
        "hidden_size": size,
        "training_loss": loss,
        "guesses": count,
        "fixed_points": len(found.q),
        "by_index": np.bincount(num_unstable).tolist(),
        "stable": stable,
        "index_1_saddles": saddles,
        "pairs_of_stable_points_joined_by_saddles": len(pairs),
        "largest_residual": float(np.sqrt(2 * found.q.max())),
        "guesses_led_to_fixed_points": int(found.count.sum()),
        "seconds": seconds,
        "first_call_seconds": first,
        "times": times,
        "with_slow_points": with_slow,
        "adam": adam,
        "adam_over_lejax": bounds[best] / seconds,
        "adam_is_lower_bound": adam[best]["seconds_to_all_targets"] is None,
    }


def covariant_cost(toy):
    size, num_steps = (8, 200) if toy else (64, 10_000)
    weights = 2 * size**-0.5 * jr.normal(jr.key(1), (size, size))
    cell = lejax.cells.RNNCell.from_weights(weight_hh=weights)
    state = jr.normal(jr.key(2), (size,))
    run = {"num_steps": num_steps, "transient": 100}

    def spectrum(method):
        return lejax.lyapunov_spectrum(cell, state, method=method, **run).exponents

    def covariant(every):
        reducer = lejax.VectorStatistics()
        statistics = lejax.covariant_statistics(
            cell, state, reducer=reducer, qr_interval=every, **run
        )
        return statistics.mean_log_growth

    every = lejax.SequentialQR(every=1)
    contenders = [
        _harness.Contender("covariant vectors", lambda: covariant(1), num_steps),
        _harness.Contender("covariant vectors, every 2", lambda: covariant(2), num_steps),
        _harness.Contender("spectrum, every step", lambda: spectrum(every), num_steps),
        _harness.Contender("spectrum, default", lambda: spectrum(lejax.SequentialQR()), num_steps),
    ]
    timings = _harness.time_round_robin(contenders, 1 if toy else 5)
    vectors, sparse, at_each, default = timings
    return {
        "hidden_size": size,
        "num_steps": num_steps,
        "default_qr_interval": int(
            lejax.lyapunov_spectrum(cell, state, **run).diagnostics.longest_interval
        ),
        "seconds_per_step": {t.contender.name: t.seconds_per_step for t in timings},
        "over_spectrum_at_every_step": _harness.paired_ratio(vectors, at_each),
        "over_default_spectrum": _harness.paired_ratio(vectors, default),
        "qr_interval_2_over_spectrum_at_every_step": _harness.paired_ratio(sparse, at_each),
        "qr_interval_2_over_default_spectrum": _harness.paired_ratio(sparse, default),
        "largest_difference_qr_interval_2": float(np.max(np.abs(vectors.result - sparse.result))),
        "largest_difference_of_exponents": float(np.max(np.abs(vectors.result - at_each.result))),
    }


def nearest(points, expected):
    """The largest distance from an expected value to the nearest found value."""
    points = np.asarray(points).reshape(len(points), -1)
    return float(max(np.abs(points - np.asarray(e).ravel()).max(axis=1).min() for e in expected))


def analytic():
    """Errors against closed forms; those of points and multipliers are absolute."""
    systems, orbits = lejax.systems, lejax.orbits
    a, b = 1.4, 0.3
    henon = orbits.find_fixed_points(systems.Henon(a, b), jr.normal(jr.key(0), (30, 2)))
    x = (-(1 - b) + np.array([-1, 1]) * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    root = np.sqrt((a * x) ** 2 + b)
    rows = {
        "Henon, fixed points": nearest(henon.points, np.stack([x, b * x], axis=1)),
        "Henon, multipliers": nearest(
            henon.stability.multipliers,
            np.stack([-a * x - np.sign(x) * root, -a * x + np.sign(x) * root], 1),
        ),
    }
    r, grid = 3.2, jnp.linspace(0.05, 0.95, 30)
    two = orbits.find_periodic_orbits(systems.Logistic(r), grid, period=2)
    cycle = (r + 1 + np.array([-1, 1]) * np.sqrt((r - 3) * (r + 1))) / (2 * r)
    rows["logistic, 2-cycle"] = nearest(np.sort(two.points, axis=1), [cycle])
    rows["logistic, 2-cycle, multiplier"] = nearest(two.stability.multipliers, [4 + 2 * r - r**2])
    r = 3.6
    four = orbits.find_periodic_orbits(systems.Logistic(r), grid, period=4)
    cycle = np.asarray(four.points[0])
    rows["logistic, 4-cycle, closes"] = float(
        np.max(np.abs(np.roll(cycle, -1) - r * cycle * (1 - cycle)))
    )
    rows["logistic, 4-cycle, multiplier"] = nearest(
        four.stability.multipliers, [np.prod(r * (1 - 2 * cycle))]
    )
    flow = systems.Flow(systems.Lorenz63(), dt=0.01, substeps=4)
    lorenz = orbits.find_fixed_points(
        flow, 20 * jr.normal(jr.key(1), (30, 3)) + jnp.array([0, 0, 20])
    )
    side = np.sqrt(8 / 3 * 27)
    expected = np.array([[side, side, 27], [-side, -side, 27], [0, 0, 0]])
    rows["Lorenz-63, C+, C- and origin"] = nearest(lorenz.points, expected)
    fields = [np.asarray(jax.jacfwd(lambda x: flow.vector_field(None, x))(x)) for x in expected]
    rates = [np.linalg.eigvals(field) for field in fields]
    multipliers = [np.exp(0.01 * rate[np.argsort(-rate.real, kind="stable")]) for rate in rates]
    rows["Lorenz-63, multipliers"] = nearest(lorenz.stability.multipliers.round(14), multipliers)
    flow = systems.Flow(systems.VanDerPol(), dt=0.01, substeps=4)
    cycle = orbits.find_periodic_orbits(flow, jnp.array([[2.0, 0.0]]), period=6.5)
    rows["van der Pol, period"] = nearest(cycle.period, [6.6632868593])
    path = solve_ivp(
        lambda t, z: [z[1], (1 - z[0] ** 2) * z[1] - z[0], 1 - z[0] ** 2],
        (0, 6.6632868593),
        [*np.asarray(cycle.points[0, 0]), 0.0],
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
    )
    rows["van der Pol, multiplier (Liouville)"] = nearest(
        cycle.stability.multipliers, [np.exp(path.y[2, -1])]
    )
    return rows


def main():
    arguments = _harness.parse_arguments(__doc__)
    cost = covariant_cost(arguments.toy)
    print("done: covariant vectors", flush=True)
    errors = analytic()
    print(
        _harness.format_table(
            ["known values", "error"], [[k, f"{v:.0e}"] for k, v in errors.items()]
        )
    )
    points = flip_flop(arguments.toy)
    print(
        f"\n{points['bits']}-bit flip-flop, GRU of {points['hidden_size']} units, {points['guesses']} guesses: "
        f"{points['fixed_points']} fixed points in {points['seconds']:.2f} s, residual below "
        f"{points['largest_residual']:.0e}, by index {points['by_index']};\n"
        f"{points['pairs_of_stable_points_joined_by_saddles']} pairs of stable points are joined by a saddle."
    )
    header = ["", "seconds", "stable and saddles", "guesses arrived", "median residual"]
    rows = [
        [
            f"Adam, {row['learning_rate']:g}",
            f"{row['seconds']:.1f}",
            f"{row['targets_reached']}",
            f"{row['guesses_arrived']:.0%}",
            f"{row['median_residual']:.0e}",
        ]
        for row in points["adam"]
    ]
    print(_harness.format_table(header, rows))
    sign = "at least " if points["adam_is_lower_bound"] else ""
    print(f"Best Adam over find_fixed_points: {sign}{points['adam_over_lejax']:.1f}")
    for name in ("over_spectrum_at_every_step", "over_default_spectrum"):
        for prefix in ("", "qr_interval_2_"):
            ratio = "{median:.2f} [{quartile_1:.2f}, {quartile_3:.2f}]".format(
                **cost[prefix + name]
            )
            print(f"Covariant vectors, time {(prefix + name).replace('_', ' ')}: {ratio}")
    _harness.write_json(
        arguments.json,
        benchmark="geometry",
        toy=arguments.toy,
        flip_flop=points,
        covariant_vectors=cost,
        errors_against_known_values=errors,
    )


if __name__ == "__main__":
    main()
