"""Read the tensors of a `.pt` or `.pth` file, the zip archive that `torch.save` writes, without running its pickle.

The archive holds a pickle of dictionaries, `ROOT/data.pkl`, whose tensors are views of the numbers in `ROOT/data/KEY`.
"""

import functools
import math
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._core.array_files import check_file, load_arrays, open_stored, read_member
from .._core.cell import importer_of
from ._pickle_machine import Name, interpret
from ._weights import Refused


SUFFIXES = (".pt", ".pth")
# How deep dictionaries may be nested, and how many entries are looked at.
MAX_DEPTH, MAX_ENTRIES = 20, 100_000
MAX_NAME = 500  # letters

_STORAGES = {
    "BFloat16Storage": jnp.bfloat16,
    "HalfStorage": np.float16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "ShortStorage": np.int16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
}
_DTYPES = {
    *("bfloat16", "float16", "half", "float32", "float", "float64", "double", "complex64", "complex128"),
    *("bool", "uint8", "int8", "int16", "short", "int32", "int", "int64", "long"),
}  # fmt: skip


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers, as the offset

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def read_state_dict(arrays: Any) -> Mapping[str, Any]:
    """A mapping of names to arrays as it is, or that of a `.pt`, `.pth`, `.safetensors` or `.npz` file."""
    if isinstance(arrays, str | os.PathLike):
        path = Path(arrays)
        return load_tensors(path) if path.suffix.lower() in SUFFIXES else load_arrays(path)
    if not isinstance(arrays, Mapping):
        hint, importer = "", importer_of(arrays)
        if hasattr(arrays, "state_dict"):
            hint = "; pass its state_dict()"
        elif importer is not None:
            hint = f"; make a cell of it, lejax.interop.{importer}"
        elif isinstance(arrays, eqx.Module):
            hint = ", a module of Equinox: if it maps (input, state) to the new state, it is a cell as it is"
        raise TypeError(f"arrays must be a mapping or a path, got {type(arrays).__name__}{hint}.")
    return arrays


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that `torch.save` wrote, by name; names of nested dictionaries are joined by dots.

    **Arguments:**

    - `path`: the file.

    **Returns:** a dictionary of NumPy arrays. What is not a tensor is omitted: step counters, lists of settings.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if the file has another format or is damaged, or if its pickle asks for anything but dictionaries,
        lists, numbers, text and tensors.
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(4)
    if start and start[:2] != b"PK":
        raise ValueError(
            f"{str(path)!r} is not the zip archive that torch.save writes since PyTorch 1.6: where it can be trusted, "
            "write it anew by torch.save(torch.load(file, weights_only=True), file)."
        )

    def check_names(names):
        if any(name.endswith("/constants.pkl") for name in names):
            raise ValueError(
                f"{str(path)!r} is a program of torch.jit.save or torch.export, not a state dict: "
                "torch.save(model.state_dict(), file) writes one."
            )

    archive, members = open_stored(path, "torch.save", check_names)
    with archive:
        return _load(path, archive, members)


