"""Known spectra: textbook systems, small networks to ten digits, and the theory of large random networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import random_tanh
from scipy.optimize import brentq

import lejax
from lejax.cells import GRUCell, LeakyRNNCell, LSTMCell, RNNCell
from lejax.systems import (
    Cat,
    Flow,
    Henon,
    Logistic,
    Lorenz63,
    Lorenz96,
    Lozi,
    Rossler,
    SkewTent,
    Tent,
)


SPECTRA = {
    "tanh": (
        1,
        "-.6030098003 -.8353409133 -.9792894363 -1.5288371875 -1.6469597040 -2.6162285696 "
        "-3.2778353637 -3.6797618369",
    ),
    "gru": (
        3,
        "-.1994926332 -.4202433529 -.5441937256 -.6794141689 -.6798427709 -.7454949089 "
        "-1.2412172909 -2.0780707969",
    ),
    "lstm": (
        4,
        "-.3192803228 -.3215206004 -.3916866966 -.4732308720 -.6598362014 -.8999777419 "
        "-.9899313375 -1.3752871281 -2.3809745068 -2.5900262658 -2.9647471215 -3.1682579935 "
        "-3.5623312621 -4.0670103439 -4.9344106976 -5.7257175482",
    ),
}


def numbers(text):
    return np.array(text.split(), float)


def driven_cells(name):
    """The lejax cell and, if Equinox has this kind, the Equinox cell with the same weights."""
    gates, _ = SPECTRA[name]
    rng = np.random.RandomState(0)
    w = jnp.asarray(rng.uniform(-0.9, 0.9, (gates * 8, 2)))
    u = jnp.asarray(rng.uniform(-0.9, 0.9, (gates * 8, 8)))
    kind = {"tanh": RNNCell, "gru": GRUCell, "lstm": LSTMCell}[name]
    cells = [kind.from_weights(weight_ih=w, weight_hh=u)]
    if name != "tanh":
        peer = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[name](2, 8, False, key=jr.key(0))
        cells.append(eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh), peer, (w, u)))
    return cells


def driving_input():
    t = np.arange(400)
    return jnp.asarray(np.stack([2 * ((t % 7) / 7 - 0.5), 1.5 * np.sin(2 * np.pi * t / 7)], axis=1))


@pytest.mark.parametrize("orthonormalizer", [lejax.Householder(), lejax.Cholesky()])
@pytest.mark.parametrize("name", SPECTRA)
def test_driven_cells_to_ten_digits(name, orthonormalizer):
    expected = numbers(SPECTRA[name][1])
    for cell in driven_cells(name):
        state = (jnp.zeros(8), jnp.zeros(8)) if name == "lstm" else jnp.zeros(8)
        spectrum = lejax.lyapunov_spectrum(
            cell,
            state,
            driving_input(),
            frame=jnp.eye(len(expected)),
            method=lejax.SequentialQR(orthonormalizer=orthonormalizer),
        )
        np.testing.assert_allclose(spectrum.exponents, expected, atol=1e-10)
        assert int(spectrum.num_steps) == 400


def test_driven_cells_in_float32():
    for name, (_, expected) in SPECTRA.items():
        cell, *_ = driven_cells(name)
        cell = jax.tree_util.tree_map(lambda x: x.astype(jnp.float32), cell)
        spectrum = lejax.lyapunov_spectrum(
            cell,
            cell.initial_state(),
            driving_input().astype(jnp.float32),
            frame=jnp.eye(len(numbers(expected))),
        )
        assert spectrum.exponents.dtype == jnp.float32
        np.testing.assert_allclose(spectrum.exponents, numbers(expected), rtol=1e-4)


def test_short_rate_network():
    rng = np.random.RandomState(0)
    weights = 2.0 * rng.randn(10, 10) / np.sqrt(10)
    state = jnp.asarray(rng.randn(10))
    cell = LeakyRNNCell.from_weights(weight_hh=weights, dt=0.1)
    spectrum = lejax.lyapunov_spectrum(cell, state, num_steps=100, frame=jnp.eye(10))
    expected = numbers(
        ".2301603689 -.5558112955 -.8128906078 -.8878648486 -1.0947434562 -1.0372424567 "
        "-1.2141383796 -1.7876563065 -2.1260925651 -2.1466470727"
    )
    np.testing.assert_allclose(spectrum.exponents, expected, atol=1e-9)
    np.testing.assert_allclose(
        spectrum.state[:3], [-1.7327855144, 0.1473263859, 1.5929753103], atol=1e-9
    )


MAPS = [
    (Henon(), [0.1, 0.1], [0.4192, np.log(0.3) - 0.4192], 3e-3),
    (Logistic(), 0.3, [np.log(2)], 1e-3),
    (Tent(1.9999), 0.3, [np.log(1.9999)], 1e-12),
    (Cat(), [0.1, 0.3], [np.log((3 + 5**0.5) / 2), -np.log((3 + 5**0.5) / 2)], 1e-4),
    (Lozi(), [0.1, 0.1], [0.4703, np.log(0.5) - 0.4703], 3e-3),
    (SkewTent(), 0.3, [0.5 * np.log(0.4)], 1e-12),
]


@pytest.mark.parametrize(("cell", "start", "expected", "accuracy"), MAPS)
def test_exponents_of_maps(cell, start, expected, accuracy):
    spectrum = lejax.lyapunov_spectrum(cell, jnp.array(start), num_steps=50_000, transient=1000)
    np.testing.assert_allclose(spectrum.exponents, expected, atol=accuracy)
    # The literature gives four digits; compare within three standard errors of the run.
    error = np.maximum(3 * np.asarray(spectrum.standard_error), accuracy / 10)
    assert np.all(np.abs(spectrum.exponents - np.array(expected)) < error + 1e-4)


def test_sum_of_exponents_is_the_mean_log_determinant():
    for cell, total in [(Henon(), np.log(0.3)), (Lozi(), np.log(0.5)), (Cat(), 0.0)]:
        spectrum = lejax.lyapunov_spectrum(cell, jnp.array([0.1, 0.1]), num_steps=1000)
        np.testing.assert_allclose(spectrum.exponents.sum(), total, atol=1e-12)


FLOWS = [
    (Lorenz63(), [1.0, 1.0, 1.0], 0.01, [0.9056, 0.0, -14.572], -(10 + 1 + 8 / 3), 2e-2),
    (Rossler(), [1.0, 1.0, 0.0], 0.05, [0.0714, 0.0, -5.394], None, 1e-2),
]


@pytest.mark.parametrize(("field", "start", "dt", "expected", "total", "accuracy"), FLOWS)
def test_exponents_of_flows(field, start, dt, expected, total, accuracy):
    spectrum = lejax.lyapunov_spectrum(
        Flow(field, dt=dt), jnp.array(start), num_steps=200_000, transient=10_000
    )
    np.testing.assert_allclose(spectrum.exponents, expected, atol=accuracy)
    assert np.abs(spectrum.exponents[0] - expected[0]) < 3 * spectrum.standard_error[0] + 1e-4
    if total is not None:  # the divergence is constant; the error of Runge-Kutta is O(dt^4)
        np.testing.assert_allclose(spectrum.exponents.sum(), total, rtol=1e-5)
        dimension = lejax.kaplan_yorke_dimension(spectrum.exponents, tolerance=5e-3)
        np.testing.assert_allclose(dimension, 2.062, atol=2e-3)


def test_lorenz96_sums_to_minus_its_size():
    spectrum = lejax.lyapunov_spectrum(
        Flow(Lorenz96(), dt=0.02), 8 + 0.01 * jnp.arange(8.0), num_steps=2000, transient=500
    )
    np.testing.assert_allclose(spectrum.exponents.sum(), -8, rtol=1e-5)


def test_leaky_network_mean_and_symmetry():
    # Without self-connections the trace of the Jacobian is (1 - dt) N at every state.
    size, dt = 24, 0.002
    cell = LeakyRNNCell(0, size, dt=dt, gain=3.0, key=jr.key(3))
    cell = eqx.tree_at(lambda c: c.weight_hh, cell, cell.weight_hh * (1 - jnp.eye(size)))
    spectrum = lejax.lyapunov_spectrum(
        cell,
        jr.normal(jr.key(1), (size,)),
        num_steps=60_000,
        transient=5000,
        method=lejax.SequentialQR(every=20),
    )
    center = np.log(1 - dt) / dt
    np.testing.assert_allclose(spectrum.exponents.mean(), center, rtol=2e-2)
    exponents = np.sort(np.asarray(spectrum.exponents))[::-1]
    pairs = (exponents + exponents[::-1]) / 2 - exponents.mean()
    assert np.abs(pairs).max() < 0.05 * (exponents[0] - exponents[-1])


@pytest.mark.parametrize("leak", [1.0, 0.4])
def test_reservoir_settled_at_the_origin(leak):
    size = 20
    weights = 0.9 * jr.normal(jr.key(2), (size, size)) / size**0.5
    eigenvalues = np.linalg.eigvals(np.asarray(weights))
    expected = np.log(np.abs(1 - leak + leak * eigenvalues).max())
    if leak == 1.0:
        np.testing.assert_allclose(expected, np.log(np.abs(eigenvalues).max()), atol=1e-12)

    def reservoir(input, state):
        return (1 - leak) * state + leak * jnp.tanh(weights @ state)

    spectrum = lejax.lyapunov_spectrum(
        reservoir, 0.01 * jnp.ones(size), num_steps=20_000, transient=2000, num_exponents=2
    )
    np.testing.assert_allclose(spectrum.exponents[0], expected, atol=1e-3)


class Scaled(eqx.Module):
    """h' = exp(A Delta_t) h + u_t: a selective state-space recurrence whose Delta_t is part of the input."""

    rates: jax.Array

    def __call__(self, input, state):
        delta, drive = input
        return jnp.exp(self.rates * delta) * state + drive


