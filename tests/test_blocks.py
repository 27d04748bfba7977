"""Block triangular Jacobians: exact exponents where theory gives them, otherwise agreement with the general engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from _plain_cells import WithoutBlocks
from block_cells import Gate, LowRank

import lejax
from lejax import BlockTriangularCell, DenseBlock, DiagonalBlock, SequentialQR
from lejax._engine.blocks import open_frames
from lejax._engine.directions import assemble_frame
from lejax.cells import GRUCell, LeakyRNNCell, LSTMCell, RNNCell, Stack


class MatrixState(BlockTriangularCell):
    """S' = A S for S of shape (n, m): the Jacobian is the Kronecker product of A and the identity."""

    matrix: jax.Array

    def __call__(self, input, state):
        return self.matrix @ state

    def blocks(self, input, state):
        block = DenseBlock(lambda columns: self.matrix @ columns, *state.shape)
        return self(input, state), (block,)


INPUTS = jr.normal(jr.key(0), (300, 4))


def test_diagonal_recurrence_is_exact():
    cell, state = Gate(jnp.array([1.0, -2.0, 3.0, 0.5])), jnp.ones(4)
    exact = np.sort(np.mean(np.log(jax.nn.sigmoid(cell.bias + INPUTS[20:])), axis=0))[::-1]
    spectrum = lejax.lyapunov_spectrum(cell, state, INPUTS, transient=20)
    np.testing.assert_allclose(spectrum.exponents, exact, rtol=1e-13)
    np.testing.assert_array_equal(np.abs(spectrum.frame).sum(axis=0), np.ones(4))
    leading = lejax.lyapunov_spectrum(cell, state, INPUTS, transient=20, num_exponents=2)
    np.testing.assert_allclose(leading.exponents, exact[:2], rtol=1e-13)
    gradient = eqx.filter_grad(
        lambda cell: lejax.lyapunov_spectrum(cell, state, INPUTS).exponents.sum()
    )(cell)
    np.testing.assert_allclose(
        gradient.bias, np.mean(jax.nn.sigmoid(-cell.bias - INPUTS), axis=0), rtol=1e-12
    )


def test_a_closed_gate_gives_minus_infinity_and_leaves_the_rest_exact():
    cell = Gate(jnp.array([1.0, -jnp.inf, 0.0, 0.0]))
    spectrum = lejax.lyapunov_spectrum(cell, jnp.ones(4), INPUTS)
    assert np.isneginf(spectrum.exponents[3])
    assert np.isfinite(spectrum.exponents[:3]).all()
    assert spectrum.result == lejax.RESULTS.successful
    gradient = eqx.filter_grad(
        lambda cell: lejax.lyapunov_spectrum(cell, jnp.ones(4), INPUTS).exponents[:3].sum()
    )(cell)
    exact = np.array(np.mean(jax.nn.sigmoid(-cell.bias - INPUTS), axis=0))
    exact[1] = 0
    np.testing.assert_allclose(gradient.bias, exact, rtol=1e-12)


@pytest.mark.parametrize(
    "every", [1, *(pytest.param(x, marks=pytest.mark.slow) for x in (2, None))]
)
def test_low_rank_network_has_the_exponents_of_the_reduced_system_and_the_leak(every):
    left, right = jr.normal(jr.key(1), (2, 8, 2))
    cell, state = LowRank(left, right, leak=0.25), 0.5 * left[:, 0]
    run = {"num_steps": 400, "transient": 50, "method": SequentialQR(every=every)}
    spectrum = lejax.lyapunov_spectrum(cell, state, **run)
    dense = lejax.lyapunov_spectrum(WithoutBlocks(cell), state, **run)
    is_leak = np.isclose(spectrum.exponents, np.log(0.75), rtol=0, atol=1e-12)
    assert is_leak.sum() == 6
    np.testing.assert_allclose(np.sum(spectrum.exponents), np.sum(dense.exponents), rtol=1e-8)
    np.testing.assert_allclose(spectrum.exponents, dense.exponents, atol=0.02)


