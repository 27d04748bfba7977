"""Means over blocks of a run: lengths of blocks, compensated sums, standard errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree


def block_lengths(num_steps: int, num_blocks: int) -> np.ndarray:
    """The lengths of `num_blocks` consecutive blocks of `num_steps` in all, the longer ones first."""
    base, longer = divmod(num_steps, num_blocks)
    return np.repeat([base + 1, base], [longer, num_blocks - longer])


def add_compensated(
    total: PyTree[Array],
    compensation: PyTree[Array] | None,
    term: PyTree[Array],
    restart: Bool[Array, ""] | bool = False,
) -> tuple[PyTree[Array], PyTree[Array] | None]:
    """Total and compensation after one more term: Kahan summation, or plain summation without a `compensation`.

    `restart` drops the earlier terms. Infinite terms make the total infinite.
    """
    if restart is not False:
        total, compensation = jax.tree.map(
            lambda x: jnp.where(restart, 0, x), (total, compensation)
        )
    if compensation is None:
        return jax.tree.map(jnp.add, total, term), None
    corrected = jax.tree.map(jnp.subtract, term, compensation)
    new = jax.tree.map(jnp.add, total, corrected)

    def lost_digits(new, total, corrected):
        lost = jax.lax.stop_gradient((new - total) - corrected)
        return jnp.where(jnp.isfinite(new), lost, 0)

    return new, jax.tree.map(lost_digits, new, total, corrected)


def block_sums(
    values: Float[Array, "n ..."], counts: Int[np.ndarray, " b"]
) -> Float[Array, "b ..."]:
    """The sums over consecutive blocks of so many values each; few neighbors differ in their count.

    XLA sums along an axis in a tree, which keeps the digits of float32; a scatter adds one number after the other.
    """
    sums, start = [], 0
    for group in np.split(counts, np.flatnonzero(np.diff(counts)) + 1):
        stop = start + int(group.sum())
        blocks = values[start:stop].reshape(len(group), int(group[0]), *values.shape[1:])
        sums.append(jnp.sum(blocks, axis=1))
        start = stop
    return jnp.concatenate(sums)


def weighted_mean(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> Float[Array, " k"]:
    """The mean over blocks, weighted by their lengths; -inf in a block of positive weight makes it -inf."""
    share = (weights / jnp.sum(weights))[:, None]
    return jnp.sum(jnp.where(share > 0, values * share, 0), axis=0)


class BlockError(NamedTuple):
    """The standard error of a mean over blocks.

    **Fields:**

    - `error`: (k,), the standard error.
    - `is_lower_bound`: (k,), whether the error still grew when too few blocks were left to join.
    """

    error: Float[Array, " k"]
    is_lower_bound: Bool[Array, " k"]


class Level(NamedTuple):
    r"""Blocks of one length. The squared error of the mean is $\sum_b d_b^2 / (n - 1)$.

    **Fields:**

    - `deviations`: (b, k), $d_b$, the scaled deviation of each block from the mean, 0 for an empty block.
    - `num_blocks`: n, the number of blocks that are not empty.
    """

    deviations: Float[Array, "b k"]
    num_blocks: Int[Array, ""] | int


_MIN_BLOCKS = 4  # an error from fewer blocks is too uncertain


def list_doublings(num_blocks: int) -> list[int]:
    """How often blocks are joined in pairs: 0 times, and as often as leaves 4 to 64 blocks."""
    levels, doublings = [0], 1
    while -(-num_blocks // 2**doublings) >= _MIN_BLOCKS:
        if -(-num_blocks // 2**doublings) <= 64:
            levels.append(doublings)
        doublings += 1
    return levels


def estimate_error(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> BlockError:
    """The standard error of the weighted mean of blocks whose variance is proportional to 1 / length.

    Blocks are joined in pairs, see `largest_error`. Blocks of weight 0 stand last and do not count. The error is NaN
    for fewer than 2 blocks and where the mean is infinite.
    """
    mean = weighted_mean(values, weights)
    finite = jnp.isfinite(mean)
    deviations = jnp.where(finite[None], values - jnp.where(finite, mean, 0)[None], 0)
    shares = weights / jnp.sum(weights)
    weighted = shares[:, None] * deviations

    def make_level(doublings):
        sums, share = _join(weighted, 2**doublings), _join(shares, 2**doublings)
        # The mean deviation of a block times the root of its share.
        return Level(sums / jnp.sqrt(jnp.where(share > 0, share, 1))[:, None], jnp.sum(share > 0))

    error, is_bound = largest_error(list(map(make_level, list_doublings(values.shape[0]))))
    return BlockError(jnp.where(finite, error, jnp.nan), is_bound & finite)


def standard_error(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> Float[Array, " k"]:
    """The `error` of `estimate_error`."""
    return estimate_error(values, weights).error


def largest_error(levels: Sequence[Level]) -> BlockError:
    r"""The error of blocks so long that joining neighbors no longer increases it.

    Blocks shorter than the memory of the dynamics make errors too small. If joining increases the error e of n blocks
    by more than 1.8 of its own standard deviations, $e / \sqrt{2(n-1)}$, the new error replaces the old one, as long as
    4 blocks are left. The error is a lower bound if the last joining increased it, or if neighbors are correlated by
    more than chance (a correlation r above $2 / \sqrt{n}$ for n >= 8 blocks) and so much that the error of longer
    blocks, $e \sqrt{(1+r)/(1-r)}$ for exponentially decaying correlations, would be larger by 30 %: then the largest
    error of all is the best bound. For 20 independent normal blocks the error grows by chance in 3 % of cases, and its
    root mean square is 1.02 of the true one.

    Flyvbjerg & Petersen, J. Chem. Phys. 91 (1989).
    """
    # All levels in one array, padded by zeros: each operation is compiled once, and none for NumPy's arrays.
    xp = namespace_of(levels[0].deviations)
    most, *shape = levels[0].deviations.shape
    rest = [(0, 0) for _ in shape]
    deviations = xp.stack(
        [xp.pad(level.deviations, [(0, most - len(level.deviations)), *rest]) for level in levels]
    )
    counts = xp.stack([xp.asarray(level.num_blocks, deviations.dtype) for level in levels])
    counts = counts.reshape(-1, *(1 for _ in shape))
    errors = _errors_of_levels(deviations, counts)
    are_enough = np.array([len(level.deviations) >= 2 * _MIN_BLOCKS for level in levels])
    expected = _expected_errors(_as_constant(deviations), _as_constant(errors), counts)
    expected = xp.max(xp.where(are_enough.reshape(counts.shape), expected, 0), axis=0)
    error = largest = errors[0]
    is_growing = xp.zeros(error.shape, bool)
    for joined, count in zip(errors[1:], counts[1:], strict=True):
        enough = count >= _MIN_BLOCKS
        has_grown = joined > error * (1 + 1.8 / xp.sqrt(2 * xp.maximum(count - 1, 1)))
        is_growing = xp.where(enough, has_grown, is_growing)
        error = xp.where(enough & has_grown, joined, error)
        largest = xp.where(enough & (joined > largest), joined, largest)
    is_growing = is_growing | (expected > 1.3 * error)
    return BlockError(xp.where(is_growing, largest, error), is_growing)


def namespace_of(x: Array | np.ndarray) -> Any:
    """The functions for an array: those of `numpy`, which compile nothing, or of `jax.numpy`."""
    return np if isinstance(x, np.ndarray) else jnp


def _as_constant(x: Array | np.ndarray) -> Any:
    return x if isinstance(x, np.ndarray) else jax.lax.stop_gradient(x)


def _errors_of_levels(
    deviations: Float[Array, "l b k"], counts: Float[Array, "l 1"]
) -> Float[Array, "l k"]:
    xp = namespace_of(deviations)
    variance = xp.sum(deviations**2, axis=1)
    positive = (variance > 0) & (counts > 1)
    root = xp.sqrt(xp.where(positive, variance, 1) / xp.maximum(counts - 1, 1))
    none = xp.where((counts > 1) & xp.isfinite(variance), 0, xp.nan)
    return xp.where(positive, root, none)


def _expected_errors(
    deviations: Float[Array, "l b k"], errors: Float[Array, "l k"], counts: Float[Array, "l 1"]
) -> Float[Array, "l k"]:
    """The error of longer blocks that the correlation of neighbors predicts, 0 where the correlation may be chance."""
    xp = namespace_of(deviations)
    squares = xp.sum(deviations**2, axis=1)
    products = xp.sum(deviations[:, 1:] * deviations[:, :-1], axis=1)
    counts = xp.maximum(counts, 1)
    # Deviations from the sample mean have a correlation of about -1 / n.
    correlation = products / xp.where(squares > 0, squares, 1) + 1 / counts
    significant = (correlation**2 * counts > 4) & (correlation > 0) & (counts >= 2 * _MIN_BLOCKS)
    correlation = xp.clip(correlation, 0, 0.98)
    growth = xp.sqrt((1 + correlation) / (1 - correlation))
    return xp.where(significant, errors * growth, 0)


def _join(rows: Float[Array, "b ..."], number: int) -> Float[Array, "c ..."]:
    """Sums of `number` neighbors each, of fewer in the last."""
    missing = jnp.zeros_like(rows, shape=(-rows.shape[0] % number, *rows.shape[1:]))
    return jnp.sum(jnp.concatenate([rows, missing]).reshape(-1, number, *rows.shape[1:]), axis=1)
