"""A cell fed back with its own readout."""

from collections.abc import Callable

from jaxtyping import Array, PyTree

from .._core.cell import (
    Cell,
    RecurrentCell,
    TimedCell,
    initial_state,
    name_of,
    output,
    time_step,
)
from .._core.check_annotations import checked
from .._core.check_cell import StepError, describe


class ClosedLoop(RecurrentCell, TimedCell):
    r"""A driven cell whose input is its own readout: an autonomous system.

    $$h' = F(g(y(h)), h)$$

    The readout g receives the output y(h) of the cell: `cell.output(state)` for a cell of lejax, that of the last layer
    for a stack, h for an LSTM of Equinox, else the state. If the readout reads the input too, as in reservoirs, close
    the loop around a `FeedThrough`, whose output is [y(h), u].

    **Arguments:**

    - `cell`: F, a driven cell.
    - `readout`: g, from the output of the cell to its input; an `eqx.Module`, so that its weights are leaves, or a
        function.

    **Raises:**

    - `TypeError`: if the readout cannot be called; at a step, if the readout or the cell fails on what it gets, or an
        input is given.

    **Numerics:** noise belongs around the loop, `NoisyCell(ClosedLoop(cell, readout), scale)`. Without a bias the zero
    state may be a fixed point, whose exponents say nothing about the network: start from a state of a driven run.

    !!! example

        >>> import equinox as eqx, jax, lejax
        >>> key1, key2 = jax.random.split(jax.random.key(0))
        >>> loop = lejax.cells.ClosedLoop(eqx.nn.GRUCell(3, 8, key=key1), eqx.nn.Linear(8, 3, key=key2))
        >>> lejax.lyapunov_spectrum(loop, loop.initial_state(), num_steps=100).exponents.shape
        (8,)
    """

    cell: Cell
    readout: Callable[[PyTree], PyTree]

    @checked
    def __init__(self, cell: Cell, readout: Callable[[PyTree], PyTree]):
        if not callable(readout):
            raise TypeError(
                f"readout must be a function or an eqx.Module that can be called, got {type(readout).__name__}."
            )
        self.cell, self.readout = cell, readout

    def __call__(self, input: None, state: PyTree) -> PyTree:
        if input is not None:
            raise TypeError("a ClosedLoop makes its own input; call it with input=None.")
        cell_output = output(self.cell, state)
        try:
            cell_input = self.readout(cell_output)
        except (TypeError, ValueError) as error:
            raise StepError(
                f"the readout failed on the output of {name_of(self.cell)}, {describe(cell_output)}. It said: {error}"
            ) from error
        try:
            return self.cell(cell_input, state)
        except StepError:
            raise
        except (TypeError, ValueError) as error:
            raise StepError(
                f"{name_of(self.cell)} failed on {describe(cell_input)}, which the readout returned. It said: {error}"
            ) from error

    def time_step(self) -> float | Array:
        return time_step(self.cell)

    def initial_state(self) -> PyTree:
        return initial_state(self.cell)

    def output(self, state):
        return self.readout(output(self.cell, state))
