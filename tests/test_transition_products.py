"""Determinants, phases and transient growth of products of Jacobians; power laws and blow-up."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear, Tokens, driven_gru
from scipy.linalg import expm

import lejax
from lejax import RESULTS
from lejax.indicators import transient_growth, transition_product
from lejax.systems import Flow, Henon


class Turning(eqx.Module):
    """h' = A_u h, where the input u selects one of several matrices."""

    matrices: jax.Array

    def __call__(self, input, state):
        return self.matrices[input] @ state


def products_of(matrices):
    out = [np.eye(matrices.shape[-1])]
    for matrix in np.asarray(matrices):
        out.append(matrix @ out[-1])
    return np.array(out[1:])


def test_product_agrees_with_the_dense_jacobians():
    cell, state, inputs = driven_gru(size=4, num_steps=12)
    states = jnp.concatenate([state[None], lejax.unroll(cell, state, inputs[:-1])])
    exact = products_of(jax.vmap(lambda h, u: lejax.jacobian(cell, h, u))(states, inputs))
    product = transition_product(cell, state, inputs)
    signs, logs = np.linalg.slogdet(exact)
    np.testing.assert_array_equal(product.determinant_sign, signs)
    np.testing.assert_allclose(product.log_determinant, logs, rtol=1e-10)
    values = np.linalg.eigvals(exact[-1])
    order = np.argsort(-np.abs(values), kind="stable")
    np.testing.assert_allclose(product.log_moduli, np.log(np.abs(values[order])), rtol=1e-8)
    np.testing.assert_allclose(np.cos(product.phases), np.cos(np.angle(values[order])), atol=1e-8)
    # The sum of exponents gives the same volume.
    spectrum = lejax.lyapunov_spectrum(cell, state, inputs)
    np.testing.assert_allclose(spectrum.exponents.sum(), logs[-1] / 12, rtol=1e-10)
    growth = transient_growth(cell, state, inputs)
    largest = np.linalg.norm(exact, 2, axis=(1, 2))
    np.testing.assert_allclose(growth.curve, np.log(largest), rtol=1e-9)
    np.testing.assert_allclose(growth.log_amplification, max(0, np.log(largest).max()), rtol=1e-9)


def test_products_distinguish_reflections_from_rotations():
    third = 2 * np.pi / 3
    turn = np.array([[np.cos(third), -np.sin(third)], [np.sin(third), np.cos(third)]])
    cell = Turning(jnp.stack([jnp.eye(2), jnp.diag(jnp.array([1.0, -1.0])), jnp.asarray(turn)]))
    bits = jr.bernoulli(jr.key(0), 0.5, (40,)).astype(int)
    parity = transition_product(cell, jnp.ones(2), bits)
    np.testing.assert_array_equal(parity.determinant_sign, (-1) ** np.cumsum(bits))
    np.testing.assert_allclose(parity.log_moduli, 0, atol=1e-12)
    for inputs in (bits, jnp.full(40, 2)):
        exponents = lejax.lyapunov_spectrum(cell, jnp.ones(2), inputs).exponents
        np.testing.assert_allclose(exponents, 0, atol=1e-12)
    for count in (2, 3, 4):
        product = transition_product(cell, jnp.ones(2), jnp.where(jnp.arange(40) < count, 2, 0))
        np.testing.assert_array_equal(product.determinant_sign, 1)
        expected = abs((count * third + np.pi) % (2 * np.pi) - np.pi)
        np.testing.assert_allclose(np.sort(product.phases), [-expected, expected], atol=1e-12)


def test_long_products_do_not_overflow_and_unresolved_eigenvalues_are_nan():
    rates = np.array([2.0, 1.0, -40.0])
    product = transition_product(
        Linear(jnp.diag(jnp.exp(rates) * jnp.array([-1.0, 1.0, 1.0]))), jnp.zeros(3), num_steps=901
    )
    np.testing.assert_allclose(product.log_determinant[-1], 901 * rates.sum(), rtol=1e-12)
    assert product.determinant_sign[-1] == -1
    np.testing.assert_allclose(product.log_moduli[0], 901 * 2.0, rtol=1e-12)
    np.testing.assert_allclose(product.phases[0], np.pi)
    assert np.isnan(product.log_moduli[1:]).all()
    assert np.isnan(product.phases[1:]).all()
    growth = transient_growth(Linear(jnp.diag(jnp.exp(rates))), jnp.zeros(3), num_steps=901)
    np.testing.assert_allclose(growth.log_amplification, 901 * 2.0, rtol=1e-12)
    assert int(growth.num_steps) == 901


