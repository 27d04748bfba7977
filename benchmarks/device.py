"""Measure an accelerator in eight minutes at most: spectra of many networks, of large ones, and gradients.

(a) throughput of batches of networks, compared with the host; (b) one network, sequentially and in chunks; (c) value
and gradient of a flossing penalty; (d) many Lorenz systems; (e) compile times; (f) agreement of the exponents with
those of the host. Each part has a time limit, measures as it goes and skips what would not fit. If a part fails, it
is reported and the next one begins. Each row is printed and written to the JSON file at once, so that a run that is
cut short yields numbers too. The host computes its part last, in a separate process with JAX_PLATFORMS=cpu, where it
does not compete for cores with the device's measurements. All its cores share a batch, each as a device of its own.

Three numbers are wanted of a device: whole spectra of 10 000 networks of 64 units at 20 times the network-steps a
second of the host (a), one network of 256 units in 72 us a step (b), and gradients of penalties of an LSTM of 256 units
at 10 times the sequences a second of the host (c).
"""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import lejax


SECONDS = {"a": 120, "b": 110, "c": 40, "d": 20, "e": 40, "f": 40, "host": 110}
TOY_SECONDS = {"a": 6, "b": 9, "c": 10, "d": 4, "e": 12, "f": 8, "host": 20}
REPEAT = 0.6  # seconds for all repetitions of a call
ARRAYS = (
    12  # number of arrays of the size of all frames that a run may hold at a time, a safe guess
)
EVERY_STEP = lejax.SequentialQR(every=1)

Row = dict[str, Any]


class Clock:
    """The time limit of one part, under which a program is assumed to compile as slowly as the slowest so far."""

    def __init__(self, seconds: float):
        self.end = time.perf_counter() + seconds
        self.compile_seconds = 0.0

    @property
    def left(self) -> float:
        return self.end - time.perf_counter()

    def allows(self, seconds: float = 0.0) -> bool:
        """Whether one more program that runs for so many seconds fits."""
        return self.compile_seconds + seconds < self.left


def dtypes() -> list[Any]:
    """The dtypes of the device; not every device has float64."""
    return [np.float32, np.float64] if jax.default_backend() in ("cpu", "gpu") else [np.float32]


def free_bytes() -> float:
    """The number of bytes available for arrays."""
    stats = jax.devices()[0].memory_stats() or {}
    return 0.8 * stats.get("bytes_limit", 4 * 2**30)


def attempt(call: Callable[[], Any], clock: Clock) -> Row:
    """The result of `measure`, or the error it raised: the next row may fit into memory."""
    try:
        return measure(call, clock)
    except Exception as error:
        return {"failed": describe(error)}


def describe(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300)


def measure(call: Callable[[], Any], clock: Clock) -> Row:
    """Seconds of a compiled call, the median of at least one and up to 20 within `REPEAT`, and of the first call,
    which compiles. Each call waits for its result."""

    def once():
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    first, times = once(), [once()]
    while len(times) < 20 and sum(times) < REPEAT and times[0] < clock.left:
        times.append(once())
    seconds = float(np.median(times))
    clock.compile_seconds = max(clock.compile_seconds, first - seconds)
    return {
        "seconds": seconds,
        "fastest": min(times),
        "calls": len(times),
        "first_call": first,
        "compile_seconds": max(0.0, first - seconds),
    }


def networks(count: int, size: int, dtype) -> tuple[Callable, jax.Array, jax.Array]:
    """Chaotic tanh networks without inputs: a function from a weight matrix to a cell, all matrices and starts."""
    key_weights, key_starts = jr.split(jr.key(size))
    weights = 2.0 * size**-0.5 * jr.normal(key_weights, (count, size, size), dtype)
    make = lambda weight: lejax.cells.RNNCell.from_weights(weight_hh=weight)
    return make, weights, jr.normal(key_starts, (count, size), dtype)


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_array(x) else x, tree)


