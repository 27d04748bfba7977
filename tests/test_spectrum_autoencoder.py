"""Spectra as features, and the autoencoder that predicts performance from them."""

import doctest

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from lejax import populations
from lejax.populations._autoencoder import Scaling


SMALL = populations.Autoencoder(latent_size=2, width=16, num_updates=60)


def split(n):
    """Masks for training, validation and test: 60, 20 and 20 % of the rows."""
    part = jr.permutation(jr.key(1), jnp.arange(n) % 5)
    return part > 1, part == 1, part == 0


def fit(method, spectra, performance, is_training, is_validation):
    return method.fit(spectra, performance, is_validation, is_training=is_training, key=jr.key(3))


def family(key, n, size=12):
    """Spectra of two parameters, and a performance that is a curved function of one of them."""
    a, b = jr.uniform(key, (2, n), minval=-1, maxval=1)
    x = jnp.linspace(0, 1, size)
    spectra = a[:, None] - (2 + b[:, None]) * x**2
    return spectra, a**2


def test_resampling_is_interpolation_on_the_common_axis():
    spectrum = jnp.array([1.0, 0.5, -0.2, -3.0])
    np.testing.assert_allclose(populations.resample_spectrum(spectrum, 4), spectrum)
    double = populations.resample_spectrum(spectrum, 8)
    np.testing.assert_allclose(double[1::2], spectrum)
    np.testing.assert_allclose(double[2::2], (spectrum[1:] + spectrum[:-1]) / 2)
    assert double[0] == spectrum[0]
    half = populations.resample_spectrum(spectrum, 2)
    np.testing.assert_allclose(half, spectrum[1::2])
    # Linear spectra are the same line at any size.
    lines = [1 - 2 * jnp.arange(1, k + 1) / k for k in (5, 40)]
    np.testing.assert_allclose(populations.resample_spectrum(lines[1], 5), lines[0], atol=1e-12)
    batch = jax.vmap(lambda s: populations.resample_spectrum(s, 3))(jnp.stack([spectrum] * 2))
    assert batch.shape == (2, 3)
    with pytest.raises(ValueError, match=r"must be those of one run, with shape \(k,\)"):
        populations.resample_spectrum(jnp.ones((2, 3)), 4)


def test_lost_directions_are_bounded_by_the_last_resolved():
    spectrum = jnp.array([0.5, -1.0, -jnp.inf, -3.0, -jnp.inf])
    np.testing.assert_array_equal(populations.bound_lost(spectrum), [0.5, -1, -3, -3, -3])
    diverged = jnp.array([0.5, jnp.nan, -jnp.inf])
    np.testing.assert_array_equal(populations.bound_lost(diverged), [0.5, np.nan, 0.5])
    all_lost = jnp.full(2, -jnp.inf)
    np.testing.assert_array_equal(populations.bound_lost(all_lost), all_lost)


def test_scaling_uses_its_rows_only():
    values = jnp.array([[1.0, 5.0], [3.0, 5.0], [100.0, 7.0]])
    scaling = Scaling(values, jnp.array([True, True, False]))
    np.testing.assert_allclose(scaling.mean, [2, 5])
    np.testing.assert_allclose(scaling.deviation, [1, 1])
    np.testing.assert_allclose(scaling.undo(scaling(values[2])), values[2])


def test_a_column_that_varies_by_rounding_keeps_its_unit():
    # The mean of equal numbers is off by rounding, and so is each from it.
    values = 0.1 * jnp.arange(1.0, 40.0)
    deviations = [
        Scaling(jnp.tile(values, (n, 1)), jnp.ones(n, bool)).deviation for n in (3, 7, 49)
    ]
    np.testing.assert_array_equal(deviations, 1)


@pytest.fixture(scope="module")
def curved():
    spectra, performance = family(jr.key(0), 100)
    is_training, is_validation, is_test = split(100)
    model = fit(SMALL, spectra, performance, is_training, is_validation)
    return spectra, performance, np.asarray(is_test), model


def test_the_autoencoder_finds_what_a_line_cannot(curved):
    spectra, performance, is_test, model = curved
    design = np.column_stack([np.ones(100), spectra])
    line = np.linalg.lstsq(design[~is_test], performance[~is_test], rcond=None)[0]
    errors = [
        np.mean((predicted - performance)[is_test] ** 2) / performance[is_test].var()
        for predicted in (jax.vmap(model)(spectra), design @ line)
    ]
    assert errors[0] < 0.2 < 0.5 < errors[1]
    rebuilt = jax.vmap(lambda x: model.decode(model.encode(x)))(spectra)
    spread = np.abs(spectra - spectra.mean(axis=0)).mean()
    assert np.abs(rebuilt - spectra)[is_test].mean() < 0.3 * spread
    assert model.encode(spectra[0]).shape == (2,)


