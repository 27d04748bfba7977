"""Stacked layers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, PyTree

from .._core.cell import Cell, RecurrentCell, TimedCell, initial_state, is_traced, output, time_step
from .._core.check_annotations import checked
from .._engine.blocks import BlockTriangularCell, tangent_blocks


class Stack(RecurrentCell, TimedCell, BlockTriangularCell):
    r"""Stacked layers: the input of each layer is the new output of the layer below.

    $$h_1' = F_1(u, h_1), \quad h_i' = F_i(y_{i-1}(h_{i-1}'), h_i)$$

    The state is the tuple of the states of the layers, the output that of the last layer. No layer feeds a lower one,
    so the exponents of the stack are those of its layers, each driven by the layers below; `lyapunov_spectrum` computes
    them layer by layer.

    **Arguments:**

    - `layers`: a list of cells with the same time step (1 for a cell that is no `TimedCell`).

    **Raises:**

    - `TypeError`: if `layers` is not a list of cells.
    - `ValueError`: if there are no layers, or time steps differ.

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
            # NumPy, because JAX traces comparisons of constants under jit.
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
            layer_state, layer_blocks = tangent_blocks(layer, input, old)
            new.append(layer_state)
            blocks.extend(layer_blocks)
            input = output(layer, layer_state)
        return tuple(new), tuple(blocks)

    def _check(self, state):
        """Refuse a state of another number of layers."""
        if len(state) != len(self.layers):
            raise ValueError(
                f"the stack has {len(self.layers)} layers, the state {len(state)}; it must be a tuple of the "
                "layers' states."
            )

    def time_step(self) -> float | Array:
        return time_step(self.layers[0])

    def initial_state(self) -> tuple[PyTree, ...]:
        return tuple(initial_state(layer) for layer in self.layers)

    def output(self, state):
        return output(self.layers[-1], state[-1])
