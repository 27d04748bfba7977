"""Choice among networks early in training: ridge regression on the ranks of their final loss."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_types import NUMBERS, check_array
from .._core.closures import compiled
from ._autoencoder import Scaling


# Shares of a group of features beside those of the others, and strengths of the penalty, that are tried.
SHARES = (0.0, 0.1, 1.0)
PENALTIES = tuple(float(10.0**power) for power in np.arange(-4, 4.5, 0.5))


class NetworkSelector(eqx.Module):
    r"""Predict from early features of a network the rank of its final loss: the smaller, the better the network.

    `fit_selector` makes it. A call maps the features of one network, a pytree of vectors (f,), to the predicted rank
    (); `jax.vmap` maps a batch. It is $+\infty$ if a feature is NaN or infinite: a network that has diverged is the
    worst.

    **Fields:**

    - `weights`: pytree of vectors (f,), the weights of the standardized features; 0 in a group that is not used.
    - `offset`: the mean rank of the networks that it learned from.
    - `penalty`: the strength of the penalty.
    - `shares`: pytree of numbers, the share that each group of features has beside the others: 0, 0.1 or 1.
    - `error`: root mean square error of the ranks of networks that were left out one at a time. It is the least of all
      strengths and shares, so a little too small; it is 0.29 where nothing but the mean rank is predicted.
    - `scalings`: pytree of the mean and standard deviation of each feature over the networks that it learned from.
    - `num_networks`: how many networks it learned from: those that are trained and whose features are finite.

    **Raises:**

    - `ValueError`: if the features have other shapes than those of one network in the fit.
    """

    weights: PyTree[Float[Array, " f"]]
    offset: Float[Array, ""]
    penalty: Float[Array, ""]
    shares: PyTree[Float[Array, ""]]
    error: Float[Array, ""]
    scalings: PyTree[Scaling]
    num_networks: Int[Array, ""]

    @jax.default_matmul_precision("highest")
    def __call__(self, features: PyTree[Float[Array, " f"]]) -> Float[Array, ""]:
        structure = jtu.tree_structure(self.weights)
        given = jtu.tree_leaves(features)
        expected = [x.shape for x in jtu.tree_leaves(self.weights)]
        found = [jnp.shape(x) for x in given]
        if jtu.tree_structure(features) != structure or found != expected:
            raise ValueError(
                f"features must be those of one network, of shapes {expected} as in the fit, got {found}; "
                "use jax.vmap for a batch."
            )
        scalings = jtu.tree_leaves(self.scalings, is_leaf=lambda x: isinstance(x, Scaling))
        is_sound = jnp.array(True)
        score = self.offset
        for x, scaling, weights in zip(given, scalings, jtu.tree_leaves(self.weights), strict=True):
            x = jnp.asarray(x, weights.dtype)
            is_sound &= jnp.all(jnp.isfinite(x))
            score += scaling(jnp.where(jnp.isfinite(x), x, scaling.mean)) @ weights
        return jnp.where(is_sound, score, jnp.inf)


@checked
def fit_selector(
    features: PyTree[Float[Array, "n f"]],
    final_loss: Float[Array, " n"],
    *,
    is_trained: Bool[Array, " n"] | None = None,
) -> NetworkSelector:
    r"""Learn from networks that were trained to the end which early features tell a small final loss.

    $$\frac{1}{n} \sum_{i=1}^{n} \Bigl(r_i - b - \sum_g \sqrt{s_g / f_g}\; w_g \cdot x_{ig}\Bigr)^2
    + \mu \sum_g |w_g|^2$$

    $r_i$ is the rank of the final loss of network i among the networks that are trained, from 0, the least loss, to 1.
    $x_{ig}$ are the $f_g$ features of group g, standardized. Ranks do not change if one network ends with a huge loss.
    The strength $\mu$ and the share $s_g$ of each group are those with the least error of ranks that are left out one
    at a time, in closed form: 17 strengths from 1e-4 to 1e4, and shares 0, 0.1 and 1. A group that does not help has
    the share 0.

    **Arguments:**

    - `features`: pytree of arrays (n, f), one row a network. Each array is a group of features with a share of its
      own, for example `{"loss": jnp.log(validation_loss[:, 1:4]), "spectrum": exponents}`. Give logarithms of losses,
      beside them their ranks where many networks still stand on one plateau, and exponents without $-\infty$ and of
      one length; see `bound_lost` and `resample_spectrum`. Hyperparameters and the latent code of a
      `SpectrumAutoencoder` are features as well.
    - `final_loss`: (n,), in any unit, since only its order counts. NaN, a network that diverged, ranks as the worst: a
      network that was not trained is to be left out by `is_trained`.
    - `is_trained`: (n,), the networks to learn from, whose `final_loss` is known; all by default. Other rows have no
      influence, so that folds run under one `jax.vmap`.

    **Returns:** a `NetworkSelector`. Networks with NaN or infinite features are left out of the fit, and have the
    predicted rank $+\infty$.

    **Raises:**

    - `TypeError`: if a feature is no array of real numbers.
    - `ValueError`: if shapes do not match, fewer than 3 trained networks have finite features, or all of them have a
      final loss of NaN. Under `jit` and `vmap` the predicted ranks and `error` are NaN in the last two cases.

    **Numerics:** one compiled program for each shape. The cost is that of $3^g - 1$ singular value decompositions of
    the n x f standardized features for g groups: give at most four. Derivatives are those at the chosen strength and
    shares.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> keys = jax.random.split(jax.random.key(0))
        >>> early, spectra = jax.random.normal(keys[0], (60, 2)), jax.random.normal(keys[1], (60, 8))
        >>> final_loss = jnp.exp(early[:, 1] + spectra[:, 0])
        >>> features = {"loss": early, "spectrum": spectra}
        >>> selector = lejax.populations.fit_selector(features, final_loss, is_trained=jnp.arange(60) < 30)
        >>> predicted = jax.vmap(selector)(features)[30:]
        >>> bool(jnp.corrcoef(predicted, jnp.log(final_loss[30:]))[0, 1] > 0.8)
        True
        >>> folds = jnp.arange(60) % 3 != jnp.arange(3)[:, None]  # each leaves a third out
        >>> fit = lambda fold: lejax.populations.fit_selector(features, final_loss, is_trained=fold)
        >>> jax.vmap(fit)(folds).num_networks
        Array([40, 40, 40], dtype=...)

    Hoerl & Kennard, Technometrics 12 (1970); leave-one-out errors: Allen, Technometrics 16 (1974).
    """
    named, structure = jtu.tree_flatten_with_path(features)
    names = [f"features{jtu.keystr(path)}" for path, _ in named]
    groups = [
        check_array(name, x, NUMBERS - {"c"}) for name, (_, x) in zip(names, named, strict=True)
    ]
    if not groups:
        raise ValueError("features must hold at least one array (n, f), got none.")
    final_loss = jnp.asarray(final_loss)
    if final_loss.ndim != 1:
        raise ValueError(f"final_loss must have shape (n,), got {final_loss.shape}.")
    with jax.numpy_dtype_promotion("standard"):  # groups of several types are welcome
        dtype = jnp.promote_types(jnp.result_type(*groups, float), jnp.float32)
    groups = [jnp.asarray(x, dtype) for x in groups]
    for name, x in zip(names, groups, strict=True):
        if x.ndim != 2 or x.shape[0] != final_loss.size or x.shape[1] == 0:
            raise ValueError(
                f"{name} must be an array (n, f) with one row for each of the {final_loss.size} "
                f"final losses, got shape {x.shape}."
            )
    is_trained = jnp.ones(final_loss.shape, bool) if is_trained is None else jnp.asarray(is_trained)
    if is_trained.shape != final_loss.shape:
        raise ValueError(
            f"is_trained must have one entry for each of the {final_loss.size} final losses, "
            f"got shape {is_trained.shape}."
        )
    for x in groups:
        is_trained = is_trained & jnp.all(jnp.isfinite(x), axis=1)
    if not is_traced(is_trained) and jnp.sum(is_trained) < 3:
        raise ValueError(
            f"at least 3 trained networks must have finite features, got {int(jnp.sum(is_trained))}."
        )
    if not is_traced((is_trained, final_loss)) and jnp.all(jnp.isnan(final_loss[is_trained])):
        raise ValueError("final_loss is NaN for all trained networks: there is nothing to learn.")
    weights, scalings, shares, offset, penalty, error = _fit(groups, final_loss, is_trained)
    weights, shares, scalings = (
        jtu.tree_unflatten(structure, x) for x in (weights, shares, scalings)
    )
    count = jnp.sum(is_trained)
    return NetworkSelector(weights, offset, penalty, shares, error, scalings, count)


@compiled
def _fit(groups, final_loss, is_trained):
    dtype = groups[0].dtype
    scalings = [Scaling(x, is_trained) for x in groups]
    rows = is_trained[:, None]
    groups = [
        jnp.where(rows, jax.vmap(scaling)(jnp.where(rows, x, 0)), 0)
        for x, scaling in zip(groups, scalings, strict=True)
    ]
    target = jnp.where(is_trained, rank(final_loss, is_trained), 0).astype(dtype)
    count = jnp.sum(is_trained).astype(dtype)
    is_enough = (count >= 3) & jnp.any(is_trained & ~jnp.isnan(final_loss))
    offset = jnp.where(is_enough, jnp.sum(target) / count, jnp.nan)
    target = jnp.where(is_trained, target - offset, 0)
    penalties = jnp.array(PENALTIES, dtype)

    def leave_one_out(shares):
        """The mean square error of the ranks left out, for each penalty."""
        # The choice has no derivative, and that of a singular value decomposition fails at equal singular values.
        x = jax.lax.stop_gradient(_join(groups, shares))
        left, values, _ = jnp.linalg.svd(x, full_matrices=False)

        def error(penalty):
            kept = values**2 / (values**2 + count * penalty)
            residual = target - left @ (kept * (left.T @ target))
            leverage = 1 / count + left**2 @ kept
            # With a penalty leverages are below 1, up to rounding.
            residual = residual / jnp.maximum(1 - leverage, 10 * jnp.finfo(dtype).eps)
            return jnp.sum(jnp.where(is_trained, residual, 0) ** 2) / count

        return jax.lax.map(error, penalties)

    candidates = [shares for shares in itertools.product(SHARES, repeat=len(groups)) if any(shares)]
    candidates = jnp.array(candidates, dtype)
    errors = jax.lax.map(leave_one_out, candidates).ravel()
    best = jnp.argmin(errors)
    shares, penalty = candidates[best // penalties.size], penalties[best % penalties.size]
    x = _join(groups, shares)
    gram = x.T @ x + count * penalty * jnp.eye(x.shape[1], dtype=dtype)
    joined = jax.scipy.linalg.solve(gram, x.T @ target, assume_a="pos")
    ends = np.cumsum([x.shape[1] for x in groups])
    weights = [
        part * jnp.sqrt(share / part.size)
        for part, share in zip(jnp.split(joined, ends[:-1]), shares, strict=True)
    ]
    return weights, scalings, list(shares), offset, penalty, jnp.sqrt(errors[best])


def _join(groups, shares):
    """The features (n, f) of all groups, each group with a total variance equal to its share."""
    parts = [x * jnp.sqrt(s / x.shape[1]) for x, s in zip(groups, shares, strict=True)]
    return jnp.concatenate(parts, axis=1)


def rank(values: Float[Array, " n"], is_selected: Bool[Array, " n"]) -> Float[Array, " n"]:
    """Ranks from 0 to 1 among the selected values; ties share their mean rank, and NaN is the largest."""
    values = jnp.where(is_selected & ~jnp.isnan(values), values, jnp.inf)
    ordered = jnp.sort(values)
    below = jnp.searchsorted(ordered, values, side="left")
    count = jnp.sum(is_selected, dtype=below.dtype)
    # The values that are not selected stand at the end.
    up_to = jnp.minimum(jnp.searchsorted(ordered, values, side="right"), count)
    return (below + up_to - 1).astype(float) / (2 * jnp.maximum(count - 1, 1)).astype(float)
