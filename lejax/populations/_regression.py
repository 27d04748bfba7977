"""Ways to predict a number from features, each judged by networks it did not see."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_values import check_numbers
from ._split import Split


class Regressor(eqx.Module):
    """A way to learn a function of features (k,) from n pairs. Its fit runs under `jit` and `vmap`."""

    @abc.abstractmethod
    def fit(
        self,
        features: Float[Array, "n k"],
        targets: Float[Array, " n"],
        split: Split,
        *,
        key: PRNGKeyArray,
    ) -> Callable[[Float[Array, " k"]], Float[Array, ""]]:
        """The learned function, from rows of `split.training`; choices are made on those of `split.validation`."""
        raise NotImplementedError


class Scaling(eqx.Module):
    """Center and spread of columns over some rows."""

    center: Float[Array, " *k"]
    spread: Float[Array, " *k"]

    def __init__(self, values: Float[Array, "n *k"], is_used: Array):
        weights = is_used.astype(values.dtype) / jnp.sum(is_used).astype(values.dtype)
        # What is not used may be no number.
        values = jnp.where(jnp.expand_dims(is_used, tuple(range(1, values.ndim))), values, 0)
        self.center = jnp.tensordot(weights, values, axes=1)
        variance = jnp.tensordot(weights, (values - self.center[None]) ** 2, axes=1)
        # A column that varies by no more than rounding says nothing.
        rounding = 10 * float(jnp.finfo(values.dtype).eps) * jnp.abs(self.center)
        varies = variance > rounding**2
        self.spread = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1)

    def __call__(self, value: Float[Array, " *k"]) -> Float[Array, " *k"]:
        return (value - self.center) / self.spread

    def undo(self, value: Float[Array, " *k"]) -> Float[Array, " *k"]:
        return value * self.spread + self.center


class LinearModel(eqx.Module):
    r"""$\hat y = w \cdot z + b$ of the standardized features z."""

    scaling: Scaling
    weights: Float[Array, " k"]
    intercept: Float[Array, ""]

    def __call__(self, features: Float[Array, " k"]) -> Float[Array, ""]:
        return self.scaling(features) @ self.weights + self.intercept


class Ridge(Regressor):
    r"""Linear regression with a penalty, $\sum_n (y_n - w \cdot z_n - b)^2 + \alpha N |w|^2$ on standardized features.

    **Arguments:** `penalties`, the $\alpha$ to choose from: the one with the least squared error on the validation
    rows. With one feature it is linear regression, but for a small shrinkage.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> x = jax.random.normal(jax.random.key(0), (60, 3))
        >>> split = jax.tree.map(lambda m: m[0], lejax.populations.folds(jax.random.key(1), 60))
        >>> model = lejax.populations.Ridge().fit(x, x[:, 0], split, key=jax.random.key(2))
        >>> print(model(jnp.array([2.0, 0.0, 0.0])).round(2))
        2.0

    Hoerl & Kennard, Technometrics 12 (1970).
    """

    penalties: tuple[float, ...] = eqx.field(
        static=True, default=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    )

    def __check_init__(self):
        check_numbers("penalties", self.penalties)

    def fit(self, features, targets, split, *, key):
        scaling = Scaling(features, split.training)
        z = jax.vmap(scaling)(features)
        used = split.training.astype(z.dtype) / jnp.sum(split.training).astype(z.dtype)
        intercept = used @ targets
        gram = (z * used[:, None]).T @ z
        moment = (z * used[:, None]).T @ (targets - intercept)
        eye = jnp.eye(z.shape[1], dtype=z.dtype)

        def solve(penalty):
            weights = jnp.linalg.solve(gram + penalty * eye, moment)
            errors = (z @ weights + intercept - targets) ** 2
            return weights, jnp.sum(jnp.where(split.validation, errors, 0))

        weights, errors = jax.vmap(solve)(jnp.array(self.penalties, z.dtype))
        return LinearModel(scaling, weights[jnp.argmin(errors)], intercept)
