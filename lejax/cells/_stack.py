"""Layers on top of each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, PyTree

from .._core.cell import Cell, RecurrentCell, TimedCell, initial_state, is_traced, output, time_step
from .._core.check_annotations import checked
from .._engine.blocks import BlockTriangularCell, tangent_blocks


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