def test_selective_state_space_recurrence():
    # If the frame starts along the axes, lambda_n = A_n mean(Delta).
    rates = -jnp.arange(1.0, 5.0)
    delta = jax.nn.softplus(jr.normal(jr.key(0), (500, 1)))
    inputs = (delta, jr.normal(jr.key(1), (500, 4)))
    spectrum = lejax.lyapunov_spectrum(Scaled(rates), jnp.zeros(4), inputs, frame=jnp.eye(4))
    np.testing.assert_allclose(spectrum.exponents, rates * delta.mean(), atol=1e-12)
    # A random frame has to align first: the error is of order 1/T.
    random = lejax.lyapunov_spectrum(Scaled(rates), jnp.zeros(4), inputs)
    np.testing.assert_allclose(random.exponents, rates * delta.mean(), atol=2e-2)


def test_householder_products_with_beta_2_are_reflections():
    class Delta(eqx.Module):
        def __call__(self, key, state):
            return state - 2 * key * (key @ state)

    keys = jr.normal(jr.key(0), (300, 5))
    keys = keys / jnp.linalg.norm(keys, axis=1, keepdims=True)
    spectrum = lejax.lyapunov_spectrum(Delta(), jnp.ones(5), keys)
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-13)


def theory(gain):
    """Theory of h' = g J tanh(h) for large N: sigma, lambda_1, D/N, H/N, lambda(.25), lambda(.5)."""
    z = np.linspace(-9, 9, 2001)
    weight = np.exp(-(z**2) / 2)
    weight = weight / weight.sum()
    sigma = brentq(lambda s: gain**2 * (weight @ np.tanh(s * z) ** 2) - s**2, 0.1, 2 * gain)
    square = np.cosh(sigma * z) ** -4.0

    def exponent(t):
        log_s = brentq(lambda x: weight @ (square / (square + np.exp(-x))) - t, -50, 600)
        return np.log(gain) + 0.5 * (np.log(t) - log_s)

    largest = np.log(gain) + 0.5 * np.log(weight @ square)
    # exponent(t) is steep at t = 0 and t = 1: integrate over a grid that is dense there.
    grid = (1 - np.cos(np.pi * (np.arange(1500) + 0.5) / 1500)) / 2
    values = np.array([exponent(t) for t in grid])
    width = np.diff((1 - np.cos(np.pi * np.arange(1501) / 1500)) / 2)
    sums = np.cumsum(values * width)
    dimension = grid[np.argmax(sums < 0)]
    entropy = np.maximum(values, 0) @ width
    return sigma, largest, dimension, entropy, exponent(0.25), exponent(0.5)


