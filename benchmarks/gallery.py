"""Lyapunov spectra of the flows and maps of dysts, each checked against theorems that hold for every system.

For every system that JAX can trace this measures all exponents with standard errors, the Kaplan-Yorke dimension, and
two checks:

- The exponents must sum to the mean divergence of the field along the same run (those of a map to the mean
  log |det J|), within 1e-3 of the sum of their absolute values.
- A flow that does not settle on a fixed point has an exponent 0, which must lie within 3 standard errors. That error
  may be at most a twentieth of the largest exponent, or a thousandth per period without chaos to compare with.

The motion must not change along the run: if the largest exponents of its halves differ by more than 4 standard errors,
as where chaos is a transient, the run is dropped and the next one counts, at most 4 times.

Flows are integrated by the classical Runge-Kutta method. The step starts at a hundredth of dysts' period and is halved,
at most 8 times, until a trial run keeps the first check to 1e-4 (in flows that hardly stretch, to 0.1 per period) and
the run itself passes. From the fourth halving on, a run has twice as many steps each time, up to 8 times as many: a
short run would have a large error, which would pass any check. If the error is too large, the run is repeated with 4
and 16 times the steps. Fields that jump are excluded by name, since their derivatives lack the effect of a jump on the
tangent. Two systems are measured at a time, each in a thread, and times include compilation.

`--second` gives each system in the file of `--json` a second run and repeats nothing else. It starts from the first
start, moved by half of the spread of the motion in a random direction (less if that diverges), or from a published
start. The step is the same, the transient is as long as the averages, and there are a sixteenth to a quarter of the
steps. The starts agree if all exponents do within 4 joint standard errors plus what the ends of the runs may add, 2
nats over the length of the second run. If not, the system has more than one motion, or changes slowly.

A run that is interrupted leaves the systems measured so far in the JSON. `--table` writes the results as
`lejax/systems/gallery.json`, which `lejax.systems.gallery` reads.
"""

import functools
import importlib.metadata
import inspect
import json
import math
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path


# Most of the time goes into compiling small programs. The older loop emitters take about two thirds of it, by an option
# that later versions of XLA may reject.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
    )

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import lejax
from lejax._core.statistics import standard_error
from lejax.interop import DystsField, from_dysts
from lejax.systems import Flow


dysts = _harness.import_peer("dysts")
TABLE = Path(lejax.__file__).parent / "systems" / "gallery.json"
TOY = ["Lorenz", "Torus", "Lorenz96", "MackeyGlass", "Henon"]
NUM_BLOCKS = 20
MOST_HALVINGS = 8
MOST_RUNS = 5
WORKERS = 2
CHECK = 1e-3
OFFSET = 0.5  # of the second start, in units of the spread
MOST_OFFSETS = 5
CONSERVED = 1e-3  # rate of volume contraction below which a system counts as conservative
# Published starts: J. C. Sprott, Phys. Rev. E 50 (1994), for his exponent 0.014 of case A.
# With a longer step than the error of the exponent 0 required.
SECOND = {"SprottA": ((0.0, 5.0, 0.0), 0.016)}
UNRESOLVED = "the exponent nearest to 0 is not resolved"
# The field itself is discontinuous, so that a perturbation jumps too, which no derivative of the field contains.
JUMPS = ("FluidTrampoline", "SprottMore", "StickSlipOscillator")


class Measured(lejax.BlockTriangularCell):
    """A cell with state (x, sum) that sums the volume growth rate; the exponent of the sum is known."""

    cell: eqx.Module

    def rate(self, point):
        if isinstance(self.cell, Flow):
            return jnp.trace(jax.jacfwd(self.cell.vector_field, 1)(None, point))
        return jnp.linalg.slogdet(jax.jacfwd(self.cell, 1)(None, point))[1]

    def __call__(self, input, state):
        return self.blocks(input, state)[0]

    def blocks(self, input, state):
        point, total = state
        new_point, tangent = jax.linearize(functools.partial(self.cell, input), point)
        blocks = (
            lejax.DenseBlock(lambda columns: jax.vmap(tangent, -1, -1)(columns), point.size),
            lejax.DiagonalBlock(jnp.zeros_like(total)),
        )
        return (new_point, total + self.rate(point)), blocks


