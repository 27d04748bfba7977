"""The sums of a long run. Their size does not grow with the run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.statistics import estimate_error, weighted_mean
from .._spectrum.report import Diagnostics, LyapunovSpectrum
from .._spectrum.sums import summarize


class RunningSums(NamedTuple):
    """Sums over the counted steps so far, on the host and in float64 for any precision of the run.

    **Fields:**

    - `growth` (b, k): exponents times steps of each block.
    - `lengths` (b,): counted steps of each block; 0 in blocks that have not begun.
    - `ends` (b,): the counted step at which each block is complete.
    - `rounding_error` (k,): the rounding error times steps.
    - `avoidable_error` (k,): its part that a shorter interval would avoid, times steps.
    - `unresolved` (k,): the orthonormalizations at which a direction was below the resolution of floating point.
    - `num_orthonormalizations`: the orthonormalizations.
    - `longest_interval`: the most steps between two of them.
    - `first_bad_step`: the first step with a non-finite result, counted from the start of the run; -1 if there is none.
    - `dt`: the duration of a step.
    """

    growth: Float[np.ndarray, "b k"]
    lengths: Int[np.ndarray, " b"]
    ends: Int[np.ndarray, " b"]
    rounding_error: Float[np.ndarray, " k"]
    avoidable_error: Float[np.ndarray, " k"]
    unresolved: Int[np.ndarray, " k"]
    num_orthonormalizations: Int[np.ndarray, ""]
    longest_interval: Int[np.ndarray, ""]
    first_bad_step: Int[np.ndarray, ""]
    dt: Float[np.ndarray, ""]


def zero_sums(ends: Int[np.ndarray, " b"], chunk: LyapunovSpectrum) -> RunningSums:
    """The sums before the first counted chunk, with the directions of this chunk."""
    k = len(chunk.exponents)
    return RunningSums(
        growth=np.zeros((len(ends), k)),
        lengths=np.zeros(len(ends), np.int64),
        ends=ends,
        rounding_error=np.zeros(k),
        avoidable_error=np.zeros(k),
        unresolved=np.zeros(k, np.int64),
        num_orthonormalizations=np.asarray(0),
        longest_interval=np.asarray(0),
        first_bad_step=np.asarray(-1),
        dt=np.asarray(chunk.dt),
    )


def add_chunk(sums: RunningSums, chunk: LyapunovSpectrum, start: int) -> RunningSums:
    """The sums after a chunk that began at step `start` of the run.

    A block of the chunk is added to the block of the run that contains its first step.
    """
    steps = np.asarray(chunk.block_steps, np.int64)
    counted = int(sums.lengths.sum())
    first = counted + np.cumsum(steps) - steps
    blocks = np.searchsorted(sums.ends, first, side="right")
    growth, lengths = sums.growth.copy(), sums.lengths.copy()
    np.add.at(growth, blocks, np.asarray(chunk.block_exponents, np.float64) * steps[:, None])
    np.add.at(lengths, blocks, steps)
    diagnostics, count = chunk.diagnostics, steps.sum()
    bad = int(diagnostics.first_bad_step)
    return sums._replace(
        growth=growth,
        lengths=lengths,
        rounding_error=sums.rounding_error + count * np.float64(diagnostics.rounding_error),
        avoidable_error=sums.avoidable_error + count * np.float64(diagnostics.avoidable_error),
        unresolved=sums.unresolved + np.asarray(diagnostics.unresolved),
        num_orthonormalizations=sums.num_orthonormalizations
        + int(diagnostics.num_orthonormalizations),
        longest_interval=np.maximum(
            sums.longest_interval, np.asarray(diagnostics.longest_interval)
        ),
        first_bad_step=np.asarray(-1 if bad < 0 else start + bad),
    )


def merge_full_blocks(sums: RunningSums) -> RunningSums:
    """If every block is complete, join them in pairs, so that half of the blocks are empty."""
    if not np.array_equal(np.cumsum(sums.lengths), sums.ends):
        return sums

    def merge(rows):
        pairs = rows.reshape(-1, 2, *rows.shape[1:]).sum(axis=1)
        return np.concatenate([pairs, np.zeros_like(pairs)])

    return sums._replace(growth=merge(sums.growth), lengths=merge(sums.lengths), ends=2 * sums.ends)


def select_directions(sums: RunningSums, indices: Int[np.ndarray, " k"]) -> RunningSums:
    """The sums of the directions with these indices, in this order."""
    return sums._replace(
        growth=sums.growth[:, indices],
        rounding_error=sums.rounding_error[indices],
        avoidable_error=sums.avoidable_error[indices],
        unresolved=sums.unresolved[indices],
    )


def is_precise(sums: RunningSums, tolerance: float) -> bool:
    """Whether at least half of the blocks are complete and every finite exponent has an error below `tolerance`."""
    complete = np.cumsum(sums.lengths) >= sums.ends
    if np.sum(complete) < len(complete) // 2:
        return False
    blocks, weights = _block_exponents(sums), sums.lengths.astype(sums.dt.dtype)
    exponents, errors = map(np.asarray, _mean_and_error(blocks.astype(weights.dtype), weights))
    return bool(np.all((errors < tolerance) | ~np.isfinite(exponents)))


def report(
    sums: RunningSums, state: PyTree, frame: Float[Array, "d k"], are_together: Bool[Array, "..."]
) -> LyapunovSpectrum:
    """The spectrum over all counted steps; `are_together` marks pairs of directions whose exponents must descend."""
    begun = sums.lengths > 0
    num_steps = int(sums.lengths.sum())
    dtype = sums.dt.dtype
    diagnostics = Diagnostics(
        unresolved=jnp.asarray(sums.unresolved),
        rounding_error=jnp.asarray(sums.rounding_error / num_steps, dtype),
        avoidable_error=jnp.asarray(sums.avoidable_error / num_steps, dtype),
        overlap_bias=jnp.zeros(len(sums.unresolved), dtype),
        num_orthonormalizations=jnp.asarray(sums.num_orthonormalizations),
        longest_interval=jnp.asarray(sums.longest_interval, jnp.int32),
        first_bad_step=jnp.asarray(sums.first_bad_step, jnp.int32),
    )
    return summarize(
        jnp.asarray(_block_exponents(sums)[begun], dtype),
        jnp.asarray(sums.lengths[begun], jnp.int32),
        diagnostics,
        state=state,
        frame=frame,
        num_steps=jnp.asarray(num_steps, jnp.int32),
        dt=jnp.asarray(sums.dt),
        are_together=are_together,
    )


def _block_exponents(sums: RunningSums) -> Float[np.ndarray, "b k"]:
    return sums.growth / np.maximum(sums.lengths, 1)[:, None]


@jax.jit
def _mean_and_error(block_exponents, weights):
    """Mean and standard error. Empty blocks have weight 0, so that shapes stay equal and this compiles once."""
    error = estimate_error(block_exponents, weights).error
    return weighted_mean(block_exponents, weights), error
