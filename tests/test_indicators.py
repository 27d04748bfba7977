"""Indicators against known rates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear

import lejax
from lejax._engine.tangent_dynamics import random_frame
from lejax.indicators import (
    echo_state_index,
    finite_time_exponent_field,
    log_alignment_index,
    two_trajectory_exponent,
    zero_one_test,
)
from lejax.systems import Cat, Flow, Henon, Logistic, Lorenz63


class Rotation(eqx.Module):
    """A rotation whose angle is the radius: a shear, as on an invariant torus."""

    def __call__(self, input, state):
        angle, radius = state
        return jnp.stack([angle + radius, radius])


def test_alignment_falls_at_the_gaps_between_exponents():
    rates = np.log([3.0, 1.5, 0.5])
    cell = Linear(jnp.diag(jnp.exp(rates)))
    for order in (2, 3):
        index = log_alignment_index(cell, jnp.zeros(3), order=order, num_steps=200)
        expected = -(order - 1) * rates[0] + rates[1:order].sum()
        np.testing.assert_allclose((index[-1] - index[99]) / 100, expected, rtol=1e-9)
    # The index falls far below the rounding of normalized vectors; early values agree with their volume.
    assert index[-1] < np.log(1e-100)
    frame = np.linalg.qr(np.asarray(random_frame(None, 3, 3, jnp.float64)))[0]
    for t in (1, 4):
        moved = np.diag(np.exp(t * rates)) @ frame
        volume = abs(np.linalg.det(moved / np.linalg.norm(moved, axis=0)))
        np.testing.assert_allclose(np.exp(index[t - 1]), volume, rtol=1e-9)


def test_alignment_if_a_step_removes_most_of_the_volume():
    # A step leaves less than 1e-3 of the second vector, which is too little for a fast factorization.
    rates = np.array([3e4, 2.0, 0.5])
    index = log_alignment_index(Linear(jnp.diag(rates)), jnp.zeros(3), num_steps=20)
    frame = np.linalg.qr(np.asarray(random_frame(None, 3, 2, jnp.float64)))[0]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for t in (1, 2, 20):
        # The Cauchy-Binet formula gives the volume without a difference of large numbers.
        minors = [
            (rates[i] / 3e4 * rates[j] / 3e4) ** t * np.linalg.det(frame[[i, j]]) for i, j in pairs
        ]
        lengths = np.linalg.norm((rates / 3e4)[:, None] ** t * frame, axis=0)
        np.testing.assert_allclose(
            index[t - 1], np.log(np.linalg.norm(minors) / np.prod(lengths)), rtol=1e-9
        )


def test_alignment_of_a_shear_falls_as_a_power():
    index = log_alignment_index(Rotation(), jnp.array([0.1, 0.6]), num_steps=1000)
    slope = (index[999] - index[99]) / np.log(1000 / 100)
    assert -2.1 < slope < -1.9 or -1.1 < slope < -0.9


def test_alignment_has_a_gradient():
    def last(a):
        return log_alignment_index(Henon(a), jnp.zeros(2), num_steps=10)[-1]

    difference = (last(1.4 + 1e-6) - last(1.4 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(last)(1.4), difference, rtol=1e-6)


def test_zero_one_test_distinguishes_regular_from_chaotic_series():
    def series(r):
        return lejax.unroll(Logistic(r), jnp.array(0.3), num_steps=1500)[500:]

    assert zero_one_test(series(3.55)) < 0.05
    assert zero_one_test(series(3.97)) > 0.95
    quasi = jnp.cos(2 * np.pi * 0.6180339887 * jnp.arange(1000.0))
    assert abs(zero_one_test(quasi)) < 0.1
    assert zero_one_test(jnp.ones(200)) == 0
    # The result does not depend on the offset and the unit.
    shifted = zero_one_test(5 + 100 * series(3.97))
    assert shifted > 0.9


def test_two_trajectories_agree_with_the_tangent_vector():
    flow = Flow(Lorenz63(), dt=0.02)
    cases = [(Henon(), jnp.zeros(2), 20_000, 100), (flow, jnp.ones(3), 20_000, 1000)]
    for cell, state, num_steps, transient in cases:
        run = {"num_steps": num_steps, "transient": transient}
        two = two_trajectory_exponent(cell, state, **run)
        tangent = lejax.lyapunov_spectrum(cell, state, num_exponents=1, **run)
        error = float(jnp.hypot(two.standard_error, tangent.standard_error[0]))
        assert 0 < error < 0.1
        assert abs(float(two.exponent - tangent.exponents[0])) < 4 * error
    exact = two_trajectory_exponent(Cat(), jnp.array([0.1, 0.2]), num_steps=20, transient=20)
    linear = two_trajectory_exponent(
        Linear(jnp.diag(jnp.array([1.0, 0.3]))), jnp.ones(2), num_steps=50, transient=50
    )
    np.testing.assert_allclose(linear.exponent, 0, atol=1e-6)
    assert np.isfinite(exact.exponent)


def test_field_holds_the_singular_values_of_the_product():
    states = jr.uniform(jr.key(0), (5, 2), minval=-0.3, maxval=0.3)
    field = finite_time_exponent_field(Henon(), states, num_steps=6, num_exponents=2, batch_size=2)
    for state, found in zip(states, field, strict=True):
        path = jnp.concatenate([state[None], lejax.unroll(Henon(), state, num_steps=5)])
        product = np.eye(2)
        for x in path:
            product = np.asarray(lejax.jacobian(Henon(), x)) @ product
        expected = np.log(np.linalg.svd(product)[1]) / 6
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def bistable(size):
    """h' = tanh(1.5 h + u), which has two responses to a weak input and one to a strong input."""
    weights = {"weight_hh": 1.5 * jnp.eye(size), "weight_ih": jnp.ones((size, 1))}
    return lejax.cells.RNNCell.from_weights(**weights)


