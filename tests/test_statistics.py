"""Blocks, compensated sums, standard errors, the jackknife, dimension and entropy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from networks import driven_gru

import lejax
from lejax._statistics import add_compensated, block_lengths, standard_error


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
    assert abs(float(plain[0]) - exact) > 100  # what it is there for


def test_infinite_terms_pass_through_the_sum():
    total, compensation = add_compensated(jnp.zeros(1), jnp.zeros(1), jnp.array([-jnp.inf]))
    total, _ = add_compensated(total, compensation, jnp.ones(1))
    assert total == -jnp.inf


def test_standard_error_of_independent_blocks():
    # Unequal blocks whose variance falls as 1/length: the estimate is unbiased for the variance.
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
    one = lejax.lyapunov_spectrum(*driven_gru(), num_blocks=1)
    value, error = lejax.jackknife(one, jnp.sum)
    assert np.isfinite(value)
    assert np.isnan(error)
    infinite = eqx.tree_at(
        lambda s: s.block_exponents, spectrum, spectrum.block_exponents.at[:, 5].set(-jnp.inf)
    )
    assert np.isnan(lejax.jackknife(infinite, jnp.sum)[1])
    assert np.isfinite(lejax.jackknife(infinite, jnp.max)[1])


DIMENSIONS = [
    # Lorenz; only negative; zero leading; unsorted; all known and none negative; a lost direction
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
def test_kaplan_yorke(exponents, size, tolerance, expected):
    dimension = lejax.kaplan_yorke_dimension(jnp.array(exponents), size, tolerance)
    np.testing.assert_allclose(dimension, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [None, 5])
def test_kaplan_yorke_says_nan_when_only_a_bound_is_known(size):
    assert np.isnan(lejax.kaplan_yorke_dimension(jnp.array([0.5, 0.1]), size))
    diverged = jnp.array([0.5, jnp.nan, -2.0])
    assert np.isnan(jax.jit(lejax.kaplan_yorke_dimension, static_argnums=1)(diverged, 3))


def test_kaplan_yorke_tolerance_may_differ_between_exponents():
    exponents = jnp.array([-0.01, 0.3, -0.8])
    dimension = lejax.kaplan_yorke_dimension(exponents, 3, jnp.array([0.02, 0.0, 0.0]))
    np.testing.assert_allclose(dimension, 2 + 0.3 / 0.8)


def test_kaplan_yorke_gradient():
    gradient = jax.grad(lejax.kaplan_yorke_dimension)(jnp.array([0.9, 0.0, -14.5]), 3)
    np.testing.assert_allclose(gradient, [1 / 14.5, 1 / 14.5, 0.9 / 14.5**2])
    assert np.isfinite(jax.grad(lejax.kaplan_yorke_dimension)(jnp.array([0.5, -jnp.inf]), 2)).all()


def test_entropy():
    assert lejax.kolmogorov_sinai_entropy(jnp.array([0.5, 0.25, -1.0])) == 0.75
    assert lejax.kolmogorov_sinai_entropy(jnp.array([-1.0, -jnp.inf])) == 0


def test_combining_keeps_the_first_failure(spectrum):
    henon = lejax.systems.Henon()
    good = lejax.lyapunov_spectrum(henon, jnp.array([0.1, 0.1]), num_steps=40)
    bad = lejax.lyapunov_spectrum(henon, jnp.array([3.0, 3.0]), num_steps=40, throw=False)
    step = int(bad.first_bad_step)
    for first, second, expected in ((good, bad, 40 + step), (bad, good, step), (bad, bad, step)):
        both = lejax.combine(first, second)
        assert int(both.first_bad_step) == expected
        assert bool(both.result == lejax.RESULTS.nonfinite)
    del spectrum


def test_errors_cover_the_truth_for_a_random_walk_of_rates():
    # log|a_t| iid normal: the exponent's error is known exactly.
    class Scalar(eqx.Module):
        def __call__(self, input, state):
            return jnp.exp(input) * state

    inputs = 0.3 * jr.normal(jr.key(0), (400, 500))

    def run(inputs):
        spectrum = lejax.lyapunov_spectrum(Scalar(), jnp.array(0.0), inputs)
        return spectrum.exponents[0], spectrum.standard_error[0]

    exponent, error = jax.vmap(run)(inputs)
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), 0.3 / np.sqrt(500), rtol=0.03)
    covered = np.mean(np.abs(exponent) < 2 * error)
    assert 0.90 <= covered <= 0.97  # Student's t with 19 degrees of freedom: .94 +- .012
