r"""Block triangular Jacobians: the exponents are those of the diagonal blocks, each block with frames of its own.

If every Jacobian along a trajectory is block triangular in the same order of blocks, so is their product, and its
Lyapunov exponents are the union of those of the products of the diagonal blocks. Here is what a cell says of its
blocks, how a step pushes them, and how they lie in the frame of a report. Most cells are one dense block.
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
from .frames import DenseFrame, DiagonalFrame, Frames, fill
from .push import CellPush, make_push, tangent_map


def log_modulus(values: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """log |x|, with a derivative of 0 at 0: an infinite one would make even those of other exponents NaN."""
    size = jnp.abs(values)
    is_zero = size == 0
    return jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, size)))


class DiagonalBlock(NamedTuple):
    """A diagonal block of a Jacobian, by the logarithms of the moduli of its entries: they are summed, without a frame.

    What decays by $e^{-a}$ has $-a$, exactly, even where $e^{-a}$ is below the smallest number. Of a complex mode stored as
    a real pair give it twice: a rotation stretches nothing. `DiagonalBlock.of_entries` takes the entries themselves.
    """

    log_moduli: Float[Array, " n"]

    @classmethod
    def of_entries(cls, entries: Float[Array, " n"]) -> "DiagonalBlock":
        """By the entries, of any sign."""
        return cls(log_modulus(entries))

    def open(self, start: int, random: Float[Array, "d k"]) -> DiagonalFrame:
        return DiagonalFrame(
            log_growth=jnp.zeros_like(random, shape=self.log_moduli.size), start=start
        )

    def push(self, frame: DiagonalFrame) -> DiagonalFrame:
        return frame.plus(self.log_moduli)


class ForgottenBlock(NamedTuple):
    r"""Numbers of the state that the next step does not read, such as an output: their exponents are $-\infty$.

    They stand in the state where the order of the blocks says.
    """

    size: int

    def open(self, start: int, random: Float[Array, "d k"]) -> DiagonalFrame:
        return DiagonalFrame(log_growth=jnp.zeros_like(random, shape=self.size), start=start)

    def push(self, frame: DiagonalFrame) -> DiagonalFrame:
        return frame.plus(-jnp.inf)


class DenseBlock(NamedTuple):
    """A diagonal block of a Jacobian as the linear map `tangent(columns (n, k)) -> (n, k)`; `size` is n.

    `multiplicity` m: the block stands m times in the Jacobian, as in the Kronecker product of it with an identity.
    """

    tangent: Callable[[Float[Array, "n k"]], Float[Array, "n k"]]
    size: int
    multiplicity: int = 1

    def open(self, start: int, random: Float[Array, "d k"]) -> DenseFrame:
        rows = slice(start, start + self.size * self.multiplicity, self.multiplicity)
        return DenseFrame(
            columns=random[rows, : self.size], start=start, multiplicity=self.multiplicity
        )

    def push(self, frame: DenseFrame) -> DenseFrame:
        return frame.with_columns(self.tangent(frame.columns).astype(frame.columns.dtype))


Block = DiagonalBlock | DenseBlock | ForgottenBlock


def open_frames(
    blocks: Sequence[Block], random: Float[Array, "d k"], frame: Float[Array, "d k"] | None = None
) -> Frames:
    """The frames of the blocks of a step, which hold k directions of each block at most: those that make up `frame`, and
    random ones where it has none. They are not orthonormal yet."""
    frames, start = [], 0
    for block in blocks:
        if not isinstance(block, Block):
            raise TypeError(
                "blocks(input, state) must return the new state and a tuple of DiagonalBlock, DenseBlock or ForgottenBlock, "
                f"got a block {type(block).__name__}."
            )
        frames.append(block.open(start, random))
        start += frames[-1].size
    if start != random.shape[0]:
        raise ValueError(
            f"the blocks hold {start} directions in all, but the state has {random.shape[0]} numbers."
        )
    return tuple(frames) if frame is None else fill(tuple(frames), frame)


class BlockTriangularCell(eqx.Module):
    r"""A cell whose Jacobian is block triangular, always in the same order of blocks.

    `lyapunov_spectrum` then computes the exponents of the diagonal blocks, which are all of them: a stack of layers
    costs the sum of its layers, a diagonal recurrence no orthonormalization at all. A block is a `DiagonalBlock`, a `DenseBlock`
    or a `ForgottenBlock`; what they say is believed. To check it, compare with the spectrum of the plain function
    `lambda input, state: cell(input, state)`. Sizes times multiplicities must add
    up to the state's, and the state may be any coordinates: blocks of a basis in which the Jacobian is triangular do.

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
        raise NotImplementedError

    @abc.abstractmethod
    def blocks(self, input: PyTree, state: PyTree) -> tuple[PyTree, tuple[Block, ...]]:
        """The new state and the diagonal blocks of the Jacobian of this step."""
        raise NotImplementedError


