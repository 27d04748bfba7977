"""Mutated `.pt`, `.keras`, `.weights.h5` and `.onnx` files: refused in one sentence or read, in bounded memory.

Each format is read in a process of its own, whose audit hook ends it when anything is executed, another file is opened
or a network is used, and which reports how every file ended.
"""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from torch_files import archive, dump, state_dict


COUNT = 400  # of each kind
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess",
    "socket",
    "exec",
    "compile",
    "ctypes",
)

# The first file of a format is whole: what reading it imports is imported before the hook.
READER = """
import json, os, sys
from pathlib import Path
import jax
import numpy as np
jax.config.update("jax_enable_x64", True)
from lejax import interop
read = getattr(interop, sys.argv[1])
files = sorted(Path(sys.argv[2]).iterdir())
whole = read(files[0])
forbidden, current, outcomes = set(sys.argv[3].split()), [""], []

def hook(event, args):
    wrong = event.startswith(tuple(forbidden)) and event != "executable"
    if event == "open" and isinstance(args[0], (str, bytes)) and os.fspath(args[0]) != current[0]:
        wrong = Path(os.fsdecode(args[0])).suffix not in (".py", ".pyc")
    if wrong:
        os.write(2, f"{current[0]} caused {event} {args}".encode())
        os._exit(3)

import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.addaudithook(hook)
for file in files[1:]:
    current[0] = str(file)
    try:
        cell = read(file)
    except (ValueError, TypeError) as error:
        message = str(error)
        outcomes.append("refused" if message.endswith(".") and "\\n" not in message else f"no sentence: {message}")
    else:
        same = jax.tree.structure(cell) == jax.tree.structure(whole)
        same = same and all(map(np.array_equal, jax.tree.leaves(cell), jax.tree.leaves(whole)))
        outcomes.append("same" if same else "other numbers" if "checked" in file.name else "other")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"outcomes": outcomes, "kilobytes": after - before}))
"""


def mutate(data, rng):
    """Flipped bits and bytes, cut, repeated, moved and zeroed parts, and large lengths."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(len(data)))
        part = slice(start, start + int(rng.integers(1, 40)))
        match rng.integers(7):
            case 0:
                data[start] ^= 1 << int(rng.integers(8))
            case 1:
                data[start] = int(rng.integers(256))
            case 2:
                del data[part]
            case 3:
                data[start:start] = data[part]
            case 4:
                data[part] = bytes(len(data[part]))
            case 5:
                data[start : start + 4] = rng.choice(
                    [b"\xff\xff\xff\x7f", b"\xff" * 4, b"\x00\x00\x00\x80"]
                )
            case 6:
                data = data[: max(start, 1)]
        data = data or bytearray(b"\x00")
    return bytes(data)


def repacked(content, rng, names):
    """An archive whose checksums fit its mutated member, so that the member is read."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    ending = str(rng.choice(names))
    name = next(n for n in members if n.endswith(ending))
    members[name] = mutate(members[name], rng)
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as new:
        for name, data in members.items():
            new.writestr(name, data)
    return stream.getvalue()


def torch_file(_):
    rng = np.random.default_rng(0)
    arrays = {"weight_ih_l0": rng.normal(size=(12, 3)), "weight_hh_l0": rng.normal(size=(12, 4))}
    arrays |= {"bias_ih_l0": rng.normal(size=12), "bias_hh_l0": rng.normal(size=12)}
    return archive(*dump({"epoch": 3, "model": state_dict(arrays)}))


def keras_model():
    pytest.importorskip("h5py")
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    return keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4), keras.layers.Dense(2)])


def keras_file(folder):
    keras_model().save(path := folder / "model.keras")
    return path.read_bytes()


def weights_file(folder):
    keras_model().save_weights(path := folder / "model.weights.h5")
    return path.read_bytes()


def onnx_file(folder):
    onnx = pytest.importorskip("onnx")
    rng, helper = np.random.default_rng(0), onnx.helper
    arrays = {
        "W": rng.normal(size=(1, 12, 3)),
        "R": rng.normal(size=(1, 12, 4)),
        "B": rng.normal(size=(1, 24)),
    }
    node = helper.make_node(
        "GRU", ["X", *arrays], ["Y"], name="gru", hidden_size=4, linear_before_reset=1
    )
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in "XY"]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "g", info[:1], info[1:], constants)
    return helper.make_model(graph).SerializeToString()


FORMATS = {
    "pt": ("from_torch", ".pt", torch_file, ("data.pkl", "data.pkl", "byteorder", "data/1")),
    "keras": ("from_keras_file", ".keras", keras_file, ("config.json", "model.weights.h5")),
    "weights": ("from_keras_file", ".weights.h5", weights_file, None),
    "onnx": ("from_onnx", ".onnx", onnx_file, None),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_files_are_refused_in_one_sentence_or_read(tmp_path, kind):
    reader, suffix, make, members = FORMATS[kind]
    rng = np.random.default_rng(20)
    (tmp_path / "files").mkdir()
    content = make(tmp_path)
    for i in range(COUNT + 1):
        changed, checked = content, members is not None  # by checksums
        if i and members and rng.random() < 0.75:
            changed, checked = repacked(content, rng, members), False
        elif i:
            changed = mutate(content, rng)
        (tmp_path / "files" / f"{i:04}{'checked' * checked}{suffix}").write_bytes(changed)
    command = [sys.executable, "-c", READER, reader, str(tmp_path / "files"), " ".join(FORBIDDEN)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    outcomes = {name: report["outcomes"].count(name) for name in set(report["outcomes"])}
    print(kind, outcomes, report["kilobytes"])
    assert sum(outcomes.values()) == COUNT
    # A file with checksums never gives other numbers.
    assert set(outcomes) <= {"refused", "same", "other"}
    assert outcomes["refused"] > COUNT // 4
    assert report["kilobytes"] < 200 * 1024
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix not in (".keras", ".h5")) == [
        "files"
    ]
