r"""Angles between vectors and between subspaces, participation ratios, violations of domination."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count


@checked
def vector_angles(vectors: Float[Array, "*t d k"]) -> Float[Array, "*t k k"]:
    r"""The angles between the lines along the columns, from 0 to pi / 2.

    $$\theta_{ij} = \arccos \frac{|v_i \cdot v_j|}{|v_i| |v_j|}$$

    **Arguments:**

    - `vectors`: (..., d, k), columns of any length except 0; leading axes are kept.

    **Returns:** (..., k, k), symmetric with a diagonal of 0, in radians.

    **Numerics:** O(d k^2). For angles below 1e-8 (in float64) use `principal_angles`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.vector_angles(jnp.array([[1.0, 1.0], [0.0, 1.0]])).round(4)[0, 1])
        0.7854
    """
    vectors = _check_columns("vectors", vectors)
    unit = vectors / jnp.linalg.norm(vectors, axis=-2, keepdims=True)
    with jax.default_matmul_precision("highest"):
        cosine = jnp.abs(jnp.swapaxes(unit, -1, -2) @ unit)
    diagonal = jnp.eye(vectors.shape[-1], dtype=bool)
    # The derivative of arccos is infinite at 1.
    parallel = diagonal | (cosine >= 1)
    return jnp.where(parallel, 0, jnp.arccos(jnp.where(parallel, 0, cosine)))


@checked
def principal_angles(
    first: Float[Array, "*t d m"], second: Float[Array, "*t d n"]
) -> Float[Array, "*t q"]:
    r"""The principal angles between two subspaces, the smallest first.

    $$\cos \theta_i = \sigma_i(A^\top B), \qquad \sin \theta_i = \sigma_{q + 1 - i}(B - A A^\top B)$$

    with orthonormal bases $A$ and $B$ and singular values $\sigma_i$ in descending order.

    **Arguments:**

    - `first`: (..., d, m), linearly independent columns that span one subspace; leading axes are kept.
    - `second`: (..., d, n), the same for the other subspace, with the same leading axes.

    **Returns:** (..., q), q = min(m, n), angles from 0 to pi / 2 in radians. The first one is 0 if the subspaces share
    a direction: in a hyperbolic splitting its distribution along a trajectory stays away from 0.

    **Raises:**

    - `ValueError`: if the columns of `first` and `second` differ in length, or their leading axes differ.

    **Numerics:** each angle is computed from its sine or its cosine, whichever is more accurate, so that angles of
    1e-12 are correct. O(d (m + n)^2).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> plane, line = jnp.eye(3)[:, :2], jnp.array([[0.0], [1e-9], [1.0]])
        >>> print(lejax.principal_angles(plane, line).round(4))
        [1.5708]

    Bjorck & Golub, Math. Comp. 27 (1973); Knyazev & Argentati, SIAM J. Sci. Comput. 23 (2002).
    """
    first, second = _check_columns("first", first), _check_columns("second", second)
    if first.shape[-2] != second.shape[-2]:
        raise ValueError(
            f"first has columns of {first.shape[-2]} numbers, second of {second.shape[-2]}."
        )
    if first.shape[:-2] != second.shape[:-2]:
        raise ValueError(
            f"first and second must have the same leading axes, got shapes {first.shape} and {second.shape}."
        )
    with jax.default_matmul_precision("highest"):
        a, b = (jnp.linalg.qr(x)[0] for x in (first, second))
        if a.shape[-1] < b.shape[-1]:
            a, b = b, a
        product = jnp.swapaxes(a, -1, -2) @ b
        cosine = jnp.linalg.svd(product, compute_uv=False)
        sine = jnp.linalg.svd(b - a @ product, compute_uv=False)[..., ::-1]
    small = sine < 0.7
    from_sine = jnp.arcsin(jnp.where(small, sine, 0))
    return jnp.where(small, from_sine, jnp.arccos(jnp.where(small, 0, jnp.minimum(cosine, 1))))


@checked
def participation_ratio(vectors: Float[Array, "*t d k"]) -> Float[Array, "*t k"]:
    r"""The number of components that share each column: 1 if it has one component, d if all are equally large.

    $$P_i = \frac{\left(\sum_j v_{ji}^2\right)^2}{\sum_j v_{ji}^4}$$

    **Arguments:**

    - `vectors`: (..., d, k), columns of any length except 0; leading axes are kept.

    **Returns:** (..., k), from 1 to d.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.participation_ratio(jnp.array([[1.0, 0.5], [0.0, 0.5]])))
        [1. 2.]
    """
    square = _check_columns("vectors", vectors) ** 2
    return jnp.sum(square, axis=-2) ** 2 / jnp.sum(square**2, axis=-2)


@checked
def domination_violations(growth: Float[Array, "T k"], window: int) -> Float[Array, "k k"]:
    r"""The share of windows in which a covariant vector with a larger index grows faster.

    $$\nu_{ij} = \Pr\left[\prod_{s < W} \gamma_i(t + s) < \prod_{s < W} \gamma_j(t + s)\right], \qquad i < j$$

    A pair with $\nu_{ij} = 0$ from some W on is dominated: the splitting between the two is uniform. Vectors with
    violations at every W are entangled. Leading vectors that are entangled with each other and dominate all others are
    the physical modes.

    **Arguments:**

    - `growth`: (T, k), factors of at least 0, as in `CovariantVectors`.
    - `window`: W, the steps in each of the T - W + 1 overlapping windows.

    **Returns:** (k, k), shares from 0 to 1 above the diagonal, 0 elsewhere.

    **Raises:**

    - `ValueError`: if `growth` is not (T, k), holds negative or NaN factors, or has fewer than `window` steps.
    - `TypeError`: if `growth` is not real floating point.

    **Numerics:** O(T k^2) comparisons; the sums of logarithms are taken window by window.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> growth = jnp.array([[2.0, 1.0], [1.0, 1.5], [2.0, 1.0], [2.0, 1.0]])
        >>> print(lejax.domination_violations(growth, 1)[0, 1], lejax.domination_violations(growth, 2)[0, 1])
        0.25 0.0

    Yang & Radons, Phys. Rev. Lett. 100 (2008); Takeuchi et al., Phys. Rev. E 84 (2011).
    """
    growth = jnp.asarray(growth)
    if not jnp.issubdtype(growth.dtype, jnp.floating):
        raise TypeError(f"growth must be real floating point, got {growth.dtype}.")
    if not is_traced(growth) and not bool(jnp.all(growth >= 0)):
        raise ValueError("growth must hold factors of at least 0, but some are negative or NaN.")
    window = check_count("window", window, 1)
    if growth.ndim != 2:
        raise ValueError(f"growth must have shape (T, k), got {growth.shape}.")
    if window > growth.shape[0]:
        raise ValueError(f"window is {window} steps, but growth holds {growth.shape[0]}.")
    # Sum window by window: differences of a running sum would lose digits and keep the -inf of a lost direction.
    zero = np.zeros((), growth.dtype)  # a concrete value, by which JAX recognizes a sum
    sums = jax.lax.reduce_window(jnp.log(growth), zero, jax.lax.add, (window, 1), (1, 1), "VALID")
    violated = sums[:, :, None] < sums[:, None, :]
    return jnp.triu(jnp.mean(violated.astype(growth.dtype), axis=0), 1)


def _check_columns(name: str, vectors: Array) -> Float[Array, "*t d k"]:
    vectors = jnp.asarray(vectors)
    if vectors.ndim < 2:
        raise ValueError(
            f"{name} must have shape (..., d, k), one vector a column, got {vectors.shape}."
        )
    return vectors.astype(np.promote_types(vectors.dtype, np.float32))
