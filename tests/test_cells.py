"""Cells against their equations and against Equinox; wrappers; systems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.cells import (
    ClosedLoop,
    EchoStateCell,
    GRUCell,
    LeakyRNNCell,
    LowRankRNNCell,
    LSTMCell,
    RNNCell,
    Stack,
)
from lejax.systems import Flow, Lorenz63


INPUT = jr.normal(jr.key(5), (3,))
HIDDEN = jr.normal(jr.key(6), (4,))


def test_rnn_cell():
    for activation in (jnp.tanh, jax.nn.relu):
        cell = RNNCell(3, 4, activation=activation, key=jr.key(0))
        expected = activation(cell.weight_ih @ INPUT + cell.weight_hh @ HIDDEN + cell.bias)
        np.testing.assert_allclose(cell(INPUT, HIDDEN), expected, atol=1e-15)


def test_leaky_cell_is_an_euler_step():
    cell = LeakyRNNCell(3, 4, use_bias=True, dt=0.1, tau=2.0, gain=1.5, key=jr.key(0))
    drive = cell.weight_hh @ jnp.tanh(HIDDEN) + cell.weight_ih @ INPUT + cell.bias
    np.testing.assert_allclose(cell(INPUT, HIDDEN), HIDDEN + 0.05 * (drive - HIDDEN), atol=1e-15)
    np.testing.assert_allclose(cell.derivative(INPUT, HIDDEN), (drive - HIDDEN) / 2, atol=1e-15)
    wide = LeakyRNNCell(0, 400, dt=0.1, gain=1.5, key=jr.key(1))
    np.testing.assert_allclose(jnp.std(wide.weight_hh) * 20, 1.5, rtol=0.01)


def test_gru_is_equinox_with_reset_after():
    cell = GRUCell(3, 4, key=jr.key(0))
    other = eqx.nn.GRUCell(3, 4, key=jr.key(1))
    where = lambda c: (c.weight_ih, c.weight_hh, c.bias, c.bias_n)
    other = eqx.tree_at(where, other, where(cell))
    np.testing.assert_allclose(cell(INPUT, HIDDEN), other(INPUT, HIDDEN), atol=1e-15)


def test_gru_with_reset_before():
    cell = GRUCell(3, 4, reset_after=False, key=jr.key(0))
    assert cell.bias_n is None
    w, u, b = (jnp.split(x, 3) for x in (cell.weight_ih, cell.weight_hh, cell.bias))
    reset, update = (jax.nn.sigmoid(w[i] @ INPUT + u[i] @ HIDDEN + b[i]) for i in (0, 1))
    new = jnp.tanh(w[2] @ INPUT + u[2] @ (reset * HIDDEN) + b[2])
    np.testing.assert_allclose(
        cell(INPUT, HIDDEN), (1 - update) * new + update * HIDDEN, atol=1e-15
    )


def test_lstm_is_equinox():
    cell = LSTMCell(3, 4, key=jr.key(0))
    where = lambda c: (c.weight_ih, c.weight_hh, c.bias)
    other = eqx.tree_at(where, eqx.nn.LSTMCell(3, 4, key=jr.key(1)), where(cell))
    state = (HIDDEN, 2 * HIDDEN)
    for mine, theirs in zip(cell(INPUT, state), other(INPUT, state), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-15)


@pytest.mark.parametrize(
    "make",
    [
        lambda size: RNNCell(size, 4, key=jr.key(0)),
        lambda size: GRUCell(size, 4, use_bias=False, key=jr.key(0)),
        lambda size: GRUCell(size, 4, reset_after=False, key=jr.key(0)),
        lambda size: LSTMCell(size, 4, use_bias=False, key=jr.key(0)),
        lambda size: LeakyRNNCell(size, 4, dt=0.1, key=jr.key(0)),
        lambda size: EchoStateCell(size, 4, leak=0.5, key=jr.key(0)),
        lambda size: LowRankRNNCell(size, 4, 2, dt=0.1, key=jr.key(0)),
    ],
)
def test_every_cell_has_a_zero_state_and_runs_driven_or_alone(make):
    driven, alone = make(3), make(0)
    for leaf in jax.tree_util.tree_leaves(driven.initial_state()):
        assert leaf.shape == (4,)
        assert np.all(leaf == 0)
    inputs = jr.normal(jr.key(1), (10, 3))
    lejax.lyapunov_spectrum(driven, driven.initial_state(), inputs)
    lejax.lyapunov_spectrum(alone, alone.initial_state(), num_steps=10)


def test_stack_feeds_outputs_upwards():
    keys = jr.split(jr.key(0), 3)
    layers = [
        LSTMCell(3, 4, key=keys[0]),
        eqx.nn.LSTMCell(4, 5, key=keys[1]),
        eqx.nn.GRUCell(5, 2, key=keys[2]),
    ]
    stack = Stack(layers)
    state = stack.initial_state()
    new = stack(INPUT, state)
    first = layers[0](INPUT, state[0])
    second = layers[1](first[0], state[1])
    third = layers[2](second[0], state[2])
    jax.tree_util.tree_map(np.testing.assert_array_equal, new, (first, second, third))
    np.testing.assert_array_equal(stack.output(new), third)
    nested = Stack([Stack(layers[:2]), layers[2]])
    np.testing.assert_array_equal(nested(INPUT, nested.initial_state())[1], third)


def test_closed_loop_feeds_its_readout_back():
    key1, key2 = jr.split(jr.key(0))
    cell, readout = LSTMCell(3, 4, key=key1), eqx.nn.Linear(4, 3, key=key2)
    loop = ClosedLoop(cell, readout)
    state = (HIDDEN, HIDDEN)
    expected = cell(readout(HIDDEN), state)
    jax.tree_util.tree_map(np.testing.assert_array_equal, loop(None, state), expected)
    np.testing.assert_array_equal(loop.output(state), readout(HIDDEN))
    # Its Jacobian has the path through the readout.
    open_loop = lejax.jacobian(cell, state, readout(HIDDEN))
    assert np.abs(lejax.jacobian(loop, state) - open_loop).max() > 1e-3
    timed = ClosedLoop(LeakyRNNCell(3, 4, dt=0.1, key=key1), readout)
    spectrum = lejax.lyapunov_spectrum(timed, jnp.zeros(4), num_steps=10)
    assert float(spectrum.dt) == 0.1


def test_cells_without_a_zero_state_say_so():
    class Mine(eqx.Module):
        def __call__(self, input, state):
            return state

    with pytest.raises(TypeError, match="Mine does not say its initial state"):
        Stack([Mine()]).initial_state()


def test_flow_has_order_four():
    def end(substeps):
        return lejax.unroll(Flow(Lorenz63(), dt=0.2, substeps=substeps), jnp.ones(3), num_steps=1)[
            0
        ]

    exact = end(512)
    errors = [np.abs(end(n) - exact).max() for n in (8, 16, 32)]
    assert 12 < errors[0] / errors[1] < 20
    assert 12 < errors[1] / errors[2] < 20


def test_flow_on_a_pytree_in_mixed_precision():
    def field(input, state):
        return {"x": -state["x"], "y": input * jnp.ones_like(state["y"])}

    start = {"x": jnp.ones(2), "y": jnp.zeros(1, jnp.float32)}
    new = Flow(field, dt=0.1, substeps=3)(jnp.float32(2.0), start)
    np.testing.assert_allclose(new["x"], np.exp(-0.1), rtol=1e-7)
    np.testing.assert_allclose(new["y"], 0.2, rtol=1e-6)
    assert new["y"].dtype == jnp.float32
    spectrum = lejax.lyapunov_spectrum(
        Flow(field, dt=0.1), start, jnp.ones(350, jnp.float32), transient=300
    )
    np.testing.assert_allclose(spectrum.exponents, [0, -1, -1], atol=1e-5)


def test_time_step_may_be_a_leaf():
    def largest(dt):
        flow = Flow(Lorenz63(), dt=dt)
        return lejax.lyapunov_spectrum(flow, jnp.ones(3), num_steps=20).exponents[0]

    difference = (largest(jnp.array(0.01 + 1e-6)) - largest(jnp.array(0.01 - 1e-6))) / 2e-6
    np.testing.assert_allclose(jax.grad(largest)(jnp.array(0.01)), difference, rtol=1e-5)
    assert jax.vmap(largest)(jnp.array([0.01, 0.02])).shape == (2,)