class Run:
    """Consecutive chunks of one trajectory, by one program for all steps."""

    def __init__(self, cell, start, chunk_steps):
        size = start.size
        directions = np.linalg.qr(np.asarray(jr.normal(jr.key(0), (size, size))))[0]
        self.frame = jnp.asarray(np.pad(directions, (0, 1)) + np.diag([0.0] * size + [1.0]))
        self.point, self.chunk_steps = start, chunk_steps
        self.cell = cell
        self.dt = cell.dt if isinstance(cell, Flow) else jnp.ones(())

    def with_step(self, dt, longer=1):
        """The same point of the trajectory, to continue from with another step and longer chunks."""
        other = Run(Flow(self.cell.vector_field, dt), self.point, longer * self.chunk_steps)
        other.frame = self.frame
        return other

    def chunk(self):
        """The exponents of the next chunk and the mean volume growth rate along it."""
        spectrum = lejax.lyapunov_spectrum(
            Measured(self.cell),
            (self.point, jnp.zeros(1)),
            num_steps=self.chunk_steps,
            dt=self.dt,
            frame=self.frame,
            num_blocks=1,
            throw=False,
        )
        self.point, total = spectrum.state
        self.frame = spectrum.frame
        return np.asarray(spectrum.exponents)[:-1], float(total[0]) / self.chunk_steps

    def chunks(self, number):
        """The exponents (number, d) of the next chunks and the mean volume growth rate."""
        exponents, rates = zip(*(self.chunk() for _ in range(number)), strict=True)
        return np.array(exponents), float(np.mean(rates))


def relative_difference(exponents, rate, least=0.0):
    """The error of the sum of the exponents as a volume growth rate, relative to the exponents or `least`."""
    scale = max(np.abs(exponents).sum(), least)
    return abs(exponents.sum() - rate) / scale if scale > 0 else abs(rate)


def choose_step(run, period, first):
    """The run with the largest step that keeps the first check to 1e-4 and the number of halvings, or None."""
    for halvings in range(first, MOST_HALVINGS + 1):
        dt = jnp.asarray(period / 100 / 2**halvings)
        trial = run.with_step(dt)
        # Two chunks: a step that throws the point far away may pass the check out there.
        if all(relative_difference(*trial.chunk(), 0.1 / period) < 1e-4 for _ in range(2)):
            return trial.with_step(dt, longer=2 ** min(max(halvings - 3, 0), 3)), halvings
    return None, MOST_HALVINGS


def is_settled(field, point):
    """Whether the field vanishes here, to 1e-9 of the starting state per period."""
    speed = float(jnp.linalg.norm(field(None, point)))
    return speed * field.period < 1e-9 * float(jnp.linalg.norm(field.initial_state()))


def is_of_one_kind(blocks):
    """Whether the largest exponents of the halves of a run (b, d) differ by no more than 4 standard errors."""
    largest = blocks[:, np.argmax(blocks.mean(axis=0))]
    halves = np.array_split(largest, 2)
    error = np.hypot(*(half.std(ddof=1) / len(half) ** 0.5 for half in halves))
    return not abs(halves[0].mean() - halves[1].mean()) > 4 * error


def evaluate(run, needs_no_zero, period=None):
    """The results of a run and of its checks."""
    run.chunks(2)  # a transient, in which the frame aligns and the point settles
    blocks, rate = run.chunks(NUM_BLOCKS)
    left_out = 0
    while left_out < MOST_RUNS - 1 and not is_of_one_kind(blocks):
        blocks, rate = run.chunks(NUM_BLOCKS)
        left_out += 1
    row = summarize(blocks, rate)
    row |= {"dt": float(run.dt), "duration": float(run.dt) * run.chunk_steps * NUM_BLOCKS}
    row |= {"runs_left_out": left_out, "transient": row["duration"] * (left_out + 0.1)}
    row["is_of_one_kind"] = is_of_one_kind(blocks)
    row["needs_zero"] = not needs_no_zero(run.point)
    return {**row, "status": status_of(row, period)}


def measure(equations, toy):
    """The row of one system that JAX can trace."""
    cell = from_dysts(equations())
    is_flow = isinstance(cell, DystsField)
    point = cell.initial_state()
    row = {"kind": "flow" if is_flow else "map", "dimension": point.size}
    if is_flow and equations.__name__ in JUMPS:
        reason = "the field jumps, and no derivative of it shows what that does to the tangent."
        return {**row, "status": reason}
    steps = 2 ** (10 if toy else 16 if point.size <= 4 else 15 if point.size <= 6 else 13)
    if not is_flow:
        return row | {"method": ""} | evaluate(Run(cell, point, steps), lambda point: True)
    start, halvings = Run(Flow(cell, jnp.ones(())), point, steps), -1
    row |= {"method": "RK4", "status": "no step keeps the sum of the exponents."}
    while row["status"] != "passed":
        run, halvings = choose_step(start, cell.period, halvings + 1)
        if run is None:
            break
        for longer in (1, 4, 4):
            run = run.with_step(run.dt, longer)
            row |= evaluate(run, functools.partial(is_settled, cell), cell.period)
            row["halvings"] = halvings
            if not row["status"].startswith(UNRESOLVED):
                break
        else:
            break  # a shorter step does not help
    return row


