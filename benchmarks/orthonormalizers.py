"""Time and accuracy of the orthonormalizers: all exponents of a tanh network, orthonormalized at every step.

All contenders of a row share state, frame and steps. The error is the largest difference of an exponent from
the same run with Householder. Time ratios are Householder's time over the contender's.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import _problems
import numpy as np
from _harness import Contender

import lejax


KINDS = {
    "Householder": lejax.Householder(),
    "Cholesky": lejax.Cholesky(),
    "Panels 16": lejax.Panels(width=16),
    "Panels 32": lejax.Panels(width=32),
    "Panels 64": lejax.Panels(width=64),
}


def measure(size: int, steps: int, rounds: int) -> dict:
    """One row: a network of `size` units."""
    problem = _problems.tanh_network(size, size, steps)

    def use(kind):
        return lejax.lyapunov_spectrum(
            problem.cell,
            problem.state,
            num_steps=steps,
            frame=problem.frame,
            method=lejax.SequentialQR(orthonormalizer=kind),
        ).exponents

    contenders = [Contender(name, lambda k=kind: use(k), steps) for name, kind in KINDS.items()]
    exact, *_ = timings = _harness.time_round_robin(contenders, rounds)
    return {
        "problem": problem.name,
        "steps": steps,
        "contenders": {
            timing.contender.name: {
                "seconds_per_step": timing.seconds_per_step,
                "householder_over_this": _harness.paired_ratio(exact, timing),
                "error": np.max(np.abs(timing.result - exact.result)),
            }
            for timing in timings
        },
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    sizes = (
        [(8, 50)] if arguments.toy else [(32, 1000), (48, 600), (64, 400), (128, 150), (256, 60)]
    )
    rounds = 1 if arguments.toy else 7
    rows = [measure(size, steps, rounds) for size, steps in sizes]
    cells = [
        [
            row["problem"],
            *(
                f"{c['householder_over_this']['median']:.2f} ({c['error']:.0e})"
                for c in row["contenders"].values()
            ),
        ]
        for row in rows
    ]
    print(
        "Householder's time over that of each contender, and in brackets the largest error of an exponent."
    )
    print(_harness.format_table(["problem", *KINDS], cells))
    _harness.write_json(
        arguments.json, benchmark="orthonormalizers", toy=arguments.toy, rounds=rounds, rows=rows
    )


if __name__ == "__main__":
    main()