def share(function: Callable, count: int) -> Callable:
    """The same function of a batch of so many members, divided between all devices if they divide it."""
    devices = len(jax.devices())
    if devices == 1 or count % devices:
        return function
    mesh, members = Mesh(np.array(jax.devices()), ("member",)), PartitionSpec("member")
    return jax.shard_map(function, mesh=mesh, in_specs=members, out_specs=members)


def throughput(sizes: list[int], counts: list[int], clock: Clock) -> Iterator[Row]:
    """(a) Batches of growing size, each only if ten times the time of the last still fits."""
    for dtype in dtypes():
        for size in sizes:
            per_network = 0.0
            for count in counts:
                row = {"size": size, "networks": count, "dtype": np.dtype(dtype).name}
                needed = ARRAYS * count * size**2 * np.dtype(dtype).itemsize
                steps = 64 if count * size**3 < 1e10 else 16
                # A larger batch is faster for each network, so the time of the last one is an upper bound.
                if needed > free_bytes() or not clock.allows(3 * per_network * count * steps):
                    yield row | {"left_out": "memory" if needed > free_bytes() else "time"}
                    continue
                make, *arrays = networks(count, size, dtype)

                def spectrum(weight, start, make=make, steps=steps):
                    return lejax.lyapunov_spectrum(
                        make(weight), start, num_steps=steps, method=EVERY_STEP, throw=False
                    ).exponents

                verb = jax.jit(share(jax.vmap(spectrum), count))
                timing = attempt(lambda f=verb, x=arrays: f(*x), clock)
                if "failed" in timing:
                    yield row | timing
                    continue
                per_network = timing["seconds"] / (count * steps)
                yield row | {"steps": steps, "network_steps_a_second": 1 / per_network} | timing


def single(cases: list[tuple[int, int]], chunk_counts: list[int], clock: Clock) -> Iterator[Row]:
    """(b) All exponents of one network."""
    overlap = 64
    methods = {
        "every step": EVERY_STEP,
        "every ten": lejax.SequentialQR(every=10),
        "automatic": lejax.SequentialQR(),
    }
    methods |= {f"{count} chunks": lejax.ParallelQR(count, overlap) for count in chunk_counts}
    for size, steps in cases:
        for dtype in dtypes():
            expected = 0.0
            for name, method in methods.items():
                row = {"size": size, "steps": steps, "dtype": np.dtype(dtype).name, "method": name}
                if not clock.allows(3 * expected):
                    yield row | {"left_out": "time"}
                    continue
                make, weights, starts = networks(1, size, dtype)

                def run(cell=make(weights[0]), start=starts[0], method=method, steps=steps):
                    return lejax.lyapunov_spectrum(
                        cell, start, num_steps=steps, transient=overlap, method=method, throw=False
                    )

                timing = attempt(run, clock)
                if "failed" in timing:
                    yield row | timing
                    continue
                spectrum, expected = run(), timing["seconds"]
                yield row | {
                    "microseconds_a_step": 1e6 * expected / (steps + overlap),
                    "qr_interval": spectrum.diagnostics.longest_interval,
                    "first_exponents": spectrum.exponents[:3],
                    **timing,
                }