def measure_second(equations, row):
    """The exponents of a shorter run from another start, and whether they agree with those of the row."""
    cell = from_dysts(equations())
    start = cell.initial_state()
    row = row | {"start": start, "starts_agree": None}
    stepper = Flow(cell, jnp.asarray(row["dt"])) if row["kind"] == "flow" else cell
    steps = row["duration"] / row["dt"] / NUM_BLOCKS / 16
    run = Run(stepper, start, max(int(steps), 2 ** (14 if start.size <= 4 else 12)))
    points = []
    for _ in range(NUM_BLOCKS):
        run.chunk()
        points.append(run.point)
    spread = np.std(points, axis=0)
    size = np.abs(np.asarray(start))
    spread = np.where(spread > 1e-3 * size, spread, 0.1 * size)  # a run at rest has no spread
    direction = np.asarray(jr.normal(jr.key(1), (start.size,)))
    for halvings in range(MOST_OFFSETS):
        other = start + OFFSET / 2**halvings * spread * direction
        if equations.__name__ in SECOND:
            published, dt = SECOND[equations.__name__]
            other, stepper = jnp.asarray(published), Flow(cell, jnp.asarray(dt))
        run = Run(stepper, other, run.chunk_steps)
        run.chunks(NUM_BLOCKS)
        blocks, _ = run.chunks(NUM_BLOCKS)
        if not np.isfinite(blocks).all():
            continue
        blocks = blocks[:, np.argsort(-blocks.mean(axis=0))]
        duration = float(run.dt) * run.chunk_steps * NUM_BLOCKS
        exponents = blocks.mean(axis=0)
        errors = np.asarray(standard_error(jnp.asarray(blocks), jnp.ones(NUM_BLOCKS)))
        allowed = 4 * np.hypot(errors, np.asarray(row["standard_error"])) + 2 / duration
        agree = bool(np.all(np.abs(exponents - np.asarray(row["exponents"])) <= allowed))
        row |= {
            "second_start": other,
            "second_exponents": exponents,
            "second_error": errors,
            "second_duration": duration,
            "starts_agree": agree,
        }
        # Where volumes contract, another motion is another attractor, and nearer starts lead to the same one. In a
        # conservative system the motion depends on the start, which is the result.
        if agree or abs(row["mean_divergence"]) < CONSERVED:
            break
    return row


@eqx.filter_jit
def dimensions(spectra, tolerance):
    """Kaplan-Yorke dimensions of spectra (n, d)."""
    size = tolerance.size
    return jax.vmap(lambda values: lejax.kaplan_yorke_dimension(values, size, tolerance))(spectra)


def summarize(blocks, rate):
    """Results for the checks and the table, from exponents of blocks (b, d)."""
    number = len(blocks)
    blocks = blocks[:, np.argsort(-blocks.mean(axis=0))]
    exponents, errors = blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / number**0.5
    without_one = (number * exponents - blocks) / (number - 1)
    dimension, *others = np.asarray(dimensions(np.vstack([exponents, without_one]), 3 * errors))
    return {
        "exponents": exponents,
        "standard_error": errors,
        "kaplan_yorke_dimension": float(dimension),
        "kaplan_yorke_error": float(np.std(others) * (number - 1) ** 0.5),
        "mean_divergence": rate,
        "relative_difference": relative_difference(exponents, rate),
    }


def status_of(row, period):
    """`passed`, or the check that failed."""
    exponents, errors = row["exponents"], row["standard_error"]
    if not np.isfinite(exponents).all():
        return "the run left the floating-point numbers."
    if not row["relative_difference"] < CHECK:
        return f"the sum differs from the mean divergence by {row['relative_difference']:.1e} of the exponents."
    if not row["is_of_one_kind"]:
        return "the motion goes on changing its character."
    nearest = np.argmin(np.abs(exponents))
    if row["needs_zero"] and not abs(exponents[nearest]) <= 3 * errors[nearest]:
        return f"no exponent is 0: the nearest is {exponents[nearest]:.2g} with the error {errors[nearest]:.1g}."
    if row["needs_zero"] and not errors[nearest] <= max(exponents[0] / 20, 1e-3 / period):
        smallest = f"{exponents[nearest]:.2g} +- {errors[nearest]:.1g}"
        return f"{UNRESOLVED} beside the largest exponent {exponents[0]:.2g}: {smallest}."
    return "passed"


