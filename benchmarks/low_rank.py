"""All exponents of tanh networks of rank 3: the structured tangent against the general engine, times and values.

`LowRankRNNCell` follows R directions and knows the other N - R; `Whole` hides that from the engine. The N - R are
log(1 - dt/tau) / dt: reported is how far each way is from that, and how far the two ways are from each other in the
R that move, in the sum of all, and in all.

python benchmarks/low_rank.py [--toy] [--json FILE]
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import jax.random as jr
import numpy as np
from _block_cells import Whole
from _harness import Contender

import lejax
from lejax.cells import LowRankRNNCell


RANK, DT, TAU = 3, 0.1, 1.0


def measure(size, steps, transient, rounds):
    cell = LowRankRNNCell(0, size, RANK, dt=DT, tau=TAU, gain=3.0, key=jr.key(0))
    state = jr.normal(jr.key(1), (size,))

    def use(cell):
        return lejax.lyapunov_spectrum(
            cell, state, num_steps=steps, transient=transient, dt=DT, throw=False
        ).exponents

    total = steps + transient
    contenders = [
        Contender("structured", lambda: use(cell), total),
        Contender("general", lambda: use(Whole(cell)), total),
    ]
    structured, general = _harness.time_round_robin(contenders, rounds)
    known = np.log(1 - DT / TAU) / DT
    errors, moving = {}, {}
    for timing in (structured, general):
        distance = np.abs(timing.result - known)
        order = np.argsort(distance)
        errors[timing.contender.name] = float(distance[order[size - RANK - 1]])
        moving[timing.contender.name] = np.sort(timing.result[order[size - RANK :]])[::-1]
    return {
        "size": size,
        "rank": RANK,
        "steps": steps,
        "transient": transient,
        "known_exponent": float(known),
        "largest_error_of_the_known": errors,
        "moving_exponents": moving,
        "difference_of_the_moving": float(np.abs(moving["structured"] - moving["general"]).max()),
        "difference_of_sums": float(np.abs(np.sum(structured.result) - np.sum(general.result))),
        "largest_difference": float(np.abs(structured.result - general.result).max()),
        "seconds_per_step": {t.contender.name: t.seconds_per_step for t in (structured, general)},
        "general_over_structured": _harness.paired_ratio(general, structured),
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    jobs = [(8, 60, 20, 1)] if arguments.toy else [(64, 2000, 500, 5), (256, 2000, 500, 5)]
    rows = [measure(*job) for job in jobs]
    header = ["N", "structured [us]", "general [us]", "ratio", "error of known", "general's"]
    header += ["moving", "sum", "all"]
    table = [
        [
            f"{row['size']}",
            f"{1e6 * row['seconds_per_step']['structured']:.1f}",
            f"{1e6 * row['seconds_per_step']['general']:.1f}",
            f"{row['general_over_structured']['median']:.1f}",
            f"{row['largest_error_of_the_known']['structured']:.0e}",
            f"{row['largest_error_of_the_known']['general']:.0e}",
            f"{row['difference_of_the_moving']:.0e}",
            f"{row['difference_of_sums']:.0e}",
            f"{row['largest_difference']:.0e}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(arguments.json, benchmark="low_rank", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