def test_a_kronecker_product_repeats_exponents():
    turn = jnp.linalg.qr(jr.normal(jr.key(2), (3, 3)))[0]
    matrix = turn @ jnp.diag(jnp.array([0.9, -0.5, 0.2])) @ turn.T
    state = jr.normal(jr.key(3), (3, 2))
    spectrum = lejax.lyapunov_spectrum(MatrixState(matrix), state, num_steps=50, transient=200)
    exact = np.repeat(np.log([0.9, 0.5, 0.2]), 2)
    np.testing.assert_allclose(spectrum.exponents, exact, atol=1e-12)
    np.testing.assert_allclose(spectrum.frame.T @ spectrum.frame, np.eye(6), atol=1e-13)
    # The frame consists of directions of the full Jacobian, so the general engine can continue with it.
    more = lejax.lyapunov_spectrum(
        WithoutBlocks(MatrixState(matrix)), spectrum.state, num_steps=50, frame=spectrum.frame
    )
    np.testing.assert_allclose(more.exponents, exact, atol=1e-12)


STACK = Stack(
    [GRUCell(4, 3, key=jr.key(4)), LSTMCell(3, 2, key=jr.key(5)), RNNCell(2, 2, key=jr.key(6))]
)


SMALL = Stack([RNNCell(4, 2, key=jr.key(4)), RNNCell(2, 1, key=jr.key(5))])  # quick to compile


def test_stack_has_the_exponents_of_its_layers_and_of_the_full_jacobian():
    state = STACK.initial_state()
    every_step = SequentialQR(every=1)
    run = {"transient": 100, "method": every_step}
    spectrum = lejax.lyapunov_spectrum(STACK, state, INPUTS, **run)
    dense = lejax.lyapunov_spectrum(WithoutBlocks(STACK), state, INPUTS, **run)
    # Sums are log determinants, which agree at every step and not only in the limit.
    sums = spectrum.block_exponents.sum(axis=1), dense.block_exponents.sum(axis=1)
    np.testing.assert_allclose(*sums, rtol=1e-11)
    np.testing.assert_allclose(spectrum.exponents, dense.exponents, atol=0.02)
    first = lejax.lyapunov_spectrum(STACK.layers[0], state[0], INPUTS, **run)
    for exponent in first.exponents:
        assert np.min(np.abs(spectrum.exponents - exponent)) < 0.01
    assert np.all(np.diff(spectrum.exponents) < 5e-3)
    leading = lejax.lyapunov_spectrum(STACK, state, INPUTS, num_exponents=2, **run)
    np.testing.assert_allclose(leading.exponents, spectrum.exponents[:2], atol=1e-3)