def test_singular_and_diverging_runs():
    singular = Turning(jnp.stack([jnp.eye(2), jnp.diag(jnp.array([1.0, 0.0]))]))
    inputs = jnp.array([0, 1, 0])
    product = transition_product(singular, jnp.ones(2), inputs)
    np.testing.assert_array_equal(product.determinant_sign, [1, 0, 0])
    np.testing.assert_array_equal(product.log_determinant, [0, -np.inf, -np.inf])
    np.testing.assert_array_equal(product.log_moduli, [0, np.nan])
    zero = transient_growth(Linear(jnp.zeros((2, 2))), jnp.ones(2), num_steps=3)
    assert zero.log_amplification == 0
    assert int(zero.num_steps) == 0
    np.testing.assert_array_equal(zero.curve, -np.inf)
    diverged = transition_product(Henon(), 3 * jnp.ones(2), num_steps=30)
    assert np.isfinite(diverged.log_determinant[0])
    assert np.isnan(diverged.determinant_sign[-1])
    assert np.isnan(diverged.phases).all()
    assert np.isnan(transient_growth(Henon(), 3 * jnp.ones(2), num_steps=30).log_amplification)


def legs(size):
    """The HiPPO-LegS matrix, which is far from normal and has the eigenvalues -1 .. -size."""
    n = np.arange(size)
    below = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1))
    return np.tril(below, -1) - np.diag(n + 1.0)


def test_a_stable_non_normal_system_grows_at_first():
    step = expm(0.1 * (6 * np.eye(8, k=1) - np.eye(8)))
    growth = transient_growth(Linear(jnp.asarray(step)), jnp.zeros(8), num_steps=300)
    largest = np.linalg.norm(products_of(np.broadcast_to(step, (300, 8, 8))), 2, axis=(1, 2))
    np.testing.assert_allclose(growth.curve, np.log(largest), atol=1e-9)
    assert int(growth.num_steps) == np.argmax(largest) + 1
    np.testing.assert_allclose(growth.log_amplification, np.log(largest.max()), rtol=1e-12)
    assert growth.log_amplification > np.log(1000)
    product = transition_product(Linear(jnp.asarray(step)), jnp.zeros(8), num_steps=1)
    np.testing.assert_allclose(product.log_determinant, -0.8, rtol=1e-12)


def test_a_stable_non_normal_system_need_not_grow():
    # Since A + A^T = -1 - v v^T, the norm falls faster than exp(-t / 2) from the start.
    step = expm(0.02 * legs(8))
    growth = transient_growth(Linear(jnp.asarray(step)), jnp.zeros(8), num_steps=300)
    assert growth.log_amplification == 0
    assert np.all(growth.curve <= -0.01 * np.arange(1, 301) + 1e-12)


def test_float32():
    cell, state, inputs = driven_gru(size=4, num_steps=12)
    low = jax.tree.map(lambda x: x.astype(jnp.float32), (cell, state, inputs))
    product, growth = transition_product(*low), transient_growth(*low)
    for leaf in (*jax.tree.leaves(product), growth.log_amplification, growth.curve):
        assert leaf.dtype == jnp.float32
    np.testing.assert_allclose(growth.curve, transient_growth(cell, state, inputs).curve, atol=1e-5)
    flip = lambda input, state: state * jnp.array([1.0, -1.0], state.dtype)
    flipped = transition_product(flip, jnp.ones(2, jnp.float32), num_steps=3)
    np.testing.assert_allclose(np.sort(flipped.phases), [0, np.pi], atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="num_steps is required when inputs is None"):
        transition_product(Henon(), jnp.zeros(2))
    with pytest.raises(TypeError, match="state has dtype int64"):
        transient_growth(Henon(), jnp.zeros(2, int), num_steps=3)
    with pytest.raises(TypeError, match="VanDerPol is a vector field, not a cell"):
        transient_growth(lejax.systems.VanDerPol(), jnp.zeros(2), num_steps=3)


