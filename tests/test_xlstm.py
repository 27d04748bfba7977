"""mLSTM and sLSTM: the published equations without stabilizers in plain NumPy, and exponents in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from dense_exponents import dense_exponents, random_frame

import lejax
from lejax import ParallelQR, SequentialQR
from lejax.cells import ClosedLoop, MLSTMCell, SLSTMCell, Stack


INPUTS = jr.normal(jr.key(0), (200, 3))
FLOATS = [(jnp.float64, 1e-12), (jnp.float32, 1e-5)]


def matrix_cell(size=3, heads=2, rows=4, columns=2, **keywords):
    return MLSTMCell(size, heads, rows, columns, **keywords, key=jr.key(1))


def scalar_cell(size=3, units=6, heads=2, **keywords):
    """Gates near 1/2, so that all numbers matter."""
    cell = SLSTMCell(size, units, heads, **keywords, key=jr.key(2))
    bias = 0.3 * jr.normal(jr.key(3), cell.bias.shape, cell.bias.dtype)
    weights = 2 * cell.weight_hh, 2 * cell.weight_ih, bias
    return eqx.tree_at(lambda c: (c.weight_hh, c.weight_ih, c.bias), cell, weights)


def with_bias(cell, **biases):
    """Biases of gates set to one number: i or f."""
    if isinstance(cell, SLSTMCell):
        rows = {"i": 0, "f": 1}
        bias = cell.bias
        for name, value in biases.items():
            bias = bias.at[rows[name]].set(value)
        return eqx.tree_at(lambda c: c.bias, cell, bias)
    for name, value in biases.items():
        field = f"bias_{name}"
        bias = jnp.full_like(getattr(cell, field), value)
        cell = eqx.tree_at(lambda c, field=field: getattr(c, field), cell, bias)
    return cell


def weights_of(cell):
    return {n: np.asarray(x, float) for n, x in vars(cell).items() if eqx.is_array(x)}


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def published_mlstm(cell, inputs):
    """Equations (19) to (27) of the paper, for each head: C (value, key), n and h."""
    p, states = weights_of(cell), []
    heads, rows, _ = p["weight_q"].shape
    columns = p["weight_v"].shape[1]
    memories, normalizers = np.zeros((heads, columns, rows)), np.zeros((heads, rows))
    for u in np.asarray(inputs, float):
        outputs = np.zeros((heads, columns))
        for h in range(heads):
            q = p["weight_q"][h] @ u + p["bias_q"][h]
            k = p["weight_k"][h] @ u / np.sqrt(rows) + p["bias_k"][h]
            v = p["weight_v"][h] @ u + p["bias_v"][h]
            i = np.exp(p["weight_i"][h] @ u + p["bias_i"][h])
            f = p["weight_f"][h] @ u + p["bias_f"][h]
            f = np.exp(f) if cell.exponential_forget else sigmoid(f)
            o = sigmoid(p["weight_o"][h] @ u + p["bias_o"][h])
            memories[h] = f * memories[h] + i * np.outer(v, k)
            normalizers[h] = f * normalizers[h] + i * k
            outputs[h] = o * (memories[h] @ q / max(abs(normalizers[h] @ q), 1))
        states.append((memories.transpose(0, 2, 1).copy(), normalizers.copy(), outputs.ravel()))
    return [np.stack(x) for x in zip(*states, strict=True)]


def published_slstm(cell, inputs):
    """Equations (8) to (18) of the paper: c, n, h."""
    p, states = weights_of(cell), []
    _, heads, units, _ = p["weight_ih"].shape
    recurrent = np.zeros((4, heads * units, heads * units))
    for h in range(heads):
        part = slice(h * units, (h + 1) * units)
        recurrent[:, part, part] = p["weight_hh"][:, h]
    driving = p["weight_ih"].reshape(4, heads * units, -1)
    c, n, hidden = np.zeros((3, heads * units))
    for u in np.asarray(inputs, float):
        total = driving @ u + recurrent @ hidden + p["bias"].reshape(4, -1)
        i, z, o = np.exp(total[0]), np.tanh(total[2]), sigmoid(total[3])
        f = np.exp(total[1]) if cell.exponential_forget else sigmoid(total[1])
        c, n = f * c + i * z, f * n + i
        hidden = o * c / n
        states.append((c, n, hidden))
    return [np.stack(x) for x in zip(*states, strict=True)]


def unstabilized(cell, states):
    """The states without stabilizers, as the published equations have them."""
    if isinstance(cell, SLSTMCell):
        c, n, hidden, m = (np.asarray(x, float) for x in states)
        return c * np.exp(m), n * np.exp(m), hidden
    m, memory, normalizer, output = (np.asarray(x, float) for x in states)
    factor = np.exp(m)
    return memory * factor[..., None, None], normalizer * factor[..., None], output


PUBLISHED = {"mlstm": (matrix_cell, published_mlstm), "slstm": (scalar_cell, published_slstm)}


def largest_errors(cell, published, inputs):
    """Largest differences from the published equations, relative to the largest number if it is above 1."""
    states = lejax.unroll(cell, cell.initial_state(), inputs)
    assert {x.dtype for x in states} == {inputs.dtype}
    found, expected = unstabilized(cell, states), published(cell, inputs)
    return [
        np.abs(x - y).max() / max(1, np.abs(y).max()) for x, y in zip(found, expected, strict=True)
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), FLOATS)
@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_published_equations_over_200_steps(kind, exponential, dtype, tolerance):
    make, published = PUBLISHED[kind]
    cell = make(exponential_forget=exponential, dtype=dtype)
    cell = with_bias(cell, f=-0.5 if exponential else 2.0)
    errors = largest_errors(cell, published, INPUTS.astype(dtype))
    assert max(errors) <= tolerance


def test_memories_above_32_columns_follow_the_published_equations():
    inputs = jr.normal(jr.key(4), (200, 5))
    assert max(largest_errors(matrix_cell(5, 3, 36, 40), published_mlstm, inputs)) <= 1e-12
    assert max(largest_errors(scalar_cell(5, 40, 2), published_slstm, inputs)) <= 1e-12


@pytest.mark.parametrize("exponential", [False, True])
def test_exponents_of_the_mlstm_in_closed_form(exponential):
    cell = matrix_cell(exponential_forget=exponential)
    spread = jnp.array([-1.0, -0.2]) if exponential else jnp.array([0.0, 2.0])
    cell = eqx.tree_at(lambda c: c.bias_f, cell, spread)
    inputs = jr.normal(jr.key(5), (600, 3))
    start = cell.initial_state()
    options = {"num_exponents": 24, "transient": 300}
    spectrum = lejax.lyapunov_spectrum(cell, start, inputs, **options)
    before = lejax.unroll(cell, start, inputs[:300])[0][-1]
    total = inputs[300:] @ cell.weight_f.T + cell.bias_f
    log_f = total if exponential else np.log(sigmoid(total))
    each = log_f.mean(axis=0) - (spectrum.state[0] - before) / 300
    exact = np.repeat(np.sort(each)[::-1], 12)
    np.testing.assert_allclose(spectrum.exponents, exact, rtol=1e-12)
    dense = dense_exponents(
        lambda u, s: cell(u, (*s, start[3]))[:3], start[:3], inputs, 24, transient=300
    )
    np.testing.assert_allclose(dense.reshape(2, 12).mean(axis=1), exact[::12], rtol=1e-9)
    # The stabilizers were reset, and the output is forgotten at once.
    full = lejax.lyapunov_spectrum(cell, start, inputs[:50]).exponents
    assert full.size == 2 + 2 * (4 * 2 + 4) + 4
    assert np.isneginf(full[24:]).all()


def test_memories_that_only_grow_have_exponents_of_zero_and_keep_their_gauge():
    cell = with_bias(matrix_cell(exponential_forget=True), f=5.0)
    start = cell.initial_state()
    start = jax.tree.map(lambda x: x[-1], lejax.unroll(cell, start, INPUTS[:3]))
    spectrum = lejax.lyapunov_spectrum(cell, start, INPUTS, num_exponents=26)
    np.testing.assert_array_equal(spectrum.exponents, 0)
    assert np.all(spectrum.state[0] > 500)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_outputs_do_not_depend_on_how_a_memory_is_split_into_stored_number_and_stabilizer(kind):
    cell = PUBLISHED[kind][0]()
    state = jax.tree.map(lambda x: x[-1], lejax.unroll(cell, cell.initial_state(), INPUTS[:20]))
    for shift in (-3.0, 40.0):
        if kind == "mlstm":
            m, memory, normalizer, output = state
            factor = np.exp(-shift)
            moved = (m + shift, factor * memory, factor * normalizer, output)
        else:
            c, n, hidden, m = state
            moved = (np.exp(-shift) * c, np.exp(-shift) * n, hidden, m + shift)
        outputs = [
            jax.vmap(cell.output)(lejax.unroll(cell, s, INPUTS[20:])) for s in (state, moved)
        ]
        np.testing.assert_allclose(*outputs, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize(("units", "heads"), [(6, 2), (12, 1)])
def test_the_exponents_of_the_slstm_sum_to_its_determinants(units, heads, exponential):
    cell = scalar_cell(3, units, heads, exponential_forget=exponential)
    cell = with_bias(cell, f=-0.5) if exponential else cell
    start = jax.tree.map(lambda x: x[0], lejax.unroll(cell, cell.initial_state(), INPUTS[:1]))
    spectrum = lejax.lyapunov_spectrum(cell, start, INPUTS[1:], num_exponents=3 * units)
    states = [np.asarray(x) for x in lejax.unroll(cell, start, INPUTS[1:])]
    before = [np.concatenate([[x], y[:-1]]) for x, y in zip(start, states, strict=True)]
    p = weights_of(cell)
    hidden = before[2].reshape(-1, heads, units // heads)
    total = np.einsum("ghnm,thm->tghn", p["weight_hh"], hidden) + p["bias"]
    total = total + np.einsum("ghni,ti->tghn", p["weight_ih"], INPUTS[1:])
    total = total.reshape(len(total), 4, units)
    log_f = total[:, 1] if exponential else np.log(sigmoid(total[:, 1]))
    o = sigmoid(total[:, 3])
    kept = log_f + before[3] - states[3]
    logs = 2 * kept + np.log(np.abs(o * (1 - o) * states[0] / states[1]))
    expected = logs.sum(axis=1).mean() + np.linalg.slogdet(p["weight_hh"][3])[1].sum()
    np.testing.assert_allclose(spectrum.exponents.sum(), expected, rtol=1e-9)
    assert kept.max() <= 1e-15


@pytest.mark.parametrize("exponential", [False, True])
def test_exponents_of_the_slstm_are_those_of_a_dense_qr_with_and_without_stabilizers(exponential):
    cell = scalar_cell(3, 4, 2, exponential_forget=exponential)
    cell = with_bias(cell, f=-0.5) if exponential else cell
    inputs = jr.normal(jr.key(6), (1000, 3))
    start = cell.initial_state()
    spectrum = lejax.lyapunov_spectrum(cell, start, inputs, transient=500)
    stabilizers = jnp.concatenate([start[3][None], lejax.unroll(cell, start, inputs)[3]])

    def fixed(input, memory):  # the same step, stored with the stabilizers of the run
        input, before, after = input
        c, n, hidden, m = cell(input, (*memory, before))
        factor = jnp.exp(m - after)
        return factor * c, factor * n, hidden

    timed = list(zip(inputs, stabilizers[:-1], stabilizers[1:], strict=True))[:150]
    dense = dense_exponents(fixed, start[:3], timed, 12)
    frame = np.pad(random_frame(12, 12), ((0, 4), (0, 0)))
    options = {"num_exponents": 12, "frame": frame, "method": SequentialQR(every=1)}
    aligned = lejax.lyapunov_spectrum(cell, start, inputs[:150], **options)
    np.testing.assert_allclose(dense, aligned.exponents, rtol=1e-8)
    # All four numbers of a unit, among them the redundant one, whose direction vanishes at each reset. Here lengths
    # include the change of m, which makes a difference at both ends of the run. Rounding errors along the redundant
    # direction, which keeps its length between resets, outgrow the strongly contracting ones.
    dense = dense_exponents(lambda u, s: cell(u, s), start, inputs, 6, transient=500)
    np.testing.assert_allclose(dense, spectrum.exponents[:6], atol=5 / 500)
    assert np.isfinite(spectrum.exponents[:12]).all()
    assert np.isneginf(spectrum.exponents[12:]).all()

    def plain(input, state):
        c, n, hidden = state
        total = cell.weight_ih @ input + cell.bias
        total = total + jnp.einsum("ghnm,hm->ghn", cell.weight_hh, hidden.reshape(2, 2))
        i, f, z, o = total.reshape(4, 4)
        f = jnp.exp(f) if exponential else jax.nn.sigmoid(f)
        c, n = f * c + jnp.exp(i) * jnp.tanh(z), f * n + jnp.exp(i)
        return c, n, jax.nn.sigmoid(o) * c / n

    c, n, hidden, m = jax.tree.map(lambda x: x[0], lejax.unroll(cell, start, inputs[:1]))
    first = c * jnp.exp(m), n * jnp.exp(m), hidden
    dense = dense_exponents(plain, first, inputs[1:], 12, transient=499)
    # They differ by what the stabilizers grew in the counted steps, divided by their number.
    before = lejax.unroll(cell, start, inputs[:500])[3][-1]
    growth = np.asarray(spectrum.state[3] - before) / 500
    np.testing.assert_allclose(
        dense.sum() - spectrum.exponents[:12].sum(), 2 * growth.sum(), rtol=1e-6, atol=1e-8
    )
    np.testing.assert_allclose(dense, spectrum.exponents[:12], atol=0.02)


def test_redundant_numbers_of_the_slstm_have_exponents_of_zero_until_the_first_reset():
    cell = with_bias(scalar_cell(), i=-500.0)
    states = lejax.unroll(cell, cell.initial_state(), INPUTS)
    start = jax.tree.map(lambda x: x[0], states)
    kept = start[:3] + (jnp.zeros(6),)  # a memory far above what the inputs write
    spectrum = lejax.lyapunov_spectrum(cell, kept, INPUTS[1:100])
    assert np.sum(spectrum.exponents == 0) == 6
    spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), INPUTS[:100])
    assert np.isneginf(spectrum.exponents).sum() == 6


@pytest.mark.parametrize("kind", PUBLISHED)
def test_exponents_do_not_depend_on_the_chunking(kind):
    cell = matrix_cell() if kind == "mlstm" else scalar_cell(3, 2, 1)
    inputs, start = jr.normal(jr.key(7), (500, 3)), cell.initial_state()
    count = 24 if kind == "mlstm" else 6
    options = {"num_exponents": count, "transient": 200}

    def run(method):
        return lejax.lyapunov_spectrum(cell, start, inputs, **options, method=method).exponents

    exponents = run(SequentialQR(every=1))
    for method in (SequentialQR(), SequentialQR(every=2), ParallelQR(3, 200, every=1)):
        other = run(method)
        np.testing.assert_allclose(other, exponents, rtol=1e-7)
    half = lejax.lyapunov_spectrum(cell, start, inputs[:350], **options)
    rest = lejax.lyapunov_spectrum(cell, half.state, inputs[350:], frame=half.frame)
    np.testing.assert_allclose((half.exponents + rest.exponents) / 2, exponents, rtol=1e-7)


@pytest.mark.slow
def test_stacks_have_the_exponents_of_their_layers():
    layers = [scalar_cell(), matrix_cell(6)]
    stack = Stack(layers)
    spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), INPUTS, num_exponents=42)
    hidden = lejax.unroll(layers[0], layers[0].initial_state(), INPUTS)[2]
    sums = [
        lejax.lyapunov_spectrum(
            layer, layer.initial_state(), inputs, num_exponents=count
        ).exponents.sum()
        for layer, inputs, count in zip(layers, (INPUTS, hidden), (18, 24), strict=True)
    ]
    np.testing.assert_allclose(spectrum.exponents.sum(), sum(sums), rtol=1e-10)
    output = published_mlstm(layers[1], published_slstm(layers[0], INPUTS)[2])[2]
    np.testing.assert_allclose(stack.output(spectrum.state), output[-1], atol=1e-12)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_closed_loops_have_the_exponents_of_a_dense_qr(kind):
    cell = PUBLISHED[kind][0]()
    size = cell.output(cell.initial_state()).size
    loop = ClosedLoop(cell, eqx.nn.Linear(size, 3, key=jr.key(2)))
    start = jax.tree.map(lambda x: x + 0.3, loop.initial_state())
    frame = random_frame(sum(x.size for x in start), 2)
    closed = lejax.lyapunov_spectrum(loop, start, num_steps=200, num_exponents=2, frame=frame)
    dense = dense_exponents(lambda u, s: loop(u, s), start, 200, 2)
    np.testing.assert_allclose(closed.exponents, dense, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PUBLISHED)
def test_derivatives_of_exponents_and_batches(kind):
    make, _ = PUBLISHED[kind]
    cell, inputs = make(), INPUTS[:30]
    count = 24 if kind == "mlstm" else 18

    def total(cell):
        start = cell.initial_state()
        return lejax.lyapunov_spectrum(cell, start, inputs, num_exponents=count).exponents.sum()

    gradient = eqx.filter_grad(total)(cell)
    for name in ("bias_f", "bias_i") if kind == "mlstm" else ("bias", "weight_hh"):
        leaf = getattr(cell, name)
        step = 1e-6 * jr.normal(jr.key(8), leaf.shape)
        moved = [
            eqx.tree_at(lambda c, name=name: getattr(c, name), cell, leaf + s)
            for s in (step, -step)
        ]
        difference = (total(moved[0]) - total(moved[1])) / 2
        np.testing.assert_allclose(jnp.vdot(getattr(gradient, name), step), difference, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    cells = eqx.filter_vmap(
        lambda key: type(cell).from_weights(
            **jax.tree.map(
                lambda x: x + 0.1 * jr.normal(key, x.shape) if eqx.is_array(x) else x, vars(cell)
            )
        )
    )(jr.split(jr.key(9), 3))
    batch = eqx.filter_jit(eqx.filter_vmap(total))(cells)
    second = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, cells)
    np.testing.assert_allclose(batch[1], total(second), rtol=1e-10)


@pytest.mark.parametrize("log_i", [-200.0, 200.0, None])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_extreme_input_gates_do_not_overflow_in_float32(kind, log_i):
    make, published = PUBLISHED[kind]
    cell = make(dtype=jnp.float32)
    inputs = INPUTS.astype(jnp.float32)
    if log_i is None:  # the first input turns the gates from -200 to 200 and back
        inputs = inputs.at[:, 0].set(jnp.tile(jnp.array([1.0, -1.0], jnp.float32), 100))
        if kind == "mlstm":
            weight = jnp.zeros_like(cell.weight_i).at[:, 0].set(200)
            cell = eqx.tree_at(lambda c: c.weight_i, cell, weight)
        else:
            weight = cell.weight_ih.at[0].set(0).at[0, ..., 0].set(200)
            cell = eqx.tree_at(lambda c: c.weight_ih, cell, weight)
    else:
        cell = with_bias(cell, i=log_i)
    start = cell.initial_state()
    outputs = jax.vmap(cell.output)(lejax.unroll(cell, start, inputs))
    expected = published(cell, inputs)[2]  # in float64, which holds exp(200)
    scale = max(np.abs(expected).max(), 1e-3)
    assert np.abs(outputs - expected).max() <= 1e-3 * scale

    def both(cell):
        outputs = jax.vmap(cell.output)(lejax.unroll(cell, start, inputs[:20]))
        spectrum = lejax.lyapunov_spectrum(cell, start, inputs[:20], num_exponents=3)
        return jnp.sum(outputs) + jnp.sum(spectrum.exponents)

    value, gradient = eqx.filter_value_and_grad(both)(cell)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("log_f", [-200.0, 200.0])
@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_extreme_forget_gates_do_not_overflow_in_float32(kind, exponential, log_f):
    make, published = PUBLISHED[kind]
    cell = with_bias(make(dtype=jnp.float32, exponential_forget=exponential), f=log_f)
    inputs = INPUTS.astype(jnp.float32)
    start = cell.initial_state()
    outputs = jax.vmap(cell.output)(lejax.unroll(cell, start, inputs))
    assert np.isfinite(outputs).all()
    # Exponentials of 200 leave the range of float64 after three steps; then the first input rules.
    expected = published(cell, inputs[:3])[2]
    np.testing.assert_allclose(outputs[:3], expected, rtol=1e-3, atol=1e-5)

    def total(cell):
        return jax.vmap(cell.output)(lejax.unroll(cell, start, inputs[:20])).sum()

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(eqx.filter_grad(total)(cell)))


def test_autonomous_cells_and_what_does_not_fit():
    cell = SLSTMCell(0, 4, 2, key=jr.key(0))
    state = cell(None, cell.initial_state())
    assert [x.shape for x in state] == [(4,)] * 4
    made = SLSTMCell.from_weights(weight_hh=cell.weight_hh, bias=cell.bias)
    assert eqx.tree_equal(made, cell)
    with pytest.raises(
        ValueError, match="num_heads must divide hidden_size, but 3 does not divide 4"
    ):
        SLSTMCell(2, 4, 3, key=jr.key(0))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(3,\), got \(2,\)"):
        matrix_cell()(jnp.ones(2), matrix_cell().initial_state())