@pytest.mark.parametrize("num_exponents", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_consecutive_runs_equal_one_run(num_exponents):
    run = {"num_exponents": num_exponents, "method": SequentialQR(every=1)}
    state = SMALL.initial_state()
    single = lejax.lyapunov_spectrum(SMALL, state, INPUTS[:200], **run)
    first = lejax.lyapunov_spectrum(SMALL, state, INPUTS[:100], **run)
    second = lejax.lyapunov_spectrum(SMALL, first.state, INPUTS[100:200], frame=first.frame, **run)
    both = lejax.combine(first, second)
    # The first run fixes the order of nearly equal exponents of different layers, so compare sorted values.
    np.testing.assert_allclose(np.sort(both.exponents), np.sort(single.exponents), atol=1e-10)
    np.testing.assert_allclose(
        second.frame.T @ second.frame, np.eye(second.frame.shape[1]), atol=1e-12
    )


@pytest.mark.parametrize("num_exponents", [None, 3])
def test_a_long_run_orders_directions_of_blocks_by_all_its_steps(num_exponents):
    # The exponents of the two layers interleave, and the order after the first chunk need not be the final one.
    keys = jr.split(jr.key(0), 2)
    run = {"dt": 1.0, "tau": 1.2}
    stack = Stack(
        [
            LeakyRNNCell(0, 3, gain=2.0, key=keys[0], **run),
            LeakyRNNCell(3, 3, gain=2.5, key=keys[1], **run),
        ]
    )
    state = jax.tree.map(lambda x: x + 0.3, stack.initial_state())
    run = {"num_steps": 900, "transient": 1}
    single = lejax.lyapunov_spectrum(stack, state, **run)
    chunks = {"chunk_steps": 300, "progress": False, "num_exponents": num_exponents}
    long = lejax.run.long_run(stack, state, **run, **chunks)
    first = slice(num_exponents)
    np.testing.assert_allclose(long.exponents, single.exponents[first], atol=1e-9)
    np.testing.assert_allclose(
        long.standard_error, single.standard_error[first], rtol=1e-5, atol=1e-9
    )
    np.testing.assert_allclose(np.abs(long.frame), np.abs(single.frame[:, first]), atol=1e-6)
    assert np.all(np.diff(long.exponents) < 0.01)


def test_any_frame_may_start_a_run():
    # A frame that is not assembled from the frames of blocks does not select exponents; the largest are reported.
    cell = Gate(jnp.array([1.0, -2.0, 3.0, 0.5]))
    exact = np.sort(np.mean(np.log(jax.nn.sigmoid(cell.bias + INPUTS)), axis=0))[::-1]
    frame = jnp.linalg.qr(jr.normal(jr.key(8), (4, 4)))[0]
    run = {"method": SequentialQR(every=1)}
    for columns in (frame[:, :2], jnp.stack([frame[:, 0], frame[:, 0]], axis=1)):
        spectrum = lejax.lyapunov_spectrum(cell, jnp.ones(4), INPUTS, frame=columns, **run)
        np.testing.assert_allclose(spectrum.exponents, exact[:2], rtol=1e-13)
    chosen = lejax.lyapunov_spectrum(cell, jnp.ones(4), INPUTS, frame=jnp.eye(4)[:, 1:3], **run)
    np.testing.assert_allclose(chosen.exponents, exact[np.array([3, 0])], rtol=1e-13)
    state, run = STACK.initial_state(), {"transient": 100, **run}
    frame = jnp.linalg.qr(jr.normal(jr.key(8), (9, 9)))[0]
    spectrum = lejax.lyapunov_spectrum(STACK, state, INPUTS, frame=frame, **run)
    random = lejax.lyapunov_spectrum(STACK, state, INPUTS, **run)
    np.testing.assert_allclose(spectrum.exponents, random.exponents, atol=1e-4)


@pytest.mark.slow
def test_parallel_chunks_of_a_stack_agree_with_one_run():
    inputs = jr.normal(jr.key(7), (2100, 4))
    run = {"transient": 100, "throw": False}
    state = STACK.initial_state()
    chunks = lejax.lyapunov_spectrum(
        STACK, state, inputs, method=lejax.ParallelQR(num_chunks=4, overlap=100), **run
    )
    single = lejax.lyapunov_spectrum(STACK, state, inputs, **run)
    np.testing.assert_allclose(chunks.exponents, single.exponents, atol=2e-3)
    assert chunks.diagnostics.overlap_bias.shape == chunks.exponents.shape


def test_low_precision_stack_has_a_float32_tangent():
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (SMALL, SMALL.initial_state(), INPUTS))
    every_step = SequentialQR(every=1)
    spectrum = lejax.lyapunov_spectrum(*low, method=every_step)
    assert spectrum.exponents.dtype == jnp.float32
    assert spectrum.state[0].dtype == jnp.bfloat16
    dense = lejax.lyapunov_spectrum(WithoutBlocks(low[0]), *low[1:], method=every_step)
    np.testing.assert_allclose(spectrum.exponents, dense.exponents, atol=0.05)


