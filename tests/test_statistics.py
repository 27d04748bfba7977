"""Blocks, compensated sums, standard errors, the jackknife, the Kaplan-Yorke dimension and the entropy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.test_util import check_grads
from networks import driven_gru

import lejax
from lejax._core.statistics import add_compensated, block_lengths, estimate_error, standard_error


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40))
def test_blocks_tile_the_run(num_steps, num_blocks):
    num_blocks = min(num_blocks, num_steps)
    lengths = block_lengths(num_steps, num_blocks)
    assert lengths.sum() == num_steps
    assert len(lengths) == num_blocks
    assert lengths.max() - lengths.min() <= 1


def test_compensated_sum_in_float32():
    terms = jnp.full((1_000_000, 1), 0.1, jnp.float32)

    def body(carry, term):
        return add_compensated(*carry, term), None

    zero = jnp.zeros(1, jnp.float32)
    (total, _), _ = jax.lax.scan(body, (zero, zero), terms)
    exact = 1_000_000 * float(np.float32(0.1))
    np.testing.assert_allclose(total, exact, rtol=1e-7)
    plain = jax.lax.scan(lambda c, x: (c + x, None), zero, terms)[0]
    assert abs(float(plain[0]) - exact) > 100  # a plain sum loses digits


def test_infinite_terms_pass_through_the_sum():
    total, compensation = add_compensated(jnp.zeros(1), jnp.zeros(1), jnp.array([-jnp.inf]))
    total, _ = add_compensated(total, compensation, jnp.ones(1))
    assert total == -jnp.inf


def test_standard_error_of_independent_blocks():
    # If the variance of a block is 1/length, the squared error is an unbiased estimate for unequal blocks.
    lengths = np.array([10.0, 20.0, 40.0, 30.0])
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100_000, 4)) / np.sqrt(lengths)
    errors = jax.vmap(lambda v: standard_error(v[:, None], jnp.asarray(lengths))[0])(values)
    np.testing.assert_allclose(np.mean(errors**2), 1 / lengths.sum(), rtol=0.02)


def test_standard_error_of_equal_and_infinite_blocks():
    weights = jnp.ones(3)
    assert standard_error(jnp.ones((3, 1)), weights) == 0
    assert np.isnan(standard_error(jnp.full((3, 1), -jnp.inf), weights)).all()
    assert np.isnan(standard_error(jnp.ones((1, 1)), jnp.ones(1))).all()
    gradient = jax.grad(lambda x: standard_error(x, weights)[0])(jnp.ones((3, 1)))
    assert np.isfinite(gradient).all()
    mixed = jnp.array([[1.0, -jnp.inf], [2.0, -1.0], [4.0, -jnp.inf]])
    gradient = jax.grad(lambda x: standard_error(x, weights)[0])(mixed)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[:, 0]).max() > 0


@pytest.fixture(scope="module")
def spectrum():
    return lejax.lyapunov_spectrum(*driven_gru(num_steps=205), num_blocks=10)


def test_jackknife_of_a_linear_function_is_the_standard_error(spectrum):
    equal = lejax.lyapunov_spectrum(*driven_gru(num_steps=200), num_blocks=10)
    value, error = lejax.jackknife(equal, lambda exponents: exponents)
    np.testing.assert_allclose(value, equal.exponents)
    np.testing.assert_allclose(error, equal.standard_error, rtol=1e-12)
    value, error = lejax.jackknife(spectrum, lambda x: {"sum": x.sum(), "first": 3 * x[0]})
    np.testing.assert_allclose(error["first"], 3 * spectrum.standard_error[0], rtol=2e-2)
    total = standard_error(
        spectrum.block_exponents.sum(axis=1, keepdims=True), spectrum.block_steps.astype(float)
    )[0]
    np.testing.assert_allclose(error["sum"], total, rtol=2e-2)


def test_jackknife_without_blocks_or_with_infinities(spectrum):
    single = lejax.lyapunov_spectrum(*driven_gru(), num_blocks=1)
    value, error = lejax.jackknife(single, jnp.sum)
    assert np.isfinite(value)
    assert np.isnan(error)
    infinite = eqx.tree_at(
        lambda s: s.block_exponents, spectrum, spectrum.block_exponents.at[:, 5].set(-jnp.inf)
    )
    assert np.isnan(lejax.jackknife(infinite, jnp.sum)[1])
    assert np.isfinite(lejax.jackknife(infinite, jnp.max)[1])


DIMENSIONS = [
    # In order: Lorenz; negative only (twice); leading zero; unsorted; sum of 0; all positive; a lost direction; a small
    # exponent with and without tolerance.
    ([0.9056, 0.0, -14.572], 3, 0.0, 2 + 0.9056 / 14.572),
    ([-0.1, -0.2], 2, 0.0, 0.0),
    ([-0.1, -0.2], None, 0.0, 0.0),
    ([0.0, -0.5], 2, 0.0, 1.0),
    ([-14.572, 0.9056, 0.0], 3, 0.0, 2 + 0.9056 / 14.572),
    ([0.5, -0.5], 2, 0.0, 2.0),
    ([0.5, 0.1], 2, 0.0, 2.0),
    ([0.5, -np.inf], 2, 0.0, 1.0),
    ([-0.001, -0.5], 2, 0.01, 1.0),
    ([-0.001, -0.5], 2, 0.0, 0.0),
]


@pytest.mark.parametrize(("exponents", "size", "tolerance", "expected"), DIMENSIONS)
def test_kaplan_yorke_dimension(exponents, size, tolerance, expected):
    dimension = lejax.kaplan_yorke_dimension(jnp.array(exponents), size, tolerance)
    np.testing.assert_allclose(dimension, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [None, 5])
def test_kaplan_yorke_is_nan_if_exponents_are_missing_or_nan(size):
    assert np.isnan(lejax.kaplan_yorke_dimension(jnp.array([0.5, 0.1]), size))
    diverged = jnp.array([0.5, jnp.nan, -2.0])
    assert np.isnan(jax.jit(lejax.kaplan_yorke_dimension, static_argnums=1)(diverged, 3))


def test_kaplan_yorke_tolerance_may_differ_between_exponents():
    exponents = jnp.array([-0.01, 0.3, -0.8])
    dimension = lejax.kaplan_yorke_dimension(exponents, 3, jnp.array([0.02, 0.0, 0.0]))
    np.testing.assert_allclose(dimension, 2 + 0.3 / 0.8)


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("rounding", [-3e-15, 0.0, 3e-15])
def test_volume_preserving_spectra_have_their_full_dimension(size, rounding):
    exponents = jnp.array([0.7, 0.1, -0.8]) + jnp.array([0.0, rounding, 0.0])
    assert lejax.kaplan_yorke_dimension(exponents, size) == 3


def test_a_sum_within_the_tolerance_is_zero():
    exponents = jnp.array([0.7, -0.695])
    assert lejax.kaplan_yorke_dimension(exponents, tolerance=0.02) == 2
    assert np.isnan(lejax.kaplan_yorke_dimension(exponents, tolerance=0.002))
    np.testing.assert_allclose(
        lejax.kaplan_yorke_dimension(-exponents, tolerance=jnp.array([0.2, 0.001])),
        1 + 0.695 / 0.7,
    )
    # Two zeros leave the next exponent open: NaN. After a lost direction the sum is -inf: the dimension is 1.
    assert np.isnan(lejax.kaplan_yorke_dimension(jnp.zeros(2)))
    assert lejax.kaplan_yorke_dimension(jnp.array([0.0, -jnp.inf]), tolerance=1.0) == 1


def test_the_jackknife_of_the_dimension_of_an_area_preserving_map():
    class Standard(eqx.Module):
        def __call__(self, input, state):
            angle, momentum = state
            momentum = momentum + 7.3 * jnp.sin(angle)
            return jnp.stack([angle + momentum, momentum]) % (2 * jnp.pi)

    def run(key):
        start = jr.uniform(key, (2,), maxval=6.28)
        spectrum = lejax.lyapunov_spectrum(Standard(), start, num_steps=700)
        return lejax.jackknife(spectrum, lejax.kaplan_yorke_dimension)

    dimension, error = jax.vmap(run)(jr.split(jr.key(5), 12))
    np.testing.assert_array_equal(dimension, 2)
    np.testing.assert_array_equal(error, 0)


def test_kaplan_yorke_gradient():
    gradient = jax.grad(lejax.kaplan_yorke_dimension)(jnp.array([0.9, 0.0, -14.5]), 3)
    np.testing.assert_allclose(gradient, [1 / 14.5, 1 / 14.5, 0.9 / 14.5**2])
    assert np.isfinite(jax.grad(lejax.kaplan_yorke_dimension)(jnp.array([0.5, -jnp.inf]), 2)).all()


def test_entropy_is_the_sum_of_positive_exponents():
    assert lejax.kolmogorov_sinai_entropy(jnp.array([0.5, 0.25, -1.0])) == 0.75
    assert lejax.kolmogorov_sinai_entropy(jnp.array([-1.0, -jnp.inf])) == 0


def test_combining_keeps_the_first_failure(spectrum):
    henon = lejax.systems.Henon()
    good = lejax.lyapunov_spectrum(henon, jnp.array([0.1, 0.1]), num_steps=40)
    bad = lejax.lyapunov_spectrum(henon, jnp.array([3.0, 3.0]), num_steps=40, throw=False)
    step = int(bad.diagnostics.first_bad_step)
    for first, second, expected in ((good, bad, 40 + step), (bad, good, step), (bad, bad, step)):
        both = lejax.combine(first, second)
        assert int(both.diagnostics.first_bad_step) == expected
        assert bool(both.result == lejax.RESULTS.nonfinite)
    del spectrum


def long_spectrum(num_steps, bad=-1):
    """The report of a run that would take too long here, from a short run with its counts replaced."""
    short = lejax.lyapunov_spectrum(lejax.systems.Cat(), jnp.array([0.1, 0.2]), num_steps=60)
    where = lambda s: (
        s.num_steps,
        s.block_steps,
        s.diagnostics.unresolved,
        s.diagnostics.first_bad_step,
    )
    blocks = jnp.asarray(block_lengths(num_steps, 20), jnp.int32)
    counts = (jnp.asarray(num_steps, jnp.int32), blocks, jnp.full(2, num_steps, jnp.int32))
    return eqx.tree_at(where, short, (*counts, jnp.asarray(bad, jnp.int32)))


def test_counts_beyond_32_bits():
    run = long_spectrum(1_700_000_000)
    both = lejax.combine(run, lejax.combine(run, long_spectrum(1_700_000_000, bad=123)))
    assert int(both.num_steps) == int(jnp.sum(both.block_steps.astype(int))) == 5_100_000_000
    assert both.diagnostics.unresolved.tolist() == [5_100_000_000] * 2
    assert int(both.diagnostics.first_bad_step) == 3_400_000_123
    np.testing.assert_allclose(both.exponents, run.exponents)
    np.testing.assert_allclose(both.diagnostics.rounding_error, run.diagnostics.rounding_error)
    traced = jax.jit(lejax.combine)(run, run)
    assert int(traced.num_steps) == 3_400_000_000


def test_rounding_errors_of_two_runs_are_weighted_by_their_steps():
    henon = lejax.systems.Henon()
    first = lejax.lyapunov_spectrum(henon, jnp.zeros(2), num_steps=40)
    second = lejax.lyapunov_spectrum(henon, first.state, num_steps=160, frame=first.frame)
    second = eqx.tree_at(
        lambda s: (s.diagnostics.rounding_error, s.diagnostics.overlap_bias),
        second,
        (3 * first.diagnostics.rounding_error, jnp.array([0.5, 1.5])),
    )
    both = lejax.combine(first, second)
    np.testing.assert_allclose(
        both.diagnostics.rounding_error, 2.6 * first.diagnostics.rounding_error, rtol=1e-12
    )
    np.testing.assert_allclose(both.diagnostics.overlap_bias, [0.4, 1.2], rtol=1e-12)


def test_counts_beyond_32_bits_are_refused_without_x64():
    with jax.enable_x64(False):
        run = long_spectrum(1_700_000_000)
        assert int(lejax.combine(run, long_spectrum(300_000_000)).num_steps) == 2_000_000_000
        with pytest.raises(ValueError, match=r"num_steps of both runs.*turn on jax_enable_x64"):
            lejax.combine(run, run)
        traced = jax.jit(lejax.combine)(run, run)
        assert int(traced.num_steps) == 2**31 - 1
        np.testing.assert_allclose(
            traced.diagnostics.rounding_error, run.diagnostics.rounding_error, rtol=1e-6
        )
        np.testing.assert_allclose(traced.exponents, run.exponents, rtol=1e-6)


def test_a_transient_counts_among_the_steps_of_a_run():
    with pytest.raises(ValueError, match=r"transient \+ num_steps must be below"):
        lejax.lyapunov_spectrum(
            lejax.systems.Henon(), jnp.zeros(2), num_steps=2**30, transient=2**30 + 5
        )


def test_errors_cover_the_true_exponent_for_independent_rates():
    # The rates log|a_t| are iid normal, so the error of the exponent is known exactly.
    inputs = 0.3 * jr.normal(jr.key(0), (400, 500))

    def run(inputs):
        spectrum = lejax.lyapunov_spectrum(Scalar(), jnp.array(0.0), inputs)
        return spectrum.exponents[0], spectrum.standard_error[0]

    exponent, error = jax.vmap(run)(inputs)
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), 0.3 / np.sqrt(500), rtol=0.03)
    covered = np.mean(np.abs(exponent) < 2 * error)
    assert 0.90 <= covered <= 0.97  # Student's t with 19 degrees of freedom gives .94 +- .012


class Scalar(eqx.Module):
    """h' = exp(u) h: the rate log|a_t| is the input, so the exponent is the mean of the inputs."""

    def __call__(self, input, state):
        return jnp.exp(input) * state


