"""The subcommands `spectrum` and `info`. Importing this file starts JAX."""

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr

from .._core.status import RESULTS
from .._engine.method import SequentialQR
from .._spectrum.report import LyapunovSpectrum
from ..run import long_run
from . import output
from .problem import BadInput, Problem, architecture, load_problem, printable
from .shared import check_devices, print_text, versions, within_memory, writing_to


def info() -> None:
    """Print versions and devices."""
    check_devices()
    lines = versions() | {
        "devices": ", ".join(map(str, jax.devices())),
        "x64": f"{'on' if jnp.result_type(float) == jnp.float64 else 'off'} (lejax spectrum turns it on for float64)",
    }
    print_text("\n".join(f"{name:9} {line}" for name, line in lines.items()))


def spectrum(args: Namespace, started: float) -> None:
    """Load, run, print and write; `started` is when the command began."""
    if args.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    check_devices()
    with within_memory():
        problem = load_problem(args)
    with writing_to(args.out):
        output.prepare_folder(args.out)
    loaded = time.perf_counter()
    with within_memory(), _resuming(args.checkpoint):
        result = _run(problem, args)
    report = output.make_report(
        result,
        settings={
            "network": problem.cell_name,
            "architecture": architecture(problem.cell),
            "inputs": problem.inputs_name,
            "transient": problem.transient,
            "dtype": args.dtype,
            "seed": args.seed,
            "activation": args.activation,
            "prefix": args.prefix and printable(args.prefix),
        },
        versions=versions(),
        seconds={"load": loaded - started, "compile_and_run": time.perf_counter() - loaded},
    )
    with writing_to(args.out):
        paths = output.write(report, args.out, plot=not args.no_plot)
    # Write the files before printing, so that a closed pipe loses no results.
    wrote = f"Wrote {', '.join(printable(path) for path in paths)}."
    print_text(f"{output.text(report)}\n{wrote}", f", but the results are in {printable(args.out)}")


@contextmanager
def _resuming(path: Path | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if path is None:
            raise
        raise BadInput(f"--checkpoint {printable(path)} cannot be used: {error}") from error


def _run(problem: Problem, args: Namespace) -> LyapunovSpectrum:
    state, key = problem.cell.initial_state(), jr.key(args.seed)
    every = None if args.qr_every == "auto" else args.qr_every
    result = long_run(
        problem.cell,
        state,
        problem.inputs,
        num_exponents=problem.num_exponents,
        num_steps=problem.num_steps,
        transient=problem.transient,
        dt=args.dt,
        method=SequentialQR(every=every),
        key=key,
        num_blocks=args.blocks,
        checkpoint=args.checkpoint,
        throw=False,
    )
    if bool(result.result == RESULTS.nonfinite):
        raise BadInput(
            f"{problem.cell_name} diverges: its state or its tangent left the floating-point numbers at step "
            f"{int(result.diagnostics.first_bad_step)}."
        )
    if bool(result.result == RESULTS.interval_too_long):
        raise BadInput(
            f"--qr-every {every} is too long: the lower exponents would be rounding noise with an estimated "
            f"error of {float(jnp.max(result.diagnostics.rounding_error)):.1e}."
        )
    return result
