"""Echo state networks, their readouts, and cells with noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear

import lejax
from lejax import RESULTS, SequentialQR
from lejax.cells import (
    ClosedLoop,
    EchoStateCell,
    FeedThrough,
    LeakyRNNCell,
    LSTMCell,
    NoisyCell,
    RNNCell,
    Stack,
    fit_readout,
)
from lejax.systems import Henon


EVERY = {"method": SequentialQR(every=1)}


def test_reservoir_is_its_equation():
    cell = EchoStateCell(2, 5, leak=0.3, bias_scale=0.4, key=jr.key(0))
    h, u = jr.normal(jr.key(1), (5,)), jr.normal(jr.key(2), (2,))
    inner = np.tanh(cell.weight_hh @ h + cell.weight_ih @ u + cell.bias)
    np.testing.assert_allclose(cell(u, h), 0.7 * h + 0.3 * inner, atol=1e-15)
    assert np.abs(cell.bias).max() <= 0.4


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_reservoir_has_the_radius_and_density_it_was_asked_for(density):
    cell = EchoStateCell(1, 100, spectral_radius=1.6, density=density, key=jr.key(0))
    weight = np.asarray(cell.weight_hh)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(weight)).max(), 1.6, rtol=1e-12)
    share = np.mean(weight != 0)
    assert abs(share - density) <= 4 * np.sqrt(density * (1 - density)) / 100


@pytest.mark.parametrize(("leak", "radius"), [(1.0, 0.8), (0.3, 0.9)])
def test_exponents_at_the_origin_are_those_of_its_linearization(leak, radius):
    cell = EchoStateCell(0, 6, leak=jnp.array(leak), spectral_radius=radius, key=jr.key(0))
    moduli = np.sort(np.abs(1 - leak + leak * np.linalg.eigvals(cell.weight_hh)))[::-1]
    run = {"num_steps": 400, "transient": 600, **EVERY}
    spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), **run)
    np.testing.assert_allclose(spectrum.exponents.sum(), np.log(moduli).sum(), rtol=1e-12)
    # A pair of complex eigenvalues turns its plane: each of the two has an error of 1/T and their mean has none.
    assert np.isclose(moduli[0], moduli[1])
    leading = np.mean(spectrum.exponents[:2])
    np.testing.assert_allclose(leading, np.log(moduli[0]), atol=1e-9)
    if leak == 1:
        np.testing.assert_allclose(leading, np.log(0.8), atol=1e-9)
    # The same from a start from which the run gets there.
    near = lejax.lyapunov_spectrum(cell, jr.normal(jr.key(4), (6,)), **run)
    np.testing.assert_allclose(near.exponents, spectrum.exponents, atol=0.02)


@pytest.mark.parametrize("radius", [0.8, 1.6])
def test_input_lowers_the_largest_exponent(radius):
    cell = EchoStateCell(1, 100, spectral_radius=radius, input_scale=0.5, key=jr.key(0))
    noise = jr.normal(jr.key(1), (900, 1))

    def largest(strength):
        run = lejax.lyapunov_spectrum(
            cell, jr.normal(jr.key(2), (100,)), strength * noise, num_exponents=1, transient=100
        )
        return run.exponents[0], run.standard_error[0]

    values, errors = jax.vmap(largest)(jnp.array([0.0, 1.0, 3.0]))
    assert np.all(-np.diff(values) > 4 * np.hypot(errors[1:], errors[:-1]))
    assert values[2] < 0


def test_weights_of_low_precision():
    cell = EchoStateCell(1, 20, jnp.bfloat16, spectral_radius=0.7, key=jr.key(0))
    assert cell.weight_hh.dtype == cell(jnp.ones(1, jnp.bfloat16), cell.initial_state()).dtype
    assert cell.weight_hh.dtype == jnp.bfloat16
    moduli = np.abs(np.linalg.eigvals(np.asarray(cell.weight_hh, float)))
    np.testing.assert_allclose(moduli.max(), 0.7, rtol=0.02)


def test_readout_is_the_ridge_regression():
    states, targets = jr.normal(jr.key(0), (50, 4)) + 2, jr.normal(jr.key(1), (50, 3)) - 1
    penalty = 0.1
    readout = fit_readout(states, targets, penalty=penalty)
    x, y = (np.asarray(a - a.mean(axis=0)) for a in (states, targets))
    weight = np.linalg.solve(x.T @ x / 50 + penalty * np.eye(4), x.T @ y / 50).T
    np.testing.assert_allclose(readout.weight, weight, atol=1e-14)
    # The bias pays no penalty: residuals have mean 0.
    residual = jax.vmap(readout)(states) - targets
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-14)
    exact = jax.vmap(fit_readout(states, states @ weight.T + 1.0, penalty=1e-14))(states)
    np.testing.assert_allclose(exact, states @ weight.T + 1.0, atol=1e-11)
    # Nearly parallel states: normal equations would have lost their difference.
    twins = jnp.stack([states[:, 0], states[:, 0] + 1e-6 * states[:, 1]], axis=1)
    readout = fit_readout(twins, states[:, 1:2], penalty=1e-20)
    np.testing.assert_allclose(jax.vmap(readout)(twins), states[:, 1:2], atol=1e-6)


def test_readout_is_differentiable_and_keeps_float32():
    states, targets = jr.normal(jr.key(0), (30, 4)), jr.normal(jr.key(1), (30, 1))

    def loss(penalty):
        return jnp.sum(fit_readout(states, targets, penalty=penalty).weight ** 2)

    difference = (loss(0.1 + 1e-6) - loss(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(0.1), difference, rtol=1e-7)
    low = fit_readout(states.astype(jnp.float32), targets.astype(jnp.float32), penalty=0.1)
    assert low.weight.dtype == low.bias.dtype == jnp.float32
    np.testing.assert_allclose(
        low.weight, fit_readout(states, targets, penalty=0.1).weight, atol=1e-5
    )


@pytest.mark.slow
def test_closed_loop_of_a_reservoir_forecasts_and_has_the_exponent_of_what_it_learned():
    series = lejax.unroll(Henon(), jnp.array([0.1, 0.1]), num_steps=2001)
    cell = EchoStateCell(2, 80, spectral_radius=0.1, bias_scale=0.5, key=jr.key(0))
    states = lejax.unroll(cell, cell.initial_state(), series[:-1])
    loop = ClosedLoop(cell, fit_readout(states[100:1500], series[101:1501], penalty=1e-10))
    forecast = jax.vmap(loop.output)(lejax.unroll(loop, states[1500], num_steps=5))
    np.testing.assert_allclose(forecast, series[1502:1507], atol=1e-2)
    run = {"num_exponents": 1, "num_steps": 3000, "transient": 100}
    learned = lejax.lyapunov_spectrum(loop, states[-1], **run)
    known = lejax.lyapunov_spectrum(Henon(), jnp.zeros(2), **run)
    error = np.hypot(learned.standard_error[0], known.standard_error[0])
    assert abs(learned.exponents[0] - known.exponents[0]) < 4 * error
    driven = lejax.lyapunov_spectrum(cell, states[-1], series, num_exponents=1, transient=100)
    assert driven.exponents[0] < 0 < learned.exponents[0]


@pytest.mark.slow
def test_reservoirs_as_a_batch_in_float32():
    keys = jr.split(jr.key(0), 3)
    inputs = jr.normal(jr.key(1), (60, 2), jnp.float32)

    def largest(key, radius):
        cell = EchoStateCell(2, 8, jnp.float32, spectral_radius=radius, key=key)
        return lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, throw=False).exponents

    radii = jnp.array([0.5, 0.9, 1.3], jnp.float32)
    batch = jax.vmap(largest)(keys, radii)
    assert batch.dtype == jnp.float32
    np.testing.assert_allclose(batch[1], largest(keys[1], radii[1]), atol=2e-5)


def test_noise_is_added_to_every_leaf_and_scales_with_the_root_of_the_step():
    cell = LeakyRNNCell(1, 3, dt=0.25, key=jr.key(0))
    stack = Stack([cell, LeakyRNNCell(3, 2, dt=0.25, key=jr.key(1))])
    noisy, state, input = NoisyCell(stack, 2.0), stack.initial_state(), jnp.ones(1)
    step = eqx.filter_jit(noisy)
    draws = jax.jit(jax.vmap(lambda key: noisy((input, key), state)))(jr.split(jr.key(2), 4000))
    for leaf, exact in zip(draws, stack(input, state), strict=True):
        noise = (np.asarray(leaf) - exact) / (2.0 * 0.5)
        error = 1 / np.sqrt(noise.size)
        assert abs(noise.mean()) < 4 * error
        assert abs(noise.var() - 1) < 4 * np.sqrt(2) * error
    first, second = draws
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 4 / np.sqrt(4000)
    assert noisy.time_step() == 0.25
    np.testing.assert_array_equal(noisy.output(state), stack.output(state))
    again = step((input, jr.key(5)), state)
    jax.tree.map(np.testing.assert_array_equal, again, step((input, jr.key(5)), state))


def test_noise_does_not_move_the_exponents_of_a_linear_cell():
    cell = Linear(jnp.diag(jnp.array([0.9, 0.5])))
    keys = jr.split(jr.key(0), 200)
    noisy = lejax.lyapunov_spectrum(
        NoisyCell(cell, 0.3), jnp.zeros(2), (None, keys), transient=100, **EVERY
    )
    np.testing.assert_allclose(noisy.exponents, np.log([0.9, 0.5]), atol=1e-12)


def test_exponents_of_a_noise_driven_cell_are_those_along_its_run():
    cell = RNNCell.from_weights(weight_hh=jnp.array([[1.5]]))
    noisy, keys = NoisyCell(cell, 0.4), jr.split(jr.key(1), 300)
    states = lejax.unroll(noisy, jnp.array([0.2]), (None, keys))[:, 0]
    before = np.concatenate([[0.2], states[:-1]])
    slopes = 1.5 * (1 - np.tanh(1.5 * before) ** 2)
    spectrum = lejax.lyapunov_spectrum(noisy, jnp.array([0.2]), (None, keys))
    np.testing.assert_allclose(spectrum.exponents[0], np.mean(np.log(slopes)), rtol=1e-10)


@pytest.mark.slow
def test_common_noise_makes_the_two_states_of_a_bistable_cell_one():
    cell = RNNCell.from_weights(weight_hh=jnp.array([[1.5]]))
    keys, starts = jr.split(jr.key(2), 600), jnp.array([[-1.0], [1.0]])
    for scale, index in ((0.01, 2), (0.5, 1)):
        echo = lejax.indicators.echo_state_index(
            NoisyCell(cell, scale), starts, (None, keys), transient=500
        )
        assert int(echo.num_responses) == index
        assert echo.exponents.max() < 0


def test_noise_keeps_the_structure_of_the_cell_below():
    stack = Stack([RNNCell(1, 2, key=jr.key(0)), RNNCell(2, 2, key=jr.key(1))])
    inputs = jr.normal(jr.key(2), (50, 1)), jr.split(jr.key(3), 50)
    spectrum = lejax.lyapunov_spectrum(
        NoisyCell(stack, 0.1), stack.initial_state(), inputs, **EVERY
    )
    # A frame of a report of blocks: each column lies in one layer.
    is_first = np.any(np.asarray(spectrum.frame)[:2] != 0, axis=0)
    is_second = np.any(np.asarray(spectrum.frame)[2:] != 0, axis=0)
    assert np.all(is_first ^ is_second)
    assert spectrum.result == RESULTS.successful


def test_noise_is_the_same_in_both_precisions():
    cell, keys = EchoStateCell(0, 4, bias_scale=0.2, key=jr.key(0)), jr.split(jr.key(1), 20)

    def run(dtype):
        params, static = eqx.partition(cell, eqx.is_array)
        params = jax.tree.map(lambda x: x.astype(dtype), params)
        noisy = NoisyCell(eqx.combine(params, static), 0.3)
        return lejax.unroll(noisy, jnp.zeros(4, dtype), (None, keys))

    high, low = run(jnp.float64), run(jnp.float32)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, high, atol=1e-6)


@pytest.mark.slow
def test_noise_has_gradients():
    cell, keys = EchoStateCell(0, 4, bias_scale=0.2, key=jr.key(0)), jr.split(jr.key(1), 20)

    def total(scale):
        return lejax.lyapunov_spectrum(
            NoisyCell(cell, scale), jnp.zeros(4), (None, keys)
        ).exponents.sum()

    step = jnp.array(1e-6)
    difference = (total(0.3 + step) - total(0.3 - step)) / 2e-6
    np.testing.assert_allclose(jax.grad(total)(jnp.array(0.3)), difference, rtol=1e-6)


def test_inputs_and_biases_have_the_widths_asked_for():
    cell = EchoStateCell(4, 300, input_scale=0.3, bias_scale=0.7, key=jr.key(0))
    for weight, width in ((cell.weight_ih, 0.3), (cell.bias, 0.7)):
        assert 0.95 * width < np.abs(weight).max() <= width


def test_readout_of_low_precision():
    states, targets = jr.normal(jr.key(0), (50, 3)), jr.normal(jr.key(1), (50, 2))
    high = fit_readout(states, targets, penalty=1e-3)
    low = fit_readout(states.astype(jnp.bfloat16), targets.astype(jnp.bfloat16), penalty=1e-3)
    assert low.weight.dtype == low.bias.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.weight.astype(float), high.weight, atol=0.02)
    with pytest.raises(ValueError, match=r"states holds 1 non-finite value out of 150"):
        fit_readout(states.at[3, 1].set(jnp.nan), targets)
    with pytest.raises(TypeError, match="targets must be real, got complex128"):
        fit_readout(states, targets + 0j)


def test_noise_of_scale_zero_is_none():
    cell, keys = EchoStateCell(0, 4, key=jr.key(0)), jr.split(jr.key(1), 5)
    still = lejax.unroll(NoisyCell(cell, 0.0), jnp.ones(4), (None, keys))
    np.testing.assert_allclose(still, lejax.unroll(cell, jnp.ones(4), num_steps=5), atol=1e-15)
    with pytest.raises(ValueError, match=r"scale must not be negative and must be finite, got -1"):
        NoisyCell(cell, -1.0)


@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_noise_has_the_covariance_of_its_factor(kind):
    cell = LeakyRNNCell(1, 2, dt=0.25, key=jr.key(0))
    stack = Stack([cell, LeakyRNNCell(2, 1, dt=0.25, key=jr.key(1))])
    factor = jnp.array([[1.0, 0.0, 0.0], [-0.8, 0.5, 0.0], [0.3, 2.0, 0.1]])
    if kind == "vector":
        factor = jnp.diag(jnp.array([1.0, 0.0, 3.0]))
    noisy = NoisyCell(stack, jnp.diag(factor) if kind == "vector" else factor)
    state, input, count = stack.initial_state(), jnp.ones(1), 4000
    draws = jax.jit(jax.vmap(lambda key: noisy((input, key), state)))(jr.split(jr.key(2), count))
    noise = np.concatenate([a - b for a, b in zip(draws, stack(input, state), strict=True)], axis=1)
    exact = 0.25 * np.asarray(factor @ factor.T)
    variances = np.diag(exact)
    error = np.sqrt((np.outer(variances, variances) + exact**2) / count)
    assert np.all(np.abs(noise.T @ noise / count - exact) <= 4 * error + 1e-12)


def test_a_number_a_vector_and_a_matrix_are_the_same_noise():
    cell, keys = EchoStateCell(0, 3, bias_scale=0.2, key=jr.key(0)), jr.split(jr.key(1), 20)

    def run(scale):
        return lejax.unroll(NoisyCell(cell, scale), jnp.zeros(3), (None, keys))

    for scale in (0.3 * jnp.ones(3), 0.3 * jnp.eye(3), [0.3, 0.3, 0.3]):
        np.testing.assert_allclose(run(scale), run(0.3), rtol=1e-12)
    scales = jnp.stack([0.1 * jnp.eye(3), 0.3 * jnp.eye(3)])
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(scales)[1], run(0.3), rtol=1e-12)
    direction = jr.normal(jr.key(2), (3, 3))
    step = 1e-6 * direction
    difference = (run(scales[1] + step).sum() - run(scales[1] - step).sum()) / 2e-6
    gradient = jax.grad(lambda scale: run(scale).sum())(scales[1])
    np.testing.assert_allclose(jnp.sum(gradient * direction), difference, rtol=1e-6)


def test_noise_of_the_wrong_shape_is_refused():
    cell, input = EchoStateCell(0, 3, key=jr.key(0)), (None, jr.key(1))
    with pytest.raises(ValueError, match=r"or a square matrix \(d, d\), got shape \(3, 2\)"):
        NoisyCell(cell, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"scale must not be negative, got \[ 1. -1.\]"):
        NoisyCell(cell, jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"scale holds 1 non-finite value out of 4"):
        NoisyCell(cell, jnp.array([[1.0, 0.0], [jnp.nan, 1.0]]))
    for shape, wanted in (((2,), r"\(3,\)"), ((4, 4), r"\(3, 3\)")):
        with pytest.raises(
            TypeError, match=rf"a state of 3 components needs a number or shape {wanted}"
        ):
            NoisyCell(cell, jnp.ones(shape))(input, cell.initial_state())


def test_a_loop_through_states_and_inputs_is_the_plain_loop():
    """u' = W [y(h), u] + b, h' = F(u', h)."""
    inner = LSTMCell(2, 3, key=jr.key(0))
    loop = ClosedLoop(FeedThrough(inner, 2), eqx.nn.Linear(5, 2, key=jr.key(1)))
    cell_state, input = (
        (jnp.array([0.1, -0.2, 0.3]), jnp.array([0.5, 0.0, -0.5])),
        jnp.array([1.0, -1.0]),
    )
    state = cell_state, input
    states = lejax.unroll(loop, state, num_steps=8)
    for step in range(8):
        input = loop.readout(jnp.concatenate([cell_state[0], input]))
        cell_state = inner(input, cell_state)
        jax.tree.map(
            lambda a, b, step=step: np.testing.assert_allclose(a[step], b, rtol=1e-12),
            states,
            (cell_state, input),
        )
    np.testing.assert_array_equal(
        loop.output(state), loop.readout(jnp.concatenate([state[0][0], state[1]]))
    )
    vector, unravel = jax.flatten_util.ravel_pytree(state)
    exact = jax.jacfwd(lambda v: jax.flatten_util.ravel_pytree(loop(None, unravel(v)))[0])(vector)
    np.testing.assert_allclose(lejax.jacobian(loop, state), exact, atol=1e-14)
    assert np.abs(exact[:, -2:]).min() > 0  # the last input acts on all


def test_a_driven_feed_through_has_the_exponents_of_its_cell():
    cell, inputs = RNNCell(2, 3, key=jr.key(0)), jr.normal(jr.key(1), (60, 2))
    wrapped = FeedThrough(cell, 2)
    spectrum, alone = (
        lejax.lyapunov_spectrum(c, c.initial_state(), inputs, frame=jnp.eye(n), **EVERY)
        for c, n in ((wrapped, 5), (cell, 3))
    )
    np.testing.assert_allclose(spectrum.exponents[:3], alone.exponents, rtol=1e-10)
    assert np.all(np.isneginf(spectrum.exponents[3:]))
    np.testing.assert_array_equal(wrapped.output(spectrum.state)[3:], inputs[-1])
    timed = FeedThrough(LeakyRNNCell(2, 3, dt=0.1, key=jr.key(2)), 2)
    assert timed.time_step() == 0.1
    with pytest.raises(ValueError, match=r"takes inputs of shape \(2,\), got \(3,\)"):
        wrapped(jnp.ones(3), wrapped.initial_state())
    nested = FeedThrough(eqx.nn.Identity(), 2)
    with pytest.raises(
        TypeError, match=r"the output of Identity must be one vector for a FeedThrough"
    ):
        nested.output(((jnp.ones(2), jnp.ones(2)), jnp.ones(2)))
