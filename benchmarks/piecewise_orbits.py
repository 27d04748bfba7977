"""Fixed points and cycles of piecewise-linear maps of the plane against published values, and their cost.

Five maps of Eisenmann, Monfared, Goering & Durstewitz, NeurIPS 36 (2023): fixed points, the cycles of one order, and
the absence of cycles of another, each by enumeration of all words that a state can follow (which certifies both) and by
the search from 200 words that large networks need. Recall: the share of the enumerated cycles of all periods up to 40
that the search finds with these starts. AL-RNN: the time for all fixed points of networks of 20 units of which 10
switch (1024 regions), after a first call.

python benchmarks/piecewise_orbits.py [--toy] [--json FILE]
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import jax.random as jr
import numpy as np

import lejax
from lejax.plrnn import find_cycles


BASE = {
    "a1": 0.9777689,
    "a2": 0.96461297,
    "w1": -0.14375,
    "w2": 0.52505308,
    "h1": 0.37298253,
    "h2": -0.97931491,
}
# Changes of the base map; its fixed point with the moduli of its multipliers; an order with the leading moduli of its
# cycles; and an order that has no cycles.
ROWS = [
    ({"a1": 0.7, "a2": -0.7}, [1.243275, -0.192076], [0.7, 0.7], 16, [], 15),
    (
        {"a1": -0.0222311, "w1": -0.64375},
        [0.364871, -22.260649],
        [0.96461, 0.02223],
        16,
        [],
        15,
    ),
    (
        {"a1": 0.8377689, "w1": -0.64375},
        [1.872420, 0.107523],
        [1.07057] * 2,
        16,
        [0.518900, 1.61022],
        15,
    ),
    ({}, [2.019002, 2.282420], [1.00928] * 2, 27, [0.693171, 1.13196], 25),
    ({"w1": -0.64375}, [1.899801, 0.513783], [1.13189] * 2, 40, [0.572562, 2.46880], 38),
]
STARTS = 200


def planar(changes):
    p = {**BASE, **changes}
    W = np.array([[0, p["w1"]], [p["w2"], 0]])
    a, h = np.array([p["a1"], p["a2"]]), np.array([p["h1"], p["h2"]])
    return lejax.cells.PLRNN.from_weights(a=a, W=W, h=h)


def timed(cell, period, **options):
    clock = time.perf_counter()
    found = find_cycles(cell, period, key=jr.key(0), **options)
    return found, time.perf_counter() - clock


def published(changes, point, moduli, period, leading, absent):
    cell = planar(changes)
    fixed, fixed_seconds = timed(cell, 1)
    cycles, seconds = timed(cell, period)
    searched, search_seconds = timed(cell, period, max_words=0, num_starts=STARTS)
    none, none_seconds = timed(cell, absent)
    found = np.abs(np.asarray(cycles.multipliers))[:, 0] if leading else np.zeros(0)
    return {
        "changes": changes,
        "fixed_point": fixed.points[0, 0],
        "fixed_point_error": float(np.abs(fixed.points[0, 0] - np.array(point)).max()),
        "moduli_error": float(np.abs(np.abs(fixed.multipliers[0]) - np.array(moduli)).max()),
        "fixed_points": len(fixed.points),
        "period": period,
        "cycles": len(cycles.points),
        "expected_cycles": len(leading),
        "leading_moduli": found,
        "leading_moduli_error": float(np.max(np.abs(found - np.array(leading)), initial=0)),
        "largest_residual": float(np.max(cycles.residual, initial=float(fixed.residual[0]))),
        "words": cycles.num_words,
        "is_complete": fixed.is_complete and cycles.is_complete,
        "cycles_searched": len(searched.points),
        "absent_period": absent,
        "absent_cycles": len(none.points),
        "absence_is_certified": none.is_complete,
        "absent_words": none.num_words,
        "seconds": {
            "fixed points": fixed_seconds,
            "cycles": seconds,
            "cycles, searched": search_seconds,
            "absent": none_seconds,
        },
    }


def recall(toy):
    """The number of cycles that enumeration finds, and that the search finds."""
    total = found = 0
    for changes, *_ in ROWS[2:3] if toy else ROWS[2:]:
        cell = planar(changes)
        for period in range(2, 9 if toy else 41):
            everything = find_cycles(cell, period, key=jr.key(1))
            if not everything.is_complete or not len(everything.points):
                continue
            some = find_cycles(cell, period, key=jr.key(2), max_words=0, num_starts=STARTS)
            words = {row.tobytes() for row in np.asarray(some.words)}
            total += len(everything.points)
            found += sum(row.tobytes() in words for row in np.asarray(everything.words))
    return {"starts": STARTS, "cycles": total, "found": found}


def almost_linear(toy):
    """Seconds for all fixed points of a network, after a first call."""
    size, num_relu = (8, 4) if toy else (20, 10)
    seconds, counts = [], []
    for seed in range(4):
        random = np.random.default_rng(seed)
        W = 1.5 * random.normal(size=(size, size)) / size**0.5
        cell = lejax.cells.ALRNN.from_weights(
            a=random.uniform(-0.5, 0.9, size),
            W=W,
            h=random.normal(size=size),
            num_relu=num_relu,
        )
        found, spent = timed(cell, 1)
        assert found.is_complete
        assert found.num_words == 2**num_relu
        seconds.append(spent)
        counts.append(len(found.points))
    return {
        "num_relu": num_relu,
        "regions": 2**num_relu,
        "fixed_points": counts,
        "first_call": seconds[0],
        "seconds": float(np.median(seconds[1:])),
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    clock = time.perf_counter()
    rows = [published(*row) for row in (ROWS[:3] if arguments.toy else ROWS)]
    suite = time.perf_counter() - clock
    lines = []
    for row in rows:
        leading = ", ".join(f"{x:.6f}" for x in row["leading_moduli"])
        spent = row["seconds"]
        lines.append(
            [
                " ".join(f"{name}={value}" for name, value in row["changes"].items()) or "base",
                f"({row['fixed_point'][0]:.6f}, {row['fixed_point'][1]:.6f})",
                f"{row['cycles']} of {row['period']}: {leading}",
                f"{row['largest_residual']:.1e}",
                f"{row['absent_cycles']} of {row['absent_period']}"
                + (", certified" if row["absence_is_certified"] else ", not found"),
                f"{sum(spent.values()):.2f} s",
            ]
        )
    header = ["map", "fixed point", "cycles", "residual", "absent", "time"]
    print(_harness.format_table(header, lines))
    print(f"total: {suite:.1f} s, compilation included")
    found = recall(arguments.toy)
    print(f"the search finds {found['found']} of {found['cycles']} cycles of all periods tried")
    linear = almost_linear(arguments.toy)
    print(
        f"AL-RNN, {linear['regions']} regions: {linear['seconds']:.3f} s for all fixed points, "
        f"first call {linear['first_call']:.2f} s"
    )
    _harness.write_json(
        arguments.json,
        benchmark="piecewise_orbits",
        toy=arguments.toy,
        rows=rows,
        suite_seconds=suite,
        recall=found,
        almost_linear=linear,
    )


if __name__ == "__main__":
    main()
