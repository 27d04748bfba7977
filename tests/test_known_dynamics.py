"""Known dynamics of recurrent layers: numbers and claims of the literature, each computed again."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Tokens

import lejax
from lejax import SequentialQR
from lejax.cells import (
    ClosedLoop,
    DeltaProductCell,
    EchoStateCell,
    GatedLinearAttentionCell,
    LeakyRNNCell,
    S6Cell,
    Stack,
    hippo_legs,
)
from lejax.indicators import transient_growth
from lejax.systems import Flow, SkewRNN


EVERY = {"method": SequentialQR(every=1)}


def test_legs_is_too_far_from_normal_to_be_diagonalized():
    # Scaled by sqrt(2n + 1) the matrix has integer entries, and its eigenvectors are exact fractions.
    size = 32
    V, W = ([[Fraction(int(n == j)) for j in range(size)] for n in range(size)] for _ in range(2))
    for n in range(size):
        for j in range(n - 1, -1, -1):
            V[n][j] = -sum((2 * k + 1) * V[k][j] for k in range(j, n)) / Fraction(n - j)
        for j in range(n):
            W[n][j] = -sum(V[n][k] * W[k][j] for k in range(j, n))
    root = np.sqrt(2 * np.arange(size) + 1)
    vectors, inverse = np.array(V, float) * root[:, None], np.array(W, float) / root
    A = np.asarray(hippo_legs(size)[0])
    error = A @ vectors + vectors * np.arange(1, size + 1)
    assert np.abs(error).max() < 1e-13 * np.abs(vectors).max()
    length = np.linalg.norm(vectors, axis=0)
    condition = np.linalg.norm(vectors / length, 2) * np.linalg.norm(inverse * length[:, None], 2)
    np.testing.assert_allclose(condition, 1.22e23, rtol=5e-3)
    # In float64 an eigensolver underestimates this condition number.
    assert 1e17 < np.linalg.cond(np.linalg.eig(A)[1]) < 1e21


def closed_loop(seed):
    keys = jr.split(jr.key(seed), 3)
    cell = S6Cell(4, 3, key=keys[0])
    cell = eqx.tree_at(lambda c: c.bias_step, cell, jnp.linspace(0.1, 0.9, 4))
    loop = ClosedLoop(cell, eqx.nn.Linear(4, 4, key=keys[1]))
    state = jax.tree.map(lambda x: 0.5 * jr.normal(keys[2], x.shape), loop.initial_state())
    return loop, state


@pytest.mark.slow
def test_closed_loops_drawn_at_random_are_not_chaotic():
    loops, states = eqx.filter_vmap(closed_loop)(jnp.arange(8))
    axes = eqx.if_array(0)

    @eqx.filter_jit
    @eqx.filter_vmap(in_axes=(axes, axes))
    def largest(loop, state):
        run = lejax.lyapunov_spectrum(loop, state, num_exponents=1, num_steps=400, transient=400)
        return run.exponents[0]

    assert np.all(largest(loops, states) < 5 / 400)


def test_stack_whose_exponents_are_all_negative_grows_first():
    # The Jacobian is block-triangular: a deviation of the lower layer is amplified before it decays.
    def layer(key):
        cell = S6Cell(3, 2, key=key)
        # slow, with a large output
        return eqx.tree_at(lambda c: (c.weight_B, c.D), cell, (30 * cell.weight_B, 0 * cell.D))

    stack = Stack([layer(jr.key(0)), layer(jr.key(1))])
    inputs = jr.normal(jr.key(2), (200, 3))
    spectrum = lejax.lyapunov_spectrum(
        stack, stack.initial_state(), inputs, num_exponents=12, **EVERY
    )
    assert np.all(spectrum.exponents < 0)
    growth = transient_growth(stack, stack.initial_state(), inputs)
    assert growth.log_amplification > np.log(10)


@pytest.mark.slow
def test_rounding_does_not_grow_where_exponents_are_negative():
    inputs = jr.normal(jr.key(3), (600, 3), jnp.float32)

    def deviation(cell):
        low = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_array(x) else x, cell)
        # the same rounded weights in float32 arithmetic
        high = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_array(x) else x, low)
        bits = inputs.astype(jnp.bfloat16)
        runs = (
            lejax.unroll(low, low.initial_state(), bits),
            lejax.unroll(high, high.initial_state(), bits.astype(jnp.float32)),
        )
        one, other = (
            np.asarray(jax.vmap(c.output)(r), float) for c, r in zip((low, high), runs, strict=True)
        )
        return np.linalg.norm(one - other, axis=1) / np.sqrt(np.mean(np.sum(other**2, axis=1)))

    state_space = S6Cell(3, 2, key=jr.key(1))
    state_space = eqx.tree_at(lambda c: c.bias_step, state_space, jnp.linspace(0.1, 0.9, 3))
    still = deviation(state_space)
    assert still.max() < 0.1
    assert still[-100:].mean() < 2 * still[:100].mean()
    chaotic = EchoStateCell(3, 100, spectral_radius=2.0, input_scale=0.05, key=jr.key(2))
    grown = deviation(chaotic)
    assert grown[0] < 0.02
    assert grown[-100:].mean() > 0.5


def test_linear_attention_without_gates_forgets_nothing():
    cell = GatedLinearAttentionCell(3, 3, 2, key=jr.key(11))
    cell = eqx.tree_at(lambda c: c.bias_gate, cell, jnp.full_like(cell.bias_gate, 1e3))
    spectrum = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), jr.normal(jr.key(0), (50, 3)), num_exponents=6, **EVERY
    )
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-15)


def test_positive_eigenvalues_cannot_flip_a_sign_and_one_reflection_cannot_turn():
    inputs = jr.normal(jr.key(0), (100, 3))
    for beta_range, sign in ((1, {1}), (2, {-1, 1})):
        cell = DeltaProductCell(3, 2, 1, 1, beta_range, key=jr.key(1))
        transitions = np.asarray(jax.vmap(cell.transition)(inputs))
        assert set(np.sign(np.linalg.det(transitions))) == sign
        eigenvalues = np.linalg.eigvals(transitions)
        assert np.all(eigenvalues.imag == 0)
        assert eigenvalues.real.min() > (0 if beta_range == 1 else -1)
    # Two reflections whose axes are 60 degrees apart rotate by 120 degrees: a counter modulo 3.
    cell = DeltaProductCell.from_weights(
        weight_q=jnp.ones((2, 1)),
        weight_k=jnp.array([[[1.0], [0.0]], [[0.5], [np.sqrt(0.75)]]]),
        weight_v=jnp.ones((2, 1, 1)),
        weight_beta=jnp.zeros((2, 1)),
        bias_beta=jnp.full(2, 1e3),
        beta_range=2,
    )
    turn = np.asarray(cell.transition(jnp.ones(1)))
    np.testing.assert_allclose(np.linalg.matrix_power(turn, 3), np.eye(2), atol=1e-14)
    np.testing.assert_allclose(
        np.sort(np.angle(np.linalg.eigvals(turn))), [-2 * np.pi / 3, 2 * np.pi / 3], atol=1e-14
    )


def test_a_token_on_the_negative_side_diverges_slowly():
    # On the negative side x' = softplus(x) x^3 is about exp(x) x^3, so that |x| is about log t + 3 log log t.
    states = lejax.unroll(Flow(Tokens(1.0, 1.0), dt=0.5), jnp.array([-1.0]), num_steps=40_000)[:, 0]
    times = np.array([10_000, 40_000])
    x = -np.asarray(states)[times - 1]
    time = 0.5 * times
    # int exp(y) / y^3 dy is about exp(x) / x^3 (1 + 3 / x + 12/x^2...)
    y = np.linspace(1, x, 200_001)
    exact = np.sum(
        np.diff(y, axis=0)
        * 0.5
        * (1 / (np.log1p(np.exp(-y)) * y**3)[1:] + 1 / (np.log1p(np.exp(-y)) * y**3)[:-1]),
        axis=0,
    )
    np.testing.assert_allclose(exact, time, rtol=1e-4)
    assert x[1] - x[0] < 2 * np.log(4)


@pytest.mark.parametrize("coupling", [-2.0, -0.5])
def test_the_first_token_decays_at_the_rate_of_its_coupling(coupling):
    states = lejax.unroll(
        Flow(Tokens(coupling, 1.0), dt=1.0 / abs(coupling)), jnp.array([0.8]), num_steps=40_000
    )[:, 0]
    number = np.array([10_000, 40_000])
    scaled = np.asarray(states)[number - 1] * np.sqrt(number / abs(coupling))
    np.testing.assert_allclose(
        2 * scaled[1] - scaled[0], 1 / np.sqrt(2 * np.log(2) * abs(coupling)), rtol=2e-3
    )


@pytest.mark.slow
def test_skew_one_pair_moves_on_a_closed_curve():
    # V is conserved: with two units every orbit is closed, both exponents are 0, and a deviation grows as t.
    field = SkewRNN(2, key=jr.key(0))
    spectrum = lejax.lyapunov_spectrum(
        Flow(field, dt=0.05), jnp.array([1.0, 0.5]), num_steps=20_000
    )
    np.testing.assert_allclose(spectrum.exponents, 0, atol=2 * np.log(1000) / 1000)
    field = SkewRNN(4, key=jr.key(0))
    start = 0.05 * jr.normal(jr.key(1), (4,))
    spectrum = lejax.lyapunov_spectrum(Flow(field, dt=0.2), start, num_steps=10_000)
    np.testing.assert_allclose(spectrum.exponents, 0, atol=np.log(2000) / 2000)


@pytest.mark.slow
def test_driven_exponents_of_large_reservoirs():
    # Without input the exponent is log .8 = -.223 for every network. With inputs of strength 1 and 3 one network had
    # -.60 and -1.27 at a radius of .8, and -.31 and -.75 at 1.6; others differ by a few tenths.
    cells = [
        EchoStateCell(1, 100, spectral_radius=r, input_scale=1.2, key=jr.key(0)) for r in (0.8, 1.6)
    ]
    noise = jr.normal(jr.key(10), (900, 1))
    for cell, known in zip(cells, ([-0.223, -0.60, -1.27], [np.nan, -0.31, -0.75]), strict=True):
        largest = jax.vmap(
            lambda strength, cell=cell: lejax.lyapunov_spectrum(
                cell, jr.normal(jr.key(2), (100,)), strength * noise, num_exponents=1, transient=200
            ).exponents[0]
        )(jnp.array([0.0, 1.0, 3.0]))
        close = np.isnan(known) | (np.abs(largest - np.array(known)) < 0.4)
        assert np.all(close)
        assert np.all(np.diff(largest) < -0.1)
    assert largest[0] > 0  # chaotic without input; the input suppresses chaos


def test_linearization_of_the_step_is_the_step_of_the_linearization():
    cell = LeakyRNNCell(2, 5, dt=0.1, tau=2.0, key=jr.key(0))
    x, u = jr.normal(jr.key(1), (5,)), jr.normal(jr.key(2), (2,))
    continuous = jax.jacfwd(lambda x: cell.derivative(u, x))(x)
    np.testing.assert_allclose(lejax.jacobian(cell, x, u), np.eye(5) + 0.1 * continuous, atol=1e-15)


def test_a_linear_map_has_the_moduli_of_its_eigenvalues():
    A = 0.6 * jr.normal(jr.key(3), (5, 5)) / np.sqrt(5) + jnp.diag(
        jnp.array([0.9, 0.6, 0.3, 0.1, -0.5])
    )
    exact = np.sort(np.log(np.abs(np.linalg.eigvals(A))))[::-1]
    s = lejax.lyapunov_spectrum(lambda u, x: A @ x, jnp.zeros(5), num_steps=2000, transient=500)
    np.testing.assert_allclose(s.exponents.sum(), exact.sum(), rtol=1e-11)
    np.testing.assert_allclose(s.exponents, exact, atol=3 / 2000)
