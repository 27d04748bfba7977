r"""Block triangular Jacobians: the exponents are those of the diagonal blocks, each with a frame of its own.

If all Jacobians along a trajectory are block triangular in the same order of blocks, so is their product, and its
Lyapunov exponents are those of the products of the diagonal blocks. This file defines the blocks that a cell declares
and how a step pushes their frames. Most cells have one dense block.
"""

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PyTree

from .._core.cell import Cell, check_bases, ravel
from .._core.closures import close, holds_functions
from .directions import split_frame
from .frames import DenseFrame, DiagonalFrame, Frames
from .push import CellPush, make_push, tangent_map


def log_modulus(values: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """log |x|, with a derivative of 0 at 0: an infinite one would make the derivatives of all exponents NaN."""
    size = jnp.abs(values)
    is_zero = size == 0
    return jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, size)))


class DiagonalBlock(NamedTuple):
    """A diagonal block of a Jacobian that is itself diagonal: logarithms are summed, without a frame.

    **Arguments:**

    - `log_moduli`: (n,), log |x| for each entry x of the diagonal. An entry that decays as $e^{-a}$ has $-a$,
        exactly, even where $e^{-a}$ is below the smallest number. A complex mode stored as a real pair contributes
        its log modulus twice.

    **Methods:**

    - `DiagonalBlock.of_entries(entries)`: the block with these entries (n,), of any sign.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.DiagonalBlock.of_entries(jnp.array([-1.0, 0.0])).log_moduli
        Array([  0., -inf], dtype=...)
    """

    log_moduli: Float[Array, " n"]

    @classmethod
    def of_entries(cls, entries: Float[Array, " n"]) -> "DiagonalBlock":
        """The block with these entries, of any sign."""
        return cls(log_modulus(entries))

    def open(self, start: int, random: Float[Array, "d k"]) -> DiagonalFrame:
        """The frame of the block, whose first number has the index `start`."""
        return DiagonalFrame.open(random, self.log_moduli.size, start)

    def push(self, frame: DiagonalFrame) -> DiagonalFrame:
        """The frame after this step."""
        return frame.plus(self.log_moduli)


class ForgottenBlock(NamedTuple):
    r"""Numbers of the state that the next step does not read, such as an output: their exponents are $-\infty$.

    **Arguments:**

    - `size`: how many numbers, which lie in the state where the order of the blocks puts them.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Remember(lejax.BlockTriangularCell):  # (x, the x before)
        ...     def __call__(self, input, state):
        ...         return jnp.stack([0.5 * state[0], state[0]])
        ...
        ...     def blocks(self, input, state):
        ...         diagonal = lejax.DiagonalBlock.of_entries(jnp.array([0.5]))
        ...         return self(input, state), (diagonal, lejax.ForgottenBlock(1))
        >>> lejax.lyapunov_spectrum(Remember(), jnp.ones(2), num_steps=50).exponents.round(4)
        Array([-0.6931,    -inf], dtype=...)
    """

    size: int

    def open(self, start: int, random: Float[Array, "d k"]) -> DiagonalFrame:
        """The frame of the block, whose first number has the index `start`."""
        return DiagonalFrame.open(random, self.size, start)

    def push(self, frame: DiagonalFrame) -> DiagonalFrame:
        """The frame after this step."""
        return frame.plus(-jnp.inf)


