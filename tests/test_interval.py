"""The interval that adapts, and chunks in parallel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax import RESULTS, ParallelQR, SequentialQR


LORENZ = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)


def spectrum(cell, state, inputs=None, **options):
    return lejax.lyapunov_spectrum(cell, state, inputs, **{"num_steps": 640, **options})


def test_the_default_adapts_and_equals_every_step():
    automatic = spectrum(LORENZ, jnp.ones(3), num_blocks=1)
    each = spectrum(LORENZ, jnp.ones(3), num_blocks=1, method=SequentialQR(jnp.array(1)))
    assert automatic.diagnostics.longest_interval > 64
    assert each.diagnostics.longest_interval == 1
    assert each.diagnostics.num_orthonormalizations == 640
    assert automatic.diagnostics.num_orthonormalizations < 32
    np.testing.assert_allclose(automatic.exponents, each.exponents, atol=1e-8)
    np.testing.assert_array_equal(automatic.state, each.state)


@pytest.mark.parametrize("spread", [0.0, 0.25, 0.5, 1.0, 5.0, 20.0])
def test_interval_follows_the_spread_of_the_growth_rates(spread):
    # After n steps e^{-spread n} is left of the last column: the longest interval costs eps e^{spread n} = 1e-8 n.
    steps = np.arange(1, 129)
    fits = spread * steps <= np.log(1e-8 * steps / np.finfo(float).eps)
    longest = steps[fits].max(initial=1)
    rotation = jnp.linalg.qr(jr.normal(jr.key(0), (3, 3)))[0]
    matrix = rotation @ jnp.diag(jnp.exp(-spread * jnp.array([0.0, 0.5, 1.0]))) @ rotation.T
    run = spectrum(_Matrix(matrix), jnp.ones(3), num_steps=2048, frame=rotation, num_blocks=1)
    assert 0.85 * longest <= int(run.diagnostics.longest_interval) <= longest
    assert run.diagnostics.num_orthonormalizations <= 1.3 * 2048 / longest + 8
    expected = -spread * np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(run.exponents, expected, atol=1e-8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("rate", [3.0, -5.0])
def test_products_that_leave_the_floats_are_done_again_in_shorter_ones(rate, dtype):
    # One column has no spread, so that nothing else ends an interval: 128 steps are e^384 or e^-640.
    cell = _Matrix(jnp.diag(jnp.exp(jnp.array([rate, rate - 1], dtype))))
    frame = jnp.array([[1.0], [0.0]], dtype)
    method = SequentialQR(blocks=lejax.DeclaredBlocks())
    run = spectrum(
        cell, jnp.zeros(2, dtype), frame=frame, num_blocks=1, num_steps=1000, method=method
    )
    np.testing.assert_allclose(run.exponents, rate, rtol=10 * jnp.finfo(dtype).eps)
    assert 8 <= run.diagnostics.longest_interval <= 128


@pytest.mark.parametrize("columns", [6, 70])
def test_blocks_are_those_of_a_plain_loop(columns):
    weight = 1.5 * columns**-0.5 * jr.normal(jr.key(0), (columns, columns))
    start = 0.5 * jr.normal(jr.key(1), (columns,))
    frame = jnp.linalg.qr(jr.normal(jr.key(2), (columns, columns)))[0]
    run = spectrum(_Tanh(weight), start, num_steps=60, num_blocks=5, frame=frame)

    def step(carry, _):
        state, frame = carry
        state = jnp.tanh(weight @ state)
        frame, triangle = jnp.linalg.qr((1 - state**2)[:, None] * weight @ frame)
        return (state, frame), jnp.log(jnp.abs(jnp.diagonal(triangle)))

    growth = jax.lax.scan(step, (start, frame), length=60)[1]
    expected = growth.reshape(5, 12, columns).mean(axis=1)
    np.testing.assert_allclose(run.block_exponents, expected, atol=1e-9)
    np.testing.assert_allclose(run.frame.T @ run.frame, np.eye(columns), atol=1e-12)


class _Matrix(eqx.Module):
    matrix: jax.Array

    def __call__(self, input, state):
        return self.matrix @ state


def test_what_underflows_between_orthonormalizations_is_no_exact_zero():
    # The second direction shrinks by 1e-200 a step: two steps of it are below the smallest number.
    run = {"num_steps": 256, "num_blocks": 16, "frame": jnp.eye(2), "throw": False}
    blocks = lejax.DeclaredBlocks()
    cell = _Matrix(jnp.diag(jnp.array([1.0, 1e-200])))
    asked = spectrum(cell, jnp.ones(2), method=SequentialQR(2, blocks=blocks), **run)
    assert asked.result == RESULTS.interval_too_long
    found = spectrum(cell, jnp.ones(2), method=SequentialQR(blocks=blocks), **run)
    assert found.result == RESULTS.successful
    assert int(found.diagnostics.longest_interval) == 1
    np.testing.assert_allclose(found.exponents, [0, -200 * np.log(10)], rtol=1e-12)


def test_whether_an_interval_is_too_long_is_decided_per_step_of_a_flow():
    # Of 32 steps of exp(-rate dt) rounding costs eps exp(32 rate dt) / 32 a step: 1e-9 and 9e-7; per unit of time 100 times as much.
    for rate, result in ((60.0, RESULTS.successful), (80.0, RESULTS.interval_too_long)):
        flow = lejax.systems.Flow(_Matrix(jnp.diag(jnp.array([0.0, -rate]))), dt=0.01)
        method = SequentialQR(32, blocks=lejax.DeclaredBlocks())
        options = {"frame": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "num_blocks": 20, "throw": False}
        run = spectrum(flow, jnp.zeros(2), method=method, **options)
        assert run.result == result
        assert run.diagnostics.rounding_error[1] > 5e-8
        chunked = lejax.run.long_run(
            flow, jnp.zeros(2), num_steps=640, chunk_steps=128, method=method, **options
        )
        assert chunked.result == result


class _Worse(eqx.Module):
    """Driven by its matrix's exponent: calm at first, ill-conditioned later."""

    rotation: jax.Array

    def __call__(self, input, state):
        scales = jnp.exp(-input * jnp.array([0.0, 0.5, 1.0]))
        return self.rotation @ (scales * (self.rotation.T @ state))


