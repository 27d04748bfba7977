"""The delta rule and gated linear attention: products of small matrices; each exponent occurs once per value column."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax import SequentialQR
from lejax._engine.tangent_dynamics import random_frame
from lejax.cells import ClosedLoop, DeltaProductCell, GatedLinearAttentionCell, LRUCell, Stack
from lejax.indicators import transient_growth, transition_product


INPUTS = jr.normal(jr.key(0), (150, 3))
EVERY_STEP = {"method": SequentialQR(every=1)}


class MemoryOnly(eqx.Module):
    """A cell without its output and without declared blocks."""

    cell: eqx.Module

    def __call__(self, input, state):
        return self.cell(input, (state, self.cell.initial_state()[1]))[0]


def run(cell, inputs=INPUTS, **keywords):
    size = cell.initial_state()[0].size
    return lejax.lyapunov_spectrum(
        cell, cell.initial_state(), inputs, num_exponents=size, **keywords
    )


def with_beta(cell, logit):
    """Set all betas to the same value, the range times sigmoid(logit)."""
    weights = (jnp.zeros_like(cell.weight_beta), jnp.full_like(cell.bias_beta, logit))
    return eqx.tree_at(lambda c: (c.weight_beta, c.bias_beta), cell, weights)


@pytest.mark.parametrize("use_gate", [False, True])
def test_delta_product_step_and_transition(use_gate):
    cell = DeltaProductCell(3, 4, 2, num_factors=2, use_gate=use_gate, key=jr.key(1))
    S, u = jr.normal(jr.key(2), (4, 2)), INPUTS[0]
    gate = jax.nn.sigmoid(cell.weight_gate @ u + 4) if use_gate else 1.0
    A, new = gate * np.eye(4), gate * np.asarray(S)
    for j in range(2):
        k = cell.weight_k[j] @ u
        k = k / np.linalg.norm(k)
        beta = jax.nn.sigmoid(cell.weight_beta[j] @ u + cell.bias_beta[j])
        factor = np.eye(4) - beta * np.outer(k, k)
        A, new = factor @ A, factor @ new + beta * np.outer(k, cell.weight_v[j] @ u)
    new_state = cell(u, (S, jnp.zeros(2)))
    np.testing.assert_allclose(new_state[0], new, rtol=1e-12)
    np.testing.assert_allclose(new_state[1], new.T @ (cell.weight_q @ u), rtol=1e-12)
    np.testing.assert_allclose(cell.transition(u), A, rtol=1e-12, atol=1e-15)
    jacobian = lejax.jacobian(MemoryOnly(cell), S, u)
    np.testing.assert_allclose(jacobian, np.kron(A, np.eye(2)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("num_factors", "beta_range", "use_gate"),
    [
        (2, 2, True),
        pytest.param(1, 1, False, marks=pytest.mark.slow),
        pytest.param(3, 1.5, False, marks=pytest.mark.slow),
    ],
)
def test_sums_and_multiplicities_of_the_delta_product(num_factors, beta_range, use_gate):
    cell = DeltaProductCell(3, 3, 2, num_factors, beta_range, use_gate, key=jr.key(3))
    spectrum = run(cell, **EVERY_STEP)
    np.testing.assert_array_equal(spectrum.exponents[::2], spectrum.exponents[1::2])
    betas = beta_range * jax.nn.sigmoid(INPUTS @ cell.weight_beta.T + cell.bias_beta)
    exact = np.mean(np.sum(np.log(np.abs(1 - betas)), axis=1))
    if use_gate:
        exact += 3 * np.mean(np.log(jax.nn.sigmoid(INPUTS @ cell.weight_gate + 4)))
    np.testing.assert_allclose(np.sum(spectrum.exponents[::2]), exact, rtol=1e-12)
    assert spectrum.exponents[0] <= 1e-12
    # The general engine treats all K V directions as one dense block and gives the same exponents.
    dense = lejax.lyapunov_spectrum(MemoryOnly(cell), cell.initial_state()[0], INPUTS, **EVERY_STEP)
    np.testing.assert_allclose(np.sum(dense.exponents), 2 * exact, rtol=1e-12)
    np.testing.assert_allclose(dense.exponents, spectrum.exponents, atol=5 / 150)
    # If both start from the same frame, they agree column by column.
    frame = spectrum.frame
    declared = run(cell, frame=frame, **EVERY_STEP)
    dense = lejax.lyapunov_spectrum(
        MemoryOnly(cell), cell.initial_state()[0], INPUTS, frame=frame[:6], **EVERY_STEP
    )
    np.testing.assert_allclose(dense.exponents, declared.exponents, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_exponents_for_gaussian_keys():
    # Keys are normal vectors in four dimensions, scaled to length 1; beta is the sigmoid of a normal number. Expected
    # values come from another run.
    cell = DeltaProductCell(5, 4, 1, key=jr.key(0))
    weights = (jnp.eye(4, 5)[None], jnp.eye(5)[None, 4], jnp.zeros(1))
    cell = eqx.tree_at(lambda c: (c.weight_k, c.weight_beta, c.bias_beta), cell, weights)
    inputs = jr.normal(jr.key(4), (3000, 5))
    expected = {
        1.0: [-0.1140, -0.1483, -0.2098, -0.3227],
        2.0: [-0.1457, -0.2021, -0.3153, -0.7598],
    }
    for beta_range, values in expected.items():
        changed = eqx.tree_at(lambda c: c.beta_range, cell, beta_range)
        spectrum = run(changed, inputs, **EVERY_STEP)
        error = (
            np.sqrt(2) * spectrum.standard_error
        )  # the expected values have an error of the same size
        assert np.all(np.abs(spectrum.exponents - np.array(values)) < 4 * error)
        assert np.all(error < 0.02)


def test_reflections_have_exponents_of_zero_and_determinants_of_minus_one():
    cell = with_beta(DeltaProductCell(3, 4, 2, 1, 2, key=jr.key(5)), 1e3)
    spectrum = run(cell, **EVERY_STEP)
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-13)
    transitions = jax.vmap(cell.transition)(INPUTS)
    np.testing.assert_allclose(np.linalg.det(transitions), -1, rtol=1e-12)
    # Two reflections rotate a plane: only the phases of the eigenvalues distinguish them from the identity.
    pair = with_beta(DeltaProductCell(3, 4, 2, 2, 2, key=jr.key(5)), 1e3)
    eigenvalues = np.linalg.eigvals(pair.transition(INPUTS[0]))
    np.testing.assert_allclose(np.abs(eigenvalues), 1, rtol=1e-12)
    assert np.abs(np.angle(eigenvalues)).max() > 0.1


def test_beta_of_one_loses_a_direction():
    cell = with_beta(DeltaProductCell(4, 4, 2, key=jr.key(6)), 1e3)
    # If each key is a coordinate axis, the lost direction is exactly zero.
    cell = eqx.tree_at(lambda c: c.weight_k, cell, jnp.eye(4)[None])
    axes = {"frame": jnp.eye(10)[:, :8], **EVERY_STEP}
    spectrum = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), jnp.eye(4)[jnp.zeros(20, int)], **axes
    )
    np.testing.assert_array_equal(np.sort(spectrum.exponents), [-np.inf] * 2 + [0] * 6)
    assert spectrum.result == lejax.RESULTS.successful
    # For other keys a rounding error remains in the lost direction; it is counted as unresolved.
    spectrum = run(cell, jr.normal(jr.key(7), (60, 4)), **EVERY_STEP)
    assert np.all(spectrum.exponents[:6] > -2)
    assert np.all(spectrum.exponents[6:] < np.log(np.finfo(float).eps) + 2)
    np.testing.assert_array_equal(spectrum.diagnostics.unresolved > 40, [False] * 6 + [True] * 2)


def test_one_reflection_computes_parity():
    # Input 1 reflects the only direction and input 0 keeps it, so a beta of 2 counts modulo 2 with an exponent of 0.
    cell = DeltaProductCell.from_weights(
        weight_q=jnp.ones((1, 1)),
        weight_k=jnp.ones((1, 1, 1)),
        weight_v=jnp.zeros((1, 1, 1)),
        weight_beta=jnp.zeros((1, 1)),
        bias_beta=jnp.array([1e3]),
        beta_range=2,
    )
    bits = jr.bernoulli(jr.key(9), shape=(40, 1)).astype(float)
    start = (jnp.ones((1, 1)), jnp.zeros(1))
    memory, _ = lejax.unroll(cell, start, bits)
    np.testing.assert_allclose(memory[:, 0, 0], (-1) ** np.cumsum(bits[:, 0]), rtol=1e-12)
    spectrum = lejax.lyapunov_spectrum(cell, start, bits, num_exponents=1, **EVERY_STEP)
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-14)


def test_a_zero_key_leaves_the_memory_and_has_a_finite_derivative():
    cell = DeltaProductCell(3, 2, 2, num_factors=2, use_gate=True, key=jr.key(10))
    np.testing.assert_allclose(
        cell.transition(jnp.zeros(3)), jax.nn.sigmoid(4.0) * np.eye(2), rtol=1e-14
    )
    gradient = eqx.filter_grad(lambda cell: jnp.sum(cell.transition(jnp.zeros(3))))(cell)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_gated_linear_attention_step_and_exponents():
    cell = GatedLinearAttentionCell(3, 3, 2, key=jr.key(11))
    S, u = jr.normal(jr.key(12), (3, 2)), INPUTS[0]
    gates = jax.nn.sigmoid(INPUTS @ cell.weight_gate.T + cell.bias_gate) ** (1 / 16)
    new = gates[0][:, None] * S + np.outer(cell.weight_k @ u, cell.weight_v @ u)
    new_state = cell(u, (S, jnp.zeros(2)))
    np.testing.assert_allclose(new_state[0], new, rtol=1e-12)
    np.testing.assert_allclose(new_state[1], new.T @ (cell.weight_q @ u), rtol=1e-12)
    spectrum = run(cell, **EVERY_STEP)
    exact = np.repeat(np.sort(np.mean(np.log(gates), axis=0))[::-1], 2)
    np.testing.assert_allclose(spectrum.exponents, exact, rtol=1e-12)
    dense = lejax.lyapunov_spectrum(MemoryOnly(cell), cell.initial_state()[0], INPUTS, **EVERY_STEP)
    np.testing.assert_allclose(dense.exponents, exact, atol=5 / 150)
    np.testing.assert_allclose(np.sum(dense.exponents), np.sum(exact), rtol=1e-12)


CELLS = {
    "delta": lambda dtype=None: DeltaProductCell(3, 2, 3, 2, 2, True, dtype=dtype, key=jr.key(1)),
    "attention": lambda dtype=None: GatedLinearAttentionCell(3, 2, 3, dtype=dtype, key=jr.key(1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_layers_loops_and_precision(name):
    cell = CELLS[name]()
    stack = Stack([cell, cell])
    spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), INPUTS, num_exponents=12)
    output = jax.vmap(cell.output)(lejax.unroll(cell, cell.initial_state(), INPUTS))
    sums = run(cell).exponents.sum() + run(cell, output).exponents.sum()
    np.testing.assert_allclose(np.sum(spectrum.exponents), sums, rtol=1e-10)
    loop = ClosedLoop(cell, eqx.nn.Linear(3, 3, key=jr.key(2)))
    state = jax.tree.map(lambda x: x + 0.3, loop.initial_state())
    closed = lejax.lyapunov_spectrum(loop, state, num_steps=50, num_exponents=2)
    push = jax.jit(lambda state, frame: lejax.push_forward(loop, state, None, frame))
    start = random_frame(None, closed.frame.shape[0], 2, jnp.float64)
    frame, sums = np.linalg.qr(np.asarray(start))[0], 0
    for _ in range(50):
        state, columns = push(state, frame)
        frame, triangle = np.linalg.qr(columns)
        sums = sums + np.log(np.abs(np.diag(triangle)))
    np.testing.assert_allclose(closed.exponents, sums / 50, rtol=1e-8)
    assert {x.dtype for x in jax.tree.leaves(CELLS[name](jnp.float32)) if eqx.is_array(x)} == {
        jnp.dtype(jnp.float32)
    }
    for dtype, tolerance in ((jnp.float32, 1e-4), (jnp.bfloat16, 0.05)):
        low = jax.tree.map(lambda x, d=dtype: x.astype(d) if eqx.is_array(x) else x, cell)
        spectrum = run(low, INPUTS[:50].astype(dtype))
        assert spectrum.exponents.dtype == jnp.float32
        assert {x.dtype for x in spectrum.state} == {jnp.dtype(dtype)}
        exact = run(cell, INPUTS[:50]).exponents
        np.testing.assert_allclose(spectrum.exponents, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_gradients_and_batches():
    cell = CELLS["delta"]()

    def total(cell):
        return run(cell, INPUTS[:30], **EVERY_STEP).exponents[::3].sum()

    def closed_form(cell):
        inputs = INPUTS[:30]
        betas = 2 * jax.nn.sigmoid(inputs @ cell.weight_beta.T + cell.bias_beta)
        gates = jax.nn.sigmoid(inputs @ cell.weight_gate + cell.bias_gate)
        return jnp.mean(jnp.log(jnp.abs(1 - betas)).sum(axis=1) + 2 * jnp.log(gates))

    gradient, expected = (eqx.filter_grad(f)(cell) for f in (total, closed_form))
    np.testing.assert_allclose(gradient.weight_beta, expected.weight_beta, rtol=1e-9)
    np.testing.assert_allclose(gradient.weight_gate, expected.weight_gate, rtol=1e-9)
    np.testing.assert_allclose(gradient.weight_k, 0, atol=1e-10)
    cells = eqx.filter_vmap(lambda key: DeltaProductCell(3, 2, 2, key=key))(jr.split(jr.key(3), 2))
    batch = eqx.filter_vmap(lambda cell: run(cell).exponents)(cells)
    second = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, cells)
    np.testing.assert_allclose(batch[1], run(second).exponents, rtol=1e-10)


def test_gates_near_zero_do_not_underflow():
    cell = GatedLinearAttentionCell(1, 2, 2, dtype=jnp.float32, key=jr.key(0))
    closed = eqx.tree_at(lambda c: c.bias_gate, cell, jnp.array([-100.0, 0.0], jnp.float32))
    state, inputs = closed.initial_state(), jnp.zeros((10, 1), jnp.float32)
    exponents = lejax.lyapunov_spectrum(closed, state, inputs, num_exponents=4).exponents
    np.testing.assert_allclose(exponents[2:], -100 / 16, rtol=1e-6)

    def memory(bias):
        moved = eqx.tree_at(lambda c: c.bias_gate, closed, bias)
        return lejax.unroll(moved, state, inputs + 1)[0].sum()

    assert np.isfinite(jax.grad(memory)(closed.bias_gate)).all()


def test_large_keys_in_half_precision_do_not_overflow():
    cell = DeltaProductCell(1, 3, 2, key=jr.key(0))
    low = jax.tree.map(lambda x: x.astype(jnp.float16) if eqx.is_array(x) else x, cell)
    transition = low.transition(jnp.full(1, 400.0, jnp.float16))
    np.testing.assert_allclose(transition, cell.transition(jnp.full(1, 400.0)), atol=5e-3)


def test_transition_products_give_the_parity_for_any_number_of_columns():
    cell = DeltaProductCell(1, 3, 4, beta_range=2.0, key=jr.key(0))
    reflecting = (jnp.array([[80.0]]), jnp.array([-40.0]))  # beta is 2 at a one and 0 at a zero
    cell = eqx.tree_at(lambda c: (c.weight_beta, c.bias_beta), cell, reflecting)
    bits = jr.bernoulli(jr.key(1), shape=(30,)).astype(int)
    parity = (-1) ** np.cumsum(bits)
    layers = {
        3: cell,
        9: Stack([cell, LRUCell(4, 3, key=jr.key(2))]),
    }
    inputs = bits[:, None].astype(float)
    for size, layer in layers.items():
        product = transition_product(layer, layer.initial_state(), inputs)
        assert product.phases.size == size  # outputs and the copies for each column are left out
        np.testing.assert_array_equal(product.determinant_sign, parity)
    product = transition_product(cell, cell.initial_state(), inputs)
    np.testing.assert_allclose(product.log_moduli, 0, atol=1e-12)
    assert np.sum(np.abs(np.abs(product.phases) - np.pi) < 1e-9) == (parity[-1] < 0)


def test_growth_of_the_memory_does_not_depend_on_the_readout():
    cell = LRUCell(2, 4, key=jr.key(0))
    loud = eqx.tree_at(lambda c: c.C, cell, 1e3 * cell.C)
    for layer in (cell, loud):
        growth = transient_growth(layer, layer.initial_state(), jnp.ones((20, 2)))
        slowest = -np.exp(np.asarray(cell.log_decay)).min()
        assert growth.log_amplification == 0
        np.testing.assert_allclose(growth.curve, slowest * np.arange(1, 21), rtol=1e-10)
