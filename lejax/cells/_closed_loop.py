"""A loop closed through a readout."""

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
    r"""A driven cell fed with its own readout: an autonomous system.

    $$h' = F(g(h), h)$$

    **Arguments:** `cell`, and `readout` g from the cell's output (`cell.output(state)` of a cell of lejax, that of the last
    layer of a stack, h of an LSTM of Equinox, else the state) to its input; an `eqx.Module`, so that its weights are
    leaves. Noise goes around the loop: `NoisyCell(ClosedLoop(cell, readout), scale)`. Without a bias the zero state may be a
    fixed point, which tells nothing of the loop: start from a state that an input has driven.

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
        shown = output(self.cell, state)
        try:
            fed = self.readout(shown)
        except (TypeError, ValueError) as error:
            raise StepError(
                f"the readout failed on what {name_of(self.cell)} shows, {describe(shown)}. It said: {error}"
            ) from error
        try:
            return self.cell(fed, state)
        except StepError:
            raise
        except (TypeError, ValueError) as error:
            raise StepError(
                f"{name_of(self.cell)} failed on {describe(fed)}, which the readout returned. It said: {error}"
            ) from error

    def time_step(self) -> float | Array:
        return time_step(self.cell)

    def initial_state(self) -> PyTree:
        return initial_state(self.cell)

    def output(self, state):
        return self.readout(output(self.cell, state))
