"""The abstract base class of cells with a linear memory, and an output that depends on memory and input.

The output is a part of the state, where a loop or the next layer finds it. The next step does not read it, so each of
its components adds an exponent of minus infinity.
"""

import abc

from jaxtyping import Array, Float, PyTree

from .._core.cell import RecurrentCell
from .._engine.blocks import Block, BlockTriangularCell, ForgottenBlock
from ._drive import check_input


class MemoryCell(RecurrentCell, BlockTriangularCell):
    """A cell whose state is (*memory, output)."""

    @property
    @abc.abstractmethod
    def _input_size(self) -> int:
        raise NotImplementedError

    @abc.abstractmethod
    def _step(
        self, input: Float[Array, " i"], memory: tuple[Array, ...]
    ) -> tuple[PyTree, tuple[Block, ...]]:
        """The new state, and the blocks of the memory."""
        raise NotImplementedError

    def __call__(self, input: Float[Array, " i"], state: PyTree) -> PyTree:
        return self._step(check_input(self._input_size, input), state[:-1])[0]

    def blocks(self, input, state):
        new_state, blocks = self._step(check_input(self._input_size, input), state[:-1])
        return new_state, (*blocks, ForgottenBlock(new_state[-1].size))

    def output(self, state):
        return state[-1]
