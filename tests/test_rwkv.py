"""RWKV-7: the published equations in plain NumPy, exponents in closed form and by dense QR decompositions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from dense_exponents import dense_exponents, random_frame

import lejax
from lejax import ParallelQR, SequentialQR
from lejax.cells import ClosedLoop, RWKV7Cell, Stack


def make_cell(size=6, heads=2, rank=3, dtype=None, seed=0):
    """A cell none of whose weights has a special value."""
    cell = RWKV7Cell(size, heads, rank, dtype, key=jr.key(seed))
    leaves, tree = jax.tree.flatten(cell)
    keys = jr.split(jr.key(seed + 100), len(leaves))
    moved = [x + 0.3 * jr.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def change(cell, **weights):
    names = list(weights)
    values = [jnp.broadcast_to(weights[n], getattr(cell, n).shape) for n in names]
    return eqx.tree_at(lambda c: [getattr(c, n) for n in names], cell, values)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def standardized(x, epsilon):
    return (x - x.mean()) / np.sqrt(x.var() + epsilon)


def published(cell, inputs):
    """Equations (1) to (21) of the paper for a first layer: row vectors, memories (value, key)."""
    p = {n: np.asarray(x, float) for n, x in vars(cell).items()}
    heads, size = p["bonus"].shape
    shifted, memories = np.zeros(heads * size), np.zeros((heads, size, size))
    states = []
    for u in np.asarray(inputs, float):
        x = standardized(u, 1e-5) * p["scale"] + p["bias"]
        x_r, x_w, x_k, x_v, x_a, x_g = (x + (shifted - x) * mu for mu in p["mix"])
        shifted = x
        r, k, v = x_r @ p["weight_r"].T, x_k @ p["weight_k"].T, x_v @ p["weight_v"].T
        d = np.tanh(x_w @ p["decay_down"].T) @ p["decay_up"].T + p["decay_bias"]
        a = sigmoid(x_a @ p["rate_down"].T @ p["rate_up"].T + p["rate_bias"])
        g = sigmoid(x_g @ p["gate_down"].T) @ p["gate_up"].T
        w = np.exp(-np.exp(-0.5) * sigmoid(d))
        kappa, k = k * p["erase_scale"], k * (1 + (a - 1) * p["rate_mix"])
        mixed = np.zeros_like(x)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            unit = kappa[part] / np.sqrt(np.sum(kappa[part] ** 2))
            transition = np.diag(w[part]) - np.outer(unit, a[part] * unit)
            memories[h] = memories[h] @ transition + np.outer(v[part], k[part])
            read = standardized(r[part] @ memories[h].T, 64e-5)
            read = read * p["group_scale"][part] + p["group_bias"][part]
            mixed[part] = read + (r[part] * p["bonus"][h]) @ k[part] * v[part]
        output = u + (g * mixed) @ p["weight_out"].T
        states.append((x, memories.transpose(0, 2, 1).copy(), output))
    return [np.stack(x) for x in zip(*states, strict=True)]


def transitions(cell, inputs):
    """The matrices P (T, H, N, N), from how a step acts on its memory."""
    heads, size = cell.bonus.shape
    start = cell.initial_state()

    def matrices(input, shifted):
        def move(memory):
            return cell(input, (shifted, memory, start[2]))[1]

        bases = jnp.broadcast_to(jnp.eye(size), (heads, size, size))
        return move(bases) - move(jnp.zeros_like(bases))

    shifted = lejax.unroll(cell, start, inputs)[0]
    shifted = jnp.concatenate([start[0][None], shifted[:-1]])
    return np.asarray(jax.vmap(matrices)(inputs, shifted))


def run(cell, inputs, **keywords):
    count = cell.bonus.size * cell.bonus.shape[1]
    return lejax.lyapunov_spectrum(
        cell, cell.initial_state(), inputs, num_exponents=count, **keywords
    )


@pytest.mark.parametrize(("size", "heads"), [(8, 2), (72, 2)])
def test_the_published_equations_over_200_steps(size, heads):
    inputs = jr.normal(jr.key(1), (200, size))
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):
        cell = make_cell(size, heads, dtype=dtype)
        states = lejax.unroll(cell, cell.initial_state(), inputs.astype(dtype))
        expected_states = published(cell, inputs.astype(dtype))
        names = ("shifted", "memory", "output")
        for name, state, expected in zip(names, states, expected_states, strict=True):
            assert state.dtype == dtype
            scale = np.abs(expected).max()
            assert np.abs(state - expected).max() <= tolerance * max(1, scale), name


def test_exponents_are_those_of_a_dense_qr_and_sum_to_the_determinants():
    inputs = jr.normal(jr.key(2), (600, 6))
    cell = make_cell()
    spectrum = run(cell, inputs, transient=300)
    np.testing.assert_array_equal(spectrum.exponents[::3], spectrum.exponents[2::3])
    volumes = np.linalg.slogdet(transitions(cell, inputs[:300]))[1]
    short = run(cell, inputs[:300], method=SequentialQR(every=1))
    np.testing.assert_allclose(np.sum(short.exponents), 3 * volumes.mean(axis=0).sum(), rtol=1e-12)
    # After the transient both frames have turned to the same directions.
    start = cell.initial_state()
    dense = dense_exponents(
        lambda u, s: cell(u, (*s, start[2]))[:2], start[:2], inputs, 18, transient=300
    )
    np.testing.assert_allclose(
        dense.reshape(6, 3).mean(axis=1), spectrum.exponents[::3], rtol=1e-8, atol=1e-8
    )
    # The other numbers of the state are forgotten at once.
    full = lejax.lyapunov_spectrum(cell, start, inputs[:20])
    assert np.isneginf(full.exponents[18:]).all()
    assert full.exponents.size == 30


def test_the_determinant_of_one_head_as_in_the_docstring():
    inputs = jr.normal(jr.key(3), (150, 40))
    cell = RWKV7Cell(40, 1, 3, key=jr.key(4))
    spectrum = run(cell, inputs)  # more than 32 columns and 128 steps
    p = transitions(cell, inputs)[:, 0]
    x = np.asarray(lejax.unroll(cell, cell.initial_state(), inputs)[0])
    before = np.concatenate([np.zeros((1, 40)), x[:-1]])
    x_w, x_k, x_a = (x + (before - x) * np.asarray(cell.mix)[j] for j in (1, 2, 4))
    d = np.tanh(x_w @ cell.decay_down.T) @ cell.decay_up.T + cell.decay_bias
    log_w = -np.exp(-0.5) * sigmoid(d)
    a = sigmoid(x_a @ cell.rate_down.T @ cell.rate_up.T + cell.rate_bias)
    key = x_k @ cell.weight_k.T * np.asarray(cell.erase_scale)
    key = key / np.linalg.norm(key, axis=1, keepdims=True)
    logs = log_w.sum(axis=1) + np.log(np.abs(1 - np.sum(a * key**2 / np.exp(log_w), axis=1)))
    np.testing.assert_allclose(logs, np.linalg.slogdet(p)[1], rtol=1e-10)
    np.testing.assert_allclose(np.sum(spectrum.exponents), 40 * logs.mean(), rtol=1e-11)
    eigenvalues = np.linalg.eigvals(p)
    assert np.abs(eigenvalues.imag).max() < 1e-10
    assert -0.46 < eigenvalues.real.min() < eigenvalues.real.max() < 1


def test_without_rates_the_exponents_are_means_of_log_decays():
    inputs = jr.normal(jr.key(5), (200, 6))
    cell = change(make_cell(), rate_bias=jnp.array(-1e3), rate_up=jnp.array(0.0))
    w = np.diagonal(transitions(cell, inputs), axis1=2, axis2=3)
    exact = np.repeat(np.sort(np.log(w).mean(axis=0).ravel())[::-1], 3)
    frame = jnp.eye(30)[:, 6:24]  # unit vectors stay eigenvectors
    spectrum = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), inputs, num_exponents=18, frame=frame
    )
    np.testing.assert_allclose(np.sort(spectrum.exponents)[::-1], exact, rtol=1e-12)


def test_a_constant_rate_cannot_expand_the_memory():
    inputs = jr.normal(jr.key(6), (150, 6))
    for seed in range(3):
        cell = change(make_cell(seed=seed), rate_up=jnp.array(0.0))
        rate = np.asarray(jax.nn.sigmoid(cell.rate_bias)).reshape(2, 3)
        similar = transitions(cell, inputs) * np.sqrt(rate[:, None, :] / rate[:, :, None])
        assert np.linalg.norm(similar, 2, axis=(2, 3)).max() < 1
        assert run(cell, inputs, transient=50).exponents[0] < 0


def test_rates_that_vary_can_expand_the_memory():
    # Two inputs take turns, so the exponents are those of a product of two matrices. Its larger eigenvalue is above 1,
    # although no eigenvalue of a factor is.
    one, two = np.array([0.3, 0.95]), np.array([0.95, 0.3])
    direction = np.array([1.0, -1.0])  # of the two normalized inputs
    weight_k = np.outer((one + two) / 2, [0.5, 0.5]) + np.outer((one - two) / 2, direction / 2)
    cell = change(
        RWKV7Cell(2, 1, 1, key=jr.key(0)),
        mix=jnp.array(0.0), bias=jnp.array(1.0), weight_k=jnp.asarray(weight_k),
        erase_scale=jnp.array(1.0), decay_bias=jnp.array(-20.0), decay_up=jnp.array(0.0),
        rate_down=jnp.asarray(direction), rate_up=jnp.array([[20.0], [-20.0]]), rate_bias=jnp.array(0.0),
    )  # fmt: skip
    inputs = jnp.tile(jnp.array([direction, -direction]), (200, 1))
    first, second = transitions(cell, inputs[:2])[:, 0]
    expected = np.log(np.sort(np.abs(np.linalg.eigvals(second @ first)))[::-1]) / 2
    assert expected[0] > 0.05
    assert max(np.abs(np.linalg.eigvals(p)).max() for p in (first, second)) < 1
    spectrum = run(cell, inputs, transient=100)
    np.testing.assert_allclose(spectrum.exponents, np.repeat(expected, 2), rtol=1e-10)


def test_exponents_do_not_depend_on_the_chunking():
    inputs = jr.normal(jr.key(7), (500, 6))
    cell = make_cell()
    exponents = run(cell, inputs, transient=200, method=SequentialQR(every=1)).exponents
    for method in (SequentialQR(), SequentialQR(every=5), ParallelQR(3, 200, every=1)):
        other = run(cell, inputs, transient=200, method=method).exponents
        np.testing.assert_allclose(other, exponents, rtol=1e-9)
    half = run(cell, inputs[:350], transient=200)
    rest = lejax.lyapunov_spectrum(cell, half.state, inputs[350:], frame=half.frame)
    np.testing.assert_allclose((half.exponents + rest.exponents) / 2, exponents, rtol=1e-9)


@pytest.mark.slow
def test_stacks_and_closed_loops():
    inputs = jr.normal(jr.key(8), (60, 6))
    layers = [make_cell(), make_cell(heads=3, seed=1)]
    stack = Stack(layers)
    spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), inputs, num_exponents=30)
    between = lejax.unroll(layers[0], layers[0].initial_state(), inputs)[2]
    expected = run(layers[0], inputs).exponents, run(layers[1], between).exponents
    np.testing.assert_allclose(spectrum.exponents.sum(), sum(map(np.sum, expected)), rtol=1e-10)
    expected_states = published(layers[1], published(layers[0], inputs)[2])
    np.testing.assert_allclose(spectrum.state[1][2], expected_states[2][-1], rtol=1e-11)
    # In a loop the memory reaches the next input, and no block is left.
    loop = ClosedLoop(make_cell(4, 2), eqx.nn.Linear(4, 4, key=jr.key(2)))
    start = jax.tree.map(lambda x: x + 0.3, loop.initial_state())
    frame = random_frame(sum(x.size for x in start), 3)
    closed = lejax.lyapunov_spectrum(loop, start, num_steps=200, num_exponents=3, frame=frame)
    dense = dense_exponents(lambda u, s: loop(u, s), start, 200, 3)
    np.testing.assert_allclose(closed.exponents, dense, rtol=1e-8)


@pytest.mark.slow
def test_derivatives_of_exponents_and_batches():
    inputs = jr.normal(jr.key(9), (8, 4))
    cell = make_cell(4, 2)

    def total(cell):
        return run(cell, inputs).exponents.sum()

    def volume(cell):
        heads, size = cell.bonus.shape
        state, logs = cell.initial_state(), 0.0
        for input in inputs:
            move = jax.jacfwd(lambda memory, x=input, s=state: cell(x, (s[0], memory, s[2]))[1])
            jacobian = move(state[1]).reshape(heads * size**2, -1)
            logs, state = logs + jnp.linalg.slogdet(jacobian)[1], cell(input, state)
        return logs / len(inputs)

    gradient, expected = eqx.filter_grad(total)(cell), eqx.filter_grad(volume)(cell)
    for leaf, other in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-8, atol=1e-10)
    cells = eqx.filter_vmap(lambda key: RWKV7Cell(4, 2, key=key))(jr.split(jr.key(1), 3))
    batch = eqx.filter_jit(eqx.filter_vmap(lambda cell: run(cell, inputs).exponents))(cells)
    second = jax.tree.map(lambda x: x[1], cells)
    np.testing.assert_allclose(batch[1], run(second, inputs).exponents, rtol=1e-10)


@pytest.mark.parametrize("gate", ["decay_bias", "rate_bias"])
@pytest.mark.parametrize("size", [-200.0, 200.0])
def test_extreme_gates_in_float32(gate, size):
    inputs = jr.normal(jr.key(10), (200, 6), jnp.float32)
    cell = change(make_cell(dtype=jnp.float32), **{gate: jnp.float32(size)})
    states = lejax.unroll(cell, cell.initial_state(), inputs)
    for state, expected in zip(states, published(cell, inputs), strict=True):
        scale = np.abs(expected).max()
        assert np.abs(state - expected).max() <= 1e-4 * scale

    def both(cell):
        outputs = lejax.unroll(cell, cell.initial_state(), inputs[:20])[2]
        return jnp.sum(outputs) + jnp.sum(run(cell, inputs[:20]).exponents[:3])

    for leaf in jax.tree.leaves(eqx.filter_grad(both)(cell)):
        assert np.isfinite(leaf).all()


def test_a_key_of_zeros_erases_nothing_and_has_a_finite_derivative():
    cell = change(make_cell(), weight_k=jnp.array(0.0))
    inputs = jr.normal(jr.key(11), (5, 6))
    p = transitions(cell, inputs)
    np.testing.assert_array_equal(p, p * np.eye(3))
    gradient = eqx.filter_grad(
        lambda cell: lejax.unroll(cell, cell.initial_state(), inputs)[2].sum()
    )(cell)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="num_heads must divide size, but 4 does not divide 6"):
        RWKV7Cell(6, 4, key=jr.key(0))
    cell = make_cell()
    with pytest.raises(ValueError, match=r"bonus has shape \(2, 4\), but mix of shape \(6, 6\)"):
        RWKV7Cell.from_weights(**vars(cell) | {"bonus": jnp.ones((2, 4))})
    with pytest.raises(ValueError, match=r"takes inputs of shape \(6,\), got \(5,\)"):
        cell(jnp.ones(5), cell.initial_state())