def _load(
    path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> dict[str, np.ndarray]:
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    roots = [root for root in roots if root.count("/") == 1]
    if len(roots) != 1:
        raise ValueError(
            f"{str(path)!r} holds {len(roots)} pickles named */data.pkl, but torch.save writes one."
        )
    root = roots[0]
    order = b"little"
    if f"{root}byteorder" in members:
        order = read_member(path, archive, members[f"{root}byteorder"])
    if order not in (b"little", b"big"):
        raise ValueError(f"{str(path)!r} has the byte order {order[:20]!r}, not little or big.")
    pickle = members[f"{root}data.pkl"]
    try:
        tensors = _name_tensors(_interpret(read_member(path, archive, pickle)), path.stem)
        used = {tensor.storage for tensor in tensors.values()}
        _check_sizes(root, members, tensors, used)
    except Refused as error:
        hint = "; save model.state_dict(), not the model" * ("pickle asks for '" in str(error))
        raise ValueError(f"{str(path)!r} is not read: {error}{hint}.") from error

    @functools.cache
    def numbers(storage: _Storage) -> np.ndarray:
        data = read_member(path, archive, members[f"{root}data/{storage.key}"])
        return _decode(data, storage.dtype, swap=order.decode() != sys.byteorder)

    return {name: _view(tensor, numbers(tensor.storage)) for name, tensor in tensors.items()}


# --- the pickle


def _interpret(data: bytes) -> Any:
    return interpret(
        data,
        functions={
            ("collections", "OrderedDict"): _new_dict,
            ("torch._utils", "_rebuild_tensor_v2"): _new_tensor,
            ("torch._utils", "_rebuild_parameter"): _new_parameter,
        },
        names=lambda name: name.module == "torch" and name.name in {*_STORAGES, *_DTYPES},
        persistent=_new_storage,
    )


def _new_dict(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise Refused("its pickle makes an OrderedDict of arguments")
    return {}


def _new_storage(identity: Any) -> _Storage:
    if type(identity) is tuple and len(identity) == 5:
        word, kind, key, _, length = identity
        known = word == "storage" and type(kind) is Name and kind.name in _STORAGES
        if known and type(key) is str and type(length) is int and 0 <= length < 2**62:
            return _Storage(key, np.dtype(_STORAGES[kind.name]), length)
    raise Refused("its pickle names a storage that cannot be understood")


def _new_tensor(*arguments: Any) -> _Tensor:
    if len(arguments) < 4:
        raise Refused(f"its pickle makes a tensor of {len(arguments)} arguments")
    # The seventh says whether the numbers are stored with another sign, or as their complex conjugates.
    if any(arguments[6:]):
        raise Refused(
            "it holds a view that negates or conjugates; save its .resolve_neg() or .resolve_conj()"
        )
    storage, offset, shape, strides = arguments[:4]
    counts = [shape, strides] if type(shape) is type(strides) is tuple else []
    numbers = [offset, *(n for count in counts for n in count)]
    if (
        type(storage) is not _Storage
        or not counts
        or len(shape) != len(strides)
        or len(shape) > 32
        or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers)
    ):
        raise Refused("its pickle makes a tensor whose shape cannot be understood")
    if math.prod(n or 1 for n in shape) >= 2**60:
        raise Refused(f"its pickle makes a tensor of shape {shape}")
    tensor = _Tensor(storage, offset, shape, strides)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if tensor.size and last >= storage.length:
        raise Refused(
            f"a tensor of shape {shape} and strides {strides} needs {last + 1} numbers of storage "
            f"{storage.key[:20]!r}, which has {storage.length}"
        )
    return tensor


def _new_parameter(*arguments: Any) -> _Tensor:
    if not arguments or type(arguments[0]) is not _Tensor:
        raise Refused("its pickle makes a parameter of something that is not a tensor")
    return arguments[0]


# --- the tensors


def _name_tensors(value: Any, stem: str) -> dict[str, _Tensor]:
    """The tensors by name, in the order of the file; a tensor alone has the name of the file."""
    if type(value) is _Tensor:
        return {stem: value}
    if type(value) is not dict:
        raise Refused(f"it holds a {type(value).__name__} in place of a state dict")
    found: dict[str, _Tensor] = {}
    pending, seen = [(iter(value.items()), "")], 0
    while pending:
        items, prefix = pending[-1]
        for key, entry in items:
            seen += 1
            if seen > MAX_ENTRIES or len(pending) > MAX_DEPTH:
                raise Refused(
                    f"it holds more than {MAX_ENTRIES} entries or dictionaries nested more than {MAX_DEPTH} deep"
                )
            name = f"{prefix}{key}"
            if len(name) > MAX_NAME or name in found:
                raise Refused(f"it holds the name {name[:50]!r} twice, or it is too long")
            if type(entry) is _Tensor:
                found[name] = entry
            elif type(entry) is dict:
                pending.append((iter(entry.items()), f"{name}."))
                break
        else:
            pending.pop()
    return found


def _check_sizes(root: str, members, tensors: dict[str, _Tensor], used: set[_Storage]) -> None:
    """Compare storages with the archive, and the tensors with the storages they share, before anything is read."""
    if len({storage.key for storage in used}) < len(used):
        raise Refused("a storage has two types or two lengths")
    for storage in used:
        member = members.get(f"{root}data/{storage.key}")
        if member is None:
            raise Refused(f"storage {storage.key[:20]!r} is missing")
        needed = storage.length * storage.dtype.itemsize
        if member.file_size != needed:
            raise Refused(
                f"storage {storage.key[:20]!r} declares {needed} bytes but holds {member.file_size}"
            )
    declared = sum(t.size * t.storage.dtype.itemsize for t in tensors.values())
    stored = sum(storage.length * storage.dtype.itemsize for storage in used)
    if declared > 4 * stored:
        raise Refused(
            f"its tensors have {declared} bytes but share storages of {stored}, less than a quarter"
        )


def _decode(data: bytes, dtype: np.dtype, *, swap: bool) -> np.ndarray:
    if not swap:
        return np.frombuffer(data, dtype)
    part = dtype.itemsize // (2 if dtype.kind == "c" else 1)  # bfloat16 has no other byte order
    return np.frombuffer(data, f"u{part}").byteswap().view(dtype)


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    if tensor.size == 0:
        return np.zeros(tensor.shape, numbers.dtype)
    strides = tuple(stride * numbers.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, strides, writeable=False
    )