def correlated_noise(memory, num_runs, num_steps):
    """An AR(1) process of unit variance with coefficient `memory`, and the standard deviation of its mean."""
    noise = np.random.default_rng(3).normal(size=(num_runs, num_steps))
    noise[:, 1:] *= (1 - memory**2) ** 0.5
    for t in range(1, num_steps):
        noise[:, t] += memory * noise[:, t - 1]
    lags = np.arange(1, num_steps)
    variance = (1 + 2 * np.sum((1 - lags / num_steps) * memory**lags)) / num_steps
    return jnp.asarray(noise), variance**0.5


def errors_of_correlated_rates(memory, num_steps, num_runs, num_blocks=20):
    """Standard errors, whether they grow, errors without joined blocks, and the true error."""
    inputs, truth = correlated_noise(memory, num_runs, num_steps)

    def run(inputs):
        spectrum = lejax.lyapunov_spectrum(Scalar(), jnp.array(0.0), inputs, num_blocks=num_blocks)
        plain = jnp.std(spectrum.block_exponents[:, 0], ddof=1) / num_blocks**0.5
        return spectrum.standard_error[0], spectrum.error_grows[0], plain

    return *map(np.asarray, jax.jit(jax.vmap(run))(inputs)), truth


def test_errors_of_independent_blocks_rarely_grow():
    error, grows, plain, truth = errors_of_correlated_rates(0.0, 400, 600)
    assert np.mean(grows) < 0.05
    assert np.mean(error > 1.001 * plain) < 0.06
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), truth, rtol=0.04)


