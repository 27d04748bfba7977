"""Cost of `lejax.training.monitor`: its time over that of plain steps, and over that of a training step.

A GRU and an LSTM of Equinox run on 300 held-out steps, in float64. A plain step is one step of one sequence by
`lejax.unroll` over the same inputs, the training step is that of `_training_step.py` (an LSTM on 32 sequences of 100
steps). Times are medians of paired rounds in one process, without compilation.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import _training_step
import equinox as eqx
import jax
import jax.random as jr
from _harness import Contender

import lejax


def contender(name, function, *arguments):
    """A compiled function as a contender that returns an array."""
    compiled = eqx.filter_jit(function).lower(*arguments).compile()
    return Contender(name, lambda: compiled(*arguments), 1)


def measure(kind, size, exponents, num_steps, rounds, seconds) -> dict:
    cell = kind(_training_step.NUM_INPUTS, size, key=jr.key(0))
    state = _training_step.initial_state(cell)
    inputs = jr.normal(jr.key(1), (num_steps, _training_step.NUM_INPUTS))

    def seen(cell, state, inputs):
        return lejax.training.monitor(cell, state, inputs, num_exponents=exponents).exponents

    def plain(cell, state, inputs):
        return jax.tree.leaves(lejax.unroll(cell, state, inputs))[0]

    step, arguments = _training_step.make_step(size, 32, 100, None)
    program = step.lower(*arguments).compile()
    contenders = [
        contender("monitor", seen, cell, state, inputs),
        contender("plain", plain, cell, state, inputs),
        Contender("training", lambda: program(*arguments)[2], 1),
    ]
    ours, theirs, training = _harness.time_round_robin(contenders, rounds, seconds)
    return {
        "cell": kind.__name__,
        "size": size,
        "exponents": exponents,
        "steps": num_steps,
        "over_plain_steps": _harness.paired_ratio(ours, theirs),
        "over_training_step": _harness.paired_ratio(ours, training),
        "seconds": ours.seconds_per_step,
        "rounds": len(ours.times),
    }


def main():
    arguments = _harness.parse_arguments(__doc__, options=_harness.ONLY)
    toy = arguments.toy
    num_steps, rounds, seconds = (20, 1, 0.0) if toy else (300, 5, 3.0)
    kinds = (eqx.nn.GRUCell, eqx.nn.LSTMCell)
    wanted = (
        [(eqx.nn.GRUCell, 4, 2)]
        if toy
        else [(c, n, k) for c in kinds for n in (64, 256) for k in (1, 8)]
    )
    rows = []
    for kind, size, exponents in wanted:
        name = f"{kind.__name__} {size}, k={exponents}"
        if arguments.only not in name:
            continue
        row = measure(kind, size, exponents, num_steps, rounds, seconds)
        rows.append(row)
        print(
            f"{name}: {row['over_plain_steps']['median']:.1f} plain runs, "
            f"{row['over_training_step']['median']:.2f} training steps",
            flush=True,
        )
    _harness.write_json(arguments.json, benchmark="monitor", toy=toy, rows=rows)


if __name__ == "__main__":
    main()
