r"""What cells share whose memory is linear in itself and whose output reads the input too.

The output is a part of the state, where a loop that is closed through it, or a layer above, finds it. The next step does not
read it: each of its numbers adds an exponent of $-\infty$.
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
        following, blocks = self._step(check_input(self._input_size, input), state[:-1])
        return following, (*blocks, ForgottenBlock(following[-1].size))

    def output(self, state):
        return state[-1]
