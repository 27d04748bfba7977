"""Structured tangents against the general engine on the same networks: time per step and the same exponents.

`Whole` hides from the engine what a cell says of its blocks.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _block_cells import Gate, LowRank, Whole
from _harness import Contender

import lejax
from lejax.cells import GRUCell, Stack


def problems(size: int, rank: int, layers: int):
    keys = jr.split(jr.key(0), layers + 3)
    yield f"diagonal, d={size}", Gate(2 * jr.normal(keys[0], (size,))), jnp.ones(size), size
    left = jr.normal(keys[1], (size, rank))
    right = (3 * left + jr.normal(keys[2], (size, rank))) / size
    yield f"low rank R={rank}, d={size}", LowRank(left, right, leak=0.1), left[:, 0], None
    width = size // 4
    stack = Stack([GRUCell(width, width, key=key) for key in keys[3:]])
    yield f"{layers} GRU layers, H={width}", stack, stack.initial_state(), width


def measure(name, cell, state, input_size, steps, rounds):
    inputs = None if input_size is None else jr.normal(jr.key(1), (steps + 50, input_size))

    def use(cell):
        return lejax.lyapunov_spectrum(
            cell, state, inputs, num_steps=steps, transient=50, throw=False
        ).exponents

    contenders = [
        Contender("blocks", lambda: use(cell), steps),
        Contender("whole", lambda: use(Whole(cell)), steps),
    ]
    blocks, whole = _harness.time_round_robin(contenders, rounds)
    finite = np.isfinite(blocks.result) & np.isfinite(whole.result)
    return {
        "problem": name,
        "steps": steps,
        "whole_over_blocks": _harness.paired_ratio(whole, blocks),
        "seconds_per_step": {t.contender.name: t.seconds_per_step for t in (blocks, whole)},
        "difference_of_sums": float(np.abs(np.sum((blocks.result - whole.result)[finite]))),
        "largest_difference": float(np.max(np.abs(blocks.result - whole.result)[finite])),
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    size, rank, layers, steps, rounds = (8, 2, 2, 60, 1) if arguments.toy else (256, 4, 3, 300, 3)
    rows = [measure(*problem, steps, rounds) for problem in problems(size, rank, layers)]
    header = ["problem", "blocks [us]", "whole [us]", "whole / blocks", "difference", "of sums"]
    table = [
        [
            row["problem"],
            f"{1e6 * row['seconds_per_step']['blocks']:.1f}",
            f"{1e6 * row['seconds_per_step']['whole']:.1f}",
            f"{row['whole_over_blocks']['median']:.1f}",
            f"{row['largest_difference']:.0e}",
            f"{row['difference_of_sums']:.0e}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(arguments.json, benchmark="blocks", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
