"""Structured tangents against the general engine on the same networks of 256 numbers: time per step, equal exponents.

Driven by noise: a selective state space and a linear recurrent unit, whose exponents are sums of logarithms;
DeltaProduct on 16 x 16, whose exponents are those of 16 x 16 matrices, each 16 times; and layers of GRUs, each with its
own frame. Without inputs: a tanh network of rank 3 with steps of 0.1 time constants. Only 3 of its directions are
followed; the exponents of the others are log(0.9) per step. The blocks of a cell are hidden from the engine. If the
output is a part of the state, it is removed, since the engine would have to resolve its exponents of -inf.

Sums of all exponents are equal at each step. Single exponents differ by what a random frame needs to find its
directions, of the order of 1/T; those of the state spaces are exact with blocks and not in the engine. Therefore, for
memories, a second comparison starts the general engine with the frame of the blocks: then single exponents must agree
too. Contenders are timed in turn, after compilation.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from _harness import Contender
from _plain_cells import MemoryOnly, WithoutBlocks

import lejax
from lejax.cells import DeltaProductCell, GRUCell, LowRankRNNCell, LRUCell, S6Cell, Stack


RANK, DT = 3, 0.1


def problems(side: int):
    """Names, cells, the size of their input or None, and whether their state is (memory, output)."""
    keys = jr.split(jr.key(0), 8)
    size = side**2
    selective = S6Cell(side, side, key=keys[0])
    # Step sizes of order 1: with those of a new network, 500 steps are half a time constant.
    selective = eqx.tree_at(lambda c: c.bias_step, selective, jr.uniform(keys[3], (side,)))
    yield f"S6, {side} x {side}", selective, side, True
    yield f"LRU, {size // 2} modes", LRUCell(side, size // 2, key=keys[1]), side, True
    for factors in (1, 2):
        cell = DeltaProductCell(side, side, side, factors, 2.0, key=keys[2])
        name = f"DeltaProduct, {factors} factor{'s' * (factors > 1)}, {side} x {side}"
        yield name, cell, side, True
    low_rank = LowRankRNNCell(0, size, RANK, dt=DT, tau=1.0, gain=3.0, key=keys[4])
    yield f"rank {RANK} of {size}", low_rank, None, False
    width = max(1, size // 4)
    stack = Stack([GRUCell(width, width, key=key) for key in keys[5:]])
    yield f"3 GRU layers of {width}", stack, width, False


def measure(name, cell, input_size, has_output, steps, rounds):
    inputs = None if input_size is None else jr.normal(jr.key(1), (steps, input_size))
    state = cell.initial_state()
    if input_size is None:
        state = jr.normal(jr.key(2), state.shape)
    hidden, hidden_state = (
        (MemoryOnly(cell), state[0]) if has_output else (WithoutBlocks(cell), state)
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(hidden_state))

    def run(cell, state, **keywords):
        return lejax.lyapunov_spectrum(
            cell,
            state,
            inputs,
            num_steps=steps,
            num_exponents=size,
            dt=1.0,
            throw=False,
            **keywords,
        )

    contenders = [
        Contender("blocks", lambda: run(cell, state).exponents, steps),
        Contender("whole", lambda: run(hidden, hidden_state).exponents, steps),
    ]
    blocks, general = _harness.time_round_robin(contenders, rounds)
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
    }
    if has_output:
        every_step = {"method": lejax.SequentialQR(every=1)}
        frame = run(cell, state, **every_step).frame
        one = run(cell, state, frame=frame, **every_step)
        other = run(hidden, hidden_state, frame=frame[:size], **every_step)
        is_resolved = (np.asarray(one.diagnostics.unresolved) == 0) & (
            np.asarray(other.diagnostics.unresolved) == 0
        )
        row["resolved_exponents"] = int(is_resolved.sum())
        differences = np.abs(one.exponents - other.exponents)[is_resolved]
        row["largest_difference_from_one_frame"] = float(differences.max())
    if isinstance(cell, LowRankRNNCell):
        known = np.log(1 - DT)
        for timing in (blocks, general):
            distances = np.sort(np.abs(timing.result - known))[: size - RANK]
            row[f"error_of_the_known_by_{timing.contender.name}"] = float(distances[-1])
    print(f"done: {name}", flush=True)
    return row


def main():
    arguments = _harness.parse_arguments(__doc__)
    side, steps, rounds = (3, 60, 1) if arguments.toy else (16, 500, 5)
    shown = list(problems(side))[:: 2 if arguments.toy else 1]
    rows = [measure(*problem, steps, rounds) for problem in shown]
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
            f"{row.get('largest_difference_from_one_frame', np.nan):.0e}",
            f"{row.get('resolved_exponents', '')}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(arguments.json, benchmark="structured", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