def test_an_attracting_power_law_has_exponents_of_zero():
    flow, start = Flow(Tokens(-1.0, 1.0), dt=1.0), jnp.array([0.8, 0.5])
    states = lejax.unroll(flow, start, num_steps=40_000)
    time = np.array([10_000, 40_000])
    scaled = np.asarray(states)[time - 1] * np.sqrt(time)[:, None]
    # Corrections fall as t^(-1/2), so half of them remains after four times the time.
    limit = 2 * scaled[1] - scaled[0]
    np.testing.assert_allclose(limit, [1 / np.sqrt(2 * np.log(2)), 0.6005], atol=2e-3)
    spectrum = lejax.lyapunov_spectrum(flow, start, num_steps=40_000)
    assert spectrum.result == RESULTS.successful
    # A deviation falls as t^(-3/2), so the exponent is -3/2 log T / T, which tends to zero.
    assert np.all(spectrum.exponents < 0)
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-3)
    np.testing.assert_allclose(spectrum.exponents[1] * 40_000 / np.log(40_000), -1.5, rtol=0.25)


def test_a_run_that_blows_up_reports_the_step():
    flow, start = Flow(Tokens(1.0, 1.0), dt=0.001), jnp.array([1.0, 0.5])
    # A quadrature over y = 1 / x gives the time at which x' = softplus(x) x^3 reaches infinity from x = 1.
    y = (np.arange(100_000) + 0.5) / 100_000
    time = np.mean(y / np.logaddexp(0, 1 / y))
    spectrum = lejax.lyapunov_spectrum(flow, start, num_steps=2000, throw=False)
    assert spectrum.result == RESULTS.nonfinite
    assert 0 <= int(spectrum.diagnostics.first_bad_step) * 0.001 - time < 0.02
    with pytest.raises(
        RuntimeError, match=f"happened at step {int(spectrum.diagnostics.first_bad_step)}"
    ):
        lejax.lyapunov_spectrum(flow, start, num_steps=2000)


def test_eigenvalues_of_a_matrix_far_from_normal_are_right_or_missing():
    basis = np.linalg.qr(np.asarray(jr.normal(jr.key(0), (24, 24))))[0]
    matrix = basis @ expm(0.1 * legs(24)) @ basis.T
    product = transition_product(Linear(jnp.asarray(matrix)), jnp.zeros(24), num_steps=1)
    resolved = ~np.isnan(product.log_moduli)
    assert 3 < resolved.sum() < 24
    exact = -0.1 * np.arange(1, 25)
    np.testing.assert_allclose(product.log_moduli[resolved], exact[resolved], atol=0.05)
    np.testing.assert_allclose(product.phases[resolved], 0, atol=0.05)


def test_the_accuracy_of_an_eigenvalue_depends_on_its_own_direction():
    # Two eigenvectors are almost parallel, so their eigenvalues have the condition number 2e6; the third eigenvector is
    # orthogonal to both, and its eigenvalue has the condition number 1.
    basis = np.linalg.qr(np.asarray(jr.normal(jr.key(0), (3, 3))))[0]
    matrix = basis @ np.array([[1.0, 1e6, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1e-4]]) @ basis.T
    product = transition_product(Linear(jnp.asarray(matrix)), jnp.zeros(3), num_steps=1)
    np.testing.assert_allclose(product.log_moduli, np.log([1, 0.5, 1e-4]), atol=0.02)


def test_a_step_that_does_not_depend_on_its_state_is_refused():
    class Constant(lejax.BlockTriangularCell):
        def __call__(self, input, state):
            return jnp.zeros_like(state)

        def blocks(self, input, state):
            return jnp.zeros_like(state), (lejax.ForgottenBlock(state.size),)

    assert np.isneginf(
        lejax.lyapunov_spectrum(Constant(), jnp.ones(2), num_steps=3).exponents
    ).all()
    with pytest.raises(ValueError, match="reads none of the 2 numbers"):
        transition_product(Constant(), jnp.ones(2), num_steps=3)


class Word(eqx.Module):
    """An integer matrix or, for a negative input, its inverse: exact as long as floats hold the integers."""

    def __call__(self, input, state):
        forth = jnp.array([[3.0, 1.0], [2.0, 1.0]], state.dtype)
        back = jnp.array([[1.0, -1.0], [-2.0, 3.0]], state.dtype)
        return jnp.where(input > 0, forth, back) @ state


def test_products_that_grow_and_shrink_again_are_right_or_missing():
    for count in (3, 9, 14, 29):
        word = jnp.asarray(np.r_[np.ones(count), -np.ones(count)])
        product = transition_product(Word(), jnp.zeros(2), word)
        growth = transient_growth(Word(), jnp.zeros(2), word)
        for moduli in np.asarray(product.log_moduli):
            assert np.isnan(moduli) or abs(moduli) < 0.2
        assert np.isnan(growth.curve[-1]) or abs(growth.curve[-1]) < 0.2
        if count < 6:
            assert abs(growth.curve[-1]) < 1e-6
        if count > 20:
            assert np.isnan(growth.curve[-1])
            assert np.isnan(product.log_moduli).all()
        assert product.determinant_sign[-1] == 1
        # The maximum of the curve is resolved for every count.
        np.testing.assert_allclose(np.nanmax(growth.curve), growth.curve[count - 1])


