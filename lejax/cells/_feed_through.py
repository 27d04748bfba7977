"""A cell whose output contains its input."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.cell import (
    Cell,
    RecurrentCell,
    TimedCell,
    dtype_of,
    initial_state,
    name_of,
    output,
    time_step,
)
from .._core.check_annotations import checked
from .._core.check_cell import StepError, describe
from .._core.check_values import check_count
from .._engine.blocks import BlockTriangularCell, ForgottenBlock, tangent_blocks
from ._drive import check_input


class FeedThrough(RecurrentCell, TimedCell, BlockTriangularCell):
    r"""A cell whose output is that of another cell with the last input behind it: direct feed-through.

    $$(h, u_{last})' = (F(u, h), u), \qquad \text{output } [y(h), u_{last}]$$

    A readout of it reads states and inputs, as in reservoirs: $y_t = W [h_t; u_t] + b$. Closed through such a readout g
    it is the autonomous system $u' = g([y(h), u])$, $h' = F(u', h)$. Driven by inputs that do not depend on the state
    it has the exponents of the cell, and $-\infty$ for the I components of $u_{last}$, which the next step does not
    read.

    **Arguments:**

    - `cell`: F, whose output is one vector.
    - `input_size`: the number of inputs I, at least 1.

    **Raises:**

    - `ValueError`: if an input does not have shape (I,).
    - `TypeError`: if the output of the cell is not one vector.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> from lejax.cells import ClosedLoop, EchoStateCell, FeedThrough, fit_readout
        >>> series = jnp.sin(0.3 * jnp.arange(600.0))[:, None]
        >>> cell = FeedThrough(EchoStateCell(1, 40, input_scale=0.5, key=jax.random.key(0)), 1)
        >>> states = lejax.unroll(cell, cell.initial_state(), series[:-1])
        >>> outputs = jax.vmap(cell.output)(states)
        >>> readout = fit_readout(outputs[100:], series[101:], penalty=1e-6)
        >>> loop = ClosedLoop(cell, readout)
        >>> last = jax.tree.map(lambda x: x[-1], states)
        >>> forecast = jax.vmap(loop.output)(lejax.unroll(loop, last, num_steps=20))
        >>> bool(jnp.abs(forecast[:, 0] - jnp.sin(0.3 * jnp.arange(600.0, 620.0))).max() < 0.1)
        True

    Jaeger, GMD Report 148 (2001).
    """

    cell: Cell
    input_size: int = eqx.field(static=True)

    @checked
    def __init__(self, cell: Cell, input_size: int):
        self.cell = cell
        self.input_size = check_count("input_size", input_size, 1)

    def __call__(self, input: Float[Array, " i"], state: tuple[PyTree, Array]) -> tuple:
        input = check_input(self.input_size, input)
        return self.cell(input, state[0]), jnp.asarray(input, state[1].dtype)

    def blocks(self, input, state):
        input = check_input(self.input_size, input)
        new_state, blocks = tangent_blocks(self.cell, input, state[0])
        new_input = jnp.asarray(input, state[1].dtype)
        return (new_state, new_input), (*blocks, ForgottenBlock(self.input_size))

    def time_step(self) -> float | Array:
        return time_step(self.cell)

    def initial_state(self) -> tuple[PyTree, Float[Array, " i"]]:
        state = initial_state(self.cell)
        return state, jnp.zeros(self.input_size, dtype_of(state))

    def output(self, state):
        cell_output, last_input = output(self.cell, state[0]), state[1]
        if getattr(cell_output, "ndim", None) != 1:
            raise StepError(
                f"the output of {name_of(self.cell)} must be one vector for a FeedThrough, got {describe(cell_output)}."
            )
        return jnp.concatenate([cell_output, last_input])
