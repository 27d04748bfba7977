"""The checkpoint folder of a sweep: one file for the sweep and one for each finished batch."""

import os
from pathlib import Path

import jax
import numpy as np

from .._core import checkpoint as checkpoints


_HEAD = "sweep.npz"


class SweepFolder:
    """A folder whose files belong to one sweep."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = checkpoints.to_path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"checkpoint must be a folder, but {str(self.path)!r} is a file.")
        self.path.mkdir(parents=True, exist_ok=True)
        checkpoints.remove_unfinished(self.path)
        self.identity: checkpoints.Identity = {}

    def batch_size(self) -> int | None:
        """The batch size of the sweep that began this folder, `None` in a new folder."""
        head = self.path / _HEAD
        if not head.exists():
            return None
        batch_size = checkpoints.read(head).identity.get("batch_size")
        if type(batch_size) is not int or batch_size < 1:
            raise checkpoints.damage_error(head, f"its batch_size is {batch_size!r}")
        return batch_size

    def begin(self, identity: checkpoints.Identity) -> None:
        """Refuse a folder of another sweep, and mark a new one as that of this sweep."""
        self.identity = identity
        head = self.path / _HEAD
        if checkpoints.load(head, identity) is None and jax.process_index() == 0:
            checkpoints.save(head, identity, {})

    def load(self, number: int, rows: list[jax.ShapeDtypeStruct]) -> list[np.ndarray] | None:
        """The results of batch `number`, which must have these shapes and dtypes, or `None` if there are none."""
        path = self._file(number)
        arrays = checkpoints.load(path, self.identity | {"batch": number})
        if arrays is None:
            return None
        expected = {f"{i}": (x.dtype, x.shape) for i, x in enumerate(rows)}
        checkpoints.check_arrays(path, arrays, expected)
        return [arrays[name] for name in expected]

    def save(self, number: int, results: list[np.ndarray]) -> None:
        """Write the results of batch `number`."""
        arrays = {f"{i}": x for i, x in enumerate(results)}
        checkpoints.save(self._file(number), self.identity | {"batch": number}, arrays)

    def _file(self, number: int) -> Path:
        return self.path / f"batch-{number:06d}.npz"
