"""Covariant vectors: covariance, known vectors, an independent implementation, duality, statistics, memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear, driven_gru, random_tanh

import lejax
from lejax._vectors.covariant import _covariant_statistics
from lejax._vectors.vector_run import check_run
from lejax.systems import Flow, Henon, Lorenz63


def residual(cell, run, inputs=None):
    """The largest |J v(t) - growth(t) v(t + 1)|."""

    def push(state, input, vectors):
        return lejax.push_forward(cell, state, input, vectors)[1]

    states = jax.tree.map(lambda x: x[:-1], run.states)
    axes = (0, None if inputs is None else 0, 0)
    pushed = jax.vmap(push, in_axes=axes)(states, inputs, run.vectors[:-1])
    return float(jnp.abs(pushed - run.growth[:-1, None] * run.vectors[1:]).max())


def up_to_sign(vectors, expected):
    return vectors * np.sign(np.sum(vectors * expected, axis=-2, keepdims=True))


@pytest.fixture(scope="module")
def henon():
    return lejax.covariant_lyapunov_vectors(Henon(), jnp.zeros(2), num_steps=400, transient=100)


def test_covariance_of_maps_flows_and_networks(henon):
    assert residual(Henon(), henon) < 1e-10
    flow = Flow(Lorenz63(), dt=0.02)
    run = lejax.covariant_lyapunov_vectors(
        flow, jnp.ones(3), num_steps=500, transient=500, backward_transient=1000
    )
    assert residual(flow, run) < 1e-10
    # The flow's own direction is the middle vector.
    fields = jax.vmap(lambda x: flow.vector_field(None, x))(run.states)
    angle = lejax.principal_angles(fields[:, :, None], run.vectors[:, :, 1:2])
    assert angle.max() < 1e-3
    cell, state, inputs = driven_gru(num_steps=150)
    run = lejax.covariant_lyapunov_vectors(cell, state, inputs, transient=20, backward_transient=30)
    assert run.vectors.shape == (100, 6, 6)
    assert residual(cell, run, inputs[20:119]) < 1e-10


def test_pytree_state_and_leading_vectors():
    cell = eqx.nn.LSTMCell(2, 4, key=jr.key(0))
    state, inputs = (jnp.zeros(4), jnp.zeros(4)), jr.normal(jr.key(1), (203, 2))
    run = lejax.covariant_lyapunov_vectors(
        cell, state, inputs, transient=40, backward_transient=60, num_exponents=3
    )
    assert run.states[0].shape == run.states[1].shape == (103, 4)
    assert run.vectors.shape == (103, 8, 3)
    assert residual(cell, run, inputs[40:142]) < 1e-10
    visited = lejax.unroll(cell, state, inputs)
    for at, out in zip(run.states, visited, strict=True):
        np.testing.assert_allclose(at, out[39:142], rtol=1e-12, atol=1e-15)
    spectrum = lejax.lyapunov_spectrum(cell, state, inputs[:143], transient=40, num_exponents=3)
    np.testing.assert_allclose(run.exponents, spectrum.exponents, atol=5 / 103)


def test_constant_maps_have_their_eigenvectors():
    values = jnp.array([1.5, -0.9, 0.6, 0.2])
    basis = jr.normal(jr.key(3), (4, 4)) + 2 * jnp.eye(4)
    basis = basis / jnp.linalg.norm(basis, axis=0)
    for columns in (jnp.eye(4), basis):
        cell = Linear(columns @ jnp.diag(values) @ jnp.linalg.inv(columns))
        run = lejax.covariant_lyapunov_vectors(cell, jnp.zeros(4), num_steps=5, transient=100)
        np.testing.assert_allclose(
            up_to_sign(run.vectors, columns), np.broadcast_to(columns, (5, 4, 4)), atol=1e-10
        )
        np.testing.assert_allclose(run.growth, np.broadcast_to(jnp.abs(values), (5, 4)), rtol=1e-9)
        np.testing.assert_allclose(run.local_exponents[0], jnp.log(jnp.abs(values)), rtol=1e-9)


def test_growth_rates_are_the_exponents():
    cell, state = random_tanh(jr.key(0), 8, 2.0), jr.normal(jr.key(1), (8,))
    run = lejax.covariant_lyapunov_vectors(cell, state, num_steps=4000, transient=200)
    spectrum = lejax.lyapunov_spectrum(cell, state, num_steps=4000, transient=200)
    # Both telescope: their difference is a boundary term, the log of an angle over T.
    np.testing.assert_allclose(run.exponents, spectrum.exponents, atol=10 / 4000)
    # R_11 and the first covariant vector are the same thing.
    np.testing.assert_allclose(run.exponents[0], spectrum.exponents[0], rtol=1e-10)


def henon_by_hand(state, steps, transient, backward, a=1.4, b=0.3):
    """Ginelli's algorithm in plain NumPy, from the formula, with analytic Jacobians."""
    rng = np.random.default_rng(1)
    frame = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    frames, triangles, point = [], [], np.array(state, float)
    for _ in range(transient + steps + backward):
        jacobian = np.array([[-2 * a * point[0], 1.0], [b, 0.0]])
        frames.append(frame)
        frame, triangle = np.linalg.qr(jacobian @ frame)
        triangles.append(triangle)
        point = np.array([1 - a * point[0] ** 2 + point[1], b * point[0]])
    coefficients = np.triu(rng.normal(size=(2, 2)))
    vectors = []
    for frame, triangle in zip(reversed(frames), reversed(triangles), strict=True):
        coefficients = np.linalg.solve(triangle, coefficients)
        coefficients /= np.linalg.norm(coefficients, axis=0)
        vectors.append(frame @ coefficients)
    return np.array(vectors[::-1])[transient : transient + steps]


