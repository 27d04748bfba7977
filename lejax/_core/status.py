"""The status of a run, and the error raised for a run that failed."""

from typing import NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .cell import Cell, TimedCell, first_input, name_of, ravel, time_step
from .check_values import find_nonfinite


class RESULTS(eqx.Enumeration):
    """The status of a run: `successful`, `nonfinite`, `interval_too_long`, `overlap_too_short` or `exponents_ascend`.

    A search by `lejax.training.tune_parameter` also ends with `no_sign_change` or `not_converged`.

    `spectrum.result == RESULTS.successful` is a boolean array, also under `jit` and `vmap`;
    `RESULTS[spectrum.result]` is the sentence that describes the status.
    """

    successful = "The run succeeded."
    nonfinite = (
        "The run left the floating-point numbers: the state or its tangent became NaN or infinite."
    )
    interval_too_long = (
        "Too many steps between orthonormalizations: by the estimate, rounding costs an exponent more than 1e-8 nats "
        "per step (1e-4 in float32). "
        "Use a smaller SequentialQR(every=...), or none: SequentialQR() adapts it. "
        "If the Jacobian is singular, use every=1 or fewer exponents."
    )
    overlap_too_short = (
        "The chunks of ParallelQR still depended on their starting frames: the exponents are biased by more than "
        "twice their standard error. Use a larger overlap or fewer chunks; on a fixed point or a limit cycle frames "
        "may rotate without end: use SequentialQR there."
    )
    exponents_ascend = (
        "Exponents ascend by more than four standard errors: directions that should have taken the lead were lost "
        "in rounding, as happens where parts of the state drive others and have nearly equal exponents. Declare such "
        "parts as a lejax.cells.Stack or a BlockTriangularCell, or write the step so that FoundBlocks can tell them "
        "apart. "
        "If the errors are too small, the run or its transient was too short."
    )
    no_sign_change = (
        "The exponent lies on one side of its target at both ends of the bracket: choose ends between which it crosses "
        "the target."
    )
    not_converged = "The bracket is still wider than the error of the exponent explains: allow more runs by max_runs."


def raise_failure(
    result: RESULTS, cell: Cell, state: PyTree, inputs: PyTree, detail: str = ""
) -> NoReturn:
    """Raise a `RuntimeError` with the sentence of `result`, the `detail` of this run and the remedy."""
    message = RESULTS[result] + detail
    if bool(result == RESULTS.nonfinite):
        message += _advice_on_divergence(cell, state, inputs)
    raise RuntimeError(f"{message} Pass throw=False to receive the result all the same.")


def _advice_on_divergence(cell: Cell, state: PyTree, inputs: PyTree) -> str:
    """The argument that holds non-finite values, or else what to try."""
    for name, argument in ((name_of(cell), cell), ("state", state), ("inputs", inputs)):
        problem = find_nonfinite(name, argument)
        if problem is not None:
            return f" {problem}."
    substeps, is_timed = getattr(cell, "substeps", None), isinstance(cell, TimedCell)
    if is_timed and substeps is not None:  # a Flow
        return (
            f" The step of Runge-Kutta may be too long for {name_of(getattr(cell, 'vector_field', cell))}: here "
            f"dt={time_step(cell)} and substeps={substeps}; take a smaller dt or more substeps."
        )
    if _is_linear(cell, state, inputs):
        return (
            f" {name_of(cell)} is linear in its state, which grew beyond the floats. The exponents do not depend "
            "on it: start at zeros."
        )
    return ""


def _is_linear(cell: Cell, state: PyTree, inputs: PyTree) -> bool:
    """Whether twice the state gives twice the new state in the first step."""
    input = first_input(inputs)
    vector, unravel = ravel(state)
    # Under jit a step that fails prints nothing of its own.
    step = jax.jit(lambda vector: ravel(cell(input, unravel(vector)))[0])
    once, twice = step(vector), step(2 * vector)
    return bool(jnp.allclose(twice, 2 * once, rtol=1e-3, atol=0) & jnp.any(once != 0))
