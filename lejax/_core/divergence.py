"""Why a run left the floating-point numbers, as far as what went in tells."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .cell import Cell, TimedCell, first_input, name_of, ravel, time_step
from .check_values import find_nonfinite


def advice_on_divergence(cell: Cell, state: PyTree, inputs: PyTree) -> str:
    """What went in that was bad, or else what to try."""
    culprits = (find_nonfinite(name_of(cell), cell), find_nonfinite("state", state))
    culprit = next(filter(None, (*culprits, find_nonfinite("inputs", inputs))), None)
    if culprit:
        return f" {culprit}."
    substeps, is_timed = getattr(cell, "substeps", None), isinstance(cell, TimedCell)
    if is_timed and substeps is not None:  # a Flow
        return (
            f" The step of Runge-Kutta may be too long for {name_of(getattr(cell, 'vector_field', cell))}: here "
            f"dt={time_step(cell)} and substeps={substeps}; take a smaller dt or more substeps."
        )
    if _is_linear(cell, state, inputs):
        return (
            f" {name_of(cell)} is linear in its state, which grew beyond the floats. The exponents do not depend on it: "
            "start at zeros."
        )
    return ""


def _is_linear(cell: Cell, state: PyTree, inputs: PyTree) -> bool:
    """Whether the first step takes twice the state to twice the new one."""
    input = first_input(inputs)
    vector, unravel = ravel(state)
    # Under jit a step says nothing of its own if it fails.
    step = jax.jit(lambda vector: ravel(cell(input, unravel(vector)))[0])
    once, twice = step(vector), step(2 * vector)
    return bool(jnp.allclose(twice, 2 * once, rtol=1e-3, atol=0) & jnp.any(once != 0))