def test_echo_index_counts_the_responses():
    states = jnp.array([[0.5], [-0.5], [0.9], [-0.9]])
    noise = jr.uniform(jr.key(1), (300, 1), minval=-1.0, maxval=1.0)
    weak = echo_state_index(bistable(1), states, 0.05 * noise, transient=200)
    assert int(weak.num_responses) == 2
    np.testing.assert_array_equal(weak.response_index, [0, 1, 0, 1])
    assert weak.exponents.max() < 0
    strong = echo_state_index(bistable(1), states, 3 * noise, transient=200)
    assert int(strong.num_responses) == 1
    assert strong.exponents.max() < 0


def test_diverged_runs_do_not_count_as_responses():
    def cell(input, x):  # tends to 0 if |x| < 1, and overflows if |x| > 1
        return x**3 + 0 * input

    states = jnp.array([0.5, 3.0, -0.2, 5.0])[:, None]
    echo = echo_state_index(cell, states, jnp.zeros((40, 1)), transient=20)
    assert int(echo.num_responses) == 1
    assert echo.response_index.tolist() == [0, -1, 0, -1]


def test_responses_in_a_chain_of_close_states_count_once():
    states = jnp.array([[0.0], [10.0], [0.0054], [0.0108]])
    echo = echo_state_index(lambda _, h: h, states, jnp.zeros((5, 1)), transient=2)
    assert echo.response_index.tolist() == [0, 1, 0, 0]


def test_responses_are_compared_relative_to_the_size_of_the_states():
    # The root mean square is 50, so states closer than 1e-3 (1 + 50) = 0.051 count as the same.
    for gap, count in ((0.05, 1), (0.052, 2)):
        states = 50 + jnp.array([[-gap / 2], [gap / 2]])
        echo = echo_state_index(lambda _, h: h, states, jnp.zeros((5, 1)), transient=2)
        assert int(echo.num_responses) == count


def test_two_trajectories_that_coincide_give_minus_infinity():
    run = two_trajectory_exponent(lambda _, x: 0 * x, jnp.ones(2), num_steps=20)
    assert np.isneginf(run.exponent)


def test_under_vmap_and_float32():
    starts = jnp.array([[0.1, 0.0], [0.0, 0.1]])
    batch = jax.vmap(lambda x: log_alignment_index(Henon(), x, num_steps=5))(starts)
    single = log_alignment_index(Henon(), starts[1], num_steps=5)
    np.testing.assert_allclose(batch[1], single, rtol=1e-10)
    two = jax.vmap(lambda x: two_trajectory_exponent(Henon(), x, num_steps=50).exponent)(starts)
    single = two_trajectory_exponent(Henon(), starts[0], num_steps=50).exponent
    np.testing.assert_allclose(two[0], single, rtol=1e-5)
    low = jax.tree.map(lambda x: x.astype(jnp.float32), Henon())
    run = two_trajectory_exponent(low, jnp.zeros(2, jnp.float32), num_steps=5000, transient=100)
    assert run.exponent.dtype == jnp.float32
    assert abs(float(run.exponent) - 0.4192) < 4 * float(run.standard_error) + 1e-2


