"""Value and gradient of a spectrum: time and memory of lejax, lyapax and a hand-written scan.

The loss is the mean square of the k leading exponents of a tanh network of 64 units at g = 0.9, differentiated by all
weights in float64. The network contracts, since gradients of chaotic runs agree with nothing. lyapax and the scan
orthonormalize at each step and are jitted by hand. Times are medians of paired rounds in one process. Memory is that of
the temporaries of the compiled program. All gradients must agree to six digits; otherwise the exit code is 1.
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import _problems
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _harness import Contender

import lejax


lyapax = _harness.import_peer("lyapax")


def losses(size: int, num_exponents: int, steps: int):
    """Loss functions of the weights, by name, and the weights."""
    weight = 0.9 * size**-0.5 * jr.normal(jr.key(size), (size, size))
    state = jr.normal(jr.key(1), (size,))
    frame = _problems.starting_frame(size, num_exponents)

    def use_lejax(adjoint):
        def loss(weight):
            spectrum = lejax.lyapunov_spectrum(
                lejax.cells.RNNCell.from_weights(weight_hh=weight),
                state,
                num_steps=steps,
                frame=frame,
                num_blocks=1,
                adjoint=adjoint,
                throw=False,
            )
            return jnp.mean(spectrum.exponents**2)

        return loss

    def use_lyapax(weight):
        options = {"dt": 1.0, "n_steps": steps, "k": num_exponents, "renorm_every": 1}
        found = lyapax.lyapunov_spectrum(lambda x: jnp.tanh(weight @ x), state, **options)
        return jnp.mean(found.exponents**2)

    def use_scan(weight):
        cell = lejax.cells.RNNCell.from_weights(weight_hh=weight)
        return jnp.mean(_problems.scan_jacobians(steps, cell, state, None, frame) ** 2)

    found = {
        "lejax": use_lejax(lejax.CheckpointedAdjoint()),
        "lejax direct": use_lejax(lejax.DirectAdjoint()),
        "scan jit": use_scan,
    }
    if lyapax is not None:
        found["lyapax jit"] = use_lyapax
    return found, weight


def measure(size: int, num_exponents: int, steps: int, rounds: int) -> dict:
    functions, weight = losses(size, num_exponents, steps)
    programs, memory, compile_time = {}, {}, {}
    for name, loss in functions.items():
        start = time.perf_counter()
        program = jax.jit(jax.value_and_grad(loss)).lower(weight).compile()
        compile_time[name] = time.perf_counter() - start
        programs[name], memory[name] = program, program.memory_analysis().temp_size_in_bytes
    contenders = [
        Contender(name, lambda program=program: program(weight)[1], steps)
        for name, program in programs.items()
    ]
    timings = {t.contender.name: t for t in _harness.time_round_robin(contenders, rounds)}
    ours = timings["lejax"]
    return {
        "problem": f"tanh N={size} g=.9, k={num_exponents}",
        "steps": steps,
        "contenders": {
            name: {
                "seconds_per_step": timing.seconds_per_step,
                "times": timing.times,
                "over_lejax": _harness.paired_ratio(timing, ours),
                "temporary_bytes": memory[name],
                "memory_over_lejax": memory[name] / memory["lejax"],
                "compile_time": compile_time[name],
                "disagreement": float(
                    np.max(np.abs(timing.result - ours.result)) / np.max(np.abs(ours.result))
                ),
            }
            for name, timing in timings.items()
        },
    }


def main():
    arguments = _harness.parse_arguments(__doc__, options=_harness.ONLY)
    sizes = [(8, 4, 40), (8, 8, 40)] if arguments.toy else [(64, 8, 1000), (64, 64, 1000)]
    rounds = 1 if arguments.toy else 7
    rows = []
    for size, num_exponents, steps in sizes:
        if arguments.only not in f"tanh {size}, k={num_exponents},":
            continue
        rows.append(measure(size, num_exponents, steps, rounds))
        print(f"done: {rows[-1]['problem']}", flush=True)
    table = [
        [
            row["problem"],
            name,
            f"{1e6 * found['seconds_per_step']:.1f}",
            "{median:.2f} [{quartile_1:.2f}, {quartile_3:.2f}]".format(**found["over_lejax"]),
            f"{found['temporary_bytes'] / 1e6:.2f}",
            f"{found['memory_over_lejax']:.1f}",
            f"{found['compile_time']:.1f}",
            f"{found['disagreement']:.0e}",
        ]
        for row in rows
        for name, found in row["contenders"].items()
    ]
    header = [
        "problem",
        "contender",
        "us/step",
        "over lejax",
        "MB",
        "over lejax",
        "compile s",
        "difference",
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(
        arguments.json, benchmark="gradients", toy=arguments.toy, rounds=rounds, rows=rows
    )
    wrong = [row[:2] for row in table if float(row[-1]) > 1e-6]
    if wrong:
        raise SystemExit(f"These gradients are not those of lejax: {wrong}")


if __name__ == "__main__":
    main()