def test_henon_against_plain_numpy():
    start = np.array([0.1, 0.1])
    # Short, for trajectories of two programs part after about 60 steps.
    run = lejax.covariant_lyapunov_vectors(
        Henon(), jnp.asarray(start), num_steps=20, transient=20, backward_transient=20
    )
    expected = henon_by_hand(start, 20, 20, 20)
    np.testing.assert_allclose(up_to_sign(run.vectors, expected), expected, atol=1e-6)


class Product(eqx.Module):
    """h' = A_t h, with the matrix as input: from h = 0 a product of given matrices."""

    def __call__(self, input, state):
        return input @ state


def test_past_and_future_vectors():
    matrices = jnp.diag(jnp.array([1.6, 1.0, 0.5, 0.2])) + 0.1 * jr.normal(jr.key(4), (230, 4, 4))
    run = {"transient": 100}
    covariant = lejax.covariant_lyapunov_vectors(Product(), jnp.zeros(4), matrices, **run)
    past = lejax.backward_lyapunov_vectors(Product(), jnp.zeros(4), matrices[:130], **run)
    future = lejax.forward_lyapunov_vectors(Product(), jnp.zeros(4), matrices, **run)
    np.testing.assert_array_equal(covariant.states, jnp.zeros((30, 4)))
    identity = np.broadcast_to(np.eye(4), (30, 4, 4))
    for vectors in (past.vectors, future.vectors):
        np.testing.assert_allclose(jnp.swapaxes(vectors, 1, 2) @ vectors, identity, atol=1e-12)
    # v_i is in the span of the first i of the past, and orthogonal to the first i - 1 of the future.
    of_past = jnp.swapaxes(past.vectors, 1, 2) @ covariant.vectors
    np.testing.assert_allclose(jnp.tril(of_past, -1), 0, atol=1e-8)
    of_future = jnp.swapaxes(future.vectors, 1, 2) @ covariant.vectors
    np.testing.assert_allclose(jnp.triu(of_future, 1), 0, atol=1e-8)


def test_adjoint_exponents_are_those_of_the_spectrum():
    run = {"num_steps": 3000, "transient": 100}
    future = lejax.forward_lyapunov_vectors(Henon(), jnp.zeros(2), **run)
    past = lejax.backward_lyapunov_vectors(Henon(), jnp.zeros(2), **run)
    np.testing.assert_allclose(future.exponents, past.exponents, atol=10 / 3000)
    np.testing.assert_allclose(past.exponents.sum(), np.log(0.3), rtol=1e-12)


