"""Penalties and flossing: values, masked leaves, optax loops, batches of networks, schedules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from networks import Linear, driven_gru, random_tanh

import lejax
from lejax.training import FlossingSchedule, floss, flossing_penalty, spectrum_penalty


ADAM = optax.adam(1e-2)
GRU, REST, INPUTS = driven_gru(size=4, num_steps=20)


def test_the_penalty_of_a_linear_map_follows_from_its_eigenvalues():
    cell = Linear(jnp.diag(jnp.array([1.5, 0.8, 0.3])))
    options = {"num_steps": 60, "transient": 60}
    logs = jnp.log(jnp.array([1.5, 0.8, 0.3]))
    found = flossing_penalty(cell, jnp.zeros(3), **options)
    np.testing.assert_allclose(found, jnp.mean(logs**2), rtol=1e-6)
    target = jnp.array([0.1, -0.2])
    found = flossing_penalty(cell, jnp.zeros(3), num_exponents=2, target=target, **options)
    np.testing.assert_allclose(found, jnp.mean((logs[:2] - target) ** 2), rtol=1e-6)
    bound = spectrum_penalty(
        cell, jnp.zeros(3), function=lambda x: jax.nn.relu(x[0] - 0.1), num_exponents=1, **options
    )
    np.testing.assert_allclose(bound, logs[0] - 0.1, rtol=1e-6)


def test_lost_directions_do_not_count():
    options = {"num_steps": 20, "transient": 20}
    found = flossing_penalty(Linear(jnp.diag(jnp.array([0.5, 0.0]))), jnp.zeros(2), **options)
    np.testing.assert_allclose(found, jnp.log(0.5) ** 2, rtol=1e-10)
    assert flossing_penalty(Linear(jnp.zeros((2, 2))), jnp.zeros(2), **options) == 0
    dimension = spectrum_penalty(
        Linear(jnp.diag(jnp.array([1.5, 0.0]))),
        jnp.zeros(2),
        function=lejax.kaplan_yorke_dimension,
        **options,
    )
    assert 1 < dimension < 1.01  # a lost direction contracts almost infinitely


def test_a_run_with_non_finite_numbers_gives_nan():
    for entry in (jnp.nan, 1e300):
        cell = Linear(jnp.full((2, 2), entry))
        value, gradient = eqx.filter_value_and_grad(flossing_penalty)(
            cell, jnp.ones(2), num_steps=5
        )
        assert jnp.isnan(value)
        assert jnp.all(jnp.isnan(gradient.matrix))


def test_the_dt_of_a_cell_counts():
    cell = lejax.cells.LeakyRNNCell(0, 4, dt=0.1, gain=0.0, key=jr.key(0))  # 1 - dt in each step
    found = flossing_penalty(cell, jnp.ones(4), num_steps=10)
    np.testing.assert_allclose(found, (jnp.log(0.9) / 0.1) ** 2, rtol=1e-9)


@pytest.mark.parametrize("shape", [(3,), (4, 1)])
def test_a_function_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="a term for each of the 4 exponents or one number"):
        spectrum_penalty(GRU, REST, INPUTS, function=lambda x: jnp.ones(shape))


def test_a_target_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="one for each of the 4 exponents, got shape"):
        flossing_penalty(GRU, REST, INPUTS, target=jnp.ones(3))


def test_flossing_reaches_its_target_in_a_batch_as_alone():
    cells = [random_tanh(key, 8, 1.0) for key in jr.split(jr.key(0), 2)]
    options = {"num_exponents": 3, "target": -0.2, "num_steps": 20, "transient": 10}

    def run(cell):
        return floss(cell, jnp.ones(8), optimizer=ADAM, num_updates=80, **options)

    together, penalties = eqx.filter_vmap(run)(jax.tree.map(lambda *x: jnp.stack(x), *cells))
    assert penalties.shape == (2, 80)
    assert jnp.all(penalties[:, -1] < 0.1 * penalties[:, 0])
    alone, penalty = run(cells[1])
    np.testing.assert_allclose(together.weight_hh[1], alone.weight_hh, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(penalty[0], flossing_penalty(cells[1], jnp.ones(8), **options))


def test_numpy_integers_are_counts():
    inputs = jr.normal(jr.key(0), (2, 8, 3))
    counts = {"num_exponents": np.int64(2), "num_steps": np.int64(5), "transient": np.int64(1)}
    _, penalties = floss(GRU, REST, inputs, optimizer=optax.adam(1e-3), **counts)
    assert penalties.shape == (2,)


def test_each_flossing_update_uses_one_sequence():
    sequences = jr.normal(jr.key(1), (3, 20, 3))
    _, penalties = floss(GRU, REST, sequences, optimizer=optax.sgd(0.0), transient=2)
    expected = [flossing_penalty(GRU, REST, inputs, transient=2) for inputs in sequences]
    np.testing.assert_allclose(penalties, jnp.stack(expected), rtol=1e-9)
    _, fewer = floss(
        GRU, REST, sequences, optimizer=optax.sgd(0.0), transient=2, num_updates=2, num_steps=18
    )
    np.testing.assert_allclose(fewer, penalties[:2], rtol=1e-9)


def test_masked_leaves_stay():
    only = jax.tree.map(lambda _: False, eqx.filter(GRU, eqx.is_inexact_array))
    only = eqx.tree_at(lambda cell: cell.weight_hh, only, True)
    rest = jax.tree.map(lambda leaf: not leaf, only)
    optimizer = optax.chain(optax.masked(ADAM, only), optax.masked(optax.set_to_zero(), rest))
    cell, _ = floss(GRU, REST, INPUTS[None], optimizer=optimizer, num_exponents=2)
    np.testing.assert_array_equal(cell.weight_ih, GRU.weight_ih)
    assert jnp.any(cell.weight_hh != GRU.weight_hh)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_penalty_in_an_optax_loop(dtype):
    network = jax.tree.map(
        lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x,
        (GRU, eqx.nn.Linear(4, 1, key=jr.key(5))),
    )
    inputs, rest = INPUTS.astype(dtype), REST.astype(dtype)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), ADAM)

    def loss(network):
        cell, readout = network
        out = jax.vmap(readout)(lejax.unroll(cell, rest, inputs))[:, 0]
        penalty = flossing_penalty(cell, rest, inputs, num_exponents=2)
        return jnp.mean((out - inputs[:, 0]) ** 2) + 0.1 * penalty

    @eqx.filter_jit
    def update(network, memory):
        value, gradient = eqx.filter_value_and_grad(loss)(network)
        change, memory = optimizer.update(gradient, memory)
        return eqx.apply_updates(network, change), memory, value

    memory = optimizer.init(eqx.filter(network, eqx.is_inexact_array))
    values = []
    for _ in range(20):
        network, memory, value = update(network, memory)
        values.append(value)
    assert values[0].dtype == dtype
    assert network[0].weight_hh.dtype == dtype
    assert values[-1] < 0.8 * values[0]


def test_bad_flossing_is_refused():
    with pytest.raises(ValueError, match="num_updates is required when inputs is None"):
        floss(GRU, REST, optimizer=ADAM, num_steps=5)
    with pytest.raises(ValueError, match="num_updates is 9, but inputs hold 1 sequences"):
        floss(GRU, REST, INPUTS[None], optimizer=ADAM, num_updates=9)
    with pytest.raises(ValueError, match="share their first axis"):
        floss(GRU, REST, (INPUTS, INPUTS[:3]), optimizer=ADAM)
    with pytest.raises(ValueError, match="holds no floating-point array"):
        floss(lambda input, state: state, REST, optimizer=ADAM, num_updates=1, num_steps=5)
    bad = eqx.tree_at(lambda cell: cell.bias, GRU, GRU.bias * jnp.nan)
    with pytest.raises(RuntimeError, match="the penalty is nan at update 0"):
        floss(bad, REST, INPUTS[None], optimizer=ADAM)


def test_schedules():
    schedule = FlossingSchedule(before=7, every=10, updates=3, until=25)
    due = {step: schedule(step) for step in range(50) if schedule(step)}
    assert due == {0: 7, 10: 3, 20: 3}
    assert sum(map(FlossingSchedule(before=5, every=None), range(100))) == 5
    with pytest.raises(ValueError, match="every must be an integer of at least 1"):
        FlossingSchedule(every=0)


def test_the_window_follows_the_largest_exponent():
    henon = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=2000)
    assert lejax.suggest_window(henon) == round(1.5 / float(henon.exponents[0]))
    assert lejax.suggest_window(henon, 4.0) == round(4 / float(henon.exponents[0]))
    contracting = lejax.lyapunov_spectrum(GRU, REST, INPUTS)
    assert lejax.suggest_window(contracting) == 2**31 - 1
    with pytest.raises(ValueError, match=r"one spectrum, got exponents of shape \(1, "):
        lejax.suggest_window(jax.tree.map(lambda x: x[None], contracting))
    with pytest.raises(ValueError, match="must be a number, got nan"):
        lejax.suggest_window(jax.tree.map(lambda x: x * jnp.nan, contracting))
    with pytest.raises(ValueError, match="lyapunov_times must be positive"):
        lejax.suggest_window(henon, 0.0)
    with pytest.raises(TypeError, match="suggest_window needs values"):
        jax.jit(lejax.suggest_window)(henon)


@pytest.mark.parametrize("adjoint", [None, "direct", lejax.DirectAdjoint])
def test_an_adjoint_must_be_an_adjoint(adjoint):
    cell = lejax.cells.RNNCell(0, 3, key=jax.random.key(0))
    calls = (
        lambda: lejax.training.flossing_penalty(cell, jnp.ones(3), num_steps=5, adjoint=adjoint),
        lambda: lejax.lyapunov_spectrum(cell, jnp.ones(3), num_steps=5, adjoint=adjoint),
        lambda: lejax.reconstruction.SpectrumPenalty(jnp.sum, adjoint=adjoint),
    )
    for call in calls:
        with pytest.raises(TypeError, match="adjoint must be an Adjoint"):
            call()


def test_bad_arguments_of_a_spectrum_penalty_are_refused():
    for weight in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight holds 1 non-finite value"):
            lejax.reconstruction.SpectrumPenalty(jnp.sum, weight=weight)
    with pytest.raises(TypeError, match="function must be a function"):
        lejax.reconstruction.SpectrumPenalty(3.0)
    with pytest.raises(ValueError, match="num_exponents must be an integer of at least 1"):
        lejax.reconstruction.SpectrumPenalty(jnp.sum, num_exponents=0)


@pytest.mark.parametrize("dt", [None, 0.05])
def test_both_spectrum_penalties_have_the_same_unit_of_time(dt):
    cell = lejax.cells.LeakyRNNCell(0, 3, dt=0.2, gain=1.5, key=jax.random.key(0))
    model = lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(3, 3))
    start = jnp.array([0.3, -0.2, 0.7])
    term = lejax.reconstruction.SpectrumPenalty(
        jnp.sum, num_starts=1, num_steps=30, transient=5, dt=dt
    )
    penalty = lejax.training.spectrum_penalty(
        model, start, function=jnp.sum, num_steps=30, transient=5
    )
    scale = 1 if dt is None else 0.2 / dt
    np.testing.assert_allclose(term(model, start[None]), scale * penalty, rtol=1e-12)
    rates = jnp.linalg.slogdet(lejax.jacobian(cell, start))[1] / 0.2
    assert abs(penalty - rates) < 5  # per unit of time, where the sum is about -15