@pytest.mark.parametrize("num_blocks", [20, 50])
def test_errors_of_correlated_rates_are_enlarged_or_marked_as_growing(num_blocks):
    # The correlation time is a sixth of the run: errors without joined blocks are 3 times too small.
    error, grows, plain, truth = errors_of_correlated_rates(0.99, 600, 300, num_blocks)
    assert np.median(plain) < truth / 2
    assert np.mean(grows | (error > truth / 1.3)) > 0.9
    assert np.median(error) > 1.3 * np.median(plain)


def test_joined_blocks_find_correlations_beyond_one_block():
    # The correlation time is comparable to one of 60 blocks, and short against the run.
    error, _, plain, truth = errors_of_correlated_rates(0.9, 1200, 300, 60)
    assert np.sqrt(np.mean(plain**2)) < truth / 1.3
    assert np.sqrt(np.mean(error**2)) > truth / 1.15


def test_errors_of_an_orbit_that_sticks_to_islands():
    class Standard(eqx.Module):
        def __call__(self, input, state):
            angle, momentum = state
            momentum = (momentum + 1.2 * jnp.sin(angle)) % (2 * jnp.pi)
            return jnp.stack([(angle + momentum) % (2 * jnp.pi), momentum])

    def run(start):
        spectrum = lejax.lyapunov_spectrum(
            Standard(), start, num_steps=4000, num_exponents=1, throw=False
        )
        plain = jnp.std(spectrum.block_exponents[:, 0], ddof=1) / 20**0.5
        return spectrum.exponents[0], spectrum.standard_error[0], spectrum.error_grows[0], plain

    starts = jnp.array([0.1, 0.1]) + 0.01 * jr.normal(jr.key(0), (200, 2))
    exponents, error, grows, plain = map(np.asarray, jax.jit(jax.vmap(run))(starts))
    spread = np.std(exponents)
    print(spread, np.median(plain), np.median(error), grows.mean())
    assert np.sqrt(np.mean(plain**2)) < spread / 1.5
    assert np.mean(grows) > 0.25
    assert np.sqrt(np.mean(error**2)) > 1.25 * np.sqrt(np.mean(plain**2))