def mean_loss(model, spectra, performance):
    """What an autoencoder minimizes at alpha = 1."""
    z = jax.vmap(model.spectrum_scaling)(spectra)
    codes = jax.vmap(model.encoder)(z)
    error = jnp.mean(jnp.abs(jax.vmap(model.decoder)(codes) - z), axis=1)
    error += (jax.vmap(model.head)(codes) - model.performance_scaling(performance)) ** 2
    return float(jnp.mean(error))


def test_the_weights_after_the_last_update_are_judged_too():
    # One small step down the loss of all rows leads to weights that are better on these rows.
    spectra, performance = family(jr.key(0), 40)
    everyone = jnp.ones(40, bool)

    def loss(learning_rate):
        method = populations.Autoencoder(
            latent_size=2, width=8, alphas=(1.0,), num_updates=1, learning_rate=learning_rate
        )
        model = fit(method, spectra, performance, everyone, everyone)
        return mean_loss(model, spectra, performance)

    untrained = loss(1e-12)
    assert loss(1e-3) < 0.999 * untrained
    assert loss(1e3) == pytest.approx(untrained)  # a step that is too long is not taken


@pytest.mark.slow
def test_the_best_weights_are_restored():
    # A rate so high that the last weights are bad: the loss on the validation rows must be the least one seen.
    spectra, performance = family(jr.key(0), 40)
    is_training, is_validation, _ = split(40)
    rows = np.asarray(is_validation)
    wild = {"latent_size": 2, "width": 8, "alphas": (1.0,), "learning_rate": 0.3}

    def validation_loss(num_updates):
        method = populations.Autoencoder(**wild, num_updates=num_updates)
        model = fit(method, spectra, performance, is_training, is_validation)
        return mean_loss(model, spectra[rows], performance[rows])

    losses = [validation_loss(n) for n in (1, 5, 10, 20, 40)]
    assert np.all(np.diff(losses) <= 1e-9)
    assert losses[-1] < losses[0]


def assert_same_model(a, b):
    arrays = (jax.tree.leaves(eqx.filter(model, eqx.is_array)) for model in (a, b))
    for x, y in zip(*arrays, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


def test_rows_of_neither_mask_have_no_influence(curved):
    spectra, performance, is_test, model = curved
    moved = jnp.where(is_test[:, None], 3.0, spectra), jnp.where(is_test, 7.0, performance)
    assert_same_model(fit(SMALL, *moved, *split(100)[:2]), model)


def test_all_other_rows_are_learned_from_by_default():
    spectra, performance = family(jr.key(0), 40)
    method = populations.Autoencoder(latent_size=1, width=4, num_updates=3)
    _, is_validation, _ = split(40)
    by_default = method.fit(spectra, performance, is_validation, key=jr.key(3))
    assert_same_model(by_default, fit(method, spectra, performance, ~is_validation, is_validation))


@pytest.mark.slow
def test_noise_is_not_predicted():
    model_selection = pytest.importorskip("sklearn.model_selection")
    spectra, noise = np.asarray(jr.normal(jr.key(0), (120, 12))), jr.normal(jr.key(1), (120,))
    predicted = np.zeros(120)
    for learned, unseen in model_selection.KFold(5).split(spectra):
        is_validation = np.arange(len(learned)) % 4 == 0
        model = SMALL.fit(spectra[learned], noise[learned], is_validation, key=jr.key(2))
        predicted[unseen] = jax.vmap(model)(spectra[unseen])
    assert abs(np.corrcoef(predicted, noise)[0, 1]) < 3 / 120**0.5


def test_the_example_of_fit_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(SMALL.fit, "fit", module=False)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.DocTestRunner(optionflags=flags).run(example).failed == 0


BAD_CALLS = {
    "not finite": (
        (jnp.full((10, 1), jnp.nan), jnp.ones(10), jnp.arange(10) < 3),
        "spectra holds 10 non-finite values out of 10",
    ),
    "no number": (
        (jnp.ones((10, 1)), jnp.ones(10).at[2].set(jnp.inf), jnp.arange(10) < 3),
        "performance holds 1 non-finite value out of 10",
    ),
    "one spectrum": ((jnp.ones(10), jnp.ones(10), jnp.arange(10) < 3), r"must have shape \(n, k\)"),
    "too few": (
        (jnp.ones((10, 1)), jnp.ones(9), jnp.arange(10) < 3),
        r"performance must have one entry for each of the 10 spectra, got shape \(9,\)",
    ),
    "nothing to choose by": (
        (jnp.ones((10, 1)), jnp.ones(10), jnp.zeros(10, bool)),
        "is_validation selects no row",
    ),
    "nothing to learn from": (
        (jnp.ones((10, 1)), jnp.ones(10), jnp.ones(10, bool)),
        "is_training selects no row",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input(name):
    arguments, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        SMALL.fit(*arguments, key=jr.key(0))
