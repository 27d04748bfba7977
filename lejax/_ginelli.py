r"""Ginelli's algorithm: a forward pass of QR steps, a backward pass of triangular solves.

$J_t Q_t = Q_{t+1} R_{t+1}$ forward. A vector $Q_t c_t$ with $c_t = R_{t+1}^{-1} c_{t+1}$ is mapped into $Q_{t+1} c_{t+1}$,
and going backward almost every triangular matrix of such columns turns into that of the covariant vectors.
The forward pass keeps one state and frame for each of about $\sqrt T$ segments; the backward pass computes the steps
of one segment anew before it goes back through them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._orthonormalize import Orthonormalizer, lost, orthonormalize
from ._tangent import Push


class Record(NamedTuple):
    """One QR step: where it started, and its factor."""

    vector: Float[Array, " d"]
    columns: Float[Array, "d k"]
    triangle: Float[Array, "k k"]
    scale: Float[Array, ""]
    lost: Bool[Array, " k"]


class Covariant(NamedTuple):
    """The covariant vectors at one state, and by how much the step from it stretches them."""

    vector: Float[Array, " d"]
    vectors: Float[Array, "d k"]
    growth: Float[Array, " k"]
    lost: Bool[Array, " k"]


Total = TypeVar("Total")
Visit = Callable[[Total, Covariant, Int[Array, ""]], tuple[Total, PyTree]]


def forward(
    push: Push,
    orthonormalizer: Orthonormalizer,
    vector: Float[Array, " d"],
    frame: Float[Array, "d k"],
    inputs: PyTree,
    num_steps: int,
) -> tuple[Float[Array, " d"], Float[Array, "d k"]]:
    """State and frame after `num_steps` QR steps."""

    def step(carry, input):
        return _qr_step(push, orthonormalizer, carry, input)[0], None

    return jax.lax.scan(step, (vector, frame), inputs, length=num_steps)[0]


def forward_and_back(
    push: Push,
    orthonormalizer: Orthonormalizer,
    start: tuple[Float[Array, " d"], Float[Array, "d k"]],
    coefficients: Float[Array, "k k"],
    inputs: PyTree,
    num_steps: int,
    visit: Visit,
    total: Total,
) -> tuple[Total, PyTree]:
    """Both passes over `num_steps` steps; `visit(total, covariant, index)` sees every step, the last one first.

    Segments are equally long, so that in the last one the index goes beyond the run. What `visit` returns
    besides its total is stacked in the order of time.
    """
    length = math.isqrt(num_steps - 1) + 1
    segments = -(-num_steps // length)
    extra = segments * length - num_steps
    index = jnp.arange(segments * length, dtype=jnp.int32).reshape(segments, length)

    def cut(x):
        x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (extra, *x.shape[1:]))])
        return x.reshape(segments, length, *x.shape[1:])

    steps = (jax.tree.map(cut, inputs), index)

    def guarded(carry, step):
        input, index = step

        def move(carry):
            return _qr_step(push, orthonormalizer, carry, input)

        return jax.lax.cond(index < num_steps, move, _stay, carry)

    def out(carry, segment):
        return jax.lax.scan(lambda c, step: (guarded(c, step)[0], None), carry, segment)[0], carry

    _, starts = jax.lax.scan(out, start, steps)

    def back(carry, segment):
        start, steps = segment
        _, records = jax.lax.scan(guarded, start, steps)

        def step(carry, record):
            coefficients, total = carry
            record, index = record
            coefficients, covariant = _backward_step(record, coefficients)
            total, shown = visit(total, covariant, index)
            return (coefficients, total), shown

        return jax.lax.scan(step, carry, (records, steps[1]), reverse=True)

    (_, total), shown = jax.lax.scan(back, (coefficients, total), (starts, steps), reverse=True)
    return total, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_steps], shown)


def _qr_step(push, orthonormalizer, carry, input):
    vector, frame = carry
    following, pushed = push(input, vector, frame)
    out = orthonormalize(orthonormalizer, pushed, exact=False)
    record = Record(vector, frame, out.triangle, out.scale, lost(out))
    return (following, out.columns), record


def _stay(carry):
    """A step that does nothing."""
    vector, frame = carry
    zeros = jnp.zeros_like(frame, shape=frame.shape[1])  # varies over a mesh as the frame does
    record = Record(vector, frame, jnp.diag(zeros + 1), zeros[0] + 1, zeros > 0)
    return carry, record


def _backward_step(
    record: Record, coefficients: Float[Array, "k k"]
) -> tuple[Float[Array, "k k"], Covariant]:
    # Through a lost direction there is no way back. Its own vector is the one that the step maps to (nearly)
    # nothing: R c = R_ii e_i with c_i = 1. The others have no part in it.
    lost, triangle = record.lost, record.triangle
    identity = jnp.eye(lost.size, dtype=triangle.dtype)
    solvable = jnp.where(lost[:, None], identity, triangle)
    right = jnp.where(lost[:, None] | lost, jnp.where(lost[:, None], identity, 0), coefficients)
    with jax.default_matmul_precision("highest"):
        solution = jax.lax.linalg.triangular_solve(solvable, right, left_side=True, lower=False)
        vectors = record.columns @ solution
    length = jnp.sqrt(jnp.sum(vectors**2, axis=0))
    remainder = jnp.where(lost, jnp.diagonal(triangle), 1)
    growth = record.scale * remainder / length
    return solution / length, Covariant(record.vector, vectors / length, growth, lost)