def test_an_interval_is_shortened_in_a_burst_and_lengthened_after_it():
    rotation = jnp.linalg.qr(jr.normal(jr.key(0), (3, 3)))[0]
    time = jnp.arange(3000)
    spreads = jnp.where((time >= 1000) & (time < 1100), 6.0, 0.1)
    cell, run = _Worse(rotation), {"num_steps": None, "frame": rotation, "num_blocks": 1}
    automatic = spectrum(cell, jnp.ones(3), spreads, **run)
    assert automatic.result == RESULTS.successful
    expected = -np.mean(spreads) * np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(automatic.exponents, expected, atol=1e-8)
    # e^18 eps / 3 < 1e-8 < e^24 eps / 4: 34 intervals of 3 in the burst, and of up to 128 before and after it.
    burst = spectrum(cell, jnp.ones(3), spreads[1000:1100], **run).diagnostics
    assert burst.longest_interval == 3
    assert automatic.diagnostics.longest_interval == 128
    assert automatic.diagnostics.num_orthonormalizations < 90
    asked = spectrum(cell, jnp.ones(3), spreads, **run, method=SequentialQR(32), throw=False)
    assert asked.result == RESULTS.interval_too_long
    assert asked.diagnostics.avoidable_error[2] > 1e-8


def test_one_interval_for_a_batch_and_the_rest_intact_when_a_member_diverges():
    a = jnp.array([1.2, 1.4, 5.0])  # the last one escapes

    @jax.vmap
    def run(a):
        return spectrum(lejax.systems.Henon(a, 0.3), jnp.zeros(2), num_steps=2048, throw=False)

    spectra = run(a)
    assert len(set(spectra.diagnostics.longest_interval.tolist())) == 1
    assert [int(n) >= 0 for n in spectra.diagnostics.first_bad_step] == [False, False, True]
    for i in range(2):
        alone = spectrum(lejax.systems.Henon(a[i], 0.3), jnp.zeros(2), num_steps=2048)
        assert spectra.diagnostics.longest_interval[i] <= alone.diagnostics.longest_interval
        np.testing.assert_allclose(jnp.sum(spectra.exponents[i]), jnp.log(0.3), atol=1e-8)
        assert abs(spectra.exponents[i, 0] - alone.exponents[0]) < 5 * alone.standard_error[0]
    # The one that escapes had no say in the interval.
    assert spectra.diagnostics.longest_interval[0] == run(a[:2]).every[0]


