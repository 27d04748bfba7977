"""State spaces and matrix memories: exponents from their blocks against the general engine on the same recurrence.

256 numbers of memory each, driven by noise: a selective state space and a linear recurrent unit, whose exponents are sums of
logarithms, and DeltaProduct on 16 x 16, whose exponents are those of 16 x 16 matrices, each 16 times. `Memory` hides from
the engine what the cell says of its blocks, and leaves the output away, whose exponents of -inf it would have to resolve.

Sums of all exponents are equal at each step. Single ones differ by what a random frame needs to find its directions, of
the order of 1/T; of the state spaces they are exact here and not there. So a second comparison starts the general engine with the
frame the blocks use: then single exponents must agree too. Times are those after compilation, in turn.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax.random as jr
import numpy as np
from _harness import Contender

import lejax
from lejax.cells import DeltaProductCell, LRUCell, S6Cell


class Memory(eqx.Module):
    """The memory of a cell alone, as a cell that says nothing of its blocks."""

    cell: eqx.Module

    def __call__(self, input, state):
        return self.cell(input, (state, self.cell.initial_state()[1]))[0]


def problems(side: int):
    keys = jr.split(jr.key(0), 4)
    size = side**2
    selective = S6Cell(side, side, key=keys[0])
    # Steps of order 1: with those of a new network 500 steps are half a time constant.
    steps = jr.uniform(keys[3], (side,))
    yield (
        f"S6, {side} x {side}",
        eqx.tree_at(lambda c: c.bias_step, selective, steps),
        side,
    )
    yield f"LRU, {size // 2} modes", LRUCell(side, size // 2, key=keys[1]), side
    for factors in (1, 2):
        cell = DeltaProductCell(side, side, side, factors, 2.0, key=keys[2])
        yield f"DeltaProduct, {factors} factor{'s' * (factors > 1)}, {side} x {side}", cell, side


def measure(name, cell, input_size, steps, rounds):
    inputs = jr.normal(jr.key(1), (steps, input_size))
    state = cell.initial_state()
    size = state[0].size

    def of_blocks(**keywords):
        return lejax.lyapunov_spectrum(
            cell, state, inputs, num_exponents=size, throw=False, **keywords
        )

    def whole(**keywords):
        return lejax.lyapunov_spectrum(Memory(cell), state[0], inputs, throw=False, **keywords)

    contenders = [
        Contender("blocks", lambda: of_blocks().exponents, steps),
        Contender("whole", lambda: whole().exponents, steps),
    ]
    blocks, general = _harness.time_round_robin(contenders, rounds)
    every_step = {"method": lejax.SequentialQR(every=1)}
    frame = of_blocks(**every_step).frame
    one, other = of_blocks(frame=frame, **every_step), whole(frame=frame[:size], **every_step)
    is_resolved = (np.asarray(one.unresolved) == 0) & (np.asarray(other.unresolved) == 0)
    row = {
        "problem": name,
        "numbers": size,
        "steps": steps,
        "largest_exponent": float(blocks.result[0]),
        "smallest_exponent": float(blocks.result[-1]),
        "whole_over_blocks": _harness.paired_ratio(general, blocks),
        "seconds_per_step": {t.contender.name: t.seconds_per_step for t in (blocks, general)},
        "compile_seconds": {t.contender.name: t.compile_time for t in (blocks, general)},
        "difference_of_mean_exponent": float(np.abs(np.mean(blocks.result - general.result))),
        "largest_difference_from_random_frames": float(
            np.abs(blocks.result - general.result).max()
        ),
        "resolved_exponents": int(is_resolved.sum()),
        "largest_difference_from_one_frame": float(
            np.abs(one.exponents - other.exponents)[is_resolved].max()
        ),
    }
    print(f"done: {name}", flush=True)
    return row


def main():
    arguments = _harness.parse_arguments(__doc__)
    side, steps, rounds = (3, 60, 1) if arguments.toy else (16, 500, 5)
    rows = [measure(*problem, steps, rounds) for problem in problems(side)]
    header = [
        "problem",
        "blocks [us]",
        "whole [us]",
        "whole / blocks",
        "of the mean",
        "random frames",
    ]
    header += ["one frame", "resolved"]
    table = [
        [
            row["problem"],
            f"{1e6 * row['seconds_per_step']['blocks']:.1f}",
            f"{1e6 * row['seconds_per_step']['whole']:.1f}",
            f"{row['whole_over_blocks']['median']:.1f}",
            f"{row['difference_of_mean_exponent']:.0e}",
            f"{row['largest_difference_from_random_frames']:.0e}",
            f"{row['largest_difference_from_one_frame']:.0e}",
            f"{row['resolved_exponents']}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(arguments.json, benchmark="structured", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