def test_bad_input():
    with pytest.raises(ValueError, match="order is 3, but a state of 2 numbers has only 2"):
        log_alignment_index(Henon(), jnp.zeros(2), order=3, num_steps=5)
    with pytest.raises(ValueError, match="T of at least 100"):
        zero_one_test(jnp.ones(20))
    with pytest.raises(ValueError, match="an echo is the response to an input"):
        echo_state_index(Henon(), jnp.zeros((2, 2)), None, transient=3)
    with pytest.raises(ValueError, match="distance must be positive"):
        two_trajectory_exponent(Henon(), jnp.zeros(2), num_steps=5, distance=0.0)
    with pytest.raises(ValueError, match="num_exponents is 3"):
        finite_time_exponent_field(Henon(), jnp.zeros((2, 2)), num_steps=3, num_exponents=3)


def test_a_diverged_series_is_neither_regular_nor_chaotic():
    assert jnp.isnan(lejax.indicators.zero_one_test(jnp.full(100, jnp.nan), key=jr.key(0)))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 2, 0], [2, 0, 3, 1]])
def test_the_number_of_responses_does_not_depend_on_the_order_of_states(order):
    ends = 1e-3 * jnp.array([0.0, 0.8, 1.6, 2.4])[jnp.array(order)]
    echo = echo_state_index(lambda _, x: x, ends[:, None], jnp.zeros((6, 1)), transient=3)
    assert int(echo.num_responses) == 1
    np.testing.assert_array_equal(echo.response_index, 0)


def test_exponents_of_an_echo_are_per_unit_of_time_and_exclude_the_transient():
    flow = Flow(lambda u, x: -2 * x + u, dt=0.05)
    inputs = jr.normal(jr.key(0), (60, 1))
    echo = echo_state_index(flow, jnp.array([[1.0], [-1.0]]), inputs, transient=30)
    np.testing.assert_allclose(echo.exponents, -2, rtol=1e-4)

    def contract_by_input(u, x):
        return u * x

    rates = jnp.r_[jnp.full(20, 0.9), jnp.full(20, 0.5)][:, None]
    echo = echo_state_index(contract_by_input, jnp.ones((2, 1)), rates, transient=20)
    np.testing.assert_allclose(echo.exponents, np.log(0.5), rtol=1e-12)


def test_two_trajectories_start_from_their_rounded_distance():
    # At this state the nominal distance is a few units in the last place; the rounded distance doubles at each step.
    cell = Linear(jnp.diag(jnp.array([2.0])))
    run = two_trajectory_exponent(cell, jnp.array([3e8]), num_steps=40, distance=3e-15)
    np.testing.assert_allclose(run.exponent, np.log(2), rtol=1e-12)


def test_two_trajectories_in_bfloat16():
    cell = Linear(jnp.diag(jnp.array([0.5, 0.25], jnp.bfloat16)))
    run = two_trajectory_exponent(cell, jnp.ones(2, jnp.bfloat16), num_steps=40, transient=10)
    assert run.exponent.dtype == jnp.float32
    np.testing.assert_allclose(run.exponent, np.log(0.5), atol=0.02)


def test_a_negative_tolerance_of_an_echo_is_refused():
    with pytest.raises(ValueError, match="tolerance must not be negative"):
        echo_state_index(Henon(), jnp.zeros((2, 2)), jnp.zeros((5, 1)), transient=2, tolerance=-1.0)


def test_a_largest_exponent_is_printed_with_its_error():
    def run(a):
        henon = lejax.systems.Henon(a, 0.3)
        return lejax.indicators.two_trajectory_exponent(henon, jnp.zeros(2), num_steps=500)

    found = run(1.4)
    expected = f"largest exponent {found.exponent:.6g} +- {found.standard_error:.2g}"
    assert str(found) == expected
    batch = jax.vmap(run)(jnp.array([0.2, 1.4]))
    low, high = batch.exponent
    assert str(batch) == f"largest exponents {low:.6g} to {high:.6g}, batch shape (2,)"
    seen = []
    jax.jit(lambda a: seen.append(str(run(a))))(1.4)
    assert seen == ["LargestExponent(exponent=f64[], standard_error=f64[])"]