class DenseBlock(NamedTuple):
    """A diagonal block of a Jacobian as a linear map.

    **Arguments:**

    - `tangent`: `tangent(columns) -> columns`, the block times any number of columns (n, k).
    - `size`: n, rows of the block.
    - `multiplicity`: m, where the block stands m times in the Jacobian, as in its Kronecker product with an identity:
        number i of copy j is number `i * m + j` of the block's part of the state. 1 by default.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Twice(lejax.BlockTriangularCell):  # one matrix acts on the rows of a state (2, 3)
        ...     matrix: jnp.ndarray
        ...
        ...     def __call__(self, input, state):
        ...         return self.matrix @ state
        ...
        ...     def blocks(self, input, state):
        ...         return self(input, state), (lejax.DenseBlock(lambda x: self.matrix @ x, 2, 3),)
        >>> cell = Twice(jnp.array([[0.5, 1.0], [0.0, 0.25]]))
        >>> spectrum = lejax.lyapunov_spectrum(cell, jnp.ones((2, 3)), num_steps=400, transient=100)
        >>> (spectrum.exponents / jnp.log(0.5)).round(4)
        Array([1., 1., 1., 2., 2., 2.], dtype=...)
    """

    tangent: Callable[[Float[Array, "n k"]], Float[Array, "n k"]]
    size: int
    multiplicity: int = 1

    def open(self, start: int, random: Float[Array, "d k"]) -> DenseFrame:
        """The frame of the block, whose first number has the index `start`, with columns from a random frame."""
        rows = slice(start, start + self.size * self.multiplicity, self.multiplicity)
        return DenseFrame(
            columns=random[rows, : self.size], start=start, multiplicity=self.multiplicity
        )

    def push(self, frame: DenseFrame) -> DenseFrame:
        """The frame after this step."""
        return frame.with_columns(self.tangent(frame.columns).astype(frame.columns.dtype))


Block = DiagonalBlock | DenseBlock | ForgottenBlock


def open_frames(
    blocks: Sequence[Block], random: Float[Array, "d k"], frame: Float[Array, "d k"] | None = None
) -> Frames:
    """The frames of the blocks of a step, which are not orthonormal yet and hold up to k directions of each block.

    They are columns of `frame`, and random ones where it has none of a block.
    """
    frames, start = [], 0
    for block in blocks:
        if not isinstance(block, Block):
            raise TypeError(
                "blocks(input, state) must return the new state and a tuple of DiagonalBlock, DenseBlock or "
                f"ForgottenBlock, got a block {type(block).__name__}."
            )
        frames.append(block.open(start, random))
        start += frames[-1].size
    if start != random.shape[0]:
        raise ValueError(
            f"the blocks hold {start} directions in all, but the state has {random.shape[0]} numbers."
        )
    return tuple(frames) if frame is None else split_frame(tuple(frames), frame)


