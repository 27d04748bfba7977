"""Selectors: ridge on ranks, with what is left out computed by leaving it out."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from lejax import populations
from lejax.populations import fit_selector
from lejax.populations._selector import PENALTIES, SHARES


def draw(n=40, sizes=(2, 6), seed=0):
    """Two groups of features, of which the first and some of the second decide the loss."""
    rng = np.random.default_rng(seed)
    loss, spectrum = (rng.normal(size=(n, f)) * rng.uniform(0.2, 5, f) + 3 for f in sizes)
    noise = rng.normal(size=n)
    final = np.exp(loss[:, 0] + spectrum[:, 0] / spectrum[:, 0].std() + 0.3 * noise)
    return {"loss": loss, "spectrum": spectrum}, final


def plain_ranks(loss):
    loss = np.where(np.isnan(loss), np.inf, loss)
    return (scipy.stats.rankdata(loss) - 1) / (len(loss) - 1)


def solve(x, y, penalty):
    """Ridge regression with a mean that is not penalized: the prediction of a row."""
    mean, target = x.mean(axis=0), y.mean()
    gram = (x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - mean).T @ (y - target))
    return lambda row: target + (row - mean) @ weights


def plain_selector(features, final_loss):
    """Every share and penalty, every network left out: the least error, and the prediction of the best of them."""
    groups = [(x - x.mean(axis=0)) / x.std(axis=0) for x in features.values()]
    y, n = plain_ranks(final_loss), len(final_loss)
    best = (np.inf,)
    for shares in itertools.product(SHARES, repeat=len(groups)):
        if not any(shares):
            continue
        x = np.concatenate(
            [g * np.sqrt(s / g.shape[1]) for g, s in zip(groups, shares, strict=True)], axis=1
        )
        for penalty in PENALTIES:
            left_out = [
                y[i] - solve(np.delete(x, i, 0), np.delete(y, i), n * penalty)(x[i])
                for i in range(n)
            ]
            error = np.sqrt(np.mean(np.square(left_out)))
            if error < best[0]:
                best = error, shares, penalty, solve(x, y, n * penalty)(x)
    return best


def test_the_selector_is_that_of_networks_left_out_one_by_one():
    features, final_loss = draw(n=24)
    selector = fit_selector(features, final_loss)
    error, shares, penalty, predicted = plain_selector(features, final_loss)
    np.testing.assert_allclose(selector.error, error, rtol=1e-10)
    assert tuple(selector.shares.values()) == shares
    np.testing.assert_allclose(selector.penalty, penalty)
    np.testing.assert_allclose(jax.vmap(selector)(features), predicted, rtol=1e-9, atol=1e-12)


def test_more_features_than_networks():
    features, final_loss = draw(n=12, sizes=(2, 30))
    selector = fit_selector(features, final_loss)
    error, _, _, predicted = plain_selector(features, final_loss)
    np.testing.assert_allclose(selector.error, error, rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(selector)(features), predicted, rtol=1e-8, atol=1e-11)


def test_unseen_networks_are_ranked_at_sizes_above_the_thresholds():
    features, final_loss = draw(n=1500, sizes=(3, 40))
    selector = fit_selector(features, final_loss, is_trained=jnp.arange(1500) < 1200)
    predicted = jax.vmap(selector)(features)[1200:]
    assert scipy.stats.spearmanr(predicted, final_loss[1200:]).statistic > 0.9
    assert 0.05 < selector.error < 0.15


def test_only_the_order_of_the_losses_counts():
    features, final_loss = draw()
    a, b = fit_selector(features, final_loss), fit_selector(features, np.log(final_loss))
    assert eqx.tree_equal(a, b)
    final_loss[np.argmax(final_loss)] = np.nan  # the worst diverges in place of being the worst
    assert eqx.tree_equal(a, fit_selector(features, final_loss))


def test_ties_share_their_mean_rank():
    features, _ = draw(n=6)
    loss = np.array([3.0, 1.0, 1.0, np.nan, 2.0, np.nan])
    selector = fit_selector(features, loss)
    np.testing.assert_allclose(selector.offset, plain_ranks(loss).mean())
    x = {"x": plain_ranks(loss)[:, None]}
    np.testing.assert_allclose(
        jax.vmap(fit_selector(x, loss))(x), plain_ranks(loss), rtol=0, atol=1e-3
    )


def test_diverged_networks_are_the_worst_and_teach_nothing():
    features, final_loss = draw()
    sound = {name: np.array(x[3:]) for name, x in features.items()}
    features["loss"][0, 1] = np.nan
    features["spectrum"][1, 2] = -np.inf
    features["loss"][2] = np.inf
    selector = fit_selector(features, final_loss)
    predicted = jax.vmap(selector)(features)
    np.testing.assert_array_equal(predicted[:3], np.inf)
    alone = fit_selector(sound, final_loss[3:])
    np.testing.assert_allclose(predicted[3:], jax.vmap(alone)(sound), rtol=1e-9, atol=1e-12)


def test_rows_that_are_not_trained_have_no_influence():
    features, final_loss = draw()
    rows = np.arange(40) % 3 != 0
    selector = fit_selector(features, np.where(rows, final_loss, np.nan), is_trained=rows)
    part = {name: x[rows] for name, x in features.items()}
    alone = fit_selector(part, final_loss[rows])
    np.testing.assert_allclose(
        jax.vmap(selector)(features), jax.vmap(alone)(features), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(selector.error, alone.error, rtol=1e-10)


def test_folds_run_side_by_side():
    features, final_loss = draw()
    masks = jnp.arange(40) % 4 != jnp.arange(4)[:, None]

    def fold(mask):
        return jax.vmap(fit_selector(features, final_loss, is_trained=mask))(features)

    together = jax.jit(jax.vmap(fold))(masks)
    for mask, predicted in zip(masks, together, strict=True):
        np.testing.assert_allclose(fold(mask), predicted, rtol=1e-8, atol=1e-10)


def test_a_group_of_noise_is_not_used():
    features, _ = draw(n=200)
    features["spectrum"] = np.random.default_rng(1).normal(size=(200, 20))
    selector = fit_selector(features, np.exp(features["loss"][:, 0]))
    assert selector.shares["spectrum"] < selector.shares["loss"]
    used = np.abs(selector.weights["spectrum"]).max()
    assert used < 0.02 * np.abs(selector.weights["loss"]).max()


def test_float32_and_one_array_of_features():
    features, final_loss = draw(n=60)
    joined = np.concatenate(list(features.values()), axis=1)
    double = fit_selector(joined, final_loss)
    single = fit_selector(joined.astype(np.float32), final_loss.astype(np.float32))
    assert single.weights.dtype == jnp.float32
    np.testing.assert_allclose(
        jax.vmap(single)(joined), jax.vmap(double)(joined), rtol=0, atol=1e-4
    )


def test_a_constant_feature_is_ignored():
    features, final_loss = draw()
    features["spectrum"][:, 1] = 0.1
    assert abs(fit_selector(features, final_loss).weights["spectrum"][1]) < 1e-15


def test_a_population_after_few_epochs():
    """The whole way: train, take features, learn from half of the networks, rank the others."""
    draw_task = lambda seed: populations.adding_task(jr.key(seed), 64, num_steps=6)
    scale = jnp.geomspace(0.1, 20.0, 12)
    from lejax.cells import RNNCell

    population = populations.initialize_population(
        lambda key: RNNCell(2, 4, key=key), populations.Hyperparameters(scale), 1, key=jr.key(0)
    )
    stream = draw_task(2).inputs[:6].reshape(-1, 2)
    population = populations.train_population(
        population, draw_task(1), draw_task(2), num_epochs=4, batch_size=16,
        spectrum_epochs=(1,), stream=stream,
    )  # fmt: skip
    features = {
        "loss": jnp.log(population.validation_loss[:, :2]),
        "spectrum": jax.vmap(populations.bound_lost)(population.exponents[:, 0]),
    }
    is_trained = jnp.arange(12) % 2 == 0
    selector = fit_selector(features, population.validation_loss[:, -1], is_trained=is_trained)
    assert np.isfinite(jax.vmap(selector)(features)).all()


def test_too_few_networks_are_nan_under_jit():
    features, final = draw()
    few = np.arange(len(final)) < 2
    fit = jax.jit(lambda mask, loss: fit_selector(features, loss, is_trained=mask))
    for mask, loss in ((few, final), (np.ones_like(few), np.full_like(final, np.nan))):
        selector = fit(mask, loss)
        assert jnp.isnan(selector.error)
        assert jnp.all(jnp.isnan(jax.vmap(selector)(features)))
    assert int(fit(~few, final).num_networks) == len(final) - 2


def test_bad_input():
    features, final_loss = draw()
    with pytest.raises(
        ValueError, match=r"features must hold at least one array \(n, f\), got none"
    ):
        fit_selector({}, final_loss)
    with pytest.raises(
        ValueError, match=r"features\['loss'\] must .* of the 40 final losses, got shape \(39, 2\)"
    ):
        fit_selector(features | {"loss": features["loss"][1:]}, final_loss)
    with pytest.raises(TypeError, match=r"features\['x'\] must be an array of real numbers, got"):
        fit_selector({"x": "text"}, final_loss)
    masked = np.ma.masked_greater(features["loss"], 3)
    with pytest.raises(TypeError, match=r"features\['loss'\] is a masked array"):
        fit_selector(features | {"loss": masked}, final_loss)
    with pytest.raises(TypeError, match=r"features must be real, got complex128\."):
        fit_selector(1j * features["loss"], final_loss)
    assert fit_selector(jnp.asarray(features["loss"], jnp.bfloat16), final_loss).error.dtype == "f4"
    with pytest.raises(ValueError, match=r"features must be an array \(n, f\)"):
        fit_selector(features["loss"][:, 0], final_loss)
    with pytest.raises(ValueError, match=r"final_loss must have shape \(n,\), got \(40, 1\)"):
        fit_selector(features, final_loss[:, None])
    with pytest.raises(ValueError, match=r"is_trained must have one entry for each of the 40"):
        fit_selector(features, final_loss, is_trained=jnp.ones(3, bool))
    with pytest.raises(
        ValueError, match="at least 3 trained networks must have finite features, got 2"
    ):
        fit_selector(features, final_loss, is_trained=jnp.arange(40) < 2)
    with pytest.raises(ValueError, match="final_loss is NaN for all trained networks"):
        fit_selector(features, np.full(40, np.nan))
    selector = fit_selector(features, final_loss)
    with pytest.raises(ValueError, match=r"features must be those of one network.*use jax\.vmap"):
        selector(features)
    with pytest.raises(ValueError, match=r"features must be those of one network"):
        selector({"loss": features["loss"][0]})
