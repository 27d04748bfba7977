"""A run with vectors: its checked arguments, its start, and the error raised if it is not finite."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, dtype_of, is_traced, size_of, time_step
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions, check_positive
from .._core.status import RESULTS, raise_failure
from .._engine.orthonormalize import Exact, orthonormalize
from .._engine.push import CellPush, tangent_dtype
from .._engine.tangent_dynamics import open_dense, random_frame


class Steps(NamedTuple):
    """The lengths of the three parts of a run, in the order of time."""

    transient: int
    counted: int
    backward: int


class VectorRun(NamedTuple):
    """The checked arguments of a run with vectors."""

    cell: Cell
    state: PyTree
    inputs: PyTree
    dt: Float[Array, ""] | np.ndarray
    num_vectors: int
    steps: Steps


def check_run(
    cell: Cell,
    state: PyTree,
    inputs: PyTree,
    num_exponents: int | None,
    num_steps: int | None,
    transient: int,
    backward_transient: int,
    dt: float | Array | None,
) -> VectorRun:
    """Check the arguments that all functions of vectors share."""
    state = check_state(state)
    backward = check_count("backward_transient", backward_transient, 0)
    if num_steps is not None:
        num_steps = check_count("num_steps", num_steps, 1) + backward
    inputs, both = check_inputs(inputs, num_steps, transient)
    if both <= backward:
        raise ValueError(
            f"backward_transient ({backward}) leaves nothing to report: after the transient there are {both} steps."
        )
    count = size_of(state) if num_exponents is None else num_exponents
    count = check_directions("num_exponents", count, state)
    duration = check_positive("dt", time_step(cell) if dt is None else dt)
    duration = jnp.asarray(duration) if eqx.is_array(duration) else np.asarray(duration)
    steps = Steps(int(transient), both - backward, backward)
    return VectorRun(cell, state, inputs, duration, count, steps)


def open_run(
    run: VectorRun, key: PRNGKeyArray | None
) -> tuple[CellPush, Float[Array, " d"], Float[Array, "d k"], PRNGKeyArray]:
    """The push, the raveled state, a random orthonormal frame, and its key."""
    dtype = tangent_dtype(dtype_of(run.state))
    key = jr.key(0) if key is None else key
    random = random_frame(key, size_of(run.state), run.num_vectors, dtype)
    push, vector, frame = open_dense(run.cell, run.state, run.inputs, random)
    return push, vector, orthonormalize(Exact(), frame).columns, key


def raise_if_nonfinite(
    numbers: Float[Array, "..."], cell: Cell, state: PyTree, inputs: PyTree
) -> None:
    """Raise the error of a run that is not finite if any of its `numbers` is NaN."""
    if not is_traced(numbers) and np.any(np.isnan(numbers)):
        raise_failure(RESULTS.nonfinite, cell, state, inputs)
