"""The subcommand `report`: one page about a network."""

import dataclasses
from argparse import Namespace
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr

from .._report.files import check_target
from .._report.report import report as make_report
from .files import network_reader
from .problem import BadInput, Problem, architecture, load_problem, printable
from .shared import check_devices, print_text, within_memory, writing_to


def report(args: Namespace) -> None:
    """Load, compute, write the page and print its summary."""
    if args.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    check_devices()
    with within_memory():
        problem = load_problem(args)
    try:
        check_target(args.out)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write to --out {printable(args.out)}: {error}") from error
    with within_memory():
        try:
            found = make_report(
                problem.cell,
                problem.cell.initial_state(),
                jnp.asarray(problem.inputs),
                num_exponents=args.k,
                num_steps=problem.num_steps,
                transient=problem.transient,
                dt=args.dt,
                key=jr.key(args.seed) if args.seed else None,
                num_blocks=args.blocks,
            )
        except RuntimeError as error:
            if "left the floating-point numbers" not in str(error):
                raise
            step = str(error).partition("at step ")[2].partition(".")[0]
            raise BadInput(
                f"{problem.cell_name} diverges: its state or its tangent left the floating-point numbers at step "
                f"{step}."
            ) from error
    name = problem.cell_name if args.model is not None else problem.cell_name.capitalize()
    named = dataclasses.replace(
        found,
        cell_name=f"{name}, {architecture(problem.cell)}",
        inputs_name=problem.inputs_name,
        setup=_setup(args, problem),
    )
    with writing_to(args.out):
        named.write(args.out)
    wrote = f"Wrote {printable(args.out)}."
    print_text(f"{named}\n{wrote}", f", but the page is in {printable(args.out)}")


def _setup(args: Namespace, problem: Problem) -> str:
    """Lines of Python that load the same network and inputs."""
    lines = ["import jax", "import jax.numpy as jnp", "import lejax", ""]
    if args.dtype == "float64":
        lines += ['jax.config.update("jax_enable_x64", True)']
    if args.model is None:
        lines += [f"cell = lejax.data.digits_gru(jnp.{args.dtype})"]
    else:
        options = [printable(args.model).__repr__()]
        options += [f"prefix={args.prefix!r}"] if args.prefix is not None else []
        options += ["activation=jax.nn.relu"] if args.activation == "relu" else []
        lines += [
            f"cell = lejax.interop.{network_reader(args.model).__name__}"
            f"({', '.join([*options, f'dtype=jnp.{args.dtype}'])})"
        ]
    lines += ["state = cell.initial_state()", *_load_inputs(args, problem)]
    return "\n".join(lines)


def _load_inputs(args: Namespace, problem: Problem) -> list[str]:
    if args.inputs is None and args.model is None:
        return [f"inputs = lejax.data.digits_inputs(jnp.{args.dtype})"]
    if args.inputs is None:
        return [f"inputs = jnp.zeros({problem.inputs.shape}, jnp.{args.dtype})"]
    name, suffix = printable(args.inputs), Path(args.inputs).suffix.lower()
    if suffix == ".csv":
        load = [f'array = np.loadtxt({name!r}, delimiter=",", ndmin=2, encoding="utf-8-sig")']
    elif suffix == ".parquet":
        load = ["import pandas", f"array = pandas.read_parquet({name!r}).to_numpy()"]
    elif suffix == ".npy":
        load = [f"array = np.load({name!r})"]
    elif suffix == ".npz":
        load = [f"(array,) = np.load({name!r}).values()"]
    else:
        load = [
            "import safetensors.numpy",
            f"(array,) = safetensors.numpy.load_file({name!r}).values()",
        ]
    return ["", "import numpy as np", *load, f"inputs = jnp.asarray(array, jnp.{args.dtype})"]
