r"""Ginelli's algorithm: a forward pass of QR steps, a backward pass of triangular solves.

The forward pass computes $J_t Q_t = Q_{t+1} R_{t+1}$. The Jacobian $J_t$ maps a vector $Q_t c_t$ with
$c_t = R_{t+1}^{-1} c_{t+1}$ to $Q_{t+1} c_{t+1}$, and backward in time almost every upper triangular matrix of such
columns converges to that of the covariant vectors. The forward pass stores a state and a frame at the start of each of
about $\sqrt T$ segments; the backward pass computes the steps of one segment again before it goes back through them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._engine.orthonormalize import lost_columns, orthonormalize
from .._engine.push import Push


class Record(NamedTuple):
    """An interval of e steps with one orthonormalization at its end; d numbers in the state, k vectors."""

    vectors: Float[Array, "e d"]
    frames: Float[
        Array, "e d k"
    ]  # orthonormal at the first step, pushed without orthonormalization after it
    triangle: Float[Array, "k k"]
    scale: Float[Array, ""]
    lost: Bool[Array, " k"]


class Covariant(NamedTuple):
    """The covariant vectors at one state, and the factors by which the step from it stretches them."""

    vector: Float[Array, " d"]
    vectors: Float[Array, "d k"]
    growth: Float[Array, " k"]
    lost: Bool[Array, " k"]


Total = TypeVar("Total")
Visit = Callable[[Total, Covariant, Int[Array, ""]], tuple[Total, PyTree]]


def forward(
    push: Push,
    vector: Float[Array, " d"],
    frame: Float[Array, "d k"],
    inputs: PyTree,
    num_steps: int,
) -> tuple[Float[Array, " d"], Float[Array, "d k"]]:
    """State and frame after `num_steps` steps with an orthonormalization each."""

    def step(carry, input):
        vector, frame = push(input, *carry)
        return (vector, orthonormalize(None, frame, False).columns), None

    return jax.lax.scan(step, (vector, frame), inputs, length=num_steps)[0]


def forward_and_back(
    push: Push,
    start: tuple[Float[Array, " d"], Float[Array, "d k"]],
    coefficients: Float[Array, "k k"],
    inputs: PyTree,
    num_steps: int,
    qr_interval: int,
    visit: Visit,
    total: Total,
) -> tuple[Total, PyTree]:
    """Both passes over `num_steps` steps: `visit(total, covariant, index)` is called at each step, the last step first.

    Return the last total, and what `visit` returns besides its total, stacked in the order of time. Segments have
    equal length, which is near the root of the number of intervals and leaves the fewest surplus steps in the last
    segment; the state does not move in these.
    """
    intervals = -(-num_steps // qr_interval)
    # The record of an interval takes about twice the memory of the start of a segment, and few records fit the cache.
    root = math.isqrt(intervals) // 2 + 1
    length = min(range(root, 2 * root), key=lambda n: -intervals % n)
    segments = -(-intervals // length)
    shape = (segments, length, qr_interval)
    extra = math.prod(shape) - num_steps
    index = jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)

    def cut(x):
        x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (extra, *x.shape[1:]))])
        return x.reshape(*shape, *x.shape[1:])

    steps = (jax.tree.map(cut, inputs), index)

    def interval(carry, steps):
        def step(carry, step):
            input, index = step
            if extra == 0:  # a branch costs much more than its arithmetic
                return push(input, *carry), carry
            # After the end of the run the state and the frame stay the same.
            moved = jax.lax.cond(index < num_steps, lambda c: push(input, *c), lambda c: c, carry)
            return moved, carry

        (vector, pushed), (vectors, frames) = jax.lax.scan(
            step, carry, steps, unroll=qr_interval <= 4
        )
        out = orthonormalize(None, pushed, False)
        record = Record(vectors, frames, out.triangle, out.scale, lost_columns(out))
        return (vector, out.columns), record

    def out(carry, segment):
        return jax.lax.scan(lambda c, x: (interval(c, x)[0], None), carry, segment)[0], carry

    _, starts = jax.lax.scan(out, start, steps)

    def back(carry, segment):
        start, steps = segment
        _, records = jax.lax.scan(interval, start, steps)

        def interval_back(carry, along):
            coefficients, total = carry
            record, index = along
            coefficients, covariants = _backward_interval(record, coefficients)
            total, output = jax.lax.scan(
                lambda total, x: visit(total, *x),
                total,
                (covariants, index),
                reverse=True,
                unroll=qr_interval <= 4,
            )
            return (coefficients, total), output

        return jax.lax.scan(interval_back, carry, (records, steps[1]), reverse=True)

    (_, total), output = jax.lax.scan(back, (coefficients, total), (starts, steps), reverse=True)
    return total, jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:])[:num_steps], output)


def _backward_interval(
    record: Record, coefficients: Float[Array, "k k"]
) -> tuple[Float[Array, "k k"], Covariant]:
    # A lost direction cannot be followed backward. Replace its vector by the one that the interval maps (nearly) to
    # zero: R c = R_ii e_i with c_i = 1. The other vectors have no component along it.
    lost, triangle = record.lost, record.triangle
    identity = jnp.eye(lost.size, dtype=triangle.dtype)
    solvable = jnp.where(lost[:, None], identity, triangle)
    right = jnp.where(
        lost[:, None] | lost[None], jnp.where(lost[:, None], identity, 0), coefficients
    )
    steps, size, count = record.frames.shape
    with jax.default_matmul_precision("highest"):
        solution = _solve_triangular(solvable, right)
        vectors = _times_triangular(record.frames.reshape(steps * size, count), solution)
    vectors = vectors.reshape(steps, size, count)
    lengths = jnp.sqrt(jnp.sum(vectors**2, axis=1))
    last = record.scale * jnp.where(lost, jnp.diagonal(triangle), 1)
    growth = jnp.concatenate([lengths[1:], last[None]]) / lengths
    covariants = Covariant(
        record.vectors,
        vectors / lengths[:, None],
        growth,
        jnp.broadcast_to(lost, growth.shape),
    )
    return solution / lengths[:1], covariants


def _times_triangular(frames: Float[Array, "n k"], triangle: Float[Array, "k k"]) -> Array:
    """`frames` @ `triangle`, which is upper triangular: the product for the left half skips the zeros below it."""
    half = _half(triangle)
    left = frames[:, :half] @ triangle[:half, :half]
    return jnp.concatenate([left, frames @ triangle[:, half:]], axis=1)


def _half(triangle):
    """The index at which to split a triangle in two, 0 if it is too small to gain by it."""
    count = triangle.shape[0]
    return count // 2 if count >= 32 else 0


def _solve_triangular(triangle: Float[Array, "k k"], right: Float[Array, "k k"]) -> Array:
    """`triangle`^-1 `right`, both upper triangular, in two halves: the zeros below the diagonal are skipped."""
    half = _half(triangle)
    if half == 0:
        return jax.lax.linalg.triangular_solve(triangle, right, left_side=True, lower=False)
    below = jax.lax.linalg.triangular_solve(
        triangle[half:, half:], right[half:, half:], left_side=True, lower=False
    )
    rest = right[:half, half:] - triangle[:half, half:] @ below
    above = jax.lax.linalg.triangular_solve(
        triangle[:half, :half],
        jnp.concatenate([right[:half, :half], rest], axis=1),
        left_side=True,
        lower=False,
    )
    zeros = jnp.zeros_like(right[half:, :half])
    return jnp.concatenate([above, jnp.concatenate([zeros, below], axis=1)])
