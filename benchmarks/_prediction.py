"""Predict a number for each of n networks: folds, baselines of scikit-learn, scores with bootstrap intervals."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats


PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Split(NamedTuple):
    """Masks (n,), or (folds, n), of the networks to learn from, to choose hyperparameters by, and to predict."""

    training: jax.Array
    validation: jax.Array
    test: jax.Array


def draw_folds(key, num_networks, num_folds=5):
    """Every network is in the test set of one fold. The validation set of a fold is the test set of the next."""
    fold_of = jr.permutation(key, jnp.arange(num_networks) % num_folds)
    fold = jnp.arange(num_folds)[:, None]
    test, validation = fold_of == fold, fold_of == (fold + 1) % num_folds
    return Split(~(test | validation), validation, test)


def cross_validate(fit_and_predict, num_networks, num_repeats, key):
    """Predictions (repeats, n) of each network by models that have not seen it.

    `fit_and_predict(splits, keys)` returns the predictions (folds, n) of a model for each fold.
    """

    def repeat(key):
        key_folds, key_fit = jr.split(key)
        splits = draw_folds(key_folds, num_networks)
        predictions = fit_and_predict(splits, jr.split(key_fit, len(splits.test)))
        return np.sum(np.where(splits.test, predictions, 0), axis=0)

    return np.stack([repeat(key) for key in jr.split(key, num_repeats)]).astype(float)


def ridge(features, target):
    """Ridge regression on standardized features, with the penalty that is best on the validation set, for each fold.

    In scikit-learn `alpha` multiplies |w|^2 beside the sum of squares; here a penalty is beside their mean.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, target = np.asarray(features, float), np.asarray(target, float)

    def predict(training, validation):
        models = [
            make_pipeline(StandardScaler(), Ridge(penalty * training.sum()))
            for penalty in PENALTIES
        ]
        predictions = [
            model.fit(features[training], target[training]).predict(features) for model in models
        ]
        return min(predictions, key=lambda p: np.sum((p - target)[validation] ** 2))

    def fit_and_predict(splits, keys):
        masks = zip(np.asarray(splits.training), np.asarray(splits.validation), strict=True)
        return np.stack([predict(*mask) for mask in masks])

    return fit_and_predict


def classify(codes, is_good, is_training, penalty=1e-2):
    """Logistic regression on standardized codes (n, l): whether each network is predicted to be good (n,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    codes = np.asarray(codes, float)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / (penalty * is_training.sum()), tol=1e-8)
    )
    return model.fit(codes[is_training], is_good[is_training]).predict(codes)


def estimate(statistic, *samples):
    """A statistic of paired samples (n,), with its 95 % percentile interval over resampled networks.

    Predictions among the samples stay as they are: the interval says how a score varies with the networks it is taken
    over, not with those that a model learned from.
    """
    samples = [np.asarray(sample, float) for sample in samples]
    interval = scipy.stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=True,
        axis=-1,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    value = statistic(*samples, axis=-1)
    return {"value": float(value), "low": float(interval.low), "high": float(interval.high)}


def format_estimate(found):
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def pearson(x, y, axis=-1):
    """Pearson's correlation."""
    return scipy.stats.pearsonr(x, y, axis=axis).statistic


def spearman(x, y, axis=-1):
    """Spearman's rank correlation; `scipy.stats.spearmanr` takes no batch."""
    return pearson(*(scipy.stats.rankdata(v, axis=axis) for v in (x, y)), axis=axis)


def r_squared(prediction, truth, axis=-1):
    """The share of the variance that a prediction explains."""
    error = np.sum((truth - prediction) ** 2, axis=axis)
    return 1 - error / np.sum((truth - truth.mean(axis=axis, keepdims=True)) ** 2, axis=axis)


def agreement(prediction, truth, axis=-1):
    """The share of networks put on the right side of the median."""
    sides = [x < np.median(x, axis=axis, keepdims=True) for x in (prediction, truth)]
    return np.mean(sides[0] == sides[1], axis=axis)


def mean_over_repeats(statistic):
    """The mean of a statistic of the truth and each of R predictions."""

    def mean(truth, *predictions, axis=-1):
        return np.mean([statistic(p, truth, axis=axis) for p in predictions], axis=0)

    return mean


def difference_over_repeats(truth, *predictions, axis=-1):
    """How much better the first half of the predictions ranks than the second."""
    half = len(predictions) // 2
    mean = mean_over_repeats(spearman)
    return mean(truth, *predictions[:half], axis=axis) - mean(truth, *predictions[half:], axis=axis)
