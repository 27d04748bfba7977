"""The trajectory of a cell."""

import jax
from jaxtyping import PyTree

from .._core.cell import Cell, first_input, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, check_step
from .._core.closures import compiled


@checked
def unroll(
    cell: Cell, state: PyTree, inputs: PyTree = None, *, num_steps: int | None = None
) -> PyTree:
    r"""The trajectory of a cell.

    $$h_{t+1} = F(u_t, h_t)$$

    **Arguments:**

    - `cell`: `cell(input, state) -> state`.
    - `state`: the starting state $h_0$, a pytree of real floating-point arrays.
    - `inputs`: a pytree of arrays with time as first axis, or `None`, the default, for an autonomous cell.
    - `num_steps`: T, how many steps; required when `inputs` is `None`, else the length of the inputs by default.

    **Returns:** the states $h_1 .. h_T$, a pytree like `state` with a leading axis T; $h_0$ is not part of it. A
    diverging trajectory holds inf or NaN from the step on at which it leaves the floating-point numbers.

    **Raises:**

    - `ValueError`: if neither `inputs` nor `num_steps` is given, or the inputs are shorter than `num_steps`.
    - `TypeError`: if the cell does not accept the state and an input, or changes its state's structure, shapes or
        dtypes.

    **Numerics:** T calls of the cell, and memory for all T states.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.unroll(lejax.systems.Logistic(4.0), jnp.array(0.25), num_steps=3)
        Array([0.75, 0.75, 0.75], dtype=...)
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, 0)
    return _unroll(cell, state, inputs, num_steps)


@compiled
def _unroll(cell, state, inputs, num_steps):
    check_step(cell, first_input(inputs), state)
    state = vary_with(state, (cell, inputs))

    def body(state, input):
        with jax.default_matmul_precision("highest"):
            state = cell(input, state)
        return state, state

    return jax.lax.scan(body, state, inputs, length=num_steps)[1]
