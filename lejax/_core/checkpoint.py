"""Checkpoints: one `.npz` file that is either whole or absent, and that knows which run it belongs to.

Any number of processes and threads may write and read one file: each writes under a name of its own and then replaces
the file, so that readers see one whole content or another. A path that is a symbolic link is refused, since replacing
it would leave what it points to as it is; folders may be links.
"""

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .. import __version__
from .array_files import load_arrays
from .fingerprint import fingerprint_array, fingerprint_text


_FORMAT = "lejax checkpoint 1"
_HEADER = "header"
_FEW = 4  # so many numbers are shown as they are
_LONGEST = 255  # bytes of a name, on common file systems
_UNFINISHED = ".lejax-{}.tmp"
_ABANDONED = 3600  # seconds after which nobody writes to an unfinished file any more

Identity = dict[str, Any]
"""What makes a run this one: names and JSON values, the simplest first."""


class Content(NamedTuple):
    identity: Identity
    arrays: dict[str, np.ndarray]


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path of a checkpoint that can be written, before anything runs; clears what killed runs left beside it."""
    path = to_path(path)
    if path.suffix != ".npz":
        raise ValueError(f"checkpoint must be a path that ends in .npz, got {str(path)!r}.")
    if len(os.fsencode(path.name)) > _LONGEST:
        raise ValueError(
            f"the name of checkpoint {str(path)!r} has {len(os.fsencode(path.name))} bytes, more than {_LONGEST}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of checkpoint {str(path)!r} does not exist.")
    _refuse_link(path)
    clear(path.parent)
    return path


def to_path(path: str | os.PathLike[str]) -> Path:
    """What the user gave as a path that a file system could know."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"checkpoint must be a path, got {path!r}.")
    if "\0" in os.fspath(path):
        raise ValueError(f"checkpoint {os.fspath(path)!r} holds a NUL, which no path can.")
    return Path(path)


def clear(folder: Path) -> None:
    """Remove the unfinished files of processes that were killed."""
    for path in folder.glob(_UNFINISHED.format("*")):
        with suppress(OSError):  # another process was first
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                path.unlink()


def identify(name: str, tree: PyTree) -> Identity:
    """Each leaf of a pytree: few numbers as they are, more as a fingerprint of their bytes."""
    return {
        name + jtu.keystr(path): _describe(leaf)
        for path, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf) or not callable(leaf)  # functions are part of the program
    }


def fingerprint(text: str) -> str:
    """A few letters that stand for a long text."""
    return f"with fingerprint {fingerprint_text(text)}"


def save(path: Path, identity: Identity, arrays: dict[str, np.ndarray]) -> None:
    """Replace the file at once: whoever is killed here leaves the old one or the new one."""
    _refuse_link(path)
    header = {
        "format": _FORMAT,
        "lejax": __version__,
        "identity": identity,
        "dtypes": {name: array.dtype.name for name, array in arrays.items()},
    }
    plain: dict[str, Any] = {name: a.view(_stored(a.dtype)) for name, a in arrays.items()}
    plain[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    beside = path.with_name(_UNFINISHED.format(secrets.token_hex(8)))
    try:
        with beside.open("xb") as file:  # a new file, through no link
            np.savez(file, **plain)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def load(path: Path, identity: Identity) -> dict[str, np.ndarray] | None:
    """The arrays of a checkpoint of the same run, or `None` if there is no file."""
    if not path.exists():
        return None
    content = read(path)
    check_same(path, content.identity, identity, {**identity, **content.identity})
    return content.arrays


def check_same(path: Path, theirs: Identity, ours: Identity, names: Iterable[str]) -> None:
    """Refuse a checkpoint that differs in one of the names."""
    ours = json.loads(json.dumps(ours))
    for name in names:
        here, there = ours.get(name, "absent"), theirs.get(name, "absent")
        if here != there:
            raise ValueError(
                f"checkpoint {str(path)!r} belongs to another run: its {name} is {there}, but here it is {here}. Delete it or "
                "name another."
            )


def read(path: Path) -> Content:
    """What a checkpoint holds, whatever run it belongs to."""
    arrays = load_arrays(path)
    try:
        header = json.loads(arrays.pop(_HEADER).tobytes())
        if header["format"] != _FORMAT:
            raise ValueError(header["format"])
        dtypes = {name: jnp.dtype(dtype) for name, dtype in header["dtypes"].items()}
        identity = dict(header["identity"])
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a {_FORMAT}.") from error
    if arrays.keys() != dtypes.keys():
        odd = min(arrays.keys() ^ dtypes.keys())
        raise damaged(path, f"its {odd} is {'missing' if odd in dtypes else 'not in its header'}")
    for name, array in arrays.items():
        if _stored(dtypes[name]) != array.dtype:
            raise damaged(path, f"its {name} is {array.dtype}, but its header says {dtypes[name]}")
    return Content(identity, {name: a.view(dtypes[name]) for name, a in arrays.items()})


def check_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    expected: Mapping[str, tuple[Any, tuple[int, ...]]],
) -> None:
    """Refuse contents other than these: by name a dtype or a kind of dtypes, and a shape."""
    if arrays.keys() != expected.keys():
        odd = min(arrays.keys() ^ expected.keys())
        raise damaged(path, f"it {'lacks' if odd in expected else 'also holds'} {odd}")
    for name, (kind, shape) in expected.items():
        array = arrays[name]
        right = array.dtype == kind if isinstance(kind, np.dtype) else None
        if right is None:
            right, kind = jnp.issubdtype(array.dtype, kind), kind.__name__
        if array.shape != shape or not right:
            here = f"{array.dtype}{list(array.shape)}"
            raise damaged(path, f"its {name} is {here}, where {kind}{list(shape)} is needed")


def damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"checkpoint {str(path)!r} is damaged: {reason}.")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(
            f"checkpoint {str(path)!r} is a symbolic link, which would be replaced; give the path of its target."
        )


def _stored(dtype: np.dtype) -> np.dtype:
    """NumPy's file format does not know bfloat16 and its kin."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(leaf: Any) -> Any:
    if not eqx.is_array(leaf):
        return repr(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return f"a key {_describe(jr.key_data(leaf))}"
    kind = f"{leaf.dtype}{list(leaf.shape)}"
    if leaf.size <= _FEW:
        return f"{kind} {np.asarray(leaf).tolist()}"
    return f"{kind} with fingerprint {fingerprint_array(leaf)}"
