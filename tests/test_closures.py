"""Each call reads plain functions again: rebound globals, and dictionaries and networks that change in place."""

import gc
import weakref
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import lejax
from lejax import indicators, orbits, populations, reconstruction, training
from lejax._core.closures import keep
from lejax.systems import Flow, Henon


class Trained:
    """A network of another library, which training changes in place."""

    b = 0.3


gain = 1.0
settings = {"a": 1.2}
trained = Trained()


def henon(input, state):
    x, y = state
    return jnp.stack([1 - gain * settings["a"] * x**2 + y, trained.b * x])


def field(input, state):
    return jnp.stack([state[1], -gain * settings["a"] * state[0] - trained.b * state[1]])


def family(c):
    return lambda input, x: c - gain * settings["a"] * x**2


class Now(eqx.Module):
    """The map of `henon`, with the values as leaves."""

    a: jax.Array
    b: jax.Array

    def __call__(self, input, state):
        return jnp.stack([1 - self.a * state[0] ** 2 + state[1], self.b * state[0]])


START, STEPS = jnp.array([0.1, 0.2]), {"num_steps": 6}
OF_CELL = {
    "lyapunov_spectrum": lambda cell: lejax.lyapunov_spectrum(cell, START, **STEPS).exponents,
    "chunks": lambda cell: (
        lejax.lyapunov_spectrum(
            cell, START, **STEPS, transient=2, method=lejax.ParallelQR(2, 2), throw=False
        ).exponents
    ),
    "unroll": lambda cell: lejax.unroll(cell, START, **STEPS),
    "jacobian": lambda cell: lejax.jacobian(cell, START),
    "push_forward": lambda cell: lejax.push_forward(cell, START, None, jnp.eye(2))[1],
    "covariant_lyapunov_vectors": lambda cell: (
        lejax.covariant_lyapunov_vectors(cell, START, **STEPS).vectors
    ),
    "covariant_statistics": lambda cell: (
        lejax.covariant_statistics(
            cell, START, **STEPS, reducer=lejax.VectorStatistics()
        ).mean_squared_cosine
    ),
    "backward_lyapunov_vectors": lambda cell: (
        lejax.backward_lyapunov_vectors(cell, START, **STEPS).exponents
    ),
    "forward_lyapunov_vectors": lambda cell: (
        lejax.forward_lyapunov_vectors(cell, START, **STEPS).exponents
    ),
    "find_fixed_points": lambda cell: orbits.find_fixed_points(cell, START[None]).points,
    "floquet_multipliers": lambda cell: orbits.floquet_multipliers(cell, START, period=2),
    "find_periodic_orbits": lambda cell: (
        orbits.find_periodic_orbits(cell, jnp.array([[0.9, -0.1]]), period=2, size=1).points
    ),
    "two_trajectory_exponent": lambda cell: (
        indicators.two_trajectory_exponent(cell, START, **STEPS).exponent
    ),
    "log_alignment_index": lambda cell: indicators.log_alignment_index(cell, START, **STEPS),
    "finite_time_exponent_field": lambda cell: indicators.finite_time_exponent_field(
        cell, START[None], **STEPS, num_exponents=2
    ),
    "transition_product": lambda cell: (
        indicators.transition_product(cell, START, num_steps=3).log_determinant
    ),
    "transient_growth": lambda cell: indicators.transient_growth(cell, START, num_steps=3).curve,
    "echo_state_index": lambda cell: (
        indicators.echo_state_index(cell, START[None], jnp.zeros((6, 1)), transient=2).exponents
    ),
    "spectrum_penalty": lambda cell: lejax.training.flossing_penalty(
        cell, START, num_steps=6, num_exponents=2
    ),
    "long_run": lambda cell: (
        lejax.run.long_run(cell, START, num_steps=12, chunk_steps=4, progress=False).exponents
    ),
}
QUICK = ("lyapunov_spectrum", "unroll", "jacobian", "covariant_statistics")


@pytest.fixture
def values():
    global gain
    yield
    gain, settings["a"], trained.b = 1.0, 1.2, 0.3


def test_a_cached_program_is_not_used_for_other_settings():
    def decay(input, state):
        return 0.5 * state

    with keep(decay) as kept:
        for num_steps in (3, 5, 3):
            run = lejax.lyapunov_spectrum(kept, jnp.ones(1), num_steps=num_steps)
            assert int(run.num_steps) == num_steps
            np.testing.assert_array_equal(run.state, 0.5**num_steps)


