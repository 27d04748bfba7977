"""`lejax spectrum` and `lejax report` with the files of every framework, and with inputs from Parquet."""

import json
import os
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_files import save, state_dict

import lejax
from lejax.__main__ import main
from lejax.interop import from_onnx, from_torch


ONNX = Path(__file__).parent / "fixtures" / "gru.onnx"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command inside a folder with inputs: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(200, 3)))

    def call(line):
        try:
            status = main(line.split())
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


def exponents_of(cell):
    inputs = np.load("x.npy")
    return lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, transient=50).exponents


def found():
    return json.loads(Path("lejax-spectrum/spectrum.json").read_text())["exponents"]


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 4)}
    return {f"rnn{seed}.{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npz", ".safetensors"])
def test_a_state_dict_of_pytorch(run, suffix):
    both, name = arrays(0) | arrays(1), f"m{suffix}"
    both = {f"model.{key}": array for key, array in both.items()}
    if suffix == ".npz":
        np.savez(name, **both)
    elif suffix == ".safetensors":
        save_file(both, name)
    else:
        save({"model": state_dict(arrays(0) | arrays(1))}, name)
    status, out, _ = run(
        f"spectrum {name} --prefix model.rnn1. --inputs x.npy --transient 50 --no-plot"
    )
    assert status == 0
    assert f"{name}, GRU(3, 4), driven by x.npy" in out
    np.testing.assert_allclose(
        found(), exponents_of(from_torch(arrays(1), dtype=jnp.float64)), atol=0.05
    )
    status, _, err = run(f"spectrum {name} --inputs x.npy")
    assert (status, err.count("\n")) == (2, 1)
    assert "choose one by prefix=: 'model.rnn0.', 'model.rnn1.'" in err


def test_an_onnx_file(run):
    Path("m.onnx").write_bytes(ONNX.read_bytes())
    assert run("spectrum m.onnx --inputs x.npy --transient 50 --no-plot")[0] == 0
    np.testing.assert_allclose(
        found(), exponents_of(from_onnx("m.onnx", dtype=jnp.float64)), atol=0.05
    )
    status, _, err = run("spectrum m.onnx --inputs x.npy --activation relu")
    assert (status, err) == (
        2,
        "lejax spectrum: --activation is not for m.onnx, which contains it.\n",
    )
    assert run("report m.onnx --inputs x.npy")[0] == 0
    assert "lejax.interop.from_onnx(" in Path("report.html").read_text()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_file(run, monkeypatch):
    pytest.importorskip("h5py")
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "jax"))
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4)]).save("m.keras")
    assert run("spectrum m.keras --inputs x.npy --no-plot")[0] == 0
    assert len(found()) == 4


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_weights_of_keras_with_several_networks(run, monkeypatch):
    pytest.importorskip("h5py")
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "jax"))
    keras = pytest.importorskip("keras")
    start = keras.Input((None, 3))
    branches = [keras.layers.GRU(n, name=f"gru{n}")(start) for n in (4, 5)]
    keras.Model(start, branches).save_weights("m.weights.h5")
    status, _, err = run("spectrum m.weights.h5 --inputs x.npy")
    assert (status, err.count("\n")) == (2, 1), err
    prefixes = re.findall(r"'([^']*)'", err.partition("choose one by prefix=")[2])
    assert len(prefixes) == 2, err
    sizes = []
    for prefix in prefixes:
        assert run(f"spectrum m.weights.h5 --prefix {prefix} --inputs x.npy --no-plot")[0] == 0
        sizes.append(len(found()))
    assert sorted(sizes) == [4, 5]


def test_inputs_from_every_file_are_the_same(run):
    Path("m.onnx").write_bytes(ONNX.read_bytes())
    inputs = np.load("x.npy")
    np.savez("x.npz", inputs=inputs)
    np.savetxt("x.csv", inputs, delimiter=",", fmt="%.17g")
    exponents = []
    for name in ("x.npy", "x.npz", "x.csv"):
        assert run(f"spectrum m.onnx --inputs {name} --no-plot")[0] == 0
        exponents.append(found())
    np.testing.assert_array_equal(exponents, exponents[:1] * 3)
    np.savez("two.npz", a=inputs, b=inputs)
    assert "must hold one array, but holds 2" in run("spectrum m.onnx --inputs two.npz")[2]


def test_inputs_from_parquet(run):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    Path("m.onnx").write_bytes(ONNX.read_bytes())
    pandas.DataFrame(np.load("x.npy"), columns=list("abc")).to_parquet("x.parquet")
    assert run("spectrum m.onnx --inputs x.npy --no-plot")[0] == 0
    expected = found()
    assert run("spectrum m.onnx --inputs x.parquet --no-plot")[0] == 0
    np.testing.assert_array_equal(found(), expected)
    Path("bad.parquet").write_bytes(b"PAR1" * 9)
    status, _, err = run("spectrum m.onnx --inputs bad.parquet")
    assert (status, err.count("\n")) == (2, 1)
    assert "'bad.parquet' is not a Parquet file" in err
