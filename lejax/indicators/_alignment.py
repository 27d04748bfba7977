"""Generalized alignment indices: GALI_k and SALI."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, dtype_of, size_of
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions
from .._core.closures import compiled
from .._engine.factorization import Householder
from .._engine.orthonormalize import orthonormalize
from .._engine.push import tangent_dtype
from .._engine.tangent_dynamics import open_whole, random_frame


@checked
def log_alignment_index(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    order: int = 2,
    num_steps: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, " T"]:
    r"""The logarithm of GALI_k, the volume that k unit deviation vectors span, after each step.

    $$\mathrm{GALI}_k(t) = |\hat w_1(t) \wedge \dots \wedge \hat w_k(t)|$$

    On a chaotic orbit it falls like $e^{-[(\lambda_1 - \lambda_2) + \dots + (\lambda_1 - \lambda_k)] t}$; on a torus
    of at least k dimensions it stays, on a smaller one it falls as a power of t.

    **Arguments:** `cell`, `state`, `inputs`, `num_steps` as for `lyapunov_spectrum`; `order`, k, from 2 to d;
    `key` for the vectors to start from, which are orthonormal.

    **Returns:** (T,) natural logarithms, from 0 down.

    **Numerics:** the volume is that of $W = Q T$ with triangular T: $\prod T_{ii} / \prod |T_{\cdot j}|$, from sums of
    logarithms of the orthonormalized frame. No singular values, so it is differentiable where vectors align, and it goes
    on falling far below the 1e-16 at which vectors that are only normalized become parallel. O(d^2 k + d k^2) a step.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> cat = lejax.indicators.log_alignment_index(lejax.systems.Cat(), jnp.array([0.1, 0.2]), num_steps=100)
        >>> print(((cat[-1] - cat[49]) / 50).round(4))  # minus 2 log((3 + sqrt 5) / 2)
        -1.9248

    Skokos, Bountis & Antonopoulos, Physica D 231 (2007).
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, 0)
    order = check_directions("order", check_count("order", order, 2), state)
    return _log_index(cell, state, inputs, order, num_steps, key)


@checked
def smaller_alignment_index(log_gali_2: Float[Array, "*t"]) -> Float[Array, "*t"]:
    r"""SALI, the smaller alignment index, from log GALI_2.

    $$\mathrm{SALI} = \min(|\hat w_1 + \hat w_2|, |\hat w_1 - \hat w_2|) = 2 \sin(\theta / 2), \qquad
      \mathrm{GALI}_2 = \sin \theta$$

    with the angle $\theta$ from 0 to $\pi / 2$ between the lines along the two vectors.

    **Arguments:** `log_gali_2`, of `log_alignment_index(..., order=2)`, any shape. **Returns:** the same shape.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(f"{lejax.indicators.smaller_alignment_index(jnp.array(0.0)):.4f}")
        1.4142

    Skokos, J. Phys. A 34 (2001).
    """
    sine = jnp.exp(jnp.minimum(jnp.asarray(log_gali_2, float), 0))
    # 1 - sin^2 is 0 at the start, where its root has no derivative.
    square = jnp.maximum(1 - sine**2, 0)
    cosine = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return sine / jnp.sqrt((1 + cosine) / 2)


@compiled
def _log_index(cell, state, inputs, order, num_steps, key):
    random = random_frame(key, size_of(state), order, tangent_dtype(dtype_of(state)))
    push, vector, frame = open_whole(cell, state, inputs, random)
    frame = orthonormalize(Householder(), frame).columns

    def step(carry, input):
        vector, frame, triangle, log_volume = carry
        vector, pushed = push(input, vector, frame)
        out = orthonormalize(None, pushed, False)
        with jax.default_matmul_precision("highest"):
            triangle = out.triangle @ triangle
        length = jnp.sqrt(jnp.sum(triangle**2, axis=0))
        # The scale is in every column: it cancels.
        diagonal = out.log_growth - jnp.log(out.scale)
        log_volume = log_volume + jnp.sum(diagonal - jnp.log(length))
        return (vector, out.columns, triangle / length[None], log_volume), log_volume

    zeros = jnp.zeros_like(frame, shape=order)
    start = (vector, frame, jnp.diag(zeros + 1), jnp.zeros_like(frame, shape=()))
    return jax.lax.scan(step, start, inputs, length=num_steps)[1]
