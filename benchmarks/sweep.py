"""Throughput and memory of sweeps and long runs.

Throughput of `lejax.run.sweep`, on one and on two devices, against one `vmap` over all members and
against a Python loop over calls of one compiled program. All spectra are those of the same members with
the same steps. Times are those of later calls, without compilation, except that `sweep` compiles at each
call: its time is given with and without compilation.

Memory of `lejax.run.long_run` after growing numbers of chunks of the same length: the peak memory of a
separate process for each run.
"""

import json
import os
import subprocess
import sys
import time


os.environ.setdefault("PJRT_NPROC", "4")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import _harness  # before all that starts JAX: it sets what JAX and NumPy read when they start
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _harness import Contender
from jax.sharding import AxisType

import lejax


LONG_RUN = """
import json, pathlib, resource, sys, time
import jax, jax.numpy as jnp, lejax

jax.config.update("jax_enable_x64", True)
henon, run = lejax.systems.Henon(), {"chunk_steps": int(sys.argv[2]), "progress": False}
if sys.argv[3] == "tolerance":
    run["tolerance"] = 1e-12
start = time.perf_counter()
lejax.run.long_run(henon, jnp.zeros(2), num_steps=int(sys.argv[1]) * int(sys.argv[2]), **run)
seconds = time.perf_counter() - start
status = pathlib.Path("/proc/self/status")
if status.exists():  # what getrusage says began with the process that started this one
    kibibytes = int(status.read_text().split("VmHWM:")[1].split()[0])
else:
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mebibytes": kibibytes / 1024}))
"""


def mesh(devices):
    return jax.make_mesh(
        (devices,),
        ("member",),
        devices=jax.local_devices()[:devices],
        axis_types=(AxisType.Auto,),
    )


def networks(size, gains, seeds):
    """Tanh networks, gains x weights. Each network is a member."""
    weights = jr.normal(jr.key(0), (seeds, size, size)) / size**0.5
    return lejax.run.Grid(gain=np.linspace(0.8, 3.0, gains), weights=np.asarray(weights))


