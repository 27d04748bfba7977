"""Long runs in chunks: they equal a single run of `lyapunov_spectrum`."""

import gc
import tracemalloc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.run import long_run


class Counted(eqx.Module):
    """A Henon map that counts how often it is traced; its input is added to x."""

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
    for name in ("exponents", "frame", "state"):
        np.testing.assert_allclose(
            getattr(chunked, name), getattr(single, name), rtol=0, atol=tolerance
        )
    errors = [run.diagnostics.rounding_error for run in (chunked, single)]
    counts = [int(run.diagnostics.num_orthonormalizations) for run in (chunked, single)]
    # Other intervals round differently, each within the tolerable error.
    np.testing.assert_allclose(*errors, rtol=0, atol=tolerance if counts[0] == counts[1] else 1e-8)
    np.testing.assert_array_equal(chunked.diagnostics.unresolved, single.diagnostics.unresolved)
    assert int(chunked.num_steps) == int(single.num_steps)
    assert chunked.result == single.result


# One chunk; complete blocks; parts of a block.
@pytest.mark.parametrize("chunk_steps", [None, 210, 50])
def test_chunks_of_a_divisible_run_equal_a_single_run(chunk_steps):
    cell = lejax.cells.RNNCell(2, 3, key=jr.key(0))
    inputs = np.asarray(jr.normal(jr.key(1), (500, 2)))
    # An interval of one step, because each chunk begins with short intervals otherwise.
    method = lejax.SequentialQR(every=1)
    run = {"num_steps": 400, "transient": 30, "num_blocks": 4, "key": jr.key(2), "method": method}
    single = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, **run)
    chunked = long_run(cell, cell.initial_state(), inputs, chunk_steps=chunk_steps, **run)
    assert_same(chunked, single)
    np.testing.assert_array_equal(chunked.block_steps, single.block_steps)
    np.testing.assert_allclose(chunked.block_exponents, single.block_exponents, atol=1e-12)
    np.testing.assert_allclose(chunked.standard_error, single.standard_error, rtol=1e-9)


@pytest.mark.slow  # compiles many programs
@pytest.mark.parametrize(
    ("num_steps", "num_blocks", "chunk_steps"),
    [
        (399, 20, 19),  # blocks of 20 and 19 in two parts
        (305, 6, 110),  # chunks of two complete blocks of 51 or 50 steps
        (103, 10, 45),  # chunks of 11 + 11 + 11 + 10, four times 10, and 10 + 10
        (7, 4, 1),  # blocks of 2 and 1, of which the last cannot be cut
    ],
)
def test_blocks_equal_those_of_a_single_run(num_steps, num_blocks, chunk_steps):
    henon, start = lejax.systems.Henon(), jnp.zeros(2)
    run = {"num_steps": num_steps, "transient": 7, "num_blocks": num_blocks}
    single = lejax.lyapunov_spectrum(henon, start, **run)
    chunked = long_run(henon, start, chunk_steps=chunk_steps, **run)
    assert_same(chunked, single, tolerance=1e-9)
    np.testing.assert_array_equal(chunked.block_steps, single.block_steps)
    np.testing.assert_allclose(chunked.block_exponents, single.block_exponents, atol=1e-9)
    np.testing.assert_allclose(chunked.standard_error, single.standard_error, atol=1e-9)


@pytest.mark.slow  # compiles many programs
@pytest.mark.parametrize(
    ("transient", "num_steps"),
    [
        (9, 80),
        (95, 80),
        (95, 12),
    ],  # less than a chunk; several chunks and a remainder; one counted chunk
)
def test_the_transient_is_chunked_too(monkeypatch, transient, num_steps):
    calls = []

    def spy(*args, **kwargs):
        calls.append((kwargs["num_steps"], kwargs.get("transient", 0)))
        return lejax.lyapunov_spectrum(*args, **kwargs)

    monkeypatch.setattr(lejax.run._chunked_run, "lyapunov_spectrum", spy)
    inputs = 0.01 * np.asarray(jr.normal(jr.key(1), (transient + num_steps,)))
    run = {"transient": transient, "num_blocks": 4, "key": jr.key(2)}
    chunked = long_run(Counted([]), jnp.zeros(2), inputs, chunk_steps=20, **run)
    single = lejax.lyapunov_spectrum(Counted([]), jnp.zeros(2), inputs, **run)
    assert_same(chunked, single, tolerance=1e-9)
    assert max(steps + skipped for steps, skipped in calls) <= 20
    assert sum(steps + skipped for steps, skipped in calls) == transient + num_steps


