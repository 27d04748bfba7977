"""Time of the first call of lejax in a fresh process, against a hand-written scan of `jax.jacfwd` and `jnp.linalg.qr`.

Each number comes from a separate process. Imports are timed separately: those of JAX, Equinox and optax, which every
contender needs, and then those of lejax. The first call is split into tracing, lowering and compiling, as
`jax.monitoring` reports them, each without the spans nested in it, and the rest, which is Python and the run itself.
GRU and LSTM are those of Equinox, in float64. A call is what a user would write: `lyapunov_spectrum` as it is, and all
else under `eqx.filter_jit`. Processes take turns, and the table shows medians over them. "first call cpu" is processor
time, which other programs on the machine affect less.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import _clock  # first: it records when imports start
import _harness  # then: it sets what JAX and NumPy read when they start
import _problems
import _training_step
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree

import lejax


IMPORTED = time.perf_counter()
SPANS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}


class Case(NamedTuple):
    name: str
    verb: str  # a key of VERBS
    size: int
    num_exponents: int
    steps: int
    sequences: int = 1
    batch: int = 0  # sequences of a training step, of which `sequences` are penalized
    contenders: tuple[str, ...] = ("lejax", "scan")


class Spans:
    """Seconds of each kind of span, without the spans nested in it."""

    def __init__(self):
        self.seconds = dict.fromkeys(SPANS.values(), 0.0)
        self.programs = 0
        self.ended = []  # (start, seconds) of spans that may be nested in one that is still open

    def add(self, event: str, duration: float, **_) -> None:
        if event not in SPANS:
            return
        start, nested = time.perf_counter() - duration, 0.0
        while self.ended and self.ended[-1][0] >= start:
            nested += self.ended.pop()[1]
        self.ended.append((start, duration))
        self.seconds[SPANS[event]] += duration - nested
        self.programs += SPANS[event] == "compiling"


def exponents(contender: str, cell, inputs, count: int):
    state = _training_step.initial_state(cell)
    if contender == "lejax":
        return lejax.lyapunov_spectrum(cell, state, inputs, num_exponents=count).exponents
    frame = jnp.eye(ravel_pytree(state)[0].size, count)
    return _problems.scan_jacobians(len(inputs), cell, state, inputs, frame)


def penalty(contender: str, cell, inputs, count: int):
    if contender == "lejax":
        state = _training_step.initial_state(cell)
        return lejax.training.flossing_penalty(cell, state, inputs, num_exponents=count)
    return jnp.mean(exponents(contender, cell, inputs, count) ** 2)


def prepare_spectrum(case: Case, contender: str) -> Callable[[], Any]:
    cell, inputs = _gru(case)

    def run(cell, inputs):
        return exponents(contender, cell, inputs, case.num_exponents)

    verb = run if contender == "lejax" else eqx.filter_jit(run)
    return lambda: verb(cell, inputs[0])


def prepare_gradient(case: Case, contender: str) -> Callable[[], Any]:
    cell, inputs = _gru(case)

    def one(cell, inputs):
        return penalty(contender, cell, inputs, case.num_exponents)

    def of_batch(cell, inputs):
        return jnp.mean(jax.vmap(lambda inputs: one(cell, inputs))(inputs))

    loss, inputs = (one, inputs[0]) if case.sequences == 1 else (of_batch, inputs)
    verb = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    return lambda: verb(cell, inputs)


def prepare_step(case: Case, contender: str) -> Callable[[], Any]:
    def one(cell, inputs):
        return penalty(contender, cell, inputs, case.num_exponents)

    chosen = None if contender == "plain" else one
    step, arguments = _training_step.make_step(
        case.size, case.batch, case.steps, chosen, case.sequences
    )
    return lambda: step(*arguments)


VERBS = {"spectrum": prepare_spectrum, "gradient": prepare_gradient, "step": prepare_step}


def _gru(case: Case):
    cell = eqx.nn.GRUCell(8, case.size, key=jr.key(0))
    return cell, jr.normal(jr.key(1), (case.sequences, case.steps, 8))


def measure_here(case: Case, contender: str) -> dict:
    """Measure in this process, which has compiled nothing yet."""
    start = time.perf_counter()
    if contender == "lejax":
        _ = lejax.lyapunov_spectrum, lejax.training.flossing_penalty
    imported = time.perf_counter()
    call = VERBS[case.verb](case, contender)
    jax.block_until_ready(
        jax.random.normal(jr.key(1), (3,))
    )  # starts JAX, which counts for no contender
    spans = Spans()
    jax.monitoring.register_event_duration_secs_listener(spans.add)

    def timed():
        begin, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        return time.perf_counter() - begin, time.process_time() - cpu

    first, cpu = timed()
    parts = dict(spans.seconds)
    return {
        "import_jax": IMPORTED - _clock.START,
        "import_lejax": imported - start,
        "first_call": first,
        "first_call_cpu": cpu,
        **parts,
        "rest": first - sum(parts.values()),
        "programs": spans.programs,
        "second_call": timed()[0],
    }


def measure_in_fresh_process(case: Case, contender: str, toy: bool) -> dict:
    command = [sys.executable, str(Path(__file__)), "--child", f"{case.name}|{contender}"]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [*command, *(["--toy"] if toy else [])], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{case.name}, {contender}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def program_sizes(size: int, steps: int) -> dict[str, int]:
    """Number of characters of the StableHLO text of a spectrum of a GRU, with all exponents."""
    cell, inputs = _gru(Case("", "spectrum", size, size, steps))

    def characters(contender):
        run = eqx.filter_jit(lambda cell, inputs: exponents(contender, cell, inputs, size))
        return len(run.lower(cell, inputs[0]).as_text())

    return {contender: characters(contender) for contender in ("lejax", "scan")}


def cases(toy: bool) -> list[Case]:
    if toy:  # each verb and each contender once
        return [
            Case("spectrum, GRU 6, k=3", "spectrum", 6, 3, 200, contenders=("scan",)),
            Case("gradient, GRU 6, k=2, batch of 2", "gradient", 6, 2, 10, 2, 0, ("lejax",)),
            Case("training step, LSTM 6", "step", 6, 2, 10, 2, 3, ("plain",)),
        ]
    three = ("lejax", "scan", "plain")
    return [
        Case("spectrum, GRU 64, T=1000, k=64", "spectrum", 64, 64, 1000),
        Case("spectrum, GRU 64, T=1000, k=8", "spectrum", 64, 8, 1000),
        Case("gradient, GRU 64, T=50, k=8", "gradient", 64, 8, 50),
        Case("gradient, GRU 64, T=50, k=8, batch of 4", "gradient", 64, 8, 50, 4),
        Case("training step, LSTM 128, k=4 of 4", "step", 128, 4, 100, 4, 32, three),
    ]


def main():
    options = _harness.ONLY | {"child": ("CASE|CONTENDER", "measure in this process, one line")}
    arguments = _harness.parse_arguments(__doc__, options=options)
    toy = arguments.toy
    if arguments.child:
        name, contender = arguments.child.split("|")
        case = next(case for case in cases(toy) if case.name == name)
        print(json.dumps(measure_here(case, contender)))
        return
    chosen = [case for case in cases(toy) if arguments.only in case.name]
    found = {(case, name): [] for case in chosen for name in case.contenders}
    for _ in range(1 if toy else 3):
        for (case, contender), processes in found.items():
            processes.append(measure_in_fresh_process(case, contender, toy))
    rows = [
        {
            "case": case.name,
            "contender": contender,
            "median": {
                part: statistics.median(process[part] for process in processes)
                for part in processes[0]
            },
            "processes": processes,
        }
        for (case, contender), processes in found.items()
    ]
    columns = [
        "first_call",
        "first_call_cpu",
        "tracing",
        "lowering",
        "compiling",
        "rest",
        "second_call",
    ]
    columns += ["import_jax", "import_lejax"]
    table = [
        [
            f"{row['case']}: {row['contender']}",
            *(f"{row['median'][part]:.2f}" for part in columns),
            f"{row['median']['programs']:.0f}",
        ]
        for row in rows
    ]
    header = ["seconds", *(part.replace("_", " ") for part in columns), "programs"]
    print(_harness.format_table(header, table))
    sizes = program_sizes(4 if toy else 16, 200 if toy else 1000)
    print("StableHLO of a spectrum:", ", ".join(f"{n} {s / 1e3:.0f} kB" for n, s in sizes.items()))
    _harness.write_json(
        arguments.json, benchmark="first_call", toy=toy, rows=rows, stablehlo_characters=sizes
    )


if __name__ == "__main__":
    main()