def test_large_frames_of_a_batch_go_one_by_one_with_the_same_numbers():
    weights = jr.normal(jr.key(0), (2, 32, 32)) * 32**-0.5 * 1.5
    states = jr.normal(jr.key(1), (2, 32))
    run = lambda w, h: spectrum(_Tanh(w), h, num_steps=40).exponents
    together = jax.vmap(run)(weights, states)
    np.testing.assert_allclose(together[1], run(weights[1], states[1]), atol=1e-9)
    nested = jax.vmap(jax.vmap(run))(weights[:, None], states[:, None])
    np.testing.assert_array_equal(nested[:, 0], together)
    gradient = jax.vmap(jax.grad(lambda w, h: run(w, h)[0]))(weights, states)
    single = jax.grad(lambda w, h: run(w, h)[0])(weights[0], states[0])
    np.testing.assert_allclose(gradient[0], single, rtol=1e-6, atol=1e-10)


def test_large_frames_of_a_batch_have_intervals_of_their_own_on_a_cpu():
    if jax.default_backend() != "cpu":
        pytest.skip("on other devices the batch has one interval")
    weights = jnp.array([0.3, 3.0])[:, None, None] * jr.normal(jr.key(0), (2, 32, 32)) * 32**-0.5
    states = jr.normal(jr.key(1), (2, 32))
    run = jax.jit(lambda w, h: spectrum(_Tanh(w), h, num_steps=200, transient=20))
    together = jax.vmap(run)(weights, states)
    alone = [run(w, h) for w, h in zip(weights, states, strict=True)]
    assert [int(every) for every in together.diagnostics.longest_interval] == [
        int(one.diagnostics.longest_interval) for one in alone
    ]
    assert together.diagnostics.longest_interval[0] > together.diagnostics.longest_interval[1]
    np.testing.assert_allclose(together.exponents[0], alone[0].exponents, atol=1e-9)


class _Tanh(eqx.Module):
    weight: jax.Array

    def __call__(self, input, state):
        return jnp.tanh(self.weight @ state)


def test_what_is_differentiated_orthonormalizes_at_each_step():
    def report(rho, every):
        cell = lejax.systems.Flow(lejax.systems.Lorenz63(rho=rho), dt=0.01)
        return spectrum(cell, jnp.ones(3), num_steps=200, method=SequentialQR(every))

    def exponents(rho, every):
        return report(rho, every).exponents

    def with_interval(rho):
        run = report(rho, None)
        return run.exponents, run.diagnostics.longest_interval

    assert int(report(20.0, None).diagnostics.longest_interval) > 1
    _, _, every = jax.jvp(with_interval, (20.0,), (1.0,), has_aux=True)
    assert int(every) == 1

    automatic = jax.jacfwd(exponents)(jnp.array(20.0), None)
    each = jax.jacfwd(exponents)(jnp.array(20.0), 1)
    backward = jax.jacrev(exponents)(jnp.array(20.0), None)
    np.testing.assert_allclose(automatic, each, rtol=1e-12)
    np.testing.assert_allclose(automatic, backward, rtol=1e-8, atol=1e-10)


# --- chunks


def test_chunks_of_one_linear_map_are_exact():
    # Every chunk of a constant diagonalizable map with real multipliers warms up to the same frame.
    matrix = jnp.array([[2.0, 1.0, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 0.2]])
    run = {"num_steps": 240, "transient": 60, "num_blocks": 7}
    chunks = spectrum(_Matrix(matrix), jnp.zeros(3), method=ParallelQR(4, 60), **run)
    assert chunks.block_steps.tolist() == [30] * 8  # the blocks are a multiple of the chunks
    np.testing.assert_allclose(chunks.exponents, np.log([2.0, 0.7, 0.2]), atol=1e-12)
    np.testing.assert_allclose(chunks.diagnostics.overlap_bias, 0, atol=1e-9)


def test_chunks_equal_the_sequential_run_of_a_chaotic_map_within_its_error():
    henon = lejax.systems.Henon()
    run = {"num_steps": 8_000, "transient": 200}
    exact = spectrum(henon, jnp.zeros(2), **run)
    chunks = spectrum(henon, jnp.zeros(2), method=ParallelQR(16, 100), **run)
    assert chunks.result == RESULTS.successful
    np.testing.assert_array_equal(chunks.state, exact.state)
    # Frames of the Henon map forget exponentially: the two agree far below the standard error.
    np.testing.assert_allclose(chunks.exponents, exact.exponents, atol=1e-4)
    np.testing.assert_allclose(jnp.abs(chunks.frame), jnp.abs(exact.frame), atol=1e-6)


def test_inputs_reach_the_chunk_they_belong_to():
    rotation = jnp.linalg.qr(jr.normal(jr.key(0), (3, 3)))[0]
    spreads = 1 + jr.uniform(jr.key(1), (300,))
    run = {"num_steps": 240, "transient": 60, "num_blocks": 4, "frame": rotation}
    chunks = spectrum(_Worse(rotation), jnp.ones(3), spreads, method=ParallelQR(4, 60), **run)
    expected = -np.mean(spreads[60:].reshape(4, 60), axis=1)
    np.testing.assert_allclose(chunks.block_exponents[:, 2], expected, atol=1e-10)


