"""Block means: the lengths of blocks, sums that do not drift, standard errors."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree


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


class BlockError(NamedTuple):
    """The standard error of a mean over blocks, and whether it says too little.

    **Fields:**

    - `grows` (k,): Whether it had not stopped growing when too few blocks were left to join: then the error is a
        lower bound.
    """

    error: Float[Array, " k"]
    grows: Bool[Array, " k"]


class Level(NamedTuple):
    """Blocks of one length: each one's part in the error of the mean, whose square is the sum of squares / (n - 1).

    **Fields:**

    - `num_blocks`: n, the blocks that hold something.
    """

    parts: Float[Array, "b k"]
    num_blocks: Int[Array, ""] | int


_LEAST_BLOCKS = 4  # of fewer an error is hardly one


def joinings(num_blocks: int) -> list[int]:
    """How often blocks are joined in pairs: not at all, then down to 64 at once, then one by one as long as 4 are left."""
    levels, doublings = [0], 1
    while -(-num_blocks // 2**doublings) >= _LEAST_BLOCKS:
        if -(-num_blocks // 2**doublings) <= 64:
            levels.append(doublings)
        doublings += 1
    return levels


def estimate_error(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> BlockError:
    """Standard error of the weighted mean of blocks whose variance falls as 1/length, joined in pairs as `largest_error` says.

    Blocks of weight 0 do not count; they stand last. The error is NaN with fewer than 2 blocks and where the mean is
    infinite.
    """
    mean = weighted_mean(values, weights)
    finite = jnp.isfinite(mean)
    deviations = jnp.where(finite[None], values - jnp.where(finite, mean, 0)[None], 0)
    shares = weights / jnp.sum(weights)
    weighted = shares[:, None] * deviations

    def level(doublings):
        sums, parts = _join(weighted, 2**doublings), _join(shares, 2**doublings)
        # The mean deviation of a block times the root of its share.
        return Level(sums / jnp.sqrt(jnp.where(parts > 0, parts, 1))[:, None], jnp.sum(parts > 0))

    error, grows = largest_error([level(doublings) for doublings in joinings(values.shape[0])])
    return BlockError(jnp.where(finite, error, jnp.nan), grows & finite)


def standard_error(values: Float[Array, "b k"], weights: Float[Array, " b"]) -> Float[Array, " k"]:
    """The error of `estimate_error`."""
    return estimate_error(values, weights).error


def largest_error(levels: Sequence[Level]) -> BlockError:
    r"""The error to which that of shorter blocks grows when neighbors are joined, as long as 4 blocks are left.

    Blocks shorter than the memory of the dynamics make errors too small. Where joining makes the error e of n blocks larger
    by 1.8 of its own standard deviations, $e / \sqrt{2(n-1)}$, it replaces that of the shorter ones. It has not stopped
    growing if the last joining did so, or if neighbors resemble each other more than by chance (a correlation r above
    $2 / \sqrt{n}$ of 8 blocks or more) and so much that the error of longer blocks, $e \sqrt{(1+r)/(1-r)}$ if
    they forget exponentially, would be larger by 30 %: then the largest of all is the best bound. Of 20 independent
    normal blocks 3 % grow by chance, and the root mean square of the error is 1.02 of the true one.

    Flyvbjerg & Petersen, J. Chem. Phys. 91 (1989).
    """
    # All levels as one array: each operation is compiled once. What a level lacks is zero.
    most, *shape = levels[0].parts.shape
    rest = [(0, 0) for _ in shape]
    parts = jnp.stack(
        [jnp.pad(level.parts, [(0, most - len(level.parts)), *rest]) for level in levels]
    )
    counts = jnp.stack([jnp.asarray(level.num_blocks, parts.dtype) for level in levels])
    counts = counts.reshape(-1, *(1 for _ in shape))
    errors = _errors_of(parts, counts)
    are_enough = np.array([len(level.parts) >= 2 * _LEAST_BLOCKS for level in levels])
    expected = _expected_errors(jax.lax.stop_gradient(parts), errors, counts)
    expected = jnp.max(jnp.where(are_enough.reshape(counts.shape), expected, 0), axis=0)
    error = largest = errors[0]
    grows = jnp.zeros(error.shape, bool)
    for joined, count in zip(errors[1:], counts[1:], strict=True):
        enough = count >= _LEAST_BLOCKS
        grown = joined > error * (1 + 1.8 / jnp.sqrt(2 * jnp.maximum(count - 1, 1)))
        grows = jnp.where(enough, grown, grows)
        error = jnp.where(enough & grown, joined, error)
        largest = jnp.where(enough & (joined > largest), joined, largest)
    grows = grows | (expected > 1.3 * error)
    return BlockError(jnp.where(grows, largest, error), grows)


def _errors_of(parts: Float[Array, "l b k"], counts: Float[Array, "l 1"]) -> Float[Array, "l k"]:
    variance = jnp.sum(parts**2, axis=1)
    positive = (variance > 0) & (counts > 1)
    root = jnp.sqrt(jnp.where(positive, variance, 1) / jnp.maximum(counts - 1, 1))
    none = jnp.where((counts > 1) & jnp.isfinite(variance), 0, jnp.nan)
    return jnp.where(positive, root, none)


def _expected_errors(
    parts: Float[Array, "l b k"], errors: Float[Array, "l k"], counts: Float[Array, "l 1"]
) -> Float[Array, "l k"]:
    """What the correlation of neighbors lets expect of longer blocks, 0 where it may be chance."""
    squares = jnp.sum(parts**2, axis=1)
    products = jnp.sum(parts[:, 1:] * parts[:, :-1], axis=1)
    counts = jnp.maximum(counts, 1)
    # Deviations from a mean of their own are a little opposed to each other.
    correlation = products / jnp.where(squares > 0, squares, 1) + 1 / counts
    known = (correlation**2 * counts > 4) & (correlation > 0) & (counts >= 2 * _LEAST_BLOCKS)
    correlation = jnp.clip(correlation, 0, 0.98)
    growth = jnp.sqrt((1 + correlation) / (1 - correlation))
    return jnp.where(known, jax.lax.stop_gradient(errors) * growth, 0)


def _join(rows: Float[Array, "b ..."], number: int) -> Float[Array, "c ..."]:
    """Sums of so many neighbors; fewer are left for the last."""
    missing = jnp.zeros_like(rows, shape=(-rows.shape[0] % number, *rows.shape[1:]))
    return jnp.sum(jnp.concatenate([rows, missing]).reshape(-1, number, *rows.shape[1:]), axis=1)