def spectrum_of_network(steps):
    def run(member):
        weights = member["gain"] * member["weights"]
        cell = lejax.cells.RNNCell.from_weights(weight_hh=weights)
        start = jr.normal(jr.key(1), (len(weights),))
        return lejax.lyapunov_spectrum(cell, start, num_steps=steps, transient=steps // 10)

    return run


def lorenz_systems(count):
    return lejax.run.Grid(rho=np.linspace(20.0, 200.0, count))


def spectrum_of_lorenz(steps):
    def run(member):
        lorenz = lejax.systems.Flow(lejax.systems.Lorenz63(rho=member["rho"]), dt=0.005)
        return lejax.lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=steps, transient=steps // 10)

    return run


class Sweep:
    """A call of `sweep` that records its time without compilation."""

    def __init__(self, run, grid, devices, batch_size):
        self.arguments = {"batch_size": batch_size, "mesh": mesh(devices)}
        self.run, self.grid = run, grid
        self.running = []

    def __call__(self):
        take, starts = lejax.run._sweep.take, []

        def noting(members, indices):
            if len(indices) > 1:  # a batch is stacked after compilation
                starts.append(time.perf_counter())
            return take(members, indices)

        lejax.run._sweep.take = noting
        try:
            spectra = lejax.run.sweep(self.run, self.grid, **self.arguments)
        finally:
            lejax.run._sweep.take = take
        self.running.append(time.perf_counter() - starts[0])
        return spectra.exponents[..., 0].ravel()


def throughput(name, run, grid, steps, rounds):
    size = int(np.prod(grid.shape))
    members = lejax.run._grid.take(grid, np.arange(size))
    one, all_at_once = jax.jit(run), jax.jit(jax.vmap(run))

    def loop():
        rows = [one(jax.tree.map(lambda x, i=i: x[i], members)) for i in range(size)]
        return np.stack([row.exponents[0] for row in rows])

    contenders = [
        Contender("vmap", lambda: all_at_once(members).exponents[:, 0], size),
        Contender("loop of compiled calls", loop, size),
    ]
    for devices in (1, 2):
        label = f"sweep, {devices} device{'s'[: devices > 1]}, batches of {size // 4}"
        contenders.append(Contender(label, Sweep(run, grid, devices, size // 4), size))
    timings = _harness.time_round_robin(contenders, rounds)
    by_vmap = timings[0]
    rows = []
    for timing in timings:
        # The first call of each does not count.
        running = getattr(timing.contender.run, "running", [0, *timing.times])[1:]
        ratios = np.array(by_vmap.times) / np.array(running)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rows.append(
            {
                "contender": timing.contender.name,
                "seconds": np.median(running),
                "seconds_of_the_whole_call": np.median(timing.times),
                "spectra_per_second": size / np.median(running),
                "vmap_over_this": {"median": middle, "quartile_1": low, "quartile_3": high},
                "largest_difference_of_first_exponents": np.max(
                    np.abs(timing.result - by_vmap.result)
                ),
            }
        )
    print(f"done: {name}", flush=True)
    return {"case": name, "members": size, "steps": steps, "rows": rows}


def memory(chunk_counts, chunk_steps, mode):
    rows = []
    for chunks in chunk_counts:
        command = [sys.executable, "-c", LONG_RUN, str(chunks), str(chunk_steps), mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"chunks": chunks, "chunk_steps": chunk_steps, **json.loads(done.stdout)})
        print(f"done: {chunks} chunks, {mode}", flush=True)
    return rows


def main():
    arguments = _harness.parse_arguments(__doc__)
    if arguments.toy:
        cases = [throughput("Lorenz-63", spectrum_of_lorenz(40), lorenz_systems(8), 40, 1)]
        modes, chunk_counts, chunk_steps = ("fixed",), [10], 20
    else:
        cases = [
            throughput("Lorenz-63", spectrum_of_lorenz(2_000), lorenz_systems(512), 2_000, 3),
            throughput("tanh N=16", spectrum_of_network(500), networks(16, 16, 16), 500, 3),
            throughput("tanh N=64", spectrum_of_network(200), networks(64, 8, 8), 200, 3),
        ]
        modes, chunk_counts, chunk_steps = ("fixed", "tolerance"), [10, 100, 1_000, 10_000], 200
    growth = {mode: memory(chunk_counts, chunk_steps, mode) for mode in modes}
    longest = memory([1], 1_000, "fixed") if arguments.toy else memory([100], 1_000_000, "fixed")
    for case in cases:
        print(f"\n{case['case']}: {case['members']} spectra of {case['steps']} steps")
        header = ["contender", "seconds", "spectra / s", "vmap / this"]
        cells = [
            [
                row["contender"],
                f"{row['seconds']:.3f}",
                f"{row['spectra_per_second']:.1f}",
                f"{row['vmap_over_this']['median']:.2f}",
            ]
            for row in case["rows"]
        ]
        print(_harness.format_table(header, cells))
    print("\nPeak memory of a process with one long run of the Henon map")
    header = ["chunks", *(f"MiB, {mode}" for mode in growth)]
    cells = [
        [str(row["chunks"]), *(f"{growth[mode][i]['peak_mebibytes']:.0f}" for mode in growth)]
        for i, row in enumerate(growth["fixed"])
    ]
    print(_harness.format_table(header, cells))
    row = longest[0]
    steps = row["chunks"] * row["chunk_steps"]
    print(f"{steps:.0e} steps: {row['seconds']:.0f} s, {row['peak_mebibytes']:.0f} MiB")
    _harness.write_json(
        arguments.json,
        benchmark="sweep",
        toy=arguments.toy,
        throughput=cases,
        memory=growth,
        longest_run=row,
    )


if __name__ == "__main__":
    main()