def test_statistics_are_those_of_the_stored_vectors(henon):
    histogram = lejax.AngleHistogram(1, num_bins=30)
    found = lejax.covariant_statistics(
        Henon(),
        jnp.zeros(2),
        num_steps=400,
        transient=100,
        reducer={"angles": histogram, "means": lejax.VectorStatistics()},
    )
    means, growth = found["means"], jnp.log(henon.growth)
    np.testing.assert_allclose(means.mean_log_growth, henon.exponents, rtol=1e-10)
    np.testing.assert_allclose(means.variance_log_growth, growth.var(axis=0), rtol=1e-8)
    angles = lejax.vector_angles(henon.vectors)
    np.testing.assert_allclose(means.smallest_angle, angles.min(axis=0), atol=1e-10)
    np.testing.assert_allclose(
        means.mean_squared_cosine, (jnp.cos(angles) ** 2).mean(axis=0), rtol=1e-10
    )
    participation = lejax.participation_ratio(henon.vectors).mean(axis=0)
    np.testing.assert_allclose(means.participation, participation, rtol=1e-10)
    counts, _ = np.histogram(angles[:, 0, 1], bins=30, range=(0, np.pi / 2))
    np.testing.assert_array_equal(found["angles"], counts)
    # Henon is not hyperbolic: there are near tangencies.
    assert means.smallest_angle[0, 1] < 0.05


@pytest.mark.parametrize("num_steps", [1, 2, 7, 16, 17])
def test_segments_of_any_length(num_steps, henon):
    run = lejax.covariant_lyapunov_vectors(
        Henon(), jnp.zeros(2), num_steps=num_steps, transient=100, backward_transient=60
    )
    np.testing.assert_array_equal(run.states, henon.states[:num_steps])
    np.testing.assert_allclose(
        up_to_sign(run.vectors, henon.vectors[:num_steps]), henon.vectors[:num_steps], atol=1e-8
    )


@pytest.mark.parametrize("qr_interval", [2, 5])
def test_vectors_between_orthonormalizations(qr_interval, henon):
    run = lejax.covariant_lyapunov_vectors(
        Henon(), jnp.zeros(2), num_steps=103, transient=100, qr_interval=qr_interval
    )
    assert residual(Henon(), run) < 1e-10
    np.testing.assert_array_equal(run.states, henon.states[:103])
    np.testing.assert_allclose(jnp.linalg.norm(run.vectors, axis=1), 1, rtol=1e-14)
    expected = henon.vectors[:103]
    np.testing.assert_allclose(up_to_sign(run.vectors, expected), expected, atol=1e-9)
    np.testing.assert_allclose(run.growth, henon.growth[:103], rtol=1e-8)


def test_memory_grows_as_the_root_of_the_steps():
    cell, state = random_tanh(jr.key(0), 16, 1.5), jnp.ones(16)

    def temporary(num_steps):
        run = check_run(cell, state, None, None, num_steps, 0, 0, None)
        lowered = eqx.filter_jit(_covariant_statistics.__wrapped__).lower(
            run, 1, None, lejax.VectorStatistics()
        )
        return lowered.compile().compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(400), temporary(400 * 100)
    assert many < 12 * few
    assert many < 16 * 16 * 8 * 400 * 100 / 5


def test_a_lost_direction_leaves_the_others():
    matrix = jnp.array([[1.2, 0.3, 0.1], [0.0, 0.8, 0.5], [0.0, 0.0, 0.0]])
    run = lejax.covariant_lyapunov_vectors(Linear(matrix), jnp.zeros(3), num_steps=10, transient=60)
    assert list(run.unresolved) == [0, 0, 10]
    np.testing.assert_allclose(run.growth[:, :2], np.tile([1.2, 0.8], (10, 1)), rtol=1e-10)
    assert np.all(run.growth[:, 2] < 1e-15)
    null = np.linalg.svd(matrix)[2][-1]
    np.testing.assert_allclose(np.abs(run.vectors[:, :, 2] @ null), 1, rtol=1e-12)
    assert residual(Linear(matrix), run) < 1e-10


