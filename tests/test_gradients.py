"""Derivatives of all differentiable verbs against finite differences, for all strategies and with lost directions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear, driven_gru, random_tanh

import lejax
from lejax import training


GRU, REST, INPUTS = driven_gru(size=5, num_steps=24)
CHAOTIC = random_tanh(jr.key(0), 6, 2.5)
START = jr.normal(jr.key(1), (6,))
LSTM = lejax.cells.LSTMCell(2, 3, key=jr.key(4))
DIRECT, CHECKPOINTED = lejax.DirectAdjoint(), lejax.CheckpointedAdjoint()
# One object for all calls: JAX compares the arrays in a strategy by identity.
QR = lejax.SequentialQR(every=1)
TO_TARGET = eqx.Partial(lambda target, x: (x - target) ** 2, jnp.array([0.1, -0.4]))


def gru_spectrum(arguments, **options):
    cell, state, inputs = arguments
    return lejax.lyapunov_spectrum(cell, state, inputs, **options).exponents


def chaotic_spectrum(arguments, **options):
    cell, state = arguments
    return lejax.lyapunov_spectrum(cell, state, num_steps=15, throw=False, **options).exponents


OF_GRU, OF_CHAOTIC, OF_LSTM = (
    (GRU, REST + 0.1, INPUTS),
    (CHAOTIC, START),
    (LSTM, LSTM.initial_state(), INPUTS[:, :2]),
)


def strategies():
    """Yield name, (function, arguments) for every method, orthonormalizer and exact adjoint, and for several k."""
    for k in (1, 3, 6):
        yield f"chaos k={k}", (lambda a, k=k: chaotic_spectrum(a, num_exponents=k), OF_CHAOTIC)
    for o in (lejax.Householder(), lejax.Cholesky(), lejax.GramSchmidt(), lejax.Panels(width=2)):
        method = lejax.SequentialQR(every=1, orthonormalizer=o)
        yield (
            f"chaos {type(o).__name__}",
            (lambda a, m=method: chaotic_spectrum(a, method=m), OF_CHAOTIC),
        )
    adjoints = {
        "direct": DIRECT,
        "checkpoints": CHECKPOINTED,
        "5 segments": lejax.CheckpointedAdjoint(5),
        "one segment a step": lejax.CheckpointedAdjoint(10**6),
        "one window": lejax.WindowedAdjoint(24),
    }
    for name, adjoint in adjoints.items():
        yield (
            f"GRU {name}",
            (lambda a, x=adjoint: gru_spectrum(a, adjoint=x, transient=4, num_blocks=3), OF_GRU),
        )
        if name == "one window":
            continue  # each chunk begins with its own window: see test_windows_cut_state_and_frame_at_the_same_steps
        parallel = lejax.ParallelQR(num_chunks=2, overlap=4)
        options = {"adjoint": adjoint, "transient": 4, "method": parallel, "throw": False}
        yield (
            f"GRU parallel {name}",
            (lambda a, o=options: gru_spectrum(a, num_exponents=2, **o), OF_GRU),
        )
    for every in (2, jnp.array(3)):
        method = lejax.SequentialQR(every=every)
        options = {"method": method, "transient": 3, "adjoint": CHECKPOINTED}
        yield f"GRU every {every}", (lambda a, o=options: gru_spectrum(a, **o), OF_GRU)
    yield "LSTM", (lambda a: gru_spectrum(a), OF_LSTM)
    yield "LSTM k=2", (lambda a: gru_spectrum(a, num_exponents=2), OF_LSTM)


VERBS = {
    "block_exponents": (
        lambda a: lejax.lyapunov_spectrum(*a, num_blocks=4).block_exponents,
        OF_GRU,
    ),
    "standard_error": (
        lambda a: lejax.lyapunov_spectrum(*a, num_blocks=4).standard_error,
        OF_GRU,
    ),
    "frame": (
        lambda a: lejax.lyapunov_spectrum(GRU, REST, INPUTS, frame=a).frame,
        jr.normal(jr.key(3), (5, 2)),
    ),
    "unroll": (lambda a: lejax.unroll(*a), OF_GRU),
    "jacobian": (lambda a: lejax.jacobian(a[0], a[1], a[2][0]), OF_GRU),
    "push_forward": (lambda a: lejax.push_forward(a[0], a[1], a[2][0], jnp.eye(5))[1], OF_GRU),
    "kaplan_yorke_dimension": (
        lambda a: lejax.kaplan_yorke_dimension(chaotic_spectrum(a)),
        OF_CHAOTIC,
    ),
    "kolmogorov_sinai_entropy": (
        lambda a: lejax.kolmogorov_sinai_entropy(chaotic_spectrum(a)),
        OF_CHAOTIC,
    ),
    "jackknife": (
        lambda a: lejax.jackknife(
            lejax.lyapunov_spectrum(*a, num_blocks=4), lambda x: jnp.sum(x**2)
        )[1],
        OF_GRU,
    ),
    "combine": (
        lambda a: lejax.combine(lejax.lyapunov_spectrum(*a), lejax.lyapunov_spectrum(*a)).exponents,
        OF_GRU,
    ),
    "flossing_penalty": (lambda a: training.flossing_penalty(*a, transient=4), OF_GRU),
    "flossing_penalty.options": (
        lambda a: training.flossing_penalty(
            *a, num_exponents=2, target=-0.3, adjoint=lejax.CheckpointedAdjoint(3)
        ),
        OF_GRU,
    ),
    "spectrum_penalty": (
        lambda a: training.spectrum_penalty(*a, function=TO_TARGET, num_exponents=2, num_steps=15),
        OF_CHAOTIC,
    ),
    "spectrum_penalty.scalar": (
        lambda a: training.spectrum_penalty(
            *a, function=lejax.kolmogorov_sinai_entropy, num_steps=15
        ),
        OF_CHAOTIC,
    ),
    "Flow": (
        lambda a: (
            lejax.lyapunov_spectrum(
                lejax.systems.Flow(lejax.systems.Lorenz63(rho=a), dt=0.01),
                jnp.ones(3),
                num_steps=20,
            ).exponents
        ),
        jnp.array(28.0),
    ),
}
CASES = dict(strategies()) | VERBS
FEW = ("chaos k=3", "GRU checkpoints", "GRU parallel checkpoints", "LSTM k=2", "flossing_penalty")
PARAMS = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in CASES]


def along_a_line(name):
    """The case as a function of one number: all leaves of its arguments move along one random direction."""
    function, arguments = CASES[name]
    arrays, rest = eqx.partition(arguments, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jr.split(jr.key(7), len(leaves))
    moves = [jr.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]

    def scalar(s):
        moved = tree.unflatten([x + s * move for x, move in zip(leaves, moves, strict=True)])
        out = function(eqx.combine(moved, rest))
        weights = jr.normal(jr.key(8), out.shape)
        return jnp.sum(weights * out)

    return scalar


def difference(function, h=1e-4):
    """Central difference of sixth order, whose steps are large against rounding."""
    steps = jnp.array([1.0, 2.0, 3.0]) * h
    weights = (1.5, -0.6, 0.1)
    return sum(
        w * (function(s) - function(-s)) / (2 * (i + 1) * h)
        for i, (w, s) in enumerate(zip(weights, steps, strict=True))
    )


@pytest.mark.parametrize("name", PARAMS)
def test_derivatives_agree_with_differences(name):
    scalar = jax.jit(along_a_line(name))
    expected = difference(scalar)
    gradient = jax.jit(jax.grad(scalar))
    np.testing.assert_allclose(gradient(0.0), expected, rtol=2e-6, atol=1e-8)
    forward = jax.jit(lambda s: jax.jvp(scalar, (s,), (1.0,))[1])
    np.testing.assert_allclose(forward(0.0), gradient(0.0), rtol=1e-8, atol=1e-11)


SECOND = ("chaos k=3", "GRU checkpoints", "GRU one window", "GRU every 2", "flossing_penalty")


@pytest.mark.slow
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_in_both_modes(name):
    scalar = along_a_line(name)
    gradient = jax.jit(jax.grad(scalar))
    expected = difference(gradient)
    reverse = jax.jit(jax.grad(jax.grad(scalar)))(0.0)
    forward = jax.jit(lambda s: jax.jvp(jax.grad(scalar), (s,), (1.0,))[1])(0.0)
    np.testing.assert_allclose(reverse, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("adjoint", [DIRECT, CHECKPOINTED, lejax.WindowedAdjoint(6)])
def test_a_lost_direction_leaves_every_gradient_finite_and_the_leading_ones_right(adjoint):
    matrix = jnp.array([[1.2, 0.1, 0.0], [0.1, 0.7, 0.0], [0.0, 0.0, 0.0]])

    def exponents(matrix, index):
        return lejax.lyapunov_spectrum(
            Linear(matrix), jnp.zeros(3), num_steps=30, transient=40, adjoint=adjoint
        ).exponents[index]

    assert exponents(matrix, 2) == -jnp.inf
    gradient = jax.grad(exponents)(matrix, 0)
    # For a symmetric matrix, d log|eigenvalue| = v v^T / eigenvalue.
    value, vectors = jnp.linalg.eigh(matrix)
    expected = jnp.outer(vectors[:, -1], vectors[:, -1]) / value[-1]
    if not isinstance(
        adjoint, lejax.WindowedAdjoint
    ):  # a window drops the dependence on earlier steps
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert jnp.all(jnp.isfinite(jax.jacrev(exponents)(matrix, 2)))

    def penalty(matrix):
        return training.flossing_penalty(
            Linear(matrix), jnp.zeros(3), num_steps=30, transient=40, adjoint=adjoint
        )

    value, gradient = jax.value_and_grad(penalty)(matrix)
    leading = jnp.linalg.eigvalsh(matrix[:2, :2])
    np.testing.assert_allclose(value, jnp.mean(jnp.log(leading) ** 2), rtol=1e-6)
    assert jnp.all(jnp.isfinite(gradient))


def test_a_saturated_network_has_finite_penalties_and_gradients():
    cell = random_tanh(jr.key(2), 12, 60.0)  # after one step most directions are rounding errors

    def penalty(cell, dtype):
        cell = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, cell)
        return training.flossing_penalty(cell, jnp.ones(12, dtype), num_steps=20)

    for dtype in (jnp.float64, jnp.float32):
        value, gradient = eqx.filter_value_and_grad(penalty)(cell, dtype)
        assert value.dtype == dtype
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(gradient.weight_hh))


def test_segments_and_windows_do_not_change_the_value():
    values = [
        lejax.lyapunov_spectrum(GRU, REST, INPUTS, adjoint=adjoint).exponents
        for adjoint in (DIRECT, CHECKPOINTED, lejax.WindowedAdjoint(5))
    ]
    for value in values[1:]:
        np.testing.assert_array_equal(value, values[0])


def test_a_window_drops_derivatives_by_earlier_steps():
    def exponents(state, window):
        return lejax.lyapunov_spectrum(
            GRU, state, INPUTS, num_blocks=6, adjoint=lejax.WindowedAdjoint(window)
        ).block_exponents

    jacobian = jax.jacrev(exponents)(REST + 0.1, 8)  # blocks of 4 steps, windows of 2 blocks
    assert jnp.all(jnp.any(jacobian[:2] != 0, axis=(1, 2)))
    assert jnp.all(jacobian[2:] == 0)
    exact = jax.jacrev(exponents)(REST + 0.1, 24)
    np.testing.assert_allclose(jacobian[:2], exact[:2], rtol=1e-9, atol=1e-14)
    assert jnp.all(jnp.any(exact[2:] != 0, axis=(1, 2)))


def test_windows_cut_the_trajectory_of_chunks_too():
    def growth(gain, adjoint):
        cell = eqx.tree_at(lambda c: c.weight_hh, CHAOTIC, gain * CHAOTIC.weight_hh)
        method = lejax.ParallelQR(num_chunks=4, overlap=100)
        return lejax.lyapunov_spectrum(
            cell, START, num_steps=1200, transient=100, num_exponents=1, method=method, adjoint=adjoint,
            throw=False,
        ).exponents[0]  # fmt: skip

    gradient = jax.grad(growth)(1.2, lejax.WindowedAdjoint(5))
    assert abs(gradient) < 10


@pytest.mark.parametrize(
    "method", [lejax.ParallelQR(num_chunks=2, overlap=5), lejax.SequentialQR(every=3)]
)
def test_windows_cut_state_and_frame_at_the_same_steps(method):
    # With one window per block, the growth of a block depends on the inputs of its own steps only, as it does with an
    # orthonormalization after every step.
    def growth(inputs, method):
        return lejax.lyapunov_spectrum(
            GRU, REST, inputs, transient=8, num_blocks=4, method=method,
            adjoint=lejax.WindowedAdjoint(4), throw=False,
        ).block_exponents  # fmt: skip

    jacobian = jax.jacrev(growth)(INPUTS, method)
    for block in range(4):
        own = slice(8 + 4 * block, 12 + 4 * block)
        assert jnp.all(jnp.any(jacobian[block, :, own] != 0, axis=2))
        assert jnp.all(jacobian[block].at[:, own].set(0) == 0)
    if isinstance(method, lejax.SequentialQR):
        every_step = jax.jacrev(growth)(INPUTS, lejax.SequentialQR(every=1))
        np.testing.assert_allclose(jacobian, every_step, rtol=1e-8, atol=1e-13)


def test_checkpoints_need_little_memory():
    cell, state = random_tanh(jr.key(0), 64, 1.0), jnp.ones(64)

    def memory(adjoint):
        def mean(cell):
            return training.flossing_penalty(
                cell, state, num_exponents=8, num_steps=1000, adjoint=adjoint
            )

        return (
            eqx.filter_jit(eqx.filter_grad(mean)).lower(cell).compile().compiled.memory_analysis()
        ).temp_size_in_bytes

    assert memory(CHECKPOINTED) < 1e6 < 15e6 < memory(DIRECT)


def test_stored_frames_are_not_orthonormalized_again():
    cell, state = random_tanh(jr.key(0), 64, 1.0), jnp.ones(64)

    def factorizations(adjoint, num_steps=40):
        def penalty(cell):
            options = {"num_exponents": 8, "num_steps": num_steps, "adjoint": adjoint}
            return training.flossing_penalty(cell, state, **options)

        program = str(jax.make_jaxpr(lambda cell: jax.jit(jax.grad(penalty))(cell))(cell))
        assert "while[" not in program  # only the loop for values without derivatives has a `while`
        # One pass for a CPU and three for other platforms, where the first frame takes three as well.
        return (program.count("= cholesky") - 3) / 4

    assert factorizations(CHECKPOINTED) == factorizations(DIRECT) == 1
    assert factorizations(lejax.CheckpointedAdjoint(5)) == 2
    assert (
        factorizations(CHECKPOINTED, num_steps=1000) == 2
    )  # frames of more than 2 MiB are not stored


class ApexTent(eqx.Module):
    """The tent map of [0, 1] with its top at `apex`; its invariant density is uniform."""

    apex: jax.Array

    def __call__(self, input, state):
        left = state < self.apex
        return jnp.where(left, state / self.apex, (1 - state) / (1 - self.apex))


def central_difference(family, value, step, starts, num_steps):
    """The difference of long runs and its standard error, as the docstring of `WindowedAdjoint` recommends."""

    def leading(value, start):
        options = {"num_exponents": 1, "num_steps": num_steps, "transient": 100}
        return lejax.lyapunov_spectrum(family(value), start, **options).exponents[0]

    values = jnp.array([value - step, value + step])
    runs = jax.jit(jax.vmap(jax.vmap(leading, (None, 0))))(values, starts)
    variances = jnp.var(runs, axis=1, ddof=1) / runs.shape[1]
    return jnp.mean(runs[1] - runs[0]) / (2 * step), jnp.sqrt(jnp.sum(variances)) / (2 * step)


@pytest.mark.parametrize(
    "apex",
    [0.3, pytest.param(0.22, marks=pytest.mark.slow), pytest.param(0.41, marks=pytest.mark.slow)],
)
def test_a_difference_of_long_runs_is_the_derivative_that_gradients_of_a_tent_miss(apex):
    truth = np.log((1 - apex) / apex)
    starts = jr.uniform(jr.key(0), (2, 64))
    step = 0.05
    slope, error = central_difference(ApexTent, apex, step, starts, 50_000)
    entropy = lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p)
    expected = (entropy(apex + step) - entropy(apex - step)) / (2 * step)
    assert abs(slope - expected) < 3.5 * error
    assert error < 0.01
    assert abs(expected / truth - 1) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "value", "start", "missing"),
    [(ApexTent, 0.3, 0.1234567, (0.9, 1.1)), (lejax.systems.Lozi, 1.7, [0.1, 0.0], (0.3, 0.45))],
)
def test_windowed_gradients_miss_the_part_that_the_docstring_states(family, value, start, missing):
    truth = {ApexTent: np.log(7 / 3), lejax.systems.Lozi: 1.0675}[family]

    def leading(value):
        options = {"num_steps": 5000, "transient": 100, "adjoint": lejax.WindowedAdjoint(5)}
        return lejax.lyapunov_spectrum(family(value), jnp.array(start), **options).exponents[0]

    least, most = missing
    assert least < 1 - jax.grad(leading)(jnp.array(value)) / truth < most


@pytest.mark.slow
def test_a_difference_of_long_runs_of_lozis_map_agrees_with_a_plain_loop():
    a, b, step = 1.7, 0.5, 0.05
    starts = jr.uniform(jr.key(1), (2, 64, 2), maxval=0.1)
    family = lambda a: lejax.systems.Lozi(a, b)
    slope, error = central_difference(family, a, step, starts, 50_000)
    assert error < 0.01

    rng = np.random.default_rng(0)

    def leading(a, num_runs=2000, num_steps=1500, transient=100):
        x, y = rng.uniform(0, 0.1, (2, num_runs))
        u, v, total = np.ones(num_runs), np.zeros(num_runs), np.zeros(num_runs)
        for t in range(transient + num_steps):
            u, v = np.where(x > 0, -a, a) * u + v, b * u
            x, y = 1 - a * np.abs(x) + y, b * x
            norm = np.hypot(u, v)
            u, v = u / norm, v / norm
            if t >= transient:
                total += np.log(norm)
        return total / num_steps

    below, above = leading(a - step), leading(a + step)
    expected = (above.mean() - below.mean()) / (2 * step)
    own_error = np.sqrt((above.var() + below.var()) / above.size) / (2 * step)
    assert own_error < 0.01
    assert abs(slope - expected) < 3.5 * np.hypot(error, own_error)


def test_bad_adjoints_are_refused():
    with pytest.raises(ValueError, match="window must be an integer of at least 1, got 0"):
        lejax.WindowedAdjoint(0)
    with pytest.raises(ValueError, match="segments must be an integer of at least 1, got -3"):
        lejax.CheckpointedAdjoint(-3)
