"""The subcommands `spectrum` and `info`. Importing this file starts JAX."""

import os
import platform
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from .. import __version__, data
from .._core.array_files import load_arrays
from .._core.cell import ravel
from .._core.status import RESULTS
from .._engine.method import SequentialQR
from .._spectrum.report import LyapunovSpectrum
from ..cells import GRUCell, LSTMCell, RNNCell, Stack
from ..interop import from_torch
from ..run import long_run
from . import output


_Network = RNNCell | GRUCell | LSTMCell | Stack

_DIGITS_TRANSIENT = 80  # ten digits


class BadInput(Exception):
    """An argument or a file of the user is unusable; the message is one sentence for them."""


class NotPrinted(Exception):
    """The output could not be written; the message is one sentence."""


class _Problem(NamedTuple):
    """The arguments of a run, checked and in the precision of the run."""

    cell: _Network
    inputs: Float[np.ndarray, "t i"]
    num_exponents: int
    num_steps: int
    transient: int
    cell_name: str
    inputs_name: str


def info() -> None:
    """Print versions and devices."""
    _check_devices()
    lines = _versions() | {
        "devices": ", ".join(map(str, jax.devices())),
        "x64": f"{'on' if jnp.result_type(float) == jnp.float64 else 'off'} (lejax spectrum turns it on for float64)",
    }
    _print("\n".join(f"{name:9} {line}" for name, line in lines.items()))


def spectrum(args: Namespace, started: float) -> None:
    """Load, run, print and write; `started` is when the command began."""
    if args.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    _check_devices()
    with _within_memory():
        problem = _load_problem(args)
    with _writing_to(args.out):
        output.prepare_folder(args.out)
    loaded = time.perf_counter()
    with _within_memory():
        result = _run(problem, args)
    report = output.make_report(
        result,
        settings={
            "network": problem.cell_name,
            "architecture": _architecture(problem.cell),
            "inputs": problem.inputs_name,
            "transient": problem.transient,
            "dtype": args.dtype,
            "seed": args.seed,
            "activation": args.activation,
            "prefix": args.prefix and _printable(args.prefix),
        },
        versions=_versions(),
        seconds={"load": loaded - started, "compile_and_run": time.perf_counter() - loaded},
    )
    with _writing_to(args.out):
        paths = output.write(report, args.out, plot=not args.no_plot)
    # Write the files before printing, so that a closed pipe loses no results.
    wrote = f"Wrote {', '.join(_printable(path) for path in paths)}."
    _print(f"{output.text(report)}\n{wrote}", f", but the results are in {_printable(args.out)}")


def _print(text: str, addition: str = "") -> None:
    """Print with escapes for characters that the terminal's encoding lacks.

    `addition` ends the message if printing fails.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        raise NotPrinted(f"cannot print: {error.strerror}{addition}.") from error


def _printable(name: str | Path) -> str:
    """A file name as text, with escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _check_devices() -> None:
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # AssertionError: known, but not installed
        asked = os.environ.get("JAX_PLATFORMS")
        where = f" of JAX_PLATFORMS={asked!r}, which is unknown or not installed" if asked else ""
        reason = str(error).partition(". ")[0].partition("\n")[0].rstrip(".")
        raise BadInput(f"JAX finds no device{where}{reason and ': '}{reason}.") from error


@contextmanager
def _within_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise BadInput(
            "the run does not fit into memory; --dtype float32, fewer exponents (-k) or, with --qr-every auto, "
            "a shorter --transient need less."
        ) from error


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write to --out {folder}: {error.strerror or error}.") from error


def _versions() -> dict[str, str]:
    packages = ("jax", "equinox", "numpy")
    return (
        {"lejax": __version__}
        | {name: version(name) for name in packages}
        | {"python": platform.python_version()}
    )