def penalty(sizes: list[int], count: int, steps: int, k: int, clock: Clock) -> Iterator[Row]:
    """(c) A training loss, the mean penalty of a batch of sequences."""
    for size in sizes:
        for dtype in dtypes():
            if not clock.allows():
                yield {"size": size, "dtype": np.dtype(dtype).name, "left_out": "time"}
                continue
            cell = cast(lejax.cells.LSTMCell(8, size, key=jr.key(0)), dtype)
            weights, rest = eqx.partition(cell, eqx.is_array)
            inputs = jr.normal(jr.key(1), (count, steps, 8), dtype)

            def loss(weights, inputs, rest=rest):
                cell = eqx.combine(weights, rest)

                def one(inputs):
                    return lejax.training.flossing_penalty(
                        cell, cell.initial_state(), inputs, num_exponents=k
                    )

                return jnp.mean(jax.vmap(one)(inputs))

            for name, verb in (("value", loss), ("gradient", jax.value_and_grad(loss))):

                def of_share(inputs, verb=verb, weights=weights):
                    return jax.tree.map(lambda x: x[None], verb(weights, inputs))

                shared = jax.jit(share(of_share, count))
                timing = attempt(lambda f=shared, u=inputs: f(u), clock)
                row = {
                    "verb": name,
                    "size": size,
                    "sequences": count,
                    "steps": steps,
                    "exponents": k,
                    "dtype": np.dtype(dtype).name,
                }
                if "failed" not in timing:
                    timing["sequences_a_second"] = count / timing["seconds"]
                yield row | timing


