"""What a latent code looks like: its principal components, and a line between good networks and bad."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_finite, check_positive
from ._regression import Scaling


class PrincipalComponents(eqx.Module):
    """The m leading principal components of rows in k dimensions. A call maps (k,) to (m,).

    **Fields:**

    - `axes` (m, k): Orthonormal rows, the direction of the largest variance first; the largest entry of each is
        positive.
    """

    center: Float[Array, " k"]
    axes: Float[Array, "m k"]
    variances: Float[Array, " m"]
    total_variance: Float[Array, ""]

    def __call__(self, code: Float[Array, " k"]) -> Float[Array, " m"]:
        return self.axes @ (code - self.center)


@checked
def principal_components(
    codes: Float[Array, "n k"], num_components: int = 2
) -> PrincipalComponents:
    """The directions along which latent codes (or spectra) vary most.

    **Arguments:** `codes` (n, k), n at least 2; `num_components` m, at most the smaller of n and k.

    **Returns:** `PrincipalComponents`; variances have n - 1 in the denominator.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> line = jnp.arange(5.0)[:, None] * jnp.array([3.0, 4.0])
        >>> found = lejax.populations.principal_components(line, 1)
        >>> print(found.axes.round(2), found.variances / found.total_variance)
        [[0.6 0.8]] [1.]

    Pearson, Philosophical Magazine 2 (1901).
    """
    codes = check_finite(
        "codes", jnp.asarray(codes, np.promote_types(jnp.result_type(codes), np.float32))
    )
    if codes.ndim != 2 or codes.shape[0] < 2:
        raise ValueError(f"codes must be (n, k) with n of at least 2, got {codes.shape}.")
    num_components = check_count("num_components", num_components, 1)
    if num_components > min(codes.shape):
        raise ValueError(
            f"num_components is {num_components}, but codes of shape {codes.shape} have at most {min(codes.shape)}."
        )
    center = jnp.mean(codes, axis=0)
    _, values, rows = jnp.linalg.svd(codes - center[None], full_matrices=False)
    axes = rows[:num_components]
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=1)[:, None], axis=1)
    variances = values**2 / (codes.shape[0] - 1)
    axes = axes * jnp.where(largest < 0, -1, 1)
    return PrincipalComponents(center, axes, variances[:num_components], jnp.sum(variances))


class LinearClassifier(eqx.Module):
    r"""$P(\mathrm{good}) = \sigma(w \cdot z + b)$ of the standardized code z. A call maps (k,) to the probability."""

    scaling: Scaling
    weights: Float[Array, " k"]
    intercept: Float[Array, ""]

    def __call__(self, code: Float[Array, " k"]) -> Float[Array, ""]:
        return jax.nn.sigmoid(self.scaling(code) @ self.weights + self.intercept)


@checked
def fit_classifier(
    codes: Float[Array, "n k"],
    is_good: Bool[Array, " n"],
    *,
    is_used: Bool[Array, " n"] | None = None,
    penalty: float | Float[Array, ""] = 1e-2,
) -> LinearClassifier:
    r"""Logistic regression of good networks against bad ones.

    $$\min_{w, b}\; -\frac{1}{n} \sum_j \log P(g_j) + \frac{\alpha}{2} |w|^2$$

    on standardized codes, by 30 steps of Newton's method, halved where they would not descend.

    **Arguments:** `codes` (n, k); `is_good` (n,); `is_used` (n,), the rows to learn from, all by default; `penalty`
    $\alpha$, positive, without which separable classes have no finite solution.

    **Returns:** a `LinearClassifier`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> codes = jnp.linspace(-1, 1, 20)[:, None]
        >>> classifier = lejax.populations.fit_classifier(codes, codes[:, 0] > 0)
        >>> bool(classifier(jnp.array([0.5])) > 0.9)
        True
    """
    codes = jnp.asarray(codes, np.promote_types(jnp.result_type(codes), np.float32))
    penalty = check_positive("penalty", penalty)
    if codes.ndim != 2 or jnp.shape(is_good) != codes.shape[:1]:
        raise ValueError(
            f"codes must be (n, k) and is_good (n,), got {codes.shape} and {jnp.shape(is_good)}."
        )
    is_used = jnp.ones(codes.shape[0], bool) if is_used is None else jnp.asarray(is_used)
    if is_used.shape != codes.shape[:1]:
        raise ValueError(f"is_used must be ({codes.shape[0]},) as is_good, got {is_used.shape}.")
    if not is_traced((codes, is_used)):
        if not bool(jnp.any(is_used)):
            raise ValueError("is_used leaves no row to learn from.")
        check_finite("codes", codes[is_used])
    codes = jnp.where(is_used[:, None], codes, 0)  # what is not used may be no number
    scaling = Scaling(codes, is_used)
    z = jax.vmap(scaling)(codes)
    z = jnp.concatenate([z, jnp.ones((z.shape[0], 1), z.dtype)], axis=1)
    weights = is_used.astype(z.dtype) / jnp.sum(is_used).astype(z.dtype)
    target = jnp.asarray(is_good).astype(z.dtype)
    shrink = jnp.asarray(penalty, z.dtype) * jnp.ones(z.shape[1], z.dtype).at[-1].set(0)
    # The intercept needs no penalty unless all classes are one.
    floor = 1e-8 * jnp.eye(z.shape[1], dtype=z.dtype)

    def loss(w):
        odds = z @ w
        return weights @ (jax.nn.softplus(odds) - target * odds) + 0.5 * shrink @ w**2

    def newton(_, w):
        p = jax.nn.sigmoid(z @ w)
        gradient = z.T @ (weights * (p - target)) + shrink * w
        hessian = (z * (weights * p * (1 - p))[:, None]).T @ z + jnp.diag(shrink) + floor
        step = jnp.linalg.solve(hessian, gradient)
        sizes = 0.5 ** jnp.arange(8.0, dtype=z.dtype)
        tried = jax.vmap(lambda size: loss(w - size * step))(sizes)
        best = jnp.argmin(tried)
        return jnp.where(tried[best] < loss(w), w - sizes[best] * step, w)

    w = jax.lax.fori_loop(0, 30, newton, jnp.zeros_like(z, shape=z.shape[1]))
    return LinearClassifier(scaling, w[:-1], w[-1])
