"""The parameter at which an exponent has a value: exact for linear maps, by theory for large networks, statuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear, driven_gru
from scipy.optimize import brentq

import lejax
from lejax.training import tune_parameter
from lejax.training._bracket import Point, search_bracket


def radius(matrix):
    return np.abs(np.linalg.eigvals(np.asarray(matrix))).max()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_scale_of_a_linear_network(dtype):
    # Normal matrices align without a transient of their own: lambda_i = log(scale sigma_i).
    rates = jnp.array([0.9, 0.5, 0.2], dtype)
    options = {"bracket": (0.1, 20.0), "num_steps": 200, "transient": 400}
    for index, target in ((0, 0.0), (1, 0.1), (2, -0.5)):
        tuned = tune_parameter(
            lambda scale: Linear(scale * jnp.diag(rates)),
            jnp.zeros(3, dtype),
            index=index,
            target=target,
            **options,
        )
        rtol = 1e-10 if dtype == jnp.float64 else 1e-5
        np.testing.assert_allclose(tuned.parameter, np.exp(target) / rates[index], rtol=rtol)
        np.testing.assert_allclose(tuned.exponent, target, atol=rtol)
        assert tuned.parameter.dtype == dtype
        assert bool(tuned.result == lejax.RESULTS.successful)
        low, high = tuned.bracket
        assert low <= tuned.parameter <= high
        assert tuned.bracket_exponents[0] <= target + rtol <= tuned.bracket_exponents[1] + 2 * rtol
        assert tuned.num_runs <= 20


def test_the_gain_at_which_the_origin_of_a_tanh_network_loses_its_stability():
    weights = jr.normal(jr.key(0), (32, 32)) / 32**0.5

    def network(gain):
        return lejax.cells.RNNCell.from_weights(weight_hh=gain * weights)

    tuned = tune_parameter(
        network, jnp.zeros(32), bracket=(0.5, 2.0), num_steps=3000, transient=3000
    )
    # At the origin lambda_1 = log(gain radius); a complex pair leaves oscillations in the blocks.
    assert abs(tuned.parameter * radius(weights) - 1) < 4 * tuned.parameter_error + 1e-4


def mean_field_gain(noise):
    """The gain of h' = g J tanh(h) + noise at which lambda_1 = 0 for large N: g^2 E[tanh'(h)^2] = 1."""
    z = np.linspace(-9, 9, 4001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()

    def largest(gain):
        def excess(q):
            return gain**2 * (weight @ np.tanh(np.sqrt(q) * z) ** 2) + noise**2 - q

        q = brentq(excess, 1e-12, gain**2 + noise**2 + 1)
        return np.log(gain) + np.log(weight @ np.cosh(np.sqrt(q) * z) ** -4.0) / 2

    return brentq(largest, 0.5, 5.0)


def test_the_gain_of_noisy_networks_is_that_of_mean_field_theory():
    noise, networks = 0.5, 8
    expected = mean_field_gain(noise)
    assert expected > 1.5  # input suppresses chaos: without it the gain is 1
    np.testing.assert_allclose(mean_field_gain(1e-4), 1.0, atol=2e-3)

    def tuned_gain(key, size):
        keys = jr.split(key, 3)
        weights = jr.normal(keys[0], (size, size)) / size**0.5
        inputs = noise * jr.normal(keys[1], (400, size))

        def network(gain):
            return lambda input, state: gain * weights @ jnp.tanh(state) + input

        return tune_parameter(
            network, jr.normal(keys[2], (size,)), inputs, bracket=(0.8, 2.5), transient=100
        )

    means, errors = [], []
    for size in (100, 200):
        draw = jax.jit(jax.vmap(lambda key, size=size: tuned_gain(key, size)))
        tuned = draw(jr.split(jr.key(0), networks))
        assert bool(jnp.all(tuned.result == lejax.RESULTS.successful))
        means.append(np.mean(tuned.parameter))
        errors.append(np.std(tuned.parameter, ddof=1) / networks**0.5)
    # Finite networks deviate by a term of order 1 / size, which the extrapolation removes.
    assert means[0] > means[1] > expected
    error = np.hypot(errors[0], 2 * errors[1])
    assert error < 0.02
    assert abs(2 * means[1] - means[0] - expected) < 3 * error


@pytest.mark.parametrize("name", ["gain", "leak"])
def test_a_leaky_echo_state_network_at_the_origin(name):
    size, target = 12, {"gain": 0.0, "leak": -0.05}[name]
    # A positive matrix has one real leading eigenvalue, well apart from the others.
    weights = jr.uniform(jr.key(2), (size, size))
    weights = 0.9 * weights / radius(weights)

    def network(parameter):
        gain, leak = (parameter, 0.4) if name == "gain" else (0.8, parameter)
        return lejax.cells.EchoStateCell.from_weights(weight_hh=gain * weights, leak=leak)

    bracket = {"gain": (0.2, 3.0), "leak": (0.01, 1.0)}[name]
    tuned = tune_parameter(
        network, jnp.zeros(size), bracket=bracket, target=target, num_steps=200, transient=1500
    )
    # lambda_1 = log(1 - leak + leak gain 0.9)
    expected = {"gain": 1 / 0.9, "leak": (1 - np.exp(target)) / (1 - 0.72)}[name]
    np.testing.assert_allclose(tuned.parameter, expected, rtol=1e-9)


def test_derivatives_are_those_of_the_implicit_function():
    def tuned(slope, target):
        return tune_parameter(
            lambda scale: lambda input, state: scale * slope * state,
            jnp.ones(1),
            bracket=(0.1, 9.0),
            target=target,
            num_steps=30,
        ).parameter

    value, (by_slope, by_target) = jax.value_and_grad(tuned, (0, 1))(0.5, 0.3)
    np.testing.assert_allclose(value, 2 * np.exp(0.3), rtol=1e-10)
    np.testing.assert_allclose(by_slope, -4 * np.exp(0.3), rtol=1e-8)
    np.testing.assert_allclose(by_target, value, rtol=1e-8)
    forward = jax.jvp(tuned, (0.5, 0.3), (1.0, 0.0))[1]
    np.testing.assert_allclose(forward, by_slope, rtol=1e-10)


def test_the_search_stops_at_the_error_of_the_exponent():
    cell, state, inputs = driven_gru(size=4, num_steps=120)

    def network(gain):
        return eqx.tree_at(lambda c: c.weight_hh, cell, gain * cell.weight_hh)

    tuned = tune_parameter(network, state, inputs, bracket=(0.1, 8.0), target=-0.1, transient=20)
    assert tuned.standard_error > 1e-3
    assert tuned.bracket[1] - tuned.bracket[0] <= 1.01 * tuned.parameter_error
    assert abs(tuned.exponent + 0.1) <= 2 * tuned.standard_error
    assert tuned.num_runs < 12
    run = lejax.lyapunov_spectrum(
        network(tuned.parameter), state, inputs, transient=20, num_exponents=1
    )
    np.testing.assert_allclose(run.exponents[0], tuned.exponent, rtol=1e-9)
    np.testing.assert_allclose(run.standard_error[0], tuned.standard_error, rtol=1e-6)


def test_failures_have_a_status_and_a_sentence():
    def scaled(scale):
        return lambda input, state: scale * state

    options = {"state": jnp.zeros(1), "num_steps": 10}
    with pytest.raises(RuntimeError, match=r"one side .* Exponent 0 is -1.6\d+ at 0.2 and -0.69"):
        tune_parameter(scaled, bracket=(0.2, 0.5), **options)
    with pytest.raises(RuntimeError, match="allow more runs by max_runs"):
        tune_parameter(scaled, bracket=(0.2, 7.0), max_runs=4, **options)
    with pytest.raises(RuntimeError, match="left the floating-point numbers"):
        tune_parameter(
            lambda s: scaled(jnp.where(s > 1, jnp.nan, s)), bracket=(0.2, 2.0), **options
        )

    @jax.vmap
    def many(upper):
        return tune_parameter(scaled, bracket=(0.2, upper), **options)

    found = many(jnp.array([0.5, 7.0]))
    expected = (lejax.RESULTS.no_sign_change, lejax.RESULTS.successful)
    for i, result in enumerate(expected):
        assert bool((found.result == result)[i])
    assert jnp.isnan(found.parameter[0])
    np.testing.assert_allclose(found.parameter[1], 1.0, rtol=1e-12)


def test_an_exponent_of_minus_infinity_is_below_the_target():
    tuned = tune_parameter(
        lambda scale: lambda input, state: scale * state,
        jnp.zeros(1),
        bracket=(0.0, 3.0),
        num_steps=10,
    )
    np.testing.assert_allclose(tuned.parameter, 1.0, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bracket": (1.0, 1.0)}, "bracket must ascend, got 1.0 and 1.0"),
        ({"bracket": (0.0, jnp.inf)}, "bracket holds 1 non-finite value"),
        ({"target": jnp.nan}, "target holds 1 non-finite value"),
        ({"index": 2}, r"index \+ 1 is 3, but a state of 2 numbers"),
        ({"index": -1}, "index must be an integer of at least 0"),
        ({"max_runs": 2}, "max_runs must be an integer of at least 3"),
    ],
)
def test_bad_arguments_are_one_sentence(change, message):
    options = {"bracket": (0.5, 2.0), "num_steps": 5} | change
    with pytest.raises(ValueError, match=message):
        tune_parameter(lambda s: Linear(s * jnp.eye(2)), jnp.zeros(2), **options)


def test_a_family_must_give_cells():
    with pytest.raises(TypeError, match="family must return a cell"):
        tune_parameter(lambda s: s, jnp.zeros(2), bracket=(0.5, 2.0), num_steps=5)


FUNCTIONS = {
    "cubic": (lambda x: x**3 - 2, 2 ** (1 / 3)),
    "steep": (lambda x: jnp.tanh(50 * (x - 0.3)), 0.3),
    "flat": (lambda x: (x - 0.7) ** 9, 0.7),
    "kink": (lambda x: jnp.where(x < 1, 5 * (x - 1), 0.01 * (x - 1)), 1.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_search_in_a_bracket(name):
    function, expected = FUNCTIONS[name]

    @jax.jit
    def search(error):
        return search_bracket(
            lambda x: Point(x, function(x), error), jnp.array(-1.0), jnp.array(4.0), 80
        )

    found = search(jnp.array(0.0))
    assert bool(found.is_done)
    np.testing.assert_allclose(found.best.x, expected, atol=1e-2 if name == "flat" else 1e-12)
    rough = search(jnp.array(0.1))
    assert bool(rough.is_done)
    assert rough.num_measured < found.num_measured
    ends = sorted([float(rough.newest.x), float(rough.across.x)])
    assert ends[0] <= expected + 1e-9
    assert expected <= ends[1] + 1e-9
