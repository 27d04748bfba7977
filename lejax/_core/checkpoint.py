"""Checkpoints: `.npz` files that are always complete and that name the run they belong to.

Any number of processes and threads may write and read one file: each writes to an unfinished file of its own, which
then replaces the checkpoint, so that a reader sees the complete old content or the complete new one. A path that is a
symbolic link is refused: replacing the link would not change its target. Folders may be links.
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
_MAX_LISTED = 4  # arrays of so many numbers are stored in the identity as they are, larger ones as a fingerprint
_MAX_NAME_BYTES = 255  # on common file systems
_UNFINISHED = ".lejax-{}.tmp"
_ABANDONED = 3600  # seconds after which an unfinished file is no longer being written

# What distinguishes a run from others: names and JSON values, the simplest first.
Identity = dict[str, Any]


class Content(NamedTuple):
    """The identity of a run and its arrays by name."""

    identity: Identity
    arrays: dict[str, np.ndarray]


def prepare_path(path: str | os.PathLike[str]) -> Path:
    """The path of a checkpoint, checked before a run starts. Unfinished files of killed runs are removed."""
    path = to_path(path)
    if path.suffix != ".npz":
        raise ValueError(f"checkpoint must be a path that ends in .npz, got {str(path)!r}.")
    if len(os.fsencode(path.name)) > _MAX_NAME_BYTES:
        raise ValueError(
            f"the name of checkpoint {str(path)!r} has {len(os.fsencode(path.name))} bytes, more than "
            f"{_MAX_NAME_BYTES}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of checkpoint {str(path)!r} does not exist.")
    _refuse_link(path)
    remove_unfinished(path.parent)
    return path


def to_path(path: str | os.PathLike[str]) -> Path:
    """The argument as a path that a file system accepts."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"checkpoint must be a path, got {path!r}.")
    if "\0" in os.fspath(path):
        raise ValueError(f"checkpoint {os.fspath(path)!r} holds a NUL, which paths cannot hold.")
    return Path(path)


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files that killed processes have left."""
    for path in folder.glob(_UNFINISHED.format("*")):
        with suppress(OSError):  # another process has removed it
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                path.unlink()


def identify(name: str, tree: PyTree) -> Identity:
    """The leaves of a pytree by path: small arrays as they are, larger ones as a fingerprint of their bytes."""
    return {
        name + jtu.keystr(path): _describe(leaf)
        for path, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf) or not callable(leaf)  # functions are part of the program
    }


def fingerprint(text: str) -> str:
    """A long text as a short phrase with its hash."""
    return f"with fingerprint {fingerprint_text(text)}"


def save(path: Path, identity: Identity, arrays: dict[str, np.ndarray]) -> None:
    """Replace the file in one step: a process that is killed leaves the complete old file or the complete new one."""
    _refuse_link(path)
    header = {
        "format": _FORMAT,
        "lejax": __version__,
        "identity": identity,
        "dtypes": {name: array.dtype.name for name, array in arrays.items()},
    }
    plain: dict[str, Any] = {name: a.view(_stored_dtype(a.dtype)) for name, a in arrays.items()}
    plain[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    unfinished = path.with_name(_UNFINISHED.format(secrets.token_hex(8)))
    try:
        with unfinished.open("xb") as file:  # fails if the file exists, also as a link
            np.savez(file, **plain)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def load(path: Path, identity: Identity) -> dict[str, np.ndarray] | None:
    """The arrays of a checkpoint of the same run, or `None` if there is no file."""
    if not path.exists():
        return None
    content = read(path)
    check_identity(path, content.identity, identity, {**identity, **content.identity})
    return content.arrays


def check_identity(path: Path, stored: Identity, current: Identity, names: Iterable[str]) -> None:
    """Refuse a checkpoint whose identity differs in one of the names from that of the current run."""
    current = json.loads(json.dumps(current))
    for name in names:
        here, there = current.get(name, "absent"), stored.get(name, "absent")
        if here != there:
            raise ValueError(
                f"checkpoint {str(path)!r} belongs to another run: its {name} is {there}, but here it is {here}. "
                "Delete it or name another."
            )


def read(path: Path) -> Content:
    """The content of a checkpoint of any run."""
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
        name = min(arrays.keys() ^ dtypes.keys())
        problem = "missing" if name in dtypes else "not in its header"
        raise damage_error(path, f"its {name} is {problem}")
    for name, array in arrays.items():
        if _stored_dtype(dtypes[name]) != array.dtype:
            raise damage_error(
                path, f"its {name} is {array.dtype}, but its header says {dtypes[name]}"
            )
    return Content(identity, {name: a.view(dtypes[name]) for name, a in arrays.items()})


def check_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    expected: Mapping[str, tuple[Any, tuple[int, ...]]],
) -> None:
    """Refuse arrays whose names, dtypes or shapes are not the expected ones; an abstract dtype allows several."""
    if arrays.keys() != expected.keys():
        name = min(arrays.keys() ^ expected.keys())
        raise damage_error(path, f"it {'lacks' if name in expected else 'also holds'} {name}")
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if isinstance(dtype, np.dtype):
            has_dtype = array.dtype == dtype
        else:
            has_dtype, dtype = jnp.issubdtype(array.dtype, dtype), dtype.__name__
        if array.shape != shape or not has_dtype:
            found = f"{array.dtype}{list(array.shape)}"
            raise damage_error(path, f"its {name} is {found}, where {dtype}{list(shape)} is needed")


def damage_error(path: Path, reason: str) -> ValueError:
    """The error for a checkpoint that cannot be used."""
    return ValueError(f"checkpoint {str(path)!r} is damaged: {reason}.")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(
            f"checkpoint {str(path)!r} is a symbolic link, which would be replaced; give the path of its target."
        )


def _stored_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in the file: unsigned integers stand for bfloat16 and the like, which NumPy's format lacks."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # other systems cannot open a folder
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
    if leaf.size <= _MAX_LISTED:
        return f"{kind} {np.asarray(leaf).tolist()}"
    return f"{kind} with fingerprint {fingerprint_array(leaf)}"
