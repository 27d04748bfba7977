"""HiPPO-LegS and the discretizations of a linear equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _plain_cells import WithoutBlocks
from networks import per_step
from scipy.signal import cont2discrete

import lejax
from lejax import SequentialQR
from lejax.cells import (
    Bilinear,
    Euler,
    ExponentialEuler,
    HippoCell,
    ZeroOrderHold,
    diagonal_legs,
    hippo_legs,
)


DISCRETIZATIONS = [ZeroOrderHold(), ExponentialEuler(), Bilinear(), Euler()]
NAMES = [type(d).__name__ for d in DISCRETIZATIONS]


def test_discretizations_against_the_equation():
    # The exact solution of x' = A x + u from x = 0, where the input is constant over the step.
    rates, dt = jnp.array([-1.0, -3.0, 0.0]), 0.2
    exact = np.array([(1 - np.exp(-0.2)), (1 - np.exp(-0.6)) / 3, 0.2])
    errors = {}
    for discretization in DISCRETIZATIONS:
        decay, gain = discretization.diagonal(rates, dt)
        matrix, dense_gain = discretization.dense(jnp.diag(rates), jnp.ones(3), dt)
        np.testing.assert_allclose(np.diag(matrix), decay, rtol=1e-13)
        np.testing.assert_allclose(dense_gain, gain * jnp.ones(3), rtol=1e-13)
        errors[type(discretization)] = np.abs(gain - exact).max()
    assert errors[ZeroOrderHold] < 1e-15
    assert errors[Bilinear] < errors[Euler]
    for rate in (0.0, 1e-9):
        gradient = jax.grad(lambda z: ZeroOrderHold().diagonal(z, dt)[1])(jnp.array(rate))
        np.testing.assert_allclose(gradient, dt**2 / 2, rtol=1e-6)
    # The bilinear rule keeps a stiff mode at modulus 1; with Euler's rule it diverges.
    stiff = jnp.array(-1e8)
    assert abs(np.log(abs(Bilinear().diagonal(stiff, 0.1)[0]))) < 1e-6
    assert np.log(abs(Euler().diagonal(stiff, 0.1)[0])) > 10


def test_legs_matrices_and_their_eigenvalues():
    A, B = hippo_legs(6)
    for n in range(6):
        for k in range(6):
            entry = -np.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1.0) if n == k else 0
            np.testing.assert_allclose(A[n, k], entry, rtol=1e-15)
    np.testing.assert_allclose(B, np.sqrt(2 * np.arange(6) + 1), rtol=1e-15)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(A).real), np.arange(-6.0, 0), rtol=1e-9)
    rates = diagonal_legs(6)
    np.testing.assert_array_equal(rates[:, 0], -0.5)
    assert np.all(np.diff(rates[:, 1]) > 0)
    assert rates[0, 1] > 0
    A, B = hippo_legs(12)
    p = np.sqrt(np.arange(12) + 0.5)
    eigenvalues = np.linalg.eigvals(A + np.outer(p, p))
    both = np.concatenate([-rates[::-1, 1], rates[:, 1]])
    np.testing.assert_allclose(eigenvalues.real, -0.5, atol=1e-10)
    np.testing.assert_allclose(np.sort(eigenvalues.imag), both, atol=1e-9)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS, ids=NAMES)
def test_exponents_of_the_hippo_cell(discretization):
    cell = HippoCell(5, discretization, dt=0.1)
    exact = per_step(discretization, -np.arange(1.0, 6), 0.1) / 0.1
    inputs = jnp.sin(0.1 * jnp.arange(300.0))[:, None]
    spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs)
    assert float(spectrum.dt) == 0.1
    np.testing.assert_allclose(spectrum.exponents, exact, rtol=1e-12)
    # A lower triangular matrix maps the spans of the last coordinates into themselves, so this frame is aligned.
    flag = jnp.eye(5)[:, ::-1]
    dense = lejax.lyapunov_spectrum(
        WithoutBlocks(cell),
        cell.initial_state(),
        inputs,
        dt=0.1,
        frame=flag,
        method=SequentialQR(every=1),
    )
    np.testing.assert_allclose(dense.exponents, exact[::-1], rtol=1e-10)


def test_legs_contracts_more_slowly_than_its_exponents():
    # The symmetric part is -1/2 - p p^T: norms never grow, but in 15 directions they first decay only as exp(-t / 2).
    A, _ = hippo_legs(16)
    p = np.sqrt(np.arange(16) + 0.5)
    np.testing.assert_allclose((A + A.T) / 2, -0.5 * np.eye(16) - np.outer(p, p), atol=1e-12)
    transition = HippoCell(16, dt=0.01).transition
    norms = np.array([np.linalg.norm(np.linalg.matrix_power(transition, n), 2) for n in (1, 9, 99)])
    times = 0.01 * np.array([1, 9, 99])
    assert np.all(norms <= np.exp(-times / 2) + 1e-12)
    assert np.all(norms > np.exp(-times))


def test_hippo_state_holds_the_legendre_coefficients_of_the_past():
    # Only the first Legendre coefficient of a constant signal is not 0.
    cell = HippoCell(4, dt=0.05)
    state = lejax.unroll(cell, cell.initial_state(), jnp.ones((1000, 1)))[-1]
    np.testing.assert_allclose(state, [1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("discretization", "method"),
    [(ZeroOrderHold(), "zoh"), (Bilinear(), "bilinear"), (Euler(), "euler")],
    ids=["zoh", "bilinear", "euler"],
)
def test_matrices_against_scipy(discretization, method):
    A, B = (np.asarray(x) for x in hippo_legs(8))
    eye, zeros = np.eye(8), np.zeros((8, 1))
    transition, gain, *_ = cont2discrete((A, B[:, None], eye, zeros), 0.1, method)
    cell = HippoCell(8, discretization, dt=0.1)
    np.testing.assert_allclose(cell.transition, transition, atol=1e-14)
    np.testing.assert_allclose(cell.gain, gain, atol=1e-14)
    exponential = HippoCell(8, ExponentialEuler(), dt=0.1)
    exact = cont2discrete((A, B[:, None], eye, zeros), 0.1, "zoh")[0]
    np.testing.assert_allclose(exponential.transition, exact, atol=1e-14)
    np.testing.assert_allclose(exponential.gain[:, 0], 0.1 * B, rtol=1e-15)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS, ids=NAMES)
def test_logarithms_of_moduli(discretization):
    rates = jnp.array([-1.0, -0.3 + 2.0j, -7.0 + 0.5j, -19.9999999, -9.9999999])
    expected = per_step(discretization, np.asarray(rates), 0.1)
    np.testing.assert_allclose(discretization.log_moduli(rates, 0.1), expected, rtol=1e-6)
    slow = discretization.log_moduli(jnp.array([-1e-9], jnp.float32), 1.0)
    np.testing.assert_allclose(slow, -1e-9, rtol=1e-6)  # the modulus itself is 1 in float32
    # Where the modulus is 0, the logarithm is -inf and its derivative is finite.
    zero = {Bilinear: -2.0, Euler: -1.0}.get(type(discretization))
    if zero is not None:
        value, slope = jax.value_and_grad(discretization.log_moduli)(jnp.array(zero), 1.0)
        assert np.isneginf(value)
        assert np.isfinite(slope)


@pytest.mark.parametrize(("size", "dt"), [(32, 2.0), (64, 1.0)])
def test_fast_modes_are_resolved_next_to_slow_ones(size, dt):
    cell = HippoCell(size, dt=dt)
    spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), jnp.ones((3, 1)))
    np.testing.assert_allclose(spectrum.exponents, -np.arange(1.0, size + 1), rtol=1e-13)
    with pytest.raises(ValueError, match=r"316 of the 1024 modes decay below the smallest float64"):
        HippoCell(1024, dt=1.0)


def test_low_precision_and_bad_types():
    low, high = HippoCell(6, dtype=jnp.bfloat16, dt=0.1), HippoCell(6, dt=0.1)
    assert low.transition.dtype == low.gain.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.transition.astype(float), high.transition, atol=0.01)
    with pytest.raises(
        TypeError, match=r"dtype must be a real floating-point dtype .* got <class 'int'>"
    ):
        HippoCell(3, dtype=int, dt=0.1)
    traced = jax.jit(lambda state: HippoCell(6, dt=0.1)(jnp.ones(1), state))(jnp.ones(6))
    np.testing.assert_allclose(traced, high(jnp.ones(1), jnp.ones(6)), rtol=1e-12)
    with pytest.raises(TypeError, match="dt must be a number, not a traced array"):
        jax.jit(lambda dt: HippoCell(3, dt=dt).transition)(0.1)
