"""Tasks: what is asked can be answered from what was shown, and only that counts."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax import populations


KEY = jr.key(0)


def test_copy_shows_all_that_is_asked():
    task = populations.copy_task(KEY, 6, num_symbols=4, length=3, delay=5)
    shown = np.argmax(task.inputs, axis=-1)
    np.testing.assert_array_equal(shown[:, :3], task.targets[:, -3:])
    assert np.all(shown[:, 3:7] == 4)
    assert np.all(shown[:, 7] == 5)
    assert np.all(shown[:, 8:] == 4)
    np.testing.assert_array_equal(task.weights.sum(axis=0), [0] * 8 + [6] * 3)
    assert task.num_outputs == 4


def test_adding_marks_one_number_in_each_half():
    task = populations.adding_task(KEY, 50, num_steps=11)
    numbers, marks = np.moveaxis(np.asarray(task.inputs), -1, 0)
    np.testing.assert_array_equal(marks[:, :5].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 5:].sum(axis=1), 1)
    np.testing.assert_allclose(task.targets[:, -1, 0], (numbers * marks).sum(axis=1))
    np.testing.assert_array_equal(task.weights.sum(axis=1), 1)


def test_delayed_xor():
    task = populations.delayed_xor_task(KEY, 5, num_steps=30, delay=4)
    bits = np.asarray(task.inputs[..., 0], int)
    for t in range(8, 30):
        np.testing.assert_array_equal(task.targets[:, t], bits[:, t - 4] ^ bits[:, t - 8])
    np.testing.assert_array_equal(task.weights[0], np.arange(30) >= 8)


@pytest.mark.parametrize("modulus", [2, 5])
def test_modular_counting(modulus):
    task = populations.modular_counting_task(KEY, 5, num_steps=40, modulus=modulus)
    counts = np.cumsum(np.asarray(task.inputs[..., 0], int), axis=1)
    np.testing.assert_array_equal(task.targets, counts % modulus)
    assert task.num_outputs == modulus
    if modulus == 2:
        parity = populations.parity_task(KEY, 5, num_steps=40)
        np.testing.assert_array_equal(parity.targets, task.targets)


def test_text_and_series_are_cut_without_overlap():
    text = "a bad cab"
    alphabet, symbols = np.unique(list(text), return_inverse=True)
    task = populations.next_symbol_task(symbols, num_symbols=len(alphabet), num_steps=4)
    read = ["".join(alphabet[i] for i in row) for row in np.argmax(task.inputs, axis=-1)]
    asked = ["".join(alphabet[i] for i in row) for row in np.asarray(task.targets)]
    assert read == ["a ba", "d ca"]
    assert asked == [" bad", " cab"]
    series = jnp.arange(22.0).reshape(11, 2)
    task = populations.forecasting_task(series, num_steps=4, horizon=2)
    assert task.inputs.shape == (2, 4, 2)
    np.testing.assert_array_equal(task.targets, task.inputs + 4)


def test_rows_of_digits():
    images, labels = lejax.data.digits()
    task = populations.row_task(images, labels, num_classes=10)
    np.testing.assert_array_equal(task.inputs[3, 5], images[3, 5])
    np.testing.assert_array_equal(task.targets[:, -1], labels)
    np.testing.assert_array_equal(task[2:4].targets, task.targets[2:4])


def test_generators_run_under_jit_and_vmap():
    def bits(key):
        return populations.parity_task(key, 3, num_steps=6).inputs

    keys = jr.split(KEY, 4)
    batch = jax.jit(jax.vmap(bits))(keys)
    np.testing.assert_array_equal(batch[2], bits(keys[2]))
    task = populations.copy_task(KEY, 2, delay=3, dtype=jnp.float32)
    assert task.inputs.dtype == task.weights.dtype == jnp.float32


def test_bad_input():
    with pytest.raises(ValueError, match="a delay of 5 needs more than 10"):
        populations.delayed_xor_task(KEY, 5, num_steps=10, delay=5)
    with pytest.raises(ValueError, match=r"values from 0 to 10"):
        populations.next_symbol_task(jnp.arange(11), num_symbols=10, num_steps=2)
    with pytest.raises(TypeError, match="labels must be an array of integers, got float64"):
        populations.row_task(jnp.ones((2, 3, 3)), jnp.ones(2), num_classes=2)
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(2,\)"):
        populations.row_task(jnp.ones((2, 3)), jnp.ones(2, int), num_classes=2)
    with pytest.raises(ValueError, match="too short for 7 steps"):
        populations.forecasting_task(jnp.ones((7, 1)), num_steps=7)
    with pytest.raises(TypeError, match="series must be a floating-point array with 2 axes"):
        populations.forecasting_task(jnp.ones(7), num_steps=2)
    with pytest.raises(ValueError, match=r"2 sequences of 3 steps, but weights has shape \(2, 4\)"):
        populations.Examples(jnp.ones((2, 3, 1)), jnp.ones((2, 3), int), jnp.ones((2, 4)), 2)