def _load_problem(args: Namespace) -> _Problem:
    cell, cell_name = _load_cell(args)
    input_size = _input_size(cell)
    state_size = ravel(cell.initial_state())[0].size
    if args.k is not None and args.k > state_size:
        raise BadInput(f"-k is {args.k}, but the state of {cell_name} has {state_size} numbers.")

    transient = args.transient or 0
    if args.inputs is not None:
        inputs, inputs_name = _load_inputs(args.inputs, args.dtype), _printable(args.inputs)
    elif args.model is None:
        inputs, inputs_name = np.asarray(data.digits_inputs(args.dtype)), "397 handwritten digits"
        transient = _DIGITS_TRANSIENT if args.transient is None else args.transient
    elif args.steps is None:
        raise BadInput(
            "without --inputs the network is driven by zeros, and --steps must say how many."
        )
    elif transient + args.steps >= 2**31:
        raise BadInput(
            f"--transient and --steps ask for {transient} + {args.steps} steps, but fewer than 2147483648 can be run."
        )
    else:
        # A view of a single zero, so that the inputs of a long run take no memory.
        inputs = np.broadcast_to(np.zeros((), args.dtype), (transient + args.steps, input_size))
        inputs_name = "zeros (no --inputs given)"

    length, width = inputs.shape
    if width != input_size:
        raise BadInput(
            f"{inputs_name} has {width} columns, but {cell_name} takes {input_size} inputs."
        )
    if transient >= length:
        raise BadInput(
            f"--transient is {transient}, but there are only {length} steps in {inputs_name}."
        )
    num_steps = length - transient if args.steps is None else args.steps
    if transient + num_steps > length:
        raise BadInput(
            f"--transient and --steps ask for {transient} + {num_steps} steps, but there are {length} in "
            f"{inputs_name}."
        )
    return _Problem(
        cell=cell,
        inputs=inputs,
        num_exponents=args.k or state_size,
        num_steps=num_steps,
        transient=transient,
        cell_name=cell_name,
        inputs_name=inputs_name,
    )


def _layers(cell: _Network) -> tuple[Any, ...]:
    return cell.layers if isinstance(cell, Stack) else (cell,)


def _input_size(cell: _Network) -> int:
    return _layers(cell)[0].weight_ih.shape[1]


def _architecture(cell: _Network) -> str:
    """Type, input size and units of each layer, e.g. `LSTM(8, 32) + LSTM(32, 32)`."""
    return " + ".join(
        f"{type(layer).__name__.removesuffix('Cell')}({layer.weight_ih.shape[1]}, {layer.weight_hh.shape[1]})"
        for layer in _layers(cell)
    )


def _load_cell(args: Namespace) -> tuple[_Network, str]:
    if args.model is None:
        options = {"--prefix": args.prefix, "--activation": args.activation}
        for option, value in options.items():
            if value is not None:
                raise BadInput(f"{option} {value} describes a MODEL, but none is given.")
        return data.digits_gru(args.dtype), "the shipped network"
    activation = jax.nn.relu if args.activation == "relu" else jnp.tanh
    try:
        cell = from_torch(args.model, prefix=args.prefix, activation=activation)
    except (OSError, TypeError, ValueError) as error:
        raise BadInput(str(error)) from error
    return jax.tree.map(lambda weight: weight.astype(args.dtype), cell), _printable(args.model)


def _load_inputs(path: Path, dtype: str) -> Float[np.ndarray, "t i"]:
    """The array in a file, checked and in the precision of the run."""
    if path.suffix.lower() == ".csv":
        array = _load_csv(path)
    else:
        try:
            arrays = load_arrays(path)
        except (OSError, ValueError) as error:
            raise BadInput(f"--inputs {path} cannot be read: {error}") from error
        if len(arrays) != 1:
            raise BadInput(f"--inputs {path} must hold one array, but holds {len(arrays)}.")
        (array,) = arrays.values()
    if array.dtype.kind not in "biuf":
        raise BadInput(f"--inputs {path} has dtype {array.dtype}, but inputs are real numbers.")
    if array.ndim != 2:
        raise BadInput(f"--inputs {path} has shape {array.shape}, but (steps, inputs) is needed.")
    with np.errstate(over="ignore"):  # numbers beyond float32 become inf, which is reported below
        inputs = array.astype(dtype)
    bad = np.argwhere(~np.isfinite(inputs))
    if len(bad):
        row, column = bad[0]
        raise BadInput(
            f"--inputs {path} holds {inputs[row, column]} in row {row}, column {column} (counted from 0), as {dtype}."
        )
    return inputs


def _load_csv(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            array = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = str(error).partition(";")[0].rstrip(".")  # the rest is advice on loadtxt
        header = ", without a header" * isinstance(error, ValueError)
        raise BadInput(
            f"--inputs {path} cannot be read as numbers and commas{header}: {reason}."
        ) from error
    if array.size == 0:
        raise BadInput(f"--inputs {path} holds no numbers.")
    return array


def _run(problem: _Problem, args: Namespace) -> LyapunovSpectrum:
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