@pytest.fixture(scope="module")
def correlated_inputs():
    return correlated_noise(0.99, 8, 640)[0][3]


def test_the_jackknife_joins_blocks_too(correlated_inputs):
    spectrum = lejax.lyapunov_spectrum(Scalar(), jnp.array(0.0), correlated_inputs)
    assert bool(spectrum.error_grows[0])
    plain = jnp.std(spectrum.block_exponents, ddof=1) / 20**0.5
    assert spectrum.standard_error[0] > 1.5 * plain
    error = lejax.jackknife(spectrum, lambda exponents: exponents)[1]
    np.testing.assert_allclose(error[0], spectrum.standard_error[0], rtol=1e-9)
    curved = lejax.jackknife(spectrum, lambda exponents: {"exp": jnp.exp(exponents / 10)})[1]
    linear = spectrum.standard_error * np.exp(spectrum.exponents / 10) / 10
    np.testing.assert_allclose(curved["exp"], linear, rtol=0.1)


def test_a_long_run_and_combined_runs_join_blocks(correlated_inputs):
    state, inputs = jnp.array(0.0), correlated_inputs
    single = lejax.lyapunov_spectrum(Scalar(), state, inputs)
    long = lejax.run.long_run(Scalar(), state, inputs, chunk_steps=128)
    np.testing.assert_allclose(long.standard_error, single.standard_error, rtol=1e-9)
    assert bool(long.error_grows[0])
    first = lejax.lyapunov_spectrum(Scalar(), state, inputs[:320], num_blocks=10)
    options = {"frame": first.frame, "num_blocks": 10}
    second = lejax.lyapunov_spectrum(Scalar(), first.state, inputs[320:], **options)
    both = lejax.combine(first, second)
    np.testing.assert_allclose(both.standard_error, single.standard_error, rtol=1e-9)
    assert bool(both.error_grows[0])


