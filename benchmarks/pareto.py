"""Error against time of orthonormalizers and intervals: which of them are worth using.

The error is the largest difference of an exponent from a run with Householder reflections at every step. A point is on
the front if no other is both faster and more accurate. `bound` is the `rounding_error` that the run reports.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import _problems
import numpy as np
from _harness import Contender

import lejax


KINDS = {
    "Householder": lejax.Householder(),
    "Cholesky": lejax.Cholesky(),
    "Panels": lejax.Panels(),
    "default": None,
}


def study(p, intervals, rounds):
    """All pairs of an orthonormalizer and an interval on one network; `None` adapts the interval."""

    def use(kind, every):
        method = lejax.SequentialQR(every=every, orthonormalizer=KINDS[kind])
        return lejax.lyapunov_spectrum(
            p.cell, p.state, p.inputs, num_steps=p.steps, frame=p.frame, method=method, throw=False
        )

    pairs = [(kind, every) for kind in KINDS for every in intervals]
    contenders = [
        Contender(f"{kind} {every or 'auto'}", lambda k=kind, e=every: use(k, e).exponents, p.steps)
        for kind, every in pairs
    ]
    timings = _harness.time_round_robin(contenders, rounds)
    exact = next(t.result for t in timings if t.contender.name == "Householder 1")
    points = []
    for (kind, every), timing in zip(pairs, timings, strict=True):
        spectrum = use(kind, every)
        points.append(
            {
                "orthonormalizer": kind,
                "qr_interval": int(spectrum.diagnostics.longest_interval),
                "automatic": every is None,
                "seconds_per_step": timing.seconds_per_step,
                "error": float(np.max(np.abs(timing.result - exact))),
                "bound": float(np.max(spectrum.diagnostics.rounding_error)),
                "refused": bool(spectrum.result != lejax.RESULTS.successful),
            }
        )
    for point in points:
        point["on_front"] = not any(
            other["seconds_per_step"] < point["seconds_per_step"]
            and other["error"] < point["error"]
            for other in points
        )
    return {"problem": p.name, "steps": p.steps, "points": points}


def main():
    arguments = _harness.parse_arguments(__doc__)
    if arguments.toy:
        rows = [study(_problems.tanh_network(8, 8, 150), [1, 2, None], 1)]
    else:
        rows = [
            study(_problems.tanh_network(64, 64, 600), [1, 2, 3, None], 3),
            study(_problems.gru(64, 600), [1, 4, 16, 32, None], 3),
            study(_problems.lstm(64, 300), [1, 2, 3, None], 3),
            study(_problems.leaky_network(128, 600), [1, 8, 32, None], 3),
        ]
    for row in rows:
        print(row["problem"])
        table = [
            [
                point["orthonormalizer"] + (" *" if point["on_front"] else ""),
                str(point["qr_interval"]) + (" auto" if point["automatic"] else ""),
                f"{1e6 * point['seconds_per_step']:.1f}",
                f"{point['error']:.0e}",
                f"{point['bound']:.0e}",
                "refused" if point["refused"] else "",
            ]
            for point in row["points"]
        ]
        header = ["orthonormalizer", "QR interval", "us a step", "error", "bound", "status"]
        print(_harness.format_table(header, table))
    print("* on the front: no other is both faster and more accurate.")
    _harness.write_json(arguments.json, benchmark="pareto", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
