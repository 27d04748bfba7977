"""Selective state spaces and linear recurrences: equations, exponents in closed form, and the general engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from _plain_cells import MemoryOnly, WithoutBlocks
from jax.flatten_util import ravel_pytree
from networks import per_step

import lejax
from lejax import SequentialQR
from lejax.cells import (
    Bilinear,
    ClosedLoop,
    Euler,
    ExponentialEuler,
    LRUCell,
    MambaCell,
    S4DCell,
    S6Cell,
    Stack,
    ZeroOrderHold,
    diagonal_legs,
)


INPUTS = jr.normal(jr.key(0), (200, 3))
DISCRETIZATIONS = [ZeroOrderHold(), ExponentialEuler(), Bilinear(), Euler()]
NAMES = [type(d).__name__ for d in DISCRETIZATIONS]


def fast(cell):
    """The same S6 cell with time steps of about 1, so that 20 steps replace 1000."""
    return eqx.tree_at(lambda c: c.bias_step, cell, jnp.linspace(0.1, 0.9, cell.D.size))


def selective(size=3, state_size=2, discretization=ZeroOrderHold()):
    return fast(S6Cell(size, state_size, discretization, key=jr.key(1)))


def steps_of(cell, inputs):
    """The time step of each channel, for each input."""
    weight = cell.weight_step @ cell.weight_step_down
    return jax.nn.softplus(inputs @ weight.T + cell.bias_step)


def run(cell, inputs=INPUTS, method=SequentialQR(every=1), **keywords):
    return lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, method=method, **keywords)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS[:2], ids=NAMES[:2])
def test_step_of_the_selective_state_space(discretization):
    cell = selective(discretization=discretization)
    memory, u = jr.normal(jr.key(2), (3, 2)), INPUTS[0]
    steps = cell.weight_step @ (cell.weight_step_down @ u) + cell.bias_step
    steps = np.log1p(np.exp(steps))[:, None]
    A = -np.exp(cell.log_A)
    gain = steps if discretization == ExponentialEuler() else (np.exp(steps * A) - 1) / A
    new = np.exp(steps * A) * memory + gain * np.outer(u, cell.weight_B @ u)
    new_state = cell(u, (memory, jnp.zeros(3)))
    np.testing.assert_allclose(new_state[0], new, rtol=1e-13)
    np.testing.assert_allclose(new_state[1], new @ (cell.weight_C @ u) + cell.D * u, rtol=1e-13)
    assert cell.output(new_state) is new_state[1]


def test_drawn_time_steps_are_small():
    cell = S6Cell(64, 3, key=jr.key(0))
    steps = jax.nn.softplus(cell.bias_step)
    assert 1e-3 < steps.min() < 2e-3
    assert 0.05 < steps.max() < 0.1
    np.testing.assert_allclose(-jnp.exp(cell.log_A[5]), [-1, -2, -3], rtol=1e-14)


def test_rank_of_the_map_to_the_time_steps():
    assert S6Cell(64, 3, key=jr.key(0)).weight_step.shape == (64, 4)
    assert S6Cell(17, 3, key=jr.key(0)).weight_step_down.shape == (2, 17)
    assert S6Cell(17, 3, rank=17, key=jr.key(0)).weight_step.shape == (17, 17)
    # The rank of a block of Mamba follows from its input, not from the channels inside.
    assert MambaCell(32, 2, 4, key=jr.key(0)).selective.weight_step.shape == (128, 2)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS[:2], ids=NAMES[:2])
def test_selective_exponents_are_A_times_the_mean_step(discretization):
    cell = selective(discretization=discretization)
    steps = steps_of(cell, INPUTS[20:])
    exact = np.sort((-np.exp(cell.log_A) * np.mean(steps, axis=0)[:, None]).ravel())[::-1]
    spectrum = run(cell, transient=20)
    np.testing.assert_allclose(spectrum.exponents[:6], exact, rtol=1e-13)
    assert np.all(np.isneginf(spectrum.exponents[6:]))
    assert spectrum.result == lejax.RESULTS.successful
    leading = run(cell, transient=20, num_exponents=6)
    np.testing.assert_array_equal(leading.exponents, spectrum.exponents[:6])
    assert np.isfinite(leading.standard_error).all()


def test_equal_rates_of_a_head_give_equal_exponents():
    # In Mamba-2 all channels of a head share one number A and one time step.
    cell = selective(size=4, state_size=3)
    shared = (jnp.zeros_like(cell.log_A), jnp.repeat(cell.weight_step[::2], 2, axis=0))
    cell = eqx.tree_at(lambda c: (c.log_A, c.weight_step), cell, shared)
    cell = eqx.tree_at(lambda c: c.bias_step, cell, jnp.array([0.1, 0.1, 0.7, 0.7]))
    exponents = run(cell, jr.normal(jr.key(3), (50, 4)), num_exponents=12).exponents
    np.testing.assert_allclose(exponents[:6], exponents[0], rtol=1e-14)
    np.testing.assert_allclose(exponents[6:], exponents[6], rtol=1e-14)
    assert exponents[0] > exponents[6] + 0.01


def test_selective_against_the_general_engine():
    cell = selective()
    inputs = jr.normal(jr.key(4), (4000, 3))
    exact = run(cell, inputs, num_exponents=6).exponents
    memory, state = MemoryOnly(cell), cell.initial_state()[0]
    every_step = {"method": SequentialQR(every=1)}
    # A frame along the axes stays there; a random frame first has to align with them, with an error of order 1/T.
    axes = lejax.lyapunov_spectrum(memory, state, inputs, frame=jnp.eye(6), **every_step)
    np.testing.assert_allclose(np.sort(axes.exponents), np.sort(exact), rtol=1e-10)
    random = lejax.lyapunov_spectrum(memory, state, inputs, **every_step)
    np.testing.assert_allclose(np.sum(random.exponents), np.sum(exact), rtol=1e-12)
    np.testing.assert_allclose(random.exponents, exact, atol=5 / 4000)
    assert np.abs(random.exponents - exact).max() > 1e-6


def test_selective_gradients_are_exact():
    cell = selective()

    def exponents(cell):
        return run(cell, num_exponents=6).exponents

    # Since lambda = -exp(log_A) mean(Delta), its derivative by log_A is lambda.
    gradient = eqx.filter_grad(lambda cell: exponents(cell).sum())(cell)
    steps = steps_of(cell, INPUTS)
    exact = -jnp.exp(cell.log_A) * jnp.mean(steps, axis=0)[:, None]
    np.testing.assert_allclose(gradient.log_A, exact, rtol=1e-12)
    assert np.all(gradient.weight_C == 0)


def make_mamba_block():
    cell = MambaCell(3, 2, width=3, key=jr.key(6))
    return eqx.tree_at(lambda c: c.selective, cell, fast(cell.selective))


def test_mamba_block_agrees_with_the_formula_for_a_sequence():
    cell, inputs = make_mamba_block(), INPUTS[:12]
    normed = inputs / np.sqrt(np.mean(inputs**2, axis=1, keepdims=True) + 1e-5) * cell.scale
    v, z = np.split(normed @ cell.weight_in.T, 2, axis=1)
    past = np.concatenate([np.zeros((2, 6)), v])
    convolved = sum(past[j : j + 12] * cell.kernel[j] for j in range(3)) + cell.bias
    output = lejax.unroll(
        cell.selective, cell.selective.initial_state(), jax.nn.silu(jnp.asarray(convolved))
    )[1]
    expected = inputs + (output * jax.nn.silu(z)) @ cell.weight_out.T
    states = lejax.unroll(cell, cell.initial_state(), inputs)
    np.testing.assert_allclose(jax.vmap(cell.output)(states), expected, rtol=1e-12)


def test_mamba_block_has_the_exponents_of_its_state_space_and_lost_directions():
    cell = make_mamba_block()
    spectrum = run(cell, transient=50)
    buffered = jax.vmap(lambda state: state[0])(lejax.unroll(cell, cell.initial_state(), INPUTS))
    padded = np.concatenate([np.zeros((1, 2, 6)), buffered])  # the buffer before each step
    window = np.concatenate([padded[:-1], buffered[:, -1:]], axis=1)
    convolved = jax.nn.silu(np.sum(cell.kernel * window, axis=1) + cell.bias)
    inner = run(cell.selective, convolved, transient=50, num_exponents=12)
    np.testing.assert_allclose(spectrum.exponents[:12], inner.exponents, rtol=1e-12)
    assert np.all(np.isneginf(spectrum.exponents[12:]))
    assert spectrum.exponents.size == 12 + 2 * 6 + 3
    dense = lejax.lyapunov_spectrum(
        WithoutBlocks(cell), cell.initial_state(), INPUTS, transient=50, num_exponents=12
    )
    np.testing.assert_allclose(dense.exponents, inner.exponents, atol=5 / 150)
    # The buffer is a shift register: after as many steps as its length, a deviation has left it.
    steps = [lejax.jacobian(cell, cell.initial_state(), u)[:12, :12] for u in INPUTS[:2]]
    assert np.all(steps[1] @ steps[0] == 0)


@pytest.mark.slow
def test_stack_of_mamba_blocks():
    layers = [make_mamba_block(), MambaCell(3, 2, width=2, key=jr.key(7))]
    stack = Stack(layers)
    spectrum = run(stack, num_exponents=24)
    first = run(layers[0], num_exponents=12).exponents
    output = jax.vmap(layers[0].output)(lejax.unroll(layers[0], layers[0].initial_state(), INPUTS))
    second = run(layers[1], output, num_exponents=12).exponents
    union = np.sort(np.concatenate([first, second]))[::-1]
    np.testing.assert_allclose(spectrum.exponents, union, rtol=1e-12)
    assert np.all(spectrum.exponents < 0)


def test_linear_recurrent_unit():
    cell = LRUCell(3, 4, min_radius=0.4, max_radius=0.9, key=jr.key(8))
    rates = np.exp(-np.exp(cell.log_decay) + 1j * np.exp(cell.log_phase))
    assert np.abs(rates).min() > 0.4
    assert np.abs(rates).max() < 0.9
    np.testing.assert_allclose(np.exp(cell.log_gamma), np.sqrt(1 - np.abs(rates) ** 2), rtol=1e-12)
    B, C = (np.asarray(x) @ [1, 1j] for x in (cell.B, cell.C))
    x = np.zeros(4, complex)
    states = lejax.unroll(cell, cell.initial_state(), INPUTS[:6])
    for u, modes, output in zip(INPUTS, *states, strict=False):
        x = rates * x + np.exp(cell.log_gamma) * (B @ u)
        np.testing.assert_allclose(modes, np.stack([x.real, x.imag], axis=1), rtol=1e-12)
        np.testing.assert_allclose(output, (C @ x).real + cell.D * u, rtol=1e-12)
    exact = np.repeat(np.sort(-np.exp(cell.log_decay))[::-1], 2)
    spectrum = run(cell)
    np.testing.assert_allclose(spectrum.exponents[:8], exact, rtol=1e-12)
    assert np.all(np.isneginf(spectrum.exponents[8:]))
    # The modes rotate the frame, but the area of a pair of directions follows the closed form at every step.
    dense = lejax.lyapunov_spectrum(
        MemoryOnly(cell), cell.initial_state()[0], INPUTS, method=SequentialQR(every=1)
    )
    np.testing.assert_allclose(np.sum(dense.exponents), np.sum(exact), rtol=1e-12)
    np.testing.assert_allclose(dense.exponents, exact, atol=5 / 200)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS, ids=NAMES)
def test_diagonal_state_space(discretization):
    cell = S4DCell(3, 4, discretization, key=jr.key(9))
    rates, dt = np.asarray(diagonal_legs(4)) @ [1, 1j], np.exp(cell.log_dt)[:, None]
    exact = np.repeat(per_step(discretization, rates, dt).ravel(), 2)
    spectrum = run(cell, num_exponents=24)
    np.testing.assert_allclose(spectrum.exponents, np.sort(exact)[::-1], rtol=1e-11)
    # The response of the output to an impulse is the kernel of the equivalent convolution.
    decay, gain = discretization.diagonal(rates, dt)
    C = np.asarray(cell.C) @ [1, 1j]
    inputs = jnp.zeros((5, 3)).at[0].set(1.0)
    output = lejax.unroll(cell, cell.initial_state(), inputs)[1]
    powers = decay ** np.arange(5)[:, None, None]
    kernel = 2 * np.sum(C * powers * gain, axis=2).real + np.eye(5)[0, :, None] * cell.D
    np.testing.assert_allclose(output, kernel, rtol=1e-11, atol=1e-14)


CELLS = {
    "S6": lambda dtype=None: S6Cell(3, 2, dtype=dtype, key=jr.key(1)),
    "Mamba": lambda dtype=None: MambaCell(3, 2, 1, 2, dtype=dtype, key=jr.key(1)),
    "LRU": lambda dtype=None: LRUCell(3, 3, dtype=dtype, key=jr.key(1)),
    "S4D": lambda dtype=None: S4DCell(3, 2, dtype=dtype, key=jr.key(1)),
}


def with_slow(*fast):
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in CELLS]


@pytest.mark.parametrize("name", with_slow("S6"))
def test_closed_loop_has_the_path_through_the_output(name):
    cell, readout = CELLS[name](), eqx.nn.Linear(3, 3, key=jr.key(2))
    loop = ClosedLoop(cell, readout)
    state = jax.tree.map(lambda x: x + 0.3, loop.initial_state())
    states = lejax.unroll(loop, state, num_steps=5)
    before = jnp.concatenate([cell.output(state)[None], jax.vmap(cell.output)(states)[:-1]])
    driven = lejax.unroll(cell, state, jax.vmap(readout)(before))
    for closed_leaf, driven_leaf in zip(states, driven, strict=True):
        np.testing.assert_allclose(closed_leaf, driven_leaf, rtol=1e-12)
    # The input of a step depends on the last output, so the Jacobian differs from that of the recurrence.
    vector, unravel = ravel_pytree(state)
    exact = jax.jacfwd(lambda x: ravel_pytree(loop(None, unravel(x)))[0])(vector)
    np.testing.assert_allclose(lejax.jacobian(loop, state), exact, rtol=1e-10, atol=1e-13)
    without_loop = lejax.jacobian(cell, state, readout(cell.output(state)))
    assert np.abs(exact - without_loop)[:, -3:].max() > 1e-3
    assert np.all(without_loop[:, -3:] == 0)


def test_exponents_of_a_closed_loop():
    loop = ClosedLoop(selective(), eqx.nn.Linear(3, 3, key=jr.key(2)))
    spectrum = run(loop, None, num_steps=100, num_exponents=9)
    states = lejax.unroll(loop, loop.initial_state(), num_steps=99)
    jacobians = jax.vmap(lambda state: lejax.jacobian(loop, state))(
        jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), loop.initial_state(), states)
    )
    volumes = np.linalg.slogdet(np.asarray(jacobians))[1]
    np.testing.assert_allclose(np.sum(spectrum.exponents), np.mean(volumes), rtol=1e-8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", with_slow("LRU"))
def test_exponents_in_low_precision(name, dtype):
    cell = CELLS[name]()
    low = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_array(x) else x, cell)
    made = CELLS[name](jnp.float32)
    assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}
    count = 2 * 3 if name != "S4D" else 2 * 2 * 3  # size of the memory
    high = run(cell, INPUTS[:50], num_exponents=count)
    spectrum = run(low, INPUTS[:50].astype(dtype), num_exponents=count)
    assert spectrum.exponents.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(spectrum.state)} == {jnp.dtype(dtype)}
    tolerance = 1e-4 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(spectrum.exponents, high.exponents, rtol=tolerance, atol=1e-6)


def test_one_large_step_loses_no_exponent():
    # In a step of 30 the fastest mode decays by e^-480, which underflows in float32; its logarithm does not.
    cell = S6Cell(1, 16, dtype=jnp.float32, key=jr.key(1))
    inputs = jnp.zeros((100, 1), jnp.float32).at[50].set(30.0)
    one = jnp.ones((1, 1), jnp.float32)
    cell = eqx.tree_at(
        lambda c: (c.weight_step_down, c.weight_step, c.bias_step), cell, (one, one, one[0])
    )
    mean = np.mean(np.logaddexp(0, np.asarray(inputs, float) + 1))
    spectrum = run(cell, inputs, num_exponents=16)
    np.testing.assert_allclose(spectrum.exponents, -mean * np.arange(1, 17), rtol=1e-5)


@pytest.mark.parametrize("modulus", [0.999, 0.99999])
def test_slow_modes_are_exact_in_float32(modulus):
    ring = {"min_radius": modulus - 1e-6, "max_radius": modulus}
    cell = LRUCell(1, 8, dtype=jnp.float32, key=jr.key(1), **ring)
    exact = np.sort(-np.exp(np.asarray(cell.log_decay, float)))[::-1]
    exponents = run(cell, jnp.ones((1000, 1), jnp.float32), num_exponents=16).exponents
    np.testing.assert_allclose(exponents[::2], exact, rtol=3e-6)


def test_drawn_phases_fill_the_sector():
    for max_phase in (0.3, 3.0):
        cell = LRUCell(1, 300, max_phase=max_phase, key=jr.key(1))
        phases = np.exp(cell.log_phase)
        assert 0.95 * max_phase < phases.max() <= max_phase
        np.testing.assert_allclose(phases.mean(), max_phase / 2, rtol=0.1)


def test_complex_inputs_are_refused():
    for name in CELLS:
        cell = CELLS[name]()
        with pytest.raises(TypeError, match="real inputs, got complex128"):
            cell(jnp.ones(3, complex), cell.initial_state())