@pytest.mark.slow  # compiles many programs
@pytest.mark.parametrize(
    ("run", "programs"),
    [
        ({"num_steps": 80, "transient": 35, "num_blocks": 8}, 2),
        ({"num_steps": 83, "transient": 35, "num_blocks": 8}, 3),  # parts of 6 and 5 steps
        ({"num_steps": 103, "transient": 47, "num_blocks": 53}, 5),
    ],
)
def test_few_programs_are_compiled(run, programs):
    class Fresh(eqx.Module):  # a class for which nothing is compiled yet
        counted: Counted

        def __call__(self, input, state):
            return self.counted(input, state)

    traces = []
    fresh = Fresh(Counted(traces))
    long_run(fresh, jnp.zeros(2), num_steps=10, num_blocks=1)
    one_program = len(traces)
    traces.clear()
    long_run(fresh, jnp.zeros(2), chunk_steps=10, **run)
    assert 0 < len(traces) <= programs * one_program


def test_a_plain_function_compiles_once_for_all_chunks():
    traces = []
    henon, scale = Counted(traces), jnp.asarray(1.0)
    run = {"num_steps": 40, "chunk_steps": 10, "num_blocks": 4}
    by_module = long_run(henon, jnp.zeros(2), **run)
    traces.clear()
    by_function = long_run(lambda u, x: scale * henon(u, x), jnp.zeros(2), **run)
    count = len(traces)
    traces.clear()
    longer = run | {"num_steps": 80, "num_blocks": 8}
    long_run(lambda u, x: scale * henon(u, x), jnp.zeros(2), **longer)
    assert len(traces) == count  # twice as many chunks
    np.testing.assert_allclose(by_function.exponents, by_module.exponents, atol=1e-12)


def test_exponents_of_a_flow_are_per_unit_of_time():
    rates = jnp.array([1.0, 2.0])
    flow = lejax.systems.Flow(lambda input, state: -rates * state, dt=0.1)
    run = {"num_steps": 20, "method": lejax.SequentialQR(every=1)}
    single = lejax.lyapunov_spectrum(flow, jnp.ones(2), **run)
    chunked = long_run(flow, jnp.ones(2), **run)
    assert chunked.dt == 0.1
    np.testing.assert_allclose(chunked.exponents, single.exponents, rtol=1e-12)


def test_a_failed_chunk_reports_the_step_of_a_single_run():
    cell = Counted([])
    inputs = jnp.zeros(100).at[53].set(jnp.nan)
    run = {"transient": 10, "num_blocks": 9}
    single = lejax.lyapunov_spectrum(cell, jnp.zeros(2), inputs, throw=False, **run)
    chunked = long_run(cell, jnp.zeros(2), inputs, chunk_steps=20, throw=False, **run)
    assert int(single.diagnostics.first_bad_step) == int(chunked.diagnostics.first_bad_step) == 54
    assert chunked.result == lejax.RESULTS.nonfinite
    assert int(chunked.num_steps) == 60  # the end of the third chunk of 20
    with pytest.raises(RuntimeError, match=r"step 54.*inputs holds 1 non-finite value out of 100"):
        long_run(cell, jnp.zeros(2), inputs, chunk_steps=20, **run)


@pytest.mark.parametrize("bad", [0, 64])
def test_a_failure_in_the_transient_reports_its_step(bad):
    inputs = jnp.zeros(100).at[bad].set(jnp.nan)
    run = {"transient": 70, "num_blocks": 3, "chunk_steps": 10}
    chunked = long_run(Counted([]), jnp.zeros(2), inputs, throw=False, **run)
    assert int(chunked.diagnostics.first_bad_step) == bad + 1
    assert chunked.result == lejax.RESULTS.nonfinite
    assert np.all(np.isnan(chunked.exponents))
    with pytest.raises(RuntimeError, match=f"step {bad + 1}"):
        long_run(Counted([]), jnp.zeros(2), inputs, **run)


def test_a_failed_run_in_parts_of_blocks_keeps_the_complete_ones():
    inputs = jnp.zeros(90).at[74].set(jnp.nan)
    run = {"num_blocks": 3, "throw": False}
    single = lejax.lyapunov_spectrum(Counted([]), jnp.zeros(2), inputs, **run)
    chunked = long_run(Counted([]), jnp.zeros(2), inputs, chunk_steps=10, **run)
    np.testing.assert_array_equal(chunked.block_steps, [30, 30, 20])
    np.testing.assert_allclose(
        chunked.block_exponents[:2], single.block_exponents[:2], rtol=0, atol=1e-9
    )


class Scaled(eqx.Module):
    """A linear map that stretches one direction relative to the other by the factor `input`."""

    def __call__(self, input, state):
        return state * jnp.stack([jnp.ones(()), 1 / input])


