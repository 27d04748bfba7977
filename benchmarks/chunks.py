"""ParallelQR against SequentialQR: the bias of the exponents against the overlap, and absolute times.

This runs on whatever device JAX finds. Chunks save time on a GPU, and little on a CPU. They are as long as their
overlap at least: a chunk of 32 steps with an overlap of 128 does five times the work of a sequential run.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import _problems
import numpy as np
from _harness import Contender

import lejax


def bias(size: int, chunks: int, length: int, overlaps: list[int]) -> list[dict]:
    """Differences from the sequential run of the same steps, of a noise-free chaotic network and a driven GRU."""
    rows = []
    steps, transient = chunks * length, max(overlaps)
    tanh, gru = _problems.tanh_network(size, size, 1), _problems.gru(size, transient + steps)
    for p in (tanh, gru):
        run = {"num_steps": steps, "transient": transient, "frame": p.frame, "throw": False}
        exact = lejax.lyapunov_spectrum(p.cell, p.state, p.inputs, **run)
        for overlap in overlaps:
            method = lejax.ParallelQR(chunks, overlap)
            ours = lejax.lyapunov_spectrum(p.cell, p.state, p.inputs, method=method, **run)
            difference = np.abs(np.asarray(ours.exponents - exact.exponents))
            error = np.asarray(ours.standard_error)
            rows.append(
                {
                    "problem": p.name,
                    "overlap": overlap,
                    "largest_difference": np.max(difference),
                    "median_difference": np.median(difference),
                    "median_in_standard_errors": np.median(difference / error),
                    "largest_in_standard_errors": np.max(difference / error),
                    "largest_difference_of_sums": np.max(
                        np.abs(np.cumsum(np.asarray(ours.exponents - exact.exponents)))
                    ),
                    "median_estimate": np.median(ours.diagnostics.overlap_bias),
                    "root_mean_square_estimate_in_errors": float(
                        np.sqrt(
                            np.sum(np.asarray(ours.diagnostics.overlap_bias) ** 2)
                            / np.sum(error**2)
                        )
                    ),
                    "result": lejax.RESULTS[ours.result],
                }
            )
    return rows


def times(size: int, steps: int, chunk_counts: list[int], rounds: int) -> dict:
    p = _problems.tanh_network(size, size, steps)
    overlap = 128
    methods = {"sequential": lejax.SequentialQR()}
    methods |= {f"{c} chunks": lejax.ParallelQR(c, overlap) for c in chunk_counts}

    def use(method):
        return lejax.lyapunov_spectrum(
            p.cell,
            p.state,
            num_steps=steps,
            transient=overlap,
            frame=p.frame,
            method=method,
            throw=False,
        ).exponents

    contenders = [Contender(name, lambda m=m: use(m), steps) for name, m in methods.items()]
    first, *_ = timings = _harness.time_round_robin(contenders, rounds)
    # Of all chunks together, with their overlaps.
    work = {"sequential": steps + overlap} | {
        f"{c} chunks": steps + c * overlap for c in chunk_counts
    }
    return {
        "problem": p.name,
        "steps": steps,
        "overlap": overlap,
        "contenders": {
            t.contender.name: {
                "seconds_per_step": t.seconds_per_step,
                "seconds_per_step_with_overlaps": t.seconds_per_step
                * steps
                / work[t.contender.name],
                "sequential_over_this": _harness.paired_ratio(first, t),
                "exponents": t.result[:3],
            }
            for t in timings
        },
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    toy = arguments.toy
    if toy:
        study = bias(4, 4, 40, [5, 20])
        speeds = [times(4, 400, [4], 1)]
    else:
        study = bias(32, 20, 400, [1, 20, 80, 160, 320])
        speeds = [
            times(64, 32_768, [16, 64, 256], 3),
            times(256, 8_192, [16, 64], 3),
            times(512, 8_192, [16, 64], 1),
        ]
    header = [
        "problem",
        "overlap",
        "largest",
        "median / error",
        "largest / error",
        "sums",
        "estimate",
    ]
    cells = [
        [
            row["problem"],
            str(row["overlap"]),
            f"{row['largest_difference']:.1e}",
            f"{row['median_in_standard_errors']:.2f}",
            f"{row['largest_in_standard_errors']:.2f}",
            f"{row['largest_difference_of_sums']:.1e}",
            f"{row['root_mean_square_estimate_in_errors']:.2f}",
        ]
        for row in study
    ]
    print(
        "Difference of ParallelQR from SequentialQR; the estimate is root mean square, in errors."
    )
    print(_harness.format_table(header, cells))
    for row in speeds:
        for name, c in row["contenders"].items():
            ratio = c["sequential_over_this"]["median"]
            print(
                f"{row['problem']}, {name}: {1e6 * c['seconds_per_step']:.1f} us a step, {ratio:.2f}"
            )
    _harness.write_json(arguments.json, benchmark="chunks", toy=toy, bias=study, times=speeds)


if __name__ == "__main__":
    main()
