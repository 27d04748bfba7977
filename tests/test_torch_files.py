"""Files of `torch.save`: state dicts are read, everything else is refused by the name of what it asks for."""

import io
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from torch_files import Storage, Tensor, archive, dump, save, state_dict, tensor

import lejax
from lejax.interop import from_torch
from lejax.interop._torch_file import load_tensors


FIXTURES = Path(__file__).parent / "fixtures" / "torch_networks.npz"


def gru(seed=0, size=4):
    rng = np.random.default_rng(seed)
    shapes = {"weight_ih_l0": (3 * size, 3), "weight_hh_l0": (3 * size, size)}
    shapes |= {"bias_ih_l0": (3 * size,), "bias_hh_l0": (3 * size,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def equal(left, right):
    return all(map(np.array_equal, jax.tree.leaves(left), jax.tree.leaves(right)))


def test_networks_of_pytorch_read_from_pt_are_those_read_from_npz(tmp_path):
    stored = np.load(FIXTURES)
    weights = {k: stored[k] for k in stored.files if ".weight" in k or ".bias" in k}
    path = save(state_dict(weights), tmp_path / "m.pt")
    for name in sorted({k.partition(".")[0] for k in weights}):
        cell, expected = (from_torch(p, prefix=f"{name}.") for p in (path, FIXTURES))
        assert type(cell) is type(expected)
        assert equal(cell, expected)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
@pytest.mark.parametrize("order", ["little", "big", None])
def test_suffixes_and_byte_orders(tmp_path, suffix, order):
    path = save(state_dict(gru()), tmp_path / f"m{suffix}", order=order)
    assert equal(from_torch(str(path)), from_torch(gru()))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_dtypes(tmp_path, dtype, order):
    arrays = {name: array.astype(jnp.dtype(dtype)) for name, array in gru().items()}
    cell = from_torch(save(state_dict(arrays), tmp_path / "m.pt", order=order))
    assert cell.weight_hh.dtype == dtype
    np.testing.assert_array_equal(cell.weight_hh, arrays["weight_hh_l0"])


def test_checkpoints_parameters_and_what_is_not_a_tensor(tmp_path):
    model = OrderedDict((f"rnn.{k}", tensor(v, parameter=True)) for k, v in gru().items())
    model["readout.weight"] = tensor(np.zeros((2, 4), np.float32))
    moments = {0: {"exp_avg": tensor(np.ones(3)), "step": tensor(np.array(7.0))}}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]}
    settings = {
        "epoch": 300,
        "big": 2**40,
        "loss": -0.5,
        "note": "x" * 300,
        "flags": [None, True, -1],
    }
    path = save({"model": model, "optimizer": optimizer, **settings}, tmp_path / "c.pth")
    assert set(load_tensors(path)) == {
        *(f"model.rnn.{name}" for name in gru()),
        "model.readout.weight",
        "optimizer.state.0.exp_avg",
        "optimizer.state.0.step",
    }
    assert load_tensors(path)["optimizer.state.0.step"] == 7.0
    assert equal(from_torch(path), from_torch(gru()))
    assert equal(from_torch(path, prefix="model.rnn."), from_torch(gru()))


def test_files_and_dictionaries_for_others_are_named(tmp_path):
    for name, reader in (
        ("m.keras", "from_keras_file"),
        ("m.h5", "from_keras_file"),
        ("m.onnx", "from_onnx"),
    ):
        with pytest.raises(
            ValueError, match=rf"{name}' is no file of PyTorch: lejax\.interop\.{reader} reads"
        ):
            from_torch(name)
    (tmp_path / "m.state").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"'\.state'; lejax reads \.pt, .*\.bin, .*\.safetensors"):
        from_torch(tmp_path / "m.state")
    for function in (from_torch, lejax.interop.from_mamba):
        with pytest.raises(ValueError, match=r"'model' is a dictionary: pass arrays\['model'\]\."):
            function({"epoch": 3, "model": gru()})


