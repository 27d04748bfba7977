"""Cells made of cells: layers on top of each other, and a loop closed through a readout."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._blocks import BlockTriangularCell, tangent_blocks
from .._cell import Cell, RecurrentCell, TimedCell, is_traced, name_of, time_step
from .._check import StepError, describe
from .._signature import checked


def output(cell: Cell, state: PyTree) -> PyTree:
    """What a cell shows of its state: `cell.output(state)`, h of an Equinox LSTM's (h, c), else all of it."""
    if isinstance(cell, RecurrentCell):
        return cell.output(state)
    return state[0] if isinstance(cell, eqx.nn.LSTMCell) else state


def initial_state(cell: Cell) -> PyTree:
    """Zeros for a cell that says how many, or for a cell of Equinox."""
    if isinstance(cell, RecurrentCell):
        return cell.initial_state()
    if isinstance(cell, eqx.nn.GRUCell | eqx.nn.LSTMCell):
        zeros = jnp.zeros(cell.hidden_size, cell.weight_hh.dtype)
        return (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros
    raise TypeError(
        f"{name_of(cell)} does not say its initial state: let it inherit from lejax.RecurrentCell and have a method "
        "initial_state()."
    )


class Stack(RecurrentCell, TimedCell, BlockTriangularCell):
    """Layers on top of each other: each takes as input the new output of the one below.

    Nothing flows down, so the exponents of the stack are those of its layers, each driven by the ones below:
    `lyapunov_spectrum` computes them layer by layer.

    **Arguments:** `layers`, a sequence of cells. The state is the tuple of the layers' states; the output is
    that of the last layer. Layers must share their time step (1 for a cell that is no `TimedCell`).

    !!! example

        >>> import equinox as eqx, jax, jax.numpy as jnp, lejax
        >>> key1, key2 = jax.random.split(jax.random.key(0))
        >>> stack = lejax.cells.Stack([eqx.nn.LSTMCell(3, 8, key=key1), eqx.nn.GRUCell(8, 5, key=key2)])
        >>> spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), jnp.ones((100, 3)))
        >>> spectrum.exponents.shape
        (21,)
    """

    layers: tuple[Cell, ...]

    @checked
    def __init__(self, layers: Sequence[Cell]):
        if not isinstance(layers, Sequence) or not all(map(callable, layers)):
            raise TypeError(
                f"layers of a Stack must be a list of cells, got {type(layers).__name__}."
            )
        self.layers = tuple(layers)
        if not self.layers:
            raise ValueError("a Stack needs at least one layer, got none.")
        first = time_step(self.layers[0])
        for i, layer in enumerate(self.layers):
            step = time_step(layer)
            # NumPy: under jit even a comparison of constants would be traced.
            if not is_traced((first, step)) and np.any(np.asarray(step) != np.asarray(first)):
                raise ValueError(
                    f"layers of a Stack must share their time step, but layer 0 has {first} and layer {i} {step}."
                )

    def __call__(self, input: PyTree, state: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
        self._check(state)
        new = []
        for layer, old in zip(self.layers, state, strict=True):
            new.append(layer(input, old))
            input = output(layer, new[-1])
        return tuple(new)

    def blocks(self, input, state):
        self._check(state)
        new, blocks = [], []
        for layer, old in zip(self.layers, state, strict=True):
            following, own = tangent_blocks(layer, input, old)
            new.append(following)
            blocks.extend(own)
            input = output(layer, following)
        return tuple(new), tuple(blocks)

    def _check(self, state):
        if len(state) != len(self.layers):
            raise ValueError(
                f"the stack has {len(self.layers)} layers, the state {len(state)}; it must be a tuple of the layers' states."
            )

    def time_step(self) -> float | Array:
        return time_step(self.layers[0])

    def initial_state(self) -> tuple[PyTree, ...]:
        return tuple(initial_state(layer) for layer in self.layers)

    def output(self, state):
        return output(self.layers[-1], state[-1])


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