def test_whether_an_interval_is_too_long_is_decided_at_the_end():
    # Rounding dominates the second direction for 10 of 3000 steps: a chunk would fail, the run does not.
    inputs = jnp.ones(3000).at[1500:1510].set(10.0)
    run = {
        "method": lejax.SequentialQR(every=10, blocks=lejax.DeclaredBlocks()),
        "num_blocks": 30,
        "throw": False,
    }
    state, frame = jnp.zeros(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
    args = Scaled(), state, inputs
    one_chunk = lejax.lyapunov_spectrum(
        Scaled(), state, inputs[1500:1600], frame=frame, **run | {"num_blocks": 1}
    )
    assert one_chunk.result == lejax.RESULTS.interval_too_long
    single = lejax.lyapunov_spectrum(*args, frame=frame, **run)
    chunked = long_run(*args, frame=frame, chunk_steps=100, **run)
    assert single.result == chunked.result
    assert_same(chunked, single)
    # A run whose interval is too long everywhere still runs to its end.
    args = Scaled(), state, jnp.full(3000, 10.0)
    single = lejax.lyapunov_spectrum(*args, frame=frame, **run)
    chunked = long_run(*args, frame=frame, chunk_steps=100, **run)
    assert chunked.result == single.result == lejax.RESULTS.interval_too_long
    assert int(chunked.num_steps) == 3000
    assert_same(chunked, single)


class Switched(eqx.Module):
    """One of two linear maps, chosen by the input."""

    maps: jax.Array

    def __call__(self, input, state):
        return self.maps[input] @ state


def test_singular_steps_do_not_shorten_the_intervals_elsewhere():
    turn = jnp.linalg.qr(jr.normal(jr.key(0), (3, 3)))[0]
    left, right = jr.normal(jr.key(1), (2, 3, 2))
    cell, inputs = Switched(jnp.stack([turn, 0.5 * left @ right.T])), np.repeat([1, 0], 128)
    spectrum = long_run(cell, jnp.ones(3), inputs, num_blocks=2, chunk_steps=128)
    assert (
        spectrum.diagnostics.longest_interval > 1
    )  # during the rotations, which need no short intervals
    assert spectrum.diagnostics.unresolved[2] > 0
    assert np.max(spectrum.diagnostics.rounding_error) > 1e-8
    first = lejax.lyapunov_spectrum(cell, jnp.ones(3), inputs[:128], num_blocks=1)
    second = lejax.lyapunov_spectrum(
        cell, first.state, inputs[128:], frame=first.frame, num_blocks=1
    )
    assert first.diagnostics.longest_interval == 1
    assert lejax.combine(first, second).result == lejax.RESULTS.successful


def test_float32_stays_float32():
    henon = jax.tree.map(lambda x: x.astype(jnp.float32), lejax.systems.Henon())
    start = jnp.zeros(2, jnp.float32)
    spectrum = long_run(henon, start, num_steps=200, num_blocks=2, chunk_steps=50)
    assert spectrum.exponents.dtype == spectrum.block_exponents.dtype == jnp.float32
    assert spectrum.standard_error.dtype == spectrum.frame.dtype == jnp.float32
    assert abs(float(jnp.sum(spectrum.exponents)) - np.log(0.3)) < 1e-5


def test_a_run_stops_at_its_tolerance_and_not_before():
    henon, run = lejax.systems.Henon(), {"num_blocks": 10, "chunk_steps": 500}
    for tolerance in (1.0, 0.01, 0.003):
        spectrum = long_run(henon, jnp.zeros(2), transient=100, tolerance=tolerance, **run)
        assert np.all(spectrum.standard_error < tolerance)
        assert spectrum.result == lejax.RESULTS.successful
        assert 10 <= len(spectrum.block_steps) < 20
        assert int(spectrum.block_steps.sum()) == int(spectrum.num_steps)
        # Blocks are equal, and twice as long after each joining of pairs; the last block is incomplete.
        length = int(spectrum.block_steps[0])
        assert length % 50 == 0
        assert length // 50 == 2 ** int(np.log2(length // 50))
        assert set(spectrum.block_steps[:-1].tolist()) == {length}
    assert int(spectrum.num_steps) > 5_000
    before = long_run(henon, jnp.zeros(2), num_steps=500, num_blocks=10)
    assert float(before.standard_error.max()) > 0.003


def test_a_tolerance_does_not_change_the_run():
    henon = lejax.systems.Henon()
    method = lejax.SequentialQR(every=1)
    run = {"transient": 30, "method": method}
    stopped = long_run(henon, jnp.zeros(2), tolerance=0.01, num_blocks=4, chunk_steps=100, **run)
    single = lejax.lyapunov_spectrum(
        henon, jnp.zeros(2), num_steps=int(stopped.num_steps), num_blocks=4, **run
    )
    assert_same(stopped, single, tolerance=1e-9)


def test_num_steps_or_the_inputs_limit_a_run():
    run = {"tolerance": 1e-9, "num_blocks": 4, "chunk_steps": 40}
    henon = lejax.systems.Henon()
    spectrum = long_run(henon, jnp.zeros(2), num_steps=333, **run)
    assert int(spectrum.num_steps) == 333
    np.testing.assert_array_equal(spectrum.block_steps, 4 * [80] + [13])
    single = lejax.lyapunov_spectrum(henon, jnp.zeros(2), num_steps=333)
    assert_same(spectrum, single, tolerance=1e-9)
    driven = long_run(Counted([]), jnp.zeros(2), 0.01 * np.ones(150), transient=20, **run)
    assert int(driven.num_steps) == 130


def test_a_tolerance_ignores_lost_directions():
    lost = eqx.Partial(lambda a, input, state: a @ state, jnp.diag(jnp.array([1.2, 0.8, 0.0])))
    run = {"transient": 20, "num_blocks": 4, "chunk_steps": 40}
    spectrum = long_run(lost, jnp.zeros(3), tolerance=1e-6, **run)
    assert spectrum.exponents[2] == -jnp.inf
    assert np.isnan(spectrum.standard_error[2])
    np.testing.assert_allclose(spectrum.exponents[:2], np.log([1.2, 0.8]), atol=1e-9)
    assert int(spectrum.num_steps) == 40  # the first chunk: the other exponents are constant


@pytest.mark.parametrize("tolerance", [None, 1e-9])
def test_memory_does_not_grow_with_the_number_of_chunks(monkeypatch, tolerance):
    henon, run = lejax.systems.Henon(), {"chunk_steps": 10, "throw": False, "num_blocks": 5}
    verb, chunks, memory = lejax.lyapunov_spectrum, [0], []

    def spy(*args, **kwargs):
        chunks[0] += 1
        if chunks[0] in range(200, 501, 50):
            gc.collect()
            counts = len(jax.live_arrays()), len(gc.get_objects())
            memory.append((*counts, tracemalloc.get_traced_memory()[0]))
        return verb(*args, **kwargs)

    monkeypatch.setattr(lejax.run._chunked_run, "lyapunov_spectrum", spy)
    tracemalloc.start()
    try:
        long_run(henon, jnp.zeros(2), num_steps=5_000, tolerance=tolerance, **run)
    finally:
        tracemalloc.stop()
    arrays, objects, _ = np.subtract(memory[-1], memory[0])
    assert arrays <= 0
    assert objects < 20
    # What grows with each chunk grows in each window of 50. The rest is memory that Python and JAX reuse: it grows ever
    # more slowly. An array of NumPy takes more than 100 bytes, a spectrum kilobytes.
    growth = np.diff([size for _, _, size in memory]) / 50
    assert np.median(growth) < 100


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
        ({"num_steps": 2**30, "transient": 2**30}, "transient . num_steps must be below 2..31"),
        ({"inputs": np.zeros(9), "transient": 9}, r"transient \(9\) leaves nothing to count"),
        ({"inputs": [np.zeros(9), np.zeros(8)]}, "inputs differ in length"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"tolerance": float("nan")}, "tolerance must be positive, got nan"),
        ({"tolerance": 1.0, "num_blocks": 1}, "num_blocks, .*, must be .* at least 2, got 1"),
        (
            {"num_steps": 10, "method": lejax.ParallelQR(2, 1)},
            "method must be a SequentialQR, got ParallelQR",
        ),
        ({"num_steps": 10, "num_exponents": 3}, "num_exponents is 3, but a state of 2 numbers"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        long_run(lejax.systems.Henon(), jnp.zeros(2), **arguments)


def test_a_block_triangular_cell_reports_the_leading_exponents_of_the_complete_run():
    class Gate(lejax.BlockTriangularCell):
        def __call__(self, input, state):
            return jnp.exp(input) * state

        def blocks(self, input, state):
            return self(input, state), (lejax.DiagonalBlock(input),)

    # The first coordinate grows fastest at first, the second over the complete run.
    late = (jnp.arange(600) >= 200)[:, None]
    inputs = jnp.where(late, jnp.array([-0.2, 0.0]), jnp.array([0.0, -0.1]))
    spectrum = long_run(Gate(), jnp.ones(2), inputs, num_exponents=1, chunk_steps=200, num_blocks=3)
    np.testing.assert_allclose(spectrum.exponents, -0.1 / 3, atol=0.02)


def test_a_frame_that_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"frame has shape \(2,\)"):
        lejax.run.long_run(
            lejax.systems.Henon(), jnp.zeros(2), num_steps=10, frame=jnp.ones(2), progress=False
        )