TABLE = {
    2: (1.4565, 0.1547, 0.2576, 0.01068, -0.1667, -0.6893),
    4: (3.5356, 0.4329, 0.2699, 0.03405, -0.4782, -2.4110),
    10: (9.5763, 0.8564, 0.1653, 0.04417, -3.1210, -9.5904),
}


@pytest.mark.parametrize("gain", TABLE)
def test_table_of_random_networks_agrees_with_the_theory(gain):
    np.testing.assert_allclose(theory(gain), TABLE[gain], rtol=5e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gain", TABLE)
def test_random_network_against_theory(gain):
    # At gain 10 small networks differ from the limit: lambda_1 is .78 for 128 units and .83 for 256.
    size, seeds = (256, 2) if gain == 10 else (128, 3)
    _, largest, dimension, entropy, _, middle = TABLE[gain]

    @eqx.filter_vmap
    def spectra(key):
        key_weights, key_state = jr.split(key)
        weights = gain * jr.normal(key_weights, (size, size)) / size**0.5
        cell = RNNCell.from_weights(weight_hh=weights)
        return lejax.lyapunov_spectrum(
            cell, jr.normal(key_state, (size,)), num_steps=300, transient=100
        )

    spectrum = spectra(jr.split(jr.key(0), seeds))
    assert bool(jnp.all(spectrum.result == lejax.RESULTS.successful))
    exponents = np.asarray(spectrum.exponents)
    assert abs(exponents[:, 0].mean() - largest) < 0.04
    dimensions = jax.vmap(lambda x: lejax.kaplan_yorke_dimension(x, size))(exponents) / size
    assert abs(dimensions.mean() - dimension) < 0.015
    entropies = jax.vmap(lejax.kolmogorov_sinai_entropy)(exponents) / size
    np.testing.assert_allclose(entropies.mean(), entropy, rtol=0.12)
    quarter = exponents[:, size // 4 - 1].mean()
    np.testing.assert_allclose(quarter, TABLE[gain][4], atol=0.05 * abs(middle))
    np.testing.assert_allclose(exponents[:, size // 2 - 1].mean(), middle, rtol=0.03)
    if gain == 4:  # values of an independent program at the same size
        assert abs(exponents[:, 0].mean() - 0.405) < 4 * 0.008
        assert abs(dimensions.mean() - 0.261) < 4 * 0.002
        assert abs(entropies.mean() - 0.0318) < 0.002


def test_chaotic_spectra_in_float32_and_float64_agree_within_their_errors():
    cell, state = random_tanh(jr.key(3), 20, 3.0), jr.normal(jr.key(4), (20,))
    low = jax.tree.map(lambda x: x.astype(jnp.float32), (cell, state))
    single, double = (
        lejax.lyapunov_spectrum(*network, num_exponents=8, num_steps=8000, transient=500)
        for network in (low, (cell, state))
    )
    assert single.exponents.dtype == jnp.float32
    assert (
        double.exponents[0] > 5 * double.standard_error[0]
    )  # in chaos, rounding changes every trajectory
    error = np.hypot(single.standard_error, double.standard_error)
    assert np.mean(((single.exponents - double.exponents) / error) ** 2) < 4
    assert np.max(np.abs(single.exponents - double.exponents) / error) < 5
