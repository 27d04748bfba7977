"""The chunks of a long run: how its steps and blocks are distributed over calls of `lyapunov_spectrum`."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .._core.statistics import block_lengths


class Chunk(NamedTuple):
    """One call of `lyapunov_spectrum`.

    **Fields:**

    - `steps`: its steps.
    - `blocks`: its blocks.
    - `counted`: whether its steps count; those of the transient do not.
    """

    steps: int
    blocks: int
    counted: bool = True


class Layout(NamedTuple):
    """The division of a run into chunks.

    **Fields:**

    - `transient`: steps that do not count.
    - `num_steps`: the steps after them, or the most of them for a run that may stop early.
    - `num_blocks`: blocks of the run, or the fewest for one that may stop early.
    - `chunk_steps`: about the steps of a chunk, or exactly for a run that may stop early.
    - `may_stop`: whether the run may stop after any chunk. Then each chunk has `num_blocks` blocks.
    """

    transient: int
    num_steps: int
    num_blocks: int
    chunk_steps: int
    may_stop: bool

    def block_ends(self) -> Int[np.ndarray, " b"]:
        """The counted steps at which the blocks are complete, before any blocks of a run that may stop are joined."""
        if self.may_stop:
            length = self.chunk_steps // self.num_blocks
            return length * np.arange(1, 2 * self.num_blocks + 1)
        return np.cumsum(block_lengths(self.num_steps, self.num_blocks))

    def starts_at(self, step: int) -> bool:
        """Whether a chunk begins at `step`, or the run ends there."""
        if step == self.transient + self.num_steps:
            return True
        start = 0
        for chunk in self._chunks():
            if start >= step:
                break
            start += chunk.steps
        return start == step

    def chunks_from(self, step: int) -> Iterator[Chunk]:
        """The chunks that begin at `step` or later."""
        start = 0
        for chunk in self._chunks():
            if start >= step:
                yield chunk
            start += chunk.steps

    def _chunks(self) -> Iterator[Chunk]:
        return itertools.chain(self._transient_chunks(), self._counted_chunks())

    def _transient_chunks(self) -> Iterator[Chunk]:
        # They have the shape of the first counted chunk, which is compiled anyway; the remainder comes first.
        first = next(self._counted_chunks())
        if first.steps == self.num_steps:
            first = Chunk(self.chunk_steps, 1)
        repeats, remainder = divmod(self.transient, first.steps)
        if remainder:
            yield Chunk(remainder, 1, counted=False)
        yield from itertools.repeat(first._replace(counted=False), repeats)

    def _counted_chunks(self) -> Iterator[Chunk]:
        if self.may_stop:
            yield from self._chunks_of_all_blocks()
            return
        lengths = block_lengths(self.num_steps, self.num_blocks)
        longest, shortest = int(lengths[0]), int(lengths[-1])
        parts = min(-(-longest // self.chunk_steps), shortest)  # each has at least one step
        if parts > 1:
            for length in lengths.tolist():
                steps, longer = divmod(length, parts)
                yield from itertools.repeat(Chunk(steps + 1, 1), longer)
                yield from itertools.repeat(Chunk(steps, 1), parts - longer)
            return
        blocks = max(1, self.chunk_steps // longest)
        # The longer blocks come first, so one call divides its steps into the same blocks.
        for i in range(0, self.num_blocks, blocks):
            group = lengths[i : i + blocks]
            yield Chunk(int(group.sum()), len(group))

    def _chunks_of_all_blocks(self) -> Iterator[Chunk]:
        length = self.chunk_steps // self.num_blocks
        repeats, rest = divmod(self.num_steps, self.chunk_steps)
        yield from itertools.repeat(Chunk(self.chunk_steps, self.num_blocks), repeats)
        blocks, rest = divmod(rest, length)
        if blocks:
            yield Chunk(blocks * length, blocks)
        if rest:
            yield Chunk(rest, 1)