@pytest.mark.usefixtures("values")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in OF_CELL]
)
def test_a_cell_function_reads_its_globals_at_each_call(name):
    global gain
    verb = OF_CELL[name]
    before = verb(henon)
    np.testing.assert_allclose(before, verb(Now(jnp.array(1.2), jnp.array(0.3))), atol=1e-8)
    gain = 0.8
    np.testing.assert_allclose(
        verb(henon), verb(Now(jnp.array(0.8 * 1.2), jnp.array(0.3))), atol=1e-8
    )
    settings["a"] = 1.0
    np.testing.assert_allclose(verb(henon), verb(Now(jnp.array(0.8), jnp.array(0.3))), atol=1e-8)
    trained.b = 0.2
    after = verb(henon)
    np.testing.assert_allclose(after, verb(Now(jnp.array(0.8), jnp.array(0.2))), atol=1e-8)
    assert not np.allclose(after, before, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("values")
def test_a_field_and_a_family_read_their_globals_at_each_call():
    global gain

    def product():
        flow = Flow(field, dt=0.1)
        spectrum = lejax.lyapunov_spectrum(flow, START, num_steps=10)
        return spectrum.exponents.sum()  # the sum of exponents is the divergence of the field

    def branch():
        method = orbits.PseudoArclength(num_steps=3)
        return orbits.continue_orbit(family, 0.1, jnp.array(0.1), step=0.05, method=method)

    np.testing.assert_allclose(product(), -0.3, rtol=1e-4)
    first = branch()
    trained.b, gain = 0.5, 2.0
    np.testing.assert_allclose(product(), -0.5, rtol=1e-4)
    second = branch()
    for run, a in ((first, 1.2), (second, 2.4)):
        x = run.points[:, 0]
        np.testing.assert_allclose(x, run.parameters - a * x**2, atol=1e-9)


def squash(x):
    traced.append(None)
    return jnp.tanh(gain * x)


traced = []


class Squashing(lejax.RecurrentCell):
    """A network whose nonlinearity is a plain function."""

    weight: jax.Array
    function: Callable = squash

    def __call__(self, input, state):
        return self.function(self.weight @ state + input)

    def initial_state(self):
        return jnp.zeros(2)


def _flossed(num_updates):
    cell = Squashing(jr.normal(jr.key(0), (2, 2)))
    inputs = 0.1 * jr.normal(jr.key(1), (num_updates, 6, 2))
    return training.floss(cell, 0.1 * jnp.ones(2), inputs, optimizer=optax.adam(1e-2))[0].weight


def _grown(num_epochs):
    population = populations.initialize_population(
        lambda key: Squashing(jr.normal(key, (2, 2))),
        populations.Hyperparameters(scale=jnp.ones(2)),
        2,
        key=jr.key(0),
    )
    inputs, targets = jr.normal(jr.key(1), (8, 5, 2)), jnp.tile(jnp.arange(8)[:, None] % 2, 5)
    task = populations.Examples(inputs, targets, jnp.ones((8, 5)), 2)
    run = populations.train_population(population, task, task, num_epochs=num_epochs, batch_size=8)
    assert run.networks.cell.function is squash
    return run.networks.cell.weight


def _reconstructed(num_epochs):
    def model(key):
        cell = Squashing(jr.normal(key, (2, 2)))
        return reconstruction.ObservedCell(cell, reconstruction.IdentityObservation(2, 2))

    keys = jr.split(jr.key(0), 2)
    series = jnp.sin(jnp.arange(60.0)[:, None] / 4 + jnp.arange(2.0))
    run = reconstruction.reconstruct(
        eqx.filter_vmap(model)(keys),
        series,
        series,
        keys=keys,
        inputs=jnp.zeros((60, 2)),
        validation_inputs=jnp.zeros((60, 2)),
        num_epochs=num_epochs,
        training=reconstruction.TrainingSettings(
            updates_per_epoch=2,
            batch_size=2,
            num_steps=5,
            penalty=lambda model, starts, inputs: jnp.sum(squash(model.cell.weight) ** 2),
        ),
        selection=reconstruction.ModelSelection(
            lambda model, validation, inputs: jnp.sum(squash(model.cell.weight))
        ),
    )
    assert run.models.cell.function is run.last.cell.function is squash
    return run.last.cell.weight


@pytest.mark.usefixtures("values")
@pytest.mark.parametrize("train", [_flossed, _grown, _reconstructed])
def test_training_reads_functions_at_each_call_and_traces_them_once(train):
    global gain
    traced.clear()
    first = train(2)
    num_traces = len(traced)
    assert np.array_equal(train(2), first)
    traced.clear()
    train(4)
    assert len(traced) == num_traces
    gain = 0.5
    assert not np.allclose(train(2), first, rtol=1e-6)


def test_functions_and_their_programs_are_freed():
    class Weights:  # an object that allows weak references
        value = jnp.eye(3)

    def closure():
        weights = Weights()
        return (lambda _, h: jnp.sin(weights.value @ h)), weakref.ref(weights)

    cell, weights = closure()
    references = weakref.ref(cell), weights
    lejax.lyapunov_spectrum(cell, jnp.ones(3), num_steps=4)
    lejax.run.long_run(cell, jnp.ones(3), num_steps=8, chunk_steps=4, progress=False)
    method = lejax.SequentialQR(max_interval=2)
    lejax.lyapunov_spectrum(cell, jnp.ones(3), num_steps=8, num_blocks=1, method=method)
    del cell
    gc.collect()
    jax.clear_caches()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_run_in_chunks_traces_a_function_once():
    traces = []

    def cell(_, h):
        traces.append(None)
        return 0.9 * jnp.sin(h)

    def count(num_steps):
        traces.clear()
        options = {"chunk_steps": 4, "num_blocks": 1, "progress": False}
        lejax.run.long_run(cell, jnp.ones(2), num_steps=num_steps, **options)
        return len(traces)

    assert count(40) == count(12)


def test_derivatives_reach_what_a_function_closes_over():
    inputs = jr.normal(jr.key(0), (12, 3))

    def leading(weights, method):
        def cell(input, state):
            return jnp.tanh(weights @ state + input)

        run = lejax.lyapunov_spectrum(
            cell, jnp.ones(3), inputs, transient=4, method=method, throw=False
        )
        return run.exponents @ jnp.array([1.0, 0.5, -2.0])

    class Cell(eqx.Module):
        weights: jax.Array

        def __call__(self, input, state):
            return jnp.tanh(self.weights @ state + input)

    def leading_of_module(weights, method):
        run = lejax.lyapunov_spectrum(
            Cell(weights), jnp.ones(3), inputs, transient=4, method=method, throw=False
        )
        return run.exponents @ jnp.array([1.0, 0.5, -2.0])

    batch = jr.normal(jr.key(1), (2, 3, 3))
    for method in (lejax.SequentialQR(every=1), lejax.ParallelQR(2, 4, every=1)):
        for transform in (
            lambda f: jax.vmap(jax.grad(f)),
            lambda f: jax.grad(lambda w: jnp.sum(jax.vmap(f)(w))),
        ):
            of_closure, of_module = (
                transform(lambda w, f=f, m=method: f(w, m))(batch)
                for f in (leading, leading_of_module)
            )
            np.testing.assert_allclose(of_closure, of_module, rtol=1e-8, atol=1e-12)


def test_a_cell_that_holds_a_function_keeps_its_attributes():
    flow = Flow(lambda u, x: -x + u, dt=0.2)
    inputs = jr.normal(jr.key(0), (60, 1))
    run = lejax.lyapunov_spectrum(flow, jnp.ones(1), inputs)
    np.testing.assert_allclose(run.exponents, -1.0, rtol=1e-4)
    echo = indicators.echo_state_index(flow, jnp.array([[1.0], [2.0]]), inputs, transient=30)
    np.testing.assert_allclose(echo.exponents, -1.0, rtol=1e-4)
    long = lejax.run.long_run(flow, jnp.ones(1), inputs, chunk_steps=20, progress=False)
    np.testing.assert_allclose(long.exponents, -1.0, rtol=1e-4)
    assert orbits.find_fixed_points(flow, jnp.ones((1, 1)), jnp.zeros(1)).dt == 0.2


def test_each_leaf_of_a_state_is_computed_in_its_own_precision():
    class Leak(eqx.Module):
        def __call__(self, input, state):
            slow, fast = state  # in bfloat16 the increment of `slow` rounds to 0 once slow = 0.25
            slow = slow + (0.001 * (1 - slow)).astype(slow.dtype)
            return slow, 3.5 * fast * (1 - fast) * (0.8 + 0.25 * slow.astype(fast.dtype))

    start = (jnp.zeros((), jnp.bfloat16), jnp.asarray(0.3, jnp.float32))
    expected = lejax.unroll(Leak(), start, num_steps=700)
    assert expected[0][-1] == 0.25
    for method in (lejax.SequentialQR(), lejax.ParallelQR(2, 100)):
        run = lejax.lyapunov_spectrum(
            Leak(), start, num_steps=600, transient=100, method=method, throw=False
        )
        for leaf, states in zip(run.state, expected, strict=True):
            np.testing.assert_array_equal(leaf, states[-1])
    vectors = lejax.backward_lyapunov_vectors(Leak(), start, num_steps=600, transient=100)
    for leaf, states in zip(vectors.states, expected, strict=True):
        np.testing.assert_array_equal(leaf, states[99:-1])


def test_henon_is_the_map_of_the_library():
    np.testing.assert_allclose(henon(None, START), Henon(1.2, 0.3)(None, START))
