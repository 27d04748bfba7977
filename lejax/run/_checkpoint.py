"""The checkpoint of a long run: where and how often its position is saved."""

import os
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import PyTree

from .._core import checkpoint as checkpoints
from .._core.cell import is_traced
from .._core.check_annotations import check_fields
from ._chunks import Layout
from ._position import Position, from_arrays, to_arrays


class Checkpoint(eqx.Module):
    """The file of a `long_run`, and the time between two writes.

    **Arguments:**

    - `path`: a path that ends in `.npz` and is not a symbolic link.
    - `seconds`: the least time between two writes in seconds, for runs whose chunks take less. Default: 0, a write
        after each chunk.

    **Raises:**

    - `ValueError`: if `seconds` is negative or NaN.

    !!! example

        >>> import lejax
        >>> lejax.run.Checkpoint("henon.npz", seconds=60)
        Checkpoint(path='henon.npz', seconds=60)
    """

    path: str | os.PathLike[str] = eqx.field(static=True)
    seconds: float = 0.0

    def __check_init__(self):
        check_fields(self)
        if not is_traced(self.seconds) and not self.seconds >= 0:
            raise ValueError(f"seconds must not be negative, got {self.seconds}.")


class CheckpointFile:
    """The file of one run."""

    def __init__(self, path: Path, seconds: float, identity: checkpoints.Identity):
        self.path = path
        self.seconds = seconds
        self.identity = identity
        self.written = -np.inf

    def load(self, like: PyTree, num_directions: int, layout: Layout) -> Position | None:
        """The position in the file, or `None` if there is no file."""
        arrays: dict[str, Any] | None = checkpoints.load(self.path, self.identity)
        if arrays is None:
            return None
        return from_arrays(self.path, arrays, like, num_directions, layout)

    def save(self, position: Position, is_last: bool) -> None:
        """Write the position, unless the last write is too recent. The last position is always written."""
        if is_last or time.monotonic() - self.written >= self.seconds:
            checkpoints.save(self.path, self.identity, to_arrays(position))
            self.written = time.monotonic()