def test_views_share_storages(tmp_path):
    """The weights of cuDNN are parts of one storage; a transposed view has other strides."""
    arrays = gru()
    whole = Storage(np.concatenate([v.ravel() for v in arrays.values()]))
    state, offset = OrderedDict(), 0
    for name, array in arrays.items():
        strides = (array.shape[1], 1) if array.ndim == 2 else (1,)
        state[name] = Tensor(whole, offset, array.shape, strides)
        offset += array.size
    assert equal(from_torch(save(state, tmp_path / "m.pt")), from_torch(arrays))
    columns = Storage(arrays["weight_hh_l0"].T)
    state["weight_hh_l0"] = Tensor(columns, 0, (12, 4), (1, 12))
    assert equal(from_torch(save(state, tmp_path / "m.pt")), from_torch(arrays))


def test_single_tensors_empty_ones_and_other_numbers(tmp_path):
    numbers = {"a": np.array([True, False]), "b": np.arange(3), "c": np.ones((2, 2), np.complex64)}
    numbers |= {"d": np.zeros((0, 3), np.float32), "e": np.array(2.5)}
    for order in ("little", "big"):
        loaded = load_tensors(save(state_dict(numbers), tmp_path / "m.pt", order=order))
        for name, array in numbers.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype
    (name, array), *rest = load_tensors(save(tensor(np.eye(2)), tmp_path / "x.pt")).items()
    assert (name, rest) == ("x", [])
    np.testing.assert_array_equal(array, np.eye(2))


def test_states_and_jacobian_of_a_pt_file(tmp_path):
    """In the file's precision, against the same weights in float64."""
    stored = np.load(FIXTURES)
    arrays = {
        k.removeprefix("lstm_2_bias."): stored[k]
        for k in stored.files
        if "lstm_2_bias.w" in k or "lstm_2_bias.b" in k
    }
    cell = from_torch(save(state_dict(arrays), tmp_path / "m.pt"))
    states = lejax.unroll(cell, cell.initial_state(), stored["inputs"])
    expected = lejax.unroll(from_torch(arrays), cell.initial_state(), stored["inputs"])
    assert equal(states, expected)


# --- what is refused


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def raw(*instructions):
    return b"\x80\x02" + b"".join(instructions) + b"."


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def storage(kind=b"ctorch\nDoubleStorage\n", key="0", length=b"K\x10"):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + length + b"tQ"


def rebuilt(shape=b"K\x04K\x04\x86", strides=b"K\x04K\x01\x86", offset=b"K\x00", of=None):
    """A state dict whose entry w is a tensor of these arguments."""
    of = storage() if of is None else of
    return raw(b"}", text("w"), REBUILD, b"(", of, offset, shape, strides, b"\x89}tRs")


def deep(levels):
    return raw(b"}", b"".join(text("k") + b"}" for _ in range(levels)), b"s" * levels)


