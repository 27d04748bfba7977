"""Networks of low rank R: R exponents of the reduced system, and the decay rate as all other exponents."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from _plain_cells import WithoutBlocks

import lejax
from lejax import SequentialQR
from lejax.cells import LowRankReLURNN, LowRankRNNCell
from lejax.systems import Flow


EVERY = {"method": SequentialQR(every=1)}


def draw(size=12, rank=2, *, dt=0.1, tau=1.0, gain=3.0, dtype=None):
    times = {"dt": jnp.asarray(dt), "tau": jnp.asarray(tau)}
    return LowRankRNNCell(0, size, rank, dtype=dtype, gain=gain, key=jr.key(0), **times)


def test_cell_is_an_euler_step():
    cell = LowRankRNNCell(3, 6, 2, use_bias=True, dt=0.1, tau=2.0, key=jr.key(0))
    x, u = jr.normal(jr.key(1), (6,)), jr.normal(jr.key(2), (3,))
    drive = cell.M @ cell.N.T @ jnp.tanh(x) + cell.weight_ih @ u + cell.bias
    np.testing.assert_allclose(cell(u, x), x + 0.05 * (drive - x), atol=1e-15)
    np.testing.assert_allclose(cell.derivative(u, x), (drive - x) / 2, atol=1e-15)


def test_jacobian_is_block_triangular_in_the_basis_of_the_columns():
    cell = LowRankRNNCell(0, 7, 3, use_bias=True, dt=0.2, gain=2.0, key=jr.key(0))
    state = jr.normal(jr.key(1), (7,))
    basis = np.linalg.qr(np.asarray(cell.M), mode="complete")[0]
    basis = np.concatenate([cell.M, basis[:, 3:]], axis=1)
    jacobian = np.linalg.solve(basis, lejax.jacobian(cell, state) @ basis)
    new_state, (dense, diagonal) = cell.blocks(None, state)
    np.testing.assert_allclose(new_state, cell(None, state), atol=1e-15)
    np.testing.assert_allclose(dense.tangent(jnp.eye(3)), jacobian[:3, :3], atol=1e-13)
    np.testing.assert_allclose(jacobian[3:, :3], 0, atol=1e-13)
    np.testing.assert_allclose(jacobian[3:, 3:], np.diag(np.exp(diagonal.log_moduli)), atol=1e-13)


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_all_but_rank_exponents_are_the_decay_rate(tau):
    cell = draw(dt=0.1 * tau, tau=tau)
    run = {"num_steps": 400, "transient": 200, **EVERY}
    state = jr.normal(jr.key(1), (12,))
    spectrum = lejax.lyapunov_spectrum(cell, state, **run)
    distance = np.abs(spectrum.exponents - np.log(0.9) / (0.1 * tau))
    assert np.sum(distance < 1e-10) == 10
    # A determinant does not depend on the basis: sums are equal at every step, exponents only in the limit.
    dense = lejax.lyapunov_spectrum(WithoutBlocks(cell), state, dt=0.1 * tau, **run)
    sums = spectrum.block_exponents.sum(axis=1), dense.block_exponents.sum(axis=1)
    np.testing.assert_allclose(*sums, rtol=1e-11)
    np.testing.assert_allclose(spectrum.exponents, dense.exponents, atol=0.05 / tau)
    # If the frame begins with the columns' space, the general engine gives the decay rates from the first step.
    frame = jnp.linalg.qr(cell.M, mode="complete")[0]
    run = {**run, "transient": 0}
    dense = lejax.lyapunov_spectrum(WithoutBlocks(cell), state, dt=0.1 * tau, frame=frame, **run)
    np.testing.assert_allclose(dense.exponents[2:], np.log(0.9) / (0.1 * tau), rtol=1e-11)


def test_exponents_scale_with_the_rate():
    state = jr.normal(jr.key(1), (12,))
    run = {"num_steps": 400, "transient": 200, **EVERY}
    slow, fast = (
        lejax.lyapunov_spectrum(draw(dt=0.1 * tau, tau=tau), state, **run).exponents
        for tau in (4.0, 0.5)
    )
    np.testing.assert_allclose(8 * slow, fast, rtol=1e-11)


def test_the_flow_has_the_decay_rate_as_exponents():
    cell = draw()
    state = jr.normal(jr.key(1), (12,))
    flow = Flow(cell.derivative, dt=0.05)
    spectrum = lejax.lyapunov_spectrum(flow, state, num_steps=800, transient=1200, **EVERY)
    fourth_order = np.log(sum((-0.05) ** n / [1, 1, 2, 6, 24][n] for n in range(5))) / 0.05
    assert abs(fourth_order + 1) < 1e-6
    distance = np.abs(spectrum.exponents - fourth_order)
    assert np.sum(distance < 1e-6) >= 10


def test_leading_exponents_are_those_of_the_reduced_system():
    rank, size, rate = 2, 9, 0.3
    cell = LowRankRNNCell(
        0, size, rank, use_bias=True, activation=jax.nn.relu, dt=rate, gain=2.0, key=jr.key(3)
    )
    reduced = LowRankReLURNN.from_weights(q=rate, n=size * cell.N.T, m=cell.M, b=cell.bias)
    kappa = jnp.array([0.5, -0.3])
    run = {"num_steps": 60, **EVERY}
    state = cell.M @ kappa + cell.bias
    # States that start as M kappa + b keep this form.
    last = lejax.unroll(cell, state, num_steps=20)[-1]
    last_reduced = lejax.unroll(reduced, kappa, num_steps=20)[-1]
    np.testing.assert_allclose(last, cell.M @ last_reduced + cell.bias, atol=1e-12)
    frame = jnp.concatenate([jnp.eye(rank), jnp.zeros((size - rank, rank))])
    low = lejax.lyapunov_spectrum(reduced, kappa, frame=jnp.eye(rank), dt=rate, **run)
    high = lejax.lyapunov_spectrum(cell, state, frame=frame, **run)
    np.testing.assert_allclose(high.exponents, low.exponents, atol=1e-10)


@pytest.mark.slow
def test_linearly_dependent_columns_keep_the_number_of_exponents():
    cell = draw(size=8, rank=3)
    cell = eqx.tree_at(lambda c: c.M, cell, cell.M.at[:, 2].set(2 * cell.M[:, 0]))
    run = {"num_steps": 300, "transient": 300, **EVERY}
    state = jr.normal(jr.key(1), (8,))
    spectrum = lejax.lyapunov_spectrum(cell, state, **run)
    dense = lejax.lyapunov_spectrum(WithoutBlocks(cell), state, dt=0.1, **run)
    np.testing.assert_allclose(spectrum.exponents, dense.exponents, atol=0.05)
    assert np.sum(np.abs(spectrum.exponents - np.log(0.9) / 0.1) < 1e-6) >= 6


@pytest.mark.slow
def test_full_rank_is_one_dense_block():
    cell = draw(size=3, rank=3)
    state = jnp.array([0.3, -0.2, 0.1])
    spectrum = lejax.lyapunov_spectrum(cell, state, num_steps=50, **EVERY)
    dense = lejax.lyapunov_spectrum(WithoutBlocks(cell), state, num_steps=50, dt=0.1, **EVERY)
    np.testing.assert_allclose(spectrum.exponents.sum(), dense.exponents.sum(), rtol=1e-11)


def test_float32():
    low, state = draw(dtype=jnp.float32), jr.normal(jr.key(1), (12,))
    run = {"num_steps": 100, **EVERY}
    spectrum = lejax.lyapunov_spectrum(low, state.astype(jnp.float32), **run)
    assert spectrum.exponents.dtype == jnp.float32
    high = lejax.lyapunov_spectrum(jax.tree.map(lambda x: x.astype(float), low), state, **run)
    np.testing.assert_allclose(spectrum.exponents, high.exponents, atol=1e-4)


@pytest.mark.slow
def test_batches_and_gradients():
    state, weights = jr.normal(jr.key(1), (12,)), jr.normal(jr.key(2), (12,))

    def total(gain):
        return weights @ lejax.lyapunov_spectrum(draw(gain=gain), state, num_steps=30).exponents

    difference = (total(2.0 + 1e-6) - total(2.0 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(total)(2.0), difference, rtol=1e-5)
    batch = jax.vmap(total)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(batch[1], total(2.0), rtol=1e-9)


def test_loadings_are_drawn_as_documented():
    cell = LowRankRNNCell(0, 2000, 3, dt=0.1, gain=2.0, key=jr.key(0))
    M, N = np.asarray(cell.M), np.asarray(cell.N)
    overlap, *_ = np.linalg.lstsq(M, 2000 * N)
    np.testing.assert_allclose(np.std(2000 * N - M @ overlap), 1, rtol=0.05)
    draws = [LowRankRNNCell(0, 3, 3, dt=0.1, gain=g, key=jr.key(1)) for g in (1.0, 3.0)]
    weak, strong = (3 * np.asarray(draw.N) for draw in draws)
    # N = (M g A + Z) / H is linear in g.
    none = 3 * np.asarray(LowRankRNNCell(0, 3, 3, dt=0.1, gain=0.0, key=jr.key(1)).N)
    np.testing.assert_allclose(strong - none, 3 * (weak - none), rtol=1e-10)
