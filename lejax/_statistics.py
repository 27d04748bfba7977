"""Block means: the lengths of blocks, sums that do not drift, standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree


def block_lengths(num_steps: int, num_blocks: int) -> np.ndarray:
    """The lengths of `num_blocks` consecutive blocks that fill `num_steps`, the longer ones first."""
    base, longer = divmod(num_steps, num_blocks)
    return np.repeat([base + 1, base], [longer, num_blocks - longer])


def add_compensated(
    total: PyTree[Array],
    compensation: PyTree[Array] | None,
    term: PyTree[Array],
    restart: Bool[Array, ""] | bool = False,
) -> tuple[PyTree[Array], PyTree[Array] | None]:
    """One step of a sum, Kahan's if there is a `compensation`; `restart` forgets what was summed before.

    Infinite terms pass through.
    """
    total = jax.tree.map(lambda x: jnp.where(restart, 0, x), total)
    if compensation is None:
        return jax.tree.map(jnp.add, total, term), None
    corrected = jax.tree.map(lambda x, c: x - jnp.where(restart, 0, c), term, compensation)
    new = jax.tree.map(jnp.add, total, corrected)

    def lost_digits(new, total, corrected):
        lost = jax.lax.stop_gradient((new - total) - corrected)
        return jnp.where(jnp.isfinite(new), lost, 0)

    return new, jax.tree.map(lost_digits, new, total, corrected)


def weighted_mean(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> Float[Array, " k"]:
    """Mean over blocks, weighted by their lengths. -inf stays -inf, except in a block of weight 0."""
    share = (weights / jnp.sum(weights))[:, None]
    return jnp.sum(jnp.where(share > 0, values * share, 0), axis=0)


def standard_error(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> Float[Array, " k"]:
    """Standard error of the weighted mean of independent blocks whose variance falls as 1/length.

    Blocks of weight 0 do not count. NaN with fewer than 2 blocks and where the mean is infinite.
    """
    num_blocks = jnp.sum(weights > 0)
    mean = weighted_mean(values, weights)
    finite = jnp.isfinite(mean) & (num_blocks > 1)
    variance = weighted_mean(
        jnp.where(finite[None], values - jnp.where(finite, mean, 0)[None], 0) ** 2, weights
    )
    positive = finite & (variance > 0)
    root = jnp.sqrt(
        jnp.where(positive, variance, 1) / jnp.maximum(num_blocks - 1, 1).astype(values.dtype)
    )
    return jnp.where(positive, root, jnp.where(finite, 0, jnp.nan))
