"""Cost of a penalty on exponents: the time of a training step with it over that of the plain step.

An LSTM of Equinox with a readout is trained by Adam of optax on B = 32 sequences of 100 steps, in float64. The penalty
is the mean of `lejax.training.flossing_penalty` of the k leading exponents over b of the sequences, by `vmap`. A plain
step does three products with the weights for each step of each sequence, one forward and two backward. A penalized
sequence has k tangents, for which the backward pass does four. The arithmetic bound is therefore 1 + 4 k b / (3 B).
Times are medians of paired rounds in one process, without compilation.
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import _training_step
from _harness import Contender

import lejax


def compile_step(size, sequences, steps, exponents=0, penalized=0):
    """A compiled step as a contender that returns the loss, and the seconds of compilation."""

    def penalty(cell, inputs):
        state = _training_step.initial_state(cell)
        return lejax.training.flossing_penalty(cell, state, inputs, num_exponents=exponents)

    name = f"k={exponents} b={penalized}" if penalized else "plain"
    step, arguments = _training_step.make_step(
        size, sequences, steps, penalty if penalized else None, penalized
    )
    start = time.perf_counter()
    traced = step.lower(*arguments)
    lowered = time.perf_counter()
    program = traced.compile()
    seconds = {"lower": lowered - start, "compile": time.perf_counter() - lowered}
    return Contender(name, lambda: program(*arguments)[2], 1), seconds


def measure(size, exponents, penalized, plain, sequences, steps, rounds, seconds) -> dict:
    regularized, compilation = compile_step(size, sequences, steps, exponents, penalized)
    ours, theirs = _harness.time_round_robin([regularized, plain], rounds, seconds)
    bound = 1 + 4 * exponents * penalized / (3 * sequences)
    ratio = _harness.paired_ratio(ours, theirs)
    return {
        "size": size,
        "exponents": exponents,
        "penalized_sequences": penalized,
        "sequences": sequences,
        "steps": steps,
        "ratio": ratio,
        "bound": bound,
        "ratio_over_bound": ratio["median"] / bound,
        "seconds": ours.seconds_per_step,
        "plain_seconds": theirs.seconds_per_step,
        "rounds": len(ours.times),
        "compile_seconds": compilation,
    }


def main():
    arguments = _harness.parse_arguments(__doc__, options=_harness.ONLY)
    toy = arguments.toy
    if toy:
        sequences, steps, rounds, seconds = 3, 10, 1, 0.0
        wanted = [(4, 2, 2)]
    else:
        sequences, steps, rounds, seconds = 32, 100, 5, 3.0
        wanted = [(n, k, b) for n in (64, 128, 256) for k in (1, 4, 8) for b in (1, 4, 32)]
    rows, plain_of = [], {}
    plain_compilation = {}
    for size, exponents, penalized in wanted:
        name = f"LSTM {size}, k={exponents}, b={penalized},"
        if arguments.only not in name:
            continue
        if size not in plain_of:
            plain_of[size], plain_compilation[size] = compile_step(size, sequences, steps)
        plain = plain_of[size]
        row = measure(size, exponents, penalized, plain, sequences, steps, rounds, seconds)
        rows.append(row)
        print(
            f"{name} ratio {row['ratio']['median']:.2f}, bound {row['bound']:.2f}, "
            f"plain {1e3 * row['plain_seconds']:.1f} ms",
            flush=True,
        )
    header = ["LSTM", "k", "b", "plain [ms]", "ratio", "bound", "ratio / bound", "compile [s]"]
    table = [
        [
            str(row["size"]),
            str(row["exponents"]),
            str(row["penalized_sequences"]),
            f"{1e3 * row['plain_seconds']:.1f}",
            "{median:.2f} [{quartile_1:.2f}, {quartile_3:.2f}]".format(**row["ratio"]),
            f"{row['bound']:.2f}",
            f"{row['ratio_over_bound']:.2f}",
            f"{sum(row['compile_seconds'].values()):.1f}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(
        arguments.json,
        benchmark="regularized_step",
        toy=toy,
        rows=rows,
        plain_compile_seconds=plain_compilation,
    )


if __name__ == "__main__":
    main()