def find_systems():
    """Instances of all systems of dysts, by their names in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the warning that numba is missing, which nothing here needs
        import dysts.flows
        import dysts.maps

    found = {}
    for module in (dysts.flows, dysts.maps):
        for name, kind in sorted(vars(module).items()):
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                found[name + "Map" * (name in found)] = kind
    return found


def write_table(rows):
    """The fields of `lejax.systems.MeasuredSystem`, rounded to six digits."""

    def shorten(value):
        if isinstance(value, list | np.ndarray):
            return [shorten(item) for item in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    names = lejax.systems.MeasuredSystem._fields
    blank = dict.fromkeys(names, math.nan) | {"dimension": 0, "method": ""}
    blank |= {field: [] for field in names if field.endswith(("start", "exponents", "error"))}
    blank |= {"kaplan_yorke_error": math.nan, "starts_agree": None}
    table = {
        name: {field: shorten((blank | row | {"name": name})[field]) for field in names}
        for name, row in rows.items()
    }
    lines = [
        f"{json.dumps(name)}: {json.dumps(_harness.to_json(row))}" for name, row in table.items()
    ]
    TABLE.write_text('{"systems": {\n' + ",\n".join(lines) + "\n}}\n")


def show(rows):
    def line(name, row):
        if "exponents" not in row:
            return [name, "", "", "", "", "", row["status"]]
        numbers = zip(row["exponents"], row["standard_error"], strict=True)
        spectrum = " ".join(f"{value:.4g}({error:.0e})" for value, error in numbers)
        return [
            name,
            spectrum,
            f"{row['kaplan_yorke_dimension']:.3f}",
            f"{row['relative_difference']:.0e}",
            f"{row['dt']:.2g}",
            f"{row['seconds']:.0f}",
            row["status"],
        ]

    header = ["", "exponents (errors)", "dimension", "sum", "dt", "s", ""]
    print(_harness.format_table(header, [line(*item) for item in rows.items()]))


def main():
    arguments = _harness.parse_arguments(
        __doc__,
        table="also write the table that ships with lejax",
        resume="keep the systems that the file of --json holds",
        second="measure those that the file of --json holds from a second start, where that is not done",
    )
    if arguments.toy and arguments.table:
        raise SystemExit("--table ships what it measures: not with --toy.")
    rows = {}
    systems = find_systems() if dysts is not None else {}
    keeps = arguments.resume or arguments.second
    if keeps and arguments.json is not None and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())["rows"]
    names = TOY if arguments.toy and systems else systems
    begin = time.perf_counter()

    def measured(name):
        """The row of a system, with the time of its thread, without compilation in other threads."""
        start = time.perf_counter()
        if arguments.second:
            return measure_second(systems[name], rows[name])
        try:
            row = measure(systems[name], arguments.toy)
        except ValueError as error:  # a delay equation, or a system that JAX cannot trace
            kind = "map" if systems[name].__module__.endswith("maps") else "flow"
            row = {"kind": kind, "status": str(error)}
        return row | {"seconds": time.perf_counter() - start}

    if arguments.second:
        names = [
            n for n, row in rows.items() if "exponents" in row and row.get("starts_agree") is None
        ]
    else:
        names = [name for name in names if name not in rows]
    with ThreadPoolExecutor(WORKERS) as workers:
        jobs = {workers.submit(measured, name): name for name in names}
        for job in as_completed(jobs):
            name = jobs[job]
            rows[name] = job.result()
            print(f"done: {name}: {rows[name]['status']}", flush=True)
            if arguments.second:
                print(f"  starts agree: {rows[name]['starts_agree']}", flush=True)
            spent = {"wall_seconds": time.perf_counter() - begin, "systems_of_this_run": len(jobs)}
            ordered = {name: rows[name] for name in systems if name in rows}
            _harness.write_json(
                arguments.json, benchmark="gallery", toy=arguments.toy, **spent, rows=ordered
            )
    rows = {name: rows[name] for name in systems if name in rows}
    show(rows)
    flows = [row for row in rows.values() if row["kind"] == "flow" and "delay" not in row["status"]]
    passed = sum(row["status"] == "passed" for row in flows)
    print(
        f"{passed} of {len(flows)} flows without delay passed; {len(jobs)} systems in "
        f"{time.perf_counter() - begin:.0f} s, {WORKERS} at a time."
    )
    if arguments.table:
        write_table(rows)


if __name__ == "__main__":
    main()
