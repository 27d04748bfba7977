"""Predictions of networks that were not seen."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.closures import compiled
from ._regression import Regressor
from ._split import folds


@checked
def cross_validate(
    regressor: Regressor,
    features: Float[Array, "n k"],
    targets: Float[Array, " n"],
    *,
    num_folds: int = 5,
    num_repeats: int = 3,
    key: PRNGKeyArray,
) -> Float[Array, "r n"]:
    """Predictions for each network by models that never saw it.

    **Arguments:**

    - `regressor`: `Ridge()`, `Autoencoder()`.
    - `features` (n, k) and `targets` (n,), a row for each network.
    - `num_folds`, `num_repeats`: F and R; each repeat has other folds and another seed. The same key gives all
        regressors the same folds.

    **Returns:** (R, n) predictions. Compare them with the targets repeat by repeat: their mean over the repeats would be
    that of an ensemble.

    **Numerics:** R F fits under one `vmap`.

    **Raises:** `ValueError` for shapes that do not match or values that are not finite.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> x = jax.random.normal(jax.random.key(0), (60, 3))
        >>> predictions = lejax.populations.cross_validate(
        ...     lejax.populations.Ridge(), x, x[:, 0] - x[:, 1], key=jax.random.key(1))
        >>> predictions.shape
        (3, 60)

    Stone, J. R. Stat. Soc. B 36 (1974).
    """
    features, targets = jnp.asarray(features), jnp.asarray(targets)
    if features.ndim != 2 or targets.shape != features.shape[:1]:
        raise ValueError(
            f"features must be (n, k) and targets (n,), got {features.shape} and {targets.shape}."
        )
    for name, value in (("features", features), ("targets", targets)):
        if not is_traced(value) and not bool(jnp.all(jnp.isfinite(value))):
            raise ValueError(f"{name} must be finite: leave out the networks that are not.")
    num_repeats = check_count("num_repeats", num_repeats, 1)
    num_folds = check_count("num_folds", num_folds, 3)
    check_count("the number of networks", features.shape[0], num_folds)
    return _cross_validate(regressor, features, targets, num_folds, num_repeats, key)


@compiled
def _cross_validate(regressor, features, targets, num_folds, num_repeats, key):
    def repeat(key):
        key_folds, key_fit = jr.split(key)
        splits = folds(key_folds, features.shape[0], num_folds=num_folds)

        def predict(split, key):
            model = regressor.fit(features, targets, split, key=key)
            return jnp.where(split.test, jax.vmap(model)(features), 0)

        return jnp.sum(jax.vmap(predict)(splits, jr.split(key_fit, num_folds)), axis=0)

    return jax.vmap(repeat)(jr.split(key, num_repeats))
