"""The jackknife on arrays: a function of the exponents and its standard error, leaving out one block at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.cell import name_of
from .._core.closures import compiled
from .._core.statistics import (
    Level,
    largest_error,
    list_doublings,
    namespace_of,
    weighted_mean,
)


def leave_one_out(
    function: Callable[[Float[Array, " k"]], PyTree[Array]],
    exponents: Float[Array, " k"],
    block_exponents: Float[Array, "b k"],
    block_steps: Int[Array, " b"],
) -> tuple[PyTree[Array], PyTree[Array]]:
    """The value of `function` at `exponents` and its standard error, NaN with fewer than 2 blocks."""
    try:
        value = jax.tree.map(jnp.asarray, function(exponents))
    except Exception as error:
        raise TypeError(
            f"{name_of(function)} failed on exponents of shape {exponents.shape}. It said: {error}"
        ) from error
    num_blocks = block_exponents.shape[0]
    if num_blocks < 2:
        return value, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), value)
    values = jax.vmap(function)(_exponents_without_blocks(block_exponents, block_steps))
    return value, jax.tree.map(lambda x: _standard_error(x, num_blocks), values)


def _counts(num_blocks: int) -> dict[int, int]:
    """The number of joined blocks of each length, by how often the length was doubled."""
    return {doublings: -(-num_blocks // 2**doublings) for doublings in list_doublings(num_blocks)}


@compiled
def _exponents_without_blocks(
    block_exponents: Float[Array, "b k"], block_steps: Int[Array, " b"]
) -> Float[Array, "n k"]:
    """The mean exponents without each joined block, for the blocks of every length."""
    num_blocks, weights = block_exponents.shape[0], block_steps.astype(block_exponents.dtype)
    are_out = _are_left_out(num_blocks)
    return jax.vmap(lambda out: weighted_mean(block_exponents, jnp.where(out, 0, weights)))(are_out)


def leave_one_out_on_host(
    function: Callable[[np.ndarray], np.ndarray],
    exponents: Float[np.ndarray, " k"],
    block_exponents: Float[np.ndarray, "b k"],
    block_steps: Int[np.ndarray, " b"],
) -> tuple[np.ndarray, np.ndarray]:
    """`leave_one_out` in NumPy, which compiles nothing, for a function that takes many spectra (n, k) at once."""
    value, num_blocks = function(exponents[None])[0], len(block_exponents)
    if num_blocks < 2:
        return value, np.full_like(value, np.nan)
    shares = np.where(_are_left_out(num_blocks), 0, block_steps.astype(block_exponents.dtype))
    shares /= shares.sum(axis=1, keepdims=True)
    # As in `weighted_mean`: -inf in a block that counts makes the mean -inf.
    is_lost = np.isneginf(block_exponents)
    means = shares @ np.where(is_lost, 0, block_exponents)
    means[(shares > 0) @ is_lost] = -np.inf
    return value, _error_of_rows(function(means), num_blocks)


def _are_left_out(num_blocks: int) -> Bool[np.ndarray, "n b"]:
    """Which blocks are left out together, for the joined blocks of every length."""
    counts = _counts(num_blocks)
    doublings = np.repeat(list(counts), list(counts.values()))
    indices = np.concatenate([np.arange(count) for count in counts.values()])
    return np.arange(num_blocks) >> doublings[:, None] == indices[:, None]


@compiled
def _standard_error(values: Float[Array, "n ..."], num_blocks: int) -> Float[Array, "..."]:
    return _error_of_rows(values, num_blocks)


def _error_of_rows(values: Float[Array, "n ..."] | np.ndarray, num_blocks: int) -> Any:
    """The standard error from the values without each joined block, of arrays of JAX or of NumPy."""
    xp = namespace_of(values)
    levels, ends = [], np.cumsum(list(_counts(num_blocks).values()))
    for rows in xp.split(values, ends[:-1]):
        count = rows.shape[0]
        # Subtract the first row: for equal values the deviations are exactly zero, however their mean is rounded.
        shifted = rows - rows[:1]
        deviations = shifted - xp.mean(shifted, axis=0, keepdims=True)
        levels.append(Level((count - 1) / count**0.5 * deviations, count))
    return largest_error(levels).error