def test_layers_may_differ_in_precision():
    layers = RNNCell(4, 2, dtype=jnp.float32, key=jr.key(4)), RNNCell(2, 1, key=jr.key(5))
    stack = Stack(layers)
    inputs = INPUTS[:20].astype(jnp.float32)
    spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), inputs)
    assert spectrum.exponents.dtype == jnp.float64
    assert [leaf.dtype for leaf in spectrum.state] == [jnp.float32, jnp.float64]
    # The first two coordinates belong to the float32 layer, whose log determinant follows.
    weight_ih, weight_hh, bias = layers[0].weight_ih, layers[0].weight_hh, layers[0].bias
    state, growth = np.zeros(2), []
    for input in np.asarray(inputs):
        state = np.tanh(weight_ih @ input + weight_hh @ state + bias)
        growth.append(np.linalg.slogdet(weight_hh)[1] + np.sum(np.log(1 - state**2)))
    is_first = np.any(np.asarray(spectrum.frame)[:2] != 0, axis=0)
    np.testing.assert_allclose(np.sum(spectrum.exponents[is_first]), np.mean(growth), rtol=1e-5)


def test_blocks_smaller_than_the_state_are_refused():
    class Short(lejax.BlockTriangularCell):
        gate: Gate

        def __call__(self, input, state):
            return self.gate(input, state)

        def blocks(self, input, state):
            return self(input, state), (DiagonalBlock.of_entries(self.gate.bias[:2]),)

    with pytest.raises(ValueError, match="hold 2 directions in all, but the state has 4 numbers"):
        lejax.lyapunov_spectrum(Short(Gate(jnp.zeros(4))), jnp.ones(4), INPUTS)


def test_a_concrete_block_triangular_cell_is_final():
    """A subclass would inherit the blocks of a step that it replaces; a cell that holds another cell inherits none."""
    with pytest.raises(
        TypeError, match=r"Heir inherits from Gate, which is final.* a field of type"
    ):

        class Heir(Gate):
            pass

    class Doubled(eqx.Module):
        gate: Gate

        def __call__(self, input, state):
            return 2 * self.gate(input, state)

    gate, state = Gate(jnp.array([0.5, -0.5, 1.0])), jnp.ones(3)
    plain, doubled = (
        lejax.lyapunov_spectrum(cell, state, jnp.ones((20, 3))) for cell in (gate, Doubled(gate))
    )
    np.testing.assert_allclose(jnp.sum(doubled.exponents - plain.exponents), 3 * np.log(2))
    new_state = lejax.unroll(Doubled(gate), state, jnp.ones((20, 3)))[-1]
    np.testing.assert_allclose(doubled.state, new_state, rtol=1e-13)


@pytest.mark.parametrize("multiplicity", [2, 3])
def test_the_frames_of_blocks_are_recovered_from_a_reported_frame(multiplicity):
    """A block that occurs several times has one frame, whose copies lie between other columns of the report."""
    blocks = lejax.DenseBlock(abs, 3, multiplicity), lejax.DenseBlock(abs, 2)
    random = jr.normal(jr.key(9), (3 * multiplicity + 2, 2 * multiplicity + 2))
    frames = tuple(
        frame.with_columns(jnp.linalg.qr(jr.normal(jr.key(i), frame.columns.shape))[0][:, :2])
        for i, frame in enumerate(open_frames(blocks, random))
    )
    copies = np.arange(2 * multiplicity)
    second = 2 * multiplicity + np.arange(2)
    # A column of the second block, the copies of direction 1 of the first block, the other column of the second block,
    # and the copies of direction 2 of the first block.
    order = np.concatenate([second[:1], copies[:multiplicity], second[1:], copies[multiplicity:]])
    frame = assemble_frame(frames, jnp.asarray(order))
    for opened, made in zip(open_frames(blocks, random, frame), frames, strict=True):
        np.testing.assert_array_equal(opened.columns[:, :2], made.columns)
