"""A long run in chunks is the one run of `lyapunov_spectrum`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.run import long_run


class Counted(eqx.Module):
    """A Henon map that counts how often it is traced, driven by what is added to x."""

    traces: list = eqx.field(static=True)

    def __call__(self, input, state):
        self.traces.append(1)
        x, y = state
        shift = 0.0 if input is None else input
        return jnp.stack([1 - 1.2 * x**2 + y + shift, 0.3 * x])

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return isinstance(other, Counted)


def assert_same(chunked, single, tolerance=1e-12):
    for name in ("exponents", "frame", "state", "rounding_error"):
        np.testing.assert_allclose(
            getattr(chunked, name), getattr(single, name), rtol=0, atol=tolerance
        )
    np.testing.assert_array_equal(chunked.unresolved, single.unresolved)
    assert int(chunked.num_steps) == int(single.num_steps)
    assert chunked.result == single.result


@pytest.mark.parametrize("chunk_steps", [None, 210, 50])  # one chunk; whole blocks; parts of one
def test_chunks_of_a_divisible_run_are_the_one_run(chunk_steps):
    cell = lejax.cells.RNNCell(2, 3, key=jr.key(0))
    inputs = np.asarray(jr.normal(jr.key(1), (500, 2)))
    run = {"num_steps": 400, "transient": 30, "num_blocks": 4, "key": jr.key(2)}
    single = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, **run)
    chunked = long_run(cell, cell.initial_state(), inputs, chunk_steps=chunk_steps, **run)
    assert_same(chunked, single)
    np.testing.assert_array_equal(chunked.block_steps, single.block_steps)
    np.testing.assert_allclose(chunked.block_exponents, single.block_exponents, atol=1e-12)
    np.testing.assert_allclose(chunked.standard_error, single.standard_error, rtol=1e-9)


def test_steps_that_fill_no_block_go_to_the_last_chunk():
    henon, start = lejax.systems.Henon(), jnp.zeros(2)
    run = {"num_steps": 305, "transient": 7, "num_blocks": 6}
    single = lejax.lyapunov_spectrum(henon, start, **run)
    chunked = long_run(henon, start, chunk_steps=110, **run)  # chunks of 100, 100 and 105
    assert_same(chunked, single)
    np.testing.assert_array_equal(chunked.block_steps, [50, 50, 50, 50, 53, 52])


def test_at_most_three_programs_are_traced():
    traces = []
    long_run(Counted(traces), jnp.zeros(2), num_steps=10, num_blocks=1)
    one_program = len(traces)
    traces.clear()
    long_run(Counted(traces), jnp.zeros(2), num_steps=83, transient=5, chunk_steps=10, num_blocks=8)
    assert 0 < len(traces) <= 3 * one_program


def test_a_plain_function_compiles_once_not_once_a_chunk():
    traces = []
    henon, scale = Counted(traces), jnp.asarray(1.0)
    run = {"num_steps": 40, "chunk_steps": 10, "num_blocks": 4}
    by_module = long_run(henon, jnp.zeros(2), **run)
    count = len(traces)
    traces.clear()
    by_function = long_run(lambda u, x: scale * henon(u, x), jnp.zeros(2), **run)
    assert len(traces) <= count
    np.testing.assert_allclose(by_function.exponents, by_module.exponents, atol=1e-12)


def test_a_failed_chunk_ends_the_run_at_the_step_of_the_one_run():
    cell = Counted([])
    inputs = jnp.zeros(100).at[53].set(jnp.nan)
    run = {"transient": 10, "num_blocks": 9}
    single = lejax.lyapunov_spectrum(cell, jnp.zeros(2), inputs, throw=False, **run)
    chunked = long_run(cell, jnp.zeros(2), inputs, chunk_steps=20, throw=False, **run)
    assert int(single.first_bad_step) == int(chunked.first_bad_step) == 54
    assert chunked.result == lejax.RESULTS.nonfinite
    assert int(chunked.num_steps) == 60  # the end of the third chunk of 20
    with pytest.raises(RuntimeError, match=r"step 54.*inputs holds 1 non-finite value out of 100"):
        long_run(cell, jnp.zeros(2), inputs, chunk_steps=20, **run)


def test_float32_stays_float32():
    henon = jax.tree.map(lambda x: x.astype(jnp.float32), lejax.systems.Henon())
    start = jnp.zeros(2, jnp.float32)
    spectrum = long_run(henon, start, num_steps=200, num_blocks=2, chunk_steps=50)
    assert spectrum.exponents.dtype == spectrum.block_exponents.dtype == jnp.float32
    assert spectrum.standard_error.dtype == spectrum.frame.dtype == jnp.float32
    assert abs(float(jnp.sum(spectrum.exponents)) - np.log(0.3)) < 1e-5


def test_progress_is_shown_only_when_asked_for(capsys):
    henon, run = lejax.systems.Henon(), {"num_steps": 20, "num_blocks": 2, "chunk_steps": 10}
    long_run(henon, jnp.zeros(2), **run)
    long_run(henon, jnp.zeros(2), progress=False, **run)
    assert capsys.readouterr() == ("", "")
    long_run(henon, jnp.zeros(2), progress=True, **run)
    out, err = capsys.readouterr()
    assert out == ""
    assert "/20.0" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 10, "chunk_steps": 0}, "chunk_steps must be .*, got 0"),
        ({"num_steps": 10, "chunk_steps": 2.5}, "chunk_steps must be .*, got 2.5"),
        ({"num_steps": 10, "num_blocks": 0}, "num_blocks must be .*, got 0"),
        ({}, "num_steps is required"),
        ({"inputs": np.zeros(9), "transient": 9}, r"transient \(9\) leaves nothing to count"),
        ({"inputs": [np.zeros(9), np.zeros(8)]}, "inputs differ in length"),
        ({"num_steps": 10, "num_exponents": 3}, "num_exponents is 3, but a state of 2 numbers"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        long_run(lejax.systems.Henon(), jnp.zeros(2), **arguments)