def test_too_short_an_overlap_and_a_rotating_fixed_point_are_refused():
    angle = jnp.array(1.0)
    turn = jnp.array(
        [[jnp.cos(angle), -2 * jnp.sin(angle)], [0.5 * jnp.sin(angle), jnp.cos(angle)]]
    )
    run = {"num_steps": 1000, "transient": 200, "throw": False}
    spiral = spectrum(_Matrix(0.9 * turn), jnp.ones(2), method=ParallelQR(10, 200), **run)
    assert spiral.result == RESULTS.overlap_too_short
    short = spectrum(LORENZ, jnp.ones(3), method=ParallelQR(50, 1), **run)
    assert short.result == RESULTS.overlap_too_short
    with pytest.raises(RuntimeError, match="larger overlap or fewer chunks"):
        spectrum(
            _Matrix(0.9 * turn), jnp.ones(2), method=ParallelQR(10, 200), **run | {"throw": True}
        )


def test_a_start_that_is_no_number_is_bad_from_the_start():
    run = {"num_steps": 40, "transient": 5, "throw": False}
    start = jnp.array([jnp.nan, 0.0])
    chunks = spectrum(lejax.systems.Henon(), start, method=ParallelQR(4, 5), **run)
    assert int(chunks.diagnostics.first_bad_step) == 0


def test_a_diverging_trajectory_says_where():
    henon = lejax.systems.Henon(5.0, 0.3)
    run = {"num_steps": 400, "transient": 20, "throw": False}
    chunks = spectrum(henon, jnp.zeros(2), method=ParallelQR(4, 20), **run)
    exact = spectrum(henon, jnp.zeros(2), method=SequentialQR(1), **run)
    assert chunks.result == RESULTS.nonfinite
    assert int(chunks.diagnostics.first_bad_step) == int(exact.diagnostics.first_bad_step)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"transient": 5}, "transient is 5, but ParallelQR takes the overlap .* which is 10"),
        ({"transient": 10, "num_steps": 101}, "num_steps is 101, .* multiple of num_chunks, 4"),
    ],
)
def test_unusable_chunks(run, sentence):
    with pytest.raises(ValueError, match=sentence):
        spectrum(LORENZ, jnp.ones(3), method=ParallelQR(4, 10), **run)
    with pytest.raises(ValueError, match="num_chunks must be an integer of at least 2, got 1"):
        ParallelQR(1, 10)


def test_chunks_compose():
    def mean(rho):
        cell = lejax.systems.Flow(lejax.systems.Lorenz63(rho=rho), dt=0.01)
        run = {"num_steps": 80, "transient": 40, "throw": False}
        return spectrum(cell, jnp.ones(3), method=ParallelQR(2, 40), **run).exponents

    one = mean(jnp.array(20.0))
    np.testing.assert_allclose(jax.vmap(mean)(jnp.array([20.0, 25.0]))[0], one, atol=1e-9)
    forward, backward = jax.jacfwd(mean)(jnp.array(20.0)), jax.jacrev(mean)(jnp.array(20.0))
    np.testing.assert_allclose(forward, backward, rtol=1e-7, atol=1e-9)


def test_float32_agrees_with_float64_within_the_standard_error():
    cell = lejax.cells.GRUCell(2, 8, key=jr.key(0))
    inputs = jr.normal(jr.key(1), (2_000, 2))
    low = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
    for method in (SequentialQR(), ParallelQR(8, 100)):
        run = {"num_steps": None, "transient": 400, "method": method, "throw": False}
        exact = spectrum(cell, jnp.zeros(8), inputs, **run)
        single = spectrum(low(cell), jnp.zeros(8, jnp.float32), low(inputs), **run)
        assert single.exponents.dtype == jnp.float32
        assert single.result == exact.result
        assert np.all(np.abs(single.exponents - exact.exponents) < 0.1 * exact.standard_error)


def test_products_are_in_highest_precision_whatever_the_global_default():
    cell = lejax.cells.GRUCell(0, 20, dtype=jnp.float32, key=jr.key(0))
    with jax.default_matmul_precision("bfloat16"):
        text = str(
            jax.make_jaxpr(
                lambda c, h: spectrum(c, h, method=ParallelQR(4, 20), transient=20, throw=False)
            )(cell, jnp.zeros(20, jnp.float32))
        )
    products = text.count("dot_general[")
    assert products > 10
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products