class BlockTriangularCell(eqx.Module):
    r"""A cell whose Jacobian is block triangular, always in the same order of blocks.

    `lyapunov_spectrum` then computes the exponents of the diagonal blocks, which are all exponents: a stack of layers
    costs the sum of its layers, a diagonal recurrence no orthonormalization at all. A subclass of your own must define

    - `__call__(input, state) -> state`, the step.
    - `blocks(input, state) -> (state, blocks)`: the new state, and a tuple with a `DiagonalBlock`, a `DenseBlock` or a
        `ForgottenBlock` for each diagonal block of the Jacobian of this step.

    Sizes times multiplicities must add up to d, the numbers of the state. The numbers of the state lie in the order of
    the blocks, or the blocks are those in another basis, in which the Jacobian is triangular. Blocks are not checked:
    to check them, compare with the spectrum of the plain function `lambda input, state: cell(input, state)`. A
    subclass is final: a class that inherits from it could replace the step and keep its blocks, and is refused.

    **Raises:**

    - `TypeError`: if a class inherits from a concrete subclass; from a run, if `blocks` returns anything but blocks.
    - `ValueError`: from a run, if the sizes of the blocks do not add up to d.

    !!! example

        >>> import equinox as eqx, jax.numpy as jnp, lejax
        >>> class Decay(lejax.BlockTriangularCell):
        ...     rate: jnp.ndarray
        ...
        ...     def __call__(self, input, state):
        ...         return self.rate * state
        ...
        ...     def blocks(self, input, state):
        ...         return self(input, state), (lejax.DiagonalBlock.of_entries(self.rate),)
        >>> cell = Decay(jnp.array([0.5, 0.25]))
        >>> lejax.lyapunov_spectrum(cell, jnp.ones(2), num_steps=3).exponents / jnp.log(0.5)
        Array([1., 2.], dtype=...)

    Barreira & Pesin, Lyapunov Exponents and Smooth Ergodic Theory (2002), section 1.3.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        check_bases(cls, BlockTriangularCell, "blocks")

    @abc.abstractmethod
    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        """The new state."""
        raise NotImplementedError

    @abc.abstractmethod
    def blocks(self, input: PyTree, state: PyTree) -> tuple[PyTree, tuple[Block, ...]]:
        """The new state and the diagonal blocks of the Jacobian of this step."""
        raise NotImplementedError


def tangent_blocks(cell: Cell, input: PyTree, state: PyTree) -> tuple[PyTree, tuple[Block, ...]]:
    """The new state and the diagonal blocks of any cell: one dense block if it declares none."""
    if isinstance(cell, BlockTriangularCell):
        return cell.blocks(input, state)
    vector, unravel = ravel(state)
    new_vector, tangent = tangent_map(cell, input, vector, unravel)

    def push_columns(columns):  # frames of a layer may be more precise than the layer
        return tangent(columns.astype(vector.dtype))

    return unravel(new_vector), (DenseBlock(push_columns, vector.size),)


class BlockPush(eqx.Module):
    """`push(input, vector, frames) -> (vector, frames)`: a step and the tangent maps of its diagonal blocks.

    **Fields:**

    - `cell_push`: the step and its tangent map as one block.
    """

    cell_push: CellPush

    @abc.abstractmethod
    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frames: Frames
    ) -> tuple[Float[Array, " d"], Frames]:
        raise NotImplementedError

    @abc.abstractmethod
    def layout(self, input: PyTree, vector: Float[Array, " d"]) -> tuple[Block, ...]:
        """The blocks in their order, for their types and sizes."""
        raise NotImplementedError

    def step(self, input: PyTree, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        """One step of the state alone."""
        return self.cell_push.step(input, vector)

    def to_blocks(self, frame: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """A frame of a report with its rows in the order of the blocks."""
        return frame

    def from_blocks(self, frame: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """A frame of a report, with its rows in the order of the state."""
        return frame


class DeclaredPush(BlockPush):
    """The push of the blocks that a cell declares: one dense block, unless it is a `BlockTriangularCell`.

    **Fields:**

    - `cell_push`: as for `BlockPush`.
    """

    def __call__(self, input, vector, frames):
        if not isinstance(self.cell_push.cell, BlockTriangularCell):
            (frame,) = frames
            new_vector, columns = self.cell_push(input, vector, frame.columns)
            return new_vector, (frame.with_columns(columns),)
        new_vector, blocks = self._blocks(input, vector)
        with jax.default_matmul_precision("highest"):
            pushed = [block.push(frame) for block, frame in zip(blocks, frames, strict=True)]
        return new_vector, tuple(pushed)

    def layout(self, input, vector):
        return self._blocks(input, vector)[1]

    def _blocks(
        self, input: PyTree, vector: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], tuple[Block, ...]]:
        """The new state and the blocks, in the tangent's precision."""
        cell, promoted_input, point, unravel = self.cell_push.promoted(input, vector)
        with jax.default_matmul_precision("highest"):
            new_state, blocks = tangent_blocks(cell, promoted_input, unravel(point))
        new_point = ravel(new_state)[0]
        return self.cell_push.new_vector(input, vector, new_point), blocks


class _ClosedPush(eqx.Module):
    """A push by two functions that hold all that they read as leaves.

    **Fields:**

    - `push`: `push(input, vector, frames) -> (vector, frames)`.
    - `step`: `step(input, vector) -> vector`.
    """

    push: Callable
    step: Callable

    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frames: Frames
    ) -> tuple[Float[Array, " d"], Frames]:
        return self.push(input, vector, frames)


def close_push(
    push: BlockPush, input: PyTree, vector: Float[Array, " d"], frames: Frames
) -> BlockPush | _ClosedPush:
    """The push; if it holds a user's function, one that holds all that the function reads as leaves (`close`)."""
    if not holds_functions(push):
        return push
    return _ClosedPush(close(push, input, vector, frames), close(push.step, input, vector))


def make_block_push(cell: Cell, state: PyTree) -> DeclaredPush:
    """The push of a cell for states like `state`, with the blocks that the cell declares."""
    return DeclaredPush(make_push(cell, state))