def lorenz(count: int, steps: int, clock: Clock) -> Iterator[Row]:
    """(d) Many starts of one system."""
    for dtype in dtypes():
        if not clock.allows():
            yield {"dtype": np.dtype(dtype).name, "left_out": "time"}
            continue
        flow = cast(lejax.systems.Flow(lejax.systems.Lorenz63(), 0.01), dtype)
        starts = jnp.ones(3, dtype) + jr.normal(jr.key(0), (count, 3), dtype)

        def spectrum(start, flow=flow):
            return lejax.lyapunov_spectrum(
                flow, start, num_steps=steps, transient=steps // 4, method=EVERY_STEP, throw=False
            ).exponents

        spectra = jax.jit(jax.vmap(spectrum))
        timing = measure(lambda f=spectra, s=starts: f(s), clock)
        exponents = np.asarray(spectra(starts), np.float64)
        yield {
            "systems": count,
            "steps": steps,
            "dtype": np.dtype(dtype).name,
            "system_steps_a_second": count * (steps + steps // 4) / timing["seconds"],
            "mean_exponents": exponents.mean(axis=0),
            "standard_error": exponents.std(axis=0) / np.sqrt(count),
            **timing,
        }


def compile_times(size: int, count: int, clock: Clock) -> Iterator[Row]:
    """(e) Seconds of tracing, lowering and compiling."""
    cell = cast(lejax.cells.GRUCell(8, size, key=jr.key(0)), np.float32)
    weights, rest = eqx.partition(cell, eqx.is_array)
    inputs = jr.normal(jr.key(1), (count, 256, 8), np.float32)

    def spectrum(method):
        def run(weights, inputs):
            cell = eqx.combine(weights, rest)
            return lejax.lyapunov_spectrum(
                cell, cell.initial_state(), inputs, method=method, throw=False
            ).exponents

        return run

    def loss(weights, inputs):
        cell = eqx.combine(weights, rest)
        return lejax.training.flossing_penalty(cell, cell.initial_state(), inputs, num_exponents=4)

    def of_batch(function):
        return lambda weights, inputs: jnp.mean(jax.vmap(lambda u: function(weights, u))(inputs))

    programs = {
        "spectrum, every step": (spectrum(EVERY_STEP), inputs[0]),
        "spectrum, automatic": (spectrum(lejax.SequentialQR()), inputs[0]),
        "spectra of a batch": (jax.vmap(spectrum(EVERY_STEP), in_axes=(None, 0)), inputs),
        "penalty": (loss, inputs[0]),
        "gradient of a penalty": (jax.grad(loss), inputs[0]),
        "gradient of a batch": (jax.grad(of_batch(loss)), inputs),
    }
    for name, (function, driven) in programs.items():
        if not clock.allows():
            yield {"program": name, "left_out": "time"}
            continue
        start = time.perf_counter()
        lowered = jax.jit(function).lower(weights, driven)
        traced = time.perf_counter()
        lowered.compile()
        done = time.perf_counter()
        clock.compile_seconds = max(clock.compile_seconds, done - start)
        yield {
            "program": name,
            "size": size,
            "lower_seconds": traced - start,
            "compile_seconds": done - traced,
        }


def exponents(size: int, steps: int, clock: Clock) -> Iterator[Row]:
    """(f) Runs to be repeated on the host: chaotic ones, which agree on average, and a driven one, which agrees up to
    rounding."""
    for dtype in dtypes():
        make, weights, starts = networks(1, size, dtype)
        gru = cast(lejax.cells.GRUCell(8, size, key=jr.key(0)), dtype)
        inputs = jr.normal(jr.key(1), (steps, 8), dtype)
        flow = cast(lejax.systems.Flow(lejax.systems.Lorenz63(), 0.01), dtype)
        runs = {
            "Lorenz-63": (flow, jnp.ones(3, dtype), None),
            f"tanh N={size} g=2": (make(weights[0]), starts[0], None),
            f"GRU N={size} driven": (gru, gru.initial_state(), inputs),
        }
        for name, (cell, state, driven) in runs.items():
            row = {"system": name, "dtype": np.dtype(dtype).name}
            if not clock.allows():
                yield row | {"left_out": "time"}
                continue
            skipped, start = steps // 10, time.perf_counter()
            found = lejax.lyapunov_spectrum(
                cell, state, driven, num_steps=steps - skipped, transient=skipped, throw=False
            )
            jax.block_until_ready(found)
            clock.compile_seconds = max(clock.compile_seconds, time.perf_counter() - start)
            yield row | {
                "steps": steps,
                "exponents": found.exponents,
                "standard_error": found.standard_error,
            }


def compare(ours: Row, theirs: Row) -> Row:
    """Differences between two runs of the same system, in joint standard errors."""
    here, there = (np.asarray(row["exponents"], np.float64) for row in (ours, theirs))
    errors = [np.asarray(row["standard_error"], np.float64) for row in (ours, theirs)]
    # Runs along the same inputs share their errors, beside which rounding is small.
    distance = (here - there) / np.maximum(np.hypot(*errors), 1e-300)
    return {
        "largest_difference": np.max(np.abs(here - there)),
        "largest_in_joint_errors": np.max(np.abs(distance)),
        "root_mean_square_in_joint_errors": np.sqrt(np.mean(distance**2)),
        "agrees": bool(np.max(np.abs(distance)) < 4.5 or np.max(np.abs(here - there)) < 1e-4),
    }


def host_rows(toy: bool, seconds: float) -> Iterator[Row]:
    """The runs of (f), (c), and the smaller ones of (a)."""
    clock = Clock(seconds)
    runs = exponents(*SIZES[toy]["f"], clock)
    gradients = penalty(*SIZES[toy]["c"], clock)
    batches = throughput(*(SIZES[toy]["a"] if toy else ([64, 16], HOST_COUNTS)), clock)
    for part, rows in (("f", runs), ("c", gradients), ("a", batches)):
        for row in rows:
            yield {"part": part} | row


def on_the_host(toy: bool, seconds: float) -> Iterator[Row]:
    """The rows of `host_rows`, computed in another process."""
    command = [sys.executable, str(Path(__file__)), "--host", "--seconds", str(seconds)]
    command += ["--toy"] if toy else []
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={cores}",
        "PJRT_NPROC": str(2 * cores),  # batched LAPACK calls then need a larger pool
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        watch = threading.Timer(
            seconds + 20, process.kill
        )  # in case it cannot skip what is left in time
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
        watch.cancel()


def beside_the_host(host: Row, rows: dict[str, list[Row]]) -> Row:
    """A row of the host together with the results of the device for the same case."""
    names = {
        "a": ("size", "networks", "dtype"),
        "c": ("verb", "size", "dtype"),
        "f": ("system", "dtype"),
    }[host["part"]]
    same = [r for r in rows[host["part"]] if all(r.get(n) == host.get(n) for n in names)]
    if not same or any({"left_out", "failed"} & row.keys() for row in (host, *same)):
        return host
    if host["part"] == "f":
        return host | compare(same[0], host)
    speed = "network_steps_a_second" if host["part"] == "a" else "sequences_a_second"
    return host | {"device_over_host": same[0][speed] / host[speed]}


def show(part: str, row: Row) -> None:
    def text(value):
        if isinstance(value, jax.Array | np.ndarray | list):
            numbers = np.asarray(value).ravel().tolist()
            return " ".join(f"{x:.4g}" for x in numbers[:3]) + (" ..." if len(numbers) > 3 else "")
        return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)

    line = ", ".join(f"{name} {text(value)}" for name, value in row.items() if name != "part")
    print(f"({part}) {line}", flush=True)


