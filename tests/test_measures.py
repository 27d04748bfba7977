"""Measures of a reconstruction: zero for equal series, closed forms for others, and Lorenz-63 against itself."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

import lejax
from lejax.reconstruction import (
    IdentityObservation,
    ObservedCell,
    power_spectrum_distance,
    prediction_error,
    state_space_divergence,
)
from lejax.systems import Flow, Lorenz63


def series(size, length=300, seed=0):
    return jr.normal(jr.key(seed), (length, size))


@pytest.fixture(scope="module")
def lorenz():
    """A million points, standardized."""
    flow = Flow(Lorenz63(), dt=0.01)
    states = lejax.unroll(flow, jnp.array([1.0, 1.0, 20.0]), num_steps=1_002_000)[2000:]
    return (states - states.mean(axis=0)) / states.std(axis=0)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_equal_series_do_not_diverge(size):
    x = series(size)
    key = jr.key(1) if size > 5 else None
    assert float(state_space_divergence(x, x, key=key)) == 0
    assert float(state_space_divergence(x, 3 * x + 1, key=key)) > 0.1
    assert float(power_spectrum_distance(x, x)) == 0


def test_divergence_equals_its_formula_over_all_bins():
    true, generated = np.asarray(series(2, 400)), np.asarray(1.3 * series(2, 250, seed=1))
    low, high = (
        true.min(axis=0) - 0.1 * true.std(axis=0),
        true.max(axis=0) + 0.1 * true.std(axis=0),
    )
    edges = [np.linspace(a, b, 31) for a, b in zip(low, high, strict=True)]
    p, q = (
        (np.histogramdd(x, edges)[0] + 1e-5) / (len(x) + 1e-5 * 30**2) for x in (true, generated)
    )
    expected = np.sum(p * np.log(p / q))
    np.testing.assert_allclose(state_space_divergence(true, generated), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("length", "low", "high"), [(10_000, 0.4, 0.75), (25_000, 0.14, 0.26), (50_000, 0.06, 0.13)]
)
def test_two_stretches_of_one_system_differ_as_their_length_allows(lorenz, length, low, high):
    """Medians over a million points scatter by a tenth, single stretches by a factor of two.

    Others measured 0.31 and 0.145 for 10^4 and 5 10^4 points.
    """
    starts = range(0, 1_000_000 - 2 * length + 1, max(length, 20_000))
    values = [
        state_space_divergence(lorenz[i : i + length], lorenz[i + length : i + 2 * length])
        for i in starts
    ]
    assert low < float(np.median(values)) < high


def test_mixtures_give_the_divergence_of_the_smoothed_densities():
    """Mixtures of Gaussians of variance 1 at points of N(0, 1) and N(m, s^2) approach N(0, 2) and N(m, s^2 + 1)."""
    size, count, m, s = 6, 4000, 0.5, 1.5
    true, generated = series(size, count), m + s * series(size, count, seed=1)
    ratio = 2 / (s**2 + 1)
    expected = size / 2 * (ratio - 1 - np.log(ratio) + m**2 / (s**2 + 1))
    values = [state_space_divergence(true, generated, key=jr.key(i)) for i in range(4)]
    assert float(np.mean(values)) == pytest.approx(expected, abs=0.1)


def test_points_outside_and_diverged_runs_increase_the_divergence():
    true = series(2)
    some = true.at[:100].set(1e6)
    lost = true.at[:100].set(jnp.nan)
    assert float(state_space_divergence(true, some)) == float(state_space_divergence(true, lost))
    assert float(state_space_divergence(true, some)) > 0.3
    nothing = state_space_divergence(true, jnp.full_like(true, jnp.nan))
    assert float(nothing) > float(state_space_divergence(true, lost))


def test_power_spectra_are_smoothed_and_compared_as_documented():
    true, generated = np.asarray(series(2, 1000)), np.cumsum(series(2, 1200, seed=1), axis=0)[:1000]
    distances = []
    for x, y in zip(true.T, generated.T, strict=True):
        smooth = [
            gaussian_filter1d(np.abs(np.fft.rfft((v - v.mean()) / v.std())) ** 2, 20)
            for v in (x, y)
        ]
        F, G = (v / v.sum() for v in smooth)
        distances.append(np.sqrt(1 - np.sum(np.sqrt(F * G))))
    np.testing.assert_allclose(
        power_spectrum_distance(true, generated), np.mean(distances), rtol=1e-9
    )


def test_the_distance_of_power_spectra_ignores_scale_and_phase_and_points_beyond_the_length():
    t = jnp.arange(3000.0)[:, None]
    distance = float(power_spectrum_distance(jnp.sin(t), 5 * jnp.cos(t[:2000]) + 3, length=2000))
    assert distance < 0.02
    assert float(power_spectrum_distance(jnp.sin(t), jnp.sin(3 * t))) > 0.9
    still = jnp.zeros_like(t)
    assert float(power_spectrum_distance(still, still)) == 0
    assert float(power_spectrum_distance(jnp.sin(t), still)) == pytest.approx(1)
    assert jnp.isnan(power_spectrum_distance(jnp.sin(t), still.at[5].set(jnp.nan)))


def rotation(angle=0.1):
    """A rotation of the plane, as a network of two units."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    W = jnp.array([[0, -s], [s, 0]])
    cell = lejax.cells.ALRNN.from_weights(a=jnp.array([c, c]), W=W, h=jnp.zeros(2), num_relu=0)
    return ObservedCell(cell, IdentityObservation(2, 2))


