"""Theorems that a Lyapunov spectrum obeys, whatever the network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from networks import Linear, driven_gru, random_tanh

import lejax
from lejax import RESULTS, SequentialQR


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_linear_map_has_log_moduli_of_its_eigenvalues(seed):
    size = 4
    rng = np.random.default_rng(seed)
    moduli = np.exp(-np.arange(size) * rng.uniform(0.3, 1.0) + rng.uniform(-1, 1))
    signs = rng.choice([-1.0, 1.0], size)
    basis = rng.normal(size=(size, size)) + 3 * np.eye(size)
    matrix = basis @ np.diag(signs * moduli) @ np.linalg.inv(basis)
    spectrum = lejax.lyapunov_spectrum(
        Linear(jnp.asarray(matrix)), jnp.zeros(size), num_steps=200, transient=150
    )
    np.testing.assert_allclose(spectrum.exponents, np.log(moduli), atol=1e-7)


def test_complex_pair_has_the_log_modulus_as_mean():
    rotation = jnp.array([[0.0, -0.9], [0.9, 0.0]]) @ jnp.diag(jnp.array([1.5, 1 / 1.5]))
    spectrum = lejax.lyapunov_spectrum(Linear(rotation), jnp.ones(2), num_steps=400)
    np.testing.assert_allclose(spectrum.exponents.mean(), np.log(0.9), atol=1e-12)


def test_orthogonal_map_has_only_zeros():
    matrix = jnp.linalg.qr(jr.normal(jr.key(0), (5, 5)))[0]
    spectrum = lejax.lyapunov_spectrum(Linear(matrix), jnp.ones(5), num_steps=500)
    np.testing.assert_allclose(spectrum.exponents, 0, atol=1e-14)


def test_default_frame_finds_the_leading_direction():
    cell = Linear(jnp.diag(jnp.array([0.5, 1.1])))
    spectrum = lejax.lyapunov_spectrum(
        cell, jnp.zeros(2), num_exponents=1, num_steps=100, transient=100
    )
    np.testing.assert_allclose(spectrum.exponents, [np.log(1.1)], atol=1e-12)


def test_first_k_of_a_full_run_are_a_run_with_k():
    cell, state, inputs = driven_gru()
    frame = jr.normal(jr.key(5), (6, 6))
    full = lejax.lyapunov_spectrum(cell, state, inputs, frame=frame)
    for k in (1, 3, 5):
        part = lejax.lyapunov_spectrum(cell, state, inputs, frame=frame[:, :k])
        np.testing.assert_allclose(part.exponents, full.exponents[:k], atol=1e-12)
        np.testing.assert_allclose(part.standard_error, full.standard_error[:k], atol=1e-10)


def test_coordinates_do_not_matter():
    cell, state, inputs = driven_gru(num_steps=2000)
    change = jr.normal(jr.key(3), (6, 6)) + 2 * jnp.eye(6)
    back = jnp.linalg.inv(change)

    def transformed(input, state):
        return change @ cell(input, back @ state)

    one = lejax.lyapunov_spectrum(cell, state, inputs, transient=100)
    two = lejax.lyapunov_spectrum(transformed, change @ state, inputs, transient=100)
    # Frames align at the rate of the gaps and leave a bias of order 1/T.
    np.testing.assert_allclose(one.exponents, two.exponents, atol=5e-3)
    np.testing.assert_allclose(one.exponents.sum(), two.exponents.sum(), atol=5e-3)
    np.testing.assert_allclose(change @ one.state, two.state, atol=1e-10)


@pytest.mark.parametrize("every", [1, 4])
def test_chained_runs_are_one_long_run(every):
    cell, state, inputs = driven_gru()
    settings = {"method": SequentialQR(every=every)}
    whole = lejax.lyapunov_spectrum(cell, state, inputs, num_blocks=6, **settings)
    first = lejax.lyapunov_spectrum(cell, state, inputs[:80], num_blocks=4, **settings)
    second = lejax.lyapunov_spectrum(
        cell, first.state, inputs[80:], frame=first.frame, num_blocks=2, **settings
    )
    both = lejax.combine(first, second)
    for name in ("exponents", "standard_error", "block_exponents", "state", "frame"):
        np.testing.assert_allclose(getattr(both, name), getattr(whole, name), atol=1e-11)
    for name in ("num_steps", "block_steps", "dt"):
        assert np.array_equal(getattr(both, name), getattr(whole, name))
    for name in ("longest_interval", "unresolved", "first_bad_step"):
        ours, theirs = (getattr(run.diagnostics, name) for run in (both, whole))
        assert np.array_equal(ours, theirs)
    assert bool(both.result == RESULTS.successful)


def test_blocks_fill_the_run_and_average_to_the_exponents():
    cell, state, inputs = driven_gru(num_steps=117)
    spectrum = lejax.lyapunov_spectrum(cell, state, inputs, transient=10, num_blocks=8)
    assert int(spectrum.block_steps.sum()) == 107
    assert set(np.asarray(spectrum.block_steps)) == {13, 14}
    weights = spectrum.block_steps / 107
    np.testing.assert_allclose(weights @ spectrum.block_exponents, spectrum.exponents, atol=1e-14)
    one = lejax.lyapunov_spectrum(cell, state, inputs, transient=10, num_blocks=1)
    np.testing.assert_allclose(one.exponents, spectrum.exponents, atol=1e-12)
    assert np.isnan(one.standard_error).all()
    # More blocks than steps: one block a step.
    short = lejax.lyapunov_spectrum(cell, state, inputs[:5])
    assert short.block_exponents.shape == (5, 6)


def test_blocks_are_windows():
    cell, state, inputs = driven_gru()
    run = lejax.lyapunov_spectrum(cell, state, inputs, num_steps=100, num_blocks=4)
    windows = run.block_exponents
    assert windows.shape == (4, 6)
    first = lejax.lyapunov_spectrum(cell, state, inputs[:25])
    np.testing.assert_allclose(windows[0], first.exponents, atol=1e-12)
    whole = lejax.lyapunov_spectrum(cell, state, inputs[:100])
    np.testing.assert_allclose(windows.mean(axis=0), whole.exponents, atol=1e-12)


def test_transient_moves_state_and_frame_uncounted():
    cell, state, inputs = driven_gru()
    skipped = lejax.lyapunov_spectrum(cell, state, inputs, transient=40)
    first = lejax.lyapunov_spectrum(cell, state, inputs[:40])
    second = lejax.lyapunov_spectrum(cell, first.state, inputs[40:], frame=first.frame)
    np.testing.assert_allclose(skipped.exponents, second.exponents, atol=1e-12)
    np.testing.assert_allclose(skipped.state, second.state, atol=1e-14)


def test_dt_divides_exponents_and_errors():
    cell, state, inputs = driven_gru()
    steps = lejax.lyapunov_spectrum(cell, state, inputs)
    timed = lejax.lyapunov_spectrum(cell, state, inputs, dt=0.25)
    for name in ("exponents", "standard_error", "block_exponents"):
        np.testing.assert_allclose(getattr(timed, name), 4 * getattr(steps, name), rtol=1e-12)
    lost = [run.diagnostics.rounding_error for run in (timed, steps)]
    np.testing.assert_allclose(lost[0], 4 * lost[1], rtol=1e-12)
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.02)
    own = lejax.lyapunov_spectrum(flow, jnp.ones(3), num_steps=100)
    given_dt = lejax.lyapunov_spectrum(flow, jnp.ones(3), num_steps=100, dt=0.02)
    per_step = lejax.lyapunov_spectrum(flow, jnp.ones(3), num_steps=100, dt=1.0)
    np.testing.assert_allclose(own.exponents, given_dt.exponents, rtol=1e-15)
    np.testing.assert_allclose(own.exponents, 50 * per_step.exponents, rtol=1e-12)
    # A wrapper keeps the unit of time of what it wraps.
    wrapped = lejax.cells.Stack([flow])
    stacked = lejax.lyapunov_spectrum(wrapped, (jnp.ones(3),), num_steps=100)
    np.testing.assert_allclose(stacked.exponents, own.exponents, rtol=1e-12)


def test_many_networks_by_vmap_are_the_loop_over_them():
    keys = jr.split(jr.key(0), 3)
    cells = eqx.filter_vmap(lambda key: random_tanh(key, 8, 1.2))(keys)
    state = jr.normal(jr.key(1), (8,))

    def spectrum(cell):
        return lejax.lyapunov_spectrum(cell, state, num_steps=40)

    batch = eqx.filter_vmap(spectrum)(cells)
    for i, key in enumerate(keys):
        alone = spectrum(random_tanh(key, 8, 1.2))
        np.testing.assert_allclose(batch.exponents[i], alone.exponents, atol=1e-10)
        np.testing.assert_allclose(batch.standard_error[i], alone.standard_error, atol=1e-9)
        assert batch.diagnostics.first_bad_step[i] == alone.diagnostics.first_bad_step


def test_interval_leaves_well_resolved_exponents_alone():
    cell, state, inputs = driven_gru()
    one = lejax.lyapunov_spectrum(cell, state, inputs)
    for every in (2, 5, 7):
        coarse = lejax.lyapunov_spectrum(cell, state, inputs, method=SequentialQR(every=every))
        np.testing.assert_allclose(coarse.exponents, one.exponents, atol=1e-11)
        assert (
            coarse.diagnostics.rounding_error.max() < 1e-12
        )  # the estimate knows that nothing was lost
        # Blocks of six steps end with an orthonormalization of their own, and intervals are equal.
        assert int(coarse.diagnostics.longest_interval) == {2: 2, 5: 3, 7: 6}[every]
        np.testing.assert_array_equal(coarse.state, one.state)


@pytest.fixture(scope="module")
def stiff():
    """A tanh network of 64 units at gain 2, whose spectrum spans more than 5 nats a step."""
    return random_tanh(jr.key(1), 64, 2.0), jr.normal(jr.key(2), (64,))


def test_too_long_an_interval_is_noticed(stiff):
    cell, state = stiff
    run = eqx.Partial(lejax.lyapunov_spectrum, cell, state, num_steps=200, throw=False)
    exact = run()
    coarse = run(method=SequentialQR(every=10))
    # The damage other libraries leave unsaid, and its report here.
    assert coarse.exponents[-1] > exact.exponents[-1] + 1
    assert bool(exact.result == RESULTS.successful)
    assert bool(coarse.result == RESULTS.interval_too_long)
    assert coarse.diagnostics.unresolved[-1] > 0
    np.testing.assert_allclose(coarse.exponents[:8], exact.exponents[:8], atol=1e-9)
    with pytest.raises(RuntimeError, match=r"up to 10 steps are .*throw=False"):
        lejax.lyapunov_spectrum(
            cell, state, num_steps=50, num_blocks=5, method=SequentialQR(every=10)
        )
    # The leading exponents alone tolerate the same interval.
    few = run(num_exponents=8, method=SequentialQR(every=10))
    assert bool(few.result == RESULTS.successful)


def test_rounding_error_is_an_estimate_of_the_error(stiff):
    cell, state = stiff
    run = eqx.Partial(
        lejax.lyapunov_spectrum, cell, state, num_steps=200, num_exponents=48, throw=False
    )
    exact = run(method=SequentialQR(every=1, orthonormalizer=lejax.Householder()))
    for every in (2, 4, 6):
        coarse = run(method=SequentialQR(every=every))
        error = np.abs(coarse.exponents - exact.exponents).max()
        assert error < 10 * coarse.diagnostics.rounding_error.max() + 1e-12


@pytest.mark.parametrize(
    ("k", "tolerance"), [(64, None), (64, 1e-12), (32, None), (32, 1e-10), (8, None)]
)
def test_the_adaptive_interval_keeps_the_accuracy(stiff, k, tolerance):
    cell, state = stiff
    run = eqx.Partial(
        lejax.lyapunov_spectrum,
        cell,
        state,
        num_steps=128,
        num_exponents=k,
        num_blocks=1,
        throw=False,
    )
    adaptive = run(method=SequentialQR(tolerance=tolerance))
    assert bool(adaptive.result == RESULTS.successful)
    found, longest = adaptive.diagnostics, int(adaptive.diagnostics.longest_interval)
    exact = run(method=SequentialQR(every=1, orthonormalizer=lejax.Householder()))
    unavoidable = exact.diagnostics.rounding_error.max()
    assert found.rounding_error.max() <= (tolerance or 1e-8) + unavoidable
    assert found.avoidable_error.max() == 0
    # The estimate is right to a factor of ten: how rounding falls differs between processors.
    error = np.abs(adaptive.exponents - exact.exponents).max()
    assert error < 10 * (found.rounding_error.max() + unavoidable)
    assert error < 10 * (tolerance or 1e-9) + 10 * unavoidable
    # It is about as long as can be: what is twice as long everywhere loses more.
    longer = run(method=SequentialQR(every=2 * longest))
    assert longest > 60 or longer.diagnostics.rounding_error.max() > (tolerance or 1e-8)
    if k == 64:  # more than 5 nats a step: two or three steps exhaust float64
        assert longest <= 4
    else:
        assert longest > 2
    assert found.num_orthonormalizations >= 128 / longest


def test_singular_jacobians_lose_only_their_own_directions():
    matrix = jnp.diag(jnp.array([1.2, 0.8, 0.0, 0.5]))
    basis = jnp.linalg.qr(jr.normal(jr.key(0), (4, 4)))[0]
    for cell in (Linear(matrix), Linear(basis @ matrix @ basis.T)):
        for orthonormalizer in (None, lejax.Householder(), lejax.Cholesky()):
            spectrum = lejax.lyapunov_spectrum(
                cell,
                jnp.zeros(4),
                num_steps=200,
                transient=200,
                method=SequentialQR(orthonormalizer=orthonormalizer),
            )
            np.testing.assert_allclose(spectrum.exponents[:3], np.log([1.2, 0.8, 0.5]), atol=1e-10)
            assert spectrum.exponents[3] < -20  # -inf, or the rounding noise that bounds it
            assert int(spectrum.diagnostics.unresolved[3]) == 200
            assert np.all(spectrum.diagnostics.unresolved[:3] == 0)
            assert not np.isnan(spectrum.exponents).any()
            assert bool(spectrum.result == RESULTS.successful)


def test_exact_zero_is_minus_infinity():
    cell = Linear(jnp.zeros((2, 2)))
    spectrum = lejax.lyapunov_spectrum(cell, jnp.zeros(2), num_steps=10)
    assert np.all(spectrum.exponents == -np.inf)
    assert np.isnan(spectrum.standard_error).all()
    assert np.all(spectrum.diagnostics.rounding_error == 0)


def test_a_diverging_run_says_when():
    quadratic = lejax.systems.Henon()
    start = jnp.array([3.0, 3.0])
    states = lejax.unroll(quadratic, start, num_steps=30)
    first_bad = 1 + int(np.argmax(~np.isfinite(states).all(axis=1)))
    with pytest.raises(RuntimeError, match=f"at step {first_bad}"):
        lejax.lyapunov_spectrum(quadratic, start, num_steps=30)
    spectrum = lejax.lyapunov_spectrum(quadratic, start, num_steps=30, transient=2, throw=False)
    assert int(spectrum.diagnostics.first_bad_step) == first_bad
    assert bool(spectrum.result == RESULTS.nonfinite)
    starts = jnp.array([[3.0, 3.0], [0.1, 0.1]])
    batch = jax.vmap(lambda x: lejax.lyapunov_spectrum(quadratic, x, num_steps=500))(starts)
    assert np.isfinite(batch.exponents[1]).all()
    assert list(np.asarray(batch.diagnostics.first_bad_step)) == [first_bad, -1]


@pytest.mark.parametrize("where", ["weights", "state", "inputs"])
def test_nonfinite_numbers_are_named(where):
    cell, state, inputs = driven_gru()
    if where == "weights":
        cell = eqx.tree_at(lambda c: c.weight_hh, cell, cell.weight_hh.at[0, 0].set(jnp.nan))
        pattern = r"GRUCell\.weight_hh holds 1 non-finite value out of 108"
    elif where == "state":
        state, pattern = state.at[2].set(jnp.inf), r"step 0\. state holds 1 non-finite"
    else:
        inputs, pattern = inputs.at[7, 1].set(jnp.nan), r"step 8\. inputs holds 1 non-finite"
    with pytest.raises(RuntimeError, match=pattern):
        lejax.lyapunov_spectrum(cell, state, inputs)


def test_a_plain_function_sees_its_present_weights_and_gives_gradients():
    weights = {"a": jnp.array(0.5)}

    def cell(input, state):
        return weights["a"] * state

    def exponent():
        return lejax.lyapunov_spectrum(cell, jnp.ones(1), num_steps=10).exponents[0]

    np.testing.assert_allclose(exponent(), np.log(0.5), atol=1e-14)
    weights["a"] = jnp.array(0.25)
    np.testing.assert_allclose(exponent(), np.log(0.25), atol=1e-14)

    def through(a):
        return lejax.lyapunov_spectrum(
            lambda input, state: a * state, jnp.ones(1), num_steps=10
        ).exponents[0]

    np.testing.assert_allclose(jax.grad(through)(0.5), 2.0, atol=1e-12)


def test_mixed_and_nested_states():
    key1, key2 = jr.split(jr.key(0))
    stack = lejax.cells.Stack(
        [eqx.nn.LSTMCell(2, 4, key=key1), lejax.cells.GRUCell(4, 3, key=key2)]
    )
    inputs = jr.normal(jr.key(1), (200, 2))
    spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), inputs, transient=20)
    assert spectrum.exponents.shape == (11,)
    (hidden, memory), top = spectrum.state
    assert (hidden.shape, memory.shape, top.shape) == ((4,), (4,), (3,))
    # Block triangular: the exponents of a stack are those of its layers, each under its own input.
    lower = lejax.lyapunov_spectrum(
        stack.layers[0], (jnp.zeros(4), jnp.zeros(4)), inputs, transient=20
    )
    hidden = lejax.unroll(stack.layers[0], (jnp.zeros(4), jnp.zeros(4)), inputs)[0]
    upper = lejax.lyapunov_spectrum(stack.layers[1], jnp.zeros(3), hidden, transient=20)
    union = np.sort(np.concatenate([lower.exponents, upper.exponents]))
    np.testing.assert_allclose(np.sort(spectrum.exponents), union, atol=0.03)
    np.testing.assert_allclose(spectrum.exponents.sum(), union.sum(), atol=1e-2)


def test_unroll_and_jacobian_agree_with_the_tangent():
    cell, state, inputs = driven_gru()
    states = lejax.unroll(cell, state, inputs)
    assert states.shape == (120, 6)
    np.testing.assert_allclose(states[0], cell(inputs[0], state), atol=1e-15)
    np.testing.assert_array_equal(lejax.unroll(cell, state, inputs, num_steps=7), states[:7])
    matrix = lejax.jacobian(cell, states[4], inputs[5])
    np.testing.assert_allclose(
        matrix, jax.jacfwd(lambda h: cell(inputs[5], h))(states[4]), atol=1e-14
    )
    frame = jr.normal(jr.key(0), (6, 2))
    following, pushed = lejax.push_forward(cell, states[4], inputs[5], frame)
    np.testing.assert_allclose(following, states[5], atol=1e-15)
    np.testing.assert_allclose(pushed, matrix @ frame, atol=1e-14)


MIXING = jnp.array(
    [[0.9, 0.2, 0.1, 0.3], [0.1, 0.6, 0.2, 0.1], [0.0, 0.3, 0.4, 0.2], [0.2, 0.1, 0.1, 0.3]]
)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(jnp.float64, 1e170), (jnp.float64, 1e-170), (jnp.float32, 1e22), (jnp.float32, 1e-22)],
)
@pytest.mark.parametrize(
    "matrix", [MIXING, MIXING.at[3].set(MIXING[2])], ids=["regular", "singular"]
)
def test_scale_is_only_an_offset(dtype, scale, matrix):
    matrix = matrix.astype(dtype)

    def run(factor):
        cell = Linear(matrix * jnp.asarray(factor, dtype))
        return lejax.lyapunov_spectrum(cell, jnp.zeros(4, dtype), num_steps=60, transient=20)

    one, scaled = run(1.0), run(scale)
    kept = np.asarray(one.diagnostics.unresolved) == 0
    assert kept.sum() == (4 if matrix is MIXING or kept.all() else 3)
    offset = np.log(scale)
    accuracy = 20 * jnp.finfo(dtype).eps * abs(offset)
    np.testing.assert_allclose(scaled.exponents[kept] - offset, one.exponents[kept], atol=accuracy)
    np.testing.assert_array_equal(scaled.diagnostics.unresolved, one.diagnostics.unresolved)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("rates", [(-1.204, -2.303), (-5.809, -7.601), (3.0, 2.0)])
def test_no_interval_ruins_an_exponent_unnoticed(dtype, rates):
    basis = jnp.array([[1.0, 0.4], [0.3, 1.0]])
    matrix = basis @ jnp.diag(jnp.exp(jnp.array(rates))) @ jnp.linalg.inv(basis)
    cell = Linear(matrix.astype(dtype))
    for every in (1, 8, 16, 24, 32, 40, 48, 64):
        run = lejax.lyapunov_spectrum(
            cell,
            jnp.zeros(2, dtype),
            num_steps=512,
            transient=64,
            num_blocks=1,
            method=SequentialQR(every=every),
            throw=False,
        )
        error = np.abs(run.exponents - np.array(rates)).max()
        accuracy = 10 * run.diagnostics.rounding_error.max() + 500 * jnp.finfo(dtype).eps
        assert bool(run.result != RESULTS.successful) or error < accuracy


def test_a_function_inside_a_module_is_not_stale():
    parameters = {"rate": jnp.array(-0.5)}
    flow = lejax.systems.Flow(lambda input, x: parameters["rate"] * x, dt=0.1)

    def exponent():
        return lejax.lyapunov_spectrum(flow, jnp.ones(1), num_steps=10).exponents[0]

    np.testing.assert_allclose(exponent(), -0.5, atol=1e-6)
    parameters["rate"] = jnp.array(-2.0)
    np.testing.assert_allclose(exponent(), -2.0, atol=1e-4)

    def through(rate):
        flow = lejax.systems.Flow(lambda input, x: rate * x, dt=0.1)
        return lejax.lyapunov_spectrum(flow, jnp.ones(1), num_steps=10).exponents[0]

    np.testing.assert_allclose(jax.grad(through)(-0.5), 1.0, atol=1e-3)


def test_interval_is_refused_for_a_singular_jacobian_with_a_reason():
    matrix = MIXING.at[3].set(MIXING[2])
    with pytest.raises(RuntimeError, match="singular, use every=1 or fewer exponents"):
        lejax.lyapunov_spectrum(
            Linear(matrix), jnp.zeros(4), num_steps=40, method=SequentialQR(every=2)
        )
    every_step = lejax.lyapunov_spectrum(Linear(matrix), jnp.zeros(4), num_steps=40)
    frame = jr.normal(jr.key(0), (4, 4))
    few = lejax.lyapunov_spectrum(
        Linear(matrix), jnp.zeros(4), num_steps=40, frame=frame[:, :2], method=SequentialQR(every=2)
    )
    full = lejax.lyapunov_spectrum(Linear(matrix), jnp.zeros(4), num_steps=40, frame=frame)
    np.testing.assert_allclose(few.exponents, full.exponents[:2], atol=1e-12)
    assert bool(every_step.result == RESULTS.successful)


class Complex(eqx.Module):
    """A complex diagonal recurrence on real pairs (.., 2)."""

    eigenvalues: jax.Array

    def __call__(self, input, state):
        z = self.eigenvalues * (state[:, 0] + 1j * state[:, 1])
        return jnp.stack([z.real, z.imag], axis=1)


def test_complex_weights_on_real_pairs():
    eigenvalues = jnp.array([0.9 * jnp.exp(0.5j), 0.5 * jnp.exp(2j)])
    spectrum = lejax.lyapunov_spectrum(
        Complex(eigenvalues), jnp.ones((2, 2)), num_steps=200, transient=100
    )
    expected = np.log([0.9, 0.9, 0.5, 0.5])
    np.testing.assert_allclose(spectrum.exponents, expected, atol=1e-10)
    sick = Complex(eigenvalues.at[0].set(jnp.nan))
    with pytest.raises(RuntimeError, match=r"eigenvalues holds 1 non-finite value out of 2"):
        lejax.lyapunov_spectrum(sick, jnp.ones((2, 2)), num_steps=3)