TENSOR = rebuilt()[3 + len(text("w")) : -2]
NUMBERS = {"0": np.zeros(16)}
HUGE = b"\x8a\x08" + struct.pack("<q", 2**61)
REFUSED = {
    "os.system": (
        lambda: dump({"w": Evil(__import__("os").system, "touch pwned")})[0],
        r"asks for 'posix\.system'",
    ),
    "eval": (lambda: raw(b"cbuiltins\neval\n", text("1"), b"\x85R"), r"asks for 'builtins\.eval'"),
    "a module": (
        lambda: raw(b"ctorch.nn.modules.rnn\nGRU\n)\x81"),
        r"'torch\.nn\.modules\.rnn\.GRU'.*torch\.save\(model\.state_dict\(\), file\) saves it alone",
    ),
    "load_from_bytes": (
        lambda: raw(b"ctorch.storage\n_load_from_bytes\n"),
        r"'torch\.storage\._load_from_bytes'",
    ),
    "numpy": (
        lambda: dump({"w": np.ones(2)})[0],
        r"asks for 'numpy\.?_?core\.multiarray\._reconstruct'",
    ),
    "getattr": (lambda: raw(b"c__builtin__\ngetattr\n"), r"asks for '__builtin__\.getattr'"),
    "a storage called": (lambda: raw(b"ctorch\nFloatStorage\n)R"), r"calls 'torch\.FloatStorage'"),
    "text called": (lambda: raw(text("os.system"), b")R"), r"calls a str"),
    "attributes of a list": (lambda: raw(b"]}b"), r"fills something that is not a dict"),
    "protocol 4": (
        lambda: dump({"w": 1}, protocol=4)[0],
        r"has protocol 4, but torch\.save writes protocol 2",
    ),
    "instruction INST": (
        lambda: raw(b"(ios\nsystem\n"),
        r"asks for the instruction INST, which no state",
    ),
    "instruction NEWOBJ": (
        lambda: raw(b"ccollections\nOrderedDict\n)\x81"),
        r"the instruction NEWOBJ",
    ),
    "instruction STACK_GLOBAL": (
        lambda: raw(text("os"), text("system"), b"\x93"),
        r"instruction STACK_GLOBAL",
    ),
    "instruction EXT1": (lambda: raw(b"\x82\x01"), r"the instruction EXT1"),
    "unknown instruction": (lambda: raw(b"\xff"), r"instruction 0xff"),
    "OrderedDict of arguments": (
        lambda: raw(b"ccollections\nOrderedDict\n]\x85R"),
        r"OrderedDict of arguments",
    ),
    "a number": (
        lambda: raw(b"K\x01"),
        r"holds a int in place of a state dict; torch\.save\(model\.state_dict\(\), file\) saves it alone",
    ),
    "cut": (lambda: rebuilt()[:40], r"pickle is damaged or cut near byte"),
    "empty pickle": (lambda: b"", r"pickle is damaged or cut near byte 0"),
    "empty stack": (lambda: raw(b"\x87"), r"pickle is damaged or cut"),
    "no mark": (lambda: raw(b"t"), r"pickle is damaged or cut"),
    "missing memo": (lambda: raw(b"h\x05"), r"pickle is damaged or cut"),
    "not text": (lambda: raw(b"X\x01\x00\x00\x00\xff"), r"pickle is damaged or cut"),
    "long text": (lambda: raw(b"X\xff\xff\xff\xff"), r"pickle is damaged or cut"),
    "nested key": (lambda: raw(b"}", b"K\x01" + b"\x85" * 50, b"Ns"), r"has a key of type tuple"),
    "nested dictionaries": (lambda: deep(30), r"nested more than 20 deep"),
    "a dictionary in itself": (
        lambda: raw(b"}q\x00", text("a"), b"h\x00s"),
        r"nested more than 20 deep",
    ),
    "the same name twice": (
        lambda: raw(
            b"}", text("w.w"), TENSOR, b"s", text("w"), b"}", text("w"), TENSOR, b"s", b"s"
        ),
        r"holds the name 'w\.w' twice",
    ),
    "beyond the storage": (
        lambda: rebuilt(shape=b"K\x05K\x04\x86"),
        r"\(5, 4\) and strides \(4, 1\) needs 20 numbers of storage '0', which",
    ),
    "offset beyond the storage": (lambda: rebuilt(offset=b"K\x01"), r"needs 17 numbers"),
    "huge stride": (
        lambda: rebuilt(strides=HUGE + b"K\x01\x86"),
        r"numbers of storage '0', which has 16",
    ),
    "huge shape": (lambda: rebuilt(shape=HUGE + HUGE + b"\x86"), r"makes a tensor of shape \(2305"),
    "huge shape of strides 0": (
        lambda: rebuilt(shape=b"M\xff\xffM\xff\xff\x86", strides=b"K\x00K\x00\x86"),
        r"share storages of 128, less than a quarter",
    ),
    "negative offset": (
        lambda: rebuilt(offset=b"J\xff\xff\xff\xff"),
        r"whose shape cannot be understood",
    ),
    "negative shape": (
        lambda: rebuilt(shape=b"J\xff\xff\xff\xffK\x01\x86"),
        r"whose shape cannot be understood",
    ),
    "text as shape": (lambda: rebuilt(shape=text("ab")), r"whose shape cannot be understood"),
    "strides of another length": (
        lambda: rebuilt(strides=b"K\x01\x85"),
        r"whose shape cannot be understood",
    ),
    "no storage": (lambda: rebuilt(of=b"N"), r"whose shape cannot be understood"),
    "few arguments": (lambda: raw(REBUILD, b")R"), r"a tensor of 0 arguments"),
    "parameter of text": (
        lambda: raw(b"ctorch._utils\n_rebuild_parameter\n", text("a"), b"\x85R"),
        r"parameter of something",
    ),
    "storage of another kind": (
        lambda: rebuilt(of=storage(kind=b"ctorch\nfloat32\n")),
        r"storage that cannot be understood",
    ),
    "storage key": (
        lambda: rebuilt(of=storage(key="../../etc/passwd")),
        r"storage '\.\./\.\./etc/passwd' is missing",
    ),
    "storage of another length": (
        lambda: rebuilt(of=storage(length=b"K\x11")),
        r"'0' declares 136 bytes but holds 128",
    ),
    "storage of two types": (
        lambda: (
            rebuilt()[:-1]
            + text("v")
            + rebuilt(of=storage(b"ctorch\nLongStorage\n"))[3 + len(text("w")) :]
        ),
        r"has two types",
    ),
    "persistent text": (lambda: raw(text("cpu"), b"Q"), r"storage that cannot be understood"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_pickle_is_refused_in_one_sentence(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    make, message = REFUSED[case]
    path = tmp_path / "m.pt"
    path.write_bytes(archive(make(), NUMBERS))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            from_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{str(path)!r} is not read: ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


def test_too_many_instructions_and_too_many_bytes(tmp_path):
    path = tmp_path / "m.pt"
    for pickled, message in (
        (raw(b"}" * 2_000_000), r"more than 1000000 instructions"),
        (raw(text("a" * 2**24)), r"more than the 16777216 that are read"),
    ):
        path.write_bytes(archive(pickled, NUMBERS))
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=message):
                from_torch(path)
            assert tracemalloc.get_traced_memory()[1] < 150_000_000
        finally:
            tracemalloc.stop()


def declaring(content, size):
    """Change the size that both headers of the first member declare, packed and unpacked."""
    content = bytearray(content)
    struct.pack_into("<II", content, content.index(b"PK\x03\x04") + 18, size, size)
    struct.pack_into("<II", content, content.index(b"PK\x01\x02") + 20, size, size)
    return bytes(content)


def twice(content):
    with (
        zipfile.ZipFile(stream := io.BytesIO(content), "a") as file,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        file.writestr("model/data.pkl", b"")
    return stream.getvalue()


WHOLE = archive(*dump(state_dict(gru())))
ARCHIVES = {
    "legacy": (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        r"is not the zip archive.*since PyTorch 1\.6.*weights_only=True",
    ),
    "empty": (b"", r"is empty"),
    "not a zip": (b"PK\x03\x04" + b"x" * 100, r"is damaged or truncated"),
    "cut": (WHOLE[: len(WHOLE) // 2], r"is damaged or truncated"),
    "compressed": (
        archive(*dump(state_dict(gru())), method=zipfile.ZIP_DEFLATED),
        r"is compressed, but torch\.save stores without",
    ),
    "no pickle": (archive(None, NUMBERS), r"holds 0 pickles named \*/data\.pkl"),
    "a member twice": (twice(WHOLE), r"holds 'model/data\.pkl' twice"),
    "TorchScript": (
        archive(raw(b"N"), {}, extra={"constants.pkl": b"", "code/m.py": b""}),
        r"is a program of torch\.jit\.save.*state_dict",
    ),
    "byte order": (
        archive(raw(b"}"), {}, extra={"byteorder": b"middle"}),
        r"byte order b'middle', not little or big",
    ),
    "declares more than it has": (declaring(WHOLE, 2**31), r"bytes, but its parts declare 21474"),
    "bad checksum": (
        WHOLE.replace(b"weight_hh_l0", b"weight_hh_l1", 1),
        r"damaged or truncated: Bad CRC-32",
    ),
    "nothing recurrent": (archive(*dump({"epoch": 3})), r"no weights of an nn\.RNN.*among nothing"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_bad_archive_is_refused_in_one_sentence(tmp_path, case):
    content, message = ARCHIVES[case]
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        from_torch(tmp_path / "m.pt")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.pt"):
        from_torch(tmp_path / "gone.pt")
    (tmp_path / "d.pt").mkdir()
    with pytest.raises(ValueError, match="is a directory"):
        from_torch(tmp_path / "d.pt")


def test_the_fixtures_have_the_instructions_of_pytorch():
    """One tensor in a dictionary, byte by byte what PyTorch 2 writes for `{"tensor": torch.zeros(2)}`."""
    pickled, _ = dump({"tensor": tensor(np.zeros(2, np.float32))})
    expected = (
        b"\x80\x02}q\x00X\x06\x00\x00\x00tensorq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"
        b"ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85q"
        b"\x09\x89ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0ds."
    )
    assert pickled == expected, list(pickletools.genops(pickled))
    assert torch_files.fake_torch  # torch itself is not needed
