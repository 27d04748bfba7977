"""The identity of a long run: everything that decides the bits of its result."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from .. import __version__
from .._core import checkpoint as checkpoints
from .._core.cell import Cell, TangentCell, first_input, name_of
from .._core.check_cell import check_step
from .._core.closures import close, holds_functions
from .._core.fingerprint import fingerprint_program
from ._chunks import Layout


def identify_run(
    cell: Cell, state, inputs, dt, method, frame, key, num_exponents, layout: Layout
) -> checkpoints.Identity:
    """Names and values that must agree for a run to continue from a checkpoint.

    Numbers come first, so that an error names them rather than a fingerprint.
    """
    input = first_input(inputs)
    check_step(cell, input, state)
    numbers = layout._asdict()
    may_stop = numbers.pop("may_stop")
    program = fingerprint_program(_tangent_step, cell, input, state)
    return {
        "kind": "a long run" + (" with a tolerance" if may_stop else ""),
        "version of lejax": __version__,
        "version of JAX": jax.__version__,
        **numbers,
        "num_exponents": num_exponents,
        "method": " ".join(eqx.tree_pformat(method, short_arrays=False).split()),
        **checkpoints.identify("dt", np.asarray(dt)),
        **checkpoints.identify("state", state),
        **checkpoints.identify("frame", frame),
        **checkpoints.identify("key", key),
        **checkpoints.identify("cell", cell),
        **checkpoints.identify("cell reads", _captured_arrays(cell, input, state)),
        "cell": f"{name_of(cell)} with fingerprint {program}",
        **checkpoints.identify("inputs", inputs),
    }


def _captured_arrays(cell: Cell, input: PyTree, state: PyTree) -> list[Array]:
    """The arrays that functions of a cell read and that are not leaves of the cell."""
    if not holds_functions(cell):
        return []
    return jax.tree.leaves(eqx.filter(close(cell, input, state), eqx.is_array))


def _tangent_step(cell: Cell, input: PyTree, state: PyTree) -> PyTree:
    """One step of the state and one tangent vector, by the cell's own rule where it has one."""
    if isinstance(cell, TangentCell):
        return cell.push_forward(input, state, jax.tree.map(lambda x: x[..., None], state))
    return jax.jvp(lambda state: cell(input, state), (state,), (state,))
