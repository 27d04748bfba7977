"""What a long run adds up to: as many numbers after a billion steps as after one chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.statistics import block_lengths, estimate_error, weighted_mean
from .._spectrum.report import Diagnostics, LyapunovSpectrum
from .._spectrum.sums import summarize


class Tally(NamedTuple):
    """Sums over the counted steps so far, on the host and in float64, whatever the precision of the run.

    **Fields:**

    - `growth` (b, k): Exponents times steps of each block.
    - `lengths` (b,): Steps in each block; 0 in those not yet begun.
    - `ends` (b,): The step at which each block is complete.
    - `rounding_error` (k,): The error times steps.
    - `avoidable_error` (k,): The part of it that a shorter interval would have spared, times steps.
    - `first_bad_step`: Counted from the start of the run.
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


def fixed_blocks(num_steps: int, num_blocks: int) -> Int[np.ndarray, " b"]:
    """Where the blocks of a run end whose length is known."""
    return np.cumsum(block_lengths(num_steps, num_blocks))


def growing_blocks(length: int, num_blocks: int) -> Int[np.ndarray, " b"]:
    """Where the blocks of a run end that may stop at any time. Once all are full, `merge_full` makes room."""
    return length * np.arange(1, 2 * num_blocks + 1)


def begin(ends: Int[np.ndarray, " b"], chunk: LyapunovSpectrum) -> Tally:
    """Nothing counted, in the shape of a chunk."""
    k = len(chunk.exponents)
    return Tally(
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


def add(tally: Tally, chunk: LyapunovSpectrum, start: int) -> Tally:
    """The tally after a chunk that began at step `start` of the run. A block of the chunk goes to where its first step belongs."""
    steps = np.asarray(chunk.block_steps, np.int64)
    counted = int(tally.lengths.sum())
    first = counted + np.cumsum(steps) - steps
    blocks = np.searchsorted(tally.ends, first, side="right")
    growth, lengths = tally.growth.copy(), tally.lengths.copy()
    np.add.at(growth, blocks, np.asarray(chunk.block_exponents, np.float64) * steps[:, None])
    np.add.at(lengths, blocks, steps)
    found, count = chunk.diagnostics, steps.sum()
    bad = int(found.first_bad_step)
    return tally._replace(
        growth=growth,
        lengths=lengths,
        rounding_error=tally.rounding_error + count * np.float64(found.rounding_error),
        avoidable_error=tally.avoidable_error + count * np.float64(found.avoidable_error),
        unresolved=tally.unresolved + np.asarray(found.unresolved),
        num_orthonormalizations=tally.num_orthonormalizations + int(found.num_orthonormalizations),
        longest_interval=np.maximum(tally.longest_interval, np.asarray(found.longest_interval)),
        first_bad_step=np.asarray(-1 if bad < 0 else start + bad),
    )


def merge_full(tally: Tally) -> Tally:
    """If every block is complete, pairs of them as one, which leaves half of the blocks empty."""
    if not np.array_equal(np.cumsum(tally.lengths), tally.ends):
        return tally

    def merge(rows):
        pairs = rows.reshape(-1, 2, *rows.shape[1:]).sum(axis=1)
        return np.concatenate([pairs, np.zeros_like(pairs)])

    return tally._replace(
        growth=merge(tally.growth), lengths=merge(tally.lengths), ends=2 * tally.ends
    )


def rearrange(tally: Tally, order: Int[np.ndarray, " k"]) -> Tally:
    """Some of the directions, in an order."""
    return tally._replace(
        growth=tally.growth[:, order],
        rounding_error=tally.rounding_error[order],
        avoidable_error=tally.avoidable_error[order],
        unresolved=tally.unresolved[order],
    )


def is_precise(tally: Tally, tolerance: float) -> bool:
    """Whether at least half of the blocks are complete and every finite exponent has an error below `tolerance`."""
    complete = np.cumsum(tally.lengths) >= tally.ends
    if np.sum(complete) < len(complete) // 2:
        return False
    blocks, weights = _block_exponents(tally), tally.lengths.astype(tally.dt.dtype)
    exponents, errors = map(np.asarray, _mean_and_error(blocks.astype(weights.dtype), weights))
    return bool(np.all((errors < tolerance) | ~np.isfinite(exponents)))


def report(
    tally: Tally, state: PyTree, frame: Float[Array, "d k"], are_together: Bool[Array, "..."]
) -> LyapunovSpectrum:
    """The spectrum of all that was counted; `are_together` says which directions must not ascend."""
    begun = tally.lengths > 0
    num_steps = int(tally.lengths.sum())
    dtype = tally.dt.dtype
    diagnostics = Diagnostics(
        unresolved=jnp.asarray(tally.unresolved),
        rounding_error=jnp.asarray(tally.rounding_error / num_steps, dtype),
        avoidable_error=jnp.asarray(tally.avoidable_error / num_steps, dtype),
        overlap_bias=jnp.zeros(len(tally.unresolved), dtype),
        num_orthonormalizations=jnp.asarray(tally.num_orthonormalizations),
        longest_interval=jnp.asarray(tally.longest_interval, jnp.int32),
        first_bad_step=jnp.asarray(tally.first_bad_step, jnp.int32),
    )
    return summarize(
        jnp.asarray(_block_exponents(tally)[begun], dtype),
        jnp.asarray(tally.lengths[begun], jnp.int32),
        diagnostics,
        state=state,
        frame=frame,
        num_steps=jnp.asarray(num_steps, jnp.int32),
        dt=jnp.asarray(tally.dt),
        are_together=are_together,
    )


def _block_exponents(tally: Tally) -> Float[np.ndarray, "b k"]:
    return tally.growth / np.maximum(tally.lengths, 1)[:, None]


@jax.jit
def _mean_and_error(block_exponents, weights):
    """Of as many rows whatever was done: compiled once."""
    error = estimate_error(block_exponents, weights).error
    return weighted_mean(block_exponents, weights), error
