"""The network and the inputs that a command line names, loaded and checked."""

import os
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import data
from .._core.array_files import load_arrays
from .._core.cell import ravel
from ..cells import GRUCell, LSTMCell, ProjectedLSTMCell, RNNCell, Stack
from .files import load_parquet, network_reader


_Network = RNNCell | GRUCell | LSTMCell | ProjectedLSTMCell | Stack

_DIGITS_TRANSIENT = 80  # ten digits


class BadInput(Exception):
    """An argument or a file of the user is unusable; the message is one sentence for them."""


class Problem(NamedTuple):
    """The arguments of a run, checked and in the precision of the run."""

    cell: _Network
    inputs: Float[np.ndarray, "t i"]
    num_exponents: int
    num_steps: int
    transient: int
    cell_name: str
    inputs_name: str


def load_problem(args: Namespace) -> Problem:
    cell, cell_name = _load_cell(args)
    input_size = _input_size(cell)
    state_size = ravel(cell.initial_state())[0].size
    if args.k is not None and args.k > state_size:
        raise BadInput(f"-k is {args.k}, but the state of {cell_name} has {state_size} numbers.")

    transient = args.transient or 0
    if args.inputs is not None:
        inputs, inputs_name = _load_inputs(args.inputs, args.dtype), printable(args.inputs)
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
    return Problem(
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


def architecture(cell: _Network) -> str:
    """Type and arguments of each layer, e.g. `LSTM(8, 32) + LSTM(32, 32)`."""
    return " + ".join(
        f"{type(layer).__name__.removesuffix('Cell')}{_sizes(layer)}" for layer in _layers(cell)
    )


def _sizes(layer: Any) -> tuple[int, ...]:
    """The number of inputs, that of units, and that of projections."""
    input_size, hidden_size = layer.weight_ih.shape[1], layer.weight_hh.shape[1]
    if isinstance(layer, ProjectedLSTMCell):
        return input_size, *layer.weight_hr.shape[::-1]
    return input_size, hidden_size


def _load_cell(args: Namespace) -> tuple[_Network, str]:
    if args.model is None:
        options = {"--prefix": args.prefix, "--activation": args.activation}
        for option, value in options.items():
            if value is not None:
                raise BadInput(f"{option} {value} describes a MODEL, but none is given.")
        return data.digits_gru(args.dtype), "the shipped network"
    options = {}
    if args.activation is not None:
        if args.model.suffix.lower() in (".keras", ".onnx"):
            raise BadInput(f"--activation is not for {printable(args.model)}, which contains it.")
        options["activation"] = jax.nn.relu if args.activation == "relu" else jnp.tanh
    try:
        cell = network_reader(args.model)(args.model, prefix=args.prefix, **options)
    except (OSError, TypeError, ValueError, ModuleNotFoundError) as error:
        raise BadInput(str(error)) from error
    return jax.tree.map(lambda weight: weight.astype(args.dtype), cell), printable(args.model)


def _load_inputs(path: Path, dtype: str) -> Float[np.ndarray, "t i"]:
    """The array in a file, checked and in the precision of the run."""
    if path.suffix.lower() == ".csv":
        array = _load_csv(path)
    else:
        try:
            parquet = path.suffix.lower() == ".parquet"
            arrays = {path.stem: load_parquet(path)} if parquet else load_arrays(path)
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


def printable(name: str | Path) -> str:
    """A file name as text, with escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
