"""Splits of networks into training, validation and test."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count


class Split(eqx.Module):
    """Three disjoint sets of networks: to learn from, to choose by, to judge on. Masks of length n."""

    training: Bool[Array, " n"]
    validation: Bool[Array, " n"]
    test: Bool[Array, " n"]


@checked
def folds(key: PRNGKeyArray, num_networks: int, *, num_folds: int = 5) -> Split:
    """Splits for cross-validation: every network is in the test set of exactly one fold.

    **Arguments:** `num_networks` n; `num_folds` F, at least 3. The validation set of a fold is the test set of the next.

    **Returns:** a `Split` whose masks are (F, n). A network is one row, so none is on both sides.

    !!! example

        >>> import jax, lejax
        >>> splits = lejax.populations.folds(jax.random.key(0), 20)
        >>> splits.test.sum(axis=1), splits.training.sum(axis=1)
        (Array([4, 4, 4, 4, 4], dtype=...), Array([12, 12, 12, 12, 12], dtype=...))
    """
    num_folds = check_count("num_folds", num_folds, 3)
    num_networks = check_count("num_networks", num_networks, num_folds)
    place = jr.permutation(key, jnp.arange(num_networks) % num_folds)
    number = jnp.arange(num_folds)[:, None]
    test = place[None] == number
    validation = place[None] == (number + 1) % num_folds
    return Split(~(test | validation), validation, test)
