"""Read arrays from files that may be corrupt or hostile: `.safetensors`, `.npz` and `.npy`; and open zip archives.

Nothing is unpickled, and no header decides alone how much memory is used: an archive may declare at most `MAX_BYTES`,
and at most `MAX_RATIO` times its own size; decompression stops at the declared size, which the array must fill exactly.
"""

import io
import math
import os
import struct
import textwrap
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors


MAX_BYTES, MAX_MEMBERS = 4 * 2**30, 50_000
# An archive of more than `SMALL` unpacked bytes may unpack to so many times its size. Arrays of data reach 1 to 20.
MAX_RATIO = 200
SMALL = 256 * 2**20

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
# Exceptions that zipfile and NumPy's header parser raise on damaged bytes.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a `.safetensors`, `.npz` or `.npy` file, by name.

    **Arguments:**

    - `path`: the file; its suffix decides the format. The array of a `.npy` file has the name of the file.

    **Returns:** a dictionary of NumPy arrays in the machine's byte order. `bfloat16` (in `.safetensors`) is the dtype
    of `ml_dtypes`, which JAX uses too.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if the file has another format or is damaged, if it declares more than 4 GiB or more than 256 MiB
        that are over 200 times its size, or if it holds Python objects.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_file(path)
    if suffix in _PICKLES:
        raise ValueError(
            f"{str(path)!r} has the suffix of a pickle, which can run any code and is never loaded: convert it "
            "where torch is installed, state = torch.load(file, weights_only=True), then "
            "safetensors.torch.save_file(state, 'model.safetensors') or "
            "numpy.savez('model.npz', **{k: v.numpy() for k, v in state.items()})."
        )
    if suffix not in _READERS:
        raise ValueError(
            f"{str(path)!r} has the suffix {suffix!r}; lejax reads {', '.join(_READERS)}."
        )
    check_nonempty(path)
    return _READERS[suffix](path)


def check_file(path: Path) -> None:
    """Refuse a path at which there is no file."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise ValueError(f"{str(path)!r} is {kind}; a file was expected.")


def check_nonempty(path: Path) -> None:
    """Refuse a file without content, and one that is too large to be read."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{str(path)!r} is empty.")
    check_size(path, size)


def check_size(path: Path, size: int) -> None:
    """Refuse more than `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise ValueError(
            f"{str(path)!r} takes {size} bytes, more than the {MAX_BYTES} that lejax reads."
        )


def damaged(path: Path, error: Exception) -> ValueError:
    """The error to raise for a file that a parser did not understand."""
    reason = textwrap.shorten(str(error), 200).rstrip(".")
    return ValueError(f"{str(path)!r} is damaged or truncated: {reason}.")


def _load_safetensors(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                try:
                    arrays[name] = file.get_tensor(name)
                except AttributeError:
                    dtype = file.get_slice(name).get_dtype()
                    raise ValueError(
                        f"{name!r} of {str(path)!r} has dtype {dtype}, which NumPy lacks."
                    ) from None
    except safetensors.SafetensorError as error:
        raise damaged(path, error) from error
    return arrays


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with path.open("rb") as file:
        _check_count(path)
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGE as error:
            raise damaged(path, error) from error
        members = archive.infolist()
        declared, size = sum(member.file_size for member in members), path.stat().st_size
        check_size(path, declared)
        if declared > max(SMALL, MAX_RATIO * size):
            raise ValueError(
                f"{str(path)!r} has {size} bytes and would unpack to {declared}, more than {MAX_RATIO} times as many; "
                "if it can be trusted, load it and save it again with numpy.savez, without compression."
            )
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"{str(path)!r} holds {name!r} twice.")
            arrays[name] = _parse_npy(path, name, read_member(path, archive, member))
    return arrays


def open_stored(
    path: Path, writer: str, check_names: Callable[[list[str]], None] = lambda names: None
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """A zip archive without compression, whose members are therefore no larger than itself, and these by name.

    The caller closes the archive. `writer` is the program that writes such archives; `check_names` refuses by their
    members' names those that other programs write, which may be compressed.
    """
    check_nonempty(path)
    _check_count(path)
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise damaged(path, error) from error
    try:
        check_names(archive.namelist())
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            if member.filename in members:
                raise ValueError(f"{str(path)!r} holds {member.filename!r} twice.")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"{member.filename!r} of {str(path)!r} is compressed, but {writer} stores without compression: "
                    "unpack the file where it can be trusted and pack it with zip -0."
                )
            members[member.filename] = member
        declared, size = sum(member.file_size for member in members.values()), path.stat().st_size
        if declared > size:
            raise ValueError(
                f"{str(path)!r} has {size} bytes, but its parts declare {declared} without compression."
            )
    except ValueError:
        archive.close()
        raise
    return archive, members


def _check_count(path: Path) -> None:
    """Refuse an archive with so many members that their names and sizes alone would take hundreds of megabytes."""
    signature, count, end = b"PK\x01\x02", 0, b""
    with path.open("rb") as file:
        while block := file.read(2**20):
            count += (end + block).count(signature)
            end = block[-3:]
    if count > MAX_MEMBERS:
        raise ValueError(
            f"{str(path)!r} holds {count} members, more than the {MAX_MEMBERS} that lejax reads."
        )


def read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, no more than it declares; its checksum is compared."""
    # Other methods decompress without a limit, and NumPy does not use them.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{member.filename!r} of {str(path)!r} is compressed by method {member.compress_type}, "
            "but NumPy writes only 0 (stored) and 8 (deflate)."
        )
    try:
        with archive.open(member) as stream:
            data = stream.read(member.file_size)  # the size limits the decompression too
    except DAMAGE as error:
        raise damaged(path, error) from error
    if len(data) != member.file_size:
        raise ValueError(
            f"{member.filename!r} of {str(path)!r} declares {member.file_size} bytes but holds {len(data)}."
        )
    return data


def _load_npy(path: Path) -> dict[str, np.ndarray]:
    return {path.stem: _parse_npy(path, path.stem, path.read_bytes())}


def _parse_npy(path: Path, name: str, data: bytes) -> np.ndarray:
    if not data.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError(f"{name!r} of {str(path)!r} is not a NumPy array.")
    stream = io.BytesIO(data)
    try:
        shape, column_major, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    # KeyError: another version of the format. MemoryError: a header that is nested too deep to parse.
    except (*DAMAGE, KeyError, MemoryError) as error:
        raise ValueError(f"{name!r} of {str(path)!r} has a header that cannot be read.") from error
    if dtype.hasobject:
        raise ValueError(
            f"{name!r} of {str(path)!r} holds Python objects, which are pickled and never loaded."
        )
    start = stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(
            f"{name!r} of {str(path)!r} declares {dtype}{list(shape)}, {math.prod(shape) * dtype.itemsize} bytes, "
            f"but holds {len(data) - start}."
        )
    if dtype.itemsize == 0:
        raise ValueError(f"{name!r} of {str(path)!r} has the empty dtype {dtype}.")
    array = np.frombuffer(data, dtype, offset=start)
    array = array.reshape(shape, order="F" if column_major else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


_READERS = {".safetensors": _load_safetensors, ".npz": _load_npz, ".npy": _load_npy}
