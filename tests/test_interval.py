"""The adaptive interval, and chunks in parallel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax import RESULTS, ParallelQR, SequentialQR
from lejax._core.statistics import block_lengths


LORENZ = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)


def spectrum(cell, state, inputs=None, **options):
    return lejax.lyapunov_spectrum(cell, state, inputs, **{"num_steps": 640, **options})


def longest_of(run):
    return int(run.diagnostics.longest_interval)


def count_of(run):
    return int(run.diagnostics.num_orthonormalizations)


def basis(size):
    return jnp.linalg.qr(jr.normal(jr.key(0), (size, size)))[0]


def longest_tolerable(spread, tolerance=1e-8, eps=2.0**-52, most=128):
    """After n steps e^{-spread n} is left of the last column, which costs eps e^{spread n} / n a step."""
    steps = np.arange(1, most + 1)
    fits = spread * steps <= np.log(np.maximum(tolerance * steps / eps, 1))
    return max(1, *steps[fits]) if fits.any() else 1


class _Matrix(eqx.Module):
    matrix: jax.Array

    def __call__(self, input, state):
        return self.matrix @ state


class _Driven(eqx.Module):
    """Its inputs are the rates along fixed orthogonal directions, times its scales."""

    rotation: jax.Array
    scales: jax.Array = eqx.field(default_factory=lambda: -jnp.array([0.0, 0.5, 1.0]))
    pushes: list | None = eqx.field(static=True, default=None)

    def __call__(self, input, state):
        if self.pushes is not None:
            jax.debug.callback(lambda _: self.pushes.append(0), input)
        return self.rotation @ (jnp.exp(input * self.scales) * (self.rotation.T @ state))


def driven(spreads, method=SequentialQR(), pushes=None, **options):
    """A run whose last rate is minus the spread of each step, and the error of its exponents."""
    rotation = basis(3)
    options = {"num_steps": None, "num_blocks": 1, "frame": rotation, "method": method} | options
    transient = options.get("transient", 0)
    run = spectrum(_Driven(rotation, pushes=pushes), jnp.ones(3), jnp.asarray(spreads), **options)
    jax.effects_barrier()
    exact = -np.mean(spreads[transient:]) * np.array([0.0, 0.5, 1.0])
    return run, np.max(np.abs(run.exponents - exact))


def test_the_default_adapts_and_equals_every_step():
    adaptive = spectrum(LORENZ, jnp.ones(3))
    assert longest_of(adaptive) == 32  # the steps of a block
    assert 20 < count_of(adaptive) < 60
    each = spectrum(LORENZ, jnp.ones(3), method=SequentialQR(1))
    assert (longest_of(each), count_of(each)) == (1, 640)
    np.testing.assert_allclose(adaptive.exponents, each.exponents, atol=1e-8)
    np.testing.assert_allclose(adaptive.block_exponents, each.block_exponents, atol=1e-8)
    np.testing.assert_allclose(adaptive.state, each.state, rtol=1e-9)  # rounding grows


def test_a_number_is_the_interval_up_to_the_ends_of_blocks():
    for every, count in ((7, 20 * 5), (32, 20), (100, 20)):
        exact = SequentialQR(every, orthonormalizer=lejax.Householder())
        run = spectrum(LORENZ, jnp.ones(3), method=exact)
        assert (longest_of(run), count_of(run)) == (min(every, 32), count)
        fast = spectrum(LORENZ, jnp.ones(3), method=SequentialQR(every))
        assert longest_of(fast) == min(every, 32)
        assert count <= count_of(fast) <= count + 20  # a block may end with a second pass


@pytest.mark.parametrize(
    ("spread", "options"),
    [
        *((spread, {}) for spread in (0.0, 0.5, 1.0, 5.0, 20.0)),
        (0.0, {"max_interval": 7}),
        (0.5, {"max_interval": 1}),
        (0.5, {"tolerance": 1e-13}),
        (1.0, {"tolerance": 1e-5}),
        (2.5, {"tolerance": 1e-11, "max_interval": 50}),
    ],
)
def test_interval_follows_the_spread_of_the_growth_rates(spread, options):
    tolerance = options.get("tolerance", 1e-8)
    longest = longest_tolerable(spread, tolerance, most=options.get("max_interval", 128))
    run, error = driven(np.full(2048, spread), SequentialQR(**options))
    n = longest_of(run)
    assert n <= longest
    # It lengthens to nine tenths of what would use all digits.
    possible = 0.9 * np.log(tolerance * n / 2.0**-52) / max(spread, 0.01)
    assert n >= max(1, min(int(possible), options.get("max_interval", 128)))
    # A start that doubles, and a last interval that the end cuts short.
    assert 2048 / n <= count_of(run) <= 2048 / n + 10
    assert error < tolerance
    cost = 2.0**-52 * np.exp(spread * n) / n
    assert run.diagnostics.rounding_error[2] <= max(cost, 2.0**-52 * np.exp(spread)) * 1.001


def test_a_tolerance_is_traced_and_one_below_rounding_asks_for_every_step():
    traces = []

    @jax.jit
    def run(tolerance):
        traces.append(None)
        return driven_in_float(tolerance).diagnostics

    def driven_in_float(tolerance):
        method = SequentialQR(tolerance=tolerance)
        return spectrum(
            _Driven(basis(3)), jnp.ones(3), jnp.full(400, 2.5), num_steps=None, method=method
        )

    found = [int(run(tolerance).longest_interval) for tolerance in (1e-4, 1e-8, 1e-12)]
    assert found[0] > found[1] > found[2] > 1
    assert len(traces) == 1
    for tolerance in (1e-16, 1e-20, 1e-300):
        diagnostics = run(tolerance)
        assert int(diagnostics.longest_interval) == 1
        assert np.max(diagnostics.rounding_error) < 1e-12
        assert np.all(diagnostics.unresolved == 0)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 4.0])
def test_interval_in_float32(spread):
    rotation = basis(3).astype(jnp.float32)
    rates, scales = jnp.full(1024, spread, jnp.float32), -jnp.array([0, 0.5, 1], jnp.float32)
    options = {"num_steps": None, "num_blocks": 1, "frame": rotation}
    run = spectrum(_Driven(rotation, scales), jnp.ones(3, jnp.float32), rates, **options)
    longest = longest_tolerable(spread, 1e-4, 2.0**-23)
    assert 0.9 * longest - 1 <= longest_of(run) <= longest
    np.testing.assert_allclose(run.exponents, spread * scales, atol=1e-4)


def test_what_underflows_between_orthonormalizations_is_no_exact_zero():
    # The second direction shrinks by 1e-200 a step: two steps of it are below the smallest number.
    run = {"num_steps": 256, "num_blocks": 16, "frame": jnp.eye(2), "throw": False}
    blocks = lejax.DeclaredBlocks()
    cell = _Matrix(jnp.diag(jnp.array([1.0, 1e-200])))
    asked = spectrum(cell, jnp.ones(2), method=SequentialQR(2, blocks=blocks), **run)
    assert asked.result == RESULTS.interval_too_long
    found = spectrum(cell, jnp.ones(2), method=SequentialQR(blocks=blocks), **run)
    assert found.result == RESULTS.successful
    assert longest_of(found) == 1
    np.testing.assert_allclose(found.exponents, [0, -200 * np.log(10)], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("kind", [None, lejax.Householder()], ids=["fast", "Householder"])
@pytest.mark.parametrize("columns", [1, 2])
def test_no_product_of_an_interval_leaves_the_floats(dtype, kind, columns):
    # All columns grow alike, so that no digits but those of the exponent are at stake.
    finfo, turn = jnp.finfo(dtype), jnp.linalg.qr(jr.normal(jr.key(1), (2, 2)))[0]
    method = SequentialQR(orthonormalizer=kind, blocks=lejax.DeclaredBlocks())

    @jax.jit
    def run(rate):
        cell = _Matrix((jnp.exp(rate) * turn).astype(dtype))
        options = {"num_steps": 700, "num_exponents": columns, "num_blocks": 1, "method": method}
        return spectrum(cell, jnp.zeros(2, dtype), **options)

    ends = np.log(float(finfo.max)), np.log(float(finfo.tiny))
    # Fast passes square what they are given.
    share = 1 if kind else 2
    for rate in (3.0, -5.0, 0.7, -0.72, -0.75, -5.7, 30.0, -40.0):
        out = run(rate)
        longest = longest_of(out)
        np.testing.assert_allclose(out.exponents, rate, rtol=20 * finfo.eps)
        assert np.all(out.diagnostics.unresolved == 0)
        assert np.all(out.diagnostics.rounding_error < 2 * finfo.eps)
        capacity = ends[rate < 0] / share / rate  # the steps that fit
        assert longest == 1 or longest <= min(capacity, 128)
        # Some digits are left at the ends of the floats.
        assert longest >= min(128, 0.9 * (capacity + np.log(finfo.eps) / abs(rate)) - 1)


def test_a_state_of_one_number_leaves_the_floats_no_more():
    for dtype in (jnp.float32, jnp.float64):
        for rate in (3.0, -5.0):
            cell = _Matrix(jnp.exp(jnp.asarray([[rate]], dtype)))
            options = {"num_steps": 500, "num_blocks": 1}
            run = spectrum(cell, jnp.zeros(1, dtype), **options)
            np.testing.assert_allclose(run.exponents, rate, rtol=20 * jnp.finfo(dtype).eps)
            assert run.result == RESULTS.successful


def test_whether_an_interval_is_too_long_is_decided_per_step_of_a_flow():
    # In 32 steps of exp(-rate dt) rounding costs eps exp(32 rate dt) / 32 a step: 1e-9 and 9e-7, and 100 times as much
    # per unit of time.
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


CALM, HARD = np.full(512, 0.1), np.full(512, 6.0)  # e^18 eps / 3 < 1e-8 < e^24 eps / 4


def test_a_run_that_turns_ill_conditioned_shortens_its_interval_there():
    pushes = []
    run, error = driven(np.concatenate([CALM, HARD]), pushes=pushes)
    assert run.result == RESULTS.successful
    assert error < 1e-8
    assert longest_of(run) == 128
    assert len(HARD) / 3 <= count_of(run) <= len(HARD) / 2 + len(CALM) / 128 + 20
    # A product was thrown away, and not often.
    assert 1024 < len(pushes) < 1.2 * 1024
    late, error = driven(np.concatenate([CALM, HARD]), transient=512)
    assert 2 <= longest_of(late) <= 3
    assert error < 1e-8
    asked, _ = driven(np.concatenate([CALM, HARD]), SequentialQR(32), throw=False)
    assert asked.result == RESULTS.interval_too_long


def test_a_run_that_turns_calm_again_lengthens_its_interval():
    spreads = np.concatenate([CALM, HARD, CALM])
    whole, error = driven(spreads)
    assert error < 1e-8
    assert count_of(whole) <= len(HARD) / 2 + 2 * len(CALM) / 128 + 40
    late, error = driven(spreads, transient=1024)
    assert longest_of(late) == 128
    assert count_of(late) < 20
    assert error < 1e-8


def test_bursts_cost_what_they_last():
    spreads = np.full(2000, 0.05)
    for start in range(100, 2000, 200):
        spreads[start : start + 5] = 8.0
    pushes = []
    run, error = driven(spreads, pushes=pushes)
    assert run.result == RESULTS.successful
    assert error < 1e-8
    assert longest_of(run) >= 64
    assert np.max(run.diagnostics.rounding_error) < 1e-8
    # At each burst the halving and the doubling again: one interval for all would take 1000 of 2 steps.
    assert count_of(run) < 10 * (5 + 8 + 8) + 2000 / 64
    # A burst that ends a long interval throws away the products of 1/1, 1/2, 1/4, .. of its steps.
    assert 2000 < len(pushes) < 2000 + 10 * 2 * 128


def test_what_a_product_of_nearly_parallel_columns_absorbs_is_not_trusted():
    # A shear turns columns towards each other, so that the ratios within one product are lost before its shares are.
    matrix = jnp.eye(3) + 30.0 * jnp.triu(jnp.ones((3, 3)), 1)
    matrix = matrix * jnp.exp(jnp.array([0.0, -0.6, -1.2]))[None]
    turn = basis(3)
    for orthonormalizer in (None, lejax.Cholesky(), lejax.Panels(width=2), lejax.Householder()):
        method = SequentialQR(orthonormalizer=orthonormalizer, blocks=lejax.DeclaredBlocks())
        options = {"num_steps": 600, "transient": 200, "method": method}
        run = spectrum(_Matrix(turn @ matrix @ turn.T), jnp.zeros(3), **options)
        np.testing.assert_allclose(run.exponents, [0.0, -0.6, -1.2], atol=1e-8)
        np.testing.assert_allclose(run.frame.T @ run.frame, np.eye(3), atol=1e-12)
        assert longest_of(run) > 1


def plain_blocks(cell, state, frame, lengths):
    """Sums of log R_ii over each block, by NumPy at every step."""
    push = jax.jit(lambda h, q: lejax.push_forward(cell, h, None, q))
    columns, sums = np.linalg.qr(frame)[0], []
    for length in lengths:
        total = np.zeros(frame.shape[1])
        for _ in range(length):
            state, pushed = push(state, columns)
            columns, triangle = np.linalg.qr(pushed)
            total += np.log(np.abs(np.diagonal(triangle)))
        sums.append(total)
    return np.array(sums), np.asarray(columns)


METHODS = {
    "default": SequentialQR(),
    "every 2": SequentialQR(2),
    "tolerance": SequentialQR(tolerance=1e-13),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("size", "gain"), [(6, 1.2), (70, 1.0)])
def test_blocks_end_with_the_frame_and_the_sums_of_a_plain_loop(size, gain, name):
    cell = _Tanh(gain * jr.normal(jr.key(0), (size, size)) * size**-0.5)
    state, frame = jr.normal(jr.key(1), (size,)), jr.normal(jr.key(2), (size, size))
    options = {"num_steps": 62, "num_blocks": 4, "frame": frame, "method": METHODS[name]}
    run = spectrum(cell, state, **options)
    assert longest_of(run) > 1
    sums, columns = plain_blocks(cell, state, frame, run.block_steps.tolist())
    found = run.block_exponents * run.block_steps[:, None]
    # By the default the last columns lose what `rounding_error` says, an estimate that is right to a factor of ten.
    lost = 62 * np.asarray(run.diagnostics.rounding_error)
    allowed = 1e-11 + 10 * lost * (name == "default")
    assert np.all(np.abs(found - sums) <= allowed)
    assert np.sum(lost < 1e-12) >= size // 2
    np.testing.assert_allclose(found[:, lost < 1e-12], sums[:, lost < 1e-12], atol=1e-11)
    np.testing.assert_allclose(run.frame.T @ run.frame, np.eye(size), atol=1e-12)
    cosines = np.abs(np.sum(np.asarray(run.frame) * columns, axis=0))
    np.testing.assert_allclose(cosines[lost < 1e-12], 1, atol=1e-10)


def test_one_interval_for_a_batch_and_the_rest_intact_when_a_member_diverges():
    a = jnp.array([1.2, 1.4, 5.0])  # the last one escapes

    @jax.vmap
    def run(a):
        return spectrum(lejax.systems.Henon(a, 0.3), jnp.zeros(2), num_steps=2048, throw=False)

    spectra = run(a)
    assert len(set(spectra.diagnostics.longest_interval.tolist())) == 1
    assert len(set(spectra.diagnostics.num_orthonormalizations.tolist())) == 1
    assert [int(n) >= 0 for n in spectra.diagnostics.first_bad_step] == [False, False, True]
    for i in range(2):
        alone = spectrum(lejax.systems.Henon(a[i], 0.3), jnp.zeros(2), num_steps=2048)
        # Each member rejects what it cannot bear; which lengths are tried depends on the other.
        assert spectra.diagnostics.num_orthonormalizations[i] > 0.9 * count_of(alone)
        np.testing.assert_allclose(jnp.sum(spectra.exponents[i]), jnp.log(0.3), atol=1e-8)
        assert abs(spectra.exponents[i, 0] - alone.exponents[0]) < 5 * alone.standard_error[0]
    # The one that escapes had no say in the interval.
    few = run(a[:2]).diagnostics
    assert spectra.diagnostics.longest_interval[0] == few.longest_interval[0] > 4
    counts = spectra.diagnostics.num_orthonormalizations[0], few.num_orthonormalizations[0]
    assert abs(counts[0] - counts[1]) < 0.05 * counts[1]  # until it had left the floats it had one


def test_a_member_that_is_no_number_from_the_start_has_no_say_at_all():
    @jax.vmap
    def run(start):
        return spectrum(lejax.systems.Henon(), start, num_steps=500, throw=False)

    starts = jnp.array([[0.1, 0.1], [jnp.nan, 0.1], [-0.2, 0.3]])
    sick, healthy = run(starts), run(starts[jnp.array([0, 0, 2])])
    assert sick.diagnostics.first_bad_step.tolist() == [-1, 0, -1]
    for i in (0, 2):
        one, other = (jax.tree.map(lambda x, i=i: x[i], tree) for tree in (sick, healthy))
        assert eqx.tree_equal(one, other)


def test_the_member_that_bears_least_sets_the_interval_of_a_batch():
    spreads = np.array([0.1, 1.0, 5.0])
    run = jax.vmap(lambda s: spectrum(
        _Driven(basis(3)), jnp.ones(3), jnp.full(512, s), num_steps=None, num_blocks=1, frame=basis(3)
    ))  # fmt: skip
    together, few = run(spreads), run(spreads[:2])
    hardest, _ = driven(np.full(512, 5.0))
    second, _ = driven(np.full(512, 1.0))
    assert together.diagnostics.longest_interval.tolist() == 3 * [longest_of(hardest)]
    assert few.diagnostics.longest_interval.tolist() == 2 * [longest_of(second)]
    assert together.diagnostics.num_orthonormalizations.tolist() == 3 * [count_of(hardest)]
    exact = -spreads[:, None] * np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(together.exponents, exact, atol=1e-8)


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
    run = jax.jit(lambda w, h: spectrum(_Tanh(w), h, num_steps=200, transient=20, num_blocks=4))
    together = jax.vmap(run)(weights, states)
    alone = [run(w, h) for w, h in zip(weights, states, strict=True)]
    assert together.diagnostics.longest_interval.tolist() == list(map(longest_of, alone))
    assert together.diagnostics.num_orthonormalizations.tolist() == list(map(count_of, alone))
    assert together.diagnostics.longest_interval[0] > together.diagnostics.longest_interval[1]
    np.testing.assert_allclose(together.exponents[0], alone[0].exponents, atol=1e-9)


class _Tanh(eqx.Module):
    weight: jax.Array

    def __call__(self, input, state):
        return jnp.tanh(self.weight @ state)


def test_short_runs_adapt_too():
    run = spectrum(LORENZ, jnp.ones(3), num_steps=60, num_blocks=1)
    assert longest_of(run) >= 29  # 1, 2, 4, 8, 16 and the rest
    assert count_of(run) <= 7
    each = spectrum(LORENZ, jnp.ones(3), num_steps=60, num_blocks=1, method=SequentialQR(1))
    np.testing.assert_allclose(run.exponents, each.exponents, atol=1e-8)


def test_what_is_differentiated_orthonormalizes_at_each_step_whatever_the_interval_of_its_value():
    def report(rho, every):
        cell = lejax.systems.Flow(lejax.systems.Lorenz63(rho=rho), dt=0.01)
        return spectrum(cell, jnp.ones(3), num_steps=200, method=SequentialQR(every))

    def exponents(rho, every):
        return report(rho, every).exponents

    def with_interval(rho):
        run = report(rho, None)
        return run.exponents, run.diagnostics.longest_interval

    assert longest_of(report(20.0, None)) > 1
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
    chunks = spectrum(_Driven(rotation), jnp.ones(3), spreads, method=ParallelQR(4, 60), **run)
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


@pytest.mark.parametrize("method", [ParallelQR(4, 20), SequentialQR(), SequentialQR(3)])
@pytest.mark.parametrize("is_differentiated", [False, True])
def test_products_are_in_highest_precision_whatever_the_global_default(method, is_differentiated):
    cell = lejax.cells.GRUCell(0, 20, dtype=jnp.float32, key=jr.key(0))

    def run(cell, state):
        return spectrum(cell, state, method=method, transient=20, throw=False).exponents

    def derivative(cell, state):
        return jax.jvp(lambda h: run(cell, h), (state,), (state,))

    with jax.default_matmul_precision("bfloat16"):
        program = derivative if is_differentiated else run
        text = str(jax.make_jaxpr(program)(cell, jnp.zeros(20, jnp.float32)))
    products = text.count("dot_general[")
    assert products > (10 if isinstance(method, ParallelQR) or is_differentiated else 4)
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


class _Product(eqx.Module):
    """Its inputs are the matrices of its steps."""

    def __call__(self, input, state):
        return input @ state


def random_products(count, size, smallest):
    """Gaussian matrices whose columns shrink, from the first to `smallest` of it."""
    scales = np.geomspace(1, smallest, size)
    return np.asarray(jr.normal(jr.key(4), (count, size, size))) * scales / size**0.5


def plain_sums(matrices, frame, lengths):
    """Sums of log R_ii over each block of such a product, after a transient, and the last frame."""
    columns, sums = np.linalg.qr(frame)[0], []
    for block in np.split(matrices, np.cumsum(lengths)[:-1]):
        total = np.zeros(frame.shape[1])
        for matrix in block:
            columns, triangle = np.linalg.qr(matrix @ columns)
            total += np.log(np.abs(np.diagonal(triangle)))
        sums.append(total)
    return np.array(sums[1:]), columns


@pytest.mark.parametrize("every", [1, 2, 3, 4])
@pytest.mark.parametrize(("transient", "num_blocks"), [(0, 1), (5, 3), (2, 23)])
def test_fixed_intervals_are_those_of_a_plain_loop(every, transient, num_blocks):
    """Blocks of 7 and 8 steps and intervals of unequal lengths within them, each with the inputs of its own steps."""
    lengths = [transient, *block_lengths(23, num_blocks)]
    matrices, frame = random_products(23 + transient, 6, 1e-2), jr.normal(jr.key(5), (6, 4))
    run = lejax.lyapunov_spectrum(
        _Product(),
        jnp.zeros(6),
        jnp.asarray(matrices),
        frame=frame,
        transient=transient,
        num_blocks=num_blocks,
        method=SequentialQR(every),
        throw=False,
    )
    sums, columns = plain_sums(matrices, frame, lengths)
    np.testing.assert_allclose(run.block_exponents * run.block_steps[:, None], sums, atol=1e-8)
    np.testing.assert_allclose(run.frame.T @ run.frame, np.eye(4), atol=1e-13)
    np.testing.assert_allclose(np.abs(run.frame.T @ columns), np.eye(4), atol=1e-6)
    assert count_of(run) == sum(-(-length // every) for length in lengths[1:])
    assert longest_of(run) == max(-(-n // -(-n // every)) for n in lengths[1:])
    diagnostics = run.diagnostics
    if longest_of(run) == 1:
        np.testing.assert_array_equal(diagnostics.avoidable_error, 0)
    else:
        assert np.all(diagnostics.avoidable_error <= diagnostics.rounding_error)
        assert diagnostics.avoidable_error.max() > 0


def test_only_intervals_of_several_steps_lose_what_shorter_ones_would_not():
    # A block of three steps has an interval of two and one of one.
    matrices = jnp.asarray(random_products(3, 4, 1e-3))
    options = {"num_blocks": 1, "frame": jnp.eye(4), "method": SequentialQR(2), "throw": False}
    found = lejax.lyapunov_spectrum(_Product(), jnp.zeros(4), matrices, **options).diagnostics
    first = lejax.lyapunov_spectrum(_Product(), jnp.zeros(4), matrices[:2], **options).diagnostics
    np.testing.assert_allclose(found.avoidable_error * 3, first.rounding_error * 2, rtol=1e-6)
    assert np.all(found.rounding_error > found.avoidable_error)


def test_a_derivative_reports_the_errors_of_counted_steps_alone():
    matrices = random_products(40, 4, 1e-1)
    matrices[:10, :, 3] *= 1e-9

    def run(matrices):
        return lejax.lyapunov_spectrum(
            _Product(), jnp.zeros(4), matrices, transient=10, method=SequentialQR(1), throw=False
        )

    value = run(jnp.asarray(matrices))
    derived = eqx.filter_jvp(run, (jnp.asarray(matrices),), (jnp.ones_like(matrices),))[0]
    np.testing.assert_allclose(
        derived.diagnostics.rounding_error, value.diagnostics.rounding_error, rtol=1e-6
    )
    np.testing.assert_allclose(derived.exponents, value.exponents, atol=1e-12)


@pytest.mark.parametrize("adjoint", [lejax.CheckpointedAdjoint(), lejax.DirectAdjoint()])
def test_a_shorter_interval_takes_no_step_where_its_cell_is_not_defined(adjoint):
    def total(scale, every):
        def cell(input, state):
            return jnp.sqrt(scale * state**2 + input)

        inputs = jnp.array([3.0, -3.0] * 10)[:, None]
        method = SequentialQR(every, blocks=lejax.DeclaredBlocks())
        run = lejax.lyapunov_spectrum(
            cell, jnp.full(1, 2.0), inputs, method=method, adjoint=adjoint, num_blocks=4
        )
        return run.exponents[0]

    expected = jax.grad(total)(1.0, 1)
    assert np.isfinite(expected)
    np.testing.assert_allclose(jax.grad(total)(1.0, 3), expected, rtol=1e-10)


def test_blocks_of_chunks_hold_the_steps_that_are_reported():
    rates = jnp.concatenate([jnp.zeros(4), jnp.arange(1.0, 15.0)])
    run = lejax.lyapunov_spectrum(
        lambda rate, state: state * jnp.exp(rate),
        jnp.ones(1),
        rates,
        transient=4,
        num_blocks=4,
        method=ParallelQR(2, 4, every=1),
    )
    ends = np.cumsum(run.block_steps)
    means = [np.mean(rates[4:][a:b]) for a, b in zip(ends - run.block_steps, ends, strict=True)]
    np.testing.assert_allclose(run.block_exponents[:, 0], means, rtol=1e-12)
    assert ends[-1] == 14


def test_a_frame_that_is_nearly_parallel_leaves_nothing_in_the_sums():
    matrices = jnp.asarray(random_products(40, 6, 0.5))
    frame = jnp.eye(6)[:, :3] + jnp.array([[0.0, 1.0, 1.0]]) * jnp.eye(6)[:, :1] / 2e-6
    run = lejax.lyapunov_spectrum(_Product(), jnp.zeros(6), matrices, frame=frame, num_blocks=1)
    sums, _ = plain_sums(np.asarray(matrices), frame, [0, 40])
    np.testing.assert_allclose(run.exponents * 40, sums[0], atol=1e-9)


def test_what_a_panel_leaves_of_a_column_is_not_taken_for_the_column():
    """A hidden layer of one unit, far behind 32 others that nearly share a direction now and then."""
    rng = np.random.default_rng(5)
    rotation, matrices = np.linalg.qr(rng.normal(size=(33, 33)))[0], np.zeros((300, 33, 33))
    matrices[:, :32] = rng.normal(size=(300, 32, 33)) / 32**0.5
    matrices[:, 32:, 32:] = rng.normal(size=(300, 1, 1)) * np.exp(-4)
    matrices = rotation @ matrices @ rotation.T
    run = lejax.lyapunov_spectrum(_Product(), jnp.zeros(33), jnp.asarray(matrices), throw=False)
    exact = np.mean(np.linalg.slogdet(matrices).logabsdet)
    assert longest_of(run) > 1
    np.testing.assert_allclose(jnp.sum(run.exponents), exact, atol=1e-8)


@pytest.mark.parametrize("every", [1, 2, None])
def test_a_block_ends_with_an_orthonormal_frame_even_if_its_last_step_is_a_shear(every):
    """A share of 1e-5 of a column is left beside the others: one fast pass keeps it, orthonormal to 1e-6."""
    matrices = random_products(20, 8, 0.5)
    matrices[-1] = np.eye(8) + 1e5 * np.outer(np.eye(8)[0], np.ones(8))
    run = lejax.lyapunov_spectrum(
        _Product(), jnp.zeros(8), jnp.asarray(matrices), num_blocks=2, method=SequentialQR(every)
    )
    np.testing.assert_allclose(run.frame.T @ run.frame, np.eye(8), atol=1e-12)