def plain_errors(values, lengths, sizes):
    """Errors by plain loops: for each of `sizes`, that many neighboring blocks are joined."""
    errors = []
    for size in sizes:
        groups = [slice(i, i + size) for i in range(0, len(values), size)]
        weights = np.array([lengths[group].sum() for group in groups])
        means = np.array([np.average(values[g], weights=lengths[g]) for g in groups])
        mean = np.average(means, weights=weights)
        variance = np.average((means - mean) ** 2, weights=weights)
        errors.append(np.sqrt(variance / (len(groups) - 1)))
    return errors


@pytest.mark.parametrize("number", [23, 150])
def test_joined_blocks_are_means_of_neighbors(number):
    # 23 blocks do not halve evenly; 150 blocks are first joined by fours, to fewer than 64.
    rng = np.random.default_rng(4)
    values = np.cumsum(rng.normal(size=number))
    lengths = rng.integers(3, 9, number).astype(float)
    sizes = {23: (1, 2, 4), 150: (1, 4, 8, 16, 32)}[number]
    expected = plain_errors(values, lengths, sizes)
    assert max(expected) == expected[-1] > 1.5 * expected[0]
    error, grows = estimate_error(jnp.asarray(values)[:, None], jnp.asarray(lengths))
    np.testing.assert_allclose(error, expected[-1], rtol=1e-12)
    assert bool(grows[0])
    # A run that may become longer has empty blocks at the end, which do not change the error.
    values, lengths = (jnp.asarray(np.append(x, np.zeros(9))) for x in (values, lengths))
    padded = estimate_error(values[:, None], lengths)
    if number == 23:
        np.testing.assert_allclose(padded.error, error, rtol=1e-12)
    assert bool(padded.is_lower_bound[0])


