"""Mutated and large files of models: refused in one sentence or read, nothing executed, in bounded memory."""

import os
from pathlib import Path

import numpy as np
import pytest
from _file_memory import measure_reading  # pyright: ignore[reportMissingImports]
from _mutants import read_mutants  # pyright: ignore[reportMissingImports]
from torch_files import save, state_dict


FIXTURES = Path(__file__).parent / "fixtures"
COUNT = 400  # mutants of each kind
linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)


def keras_model(units, inputs):
    pytest.importorskip("h5py")
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    # The default of the recurrent weights, an orthogonal matrix, takes long to draw.
    layer = keras.layers.GRU(units, recurrent_initializer="random_uniform")
    return keras.Sequential([keras.Input((None, inputs)), layer, keras.layers.Dense(2)])


def keras_file(folder):
    keras_model(4, 3).save(path := folder / "model.keras")
    return path.read_bytes()


def weights_file(folder):
    keras_model(4, 3).save_weights(path := folder / "model.weights.h5")
    return path.read_bytes()


FORMATS = {
    "pt": (
        "from_torch",
        ".pt",
        lambda _: (FIXTURES / "torch" / "checkpoint.pt").read_bytes(),
        ("data.pkl", "data.pkl", "byteorder", "data/1"),
    ),
    "keras": ("from_keras_file", ".keras", keras_file, ("config.json", "model.weights.h5")),
    "weights": ("from_keras_file", ".weights.h5", weights_file, ()),
    "onnx": ("from_onnx", ".onnx", lambda _: (FIXTURES / "gru.onnx").read_bytes(), ()),
}


@linux
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_files_are_refused_in_one_sentence_or_read(tmp_path, kind):
    reader, suffix, make, endings = FORMATS[kind]
    report = read_mutants(tmp_path, reader, suffix, make(tmp_path), endings, COUNT)
    print(kind, report)
    outcomes = report["outcomes"]
    assert sum(outcomes.values()) == COUNT
    # A file with checksums never gives other numbers.
    assert set(outcomes) <= {"refused", "same", "other"}
    assert outcomes["refused"] > COUNT // 4
    assert report["memory_bytes"] < 200 * 2**20
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix not in (".keras", ".h5")) == [
        "files"
    ]


def large_pt(path):
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (5400, 8), "weight_hh_l0": (5400, 1800)}
    save(state_dict({k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}), path)


def large_keras(path):
    keras_model(1800, 8).save(path)


def large_onnx(path):
    onnx = pytest.importorskip("onnx")
    from _file_pairs import make_onnx  # pyright: ignore[reportMissingImports]

    onnx.save(make_onnx("GRU", (8, 1800), "float32"), path)


LARGE = {
    ".pt": ("from_torch", large_pt),
    ".keras": ("from_keras_file", large_keras),
    ".onnx": ("from_onnx", large_onnx),
}


@linux
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("suffix", LARGE)
def test_a_file_of_37_megabytes_is_read_in_twice_its_size_and_200_mebibytes(tmp_path, suffix):
    reader, make = LARGE[suffix]
    make(path := tmp_path / f"model{suffix}")
    found = measure_reading(reader, path)
    print(suffix, found)
    assert found["file_bytes"] > 32e6
    assert found["bound_bytes"] == 2 * path.stat().st_size + 200 * 2**20
    assert found["memory_bytes"] < found["bound_bytes"]
