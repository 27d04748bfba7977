"""Correlations and scores with bootstrap intervals. Host functions: SciPy does the work."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count, check_probability


class Estimate(NamedTuple):
    """A number and its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


Statistic = Callable[..., Float[np.ndarray, "*m"]]


@checked
def bootstrap(
    statistic: Statistic,
    *samples: Float[Array, " n"] | Bool[Array, " n"],
    confidence_level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of n networks with the percentile interval of resampled networks.

    **Arguments:**

    - `statistic`: a function of the samples, each (.., n), and of a keyword `axis` (-1), e.g. `spearman_statistic`.
    - `samples`: vectors of one length; a network is drawn with all its numbers.
    - `confidence_level`, `num_resamples`, `seed`.

    **Returns:** an `Estimate`. The interval is NaN where some resample has no value (a constant sample). Predictions among
    the samples stay as they are: the interval says how a score varies with the networks it is taken over, not with
    those a regressor learned from. A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> lejax.populations.bootstrap(np.mean, np.arange(100.0)).value
        49.5

    Efron & Tibshirani, An Introduction to the Bootstrap (1993).
    """
    vectors = [_vector(sample) for sample in samples]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) != 1 or lengths.pop() < 3:
        raise ValueError(
            f"samples must be vectors of one length of at least 3, got {[len(v) for v in vectors]}."
        )
    num_resamples = check_count("num_resamples", num_resamples, 1)
    confidence_level = check_probability("confidence_level", confidence_level)
    seed = check_count("seed", seed, 0)
    try:
        value = float(statistic(*vectors, axis=-1))
    except Exception as error:
        raise TypeError(
            f"statistic failed on {len(vectors)} samples of {len(vectors[0])}. It said: {type(error).__name__}: {error}"
        ) from error
    result = scipy.stats.bootstrap(
        vectors,
        statistic,
        paired=len(vectors) > 1,
        vectorized=True,
        axis=-1,
        n_resamples=num_resamples,
        confidence_level=confidence_level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


@checked
def pearson(x: Float[Array, " n"], y: Float[Array, " n"], **options) -> Estimate:
    """Pearson's correlation with its bootstrap interval; `options` are those of `bootstrap`.

    A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> x = np.arange(30.0)
        >>> round(lejax.populations.pearson(x, 2 - x).value, 6)
        -1.0
    """
    return bootstrap(pearson_statistic, x, y, **options)


@checked
def spearman(x: Float[Array, " n"], y: Float[Array, " n"], **options) -> Estimate:
    """Spearman's rank correlation with its bootstrap interval; `options` are those of `bootstrap`.

    A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> x = np.arange(30.0)
        >>> round(lejax.populations.spearman(x, np.exp(x)).value, 6)
        1.0

    Spearman, Am. J. Psychol. 15 (1904).
    """
    return bootstrap(spearman_statistic, x, y, **options)


@checked
def r_squared(prediction: Float[Array, " n"], truth: Float[Array, " n"], **options) -> Estimate:
    r"""The share of the variance that a prediction explains, with its bootstrap interval.

    $$R^2 = 1 - \frac{\sum_j (y_j - \hat y_j)^2}{\sum_j (y_j - \bar y)^2}$$

    **Returns:** an `Estimate`; negative where the mean would have been the better prediction.
    A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> truth = np.arange(30.0)
        >>> lejax.populations.r_squared(truth, truth).value
        1.0
    """
    return bootstrap(r_squared_statistic, prediction, truth, **options)


@checked
def pearson_statistic(x: Float[Array, "*m n"], y: Float[Array, "*m n"], axis: int = -1):
    """Pearson's correlation of the last axis, for `bootstrap`. A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> x = np.array([1.0, 2.0, 4.0])
        >>> print(round(lejax.populations.pearson_statistic(x, x**2), 2))
        0.99
    """
    check_concrete("pearson_statistic", x, y)
    a, b = (v - np.mean(v, axis=axis, keepdims=True) for v in _like("x", x, "y", y, axis))
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = np.sqrt(np.sum(a**2, axis=axis) * np.sum(b**2, axis=axis))
        return np.sum(a * b, axis=axis) / norm


@checked
def spearman_statistic(x: Float[Array, "*m n"], y: Float[Array, "*m n"], axis: int = -1):
    """Spearman's rank correlation of the last axis, for `bootstrap`. A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> x = np.array([1.0, 2.0, 4.0])
        >>> print(round(lejax.populations.spearman_statistic(x, x**2), 2))
        1.0
    """
    check_concrete("spearman_statistic", x, y)
    values = _like("x", x, "y", y, axis)
    ranks = (scipy.stats.rankdata(value, axis=axis) for value in values)
    return pearson_statistic(*ranks, axis=axis)


@checked
def r_squared_statistic(
    prediction: Float[Array, "*m n"], truth: Float[Array, "*m n"], axis: int = -1
):
    """$R^2$ of a prediction of the last axis, for `bootstrap`. A function of the host: it cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> x = np.array([1.0, 2.0, 4.0])
        >>> print(round(lejax.populations.r_squared_statistic(x, x**2), 2))
        -0.17
    """
    check_concrete("r_squared_statistic", prediction, truth)
    said, true = _like("prediction", prediction, "truth", truth, axis)
    center = np.mean(true, axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sum((true - said) ** 2, axis=axis)
        return 1 - error / np.sum((true - center) ** 2, axis=axis)


def _like(name, first, other_name, second, axis):
    """Two arrays of the same length along an axis that they have."""
    first, second = np.asarray(first), np.asarray(second)
    if not -first.ndim <= axis < first.ndim:
        raise ValueError(f"{name} has shape {first.shape}, in which there is no axis {axis}.")
    if first.shape != second.shape:
        raise ValueError(
            f"{name} and {other_name} must have one shape, got {first.shape} and {second.shape}."
        )
    return first, second


def _vector(sample: Float[Array, " n"]) -> Float[np.ndarray, " n"]:
    check_concrete("bootstrap", sample)
    vector = np.asarray(sample, float)
    if vector.ndim != 1:
        raise ValueError(f"samples must be vectors, got shape {vector.shape}.")
    if not np.all(np.isfinite(vector)):
        raise ValueError("samples must be finite: leave out the networks that are not.")
    return vector
