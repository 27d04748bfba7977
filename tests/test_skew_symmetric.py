"""The skew-symmetric network: its conserved energy and symplectic form, and their effect on exponents."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import lejax
from lejax.systems import Flow, SkewRNN


FIELD = SkewRNN(10, key=jr.key(0))
START = 0.5 * jr.normal(jr.key(1), (10,))


class Euler(eqx.Module):
    """x' = x + dt f(x)."""

    field: SkewRNN
    dt: float

    def __call__(self, input, state):
        return state + self.dt * self.field(input, state)


def test_weights_stay_skew_symmetric_under_updates():
    np.testing.assert_array_equal(FIELD.weight, -FIELD.weight.T)
    wide = SkewRNN(300, gain=1.5, key=jr.key(0)).weight
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(wide**2) * 300), 1.5, rtol=0.02)
    moved = jax.tree.map(lambda x: x + jr.normal(jr.key(2), x.shape), FIELD)
    np.testing.assert_allclose(moved(None, START) @ jnp.tanh(START), 0, atol=1e-14)


def test_energy_is_the_sum_of_log_cosh():
    np.testing.assert_allclose(FIELD.energy(START), np.sum(np.log(np.cosh(START))), rtol=1e-14)
    np.testing.assert_allclose(FIELD.energy(jnp.full(10, 1e4)), 10 * (1e4 - np.log(2)), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(FIELD.energy)(START), np.tanh(START), atol=1e-15)
    assert FIELD.energy(START.astype(jnp.float32)).dtype == jnp.float32


def test_runge_kutta_conserves_the_energy_and_euler_does_not():
    def energies(cell):
        states = lejax.unroll(cell, START, num_steps=20_000)
        return np.asarray(jax.vmap(FIELD.energy)(states[99::100]))

    start = float(FIELD.energy(START))
    conserved, growing = energies(Flow(FIELD, dt=0.01)), energies(Euler(FIELD, 0.01))
    assert np.abs(conserved - start).max() < 1e-8
    assert np.all(np.diff(growing) > 0)
    assert growing[-1] > 1.5 * start
    # The error is of the fourth-order method: half the step makes it about sixteen times smaller.
    errors = [
        abs(
            float(FIELD.energy(lejax.unroll(Flow(FIELD, dt), START, num_steps=int(20 / dt))[-1]))
            - start
        )
        for dt in (0.2, 0.1)
    ]
    assert errors[0] / errors[1] > 12


def test_tangent_maps_preserve_the_symplectic_form():
    cell = Flow(FIELD, dt=0.02)
    jacobians = jax.vmap(lambda x: lejax.jacobian(cell, x))(
        jnp.concatenate([START[None], lejax.unroll(cell, START, num_steps=49)])
    )
    product = np.eye(10)
    for step in np.asarray(jacobians):
        product = step @ product
    np.testing.assert_allclose(product @ FIELD.weight @ product.T, FIELD.weight, atol=1e-6)


def test_finite_time_exponents_come_in_pairs_if_the_form_is_orthogonal():
    # If W is orthogonal, the singular values of the tangent map come in pairs s, 1 / s.
    turn = np.linalg.qr(np.asarray(jr.normal(jr.key(3), (6, 6))))[0]
    form = turn @ np.kron(np.eye(3), [[0.0, 1.0], [-1.0, 0.0]]) @ turn.T
    field = SkewRNN.from_weights(G=jnp.asarray(form / 2))
    exponents = lejax.indicators.finite_time_exponent_field(
        Flow(field, dt=0.02), jr.normal(jr.key(4), (3, 6)), num_steps=200, num_exponents=6
    )
    np.testing.assert_allclose(exponents, -exponents[:, ::-1], atol=1e-6)


def test_exponents_come_in_pairs_and_the_orbit_is_chaotic():
    field, start = SkewRNN(10, gain=2.0, key=jr.key(0)), 2 * START
    flow = Flow(field, dt=0.1)
    spectrum = lejax.lyapunov_spectrum(flow, start, num_steps=30_000, transient=2000)
    np.testing.assert_allclose(spectrum.exponents.sum(), 0, atol=1e-4)
    pairs = spectrum.exponents + spectrum.exponents[::-1]
    # The error from the alignment of the frame is of order 1 / T = 1 / 3000.
    error = np.hypot(spectrum.standard_error, spectrum.standard_error[::-1])
    assert np.all(np.abs(pairs) < 4 * error + 3e-3)
    assert spectrum.exponents[0] > 4 * spectrum.standard_error[0]


def test_float32():
    field = SkewRNN(4, jnp.float32, key=jr.key(0))
    start = jnp.ones(4, jnp.float32)
    states = lejax.unroll(Flow(field, dt=0.05), start, num_steps=100)
    assert states.dtype == jnp.float32
    np.testing.assert_allclose(field.energy(states[-1]), field.energy(start), rtol=1e-5)
