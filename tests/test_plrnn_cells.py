"""Piecewise-linear networks against their canonical form, at random points, in every region they meet."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.cells import (
    ALRNN,
    PLRNN,
    ClippedShallowPLRNN,
    ClosedLoop,
    DendriticPLRNN,
    LeakyRNNCell,
    LowRankReLURNN,
    MeanCenteredPLRNN,
    RNNCell,
    ShallowPLRNN,
    Stack,
)
from lejax.systems import Lozi


SIZE, INPUTS = 4, 2
NETWORKS = {
    "PLRNN": lambda key, i=0, dtype=None: PLRNN(SIZE, i, dtype=dtype, key=key),
    "mean-centered": lambda key, i=0, dtype=None: MeanCenteredPLRNN(SIZE, i, dtype=dtype, key=key),
    "AL": lambda key, i=0, dtype=None: ALRNN(SIZE, 2, i, dtype=dtype, key=key),
    "shallow": lambda key, i=0, dtype=None: ShallowPLRNN(SIZE, 7, i, dtype=dtype, key=key),
    "clipped": lambda key, i=0, dtype=None: ClippedShallowPLRNN(SIZE, 7, i, dtype=dtype, key=key),
    "dendritic": lambda key, i=0, dtype=None: DendriticPLRNN(SIZE, 3, i, dtype=dtype, key=key),
    "low-rank": lambda key, i=0, dtype=None: LowRankReLURNN(
        SIZE, 9, i, q=0.5, dtype=dtype, key=key
    ),
}
RATES = {
    "relu": lambda key, i=0, dtype=None: RNNCell(
        i, SIZE, activation=jax.nn.relu, dtype=dtype, key=key
    ),
    "leaky": lambda key, i=0, dtype=None: LeakyRNNCell(
        i, SIZE, use_bias=True, activation=jax.nn.relu, dtype=dtype, dt=0.3, gain=2.0, key=key
    ),
}
CELLS = NETWORKS | RATES


def shaken(cell, key, scale=0.5):
    """All weights moved, so that no zero hides a mistake."""
    leaves, structure = jax.tree.flatten(cell)
    keys = jr.split(key, len(leaves))
    moved = [
        x + scale * jr.normal(k, x.shape, x.dtype) if eqx.is_array(x) else x
        for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


@pytest.mark.parametrize("num_inputs", [0, INPUTS])
@pytest.mark.parametrize("name", CELLS)
def test_canonical_form_is_the_cell(name, num_inputs):
    cell = shaken(CELLS[name](jr.key(0), num_inputs), jr.key(1))
    input = jr.normal(jr.key(2), (num_inputs,)) if num_inputs else None
    states = 2 * jr.normal(jr.key(3), (30, SIZE))

    def compare(state):
        network = lejax.piecewise_linear(cell, input)
        region = network.region(state)
        matrix, offset = network.affine(region)
        step = lambda z: cell(input, z)
        jacobians = jax.jacfwd(step)(state), jax.jacfwd(lambda z: network(None, z))(state), matrix
        return (step(state), network(None, state), matrix @ state + offset), jacobians, region

    values, jacobians, regions = jax.jit(jax.vmap(compare))(states)
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], rtol=1e-13, atol=1e-13)
    for other in jacobians[1:]:
        np.testing.assert_allclose(other, jacobians[0], rtol=1e-13, atol=1e-13)
    assert len(np.unique(regions, axis=0)) > 3


def test_lozi():
    states = jr.normal(jr.key(3), (30, 2))
    network = lejax.piecewise_linear(Lozi(1.7, 0.5))
    np.testing.assert_allclose(
        jax.vmap(lambda z: network(None, z))(states),
        jax.vmap(lambda z: Lozi(1.7, 0.5)(None, z))(states),
        atol=1e-15,
    )


@pytest.mark.parametrize("name", CELLS)
def test_weights_keep_their_precision(name):
    cell = CELLS[name](jr.key(0), INPUTS, jnp.float32)
    autonomous = CELLS[name](jr.key(0), 0, jnp.float32)
    input, state = jnp.ones(INPUTS, jnp.float32), jnp.ones(SIZE, jnp.float32)
    for network in (lejax.piecewise_linear(cell, input), lejax.piecewise_linear(autonomous)):
        assert {x.dtype for x in jax.tree.leaves(network)} == {jnp.dtype("float32")}
        assert network(None, state).dtype == jnp.float32
    assert cell(input, state).dtype == jnp.float32
    exact = jax.tree.map(lambda x: x.astype(float) if eqx.is_array(x) else x, cell)
    np.testing.assert_allclose(cell(input, state), exact(input, state), rtol=1e-5, atol=1e-5)


def test_arrays_of_low_precision_are_not_raised_by_what_is_left_out():
    ones = lambda *shape: jnp.ones(shape, jnp.float32)
    cells = [
        PLRNN.from_weights(a=ones(3), W=ones(3, 3), h=ones(3)),
        ALRNN.from_weights(a=ones(3), W=ones(3, 3), h=ones(3), num_relu=1),
        ShallowPLRNN.from_weights(a=ones(3), W1=ones(3, 4), W2=ones(4, 3), h1=ones(3), h2=ones(4)),
        DendriticPLRNN.from_weights(
            a=ones(3), W=ones(3, 3), alpha=ones(2), theta=ones(3, 2), h=ones(3)
        ),
        LowRankReLURNN.from_weights(q=0.1, n=ones(2, 5), m=ones(5, 2), b=ones(5)),
    ]
    for cell in cells:
        for tree in (cell, lejax.piecewise_linear(cell)):
            assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
            assert not any(x.weak_type for x in jax.tree.leaves(tree))


def test_integers_become_floats():
    cell = PLRNN.from_weights(a=np.ones(2, int), W=[[0, 1], [1, 0]], h=[1, 2])  # pyright: ignore
    assert cell(None, jnp.array([1.0, -1.0])).tolist() == [2.0, 2.0]
    with pytest.raises(TypeError, match="W must be real, got complex128"):
        PLRNN.from_weights(a=np.ones(2), W=np.ones((2, 2), complex), h=np.ones(2))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_agree_with_those_of_the_canonical_form(name):
    cell = shaken(CELLS[name](jr.key(0), INPUTS), jr.key(1))
    input, state = jr.normal(jr.key(2), (INPUTS,)), jr.normal(jr.key(3), (SIZE,))

    @eqx.filter_jit
    def gradients(cell):
        direct = lambda c: jnp.sum(jnp.sin(c(input, state)))
        canonical = lambda c: jnp.sum(jnp.sin(lejax.piecewise_linear(c, input)(None, state)))
        return eqx.filter_grad(direct)(cell), eqx.filter_grad(canonical)(cell)

    direct, canonical = gradients(cell)
    for one, other in zip(jax.tree.leaves(direct), jax.tree.leaves(canonical), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)
    assert np.abs(direct.C).max() > 0


@pytest.mark.parametrize("name", CELLS)
def test_batch_of_networks(name):
    state = jr.normal(jr.key(1), (SIZE,))

    @eqx.filter_jit
    def steps(keys):
        cells = eqx.filter_vmap(CELLS[name])(keys)
        networks = eqx.filter_vmap(lejax.piecewise_linear)(cells)
        step = eqx.filter_vmap(lambda cell, z: cell(None, z), in_axes=(eqx.if_array(0), None))
        one_by_one = jnp.stack(
            [
                jax.tree.map(lambda x, i=i: x[i] if eqx.is_array(x) else x, cells)(None, state)
                for i in range(3)
            ]
        )
        return step(cells, state), step(networks, state), one_by_one

    *batched, expected = steps(jr.split(jr.key(0), 3))
    for value in batched:
        np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-14)


def test_spectrum_of_a_cell_is_that_of_its_canonical_form():
    cell = shaken(NETWORKS["clipped"](jr.key(0)), jr.key(1), 0.1)
    runs = [
        lejax.lyapunov_spectrum(c, jnp.ones(SIZE), num_steps=100).exponents
        for c in (cell, lejax.piecewise_linear(cell))
    ]
    np.testing.assert_allclose(*runs, atol=1e-10)
    # Linear: the logarithms of |a| are the exponents.
    a = jnp.array([0.9, 0.5, -0.2])
    linear = PLRNN.from_weights(a=a, W=jnp.zeros((3, 3)), h=jnp.ones(3))
    run = lejax.lyapunov_spectrum(linear, jnp.ones(3), num_steps=300, transient=300)
    np.testing.assert_allclose(run.exponents, np.log(np.abs(a)), atol=1e-10)


def test_clipped_network_stays_bounded():
    cell = shaken(NETWORKS["clipped"](jr.key(0)), jr.key(1), 3.0)
    cell = eqx.tree_at(lambda c: c.a, cell, jnp.array([0.9, -0.9, 0.5, 0.0]))
    # The difference of both ReLUs of a hidden unit is at most |h2|.
    bound = jnp.abs(cell.W1) @ jnp.abs(cell.h2) + jnp.abs(cell.h1)
    states = lejax.unroll(cell, 1e3 * jnp.ones(SIZE), num_steps=500)
    assert np.all(np.abs(states[-1]) <= bound / (1 - jnp.abs(cell.a)) + 1e-9)


@pytest.mark.parametrize("size", [1, 2, 15])
def test_initial_weights(size):
    cell = PLRNN(size, 3, key=jr.key(0))
    assert np.all((cell.a > 0) & (cell.a <= 1))
    whole = np.diag(cell.a) + cell.W
    np.testing.assert_allclose(whole, whole.T)
    eigenvalues = np.linalg.eigvalsh(whole)
    assert eigenvalues[0] > 0
    np.testing.assert_allclose(eigenvalues[-1], 1)
    np.testing.assert_array_equal(np.diag(cell.W), 0)
    shallow = ShallowPLRNN(size, 25, key=jr.key(1))
    assert np.abs(shallow.W1).max() <= 0.2
    assert np.abs(shallow.W2).max() <= size**-0.5
    wide = ALRNN(60, 2, key=jr.key(2))
    np.testing.assert_allclose(np.std(wide.W), 0.01, rtol=0.05)


def plain(size):
    """The weights of a PLRNN."""
    return {"a": jnp.ones(size), "W": jnp.ones((size, size)), "h": jnp.ones(size)}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: PLRNN.from_weights(**plain(3) | {"W": jnp.ones((3, 2))}),
            r"W has shape \(3, 2\), but a of shape \(3,\) asks for \(3, 3\)",
        ),
        (
            lambda: PLRNN.from_weights(**plain(3) | {"h": jnp.array(0.0)}),
            "h must have 1 axis, got",
        ),
        (
            lambda: PLRNN.from_weights(**plain(3) | {"W": jnp.ones(3)}),
            "W must have 2 axes, got shape",
        ),
        (
            lambda: PLRNN.from_weights(**plain(3), C=jnp.ones((2, 1))),
            r"C has shape \(2, 1\), but a of shape \(3,\) asks for \(3, 1\)",
        ),
        (lambda: ALRNN.from_weights(**plain(2), num_relu=3), "num_relu is 3, but the"),
        (lambda: ALRNN(2, -1, key=jr.key(0)), "num_relu must be an integer of at least 0"),
        (
            lambda: LowRankReLURNN.from_weights(
                q=0.1, n=jnp.ones(2), m=jnp.ones((2, 1)), b=jnp.ones(2)
            ),
            "n must have 2",
        ),
        (lambda: PLRNN(0, key=jr.key(0)), "size must be an integer of at least 1, got 0"),
        (
            lambda: lejax.piecewise_linear(PLRNN(2, 3, key=jr.key(0)), jnp.ones(4)),
            r"the cell takes inputs of shape \(3,\), got \(4,\)",
        ),
    ],
)
def test_bad_shapes(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: lejax.piecewise_linear(RNNCell(0, 2, key=jr.key(0))),
            "piecewise linear with activation=jax.nn.relu",
        ),
        (
            lambda: lejax.piecewise_linear(lejax.systems.Henon()),
            "Henon is not known to be piecewise linear",
        ),
        (lambda: lejax.piecewise_linear(PLRNN(2, 3, key=jr.key(0))), "inputs of size 3, got"),
        (
            lambda: lejax.piecewise_linear(lejax.piecewise_linear(Lozi()), jnp.ones(1)),
            "takes no input",
        ),
    ],
)
def test_what_is_not_piecewise_linear(make, sentence):
    with pytest.raises(TypeError, match=sentence):
        make()


def test_stack_and_closed_loop():
    below, above = PLRNN(3, 2, key=jr.key(0)), ALRNN(4, 2, 3, key=jr.key(1))
    stack = Stack([below, above])
    inputs = jr.normal(jr.key(2), (60, 2))
    # Nothing flows down: the exponents together are those of both layers.
    parts = [
        lejax.lyapunov_spectrum(below, below.initial_state(), inputs),
        lejax.lyapunov_spectrum(
            above, above.initial_state(), lejax.unroll(below, below.initial_state(), inputs)
        ),
    ]
    run = lejax.lyapunov_spectrum(stack, stack.initial_state(), inputs)
    np.testing.assert_allclose(
        run.exponents.sum(), sum(part.exponents.sum() for part in parts), rtol=1e-10
    )
    cell = PLRNN(3, 2, key=jr.key(3))
    loop = ClosedLoop(cell, eqx.nn.Linear(3, 2, use_bias=False, key=jr.key(4)))
    # A linear readout makes another PLRNN, with a full matrix A.
    network = lejax.piecewise_linear(cell, jnp.zeros(2))
    closed = eqx.tree_at(lambda n: n.A, network, network.A + cell.C @ loop.readout.weight)
    state = jnp.array([0.3, -0.2, 0.1])
    np.testing.assert_allclose(loop(None, state), closed(None, state), atol=1e-15)


@pytest.mark.parametrize("s", [1.5, 2.0])
def test_the_tent_has_one_slope_on_each_side(s):
    for start in (0.0, 0.3, 0.5, 0.7123, 1.0):
        run = lejax.lyapunov_spectrum(lejax.systems.Tent(s), jnp.array(start), num_steps=150)
        np.testing.assert_allclose(run.exponents, np.log(s), rtol=1e-12)


def test_one_convention_at_the_hyperplanes():
    size, key = 3, jax.random.key(5)
    cells = [
        lejax.cells.PLRNN(size, key=key),
        lejax.cells.MeanCenteredPLRNN(size, key=key),
        lejax.cells.ALRNN(size, 2, key=key),
        eqx.tree_at(lambda c: c.h2, lejax.cells.ShallowPLRNN(size, 4, key=key), jnp.zeros(4)),
        lejax.cells.ClippedShallowPLRNN(size, 4, key=key),
        eqx.tree_at(lambda c: c.theta, lejax.cells.DendriticPLRNN(size, 2, key=key), jnp.zeros((size, 2))),
        lejax.cells.RNNCell(0, size, activation=jax.nn.relu, use_bias=False, key=key),
        lejax.systems.Lozi(),
    ]  # fmt: skip
    for cell in cells:
        net = lejax.piecewise_linear(cell)
        state = jnp.zeros(net.h1.size)
        exact = net.affine(net.region(state))[0]
        np.testing.assert_allclose(lejax.jacobian(net, state), exact, atol=1e-15)
        np.testing.assert_allclose(lejax.jacobian(cell, state), exact, atol=1e-15)