def tangent_blocks(cell: Cell, input: PyTree, state: PyTree) -> tuple[PyTree, tuple[Block, ...]]:
    """The new state and the diagonal blocks of any cell; one dense block if it says nothing of them."""
    if isinstance(cell, BlockTriangularCell):
        return cell.blocks(input, state)
    vector, unravel = ravel(state)
    following, tangent = tangent_map(cell, input, vector, unravel)

    def of_columns(columns):  # those of a layer that is less precise than another are too
        return tangent(columns.astype(vector.dtype))

    return unravel(following), (DenseBlock(of_columns, vector.size),)


class BlockPush(eqx.Module):
    """`push(input, vector, frames) -> (vector, frames)`: the step and the tangent maps of all blocks."""

    whole: CellPush

    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frames: Frames
    ) -> tuple[Float[Array, " d"], Frames]:
        if not isinstance(self.whole.cell, BlockTriangularCell):
            (frame,) = frames
            following, columns = self.whole(input, vector, frame.columns)
            return following, (frame.with_columns(columns),)
        following, blocks = self.blocks(input, vector)
        with jax.default_matmul_precision("highest"):
            pushed = [block.push(frame) for block, frame in zip(blocks, frames, strict=True)]
        return following, tuple(pushed)

    def step(self, input: PyTree, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.whole.step(input, vector)

    def outline(self, input: PyTree, vector: Float[Array, " d"]) -> tuple[Block, ...]:
        """The blocks as they lie in the frame, for their kinds and sizes."""
        return self.blocks(input, vector)[1]

    def to_blocks(self, frame: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """A frame of a report with its rows in the order of the blocks."""
        return frame

    def from_blocks(self, frame: Float[Array, "d k"]) -> Float[Array, "d k"]:
        return frame

    def blocks(
        self, input: PyTree, vector: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], tuple[Block, ...]]:
        """The new state and the blocks, in the tangent's precision."""
        cell, high_input, point, unravel = self.whole.raised(input, vector)
        with jax.default_matmul_precision("highest"):
            following, blocks = tangent_blocks(cell, high_input, unravel(point))
        following = ravel(following)[0]
        return self.whole.own_precision(input, vector, following), blocks


class _ClosedPush(eqx.Module):
    """A push by two functions that read all they read from leaves of their own."""

    whole: Callable
    step: Callable

    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frames: Frames
    ) -> tuple[Float[Array, " d"], Frames]:
        return self.whole(input, vector, frames)


def close_push(
    push: BlockPush, input: PyTree, vector: Float[Array, " d"], frames: Frames
) -> BlockPush | _ClosedPush:
    """The same push, closed if it holds somebody's function."""
    if not holds_functions(push):
        return push
    return _ClosedPush(close(push, input, vector, frames), close(push.step, input, vector))


def make_block_push(cell: Cell, state: PyTree) -> BlockPush:
    return BlockPush(make_push(cell, state))