def test_few_blocks_are_not_joined():
    values, lengths = np.cumsum(np.arange(6.0)), np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    error, grows = estimate_error(jnp.asarray(values)[:, None], jnp.asarray(lengths))
    np.testing.assert_allclose(error, plain_errors(values, lengths, [1])[0], rtol=1e-12)
    assert not grows[0]


def test_blocks_on_a_line_resemble_their_neighbors():
    # Around their own mean, neighbors among eight values on a line have a correlation of 26.25 / 42 = .625, which is
    # below the bound for chance, 2 / sqrt 8 = .707; around a known mean it would be larger by about 1 / 8.
    error, grows = estimate_error(jnp.arange(8.0)[:, None], jnp.ones(8))
    assert bool(grows[0])
    np.testing.assert_allclose(error, plain_errors(np.arange(8.0), np.ones(8), [2])[0], rtol=1e-12)


def test_joined_errors_have_gradients():
    values = jnp.cumsum(jr.normal(jr.key(0), (20, 2)), axis=0)
    check_grads(lambda v: standard_error(v, jnp.ones(20)), (values,), order=1)


def test_compensated_sums_restart_stay_infinite_and_have_the_derivative_of_a_sum():
    def total(terms, restarts, start=(0.0, 0.0)):
        def add(carry, along):
            return add_compensated(*carry, *along), None

        start = jax.tree.map(jnp.float32, start)
        return jax.lax.scan(add, start, (terms, restarts))[0]

    terms = jnp.array([0.25, 0.5, 2.0], jnp.float32)
    no = jnp.zeros(3, bool)
    found = total(terms, no.at[1].set(True), (2.0**30, 1000.0))
    np.testing.assert_array_equal(found, (2.5, 0))
    np.testing.assert_array_equal(total(terms.at[1].set(-jnp.inf), no), (-jnp.inf, 0))
    assert np.isnan(total(terms.at[1].set(jnp.nan), no)[0])
    # Of 2^24 + 2.75 float32 holds the even part.
    kept, lost = total(terms, no, (2.0**24, 0.0))
    assert float(kept) - float(lost) == 2.0**24 + 2.75
    slope = jax.grad(lambda x: total(x, no.at[1].set(True))[0])(terms)
    np.testing.assert_array_equal(slope, [0, 1, 1])
