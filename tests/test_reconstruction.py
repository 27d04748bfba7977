"""Teacher forcing, observation models, and training on a series."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import lejax
from lejax.cells import ALRNN, ShallowPLRNN
from lejax.reconstruction import (
    AdaptiveTeacherForcing,
    DivergenceScore,
    GeneralizedTeacherForcing,
    IdentityObservation,
    LinearObservation,
    ModelSelection,
    ObservedCell,
    PredictionScore,
    Reconstruction,
    SparseTeacherForcing,
    SpectrumPenalty,
    TrainingSettings,
    forced_states,
    prediction_error,
    reconstruct,
    state_space_divergence,
)


def shallow(key, size=3, hidden=8):
    cell = ShallowPLRNN(size, hidden, key=key)
    return ObservedCell(cell, IdentityObservation(size, size))


def almost_linear(key, observed=2, size=5):
    cell = ALRNN(size, 2, key=key)
    cell = eqx.tree_at(lambda c: c.W, cell, 20 * cell.W)
    return ObservedCell(cell, IdentityObservation(observed, size))


MODEL = shallow(jr.key(0))
DATA = jr.normal(jr.key(1), (13, 3))
T = 500
WAVE = jnp.stack([jnp.sin(jnp.arange(T) / 5), jnp.cos(jnp.arange(T) / 5)], axis=1)
KEYS = jr.split(jr.key(2), 3)
# One optimizer for all tests, so that they share compiled programs.
ADAM = optax.adam(1e-2)
QUICK = {"updates_per_epoch": 4, "batch_size": 4, "num_steps": 30, "optimizer": ADAM}


def settings(kind, options):
    """Settings of this class from the options that belong to it, which are removed from `options`."""
    names = {field.name for field in dataclasses.fields(kind)} & options.keys()
    return kind(**{name: options.pop(name) for name in names})


def train(
    models=None, *, keys=KEYS, series=WAVE[:400], validation=WAVE[400:], num_epochs=3, **options
):
    models = eqx.filter_vmap(almost_linear)(keys) if models is None else models
    options = QUICK | options
    return reconstruct(
        models,
        series,
        validation,
        keys=keys,
        num_epochs=num_epochs,
        training=settings(TrainingSettings, options),
        selection=settings(ModelSelection, options),
        **options,
    )


# --- teacher forcing


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_forced_jacobian_is_the_damped_product(alpha):
    """d z_t / d z_0 = J_t (1 - alpha) J_(t-1) .. (1 - alpha) J_1."""

    def last(start):
        strengths = GeneralizedTeacherForcing(alpha).strengths(jnp.asarray(alpha), 4)
        return forced_states(MODEL, start, DATA[1:5], strengths)[-1]

    states = forced_states(MODEL, DATA[0], DATA[1:5], jnp.full(4, alpha))
    forced = (1 - alpha) * states + alpha * DATA[1:5]
    expected = lejax.jacobian(MODEL, DATA[0])
    for state in forced[:-1]:
        expected = (1 - alpha) * lejax.jacobian(MODEL, state) @ expected
    np.testing.assert_allclose(jax.jacobian(last)(DATA[0]), expected, atol=1e-14)


def test_gradients_pass_hidden_units_but_no_overwritten_ones():
    model = almost_linear(jr.key(3))
    estimates = jax.vmap(model.observation.estimate)(DATA[1:7, :2])
    strengths = SparseTeacherForcing(3).strengths(jnp.asarray(1.0), 6)

    def later(start):
        return forced_states(model, start, estimates, strengths)[3:]

    # The first two units were overwritten at state 3, so only the others depend on the start from there on.
    start = model.start(DATA[0, :2])
    J = [
        lejax.jacobian(model, z)
        for z in [start, *forced_states(model, start, estimates, 0 * strengths)[:2]]
    ]
    product = J[2] @ J[1] @ J[0]
    state = forced_states(model, start, estimates, strengths)[2]
    after = lejax.jacobian(model, jnp.concatenate([estimates[2, :2], state[2:]]))
    first = jax.jacobian(later)(start)[0]
    np.testing.assert_allclose(first, after[:, 2:] @ product[2:], atol=1e-14)
    assert float(jnp.abs(first).max()) > 1e-6

    fully = ObservedCell(model.cell, IdentityObservation(5, 5))
    estimates = jr.normal(jr.key(5), (6, 5))
    gradient = jax.jacobian(lambda z: forced_states(fully, z, estimates, strengths)[3:])(start)
    assert float(jnp.abs(gradient).max()) == 0


@pytest.mark.parametrize("forcing", [SparseTeacherForcing(1), GeneralizedTeacherForcing(1.0)])
def test_full_forcing_predicts_one_step(forcing):
    strengths = forcing.strengths(jnp.asarray(forcing.initial()), 12)
    states = forced_states(MODEL, DATA[0], DATA[1:], strengths)
    np.testing.assert_allclose(states, jax.vmap(lambda x: MODEL(None, x))(DATA[:-1]), atol=1e-14)
    loss = jnp.mean((jax.vmap(MODEL.output)(states) - DATA[1:]) ** 2)
    assert float(loss) == pytest.approx(float(prediction_error(MODEL, DATA, 1)), rel=1e-14)


def test_no_forcing_is_the_free_run():
    states = forced_states(MODEL, DATA[0], DATA[1:], jnp.zeros(12))
    np.testing.assert_allclose(states, lejax.unroll(MODEL, DATA[0], num_steps=12), rtol=1e-12)


def test_forcing_to_the_own_trajectory_has_no_effect():
    model = almost_linear(jr.key(3))
    states = lejax.unroll(model, model.start(jnp.ones(2)), num_steps=20)
    estimates = jax.vmap(lambda z: model.observation.estimate(model.output(z)))(states)
    forced = forced_states(model, model.start(jnp.ones(2)), estimates, jnp.full(20, 0.7))
    np.testing.assert_allclose(forced, states, atol=1e-14)


def test_adaptive_forcing_bounds_the_gradients():
    estimates = jr.normal(jr.key(4), (2, 6, 3))
    large = eqx.tree_at(lambda m: m.cell.W1, MODEL, 5 * MODEL.cell.W1)
    jacobians = jax.vmap(jax.vmap(lambda z: lejax.jacobian(large, z)))(estimates)
    norms = np.linalg.norm(jacobians, 2, axis=(2, 3))
    kappa = np.exp(np.log(norms).mean(axis=1)).max()
    needed = 1 - 1 / kappa
    assert needed > 0.3

    def adapted(alpha, number, model=large):
        forcing = AdaptiveTeacherForcing(update_every=5, decay=0.9)
        return float(forcing.adapt(jnp.asarray(alpha), jnp.asarray(number), model, estimates, None))

    assert adapted(0.1, 10) == pytest.approx(needed, rel=1e-12)
    assert adapted(0.99, 10) == pytest.approx(0.9 * 0.99 + 0.1 * needed, rel=1e-12)
    assert adapted(0.1, 11) == 0.1
    # A contraction needs no forcing.
    still = jax.tree.map(lambda x: 0.1 * x, MODEL)
    assert adapted(0.5, 0, still) == pytest.approx(0.45)


# --- observation


def test_observations_and_their_inverses():
    z, x = jr.normal(jr.key(5), (6,)), jr.normal(jr.key(6), (2,))
    identity = IdentityObservation(2, 6)
    identity = eqx.tree_at(lambda o: o.L, identity, jr.normal(jr.key(7), (4, 2)))
    np.testing.assert_array_equal(identity(z), z[:2])
    np.testing.assert_array_equal(identity.determined(), np.arange(6) < 2)
    np.testing.assert_allclose(identity.start(x), jnp.concatenate([x, identity.L @ x]))
    tall = LinearObservation(9, 6, key=jr.key(8))
    np.testing.assert_allclose(tall.estimate(tall(z)), z, atol=1e-12)
    wide = LinearObservation(2, 6, key=jr.key(8))
    np.testing.assert_allclose(wide(wide.estimate(x)), x, atol=1e-12)
    # The estimate is the state of least norm with the measurement x.
    assert float(wide.estimate(x) @ (z - wide.estimate(wide(z)))) == pytest.approx(0, abs=1e-12)


def test_an_observed_cell_is_a_cell():
    model = almost_linear(jr.key(3))
    bare = lejax.lyapunov_spectrum(model.cell, jnp.ones(5), num_steps=50).exponents
    dressed = lejax.lyapunov_spectrum(model, jnp.ones(5), num_steps=50).exponents
    np.testing.assert_array_equal(bare, dressed)
    assert lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.5).time_step() == 0.5
    flow = ObservedCell(
        lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.5), IdentityObservation(3, 3)
    )
    assert flow.time_step() == 0.5


# --- training


def test_training_in_a_batch_equals_training_alone():
    together = train(noise=0.1)
    assert together.training_loss.shape == (3, 3)
    for i in range(3):
        alone = train(keys=KEYS[i : i + 1], noise=0.1)
        np.testing.assert_allclose(
            alone.training_loss[0], together.training_loss[i], rtol=1e-10, err_msg=str(i)
        )
        for x, y in zip(*map(jax.tree.leaves, (alone.model(0), together.model(i))), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-10)


@pytest.mark.parametrize("forcing", [SparseTeacherForcing(8), AdaptiveTeacherForcing(3, 0.9)])
def test_two_calls_equal_one(forcing):
    models = eqx.filter_vmap(lambda key: shallow(key, size=2))(KEYS)
    options = {"score_every": 2, "forcing": forcing}
    once = train(models, num_epochs=6, **options)
    half = train(models, num_epochs=4, **options)
    assert half.epoch == 4
    rest = train(half, keys=None, num_epochs=6, **options)
    for x, y in zip(*map(jax.tree.leaves, (once, rest)), strict=True):
        x, y = (
            jr.key_data(v)
            if eqx.is_array(v) and jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
            else v
            for v in (x, y)
        )
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(rest.score_epochs, [0, 2, 4, 6])


def test_the_best_weights_are_kept():
    """With a learning rate so large that training gets worse, the kept weights have the lowest recorded score."""
    score = PredictionScore(5)
    run = train(num_epochs=8, score=score, score_every=1, optimizer=optax.adam(0.3))
    best = np.argmin(run.score, axis=1)
    assert np.any(best < 8)
    np.testing.assert_array_equal(run.best_epoch, run.score_epochs[best])
    for i in range(3):
        again = score(run.model(i), WAVE[400:])
        assert float(again) == pytest.approx(float(run.score[i].min()), rel=1e-12)
        assert float(run.best_score[i]) == float(run.score[i].min())
    last = score(jax.tree.map(lambda x: x[0], run.last, is_leaf=eqx.is_array), WAVE[400:])
    assert float(last) == pytest.approx(float(run.score[0, -1]), rel=1e-12)


@pytest.mark.parametrize("score", [PredictionScore(), DivergenceScore(100, 10)])
def test_a_diverging_model_affects_no_other_and_is_never_chosen(score):
    models = eqx.filter_vmap(almost_linear)(KEYS)
    models = eqx.tree_at(lambda m: m.cell.W, models, models.cell.W.at[1].set(jnp.nan))
    run, well = train(models, score=score), train(score=score)
    assert bool(jnp.all(jnp.isnan(run.score[1])))
    assert int(run.best_epoch[1]) == -1
    assert float(run.best_score[1]) == jnp.inf
    np.testing.assert_allclose(run.training_loss[::2], well.training_loss[::2], rtol=1e-12)


def test_the_loss_equals_its_formula():
    """One sequence of the length of the series, one update, no noise."""
    models = eqx.filter_vmap(almost_linear)(KEYS[:1])
    series = WAVE[:31]
    run = train(models, keys=KEYS[:1], series=series, noise=0.0, num_epochs=1, updates_per_epoch=1)
    model = jax.tree.map(lambda x: x[0], models, is_leaf=eqx.is_array)
    estimates = jax.vmap(model.observation.estimate)(series[1:])
    strengths = SparseTeacherForcing(16).strengths(jnp.asarray(1.0), 30)
    states = forced_states(model, model.start(series[0]), estimates, strengths)
    expected = jnp.mean((states[:, :2] - series[1:]) ** 2)
    assert float(run.training_loss[0, 0]) == pytest.approx(float(expected), rel=1e-12)


def test_a_rotation_is_learned():
    optimizer = optax.adam(1e-2)
    run = train(num_epochs=15, updates_per_epoch=20, optimizer=optimizer, noise=0.01, score_every=5)
    assert float(jnp.max(run.best_score)) < 0.05
    model = run.model(int(jnp.argmin(run.best_score)))
    states = lejax.unroll(model, model.start(WAVE[0]), num_steps=30)
    assert float(jnp.mean((states[:, :2] - WAVE[1:31]) ** 2)) < 0.1


def test_an_input_drives_the_step_from_its_point():
    """x_(t+1) = u_t: the network must learn to copy the input."""
    u = jr.normal(jr.key(9), (400, 2))
    x = jnp.concatenate([jnp.zeros((1, 2)), u[:-1]])

    def draw(key):
        return ObservedCell(ALRNN(2, 1, 2, key=key), IdentityObservation(2, 2))

    run = train(
        eqx.filter_vmap(draw)(KEYS),
        series=x[:300],
        validation=x[300:],
        inputs=u[:300],
        validation_inputs=u[300:],
        num_epochs=10,
        updates_per_epoch=100,
        score=PredictionScore(2),
        noise=0.0,
    )
    assert float(jnp.max(run.best_score)) < 0.02
    np.testing.assert_allclose(run.model(0).cell.C, jnp.eye(2), atol=0.2)


def test_the_models_dtype_is_kept():
    def draw(key):
        cell = ALRNN(5, 2, dtype=jnp.float32, key=key)
        return ObservedCell(cell, IdentityObservation(2, 5, dtype=jnp.float32))

    run = train(eqx.filter_vmap(draw)(KEYS))
    arrays = jax.tree.leaves(eqx.filter((run.models, run.last), eqx.is_inexact_array))
    assert {x.dtype for x in arrays} == {jnp.dtype(jnp.float32)}
    assert run.training_loss.dtype == run.score.dtype == run.alpha.dtype == jnp.float32


def test_the_default_learning_rate_decays_a_hundredfold():
    """The default optimizer equals the documented schedule."""
    short = train(optimizer=None, num_epochs=1, updates_per_epoch=1, keys=KEYS[:1])
    rate = optax.exponential_decay(1e-3, 1, 1e-2)
    again = train(optimizer=optax.radam(rate), num_epochs=1, updates_per_epoch=1, keys=KEYS[:1])
    np.testing.assert_allclose(short.last.cell.W, again.last.cell.W, rtol=1e-12)
    assert float(rate(1)) == pytest.approx(1e-5)


def test_a_spectrum_penalty_moves_the_exponents():
    """The sum of the exponents of a linear network moves to a target that the data do not determine."""

    def distance(exponents):
        return (jnp.sum(exponents) + 3.0) ** 2

    term = SpectrumPenalty(distance, weight=0.1, num_starts=2, num_steps=10, transient=0)
    options = {"num_epochs": 10, "updates_per_epoch": 10}
    free, bound = train(**options), train(penalty=term, **options)

    def sums(run):
        def exponents(model):
            return lejax.lyapunov_spectrum(model, model.start(WAVE[0]), num_steps=50).exponents

        return np.asarray(jnp.sum(eqx.filter_vmap(exponents)(run.last), axis=1))

    assert np.all(np.abs(sums(bound) + 3) < 0.5 * np.abs(sums(free) + 3))
    # The reported loss does not include the penalty.
    assert np.all(bound.training_loss[:, -1] < 1)


def test_spectrum_penalty_averages_the_exponents_of_its_starts():
    model = almost_linear(jr.key(3))
    starts = jr.normal(jr.key(4), (5, 5))
    term = SpectrumPenalty(jnp.sum, weight=2.0, num_exponents=2, num_starts=3, num_steps=7, dt=0.1)
    runs = [
        lejax.lyapunov_spectrum(model, z, num_exponents=2, num_steps=7, transient=20, dt=0.1)
        for z in starts[:3]
    ]
    expected = 2 * sum(float(jnp.sum(run.exponents)) for run in runs) / 3
    assert float(term(model, starts)) == pytest.approx(expected, rel=1e-10)
    # The function of the mean, not the mean of the function.
    square = SpectrumPenalty(
        lambda x: jnp.sum((100 * x) ** 2), num_exponents=2, num_starts=3, num_steps=7, dt=0.1
    )
    each = np.array([100 * run.exponents for run in runs])
    expected = np.sum(np.mean(each, axis=0) ** 2)
    assert abs(np.mean(np.sum(each**2, axis=1)) - expected) > 1e-6 * expected
    assert float(square(model, starts)) == pytest.approx(expected, rel=1e-10)


def test_divergence_score_equals_that_of_a_free_run():
    model = train(num_epochs=1).model(0)
    score = DivergenceScore(num_steps=60, transient=5)
    states = lejax.unroll(model, model.start(WAVE[0]), num_steps=65)[5:]
    expected = state_space_divergence(WAVE, states[:, :2])
    assert float(score(model, WAVE)) == pytest.approx(float(expected), rel=1e-12)


class Power(eqx.Module):
    """A decay by a power of the state."""

    exponent: float

    def __call__(self, input, state):
        return state**self.exponent

    def initial_state(self):
        return jnp.zeros(1)


def test_divergence_score_is_that_of_the_worst_of_several_runs():
    model = ObservedCell(Power(1.2), IdentityObservation(1, 1))
    series = jnp.roll(jnp.linspace(0.99, 0.01, 30), -10)[:, None]
    runs = []
    for start in (0, 10, 20):
        states = lejax.unroll(model, model.start(series[start]), num_steps=12)
        runs.append(float(state_space_divergence(series, states)))
    assert max(runs) > runs[0] + 0.1
    score = DivergenceScore(num_steps=12, transient=0, num_runs=3)
    assert float(score(model, series)) == pytest.approx(max(runs), rel=1e-12)


def test_one_run_that_diverges_is_enough_for_nan():
    model = ObservedCell(Power(2.0), IdentityObservation(1, 1))
    series = jnp.array([[0.5], [0.6], [2.0], [0.7]])
    assert np.isfinite(DivergenceScore(20, 0)(model, series))
    assert np.isnan(DivergenceScore(20, 0, num_runs=4)(model, series))


def test_divergence_score_refuses_runs_that_it_cannot_start():
    with pytest.raises(ValueError, match="num_runs is 5, but the series has only 4 points"):
        DivergenceScore(num_runs=5)(MODEL, DATA[:4])
    with pytest.raises(ValueError, match="num_runs is 2, but the inputs drive one run"):
        DivergenceScore(num_runs=2)(MODEL, DATA, DATA)
    with pytest.raises(ValueError, match="num_runs"):
        DivergenceScore(num_runs=0)


def test_a_linear_observation_is_trained_too():
    B = jr.normal(jr.key(10), (6, 2))

    def draw(key):
        cell = ShallowPLRNN(2, 10, key=key)
        return ObservedCell(cell, LinearObservation(6, 2, key=key))

    models = eqx.filter_vmap(draw)(KEYS)
    series = WAVE @ B.T
    run = train(
        models,
        series=series[:400],
        validation=series[400:],
        forcing=GeneralizedTeacherForcing(0.5),
        num_epochs=6,
        updates_per_epoch=20,
        score_every=2,
    )
    assert isinstance(run, Reconstruction)
    assert np.all(run.best_score < 0.5 * run.score[:, 0])
    assert float(jnp.abs(run.last.observation.B - models.observation.B).max()) > 1e-3
    np.testing.assert_array_equal(run.alpha, 0.5)


# --- bad input


def test_bad_data():
    with pytest.raises(
        ValueError, match=r"series has 3 dimensions, but the output of the models has shape \(2,\)"
    ):
        train(series=jnp.ones((400, 3)))
    with pytest.raises(
        TypeError, match=r"validation must be a floating-point array \(T, N\), got int"
    ):
        train(validation=jnp.ones((40, 2), int))
    with pytest.raises(ValueError, match="series holds 1 non-finite value out of 800"):
        train(series=WAVE[:400].at[3, 1].set(jnp.nan))
    with pytest.raises(ValueError, match=r"the series has 30 points, too few for .* = 31"):
        train(series=WAVE[:30])
    with pytest.raises(
        ValueError,
        match=r"inputs must have time as first axis, 400 steps as series, got shape \(399, 1\)",
    ):
        train(inputs=jnp.ones((399, 1)))


def test_bad_models():
    models = eqx.filter_vmap(almost_linear)(KEYS)
    with pytest.raises(TypeError, match=r"models must be ObservedCells stacked .*, got ALRNN"):
        train(models.cell)
    with pytest.raises(TypeError, match="keys must be an array of keys"):
        train(models, keys=None)
    with pytest.raises(ValueError, match=r"keys of shape \(2,\), but .* leading axes \[\(3,\)\]"):
        train(models, keys=KEYS[:2])
    with pytest.raises(ValueError, match=r"adaptive teacher forcing .* all 5 units .* only 2"):
        train(models, forcing=AdaptiveTeacherForcing())
    run = train(models, num_epochs=2)
    with pytest.raises(ValueError, match="keys must not be given"):
        train(run)
    with pytest.raises(ValueError, match="num_epochs is 1, but the models are at epoch 2"):
        train(run, keys=None, num_epochs=1)


def test_bad_numbers():
    with pytest.raises(ValueError, match="noise must not be negative and must be finite, got -1"):
        train(noise=-1)
    with pytest.raises(ValueError, match=r"alpha must lie in 0 \.\. 1, got 1.5"):
        GeneralizedTeacherForcing(1.5)
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        SparseTeacherForcing(0)
    with pytest.raises(ValueError, match="num_observed is 4, but the state has only 3 units"):
        IdentityObservation(4, 3)
    with pytest.raises(ValueError, match=r"B must have 2 axes, got shape \(3,\)"):
        LinearObservation.from_weights(B=jnp.ones(3))


def test_a_new_forcing_takes_over_from_the_old_one():
    run = train(num_epochs=1, forcing=SparseTeacherForcing(8))
    run = train(run, keys=None, num_epochs=2, forcing=GeneralizedTeacherForcing(0.15))
    np.testing.assert_allclose(run.alpha[:, 1], 0.15)


def test_an_index_of_no_model_is_refused():
    run = train(num_epochs=1)
    with pytest.raises(IndexError, match="index is 9, but there are 3 models"):
        run.model(9)


def test_inputs_are_checked():
    inputs = jnp.zeros((400, 1)).at[3].set(jnp.nan)
    with pytest.raises(ValueError, match="inputs holds 1 non-finite value out of 400"):
        train(inputs=inputs, validation_inputs=jnp.zeros((len(WAVE) - 400, 1)))
