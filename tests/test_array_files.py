"""Files of arrays: files of NumPy and safetensors are read; damaged and hostile files raise one sentence."""

import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from lejax._core import array_files
from lejax._core.array_files import load_arrays
from lejax.interop import from_keras_file
from lejax.interop._torch_file import load_tensors


def npy(array, **kwargs):
    np.lib.format.write_array(stream := io.BytesIO(), np.asarray(array), **kwargs)
    return stream.getvalue()


def npy_with_header(header, data=b""):
    header = repr(header).encode() if isinstance(header, dict) else header
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(*members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(stream := io.BytesIO(), "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def declaring(archive, size):
    """Change the unpacked size that both headers of an archive of one member declare."""
    archive = bytearray(archive)
    struct.pack_into("<I", archive, archive.index(b"PK\x03\x04") + 22, size)
    struct.pack_into("<I", archive, archive.index(b"PK\x01\x02") + 24, size)
    return bytes(archive)


def tensors(header, data=b"", length=None):
    header = json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(shape, start, end, dtype="F32"):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


FLOATS = {"descr": "<f8", "fortran_order": False}
ONES = npy(np.ones(100))
BAD_FILES = {
    "pt": ("m.pt", b"PK", r"of a pickle.*never loaded.*weights_only=True.*save_file.*savez"),
    "bin": ("m.BIN", b"x", r"of a pickle"),
    "unknown suffix": (
        "m.h5",
        b"x",
        r"has the suffix '\.h5'; lejax reads \.safetensors, \.npz, \.npy",
    ),
    "no suffix": ("model", b"x", r"has the suffix ''"),
    "empty": ("m.npz", b"", r"is empty"),
    "empty safetensors": ("m.safetensors", b"", r"is empty"),
    "npz that is not a zip archive": (
        "m.npz",
        b"hello" * 9,
        r"is damaged or truncated: File is not a zip",
    ),
    "truncated npz": ("m.npz", zipped(("a.npy", ONES))[:-30], r"is damaged or truncated"),
    "bad checksum": (
        "m.npz",
        zipped(("a.npy", ONES)).replace(b"\xf0?", b"\xf1?", 1),
        r"damaged or truncated: Bad CRC-32",
    ),
    "renamed pt": (
        "m.npz",
        zipped(("m/data.pkl", b"\x80\x02.")),
        r"'m/data\.pkl'.*is not a NumPy array",
    ),
    "pickled object in npz": (
        "m.npz",
        zipped(("a.npy", npy(np.array([{}], object), allow_pickle=True))),
        r"'a' of .* holds Python objects, which are pickled",
    ),
    "pickled object in npy": (
        "m.npy",
        npy(np.array([{}], object), allow_pickle=True),
        r"'m' of .* holds Python objects",
    ),
    "object in a record": (
        "m.npy",
        npy_with_header(FLOATS | {"descr": [("x", "<f8"), ("y", "|O")], "shape": (1,)}, bytes(16)),
        r"holds Python objects",
    ),
    "header larger than the data": (
        "m.npz",
        zipped(("a.npy", npy_with_header(FLOATS | {"shape": (10**12,)}, bytes(80)))),
        r"declares float64\[1000000000000\], 8000000000000 bytes, but holds 80",
    ),
    "header smaller than the data": (
        "m.npy",
        npy_with_header(FLOATS | {"shape": (2,)}, bytes(80)),
        r"declares float64\[2\], 16 bytes, but holds 80",
    ),
    "negative shape": (
        "m.npy",
        npy_with_header(FLOATS | {"shape": (-1, -2)}, bytes(16)),
        r"declares float64\[-1, -2\]",
    ),
    "empty dtype": (
        "m.npy",
        npy_with_header(FLOATS | {"descr": "|S0", "shape": (2**62,)}),
        r"has the empty dtype",
    ),
    "no header": ("m.npy", npy_with_header(b"{" * 900), r"has a header that cannot be read"),
    "calls in the header": (
        "m.npy",
        npy_with_header(b"{'descr': __import__('os').abort(), 'fortran_order': 0, 'shape': ()}"),
        r"has a header that cannot be read",
    ),
    "cut in the npy header": ("m.npy", ONES[:40], r"has a header that cannot be read"),
    "truncated npy": ("m.npy", ONES[:-8], r"declares float64\[100\], 800 bytes, but holds 792"),
    "header too long": (
        "m.npy",
        npy_with_header(b"(" * 30_000),
        r"has a header that cannot be read",
    ),
    "newer npy": (
        "m.npy",
        npy(np.ones(2), version=(3, 0)),
        r"has a header that cannot be read",
    ),
    "zip with too large a member": (
        "m.npz",
        declaring(zipped(("a.npy", ONES)), 2**32 - 2),
        r"takes 4294967294 bytes, more than the 1000000 that lejax reads",
    ),
    "zip with too large a sum of members": (
        "m.npz",
        zipped(
            *((f"{i}.npy", npy(np.zeros(50_000))) for i in range(3)), method=zipfile.ZIP_DEFLATED
        ),
        r"takes 1200384 bytes, more than the 1000000",
    ),
    "member longer than declared": (
        "m.npz",
        declaring(zipped(("a.npy", ONES), method=zipfile.ZIP_DEFLATED), 500),
        r"damaged or truncated: Bad CRC-32",
    ),
    "member shorter than declared": (
        "m.npz",
        declaring(zipped(("a.npy", ONES), method=zipfile.ZIP_DEFLATED), 5000),
        r"'a\.npy' of .* declares 5000 bytes but holds 928",
    ),
    "unbounded compression": (
        "m.npz",
        zipped(("a.npy", ONES), method=zipfile.ZIP_LZMA),
        r"compressed by method 14",
    ),
    "a name twice": ("m.npz", zipped(("a.npy", ONES), ("a", ONES)), r"holds 'a' twice"),
    "truncated safetensors": (
        "m.safetensors",
        tensors(tensor([4], 0, 16), bytes(9)),
        r"is damaged or truncated",
    ),
    "cut in the header": (
        "m.safetensors",
        tensors(tensor([4], 0, 16))[:20],
        r"damaged or truncated",
    ),
    "huge header length": ("m.safetensors", tensors({}, length=2**63), r"damaged or truncated"),
    "header length past the end": ("m.safetensors", tensors({}, length=10**6), r"damaged or trunc"),
    "not safetensors": ("m.safetensors", b"\x80\x02pickle" * 9, r"damaged or truncated"),
    "shape larger than data": (
        "m.safetensors",
        tensors(tensor([2**40], 0, 16), bytes(16)),
        r"damaged or truncated",
    ),
    "overflowing shape": (
        "m.safetensors",
        tensors(tensor([2**40, 2**40], 0, 16), bytes(16)),
        r"damaged or truncated",
    ),
    "float8": (
        "m.safetensors",
        tensors(tensor([4], 0, 4, "F8_E4M3"), bytes(4)),
        r"'a' of .* has dtype F8_E4M3, which NumPy lacks",
    ),
    "large file": ("m.npy", npy(np.zeros(200_000)), r"takes 1600128 bytes, more than the 1000000"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_raises_one_sentence(tmp_path, monkeypatch, case):
    monkeypatch.setattr(array_files, "MAX_BYTES", 1_000_000)
    name, content, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_arrays(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.npz'"):
        load_arrays(str(tmp_path / "gone.npz"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match=r"folder\.npz' is a directory; a file was expected\."):
        load_arrays(tmp_path / "folder.npz")


def test_a_zip_bomb_takes_no_memory(tmp_path):
    """A member of 64 MB of zeros declares 500 bytes; no more than that is unpacked."""
    bomb = zipped(("a.npy", npy(np.zeros(8_000_000))), method=zipfile.ZIP_DEFLATED)
    (tmp_path / "m.npz").write_bytes(declaring(bomb, 500))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="damaged"):
            load_arrays(tmp_path / "m.npz")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_declared_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """A member of 64 kB declares 64 MB of zeros: it is read below the limit `SMALL` and refused above."""
    path = tmp_path / "m.npz"
    zeros = npy(np.zeros(8_000_000))
    path.write_bytes(zipped(("a.npy", zeros), method=zipfile.ZIP_DEFLATED))
    assert load_arrays(path)["a"].shape == (8_000_000,)
    monkeypatch.setattr(array_files, "SMALL", 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=r"would unpack to 64000128, more than 200 times as many"
        ):
            load_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    path.write_bytes(
        zipped(("a.npy", zeros))
    )  # stored without compression, the file is as large as it declares
    assert load_arrays(path)["a"].shape == (8_000_000,)


@pytest.mark.parametrize("read", [load_arrays, load_tensors, from_keras_file])
def test_an_archive_of_many_members_is_refused_before_they_are_listed(tmp_path, read):
    """Entries of 46 bytes and a name, for each of which zipfile makes an object of hundreds of bytes."""
    count = 60_000
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", *[0] * 9, 6, *[0] * 6)
    members = b"".join(entry + b"%06d" % i for i in range(count))
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(members), 0, 0)
    suffix = {load_arrays: ".npz", load_tensors: ".pt"}.get(read, ".keras")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(members + end)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"holds 60000 members, more than the 50000 that"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_names_in_archives_are_never_used_as_paths(tmp_path):
    names = ["../../escape", "/etc/escape", "C:\\escape", "a/../b"]
    (tmp_path / "m.npz").write_bytes(zipped(*((f"{name}.npy", ONES) for name in names)))
    save_file({name: np.ones(2) for name in names}, tmp_path / "m.safetensors")
    for file in ("m.npz", "m.safetensors"):
        assert set(load_arrays(tmp_path / file)) == set(names)
    assert sorted(os.listdir(tmp_path)) == ["m.npz", "m.safetensors"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_files_round_trip(tmp_path, save):
    arrays = {
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 3)),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "foreign": np.arange(3, dtype=">i4"),
        "text": np.array(["a", "bc"]),
        "half": np.ones(2, np.float16),
    }
    save(tmp_path / "m.npz", **arrays)
    loaded = load_arrays(tmp_path / "m.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype.newbyteorder("=")
    np.save(tmp_path / "inputs.npy", arrays["columns"])
    (name, array), *rest = load_arrays(tmp_path / "inputs.npy").items()
    assert (name, rest) == ("inputs", [])
    np.testing.assert_array_equal(array, arrays["columns"])


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_flipped_and_missing_bytes_raise_no_other_error(tmp_path, suffix):
    rng = np.random.default_rng(0)
    arrays = {"weight": rng.normal(size=(4, 4)), "bias": np.zeros(4)}
    path = tmp_path / f"m{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **arrays)
    elif suffix == ".npy":
        np.save(path, arrays["weight"])
    else:
        save_file(arrays, path)
    original = path.read_bytes()
    sentences = []
    for _ in range(400):
        content = bytearray(original[: rng.integers(1, len(original) + 1)])
        if rng.random() < 0.7:
            content = bytearray(original)
        for _ in range(rng.integers(0, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(content)
        try:
            load_arrays(path)
        except ValueError as error:
            sentences.append(str(error))
    assert len(sentences) > 100
    assert not any("\n" in sentence for sentence in sentences)