def test_gradient_of_growth_reaches_the_parameters():
    def mean_growth(b):
        run = lejax.covariant_lyapunov_vectors(
            Henon(1.4, b), jnp.zeros(2), num_steps=4, transient=2, backward_transient=2
        )
        return run.exponents[1]

    difference = (mean_growth(0.3 + 1e-6) - mean_growth(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(mean_growth)(0.3), difference, rtol=1e-5)


def test_a_diverged_run_raises_and_its_angles_are_not_counted():
    run = {"reducer": lejax.AngleHistogram(1), "num_steps": 50, "backward_transient": 10}
    blown = lambda _, x: 3 * x**2 + x[::-1]
    with pytest.raises(RuntimeError, match="left the floating-point numbers"):
        lejax.covariant_statistics(blown, jnp.array([1.0, 2.0]), **run)
    for vectors in (lejax.backward_lyapunov_vectors, lejax.forward_lyapunov_vectors):
        with pytest.raises(RuntimeError, match="left the floating-point numbers"):
            vectors(blown, jnp.array([1.0, 2.0]), num_steps=50)
    counts = lejax.covariant_statistics(blown, jnp.array([1.0, 2.0]), throw=False, **run)
    assert int(counts.sum()) < 50


def test_gradient_of_a_lost_direction():
    # (x, y) -> (x + a y) (1, 1/2): the kernel is (-a, 1), everywhere.
    def ratio(a):
        cell = lambda _, h: (h[0] + a * h[1]) * jnp.array([1.0, 0.5])
        run = {"num_steps": 10, "transient": 2, "backward_transient": 3}
        kernel = lejax.covariant_lyapunov_vectors(cell, jnp.array([1.0, 0.5]), **run).vectors[
            6, :, 1
        ]
        return kernel[0] / kernel[1]

    np.testing.assert_allclose(ratio(0.7), -0.7, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(ratio)(0.7), -1.0, rtol=1e-9)


def test_float32():
    run = lejax.covariant_lyapunov_vectors(
        jax.tree.map(lambda x: x.astype(jnp.float32), Henon()),
        jnp.zeros(2, jnp.float32),
        num_steps=50,
        transient=20,
    )
    for leaf in (run.states, run.vectors, run.growth, run.exponents):
        assert leaf.dtype == jnp.float32
    pushed = jax.vmap(lambda x, v: lejax.push_forward(Henon(), x, None, v)[1])(
        run.states, run.vectors
    )
    np.testing.assert_allclose(pushed[:-1], run.growth[:-1, None] * run.vectors[1:], atol=2e-6)


def test_bad_input():
    cell, state, inputs = driven_gru(num_steps=50)
    with pytest.raises(ValueError, match=r"backward_transient \(100\) leaves nothing to report"):
        lejax.covariant_lyapunov_vectors(cell, state, inputs)
    with pytest.raises(ValueError, match="num_exponents is 3, but a state of 2 numbers has only 2"):
        lejax.covariant_lyapunov_vectors(Henon(), jnp.zeros(2), num_steps=5, num_exponents=3)
    with pytest.raises(RuntimeError, match="left the floating-point numbers"):
        lejax.covariant_lyapunov_vectors(Henon(), jnp.array([5.0, 5.0]), num_steps=50)
    with pytest.raises(TypeError, match="reducer must be a CovariantReducer or a pytree of them"):
        lejax.covariant_statistics(Henon(), jnp.zeros(2), num_steps=5, reducer=jnp.sum)
    with pytest.raises(ValueError, match="split is 2, but there are 2 vectors to divide"):
        lejax.covariant_statistics(
            Henon(), jnp.zeros(2), num_steps=5, reducer=lejax.AngleHistogram(2)
        )


def test_statistics_come_per_unit_of_time():
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(), 0.01)
    run = {"num_steps": 200, "transient": 100, "backward_transient": 50}
    own = lejax.covariant_lyapunov_vectors(flow, jnp.ones(3), **run)
    for dt in (None, 0.5):
        scale = 1 if dt is None else 0.01 / dt
        found = lejax.covariant_statistics(
            flow, jnp.ones(3), reducer=lejax.VectorStatistics(), dt=dt, **run
        )
        np.testing.assert_allclose(found.mean_log_growth, scale * own.exponents, rtol=1e-8)
        variance = np.var(own.local_exponents, axis=0)
        np.testing.assert_allclose(found.variance_log_growth, scale**2 * variance, rtol=1e-6)
