"""How a long run is cut into chunks."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from .._core.statistics import block_lengths


class Chunk(NamedTuple):
    steps: int
    blocks: int
    counted: bool = True  # not so in the transient


class Layout(NamedTuple):
    """How a run is cut into chunks.

    **Fields:**

    - `together`: Whether each chunk has all the blocks, as in a run that may stop after any of them.
    """

    transient: int
    num_steps: int
    num_blocks: int
    chunk_steps: int
    together: bool

    def starts_at(self, step: int) -> bool:
        """Whether a chunk begins at `step`, or the run ends there."""
        if step == self.transient + self.num_steps:
            return True
        start = 0
        for chunk in itertools.chain(self._skipped(), self._counted()):
            if start >= step:
                break
            start += chunk.steps
        return start == step

    def chunks_from(self, step: int) -> Iterator[Chunk]:
        """The chunks that begin at `step` or later."""
        start = 0
        for chunk in itertools.chain(self._skipped(), self._counted()):
            if start >= step:
                yield chunk
            start += chunk.steps

    def _skipped(self) -> Iterator[Chunk]:
        # In chunks of the first counted shape, which is compiled anyway, after what is left over.
        first = next(self._counted())
        if first.steps == self.num_steps:
            first = Chunk(self.chunk_steps, 1)
        repeats, left_over = divmod(self.transient, first.steps)
        if left_over:
            yield Chunk(left_over, 1, counted=False)
        yield from itertools.repeat(first._replace(counted=False), repeats)

    def _counted(self) -> Iterator[Chunk]:
        if self.together:
            yield from self._counted_together()
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
        together = max(1, self.chunk_steps // longest)
        # Consecutive blocks have the longer ones first, so one call with as many blocks makes the same ones.
        for i in range(0, self.num_blocks, together):
            group = lengths[i : i + together]
            yield Chunk(int(group.sum()), len(group))

    def _counted_together(self) -> Iterator[Chunk]:
        length = self.chunk_steps // self.num_blocks
        repeats, rest = divmod(self.num_steps, self.chunk_steps)
        yield from itertools.repeat(Chunk(self.chunk_steps, self.num_blocks), repeats)
        blocks, rest = divmod(rest, length)
        if blocks:
            yield Chunk(blocks * length, blocks)
        if rest:
            yield Chunk(rest, 1)
