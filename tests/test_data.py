"""The data files: the digits, the network that classifies them, and the EEG."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import lejax


FOLDER = Path(lejax.data.__file__).parent


def test_the_network_classifies_the_digits_in_one_unbroken_stream():
    arrays = load_file(FOLDER / "digits_gru.safetensors")
    cell = lejax.data.digits_gru()
    states = lejax.unroll(cell, cell.initial_state(), lejax.data.digits_inputs())
    logits = states[7::8] @ arrays["readout.weight"].T + arrays["readout.bias"]
    with np.load(FOLDER / "digits_test.npz") as digits:
        labels = digits["labels"]
    assert jnp.mean(jnp.argmax(logits, axis=1) == labels) == pytest.approx(393 / 397)


def test_the_network_forgets_its_initial_state():
    cell, rows = lejax.data.digits_gru(), lejax.data.digits_inputs()
    spectrum = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), rows, num_exponents=1, transient=80
    )
    assert spectrum.exponents[0] + 10 * spectrum.standard_error[0] < 0
    # The largest exponent is negative, so two states under the same input converge.
    far = lejax.unroll(cell, jnp.ones(32), rows[:400])[-1]
    near = lejax.unroll(cell, cell.initial_state(), rows[:400])[-1]
    np.testing.assert_allclose(far, near, atol=1e-12)


def test_dtypes_shapes_and_range():
    rows = lejax.data.digits_inputs()
    assert rows.shape == (3176, 8)
    assert rows.dtype == jnp.float64
    assert (float(rows.min()), float(rows.max())) == (0.0, 1.0)
    assert lejax.data.digits_inputs(jnp.float32).dtype == jnp.float32
    for dtype in (jnp.float32, jnp.bfloat16):
        cell = lejax.data.digits_gru(dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(cell)} == {jnp.dtype(dtype)}


def test_the_files_are_small_and_credited():
    files = [path for path in FOLDER.iterdir() if path.suffix in (".safetensors", ".npz")]
    sizes = {path.name: path.stat().st_size for path in files}
    assert sizes.pop("eeg_excerpt.npz") < 300_000
    assert sum(sizes.values()) < 60_000
    with safe_open(FOLDER / "digits_gru.safetensors", framework="np") as file:
        assert "doi:10.24432/C50P49" in file.metadata()["source"]
    readme = (FOLDER / "README.md").read_text()
    assert "CC BY 4.0" in readme
    assert "ODC-BY 1.0" in readme
    assert all(path.name in readme for path in files)


def test_the_eeg_is_standardized_and_slow():
    eeg = lejax.data.eeg()
    assert (eeg.shape, eeg.dtype) == ((9640, 16), jnp.float64)
    assert lejax.data.eeg(jnp.float32).dtype == jnp.float32
    with np.load(FOLDER / "eeg_excerpt.npz") as file:
        np.testing.assert_array_equal(eeg, file["eeg"].astype(float))  # rows are in temporal order
    np.testing.assert_allclose(eeg.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(eeg.std(axis=0), 1, atol=1e-3)
    # The EEG is low-pass filtered: little power is left above 30 Hz.
    power = np.abs(np.fft.rfft(eeg, axis=0)) ** 2
    frequencies = np.fft.rfftfreq(len(eeg), 1 / 160)
    assert power[frequencies > 30].sum() < 1e-3 * power.sum()


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    label_of = {
        image.astype(np.uint8).tobytes(): label
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    with np.load(FOLDER / "digits_test.npz") as ours:
        for image, label in zip(ours["images"], ours["labels"], strict=True):
            assert label_of[image.tobytes()] == label
