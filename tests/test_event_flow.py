"""The event-exact flow: closed forms, an adaptive solver, grazing, derivatives, spectra, equilibria."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import lejax
from lejax.plrnn import (
    ContinuousALRNN,
    EventExactFlow,
    PiecewiseLinearField,
    find_equilibria,
    sample_flow,
)
from lejax.plrnn._bernstein import first_zero
from lejax.systems import Flow, Lorenz63


def jerk():
    """A chaotic jerk system whose exponents sum to -.6: x''' = -.6 x'' - x' + |x| - 1.

    Linz & Sprott, Phys. Lett. A 259 (1999).
    """
    A = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, -1.0, -0.6]])
    W1, W2 = jnp.array([[0.0], [0.0], [2.0]]), jnp.array([[1.0, 0.0, 0.0]])
    return lejax.PiecewiseLinearMap(A, W1, W2, jnp.array([0.0, 0.0, -1.0]), jnp.zeros(1))


def chua(alpha=9.0, beta=100 / 7, inner=-8 / 7, outer=-5 / 7):
    """The double scroll of Chua's circuit, with three equilibria. Matsumoto, Chua & Komuro, IEEE CAS 32 (1985)."""
    A = jnp.array([[-alpha * (1 + outer), alpha, 0.0], [1.0, -1.0, 1.0], [0.0, -beta, 0.0]])
    c = -alpha * (inner - outer)
    W1 = jnp.array([[c, -c], [0.0, 0.0], [0.0, 0.0]])
    W2 = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    return lejax.PiecewiseLinearMap(A, W1, W2, jnp.array([-c, 0.0, 0.0]), jnp.array([1.0, -1.0]))


CHUA = PiecewiseLinearField(chua())
START = jnp.array([0.7, 0.1, -0.2])


def random_field(size, num_relu, seed, gain):
    keys = jr.split(jr.key(seed), 3)
    W = gain * jr.normal(keys[1], (size, size)) / size**0.5
    return ContinuousALRNN.from_weights(
        a=-jnp.ones(size), W=W, h=jr.normal(keys[2], (size,)), num_relu=num_relu
    )


@pytest.mark.parametrize(("size", "num_relu", "seed", "gain"), [(3, 3, 65, 3.5), (20, 2, 942, 1.3)])
def test_agrees_with_an_adaptive_solver(size, num_relu, seed, gain):
    field = random_field(size, num_relu, seed, gain)
    start, times = jr.normal(jr.key(9), (size,)), np.linspace(0.1, 20, 200)
    states = sample_flow(field, start, times)
    a, W, h = (
        np.asarray(x)
        for x in (field.right_hand_side.a, field.right_hand_side.W, field.right_hand_side.h)
    )

    def velocity(_, z):
        return a * z + W @ np.concatenate([z[:-num_relu], np.maximum(z[-num_relu:], 0)]) + h

    known = solve_ivp(
        velocity, (0, 20), np.asarray(start), "DOP853", times, rtol=1e-13, atol=1e-13
    ).y.T
    assert np.sum(np.diff(known[:, -num_relu:] > 0, axis=0)) >= 3
    np.testing.assert_allclose(states, known, atol=1e-10 * np.abs(known).max())
    # The result does not depend on the step, nor on the times that are sampled before.
    at = sample_flow(field, start, jnp.array([0.0, 0.017, 3.3, 3.3, 10.0, 20.0]))
    np.testing.assert_array_equal(at[0], start)
    np.testing.assert_array_equal(at[2], at[3])
    assert sample_flow(field, start, jnp.zeros(0)).shape == (0, size)
    np.testing.assert_allclose(at[-1], states[-1], atol=1e-11 * np.abs(known).max())


def test_linear_flow_is_the_matrix_exponential():
    # Defective, singular and zero generators are no special case.
    for matrix in ([[0.0, 1.0], [0.0, 0.0]], [[-1.0, 1.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]):
        A, offset = jnp.array(matrix), jnp.array([0.3, -0.7])
        empty = lejax.PiecewiseLinearMap(
            A, jnp.zeros((2, 0)), jnp.zeros((0, 2)), offset, jnp.zeros(0)
        )
        flow = EventExactFlow(PiecewiseLinearField(empty), 3.0)
        augmented = np.block([[np.array(matrix), offset[:, None]], [np.zeros((1, 3))]])
        expected = expm(3 * augmented)
        state = jnp.array([1.0, 2.0])
        np.testing.assert_allclose(flow(None, state), (expected @ [1, 2, 1])[:2], atol=1e-13)
        np.testing.assert_allclose(lejax.jacobian(flow, state), expected[:2, :2], atol=1e-13)


def test_first_zero_against_the_roots():
    rng, compiled = np.random.default_rng(0), jax.jit(first_zero)
    for _ in range(100):
        # Products of linear factors with zeros in and near the interval, some in close pairs.
        zeros = rng.uniform(-0.5, 2, 6)
        zeros[1] = zeros[0] + 10.0 ** rng.uniform(-6, 0)
        coefficients = np.polynomial.polynomial.polyfromroots(zeros)
        coefficients *= np.sign(coefficients[0])
        position, done = 0.0, False
        while not done and position < 1:  # continue from the end of the certified interval
            moved = np.polynomial.Polynomial(coefficients)(
                np.polynomial.Polynomial([position, 1 - position])
            ).coef
            stop, crossed = compiled(jnp.asarray(np.pad(moved, (0, 7 - len(moved))))[None])
            position, done = position + (1 - position) * float(stop), bool(crossed[0])
        inside = zeros[(zeros > 0) & (zeros < 1)]
        expected = inside.min() if inside.size else 1.0
        np.testing.assert_allclose(position, expected, atol=1e-8)
        assert done == (inside.size > 0)


@pytest.mark.parametrize("depth", [1e-1, 1e-4, 1e-8, 1e-12, 1e-15, 0.0, -1e-12, -1e-4])
def test_grazing(depth):
    # x moves on a circle down to -depth, and y grows as max(-x, 0).
    A = jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    W1, W2 = jnp.array([[0.0], [0.0], [1.0]]), jnp.array([[-1.0, 0.0, 0.0]])
    # x = 1 - (1 + depth) cos(t - pi) has its minimum -depth at t = pi.
    center = jnp.array([1.0, 0.0])
    field = lejax.PiecewiseLinearMap(
        A, W1, W2, jnp.concatenate([-A[:2, :2] @ center, jnp.zeros(1)]), jnp.zeros(1)
    )
    flow = EventExactFlow(PiecewiseLinearField(field), 2 * np.pi, max_pieces=200)
    start = jnp.array([2.0 + depth, 0.0, 0.0])
    end = flow(None, start)
    half = (
        np.arccos(1 / (1 + depth)) if depth > 0 else 0.0
    )  # half of the time for which x is negative
    # (1 + depth) sin(half) - half without cancellation: by its series for small depths.
    area = 2 * ((1 + depth) * np.sin(half) - half) if depth > 1e-6 else 2 * half**3 / 3
    np.testing.assert_allclose(end[:2], start[:2], atol=1e-13)
    np.testing.assert_allclose(end[2], area, rtol=1e-6, atol=1e-14)
    four = sample_flow(flow.field, start, jnp.linspace(0, 8 * np.pi, 9), max_pieces=200)[-1]
    np.testing.assert_allclose(four[2], 4 * area, rtol=1e-6, atol=1e-13)


def test_a_sample_on_a_hyperplane_and_many_in_a_row():
    # With x' = 1, y' = max(x, 0) every sample at t = 1 lies on the hyperplane.
    field = lejax.PiecewiseLinearMap(
        jnp.zeros((2, 2)),
        jnp.array([[0.0], [1.0]]),
        jnp.array([[1.0, 0.0]]),
        jnp.array([1.0, 0.0]),
        jnp.zeros(1),
    )
    states = sample_flow(PiecewiseLinearField(field), jnp.array([-1.0, 0.0]), jnp.arange(4.0))
    np.testing.assert_allclose(states, [[-1, 0], [0, 0], [1, 0.5], [2, 2]], atol=1e-14)


def directional(function):
    """The values after a shift of weights, state and duration along one direction."""
    network = chua()
    shift = [0.3 * jr.normal(jr.key(i), x.shape) for i, x in enumerate(jax.tree.leaves(network))]

    def at(s):
        leaves, structure = jax.tree.flatten(network)
        moved = jax.tree.unflatten(
            structure, [x + s * y for x, y in zip(leaves, shift, strict=True)]
        )
        return function(EventExactFlow(PiecewiseLinearField(moved), 3.0 + s), START + s)

    return at


def test_derivatives_against_differences():
    weights = jnp.array([1.0, -2.0, 0.5])
    value = jax.jit(directional(lambda flow, z: flow(None, z) @ weights))
    gradient = jax.jit(jax.grad(value))
    e = 1e-5
    np.testing.assert_allclose(gradient(0.0), (value(e) - value(-e)) / (2 * e), rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(value, (0.0,), (1.0,))[1], gradient(0.0), rtol=1e-11)
    second = jax.jit(jax.jacfwd(gradient))(0.0)
    np.testing.assert_allclose(second, (gradient(e) - gradient(-e)) / (2 * e), rtol=1e-6)


def test_derivative_of_the_tangent_map_follows_the_switches():
    def entry(flow, z):
        return flow.push_forward(None, z, jnp.array([[1.0], [0.5], [-1.0]]))[1].sum()

    value = jax.jit(directional(entry))
    e = 1e-5
    difference = (value(e) - value(-e)) / (2 * e)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(0.0), difference, rtol=1e-6)


def test_fundamental_matrix_is_the_derivative():
    flow = EventExactFlow(CHUA, 5.0)
    network = lejax.piecewise_linear(CHUA)
    path = sample_flow(CHUA, START, jnp.linspace(0, 5, 400))
    assert np.sum(np.diff(jax.vmap(network.region)(path), axis=0)) >= 2
    exact = lejax.jacobian(flow, START)
    e = 1e-6
    differences = [
        (flow(None, START + e * unit) - flow(None, START - e * unit)) / (2 * e)
        for unit in jnp.eye(3)
    ]
    scale = np.abs(exact).max()
    np.testing.assert_allclose(exact, np.stack(differences, axis=1), atol=1e-8 * scale)
    derivative = jax.jacrev(lambda z: flow(None, z))(START)
    np.testing.assert_allclose(exact, derivative, atol=1e-12 * scale)


def test_vmap_jit_and_low_precision():
    flow = EventExactFlow(CHUA, 0.5)
    states = jr.normal(jr.key(4), (2, 3, 3))
    batch = jax.jit(jax.vmap(jax.vmap(lambda z: flow(None, z))))(states)
    one_by_one = np.array([[flow(None, z) for z in row] for row in states])
    np.testing.assert_allclose(batch, one_by_one, rtol=1e-12, atol=1e-13)
    low = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_array(x) else x, flow)
    end = low(None, START.astype(jnp.float32))
    assert end.dtype == jnp.float32
    np.testing.assert_allclose(end, flow(None, START), atol=1e-5)
    fields = eqx.filter_vmap(lambda key: ContinuousALRNN(3, 2, key=key))(jr.split(jr.key(0), 2))
    ends = eqx.filter_vmap(lambda field: EventExactFlow(field, 0.5)(None, START))(fields)
    alone = EventExactFlow(ContinuousALRNN(3, 2, key=jr.split(jr.key(0), 2)[1]), 0.5)
    np.testing.assert_allclose(ends[1], alone(None, START), rtol=1e-13)


def test_spectrum_of_a_linear_network_is_that_of_its_generator():
    A = jnp.array([[-0.1, 2.0, 0.3], [-2.0, -0.1, 0.1], [0.0, 0.0, -0.7]])
    network = lejax.PiecewiseLinearMap(
        A, jnp.zeros((3, 1)), jnp.ones((1, 3)), jnp.ones(3), jnp.zeros(1)
    )
    flow = EventExactFlow(PiecewiseLinearField(network), 0.5)
    # The finite-time exponents of the pair oscillate within each half turn, by an amount that decays as 1 / t.
    run = lejax.lyapunov_spectrum(flow, jnp.ones(3), num_steps=2000, transient=200)
    np.testing.assert_allclose(run.exponents, [-0.1, -0.1, -0.7], atol=2e-4)
    np.testing.assert_allclose(run.exponents.sum(), -0.9, rtol=1e-12)


def test_exponents_sum_to_the_mean_trace():
    steps, dt = 80, 0.25  # too short for chaos to amplify rounding
    run = lejax.lyapunov_spectrum(EventExactFlow(CHUA, dt), START, num_steps=steps)
    fine = sample_flow(CHUA, START, jnp.arange(0.5, 100 * steps) * (dt / 100))
    network = lejax.piecewise_linear(CHUA)
    traces = jax.vmap(lambda z: jnp.trace(network.affine(network.region(z))[0]))(fine)
    np.testing.assert_allclose(run.exponents.sum(), traces.mean(), rtol=3e-3)
    run = lejax.lyapunov_spectrum(
        EventExactFlow(PiecewiseLinearField(jerk()), dt),
        jnp.array([-0.5, 0.0, 0.0]),
        num_steps=4000,
        transient=400,
        method=lejax.SequentialQR(tolerance=1e-13),
    )
    np.testing.assert_allclose(run.exponents.sum(), -0.6, rtol=1e-11)
    assert abs(run.exponents[0] - 0.035) < 5 * run.standard_error[0]  # .035 is published
    assert abs(run.exponents[1]) < 5 * run.standard_error[1]


def test_equilibria_of_the_double_scroll():
    found = find_equilibria(CHUA)
    points = np.asarray(found.points)[np.argsort(found.points[:, 0])]
    np.testing.assert_allclose(points, [[-1.5, 0, 1.5], [0, 0, 0], [1.5, 0, -1.5]], atol=1e-14)
    assert found.kind == ["saddle"] * 3
    assert sorted(found.num_unstable) == [1, 2, 2]
    assert int(found.num_singular) == 0
    for point, values in zip(found.points, found.eigenvalues, strict=True):
        matrix = jax.jacfwd(lambda z: CHUA(None, z))(point)
        np.testing.assert_allclose(np.sort(values), np.sort(np.linalg.eigvals(matrix)), atol=1e-12)


@pytest.mark.parametrize(("size", "left_out"), [(2, 1), (3, 0), (9, 0)])
def test_size_is_the_number_of_equilibria(size, left_out):
    every = find_equilibria(CHUA)
    found = jax.jit(lambda: find_equilibria(CHUA, size=size))()
    assert found.points.shape == (size, 3)
    assert found.found.tolist() == [i < 3 for i in range(size)]
    assert int(found.left_out) == left_out
    np.testing.assert_allclose(found.points[:3], every.points[:size], atol=1e-14)
    missing = size - len(found.points[:3])
    assert found.kind == every.kind[:size] + ["not found"] * missing
    assert list(found.num_unstable) == [*every.num_unstable[:size], *[-1] * missing]
    assert np.all(np.isnan(found.eigenvalues[3:]))


def test_equilibria_are_where_the_velocity_is_zero():
    field = random_field(6, 5, 1, 3.0)
    found = find_equilibria(field)
    np.testing.assert_allclose(jax.vmap(lambda z: field(None, z))(found.points), 0, atol=1e-12)

    # The indices of all zeros of a field add up to that of the field at infinity, which does not depend on h.
    def degree(h):
        moved = eqx.tree_at(lambda f: f.right_hand_side.h, field, h)
        found = find_equilibria(moved, size=2**5)
        signs = jnp.sign(jnp.linalg.det(found.jacobians))
        return jnp.sum(jnp.where(found.found, signs, 0))

    degrees = jax.vmap(degree)(jr.normal(jr.key(5), (20, 6)))
    assert len(set(degrees.tolist())) == 1


def test_an_equilibrium_on_all_hyperplanes_is_found_once_and_lines_are_none():
    field = ContinuousALRNN(5, 3, key=jr.key(0))
    found = find_equilibria(field)
    np.testing.assert_allclose(found.points, np.zeros((1, 5)))
    assert found.kind == ["stable node"]
    line = ContinuousALRNN.from_weights(
        a=jnp.zeros(2), W=jnp.zeros((2, 2)), h=jnp.ones(2), num_relu=1
    )
    with pytest.warns(
        UserWarning, match="no equilibrium was found, but the Jacobian is singular in 2"
    ):
        found = find_equilibria(line)
    assert len(found.points) == 0
    assert int(found.num_singular) == 2
    centre = ContinuousALRNN.from_weights(
        a=jnp.zeros(2), W=jnp.array([[0.0, 1.0], [-1.0, 0.0]]), h=jnp.ones(2), num_relu=0
    )
    assert find_equilibria(centre).kind == ["non-hyperbolic"]


def test_drawn_networks_are_stable():
    field = ContinuousALRNN(20, 3, 2, tau=5.0, key=jr.key(0))
    discrete = lejax.cells.ALRNN(20, 3, 2, key=jr.key(0))
    state, input = jr.normal(jr.key(1), (20,)), jnp.array([0.3, -1.0])
    expected = (discrete(input, state) - state) / 5
    np.testing.assert_allclose(field(input, state), expected, atol=1e-14)
    network = lejax.piecewise_linear(field, input)
    regions = jnp.asarray([[bool(i >> j & 1) for j in range(3)] for i in range(8)])
    generators = jax.vmap(lambda region: network.affine(region)[0])(regions)
    assert np.all(np.linalg.eigvals(generators).real < 0)
    assert find_equilibria(field, input).kind[0].startswith("stable")
    flow = EventExactFlow(field, 0.5)
    fine = Flow(field, 0.5, substeps=50)
    np.testing.assert_allclose(flow(input, state), fine(input, state), atol=1e-10)
    low = ContinuousALRNN(3, 1, dtype=jnp.float32, tau=jnp.array(2.0), key=jr.key(0))
    assert {x.dtype for x in jax.tree.leaves(low)} == {jnp.dtype("float32")}


def test_too_few_pieces():
    flow = EventExactFlow(CHUA, 50.0, max_pieces=3)
    with pytest.raises(RuntimeError, match="more than max_pieces=3 Taylor series"):
        flow(None, START)
    assert np.all(np.isnan(jax.jit(lambda z: flow(None, z))(START)))
    with pytest.raises(
        RuntimeError, match=r"the solution up to times\[1\] takes more than max_pieces=3"
    ):
        sample_flow(CHUA, START, jnp.array([0.1, 50.0]), max_pieces=3)
    with pytest.raises(RuntimeError, match="left the floating-point numbers"):
        lejax.lyapunov_spectrum(flow, START, num_steps=3)
    backwards = jax.jit(lambda t: sample_flow(CHUA, START, t))(jnp.array([1.0, 0.5]))
    np.testing.assert_array_equal(np.isnan(backwards).any(axis=1), [False, True])


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: EventExactFlow(Lorenz63(), 0.1), TypeError, "Lorenz63 is not known to be piecewise"),
        (lambda: EventExactFlow(jerk(), 0.1), TypeError, "field must be a VectorField .* got PiecewiseLinearMap"),
        (lambda: EventExactFlow(CHUA, 0.0), ValueError, "dt must be positive and finite, got 0"),
        (lambda: EventExactFlow(CHUA, 0.1, 0), ValueError, "max_pieces must be an integer of at"),
        (lambda: EventExactFlow(CHUA, 0.1)(None, jnp.ones(2)), ValueError, r"the state has shape \(2,\)"),
        (lambda: PiecewiseLinearField(lejax.systems.Henon()), TypeError, "Henon is not known to be"),
        (lambda: sample_flow(CHUA, START, 1.0), ValueError, r"times must have shape \(n,\), got"),
        (lambda: sample_flow(CHUA, START, jnp.array([1.0, 0.5])), ValueError, r"but times\[1\] is 0.5"),
        (lambda: sample_flow(CHUA, START, jnp.array([1j])), TypeError, "times must be real"),
        (lambda: find_equilibria(random_field(18, 17, 0, 1.0)), ValueError, "has 17 hidden units"),
        (lambda: jax.jit(find_equilibria)(CHUA), TypeError, "cannot be traced: give size, the number of rows"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_derivatives_at_times_that_repeat_and_at_a_start_on_a_hyperplane():
    decay = PiecewiseLinearField(lejax.PiecewiseLinearMap([[-1.0]], [[0.0]], [[1.0]], [0.0], [0.0]))
    times = jnp.array([0.0, 1.0, 1.0, 2.0])
    derivative = jax.jacfwd(lambda t: sample_flow(decay, jnp.ones(1), t)[:, 0])(times)
    np.testing.assert_allclose(derivative, -jnp.diag(jnp.exp(-times)), atol=1e-12)
    constant = PiecewiseLinearField(
        lejax.PiecewiseLinearMap(
            np.zeros((2, 2)), np.zeros((2, 1)), [[1.0, 1.0]], [1.0, 0.0], [0.0]
        )
    )
    flow = EventExactFlow(constant, dt=1.0)
    np.testing.assert_allclose(jax.jacrev(lambda z: flow(None, z))(jnp.zeros(2)), jnp.eye(2))
    weights = {"a": -jnp.ones(1), "W": jnp.zeros((1, 1)), "h": jnp.zeros(1)}
    linear = EventExactFlow(ContinuousALRNN.from_weights(**weights, num_relu=0), 1.0)
    np.testing.assert_allclose(jax.jacfwd(lambda z: linear(None, z))(jnp.ones(1)), [[jnp.exp(-1)]])


def test_reverse_mode_over_a_batch_and_second_derivatives():
    flow = EventExactFlow(CHUA, 1.0)
    starts = jr.normal(jr.key(3), (3, 3))

    def end(z):
        return jnp.sum(flow(None, z) ** 2)

    def of_batch(zs):
        return jnp.sum(jax.vmap(end)(zs))

    alone = np.array([jax.grad(end)(z) for z in starts])
    np.testing.assert_allclose(jax.grad(of_batch)(starts), alone, rtol=1e-11)
    direction = jnp.array([0.3, -1.0, 0.5])
    slope = jax.jit(jax.vmap(lambda z: jax.jvp(jax.grad(end), (z,), (direction,))[1]))
    difference = (
        jax.vmap(jax.grad(end))(starts + 1e-5 * direction)
        - jax.vmap(jax.grad(end))(starts - 1e-5 * direction)
    ) / 2e-5
    np.testing.assert_allclose(slope(starts), difference, rtol=1e-5, atol=1e-5)
