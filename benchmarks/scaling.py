"""Growth of time and memory with the number of steps T, the size d of the state and the number k of exponents.

The network is h' = tanh(J h), g = 2. `memory` is that of the compiled program beyond its arguments and results.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import _problems
import equinox as eqx
import jax
import numpy as np
from _harness import Contender

import lejax


def row(size: int, num_exponents: int, steps: int, every: int | None, rounds: int) -> dict:
    p = _problems.tanh_network(size, num_exponents, steps)
    arrays, static = eqx.partition(p.cell, eqx.is_array)

    @jax.jit
    def run(arrays, state, frame):
        return lejax.lyapunov_spectrum(
            eqx.combine(arrays, static),
            state,
            num_steps=steps,
            frame=frame,
            method=lejax.SequentialQR(every=every),
        ).exponents

    compiled = run.lower(arrays, p.state, p.frame).compile()
    contender = Contender(p.name, lambda: compiled(arrays, p.state, p.frame), steps)
    (timing,) = _harness.time_round_robin([contender], rounds)
    return {
        "d": size,
        "k": num_exponents,
        "T": steps,
        "qr_interval": every,
        "seconds": timing.seconds_per_step * steps,
        "microseconds_per_step": 1e6 * timing.seconds_per_step,
        "memory_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def slope(rows: list[dict], of: str, against: str) -> float:
    """The exponent b of a power law fitted to the rows."""
    x, y = (np.log([row[name] for row in rows]) for name in (against, of))
    return float(np.polyfit(x, y, 1)[0])


def main():
    arguments = _harness.parse_arguments(__doc__)
    if arguments.toy:
        in_steps = [row(4, 4, steps, 1, 1) for steps in (200, 400)]
        in_size = [row(size, size, 50, 1, 1) for size in (4, 8)]
        in_columns = [row(8, columns, 50, 1, 1) for columns in (2, 8)]
    else:
        in_steps = [row(16, 16, 10**power, 1, 3) for power in (3, 4, 5, 6)]
        steps = {64: 400, 128: 200, 256: 60, 512: 20, 1024: 6}
        in_size = [row(size, size, count, 1, 3) for size, count in steps.items()]
        in_columns = [row(512, columns, 60, 1, 3) for columns in (8, 32, 128, 512)]
    fits = {
        "seconds ~ T^b": slope(in_steps, "seconds", "T"),
        "memory ~ T^b": slope(in_steps, "memory_bytes", "T"),
        "seconds per step ~ d^b, k = d": slope(in_size, "microseconds_per_step", "d"),
        "memory ~ d^b, k = d": slope(in_size, "memory_bytes", "d"),
        "seconds per step ~ k^b, d fixed": slope(in_columns, "microseconds_per_step", "k"),
    }
    rows = in_steps + in_size + in_columns
    header = ["d", "k", "T", "us a step", "seconds", "memory [kB]"]
    table = [
        [
            str(r["d"]),
            str(r["k"]),
            str(r["T"]),
            f"{r['microseconds_per_step']:.1f}",
            f"{r['seconds']:.3f}",
            f"{r['memory_bytes'] / 1e3:.0f}",
        ]
        for r in rows
    ]
    print(_harness.format_table(header, table))
    for name, value in fits.items():
        print(f"{name}: b = {value:.2f}")
    _harness.write_json(
        arguments.json, benchmark="scaling", toy=arguments.toy, rows=rows, fits=fits
    )


if __name__ == "__main__":
    main()