def test_long_products_of_rotations_are_resolved():
    turns = jr.orthogonal(jr.key(2), 5, (400,))
    product = transition_product(Turning(turns), jnp.zeros(5), jnp.arange(400))
    np.testing.assert_allclose(product.log_moduli, 0, atol=1e-11)
    growth = transient_growth(Turning(turns), jnp.zeros(5), jnp.arange(400))
    np.testing.assert_allclose(growth.curve, 0, atol=1e-11)


@pytest.mark.parametrize("size", [2, 5, 20])
def test_a_step_that_is_singular_within_rounding_has_the_sign_zero(size):
    normal = jr.normal(jr.key(size), (size,))
    normal = normal / jnp.linalg.norm(normal)
    projection = jnp.eye(size) - jnp.outer(normal, normal)
    reflection = projection - jnp.outer(normal, normal)
    cell = Turning(jnp.stack([reflection, projection]))
    product = transition_product(cell, jnp.zeros(size), jnp.array([0, 0, 1, 0]))
    np.testing.assert_array_equal(product.determinant_sign, [-1, 1, 0, 0])
    np.testing.assert_array_equal(product.log_determinant[2:], -np.inf)
    # A change of units does not change the result.
    units = 10.0 ** jnp.linspace(-3, 3, size)
    scaled = Turning(cell.matrices * units[:, None] / units)
    product = transition_product(scaled, jnp.zeros(size), jnp.array([0, 0, 1, 0]))
    np.testing.assert_array_equal(product.determinant_sign, [-1, 1, 0, 0])


class Rows(lejax.BlockTriangularCell):
    """Copies of a state as rows: the Jacobian is I x A (Kronecker); a block with multiplicity stands for A x I."""

    A: jax.Array
    rates: jax.Array

    def __call__(self, input, state):
        rows, decay = state
        return rows @ self.A.T, self.rates * decay

    def blocks(self, input, state):
        blocks = (
            lejax.DenseBlock(lambda c: self.A @ c, 2, 3),
            lejax.DiagonalBlock.of_entries(self.rates),
        )
        return self(input, state), blocks


def test_copies_of_a_block_may_come_in_any_order():
    A, rates = jnp.array([[0.8, 3.0], [0.2, 0.4]]), jnp.array([-0.5, 0.25])
    cell, state = Rows(A, rates), (jnp.ones((3, 2)), jnp.ones(2))
    product = transition_product(cell, state, num_steps=3)
    values = np.concatenate([np.linalg.eigvals(np.asarray(A)), np.asarray(rates)])
    np.testing.assert_array_equal(product.determinant_sign, np.sign(np.prod(values)) ** [1, 2, 3])
    expected = 3 * np.log(np.sort(np.abs(values))[::-1])
    np.testing.assert_allclose(product.log_moduli, expected, rtol=1e-10)
    # If the diagonal of the Jacobian differs from the declared block, the result is NaN.
    swapped = Rows(A, jnp.array([0.5, 0.25]))

    class Wrong(lejax.BlockTriangularCell):
        right: Rows

        def __call__(self, input, state):
            rows, decay = state
            return rows @ self.right.A.T, 0.1 * self.right.rates * decay

        def blocks(self, input, state):
            return self(input, state), self.right.blocks(input, state)[1]

    inconsistent = transition_product(Wrong(swapped), state, num_steps=3)
    assert np.isnan(inconsistent.log_moduli).all()


@pytest.mark.parametrize("size", [130, 420])
def test_large_regular_steps_have_a_determinant_in_float32(size):
    weights = np.random.default_rng(size).normal(size=(size, size)) / size**0.5
    for matrix in (weights, 0.5 * np.eye(size)):
        step = jnp.asarray(matrix, jnp.float32)
        product = transition_product(
            Turning(step[None]), jnp.zeros(size, jnp.float32), jnp.array([0])
        )
        sign, log = np.linalg.slogdet(np.asarray(step, float))
        assert product.determinant_sign[0] == sign
        assert np.isclose(product.log_determinant[0], log, rtol=1e-4)