# Multiples of the numbers of cores that hosts have.
HOST_COUNTS = [16, 160, 1600, 10_000]
# Arguments of the parts, by `toy`.
SIZES = {
    False: {
        "a": ([64, 16, 256], [1, *HOST_COUNTS]),
        # Chunks as long as their overlap at least: with shorter ones most of the work would not count.
        "b": ([(64, 4096), (256, 4096), (1024, 1024)], [16, 64]),
        "c": ([256], 64, 100, 8),
        "d": (100_000, 1000),
        "e": (64, 64),
        "f": (64, 5000),
    },
    True: {
        "a": ([4, 8], [1, 4]),
        "b": ([(6, 160)], [4]),
        "c": ([4], 4, 10, 2),
        "d": (20, 50),
        "e": (4, 2),
        "f": (6, 300),
    },
}
PARTS = {
    "a": throughput,
    "b": single,
    "c": penalty,
    "d": lorenz,
    "e": compile_times,
    "f": exponents,
}


def main():
    arguments = _harness.parse_arguments(
        __doc__,
        options={
            "seconds": ("NUMBER", "time limit for all parts together, instead of eight minutes")
        },
        host="run the part of the host, and print its rows as JSON",
    )
    toy = arguments.toy
    if arguments.host:
        for row in host_rows(toy, float(arguments.seconds)):
            print(json.dumps(_harness.to_json(row, digits=17)), flush=True)  # to be compared
        return
    start = time.perf_counter()
    seconds = TOY_SECONDS if toy else SECONDS
    if arguments.seconds:
        share = float(arguments.seconds) / sum(seconds.values())
        seconds = {part: share * count for part, count in seconds.items()}
    total = Clock(sum(seconds.values()))
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}", flush=True)
    results: dict[str, list[Row]] = {part: [] for part in [*PARTS, "host"]}
    failures: dict[str, str] = {}

    def write():
        _harness.write_json(
            arguments.json,
            benchmark="device",
            toy=toy,
            platform=device.platform,
            device_kind=device.device_kind,
            seconds=time.perf_counter() - start,
            budget=seconds,
            failures=failures,
            **results,
        )

    def collect(part: str, rows: Iterator[Row]) -> None:
        try:
            for row in rows:
                results[part].append(row)
                if "failed" in row:
                    failures.setdefault(part, row["failed"])
                show(part, row)
                write()
        except Exception as error:  # whatever the error, the other parts still run
            failures[part] = describe(error)
            print(f"({part}) failed: {failures[part]}", flush=True)
            write()

    for part, rows in PARTS.items():
        clock = Clock(min(seconds[part], total.left))
        collect(part, rows(*SIZES[toy][part], clock))
    host = on_the_host(toy, min(seconds["host"], total.left))
    collect("host", (beside_the_host(row, results) for row in host))
    print(f"{time.perf_counter() - start:.0f} s in all", flush=True)
    if failures:
        raise SystemExit(f"Parts that failed: {', '.join(failures)}.")


if __name__ == "__main__":
    main()
