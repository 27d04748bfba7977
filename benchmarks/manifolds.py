"""Manifolds of three maps of the plane against published and exact values, and their cost.

python benchmarks/manifolds.py [--toy] [--json FILE]
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import lejax
from lejax import plrnn


def planar(tr, dr, tl, dl, c, d, h1, h2):
    """(x, y)' = [[t, c], [-d, d]] (x, y) + h with the t and d of the left side for x <= 0, else of the right side."""
    left, right = np.array([[tl, c], [-dl, d]]), np.array([[tr, c], [-dr, d]])
    return lejax.PiecewiseLinearMap(
        left, (right - left)[:, :1], np.array([[1.0, 0]]), np.array([h1, h2]), np.zeros(1)
    )


TWO_ATTRACTORS = planar(1.26, 0.71, -0.39, -0.91, -0.44, 0.56, -0.28, 0.62)
CHAOTIC = planar(1.5, 0.75, -1.77, 0.9, 0.6, 0.15, -0.7, -0.4)
LOZI = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
SYSTEMS = {
    "two attractors": (TWO_ATTRACTORS, [0.927835, -0.088097]),
    "chaotic": (CHAOTIC, [-0.288478, -0.165141]),
    "Lozi": (LOZI, [0.454545, 0.227273]),
}
SINK = jnp.array([-0.391304, 0.599802])
BOX = (jnp.full(2, -3.0), jnp.full(2, 3.0))


def timed(function):
    """The result, and the median time of three runs after a first one."""
    result, times = function(), []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return result, float(np.median(times))


def geometry(net, saddle, max_length):
    method = plrnn.Polyline(max_length=max_length)
    stable, stable_seconds = timed(lambda: plrnn.stable_manifold(net, saddle, method=method))
    unstable, unstable_seconds = timed(lambda: plrnn.unstable_manifold(net, saddle, method=method))
    crossed, crossing_seconds = timed(lambda: plrnn.crossings(unstable, stable))
    step = jax.vmap(lambda x: net(None, x))
    young = unstable.segments[unstable.generation <= unstable.generation.max() // 2].mean(axis=1)
    images = {
        "stable": (step(jnp.asarray(stable.segments.mean(axis=1))), stable),
        "unstable": (step(jnp.asarray(young)), unstable),
    }
    return {
        "saddle": stable.saddle[0],
        "multipliers": [unstable.multiplier.real, stable.multiplier.real],
        "max_length": max_length,
        "segments": {"stable": len(stable.segments), "unstable": len(unstable.segments)},
        "seconds": {
            "stable": stable_seconds,
            "unstable": unstable_seconds,
            "crossings": crossing_seconds,
        },
        "largest_distance_of_images": {
            name: float(plrnn.distance_to_manifold(x, manifold).max())
            for name, (x, manifold) in images.items()
        },
        "crossings": len(crossed.points),
        "smallest_sine": float(crossed.sine.min(initial=np.inf)),
        "quality_of_stable": float(plrnn.manifold_quality(net, stable, box=BOX).value),
        "quality_of_unstable": float(plrnn.manifold_quality(net, unstable, box=BOX).value),
        "rightmost_of_unstable": float(unstable.segments[..., 0].max()),
    }


def basin_boundary(toy):
    count = 50 if toy else 1000
    stable = plrnn.stable_manifold(TWO_ATTRACTORS, SYSTEMS["two attractors"][1])
    starts = jr.uniform(jr.key(0), (6 * count, 2), minval=-3, maxval=3)
    index = plrnn.basin_index(TWO_ATTRACTORS, starts, [SINK])
    first, second = starts[index == 0][:count], starts[index == -1][:count]
    between = plrnn.bisect_basins(TWO_ATTRACTORS, first, second, [SINK])
    distances = np.asarray(plrnn.distance_to_manifold(between.points, stable))
    return {
        "pairs_of_starts": len(distances),
        "within_1e-9": float(np.mean(distances < 1e-9)),
        "largest_distance": float(distances.max()),
        "width_of_last_interval": float(between.width.max()),
        "share_of_box_in_basin_of_sink": float(np.mean(index == 0)),
    }


def exponents(toy):
    num_steps = 10_000 if toy else 1_000_000
    chaotic = lejax.lyapunov_spectrum(
        CHAOTIC, jnp.array([0.1, 0.1]), num_steps=num_steps, transient=1000
    )
    sink = lejax.lyapunov_spectrum(TWO_ATTRACTORS, SINK, num_steps=num_steps)
    return {
        "num_steps": num_steps,
        "chaotic": chaotic.exponents,
        "chaotic_standard_error": chaotic.standard_error,
        "sink": sink.exponents,
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    max_length = 20.0 if arguments.toy else 1000.0
    systems = {name: geometry(net, saddle, max_length) for name, (net, saddle) in SYSTEMS.items()}
    rows = [
        [
            name,
            f"{row['segments']['stable']}, {row['segments']['unstable']}",
            f"{row['seconds']['stable']:.3f}, {row['seconds']['unstable']:.3f}",
            f"{max(row['largest_distance_of_images'].values()):.0e}",
            str(row["crossings"]),
            f"{row['quality_of_stable']:.3f}, {row['quality_of_unstable']:.3f}",
        ]
        for name, row in systems.items()
    ]
    header = ["W^s, W^u", "segments", "seconds", "F(W) to W", "crossings", "Delta"]
    print(_harness.format_table(header, rows))
    boundary = basin_boundary(arguments.toy)
    print(
        f"\nBasin boundary: {boundary['within_1e-9']:.1%} of {boundary['pairs_of_starts']} points between starts "
        f"lie on W^s, the farthest {boundary['largest_distance']:.0e} away."
    )
    rightmost = (2 + 1.7 + np.sqrt(1.7**2 + 2)) / (2 * (1 + 1.7 - 0.5))
    error = systems["Lozi"]["rightmost_of_unstable"] - rightmost
    print(f"Lozi, rightmost point of W^u: {rightmost:.6f}, error {error:.0e}.")
    spectra = exponents(arguments.toy)
    print(
        f"Chaotic map: lambda_1 = {spectra['chaotic'][0]:.5f} +- {spectra['chaotic_standard_error'][0]:.5f}; "
        f"sink: {spectra['sink'][0]:.5f}, {spectra['sink'][1]:.5f}."
    )
    _harness.write_json(
        arguments.json,
        benchmark="manifolds",
        toy=arguments.toy,
        systems=systems,
        basin_boundary=boundary,
        lozi_rightmost={"exact": rightmost, "error": error},
        exponents=spectra,
    )


if __name__ == "__main__":
    main()