def test_prediction_error_of_a_rotation():
    model = rotation()
    x = lejax.unroll(model, jnp.array([1.0, 0.0]), num_steps=100)
    assert float(prediction_error(model, x, 20)) < 1e-25
    # A rotation by d too much in each step: after n steps the error is the chord of n d.
    off = prediction_error(rotation(0.13), x, 20)
    assert float(off) == pytest.approx((2 * np.sin(20 * 0.03 / 2)) ** 2 / 2)


def test_prediction_error_with_inputs():
    """z' = u: a forecast of n steps is the last input, for any start."""
    weights = {"a": jnp.zeros(1), "W": jnp.zeros((1, 1)), "h": jnp.zeros(1), "C": jnp.ones((1, 1))}
    cell = lejax.cells.ALRNN.from_weights(**weights, num_relu=0)
    model = ObservedCell(cell, IdentityObservation(1, 1))
    u = series(1, 50)
    x = jnp.concatenate([jnp.zeros((1, 1)), u[:-1]])
    assert float(prediction_error(model, x, 7, u)) == 0
    with pytest.raises(ValueError, match=r"inputs .* 50 steps as the series, got shape \(49, 1\)"):
        prediction_error(model, x, 7, u[1:])


def test_measures_can_be_mapped_and_compiled():
    x = series(3, 60)
    batch = jnp.stack([x, x + 0.3])
    mapped = jax.jit(jax.vmap(lambda y: state_space_divergence(x, y)))(batch)
    np.testing.assert_allclose(
        mapped, [state_space_divergence(x, y) for y in batch], rtol=1e-12, atol=1e-15
    )
    gradient = jax.grad(lambda y: power_spectrum_distance(x, y, smoothing=2.0))(batch[1] ** 2)
    assert bool(jnp.all(jnp.isfinite(gradient)))
    single = state_space_divergence(x.astype(jnp.float32), (x + 0.3).astype(jnp.float32))
    assert single.dtype == jnp.float32


def test_bad_series():
    x = series(3)
    with pytest.raises(ValueError, match="true has 3 dimensions, but generated has 2"):
        state_space_divergence(x, x[:, :2])
    with pytest.raises(ValueError, match=r"true must have shape \(T, N\), got \(300,\)"):
        power_spectrum_distance(x[:, 0], x)
    with pytest.raises(ValueError, match="true holds 1 non-finite value out of 900"):
        state_space_divergence(x.at[0, 0].set(jnp.nan), x)
    with pytest.raises(TypeError, match="generated must be real floating point, got int"):
        power_spectrum_distance(x, jnp.ones((10, 3), int))
    with pytest.raises(ValueError, match="key is required for 6 dimensions"):
        state_space_divergence(series(6), series(6))
    with pytest.raises(ValueError, match="length is 400, but the shorter series has 300 points"):
        power_spectrum_distance(x, x, length=400)
    with pytest.raises(ValueError, match="smoothing must be positive, got 0"):
        power_spectrum_distance(x, x, smoothing=0)
    with pytest.raises(ValueError, match="num_steps is 300, but the series has only 300 points"):
        prediction_error(rotation(), x[:, :2], 300)
