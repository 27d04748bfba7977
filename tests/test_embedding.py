"""What is predicted was not seen, what is claimed has an interval, what is restored was the best."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from lejax import populations
from lejax.populations._regression import Scaling


SMALL = populations.Autoencoder(latent_size=2, width=16, num_updates=60)


def fold(n, index=0):
    return jax.tree.map(lambda mask: mask[index], populations.folds(jr.key(1), n))


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
    nothing = jnp.full(2, -jnp.inf)
    np.testing.assert_array_equal(populations.bound_lost(nothing), nothing)


def test_folds_are_disjoint_and_cover():
    splits = populations.folds(jr.key(0), 23, num_folds=4)
    total = splits.training.astype(int) + splits.validation.astype(int) + splits.test.astype(int)
    np.testing.assert_array_equal(total, 1)
    np.testing.assert_array_equal(splits.test.sum(axis=0), 1)
    np.testing.assert_array_equal(splits.validation.sum(axis=0), 1)
    assert set(np.asarray(splits.test.sum(axis=1))) == {5, 6}


class Remember(populations.Regressor):
    """Predicts 1 for what it was shown in training or validation, else 0."""

    def fit(self, features, targets, split, *, key):
        seen = jnp.where(split.training | split.validation, features[:, 0], jnp.nan)
        return lambda x: jnp.any(seen == x[0]).astype(float)


def test_no_network_is_predicted_by_a_model_that_saw_it():
    names = jnp.arange(30.0)[:, None]
    out = populations.cross_validate(Remember(), names, jnp.zeros(30), key=jr.key(0))
    assert out.shape == (3, 30)
    np.testing.assert_array_equal(out, 0)


@pytest.mark.slow
def test_noise_is_not_predicted():
    spectra = jr.normal(jr.key(0), (120, 12))
    noise = jr.normal(jr.key(1), (120,))
    for regressor in (populations.Ridge(), SMALL):
        out = populations.cross_validate(regressor, spectra, noise, num_repeats=1, key=jr.key(2))
        score = populations.r_squared(out[0], noise)
        assert score.low < 0


def test_ridge_is_least_squares_without_a_penalty():
    x, y = jr.normal(jr.key(0), (40, 3)), jr.normal(jr.key(1), (40,))
    split = fold(40)
    model = populations.Ridge(penalties=(0.0,)).fit(x, y, split, key=jr.key(2))
    rows = np.asarray(split.training)
    design = np.column_stack([np.ones(rows.sum()), x[rows]])
    coefficients = np.linalg.lstsq(design, y[rows], rcond=None)[0]
    expected = np.column_stack([np.ones(40), x]) @ coefficients
    np.testing.assert_allclose(jax.vmap(model)(x), expected, rtol=1e-9)


def test_ridge_chooses_on_the_validation_rows():
    x = jr.normal(jr.key(0), (40, 30))
    y = x[:, 0] + 0.5 * jr.normal(jr.key(1), (40,))
    split = fold(40)

    def error(penalties):
        model = populations.Ridge(penalties).fit(x, y, split, key=jr.key(2))
        return jnp.sum(jnp.where(split.validation, (jax.vmap(model)(x) - y) ** 2, 0))

    penalties = (1e-8, 1e-2, 1.0, 100.0)
    errors = [float(error((p,))) for p in penalties]
    np.testing.assert_allclose(error(penalties), min(errors), rtol=1e-9)
    assert np.argmin(errors) not in (0, 3)


def test_scaling_uses_its_rows_only():
    values = jnp.array([[1.0, 5.0], [3.0, 5.0], [100.0, 7.0]])
    scaling = Scaling(values, jnp.array([True, True, False]))
    np.testing.assert_allclose(scaling.center, [2, 5])
    np.testing.assert_allclose(scaling.spread, [1, 1])
    np.testing.assert_allclose(scaling.undo(scaling(values[2])), values[2])


def test_a_column_that_varies_by_rounding_says_nothing():
    # The mean of equal numbers is off by rounding, and so is each from it.
    values = 0.1 * jnp.arange(1.0, 40.0)
    spreads = [Scaling(jnp.tile(values, (n, 1)), jnp.ones(n, bool)).spread for n in (3, 7, 49)]
    np.testing.assert_array_equal(spreads, 1)
    x = jr.normal(jr.key(0), (49, 1))
    with_constants = jnp.concatenate([x, jnp.tile(values, (49, 1))], axis=1)
    options = {"targets": 2 * x[:, 0], "split": fold(49), "key": jr.key(1)}
    model = populations.Ridge((1e-6,)).fit(with_constants, **options)
    seen = populations.Ridge((1e-6,)).fit(x, **options)
    np.testing.assert_allclose(
        model(jnp.append(0.5, values + 1e-3)), seen(jnp.array([0.5])), atol=1e-9
    )


@pytest.fixture(scope="module")
def curved():
    spectra, performance = family(jr.key(0), 100)
    split = fold(100)
    model = eqx.filter_jit(SMALL.fit)(spectra, performance, split, key=jr.key(3))
    return spectra, performance, split, model


def test_the_autoencoder_finds_what_a_line_cannot(curved):
    spectra, performance, split, model = curved
    line = populations.Ridge().fit(spectra, performance, split, key=jr.key(3))
    rows = np.asarray(split.test)
    errors = [
        np.mean((jax.vmap(m)(spectra)[rows] - performance[rows]) ** 2) / performance[rows].var()
        for m in (model, line)
    ]
    assert errors[0] < 0.2 < 0.5 < errors[1]
    rebuilt = jax.vmap(lambda x: model.decode(model.encode(x)))(spectra)
    spread = np.abs(spectra - spectra.mean(axis=0)).mean()
    assert np.abs(rebuilt - spectra)[rows].mean() < 0.3 * spread
    assert model.encode(spectra[0]).shape == (2,)


@pytest.mark.slow
def test_the_best_weights_are_restored():
    # A rate so high that the last weights are bad: the loss on the validation rows must be the least one seen.
    spectra, performance = family(jr.key(0), 40)
    split = fold(40)
    wild = {"latent_size": 2, "width": 8, "alphas": (1.0,), "learning_rate": 0.3}

    def judged(num_updates):
        method = populations.Autoencoder(**wild, num_updates=num_updates)
        model = eqx.filter_jit(method.fit)(spectra, performance, split, key=jr.key(3))
        z = jax.vmap(model.spectrum_scaling)(spectra)
        codes = jax.vmap(model.encode)(spectra)
        rebuilt = jax.vmap(model.decoder)(codes)
        error = jnp.mean(jnp.abs(rebuilt - z), axis=1)
        scaled = model.performance_scaling(performance)
        error += (jax.vmap(model.head)(codes) - scaled) ** 2
        return float(jnp.mean(error[np.asarray(split.validation)]))

    losses = [judged(n) for n in (1, 5, 10, 20, 40)]
    assert np.all(np.diff(losses) <= 1e-9)
    assert losses[-1] < losses[0]


def test_test_rows_change_nothing(curved):
    spectra, performance, split, model = curved
    other = jnp.where(split.test, 7.0, performance)
    moved = jnp.where(split.test[:, None], 3.0, spectra)
    again = eqx.filter_jit(SMALL.fit)(moved, other, split, key=jr.key(3))
    for a, b in zip(
        jax.tree.leaves(eqx.filter(model, eqx.is_array)),
        jax.tree.leaves(eqx.filter(again, eqx.is_array)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_principal_components_of_a_known_ellipse():
    angle = 0.4
    axes = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
    points = jr.normal(jr.key(0), (500, 2)) * jnp.array([3.0, 0.5]) @ axes + 2.0
    found = populations.principal_components(points, 2)
    np.testing.assert_allclose(jnp.abs(found.axes @ axes.T), jnp.eye(2), atol=0.02)
    codes = jax.vmap(found)(points)
    np.testing.assert_allclose(jnp.cov(codes.T), jnp.diag(found.variances), atol=1e-10)
    np.testing.assert_allclose(jnp.trace(jnp.cov(points.T)), found.total_variance)
    with pytest.raises(ValueError, match="num_components is 3, but codes of shape"):
        populations.principal_components(points, 3)


def test_classifier_is_at_the_minimum_of_its_loss():
    codes = jr.normal(jr.key(0), (200, 2)) * jnp.array([1.0, 5.0])
    is_good = codes @ jnp.array([1.0, -0.2]) + jr.normal(jr.key(1), (200,)) > 0.3
    used = jnp.arange(200) < 150
    model = populations.fit_classifier(codes, is_good, is_used=used, penalty=1e-2)

    def loss(parameters):
        z = jax.vmap(model.scaling)(codes)
        odds = z @ parameters[:-1] + parameters[-1]
        logs = jnp.where(is_good, jax.nn.log_sigmoid(odds), jax.nn.log_sigmoid(-odds))
        return -jnp.mean(logs[:150]) + 0.005 * jnp.sum(parameters[:-1] ** 2)

    gradient = jax.grad(loss)(jnp.append(model.weights, model.intercept))
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
    right = (jax.vmap(model)(codes) > 0.5) == is_good
    assert jnp.mean(right[150:]) > 0.75
    # Separable classes are no trouble.
    separable = populations.fit_classifier(codes, codes[:, 0] > 0)
    assert bool(jnp.all(jnp.isfinite(separable.weights)))


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=80).round(1)  # with ties
    y = x + rng.normal(size=80)
    assert populations.pearson(x, y).value == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert populations.spearman(x, y).value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert populations.r_squared(np.full(80, y.mean()), y).value == pytest.approx(0)


def test_intervals_cover_the_truth():
    # Bivariate normal pairs of correlation 0.6: percentile intervals of 95 % cover it nearly so often.
    rng = np.random.default_rng(1)
    covered = []
    for i in range(150):
        x = rng.normal(size=60)
        y = 0.6 * x + 0.8 * rng.normal(size=60)
        found = populations.pearson(x, y, num_resamples=300, seed=i)
        covered.append(found.low <= 0.6 <= found.high)
    # 93 % expected; 4 standard errors of a share of 150 are 8 %.
    assert 0.85 < np.mean(covered) < 0.99


def test_difference_of_two_scores_is_paired():
    from lejax.populations._bootstrap import spearman_statistic

    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    a = y + rng.normal(size=100)

    def difference(a, b, y, axis=-1):
        return spearman_statistic(a, y, axis=axis) - spearman_statistic(b, y, axis=axis)

    same = populations.bootstrap(difference, a, a, y, num_resamples=50)
    assert same == (0, 0, 0)


def test_bad_input():
    with pytest.raises(ValueError, match="features must be finite"):
        populations.cross_validate(
            populations.Ridge(), jnp.full((10, 1), jnp.nan), jnp.ones(10), key=jr.key(0)
        )
    with pytest.raises(ValueError, match=r"got \(10, 1\) and \(9,\)"):
        populations.cross_validate(
            populations.Ridge(), jnp.ones((10, 1)), jnp.ones(9), key=jr.key(0)
        )
    with pytest.raises(ValueError, match="number of networks must be an integer of at least 5"):
        populations.cross_validate(
            populations.Ridge(), jnp.ones((4, 1)), jnp.ones(4), key=jr.key(0)
        )
    with pytest.raises(ValueError, match="num_folds must be an integer of at least 3"):
        populations.folds(jr.key(0), 10, num_folds=2)
    with pytest.raises(ValueError, match="samples must be finite"):
        populations.pearson([1.0, 2.0, np.nan], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"one length of at least 3, got \[3, 4\]"):
        populations.pearson(np.ones(3), np.ones(4))
    with pytest.raises(TypeError, match="runs on the host"):
        jax.jit(lambda x: populations.pearson(x, x).value)(jnp.ones(5))
    with pytest.raises(ValueError, match="is_good"):
        populations.fit_classifier(jnp.ones((4, 2)), jnp.ones(3, bool))


def test_rows_that_are_not_used_may_be_no_number():
    codes = jnp.linspace(-1, 1, 20)[:, None].at[3].set(jnp.nan)
    is_used = jnp.isfinite(codes[:, 0])
    classifier = populations.fit_classifier(codes, codes[:, 0] > 0, is_used=is_used)
    assert classifier(jnp.array([0.5])) > 0.9


def test_the_validation_set_of_a_fold_is_the_test_set_of_the_next():
    splits = populations.folds(jr.key(3), 23, num_folds=4)
    np.testing.assert_array_equal(splits.validation, np.roll(splits.test, -1, axis=0))
