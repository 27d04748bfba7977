"""Blocks that a cell does not declare: layers written as one module, against `Stack` and against one dense block.

Two layers of LSTM are driven by noise: as a `Stack`; as one plain module with an array for each part of the state; as
one module with the states of both layers in one array, which is separated by its entries; and as one dense block. The
exponents of all but the last are those of the layers and must agree within errors. In a frame of the full state,
rounding carries directions between layers.

Two further measurements: two numbers of which one drives the other, whose exponents are the means of the logarithms for
every seed; and the cost of searching for blocks where there are none, in a plain GRU.
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _harness import Contender

import lejax
from lejax import DeclaredBlocks, FoundBlocks, SequentialQR


class Layers(eqx.Module):
    """Two layers of LSTM in one module."""

    first: eqx.nn.LSTMCell
    second: eqx.nn.LSTMCell

    def __call__(self, input, state):
        first = self.first(input, state[0])
        return first, self.second(first[0], state[1])


class OneArray(eqx.Module):
    """Two layers of LSTM in one module, with h and c of both layers in one array (2, 2, n)."""

    first: eqx.nn.LSTMCell
    second: eqx.nn.LSTMCell

    def __call__(self, input, state):
        first = self.first(input, (state[0, 0], state[0, 1]))
        second = self.second(first[0], (state[1, 0], state[1, 1]))
        return jnp.stack([jnp.stack(first), jnp.stack(second)])


class Pair(eqx.Module):
    """x' = exp(a) x, y' = exp(b) y + x."""

    def __call__(self, input, state):
        x, y = state
        return jnp.stack([jnp.exp(input[0]) * x, jnp.exp(input[1]) * y + x])


def measure_layers(units, steps, rounds):
    keys = jr.split(jr.key(0), 3)
    layers = eqx.nn.LSTMCell(4, units, key=keys[0]), eqx.nn.LSTMCell(units, units, key=keys[1])
    inputs = jr.normal(keys[2], (steps, 4))
    zeros = jnp.zeros(units)
    parts = ((zeros, zeros), (zeros, zeros))
    cases = {
        "Stack": (lejax.cells.Stack(layers), parts, FoundBlocks()),
        "one module": (Layers(*layers), parts, FoundBlocks()),
        "one array": (OneArray(*layers), jnp.zeros((2, 2, units)), FoundBlocks()),
        "one dense block": (Layers(*layers), parts, DeclaredBlocks()),
    }

    def run(cell, state, blocks):
        return lejax.lyapunov_spectrum(
            cell,
            state,
            inputs,
            transient=min(100, steps // 2),
            method=SequentialQR(blocks=blocks),
            throw=False,
        )

    contenders = [
        Contender(name, lambda case=case: run(*case).exponents, steps)
        for name, case in cases.items()
    ]
    timings = _harness.time_round_robin(contenders, rounds)
    exact = run(*cases["Stack"])
    rows = []
    for timing in timings:
        difference = np.abs(timing.result - exact.exponents)
        rows.append(
            {
                "cell": timing.contender.name,
                "seconds_per_step": timing.seconds_per_step,
                "compile_seconds": timing.compile_time,
                "over_stack": _harness.paired_ratio(timing, timings[0]),
                "largest_difference": float(difference.max()),
                "in_standard_errors": float((difference / exact.standard_error).max()),
            }
        )
    return rows


def measure_pair(seed, steps):
    rates = jr.normal(jr.key(seed), (steps, 2)) - jnp.array([0.0, 0.02])
    exact = np.sort(np.mean(rates, axis=0))[::-1]
    row = {"seed": seed, "exact": exact.tolist()}
    for name, blocks in {"found": FoundBlocks(), "dense": DeclaredBlocks()}.items():
        run = lejax.lyapunov_spectrum(
            Pair(), jnp.zeros(2), rates, method=SequentialQR(blocks=blocks), throw=False
        )
        row[name] = {
            "exponents": run.exponents.tolist(),
            "error": float(np.abs(run.exponents - exact).max()),
            "qr_interval": int(run.diagnostics.longest_interval),
            "successful": bool(run.result == lejax.RESULTS.successful),
        }
    return row


def measure_search(units):
    """Milliseconds to search for blocks, and seconds of a first call with and without the search."""
    cell, state, inputs = (
        eqx.nn.GRUCell(4, units, key=jr.key(0)),
        jnp.zeros(units),
        jnp.ones((20, 4)),
    )

    def first_call(blocks):
        jax.clear_caches()
        start = time.perf_counter()
        jax.block_until_ready(
            lejax.lyapunov_spectrum(
                cell, state, inputs, method=SequentialQR(blocks=blocks), throw=False
            )
        )
        return time.perf_counter() - start

    first_call(FoundBlocks())
    start = time.perf_counter()
    FoundBlocks().are_many(cell, state, inputs[0])
    search = time.perf_counter() - start
    return {
        "units": units,
        "search_milliseconds": 1e3 * search,
        "first_call_with": first_call(FoundBlocks()),
        "first_call_without": first_call(DeclaredBlocks()),
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    units, steps, rounds = (2, 100, 1) if arguments.toy else (16, 100_000, 3)
    layers = measure_layers(units, steps, rounds)
    header = ["cell", "us a step", "compile [s]", "largest difference", "standard errors"]
    table = [
        [
            row["cell"],
            f"{1e6 * row['seconds_per_step']:.1f}",
            f"{row['compile_seconds']:.1f}",
            f"{row['largest_difference']:.1e}",
            f"{row['in_standard_errors']:.2f}",
        ]
        for row in layers
    ]
    print(_harness.format_table(header, table), flush=True)
    pairs = [
        measure_pair(seed, steps if arguments.toy else 200_000)
        for seed in range(1 if arguments.toy else 9)
    ]
    for name in ("found", "dense"):
        print(
            f"Pair, {name}: largest error {max(row[name]['error'] for row in pairs):.1e}",
            flush=True,
        )
    search = measure_search(units if arguments.toy else 64)
    print(search)
    _harness.write_json(
        arguments.json,
        benchmark="found_blocks",
        toy=arguments.toy,
        layers=layers,
        pairs=pairs,
        search=search,
    )


if __name__ == "__main__":
    main()
