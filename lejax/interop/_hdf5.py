"""Read arrays from HDF5 files that may be hostile: links are not followed out of the file, and sizes are compared.

Only what Keras writes is read: hard links, and arrays that are stored in one piece without filters, whose size the file
therefore bounds. h5py is imported when a file is opened.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._core.array_files import damaged
from ._weights import Refused


MAX_DEPTH, MAX_GROUPS, MAX_ARRAYS = 20, 10_000, 100
# What h5py raises on damaged files.
_DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


class Hdf5:
    """An open file."""

    def __init__(self, file: Any, size: int):
        self.file, self.size = file, size

    def datasets(self, path: str) -> dict[str, Any] | None:
        """The arrays of a group by name, to be read by `[()]`, or `None` if there is no such group."""
        group = self.file
        for name in path.split("/"):
            if group.get(name, getlink=True) is None:  # `name in group` would follow the link
                return None
            group = self._follow(group, name)
        if len(group) > MAX_ARRAYS:
            raise Refused(f"{path[:100]!r} has {len(group)} parts, more than {MAX_ARRAYS}")
        return {name: self._check(self._follow(group, name), f"{path}/{name}") for name in group}

    def groups(self) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
        """The path of each group and the shapes of the arrays in it."""
        pending, seen = [("", self.file)], 0
        while pending:
            path, group = pending.pop()
            shapes = {}
            for name in group:
                seen += 1
                if seen > MAX_GROUPS or path.count("/") > MAX_DEPTH:
                    raise Refused(
                        f"it holds more than {MAX_GROUPS} entries or groups nested more than {MAX_DEPTH} deep"
                    )
                member = self._follow(group, name)
                if hasattr(member, "shape"):
                    shapes[name] = member.shape
                else:
                    pending.append((f"{path}/{name}", member))
            yield path.lstrip("/"), shapes

    def _follow(self, group: Any, name: str) -> Any:
        kind = type(group.get(name, getlink=True)).__name__
        if kind != "HardLink":
            raise Refused(f"{f'{group.name}/{name}'[:100]!r} is a link ({kind}) to somewhere else")
        return group[name]

    def _check(self, dataset: Any, path: str) -> Any:
        """The same array, if its bytes lie in the file as one piece."""
        if not hasattr(dataset, "shape") or dataset.shape is None:
            raise Refused(f"{path[:100]!r} is not an array")
        stored, needed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
        if dataset.dtype.kind not in "biufV" or dataset.dtype.hasobject:
            raise Refused(f"{path[:100]!r} has dtype {dataset.dtype}, not numbers")
        if dataset.chunks or dataset.compression or dataset.external or dataset.is_virtual:
            raise Refused(
                f"{path[:100]!r} is chunked, compressed or elsewhere, but Keras stores arrays in one piece"
            )
        if stored != needed or needed > self.size:
            raise Refused(
                f"{path[:100]!r} declares {needed} bytes, but {stored} are stored in a file of {self.size}"
            )
        return dataset


@contextlib.contextmanager
def open_hdf5(path: Path, source: Path | bytes) -> Iterator[Hdf5]:
    """An HDF5 file, or the bytes of one that is a part of the file at `path`.

    **Raises:** in the body too, `ValueError` with the name of the file if something is refused or damaged.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"h5py reads {str(path)!r}, but it is not installed: pip install 'lejax[interop]'.",
            name="h5py",
        ) from error
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    try:
        with h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r") as file:
            yield Hdf5(file, size)
    except Refused as error:
        raise ValueError(f"{str(path)!r} is not read: {error}.") from error
    except _DAMAGE as error:
        raise damaged(path, error) from error
