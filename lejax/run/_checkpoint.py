"""Checkpoints: one `.npz` file that is either whole or absent, and that knows which run it belongs to."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .._array_files import load_arrays
from .._fingerprint import fingerprint_array


_FORMAT = "lejax checkpoint 1"
_HEADER = "header"
_FEW = 4  # so many numbers are shown as they are

Identity = dict[str, Any]
"""What makes a run this one: names and JSON values, the simplest first."""


class Content(NamedTuple):
    identity: Identity
    arrays: dict[str, np.ndarray]


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path of a checkpoint that can be written, before anything runs."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"checkpoint must be a path that ends in .npz, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of checkpoint {str(path)!r} does not exist.")
    return path


def identify(name: str, tree: PyTree) -> Identity:
    """Each leaf of a pytree: few numbers as they are, more as a fingerprint of their bytes."""
    return {
        name + jtu.keystr(path): _describe(leaf)
        for path, leaf in jtu.tree_leaves_with_path(tree)
        if eqx.is_array(leaf) or not callable(leaf)  # functions are part of the program
    }


def save(path: Path, identity: Identity, arrays: dict[str, np.ndarray]) -> None:
    """Replace the file at once: whoever is killed here leaves the old one or the new one."""
    header = {
        "format": _FORMAT,
        "identity": identity,
        "dtypes": {name: array.dtype.name for name, array in arrays.items()},
    }
    plain: dict[str, Any] = {name: _without_extension(array) for name, array in arrays.items()}
    plain[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        np.savez(file, **plain)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
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
                f"checkpoint {str(path)!r} belongs to another run: its {name} is {there}, but here it is {here}."
            )


def read(path: Path) -> Content:
    """What a checkpoint holds, whatever run it belongs to."""
    arrays = load_arrays(path)
    try:
        header = json.loads(arrays.pop(_HEADER).tobytes())
        if header["format"] != _FORMAT:
            raise ValueError(header["format"])
        dtypes = {name: jnp.dtype(header["dtypes"][name]) for name in arrays}
        identity = dict(header["identity"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a {_FORMAT}.") from error
    return Content(identity, {name: a.view(dtypes[name]) for name, a in arrays.items()})


def _without_extension(array: np.ndarray) -> np.ndarray:
    """NumPy's file format does not know bfloat16 and its kin."""
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


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
